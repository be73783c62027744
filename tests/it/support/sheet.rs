//! A committed table of counts, and what is said of one that is no longer what it was.
//!
//! Counts, not times: a busy machine counts the same. They are compared both ways: what has become dearer is to be
//! looked at, what has become cheaper is to be written down, or it would not be noticed when it is lost again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where something that the counts depend on is another than when they were written down, a difference counts from so
/// many times the tolerance on.
const ELSEWHERE: f64 = 10.0;

/// Tests run beside each other, and each puts its own lines into the table.
static WRITING: Mutex<()> = Mutex::new(());

/// Counts by case; not a number where a case has none.
pub(crate) type Counts = BTreeMap<String, Vec<f64>>;

/// One column of the table.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// How far a count may be off, as a share,
    pub(crate) share: f64,
    /// and in all, where that is more.
    pub(crate) slack: f64,
}

/// The table.
pub(crate) struct Sheet {
    /// Below the repository's root.
    pub(crate) path: &'static str,
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
    /// What the counts depend on besides this repository.
    pub(crate) made_with: String,
}

impl Sheet {
    /// Compares what was counted with the table. With `OUTBOXD_WRITE_COUNTS=1` puts it into the table.
    ///
    /// The error says what has changed, a line each.
    pub(crate) fn check(&self, counted: &Counts) -> Result<(), String> {
        if is_accepting() {
            let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            let mut counts = self.read().filter(|(made_with, _)| *made_with == self.made_with).unwrap_or_default().1;
            counts.extend(counted.clone());
            self.write(&self.made_with, &counts);
            return Ok(());
        }
        let (made_with, table) =
            self.read().ok_or(format!("there is no {}: make counts-accept writes it", self.path))?;
        let is_elsewhere = made_with != self.made_with;
        let patience = if is_elsewhere { ELSEWHERE } else { 1.0 };
        let mut changes = String::new();
        for (case, counts) in counted {
            let Some(known) = table.get(case).filter(|known| known.len() == counts.len()) else {
                writeln!(changes, "{case}: not in the table").expect("writing to a string");
                continue;
            };
            for ((column, count), known) in self.columns.iter().zip(counts).zip(known) {
                let allowed = patience * (known * column.share).max(column.slack);
                let is_as_known = (count - known).abs() <= allowed || (count.is_nan() && known.is_nan());
                if !is_as_known {
                    let (name, percent) = (column.name, (count / known - 1.0) * 100.0);
                    let [count, known, allowed] = [*count, *known, allowed].map(number);
                    writeln!(changes, "{case}: {count} {name}, not {known} ({percent:+.1} %; {allowed} is let pass)")
                        .expect("writing to a string");
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        if is_elsewhere {
            let now = &self.made_with;
            writeln!(changes, "counted with {now}, the table with {made_with}: only what differs much is said")
                .expect("writing to a string");
        }
        Err(format!("{} says otherwise:\n{changes}make counts-accept writes down what is counted now.", self.path))
    }

    /// The cases that the table lists must be these; what is no longer counted is taken out when counts are accepted.
    pub(crate) fn check_cases<'a>(&self, cases: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((made_with, mut table)) = self.read() else { return Err(format!("there is no {}", self.path)) };
        let cases: Vec<&str> = cases.into_iter().collect();
        let stale: Vec<String> = table.keys().filter(|case| !cases.contains(&case.as_str())).cloned().collect();
        if is_accepting() {
            table.retain(|case, _| !stale.contains(case));
            self.write(&made_with, &table);
            return Ok(());
        }
        if stale.is_empty() { Ok(()) } else { Err(format!("{} lists what nobody counts: {stale:?}", self.path)) }
    }

    fn file(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.path)
    }

    /// What the table was made with, and its counts.
    pub(crate) fn read(&self) -> Option<(String, Counts)> {
        let text = std::fs::read_to_string(self.file()).ok()?;
        let made_with = text.lines().find_map(|line| line.strip_prefix("# made with: ")).unwrap_or_default().to_owned();
        let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
        let counts = rows.filter_map(|row| {
            let mut fields = row.split('\t');
            let case = fields.next()?.to_owned();
            Some((case, fields.map(read_number).collect::<Option<_>>()?))
        });
        Some((made_with, counts.collect()))
    }

    fn write(&self, made_with: &str, counts: &Counts) {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let mut text = format!(
            "# {} make counts-accept writes it anew.\n# made with: {made_with}\ncase\t{}\n",
            self.title,
            columns.join("\t")
        );
        for (case, counts) in counts {
            let counts: Vec<String> = counts.iter().map(|count| number(*count)).collect();
            writeln!(text, "{case}\t{}", counts.join("\t")).expect("writing to a string");
        }
        std::fs::write(self.file(), text).unwrap_or_else(|error| panic!("{} cannot be written: {error}", self.path));
    }
}

/// Whether what is counted is to be the table.
pub(crate) fn is_accepting() -> bool {
    std::env::var_os("OUTBOXD_WRITE_COUNTS").is_some_and(|value| value == "1")
}

/// With two digits after the point, if it needs them.
pub(crate) fn number(count: f64) -> String {
    if count.is_nan() {
        return "-".into();
    }
    let text = format!("{count:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn read_number(text: &str) -> Option<f64> {
    if text == "-" { Some(f64::NAN) } else { text.parse().ok() }
}
