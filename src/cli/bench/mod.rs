//! `outboxd bench`: what a delivery and a producer cost, on the machine at hand.
//!
//! Everything runs on loopback: a throwaway PostgreSQL with default durability (or `--url`), the relays
//! and the sink each in a process of their own; where it is measured when something arrives, the receiver
//! is a thread of this process, so that one clock measures both ends. Figures that are compared are
//! measured in one run, in turns, because two shared cores drift.
//!
//! A scenario is a module with `Options` (its sizes, each a flag, with a small value for `--quick`) and a function
//! `run` from stage and arguments to a [`Report`]; [`Scenario`] and [`measure`] list them.

mod catch_up;
mod clock;
mod crowd;
mod fan_out;
mod flatness;
mod isolation;
mod latency;
mod limits;
mod live;
mod machine;
mod meter;
mod past;
mod payloads;
mod report;
mod scene;
mod sink;
mod stage;
mod tax;
mod throughput;
mod writers;

use super::{Exit, fail};
use crate::schema::describe;
use clap::ValueEnum;
use report::Report;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use stage::Stage;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `outboxd bench`; the JSON has them as its configuration.
#[derive(clap::Args, Serialize, Clone)]
pub struct Arguments {
    /// What to measure: one or several, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scenario::value_variants().to_vec())]
    scenario: Vec<Scenario>,
    /// A database to use instead of a throwaway server; the schema outbox in it is dropped
    // It may hold a password.
    #[arg(long)]
    #[serde(skip)]
    url: Option<String>,
    /// How often each figure is measured; told are median, least and greatest. Flatness takes half as many rounds of its
    /// turns, isolation and many tenants a third; a million of backlog, an outage and a storm are measured once
    #[arg(long, default_value_t = 3, default_value_if("quick", "true", "1"), value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Small sizes, once: whether everything works, in less than a minute
    #[arg(long)]
    quick: bool,
    /// Real payloads: a JSON file, or a directory of them
    #[arg(long, value_name = "DIR_OR_FILE")]
    payloads: Option<PathBuf>,
    /// Relays poll only, as with relay.listen = false
    #[arg(long)]
    no_listen: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Be the sink (used by the benchmark itself)
    #[arg(long, hide = true)]
    #[serde(skip)]
    sink: bool,
    /// Be the hand-written loop with so many workers (used by the benchmark itself)
    #[arg(long, hide = true)]
    #[serde(skip)]
    skip_locked: Option<usize>,
    #[command(flatten)]
    throughput: throughput::Options,
    #[command(flatten)]
    live: live::Options,
    #[command(flatten)]
    latency: latency::Options,
    #[command(flatten)]
    tax: tax::Options,
    #[command(flatten)]
    flatness: flatness::Options,
    #[command(flatten)]
    isolation: isolation::Options,
    #[command(flatten)]
    fan_out: fan_out::Options,
    #[command(flatten)]
    catch_up: catch_up::Options,
    #[command(flatten)]
    limits: limits::Options,
}

#[derive(ValueEnum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Scenario {
    /// Deliveries a second from a backlog, and what one costs
    Throughput,
    /// Deliveries a second while writers commit as fast as they can
    Live,
    /// Commit to receipt, at steady rates
    Latency,
    /// Writers' commits a second, bare and with the outbox
    Tax,
    /// Throughput and latency with a past, an old snapshot, an open writer, after an outage
    Flatness,
    /// What healthy subscriptions feel of bad ones
    Isolation,
    /// Many subscriptions, many tenants
    FanOut,
    /// A storm of retries
    CatchUp,
    /// What HTTP alone and SQL alone carry, and what other job queues do (--peers)
    Limits,
}

async fn measure(scenario: Scenario, stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    match scenario {
        Scenario::Throughput => throughput::run(stage, arguments).await,
        Scenario::Live => live::run(stage, arguments).await,
        Scenario::Latency => latency::run(stage, arguments).await,
        Scenario::Tax => tax::run(stage, arguments).await,
        Scenario::Flatness => flatness::run(stage, arguments).await,
        Scenario::Isolation => isolation::run(stage, arguments).await,
        Scenario::FanOut => fan_out::run(stage, arguments).await,
        Scenario::CatchUp => catch_up::run(stage, arguments).await,
        Scenario::Limits => limits::run(stage, arguments).await,
    }
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A length of time, as an option gives it.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "seconds above zero are expected".into())
}

fn in_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// A count of processes, connections or workers, as an option gives it.
fn one_or_more(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number above zero is expected".into())
}

type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the scenarios.
pub async fn bench(arguments: &Arguments) -> Exit {
    let done = match arguments.skip_locked {
        Some(workers) => limits::skip_locked::be_the_loop(workers).await,
        None if arguments.sink => sink::be_the_sink(),
        None => run(arguments).await,
    };
    match done {
        Ok(()) => Exit::Done,
        Err(e) => fail(why(&e)),
    }
}

/// What went wrong, for people: PostgreSQL's own errors say "db error" and no more.
fn why(e: &BenchError) -> String {
    e.downcast_ref().map_or_else(|| e.to_string(), describe)
}

/// A scenario that fails says why in the place of its figures, and does not take those of the others with it.
async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let mut results = serde_json::Map::new();
    let mut stage = Stage::set(arguments).await?;
    let environment = machine::environment(&stage).await?;
    if !arguments.json {
        machine::describe(&environment).iter().for_each(|line| println!("{line}"));
    }
    results.insert("environment".into(), environment);
    results.insert("configuration".into(), serde_json::to_value(arguments)?);
    let mut failed = vec![];
    for scenario in Scenario::value_variants().iter().filter(|scenario| arguments.scenario.contains(scenario)) {
        let measured = match stage.anew().await {
            Ok(()) => measure(*scenario, &mut stage, arguments).await,
            Err(e) => Err(e),
        };
        let name = scenario.name();
        let (lines, json) = match measured {
            Ok(report) => (report.lines(), report.json()),
            Err(e) => {
                let why = why(&e);
                failed.push(format!("{name}: {why}"));
                (vec![format!("failed: {why}")], json!({ "error": why }))
            }
        };
        if !arguments.json {
            println!("\n{name}");
            lines.iter().for_each(|line| println!("  {line}"));
        }
        results.insert(name, json);
    }
    if arguments.json {
        println!("{}", Value::Object(results));
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}
