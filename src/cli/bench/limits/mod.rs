//! What the machine could carry, and what others make of it, beside outboxd and in turns with it in one run.
//!
//! | row | what it is |
//! |---|---|
//! | HTTP alone | hyper's pooled client and nothing else; and an attempt as the relay makes it, without a database ([`http`]) |
//! | SQL alone | expand and record as the relay calls them, with results made up ([`sql`]) |
//! | combined limit | `1 / (1 / HTTP + 1 / SQL)`: HTTP and SQL one after the other for each delivery, and nothing else |
//! | hand-written loop | a job a transaction, `for update skip locked` ([`skip_locked`]) |
//! | job queues of others | with a task that signs and posts the same ([`peers`], `benches/peers/README.md`) |
//!
//! Everyone has the same server, the same sink, the same payloads and as many tasks.

mod http;
mod peers;
pub(super) mod skip_locked;
mod sql;

use super::meter::Used;
use super::payloads::Payloads;
use super::report::{Column, Report, Row, Table, column, spread_column};
use super::stage::Stage;
use super::throughput::Case;
use super::{Arguments, BenchError};
use crate::attempt;
use crate::cli::run::{database, sender};
use crate::config::Config;
use crate::db::{Cause, Event, Finished, Lease};
use crate::endpoint::{Endpoints, Known};
use crate::metrics::Metrics;
use crate::send::Sender;
use crate::trace::Tracer;
use hyper::header::HeaderValue;
use peers::{Peer, Terms};
use serde_json::json;
use std::sync::Arc;
use std::time::SystemTime;

/// A payload like those of real webhooks; where a row of another scenario says 1 KiB it is the same.
const PAYLOAD_BYTES: usize = 1024;
/// Requests under way. More of them bring HTTP alone nothing.
const IN_FLIGHT: usize = 256;
const EXCERPT_BYTES: usize = 1024;

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Limits")]
#[group(skip)]
pub(super) struct Options {
    /// Requests, deliveries or tasks of each row
    #[arg(long, default_value_t = 40_000, default_value_if("quick", "true", "2000"))]
    tasks: u64,
    /// The job queues of others too, which `make bench-peers` installs
    #[arg(long)]
    peers: bool,
    /// Workers of the hand-written loop, by row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 32], value_parser = crate::cli::bench::one_or_more)]
    loop_workers: Vec<usize>,
    /// Events of one expand, where SQL is measured alone
    #[arg(long, default_value_t = 128)]
    expand_events: i32,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.limits;
    let payloads = Payloads::of_size(PAYLOAD_BYTES);
    let url = stage.sink()?.url();
    let subscription_id = stage.subscribe(std::slice::from_ref(&url)).await?[0];
    stage.load(&payloads).await?;
    let parts = Arc::new(Parts::new(stage, subscription_id, &payloads).await?);
    let mut report = Report::default();
    let mut peers: Vec<Peer> =
        options.loop_workers.iter().map(|workers| Peer::hand_written(*workers)).collect::<Result<_, _>>()?;
    let terms = Terms::new(&url, &payloads)?;
    if options.peers {
        for (name, peer) in Peer::of_others() {
            match peer {
                Ok(peer) => peers.push(peer),
                Err(e) => report.notes.push(format!("no row of {name}: {e}")),
            }
        }
    } else {
        report.notes.push("No rows of the job queues of others: make bench-peers, or --peers, has them.".into());
    }

    let row = |label: &str, what: &str| Row::new(label, json!({ "what": what }));
    let mut bare = row("HTTP alone: hyper's pooled client", "http");
    let mut signed = row("HTTP alone: as outboxd makes an attempt", "attempt");
    let mut alone = row("SQL alone: expand and record", "sql");
    let mut limit = row("combined limit of the first and the third", "limit");
    let mut outboxd = row("outboxd", "outboxd");
    let mut beside = row("outboxd", "outboxd");
    let mut of_peers: Vec<Row> = peers.iter().map(|peer| row(&peer.label, &peer.label)).collect();
    for _ in 0..arguments.runs {
        let http_per_s = http::bare(stage, &url, &payloads, options.tasks).await?.add_to(&mut bare);
        http::as_the_relay(stage, &parts, options.tasks).await?.add_to(&mut signed);
        let sql_per_s = sql::run(stage, &parts, options.tasks, options.expand_events).await?.add_to(&mut alone);
        let limit_per_s = 1.0 / (1.0 / http_per_s + 1.0 / sql_per_s);
        limit.add("per_s", limit_per_s);

        let case = Case { payloads: &payloads, events: options.tasks, subscriptions: 1, relays: 1 };
        // Its other figures are those of the scenario throughput.
        let used = case.time(stage, &mut Row::new("", json!({}))).await?;
        let measured = Measured { own_s: used.relays_s, count: options.tasks as f64, used };
        let outboxd_per_s = measured.add_to(&mut outboxd);
        measured.add_to(&mut beside);
        outboxd.add("share_of_limit", outboxd_per_s / limit_per_s);

        for (peer, row) in peers.iter().zip(&mut of_peers) {
            let per_s = peer.measure(stage, &terms, options.tasks).await?.add_to(row);
            row.add("outboxd_times", outboxd_per_s / per_s);
        }
    }

    let columns = |with: Column| {
        vec![
            spread_column("per_s", "a second", 0),
            with,
            column("cpu_ms", "CPU ms", 3),
            column("own_cpu_ms", "own", 3),
            column("postgres_cpu_ms", "PostgreSQL", 3),
            column("sink_cpu_ms", "(sink)", 3),
            column("wal_bytes", "WAL bytes", 0),
            column("idle_share", "idle", 2),
        ]
    };
    report.tables.push(Table {
        name: "limits",
        heading: "1 KiB, 256 in flight",
        columns: columns(spread_column("share_of_limit", "of the limit", 2)),
        rows: vec![bare, signed, alone, limit, outboxd],
    });
    of_peers.insert(0, beside);
    report.tables.push(Table {
        name: "peers",
        heading: "1 KiB, signed, keep-alive",
        columns: columns(spread_column("outboxd_times", "outboxd: times", 1)),
        rows: of_peers,
    });
    report.notes.push(
        "CPU and WAL are per request, delivery or task; CPU is without the sink's, own is that of the client, the relay or \
         the peer with its children; idle is the share of the cores that had nothing to do. What is enqueued before the clock starts is in none of them."
            .into(),
    );
    Ok(report)
}

/// What one row of one run came to.
struct Measured {
    used: Used,
    /// CPU of the process that does the work.
    own_s: f64,
    count: f64,
}

impl Measured {
    /// Adds it to its row; the rate.
    fn add_to(&self, row: &mut Row) -> f64 {
        let per_s = self.count / self.used.took.as_secs_f64();
        let ms = |seconds: f64| seconds * 1000.0 / self.count;
        row.add("per_s", per_s);
        row.add("own_cpu_ms", ms(self.own_s));
        row.add_known("cpu_ms", self.used.postgres_s.map(|postgres_s| ms(self.own_s + postgres_s)));
        row.add_known("postgres_cpu_ms", self.used.postgres_s.map(ms));
        row.add("sink_cpu_ms", ms(self.used.sink_s));
        row.add("wal_bytes", self.used.wal_bytes / self.count);
        row.add("idle_share", self.used.idle_share);
        per_s
    }
}

/// What the relay is put together from, without its loop.
struct Parts {
    config: Config,
    sender: Sender,
    tracer: Tracer,
    /// The subscription to the sink.
    known: Arc<Known>,
    /// One for each payload; every attempt is of one of them.
    leases: Vec<Arc<Lease>>,
}

impl Parts {
    async fn new(stage: &Stage, subscription_id: i64, payloads: &Payloads) -> Result<Self, BenchError> {
        let mut config = Config::for_database(&stage.url)?;
        config.egress.allow = vec!["127.0.0.0/8".parse()?];
        let sender = sender(&config)?;
        let lease = |(n, (kind, payload)): (usize, &(String, String))| {
            let event = Event {
                seq: n as i64,
                id: uuid::Uuid::from_u128(0xbe7c_0000_0000_7000_8000_0000_0000_0000 | n as u128),
                tenant_id: "default".into(),
                kind: kind.clone(),
                payload: payload.clone(),
                occurred_at: SystemTime::now(),
                traceparent: None,
            };
            Lease {
                subscription_id,
                version: 0,
                event_seq: event.seq,
                event: Some(Arc::new(event)),
                attempts: 0,
                cause: Cause::Schedule,
                is_fresh: true,
            }
        };
        let leases: Vec<Arc<Lease>> = payloads.texts.iter().enumerate().map(lease).map(Arc::new).collect();
        let agent = HeaderValue::from_str(&config.http.user_agent)?;
        let endpoints = Endpoints::new(agent, sender.clone(), Arc::new(config.secrets.clone()));
        endpoints.allow_insecure_http(true);
        let db = database(&config, &Metrics::default())?;
        let known = endpoints.resolve(&db, std::slice::from_ref(&*leases[0])).await?.remove(0);
        Ok(Self { config, sender, tracer: Tracer::off(), known, leases })
    }

    /// Makes an attempt as the relay does: envelope, signature, request, and what the log is to say of it.
    async fn attempt(&self, n: u64) -> Finished {
        let lease = &self.leases[n as usize % self.leases.len()];
        attempt::make(&self.sender, &self.tracer, lease, &self.known, EXCERPT_BYTES).await
    }
}
