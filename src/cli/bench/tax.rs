//! What a producer pays: commits a second, and how long one takes, of writers that insert one event a transaction.
//!
//! Each turn stands between two turns of the bare table, and its share is of their mean: a disk that others use
//! drifts by more than what is to be seen.

use super::payloads::{self, Payloads};
use super::report::{Report, Row, Table, column, quantiles, spread_column};
use super::stage::{Relay, Stage};
use super::writers::Flood;
use super::{Arguments, BenchError};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(300);

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Tax")]
#[group(skip)]
pub(super) struct Options {
    /// Writers, by row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64], default_value_if("quick", "true", "4"),
        value_parser = super::one_or_more)]
    clients: Vec<usize>,
    /// Seconds of a turn
    #[arg(long, default_value = "1.5", default_value_if("quick", "true", "0.2"), value_parser = super::seconds)]
    #[serde(serialize_with = "super::in_seconds")]
    tax_seconds: Duration,
    /// Bytes of a payload: small, so that what is compared is the overhead
    #[arg(long, default_value_t = 200)]
    tax_payload_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The columns and indexes of `outbox.event`, without triggers, nobody reading.
    Bare,
    /// The outbox, and nobody behind it.
    NoRelay,
    /// The door is held, as by a relay that sleeps, and stays held: every commit rings, and a session hears it. A relay
    /// would wake at the first ring, so this is what a commit pays at rates so low that each finds it asleep.
    Asleep,
    /// A relay expands every event; nobody has subscribed.
    Expanding,
    /// A relay delivers every event to the sink, on the same cores.
    Delivering,
    /// The bare table with `notify` in a trigger, the usual way; a session hears it.
    Notify,
}

const TURNS: [Turn; 5] = [Turn::NoRelay, Turn::Asleep, Turn::Expanding, Turn::Delivering, Turn::Notify];

impl Turn {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::NoRelay => "no_relay",
            Self::Asleep => "asleep",
            Self::Expanding => "expanding",
            Self::Delivering => "delivering",
            Self::Notify => "notify",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Bare => "bench.bare",
            Self::Notify => "bench.notify",
            Self::NoRelay | Self::Asleep | Self::Expanding | Self::Delivering => "outbox.event",
        }
    }
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.tax;
    let (sink, payloads) = (stage.sink()?.url(), Payloads::of_size(options.tax_payload_bytes));
    for table in ["bare", "notify"] {
        stage
            .client
            .batch_execute(&format!(
                "create table bench.{table} (like outbox.event including defaults including indexes) partition by range (event_seq);
                 create table bench.{table}_s0 partition of bench.{table} for values from (0) to (10000000000);
                 create table bench.{table}_default partition of bench.{table} default"
            ))
            .await?;
    }
    stage
        .client
        .batch_execute(
            "create function bench.ring() returns trigger language plpgsql as $$ begin perform pg_notify('bench', ''); return null; end $$;
             create trigger ring after insert on bench.notify for each statement execute function bench.ring()",
        )
        .await?;
    let scene = Scene { stage, options, payloads, sink };
    let mut rows = vec![];
    for clients in &options.clients {
        rows.extend(scene.measure_with(*clients, arguments.runs).await?);
    }
    let columns = vec![
        spread_column("of_bare", "of bare", 2),
        spread_column("commits_per_s", "commits/s", 0),
        column("commit_p50_ms", "p50 ms", 2),
        column("commit_p99_ms", "p99 ms", 2),
    ];
    let notes = vec![
        format!("One event of {} a transaction; each turn of {} s stands between two of the bare table.",
            payloads::size(options.tax_payload_bytes), options.tax_seconds.as_secs_f64()),
        "asleep: the door is held throughout, so that every commit rings. A relay wakes at the first ring: this is what \
         a commit pays that finds it asleep, at low rates."
            .into(),
        "delivering: writers, PostgreSQL, relay and sink share this machine's cores.".into(),
    ];
    Ok(Report { tables: vec![Table { name: "rows", heading: "clients, turn", columns, rows }], notes })
}

struct Scene<'a> {
    stage: &'a Stage,
    options: &'a Options,
    payloads: Payloads,
    /// Where the sink is.
    sink: String,
}

impl Scene<'_> {
    async fn measure_with(&self, clients: usize, runs: u32) -> Result<Vec<Row>, BenchError> {
        let new_row = |turn: Turn| {
            let payload_bytes = self.options.tax_payload_bytes;
            let what = json!({ "clients": clients, "turn": turn.name(), "payload_bytes": payload_bytes });
            Row::new(format!("{clients}, {}", turn.name()), what)
        };
        let mut bare = new_row(Turn::Bare);
        let mut rows: Vec<Row> = TURNS.into_iter().map(new_row).collect();
        for _ in 0..runs {
            let mut before = self.measure(Turn::Bare, clients, &mut bare).await?;
            for (turn, row) in TURNS.into_iter().zip(&mut rows) {
                let per_s = self.measure(turn, clients, row).await?;
                let after = self.measure(Turn::Bare, clients, &mut bare).await?;
                row.add("of_bare", per_s / f64::midpoint(before, after));
                before = after;
            }
        }
        rows.insert(0, bare);
        Ok(rows)
    }

    /// Commits a second.
    async fn measure(&self, turn: Turn, clients: usize, row: &mut Row) -> Result<f64, BenchError> {
        let stage = self.stage;
        let behind = Behind::set(stage, turn, &self.sink).await?;
        let received = stage.received()?;
        let flood = Flood::start(stage, clients, turn.table(), &self.payloads).await?;
        sleep(self.options.tax_seconds).await;
        let mut committed = flood.stop().await?;
        row.add("commits", committed.commits as f64);
        row.add("commits_per_s", committed.per_s);
        let [p50, p99] = quantiles(&mut committed.latencies_ms, [0.5, 0.99]);
        row.add_known("commit_p50_ms", p50);
        row.add_known("commit_p99_ms", p99);

        // What was left behind is not to weigh on the next turn.
        match turn {
            Turn::Bare | Turn::Notify => {}
            Turn::NoRelay | Turn::Asleep => {
                drop(behind);
                let relays = stage.relays(1).await?;
                stage.drained(LIMIT).await?;
                drop(relays);
            }
            Turn::Expanding => {
                stage.drained(LIMIT).await?;
            }
            Turn::Delivering => {
                stage.drained(LIMIT).await?;
                let received = stage.received()? - received;
                if received != committed.commits {
                    return Err(format!("of {} events {received} were received", committed.commits).into());
                }
                row.add("received", received as f64);
            }
        }
        Ok(committed.per_s)
    }
}

/// What stands behind a turn.
struct Behind {
    _relays: Vec<Relay>,
    _listener: Option<Client>,
}

impl Behind {
    async fn set(stage: &Stage, turn: Turn, sink: &str) -> Result<Self, BenchError> {
        let urls = if turn == Turn::Delivering { vec![sink.to_owned()] } else { vec![] };
        stage.subscribe(&urls).await?;
        let relays = match turn {
            Turn::Expanding | Turn::Delivering => stage.relays(1).await?,
            Turn::Bare | Turn::NoRelay | Turn::Asleep | Turn::Notify => vec![],
        };
        let listen = match turn {
            Turn::Asleep => Some("listen outbox_bell; select pg_advisory_lock(1869968482, 1)"),
            Turn::Notify => Some("listen bench"),
            Turn::Bare | Turn::NoRelay | Turn::Expanding | Turn::Delivering => None,
        };
        let listener = match listen {
            Some(sql) => {
                let client = stage.connect().await?;
                client.batch_execute(sql).await?;
                Some(client)
            }
            None => None,
        };
        Ok(Self { _relays: relays, _listener: listener })
    }
}
