//! Writers commit as fast as they can while a relay delivers: whether it keeps up, on the cores they share.

use super::meter::Meter;
use super::payloads::Payloads;
use super::report::{Report, Row, Table, column, quantiles, spread_column};
use super::stage::Stage;
use super::writers::Flood;
use super::{Arguments, BenchError};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Live")]
#[group(skip)]
pub(super) struct Options {
    /// Writers, each of which commits one event a transaction
    #[arg(long, default_value_t = 48, default_value_if("quick", "true", "8"), value_parser = super::one_or_more)]
    live_writers: usize,
    /// How long they write
    #[arg(long, default_value_t = 15, default_value_if("quick", "true", "1"))]
    live_seconds: u32,
    /// Bytes of a payload
    #[arg(long, default_value_t = 1024)]
    live_payload_bytes: usize,
    /// Relays
    #[arg(long, default_value_t = 1, value_parser = super::one_or_more)]
    live_relays: usize,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.live;
    let payloads = Payloads::of_size(options.live_payload_bytes);
    let url = stage.sink()?.url();
    stage.subscribe(&[url]).await?;
    let mut row = Row::new(
        format!("{}, {}, {}", options.live_writers, payloads.name, options.live_relays),
        json!({ "writers": options.live_writers, "payload_bytes": options.live_payload_bytes, "relays": options.live_relays,
            "seconds": options.live_seconds }),
    );
    for _ in 0..arguments.runs {
        measure_once(stage, options, &payloads, &mut row).await?;
    }
    let columns = vec![
        spread_column("deliveries_per_s", "deliveries/s", 0),
        spread_column("commits_per_s", "commits/s", 0),
        column("commit_p50_ms", "commit p50 ms", 2),
        column("commit_p99_ms", "p99", 2),
        column("lag_max_s", "lag s, max", 2),
        column("lag_last_s", "last", 2),
        column("behind_max_events", "events behind, max", 0),
        column("behind_last_events", "last", 0),
        column("drain_s", "drain s", 2),
        column("cpu_ms", "CPU ms", 3),
        column("idle_share", "idle", 2),
        column("stolen_share", "stolen", 2),
        column("wal_bytes", "WAL bytes", 0),
        column("dead_history_rows", "dead rows", 0),
    ];
    let notes = vec![
        "Deliveries and commits while the writers write; once a second: lag, the age of the oldest event that is not \
         recorded as delivered, and events behind, how many are not; drain: how long the rest takes once they have stopped."
            .into(),
        "CPU (writers included, sink not) and WAL (inserts included) are per delivery, drain included.".into(),
    ];
    Ok(Report {
        tables: vec![Table { name: "rows", heading: "writers, payload, relays", columns, rows: vec![row] }],
        notes,
    })
}

/// Lag as `outbox.status()` has it leaves out what waits behind others of its subscription that are under way, which is
/// about receivers. Here that would be all there is in the queue, so the oldest of that counts, too.
async fn measure_once(stage: &Stage, options: &Options, payloads: &Payloads, row: &mut Row) -> Result<(), BenchError> {
    let relays = stage.relays(options.live_relays).await?;
    let watch = stage.connect().await?;
    let status = watch
        .prepare(
            "select greatest(extract(epoch from s.lag), extract(epoch from now() - e.occurred_at))::float8,
                 s.unexpanded_events + s.pending + s.leased + s.failed
             from outbox.status() s
             left join outbox.event e on e.event_seq = (select min(q.event_seq) from outbox_relay.queue q)",
        )
        .await?;
    let (finished_before, received_before) = (stage.finished().await?, stage.received()?);
    let meter = Meter::start(stage, &relays).await?;
    let flood = Flood::start(stage, options.live_writers, "outbox.event", payloads).await?;
    let started = Instant::now();
    let mut samples: Vec<(f64, f64)> = vec![];
    for second in 1..=options.live_seconds {
        sleep_until(started + Duration::from_secs(second.into())).await;
        let sample = watch.query_one(&status, &[]).await?;
        samples.push((sample.get(0), sample.get::<_, i64>(1) as f64));
    }
    let (received, took) = (stage.received()? - received_before, started.elapsed());
    let mut committed = flood.stop().await?;
    let drain = stage.drained(LIMIT).await?;
    let used = meter.read(stage, &relays).await?;

    let finished = stage.finished().await? - finished_before;
    let received_all = stage.received()? - received_before;
    if (finished, received_all) != (committed.commits, committed.commits) {
        let commits = committed.commits;
        return Err(format!("of {commits} events {finished} succeeded and {received_all} were received").into());
    }
    row.add("deliveries", finished as f64);
    row.add("received", received_all as f64);
    row.add("deliveries_per_s", received as f64 / took.as_secs_f64());
    row.add("commits_per_s", committed.per_s);
    let [p50, p99] = quantiles(&mut committed.latencies_ms, [0.5, 0.99]);
    row.add_known("commit_p50_ms", p50);
    row.add_known("commit_p99_ms", p99);
    let greatest = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).reduce(f64::max);
    row.add_known("lag_max_s", greatest(|sample| sample.0));
    row.add_known("lag_last_s", samples.last().map(|sample| sample.0));
    row.add_known("behind_max_events", greatest(|sample| sample.1));
    row.add_known("behind_last_events", samples.last().map(|sample| sample.1));
    row.add("drain_s", drain.as_secs_f64());
    let deliveries = finished as f64;
    used.add_to(row, deliveries);
    drop(watch);
    meter.dead(stage, relays).await?.add_to(row, deliveries);
    Ok(())
}
