//! Whether what lies behind, or beside, slows it down: a past of millions, somebody's old snapshot, a writer that stays
//! open, a backlog.
//!
//! Each of them has a database of its own beside one that is fresh, on one server. Turns alternate: fresh, one of them,
//! fresh, the next. A turn is a backlog that is delivered, then a steady beat.
//!
//! A past is written by SQL ([`past`]). Half of it lies in the segment that goes on being written, where its indexes are
//! what deepens; half over closed segments, as `outbox_relay.maintain` cuts one a day, which every statement has to lock
//! and to pass by. `--history-segments 0` has all of it in the current one.

use super::clock::Clock;
use super::meter::Meter;
use super::past;
use super::payloads::Payloads;
use super::report::{Report, Row, Table, column, spread_column};
use super::scene::{Turn, WARM_UP, delivered, log_end};
use super::stage::Stage;
use super::writers::{BEAT, Beat, Latency};
use super::{Arguments, BenchError};
use clap::ValueEnum;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(900);
/// An outage's events come in transactions; so many in each.
const OUTAGE_CHUNK: u64 = 5_000;

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Flatness")]
#[group(skip)]
pub(super) struct Options {
    /// Past deliveries, in millions, by row; 0 is how far two fresh databases differ. Without a value there is none
    #[arg(long, value_name = "MILLIONS", num_args = 0.., value_delimiter = ',', default_values_t = [0.0, 1.0], default_values_if("quick", "true", ["0", "0.01"]))]
    history: Vec<f64>,
    /// Closed segments that hold half of the past
    #[arg(long, value_name = "N", default_value_t = 28, value_parser = clap::value_parser!(u64).range(..=past::MOST_SEGMENTS))]
    history_segments: u64,
    /// What somebody holds open, by row. Without a value nothing
    #[arg(long, value_enum, num_args = 0.., value_delimiter = ',', default_values_t = [Held::Snapshot, Held::SnapshotWithId, Held::Writer])]
    held: Vec<Held>,
    /// Events that wait in the log when the relay starts after an outage; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 1_000_000, default_value_if("quick", "true", "5000"))]
    outage_events: u64,
    /// Events delivered from a backlog in each turn
    #[arg(long, value_name = "N", default_value_t = 30_000, default_value_if("quick", "true", "1000"))]
    flatness_events: u64,
    /// Events a second of each turn's beat
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    flatness_rate: u64,
    /// Seconds of each turn's beat
    #[arg(long, value_name = "S", default_value = "3", default_value_if("quick", "true", "1"), value_parser = super::seconds)]
    #[serde(serialize_with = "super::in_seconds")]
    flatness_seconds: Duration,
}

#[derive(clap::ValueEnum, serde::Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Held {
    /// A snapshot, from before the first turn to after the last: what dies meanwhile cannot be vacuumed
    Snapshot,
    /// In each turn a snapshot of a transaction that has an id: it is open in every other snapshot
    SnapshotWithId,
    /// In each turn an insert that is not committed: it holds the door open
    Writer,
}

/// What a database has that the fresh one lacks.
#[derive(Clone, Copy, PartialEq)]
enum What {
    /// Nothing: this is the fresh one.
    Fresh,
    Past {
        millions: f64,
    },
    Held(Held),
    Backlog,
}

struct World {
    what: What,
    stage: Stage,
    /// Where the log ended before the first turn.
    began: i64,
    meter: Meter,
    row: Row,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.flatness;
    let clock = Clock::start()?;
    let payloads = Payloads::of_size(1024);
    let beat = Beat::new(options.flatness_rate as f64, &payloads);
    let scene = Scene { options, clock, payloads, beat };
    let mut fresh = scene.world(stage, What::Fresh).await?;
    let mut worlds = vec![];
    let past = options.history.iter().map(|millions| What::Past { millions: *millions });
    for what in past.chain(options.held.iter().map(|held| What::Held(*held))) {
        worlds.push(scene.world(stage, what).await?);
    }
    let mut held = vec![];
    for world in worlds.iter().filter(|world| world.what == What::Held(Held::Snapshot)) {
        held.push(hold_snapshot(&world.stage).await?);
    }
    let mut before = scene.turn(&mut fresh).await?;
    // A round has ten turns.
    for _ in 0..arguments.runs.div_ceil(2) {
        for world in &mut worlds {
            let turn = scene.turn(world).await?;
            let after = scene.turn(&mut fresh).await?;
            turn.add_beside(&[before, after], &mut world.row);
            before = after;
        }
    }
    drop(held);
    if options.outage_events > 0 {
        let mut world = scene.world(stage, What::Backlog).await?;
        let turn = scene.outage(&mut world).await?;
        let after = scene.turn(&mut fresh).await?;
        turn.add_beside(&[before, after], &mut world.row);
        worlds.push(world);
    }
    let mut rows = vec![];
    for world in std::iter::once(fresh).chain(worlds) {
        rows.push(world.end(stage).await?);
    }
    let columns = vec![
        spread_column("deliveries_per_s", "deliveries/s", 0),
        spread_column("deliveries_ratio", "of fresh", 2),
        column("p50_ms", "p50 ms", 2),
        column("p50_ratio", "of fresh", 2),
        column("p99_ms", "p99 ms", 2),
        spread_column("p99_ratio", "of fresh", 2),
        column("relay_cpu_ms", "relay CPU ms", 3),
        column("postgres_cpu_ms", "PostgreSQL", 3),
        column("wal_bytes", "WAL bytes", 0),
        column("first_ms", "first after ms", 0),
        column("relay_peak_rss_mib", "RSS MiB", 0),
        column("dead_history_rows", "dead rows", 0),
    ];
    let notes = vec![
        format!(
            "each turn: a backlog of {} events of 1 KiB, then {} events a second for {} s from commit to receipt; \
             the ratio is to the mean of the fresh turns before and after",
            options.flatness_events,
            options.flatness_rate,
            options.flatness_seconds.as_secs_f64()
        ),
        format!("half of a past lies in {} closed segments", options.history_segments),
    ];
    Ok(Report { tables: vec![Table { name: "rows", heading: "", columns, rows }], notes })
}

struct Scene<'a> {
    options: &'a Options,
    clock: Clock,
    payloads: Payloads,
    beat: Beat,
}

impl Scene<'_> {
    async fn world(&self, stage: &Stage, what: What) -> Result<World, BenchError> {
        let (name, label) = match what {
            What::Fresh => ("fresh".into(), "fresh".into()),
            What::Past { millions } => (
                format!("past_{}", millions.to_string().replace('.', "_")),
                format!("{millions} million past deliveries"),
            ),
            What::Held(Held::Snapshot) => ("snapshot".into(), "a snapshot held for all turns".into()),
            What::Held(Held::SnapshotWithId) => ("snapshot_id".into(), "a snapshot with a transaction id".into()),
            What::Held(Held::Writer) => ("writer".into(), "a writer that stays open".into()),
            What::Backlog => ("outage".into(), format!("an outage of {} events", self.options.outage_events)),
        };
        let mut world = self.begin(stage.beside(&name).await?, what, label).await?;
        if let What::Past { millions } = what
            && millions > 0.0
        {
            // Something to be modelled on.
            let relays = world.stage.relays(1).await?;
            world.stage.fill(1).await?;
            world.stage.drained(LIMIT).await?;
            drop(relays);
            world.stage.alone().await?;
            past::succeeded(&world.stage, (millions * 1e6) as u64, self.options.history_segments).await?;
            (world.began, world.meter) = (log_end(&world.stage).await?, Meter::start(&world.stage, &[]).await?);
        }
        Ok(world)
    }

    async fn begin(&self, stage: Stage, what: What, label: String) -> Result<World, BenchError> {
        let (all, timed) = (self.clock.url(), self.clock.timed_url());
        stage.load(&self.payloads).await?;
        let subscribe = "select outbox.subscribe($1, '{order.*}'), outbox.subscribe($2, array[$3])";
        stage.client.execute(subscribe, &[&all, &timed, &BEAT]).await?;
        let past = if let What::Past { millions } = what { millions * 1e6 } else { 0.0 };
        let held = if let What::Held(held) = what { held.to_possible_value() } else { None };
        let held = held.map(|held| held.get_name().to_owned());
        let row = Row::new(label, json!({ "past_deliveries": past, "held": held }));
        let (began, meter) = (log_end(&stage).await?, Meter::start(&stage, &[]).await?);
        Ok(World { what, stage, began, meter, row })
    }

    /// A backlog, then a beat, with a relay of its own.
    async fn turn(&self, world: &mut World) -> Result<Turn, BenchError> {
        let (stage, events) = (&world.stage, self.options.flatness_events);
        let open = match world.what {
            What::Held(Held::SnapshotWithId) => Some(hold_snapshot_with_id(stage).await?),
            What::Held(Held::Writer) => Some(begin_event(stage).await?),
            _ => None,
        };
        let relays = stage.relays(1).await?;
        stage.hold(true).await?;
        stage.fill(events).await?;
        stage.checkpoint().await?;
        self.clock.reset();
        let meter = Meter::start(stage, &relays).await?;
        let began = Instant::now();
        stage.hold(false).await?;
        self.clock.wait_for(events, LIMIT).await?;
        stage.drained(LIMIT).await?;
        let per_s = events as f64 / began.elapsed().as_secs_f64();
        let used = meter.read(stage, &relays).await?;
        let latency = self.beat(stage).await?;
        if let Some(open) = open {
            // What was inserted meanwhile is delivered, too.
            open.batch_execute("commit").await?;
        }
        // What has arrived last is recorded before the relay ends.
        stage.drained(LIMIT).await?;
        drop(relays);
        used.add_to(&mut world.row, events as f64);
        let turn = Turn { per_s, latency };
        if world.what == What::Fresh {
            turn.add_to(&mut world.row);
        }
        Ok(turn)
    }

    /// The relay starts when all of it waits, with nothing of it at hand: the caches hold the end of it at best.
    async fn outage(&self, world: &mut World) -> Result<Turn, BenchError> {
        let (stage, events) = (&world.stage, self.options.outage_events);
        let mut left = events;
        while left > 0 {
            stage.fill(left.min(OUTAGE_CHUNK)).await?;
            left -= left.min(OUTAGE_CHUNK);
        }
        stage.client.batch_execute("vacuum (analyze) outbox.event").await?;
        stage.checkpoint().await?;
        self.clock.reset();
        let began = Instant::now();
        let relays = stage.relays(1).await?;
        let meter = Meter::start(stage, &relays).await?;
        self.clock.wait_for(events, LIMIT).await?;
        stage.drained(LIMIT).await?;
        let per_s = events as f64 / began.elapsed().as_secs_f64();
        let used = meter.read(stage, &relays).await?;
        let first = self.clock.first_at().map(|at| at.saturating_duration_since(began).as_secs_f64() * 1000.0);
        world.row.add_known("first_ms", first);
        used.add_to(&mut world.row, events as f64);
        let latency = self.beat(stage).await?;
        stage.drained(LIMIT).await?;
        Ok(Turn { per_s, latency })
    }

    async fn beat(&self, stage: &Stage) -> Result<Latency, BenchError> {
        let lasts = self.options.flatness_seconds;
        self.beat.last(stage, &self.clock, WARM_UP.min(lasts), lasts).await
    }
}

impl World {
    async fn end(mut self, stage: &Stage) -> Result<Row, BenchError> {
        let deliveries = delivered(&self.stage, self.began, None).await? as f64;
        self.row.add("delivered", deliveries);
        self.meter.dead(&self.stage, vec![]).await?.add_to(&mut self.row, deliveries);
        stage.drop_beside(self.stage).await?;
        Ok(self.row)
    }
}

async fn hold_snapshot(stage: &Stage) -> Result<Client, BenchError> {
    let client = stage.connect().await?;
    client.batch_execute("begin isolation level repeatable read; select from outbox.setting limit 1").await?;
    Ok(client)
}

async fn hold_snapshot_with_id(stage: &Stage) -> Result<Client, BenchError> {
    let client = hold_snapshot(stage).await?;
    client.batch_execute("select pg_current_xact_id()").await?;
    Ok(client)
}

async fn begin_event(stage: &Stage) -> Result<Client, BenchError> {
    let client = stage.connect().await?;
    client.batch_execute("begin; insert into outbox.event (type, payload) values ('order.updated', '{}')").await?;
    Ok(client)
}
