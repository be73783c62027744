//! `make faults`: many runs, each with the faults that its seed draws, and a report.
//!
//! A program rather than a test: the short form is `tests/it/faults.rs`. A run is told by its seed:
//! `make faults ARGS='--seed 4711 --runs 1'` plays it again. What the operating system schedules is not in the seed.

#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use all of it")]
mod support;

mod report;
mod run;
mod scenarios;

use report::Report;
use run::plan::{Kind, Plan};
use run::{Server, play};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

struct Options {
    runs: u64,
    seed: u64,
    faults: usize,
    workers: usize,
    only: Vec<Kind>,
    directory: PathBuf,
    /// The report must have the model and the single scenarios in it.
    is_whole: bool,
}

impl Options {
    const USAGE: &str = "options: --runs N (200), --seed N (the first; drawn), --faults N in each run (5), --workers N runs at once (3),
         --only KIND,KIND, --report DIRECTORY (target/faults), --whole yes: the model and the scenarios must have run";

    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            runs: 200,
            seed: u64::from(fastrand::u32(..)),
            faults: 5,
            workers: 3,
            only: Vec::new(),
            directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/faults"),
            is_whole: false,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} without a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
            let count = || number().and_then(|number| usize::try_from(number).map_err(|error| error.to_string()));
            match name.as_str() {
                "--runs" => options.runs = number()?,
                "--seed" => options.seed = number()?,
                "--faults" => options.faults = count()?,
                "--workers" => options.workers = count()?.max(1),
                "--only" => {
                    options.only = value
                        .split(',')
                        .map(|name| {
                            Kind::ALL
                                .into_iter()
                                .find(|kind| kind.name() == name)
                                .ok_or_else(|| format!("there is no fault {name}"))
                        })
                        .collect::<Result<_, _>>()?;
                }
                "--report" => options.directory = PathBuf::from(value),
                "--whole" => options.is_whole = value == "yes",
                _ => return Err(format!("there is no {name}")),
            }
        }
        Ok(options)
    }

    /// What the report is of.
    fn heading(&self, server: &Server) -> String {
        let described = Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]).output();
        let commit = described.ok().filter(|output| output.status.success());
        let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
        // The major version.
        let postgres = std::fs::read_to_string(server.data_dir.join("PG_VERSION")).unwrap_or_default();
        let only: Vec<_> = self.only.iter().map(|kind| kind.name()).collect();
        format!(
            "{}: outboxd {} at {}, PostgreSQL {}; from seed {}, {} faults in each run{}, {} runs at a time.",
            jiff::Zoned::now().date(),
            env!("CARGO_PKG_VERSION"),
            commit.as_deref().map_or("no commit", str::trim),
            postgres.trim(),
            self.seed,
            self.faults,
            if only.is_empty() { String::new() } else { format!(" of {}", only.join(", ")) },
            self.workers,
        )
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&arguments) {
        Ok(options) => Arc::new(options),
        Err(error) => {
            eprintln!("{error}\n{}", Options::USAGE);
            return ExitCode::from(2);
        }
    };
    println!("{} runs from seed {}", options.runs, options.seed);
    let mut servers = Vec::new();
    for _ in 0..options.workers {
        servers.push(Server::start().await);
    }
    let report = Report::new(&options.directory, options.heading(&servers[0]));
    let (next, report) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(report)));
    let mut workers = JoinSet::new();
    for server in servers {
        let (options, next, report) = (options.clone(), next.clone(), report.clone());
        workers.spawn(async move {
            loop {
                let nth = next.fetch_add(1, Ordering::SeqCst);
                if nth >= options.runs {
                    break;
                }
                let plan = Plan::new(options.seed.wrapping_add(nth), options.faults, &options.only);
                let outcome = play(server.clone(), plan).await;
                let mut report = report.lock().await;
                println!("{}", report.add(&outcome));
            }
        });
    }
    let mut broken = false;
    while let Some(worker) = workers.join_next().await {
        if let Err(error) = worker {
            eprintln!("a worker failed: {error}");
            broken = true;
        }
    }
    let report = report.lock().await;
    match report.write() {
        Ok(text) => println!("\n{text}"),
        Err(error) => {
            eprintln!("the report could not be written below {}: {error}", options.directory.display());
            broken = true;
        }
    }
    let lacks = if options.is_whole { Report::lacks() } else { Vec::new() };
    for missing in &lacks {
        eprintln!("the report has nothing of {missing}");
        broken = true;
    }
    if broken || !report.is_clean() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
