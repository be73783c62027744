//! A retry storm: deliveries by the hundred thousand that have failed once and are all due now, and what others feel of it.
//!
//! The receiver is back, and their circuits are closed. Before and after the storm the same subscriptions get as many
//! deliveries fresh from the log, and another subscription's steady beat goes through all of it.

use super::clock::Clock;
use super::meter::Meter;
use super::past;
use super::payloads::Payloads;
use super::report::{Report, Row, Table, column, spread_column};
use super::scene::{Turn, WARM_UP, delivered, log_end};
use super::stage::{Relay, Stage};
use super::writers::{BEAT, Beat};
use super::{Arguments, BenchError};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Catch-up")]
#[group(skip)]
pub(super) struct Options {
    /// Deliveries that are due
    #[arg(long, value_name = "N", default_value_t = 200_000, default_value_if("quick", "true", "2000"))]
    storm: u64,
    /// Subscriptions among which they are spread
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    storm_subscriptions: u64,
    /// Deliveries fresh from the log, before and after
    #[arg(long, value_name = "N", default_value_t = 50_000, default_value_if("quick", "true", "1000"))]
    storm_fresh: u64,
    /// Events a second of another subscription
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    storm_rate: u64,
    /// Seconds of it alone, before and after
    #[arg(long, value_name = "S", default_value = "4", default_value_if("quick", "true", "1"), value_parser = super::seconds)]
    #[serde(serialize_with = "super::in_seconds")]
    storm_quiet_seconds: Duration,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.catch_up;
    let clock = Clock::start()?;
    let payloads = Payloads::of_size(1024);
    stage.load(&payloads).await?;
    let scene = Scene { stage, options, clock, beat: Beat::new(options.storm_rate as f64, &payloads) };
    scene.subscribe().await?;
    let what = |kind: &str| json!({ "kind": kind, "subscriptions": options.storm_subscriptions });
    let mut quiet_row = Row::new("quiet", json!({ "kind": "quiet" }));
    let mut fresh_row = Row::new("fresh from the log", what("fresh"));
    let mut storm_row = Row::new(format!("{} retries due at once", options.storm), what("storm"));
    scene.fail_once().await?;
    let began = log_end(stage).await?;
    let relays = stage.relays(1).await?;
    let meter = Meter::start(stage, &relays).await?;
    let events = options.storm_fresh / options.storm_subscriptions;
    for nth in 0..2 {
        let (warm_up, quiet) = (WARM_UP.min(options.storm_quiet_seconds), options.storm_quiet_seconds);
        scene.beat.last(stage, &scene.clock, warm_up, quiet).await?.add_to(&mut quiet_row);
        scene.turn(&relays, Kind::Fresh, events, &mut fresh_row).await?;
        if nth == 0 {
            let events = options.storm / options.storm_subscriptions;
            scene.turn(&relays, Kind::Storm, events, &mut storm_row).await?;
        }
    }
    if let (Some(storm), Some(fresh), Some(quiet)) =
        (storm_row.spread("deliveries_per_s"), fresh_row.spread("deliveries_per_s"), quiet_row.spread("p99_ms"))
    {
        storm_row.add("deliveries_ratio", storm.median / fresh.median);
        if let Some(p99) = storm_row.spread("p99_ms") {
            storm_row.add("p99_ratio", p99.median / quiet.median);
        }
    }
    scene.recorded(began).await?;
    let deliveries = delivered(stage, began, None).await? as f64;
    storm_row.add("delivered_to_all", deliveries);
    meter.dead(stage, relays).await?.add_to(&mut storm_row, deliveries);
    let columns = vec![
        spread_column("deliveries_per_s", "deliveries/s", 0),
        column("deliveries_ratio", "of fresh", 2),
        column("seconds", "s", 1),
        column("p50_ms", "others' p50 ms", 2),
        column("p99_ms", "p99 ms", 2),
        column("p999_ms", "p99.9 ms", 2),
        column("p99_ratio", "p99 of quiet", 1),
        column("relay_cpu_ms", "relay CPU ms", 3),
        column("postgres_cpu_ms", "PostgreSQL", 3),
        column("wal_bytes", "WAL bytes", 0),
        column("dead_history_rows", "dead rows", 0),
    ];
    let notes = vec![format!(
        "deliveries of 1 KiB to {} subscriptions; others: one more subscription's {} events a second, from commit to receipt",
        options.storm_subscriptions, options.storm_rate
    )];
    Ok(Report {
        tables: vec![Table { name: "rows", heading: "", columns, rows: vec![quiet_row, fresh_row, storm_row] }],
        notes,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Fresh,
    Storm,
}

struct Scene<'a> {
    stage: &'a Stage,
    options: &'a Options,
    clock: Clock,
    /// The other subscription's.
    beat: Beat,
}

impl Scene<'_> {
    /// Those of the storm, which refuse at first, and the one that beats.
    async fn subscribe(&self) -> Result<(), BenchError> {
        let count = i64::try_from(self.options.storm_subscriptions)?;
        // What has failed is not due again while it is being copied.
        let policy = "insert into outbox.retry_policy (name, delays) values ('bench', '{1h, 1h}')";
        self.stage.client.batch_execute(policy).await?;
        self.stage
            .client
            .execute(
                "select outbox.subscribe($1, '{order.*}', name => format('storm-%s', n), retry_policy => 'bench')
                 from generate_series(1, $2::int8) n",
                &[&self.clock.refusing_url(), &count],
            )
            .await?;
        let url = self.clock.timed_url();
        self.stage.client.execute("select outbox.subscribe($1, array[$2])", &[&url, &BEAT]).await?;
        Ok(())
    }

    /// One event that all of the storm's subscriptions refuse: the model of the others. Then they accept.
    async fn fail_once(&self) -> Result<(), BenchError> {
        let relays = self.stage.relays(1).await?;
        self.stage.fill(1).await?;
        let failed = "select count(*) >= $1 from outbox_relay.queue where state = 'failed'";
        let wanted = i64::try_from(self.options.storm_subscriptions)?;
        self.stage.wait_until(failed, &[&wanted], LIMIT, "nothing fails").await?;
        drop(relays);
        self.stage.alone().await?;
        let accept = "update outbox.subscription set url = $1 where starts_with(name, 'storm-')";
        self.stage.client.execute(accept, &[&self.clock.url()]).await?;
        Ok(())
    }

    /// Waits until what has arrived is recorded.
    async fn recorded(&self, beyond: i64) -> Result<(), BenchError> {
        let recorded = "select not exists (select from outbox_relay.queue where event_seq > $1)";
        self.stage.wait_until(recorded, &[&beyond], LIMIT, "what has arrived is not recorded").await
    }

    async fn turn(&self, relays: &[Relay], kind: Kind, events: u64, row: &mut Row) -> Result<(), BenchError> {
        let deliveries = events * self.options.storm_subscriptions;
        self.stage.hold(true).await?;
        match kind {
            Kind::Fresh => {
                self.stage.fill(events).await?;
                self.stage.checkpoint().await?;
            }
            Kind::Storm => past::storm(self.stage, events).await?,
        }
        self.clock.reset();
        let over = Arc::new(AtomicBool::new(false));
        let goes_on = {
            let over = over.clone();
            move || !over.load(Ordering::SeqCst)
        };
        let connected = self.beat.connect(self.stage).await?;
        let meter = Meter::start(self.stage, relays).await?;
        let began = Instant::now();
        self.stage.hold(false).await?;
        let caught_up = async {
            let done = self.clock.wait_for(deliveries, LIMIT).await;
            over.store(true, Ordering::SeqCst);
            done
        };
        let (latency, done) = tokio::join!(self.beat.last_while(connected, &self.clock, goes_on), caught_up);
        let (latency, took) = (latency?, done?.saturating_duration_since(began).as_secs_f64());
        let used = meter.read(self.stage, relays).await?;
        row.add("seconds", took);
        used.add_to(row, deliveries as f64);
        Turn { per_s: deliveries as f64 / took, latency }.add_to(row);
        Ok(())
    }
}
