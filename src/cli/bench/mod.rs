//! `outboxd bench`: what a delivery and a producer cost, on the machine at hand.
//!
//! Everything runs on loopback: a throwaway PostgreSQL with default durability (or `--url`), the relay
//! and the sink each in a process of their own. Figures that are compared are measured in one run, in
//! turns, because two shared cores drift.

mod latency;
mod stage;
mod tax;
mod throughput;

use super::{Exit, fail};
use serde_json::{Value, json};
use stage::Stage;

/// Flags of `outboxd bench`.
#[derive(clap::Args, Clone)]
pub struct Arguments {
    /// What to measure
    #[arg(long, value_enum, default_value = "all")]
    scenario: Scenario,
    /// A database to use instead of a throwaway server; the schema outbox in it is dropped
    #[arg(long)]
    url: Option<String>,
    /// Events of the throughput scenario
    #[arg(long, default_value_t = 60_000)]
    events: u64,
    /// Subscriptions that want each event, in the throughput scenario
    #[arg(long, default_value_t = 1)]
    subscriptions: u64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Events a second, in the latency scenario
    #[arg(long, default_value_t = 50)]
    rate: u64,
    /// Seconds of the latency scenario, and of each turn of the tax scenario
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Writers, in the tax scenario
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Turns of the throughput and tax scenarios
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Poll only, as with relay.listen = false
    #[arg(long)]
    no_listen: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Be the sink on this port (used by the benchmark itself)
    #[arg(long, hide = true)]
    sink: Option<u16>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// Deliveries a second from a backlog
    Throughput,
    /// Commit to receipt
    Latency,
    /// Writers' commits a second, bare and with the outbox
    Tax,
    /// All of them
    All,
}

/// What a scenario returns: lines for people and an object for programs.
type Report = (Vec<String>, Value);
type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the scenarios.
pub async fn bench(arguments: &Arguments) -> Exit {
    if let Some(port) = arguments.sink {
        return stage::be_the_sink(port).await;
    }
    match run(arguments).await {
        Ok(()) => Exit::Done,
        Err(e) => fail(e),
    }
}

async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let mut results = serde_json::Map::new();
    let wants = |scenario| arguments.scenario == scenario || arguments.scenario == Scenario::All;
    let mut stage = Stage::set(arguments).await?;
    results.insert("environment".into(), stage.environment().await?);
    if !arguments.json {
        println!("{}", describe(&results["environment"]));
    }
    let mut add = |name: &str, (lines, value): Report| {
        if !arguments.json {
            println!("\n{name}");
            lines.iter().for_each(|line| println!("  {line}"));
        }
        results.insert(name.into(), value);
    };
    if wants(Scenario::Throughput) {
        add("throughput", throughput::run(&mut stage, arguments).await?);
    }
    if wants(Scenario::Latency) {
        add("latency", latency::run(&mut stage, arguments).await?);
    }
    if wants(Scenario::Tax) {
        add("tax", tax::run(&mut stage, arguments).await?);
    }
    if arguments.json {
        println!("{}", Value::Object(results));
    }
    Ok(())
}

fn describe(environment: &Value) -> String {
    format!(
        "{} cores, PostgreSQL {}, synchronous_commit {}, fsync {}, outboxd {}{}",
        environment["cores"],
        environment["postgresql"].as_str().unwrap_or("?"),
        environment["synchronous_commit"].as_str().unwrap_or("?"),
        environment["fsync"].as_str().unwrap_or("?"),
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) { " (a debug build: figures mean nothing)" } else { "" },
    )
}

/// Least, median and greatest.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => (0.0, 0.0, 0.0),
        n => (values[0], values[n / 2], values[n - 1]),
    }
}

fn spread_json((least, median, greatest): (f64, f64, f64)) -> Value {
    json!({ "min": round(least), "median": round(median), "max": round(greatest) })
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
