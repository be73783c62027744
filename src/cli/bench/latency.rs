//! Commit to receipt: from the moment a writer's COMMIT returned to the moment the whole request has been read.

use super::clock::Clock;
use super::payloads::Payloads;
use super::report::{Report, Row, Table, column, spread_column};
use super::stage::Stage;
use super::writers::Beat;
use super::{Arguments, BenchError};
use serde_json::json;
use std::time::Duration;

/// With fewer events a run says nothing of a rate.
const LEAST_EVENTS: f64 = 20.0;
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Latency")]
#[group(skip)]
pub(super) struct Options {
    /// Events a second, by row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50, 500, 2000], default_value_if("quick", "true", "50,500"),
        value_parser = clap::value_parser!(u64).range(1..))]
    rates: Vec<u64>,
    /// Seconds of a run at one rate; longer where there would be less than 20 events
    #[arg(long, default_value = "8", default_value_if("quick", "true", "0.5"), value_parser = super::seconds)]
    #[serde(serialize_with = "super::in_seconds")]
    latency_seconds: Duration,
    /// Connections that write at one rate
    #[arg(long, default_value_t = 16, value_parser = super::one_or_more)]
    latency_writers: usize,
    /// Bytes of a payload
    #[arg(long, default_value_t = 1024)]
    latency_payload_bytes: usize,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.latency;
    let payloads = Payloads::of_size(options.latency_payload_bytes);
    let clock = Clock::start()?;
    stage.subscribe(&[clock.timed_url()]).await?;
    let mut rows: Vec<Row> = options.rates.iter().map(|rate| new_row(*rate, arguments)).collect();
    let relays = stage.relays(1).await?;
    for _ in 0..arguments.runs {
        for (rate, row) in options.rates.iter().zip(&mut rows) {
            let beat = Beat { writers: options.latency_writers, ..Beat::new(*rate as f64, &payloads) };
            let warm_up = options.latency_seconds.min(Duration::from_secs(1));
            let lasts = options.latency_seconds.max(Duration::from_secs_f64(LEAST_EVENTS / *rate as f64));
            let latency = beat.last(stage, &clock, warm_up, lasts).await?;
            // What has arrived last is recorded before the next rate begins.
            stage.drained(LIMIT).await?;
            row.add("events", latency.events as f64);
            latency.add_to(row);
        }
    }
    drop(relays);
    let columns = vec![
        column("events", "events", 0),
        column("achieved_per_s", "achieved", 1),
        spread_column("p50_ms", "p50 ms", 2),
        spread_column("p99_ms", "p99 ms", 2),
        spread_column("p999_ms", "p99.9 ms", 2),
        column("from_schedule_p50_ms", "from schedule p50", 2),
        column("from_schedule_p99_ms", "p99", 2),
    ];
    let how = if arguments.no_listen { "polling" } else { "the doorbell" };
    let notes = vec![
        format!(
            "Commit to receipt, with {how}; from schedule: from when the event was due to be inserted, with the insert \
             and whatever held its writer up."
        ),
        "Of fewer than 1,000 events p99.9 is the greatest, of fewer than 100 p99 as well.".into(),
    ];
    Ok(Report { tables: vec![Table { name: "rows", heading: "events/s", columns, rows }], notes })
}

fn new_row(rate: u64, arguments: &Arguments) -> Row {
    let what = json!({ "rate_per_s": rate, "listen": !arguments.no_listen, "payload_bytes": arguments.latency.latency_payload_bytes });
    Row::new(rate.to_string(), what)
}
