//! `outboxd bench`: what a delivery and a producer cost, on the machine at hand.
//!
//! Everything runs on loopback: a throwaway PostgreSQL with default durability (or `--url`), the relays
//! and the sink each in a process of their own. Figures that are compared are measured in one run, in
//! turns, because two shared cores drift.
//!
//! A scenario is a module with `Options` (its sizes, each a flag, with a small value for `--quick`) and a function
//! `run` from stage and arguments to a [`Report`]; [`Scenario`] and [`measure`] list them.

mod catch_up;
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
use serde_json::Value;
use stage::Stage;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `outboxd bench`.
#[derive(clap::Args, Clone)]
pub struct Arguments {
    /// What to measure: one or several, separated by commas
    #[arg(long, value_enum, default_value = "all", value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// A database to use instead of a throwaway server; the schema outbox in it is dropped
    #[arg(long)]
    url: Option<String>,
    /// How often each figure is measured; told are median, least and greatest
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
    sink: bool,
    /// Be the hand-written loop with so many workers (used by the benchmark itself)
    #[arg(long, hide = true)]
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

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
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
    /// All of them
    All,
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
        Scenario::All => Ok(Report::default()),
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
        // PostgreSQL's own errors say "db error" and no more.
        Err(e) => fail(e.downcast_ref().map_or_else(|| e.to_string(), describe)),
    }
}

async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let mut results = serde_json::Map::new();
    let mut stage = Stage::set(arguments).await?;
    let environment = machine::environment(&stage).await?;
    if !arguments.json {
        machine::describe(&environment).iter().for_each(|line| println!("{line}"));
    }
    results.insert("environment".into(), environment);
    let wanted = Scenario::value_variants().iter().filter(|scenario| {
        **scenario != Scenario::All
            && (arguments.scenario.contains(scenario) || arguments.scenario.contains(&Scenario::All))
    });
    for scenario in wanted {
        stage.anew().await?;
        let report = measure(*scenario, &mut stage, arguments).await?;
        if !arguments.json {
            println!("\n{}", scenario.name());
            report.lines().iter().for_each(|line| println!("  {line}"));
        }
        results.insert(scenario.name(), report.json());
    }
    if arguments.json {
        println!("{}", Value::Object(results));
    }
    Ok(())
}
