//! Deliveries a second from a backlog: what the loop, the database and the client carry together.
//!
//! The relays are up and on hold while the backlog is written, then released. Every run is checked: as many deliveries
//! have succeeded as there must be, and the sink has answered as many requests.

use super::meter::{Meter, Used};
use super::payloads::{self, Payloads};
use super::report::{Report, Row, Table, column, spread_column};
use super::stage::{Relay, Stage};
use super::{Arguments, BenchError};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longer than any row takes on a machine that is worth measuring.
const LIMIT: Duration = Duration::from_secs(900);

/// So many say how many statements a delivery takes.
const COUNTED_EVENTS: u64 = 10_000;

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Throughput")]
#[group(skip)]
pub(super) struct Options {
    /// Deliveries of a row: so many events to one subscription, a tenth to ten; a quarter where payloads are larger than 4 KiB
    #[arg(long, default_value_t = 40_000, default_value_if("quick", "true", "1000"))]
    deliveries: u64,
    /// Subscriptions that want each event, by row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10], value_parser = clap::value_parser!(u64).range(1..))]
    subscriptions: Vec<u64>,
    /// Bytes of a made-up payload, by row
    #[arg(long, value_delimiter = ',', default_values_t = [307, 1024, 16384], default_value_if("quick", "true", "307"))]
    payload_bytes: Vec<usize>,
    /// Relays; rows with several have payloads of 1 KiB, or else of the first size
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = super::one_or_more)]
    relays: Vec<usize>,
    /// Events of the row that shows a relay's memory beside a large backlog; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000, default_value_if("quick", "true", "5000"))]
    backlog: u64,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.throughput;
    let mut report = Report::default();
    let mut all: Vec<Payloads> = options.payload_bytes.iter().map(|bytes| Payloads::of_size(*bytes)).collect();
    match Payloads::real(arguments) {
        Ok(real) => all.push(real),
        Err(e) => report.notes.push(format!("no row of real payloads: {e}")),
    }
    let several_with = if options.payload_bytes.contains(&1024) { 1024 } else { options.payload_bytes[0] };
    for payloads in &all {
        let (bytes, stored_bytes) = (payloads.mean_bytes(), stage.load(payloads).await?);
        if stored_bytes < bytes * 0.9 {
            let (name, share) = (&payloads.name, stored_bytes / bytes);
            report.notes.push(format!("PostgreSQL compresses payloads of {name} to {share:.2} of their size."));
        }
    }
    let mut rows = vec![];
    for relays in &options.relays {
        for payloads in &all {
            if *relays > 1 && payloads.name != payloads::size(several_with) {
                continue;
            }
            for subscriptions in &options.subscriptions {
                let deliveries = options.deliveries / if payloads.mean_bytes() > 4096.0 { 4 } else { 1 };
                let events = (deliveries / subscriptions).max(1);
                let case = Case { payloads, events, subscriptions: *subscriptions, relays: *relays };
                rows.push(case.measure(stage, arguments.runs).await?);
            }
        }
    }
    if let Some(payloads) = all.first().filter(|_| options.backlog > 0) {
        let case = Case { payloads, events: options.backlog, subscriptions: 1, relays: 1 };
        rows.push(case.measure(stage, 1).await?);
    }
    let columns = vec![
        spread_column("deliveries_per_s", "deliveries/s", 0),
        column("cpu_ms", "CPU ms", 3),
        column("relay_cpu_ms", "relay", 3),
        column("postgres_cpu_ms", "PostgreSQL", 3),
        column("sink_cpu_ms", "(sink)", 3),
        column("idle_share", "idle", 2),
        column("stolen_share", "stolen", 2),
        column("wal_bytes", "WAL bytes", 0),
        column("wal_with_event_bytes", "with event", 0),
        column("round_trips", "round trips", 3),
        column("statements", "statements", 3),
        column("dead_history_rows", "dead rows", 0),
        column("dead_queue_rows", "in queue", 2),
        column("relay_peak_rss_mib", "RSS MiB", 0),
    ];
    report.tables.push(Table { name: "rows", heading: "events x subscriptions, payload, relays", columns, rows });
    report.notes.push(
        "CPU, WAL, round trips, statements and dead rows in the queue are per delivery; CPU is without the sink's; \
         idle and stolen are shares of the cores' time: with much of either, the cores were not what set the pace. \
         Dead rows are those in event, finished and attempt, all together."
            .into(),
    );
    Ok(report)
}

#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) payloads: &'a Payloads,
    pub(super) events: u64,
    pub(super) subscriptions: u64,
    pub(super) relays: usize,
}

struct Delivered {
    meter: Meter,
    used: Used,
    finished: u64,
    received: u64,
}

impl Case<'_> {
    async fn measure(self, stage: &mut Stage, runs: u32) -> Result<Row, BenchError> {
        let url = stage.sink()?.url();
        stage.subscribe(&vec![url; usize::try_from(self.subscriptions)?]).await?;
        let stored_bytes = stage.load(self.payloads).await?;
        let mut row = Row::new(
            format!("{} x {}, {}, {}", self.events, self.subscriptions, self.payloads.name, self.relays),
            json!({ "events": self.events, "subscriptions": self.subscriptions, "payload": self.payloads.name,
                "payload_bytes": self.payloads.mean_bytes().round(), "stored_bytes": stored_bytes.round(), "relays": self.relays }),
        );
        for _ in 0..runs {
            self.time(stage, &mut row).await?;
        }
        let few = Self { events: self.events.min(COUNTED_EVENTS), ..self };
        few.count(stage, &mut row).await?;
        Ok(row)
    }

    /// A run of which everything but the statements is told, to payloads that are loaded.
    pub(super) async fn time(self, stage: &Stage, row: &mut Row) -> Result<Used, BenchError> {
        let relays = stage.relays(self.relays).await?;
        stage.hold(true).await?;
        let meter = Meter::start(stage, &[]).await?;
        stage.fill(self.events).await?;
        let filled = meter.read(stage, &[]).await?;
        stage.checkpoint().await?;

        let Delivered { meter, used, finished, received } = self.deliver(stage, &relays).await?;
        let deliveries = finished as f64;
        row.add("deliveries", deliveries);
        row.add("received", received as f64);
        row.add("deliveries_per_s", deliveries / used.took.as_secs_f64());
        used.add_to(row, deliveries);
        row.add("wal_with_event_bytes", (used.wal_bytes + filled.wal_bytes) / deliveries);
        meter.dead(stage, relays).await?.add_to(row, deliveries);
        Ok(used)
    }

    /// A run of its own that counts the statements.
    async fn count(self, stage: &Stage, row: &mut Row) -> Result<(), BenchError> {
        let relays = stage.counted_relays(self.relays).await?;
        stage.hold(true).await?;
        stage.fill(self.events).await?;
        let Delivered { used, finished, .. } = self.deliver(stage, &relays).await?;
        let deliveries = finished as f64;
        row.add_known("round_trips", used.round_trips.map(|calls| calls / deliveries));
        row.add_known("statements", used.statements.map(|calls| calls / deliveries));
        Ok(())
    }

    /// Lets go of the backlog; what it took until the last delivery was recorded. Deliveries that succeeded and requests
    /// that the sink has answered must both be as many as there are to be.
    async fn deliver(self, stage: &Stage, relays: &[Relay]) -> Result<Delivered, BenchError> {
        let expected = self.events * self.subscriptions;
        let (finished, received) = (stage.finished().await?, stage.received()?);
        let meter = Meter::start(stage, relays).await?;
        stage.hold(false).await?;
        // The sink is asked, which costs the server nothing: a look into the queue goes past the dead rows of all that
        // is done. What has arrived is recorded a moment later.
        let began = Instant::now();
        while stage.received()? - received < expected && began.elapsed() < LIMIT {
            sleep(Duration::from_millis(5)).await;
        }
        stage.drained(LIMIT).await?;
        let used = meter.read(stage, relays).await?;
        let (finished, received) = (stage.finished().await? - finished, stage.received()? - received);
        if (finished, received) != (expected, expected) {
            return Err(format!("of {expected} deliveries {finished} succeeded and {received} were received").into());
        }
        Ok(Delivered { meter, used, finished, received })
    }
}
