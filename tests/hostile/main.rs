//! `make bench-hostile`: what healthy subscriptions feel when all hostile receivers there are stand beside them.
//!
//! One relay, in a process of its own, on a throwaway PostgreSQL. 200 subscriptions get events at a steady rate,
//! first alone, then beside several subscriptions at each of the receivers that the tests know by name (a third
//! process), which get events of their own. Compared are commit to receipt of the healthy ones, and the relay's
//! resident memory. A program rather than a test: what it finds depends on the machine.

#[path = "../it/support/hostile/mod.rs"]
#[allow(dead_code, reason = "the tests count what these receivers send")]
mod hostile;
mod measure;
mod stage;

use measure::{Latencies, Rss};
use serde_json::json;
use stage::{Invited, Options, Stage};
use std::process::ExitCode;
use std::time::Duration;

type BenchError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [be, trap, ca] = &arguments[..]
        && be == "--be-the-receivers"
    {
        return stage::be_the_receivers(trap, ca).await;
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(unknown) => {
            eprintln!("{unknown}\n{}", Options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), BenchError> {
    let stage = Stage::set(options).await?;
    // Connections, plans and the allocator are warm then.
    stage.beat(Duration::from_secs(5)).await?;
    let alone = phase(&stage, options.seconds, None).await?;
    let other = if options.apart { Some(Stage::set(options).await?) } else { None };
    let host = other.as_ref().unwrap_or(&stage);
    let hostile = host.invite_the_hostile(options.copies).await?;
    let beside = phase(&stage, options.seconds, Some((host, &hostile))).await?;
    let outcomes = host.outcomes().await?;
    let lost = stage.unaccounted().await?;
    let ratio = |share: f64| beside.latencies.at(share) / alone.latencies.at(share);
    if options.json {
        let value = json!({
            "healthy_subscriptions": options.healthy, "rate_per_s": options.rate, "seconds": options.seconds,
            "hostile_receivers": hostile.receivers, "hostile_subscriptions": hostile.subscriptions,
            "alone": alone.json(), "beside": beside.json(),
            "p50_ratio": ratio(0.5), "p99_ratio": ratio(0.99), "hostile_outcomes": outcomes, "unaccounted": lost,
        });
        println!("{value}");
        return Ok(());
    }
    println!(
        "{} healthy subscriptions at {}/s for {} s; then beside {} subscriptions at {} hostile receivers{}{}",
        options.healthy,
        options.rate,
        options.seconds,
        hostile.subscriptions,
        hostile.receivers,
        if options.apart { ", served by another relay and PostgreSQL" } else { "" },
        if cfg!(debug_assertions) { " (a debug build: figures mean little)" } else { "" }
    );
    println!("\n                        alone      beside    ratio");
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        let (before, after) = (alone.latencies.at(share), beside.latencies.at(share));
        println!("  {name:<8} ms     {before:>9.2}   {after:>9.2}   {:>6.2}", after / before);
    }
    println!("  events           {:>9}   {:>9}", alone.latencies.len(), beside.latencies.len());
    for (nth, name) in ["relay", "PostgreSQL", "hostile"].into_iter().enumerate() {
        println!("  cpu % {name:<10} {:>9.1}   {:>9.1}", alone.cpu_percent[nth], beside.cpu_percent[nth]);
    }
    for (name, before, after) in alone.calls.iter().filter_map(|(name, before)| {
        beside.calls.iter().find(|(other, _)| other == name).map(|(_, after)| (name, before, after))
    }) {
        println!("  {name:<10} calls/s {:>7.1}   {:>9.1}", before.per_s, after.per_s);
        println!("             ms each {:>7.2}   {:>9.2}", before.ms, after.ms);
    }
    println!("  RSS MiB, highest {:>9.1}   {:>9.1}", alone.rss.highest(), beside.rss.highest());
    println!("  RSS MiB beside, over time: {}", beside.rss.over_time(8));
    println!(
        "\n  hostile attempts: {}",
        outcomes.iter().map(|(o, n)| format!("{o} {n}")).collect::<Vec<_>>().join(", ")
    );
    println!("  unaccounted events: {lost}");
    Ok(())
}

struct Phase {
    latencies: Latencies,
    rss: Rss,
    /// Of the relay, PostgreSQL and the hostile receivers.
    cpu_percent: [f64; 3],
    calls: Vec<(String, Calls)>,
}

/// Of one function of the database.
#[derive(serde::Serialize)]
struct Calls {
    per_s: f64,
    ms: f64,
}

impl Phase {
    fn json(&self) -> serde_json::Value {
        json!({
            "events": self.latencies.len(), "p50_ms": self.latencies.at(0.5), "p90_ms": self.latencies.at(0.9),
            "p99_ms": self.latencies.at(0.99), "p999_ms": self.latencies.at(0.999),
            "cpu_percent": self.cpu_percent, "calls": self.calls, "rss_mib": self.rss.samples(), "rss_highest_mib": self.rss.highest(),
        })
    }
}

async fn phase(stage: &Stage, seconds: u64, hostile: Option<(&Stage, &Invited)>) -> Result<Phase, BenchError> {
    let duration = Duration::from_secs(seconds);
    let (cpu_before, calls_before) = (cpu_s(stage, hostile), stage.calls().await?);
    let watching = tokio::spawn(Rss::watch(stage.relay_id(), duration));
    let latencies = if let Some((host, invited)) = hostile {
        let (latencies, provoked) = tokio::join!(stage.beat(duration), host.provoke(duration, invited));
        provoked?;
        latencies?
    } else {
        stage.beat(duration).await?
    };
    let used = cpu_s(stage, hostile);
    let cpu_percent = std::array::from_fn(|nth| (used[nth] - cpu_before[nth]) / duration.as_secs_f64() * 100.0);
    let calls = stage.calls().await?.into_iter().map(|(name, count, ms)| {
        let before = calls_before.iter().find(|(other, ..)| *other == name).map_or((0, 0.0), |(_, n, ms)| (*n, *ms));
        let made = (count - before.0) as f64;
        (name, Calls { per_s: made / duration.as_secs_f64(), ms: (ms - before.1) / made.max(1.0) })
    });
    Ok(Phase { latencies, rss: watching.await?, cpu_percent, calls: calls.collect() })
}

/// Of the relay of the healthy, its PostgreSQL, and the hostile receivers, whoever serves them.
fn cpu_s(stage: &Stage, hostile: Option<(&Stage, &Invited)>) -> [f64; 3] {
    let mut used = stage.cpu_s();
    used[2] = hostile.map_or(used[2], |(host, _)| host.cpu_s()[2]);
    used
}
