//! `make counts`: how many instructions the pure parts of a delivery take, compared with a committed table.
//!
//! Instructions, because two shared cores tell a time only within a tenth or two, and the same program takes the same
//! instructions wherever it runs. All cases run in one process under valgrind's callgrind, which counts within
//! [`measured`] alone and writes its counts down whenever that returns; neither needs unsafe code or another crate.
//! (Rejected: gungraun, once iai-callgrind, which does the same with a runner that has to be installed in the very
//! version of the crate, and a process for each case.)
//!
//! What is counted is nearly a release build (`profile.toml`) on the processor that valgrind plays. That one has no
//! instructions for SHA: nine tenths of a signature's count are SHA-256 in software.

mod callgrind;
mod cases;
#[path = "../../tests/it/support/sheet.rs"]
#[allow(dead_code, reason = "its tests run among the others")]
mod sheet;

use cases::Case;
use sheet::{Column, Counts, Sheet};
use std::hint::black_box;
use std::process::ExitCode;

/// How this program tells itself that it is the one that is counted.
const BE_COUNTED: &str = "--be-counted";

/// Counted again they are the same, but for look-ups by hash, which differ by 2 %. What a change elsewhere makes of the heap
/// and of what is inlined stays below these.
const COLUMNS: [Column; 1] = [Column { name: "instructions", share: 0.02, slack: 60.0 }];

fn main() -> ExitCode {
    let cases = cases::all();
    if std::env::args().any(|argument| argument == BE_COUNTED) {
        cases.iter().for_each(run);
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("OUTBOXD_COUNTS").is_none() {
        eprintln!("this is built in another way than what the table counts: make counts");
        return ExitCode::from(2);
    }
    match compare(&cases) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("{complaint}");
            ExitCode::FAILURE
        }
    }
}

/// Once to be warm, then to be counted.
fn run(case: &Case) {
    (case.run)();
    measured(&*case.run);
}

/// What happens within is counted; callgrind knows this function by its name.
#[inline(never)]
fn measured(run: &dyn Fn()) {
    run();
    // Not a jump into what was called, or it would not return here.
    black_box(());
}

fn compare(cases: &[Case]) -> Result<(), String> {
    let counts = callgrind::counts(BE_COUNTED, concat!(env!("CARGO_CRATE_NAME"), "::measured"))?;
    // The last part is what was counted after the last case: nothing.
    let [counts @ .., 0] = &counts[..] else { return Err("callgrind counted beyond the cases".into()) };
    if counts.len() != cases.len() {
        return Err(format!(
            "callgrind counted {} cases of {}: is `measured` still called by its name?",
            counts.len(),
            cases.len()
        ));
    }
    let counted: Counts =
        cases.iter().zip(counts).map(|(case, count)| (case.name.clone(), vec![*count as f64])).collect();
    if counted.len() != cases.len() {
        return Err("two cases have one name".into());
    }
    let sheet = Sheet {
        path: "benches/instructions.tsv",
        title: "Instructions of the pure parts of a delivery (make counts).",
        columns: &COLUMNS,
        made_with: callgrind::made_with()?,
    };
    print(&counted, &sheet.read().map(|(_, table)| table).unwrap_or_default());
    sheet.check(&counted)?;
    sheet.check_cases(counted.keys().map(String::as_str))
}

fn print(counted: &Counts, table: &Counts) {
    for (case, count) in counted {
        let change =
            table.get(case).map_or("new".into(), |known| format!("{:+.1} %", (count[0] / known[0] - 1.0) * 100.0));
        println!("{:>12}  {change:>8}  {case}", count[0]);
    }
}
