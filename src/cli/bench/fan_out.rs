//! Many subscriptions: one event for all of them, events for tenants that have a few each, and what it costs to look at
//! those that want nothing.

use super::clock::Clock;
use super::crowd::Crowd;
use super::meter::Meter;
use super::payloads::Payloads;
use super::report::{Report, Row, Table, column, spread_column};
use super::scene::{Turn, WARM_UP, delivered, log_end};
use super::stage::Stage;
use super::writers::{BEAT, Beat};
use super::{Arguments, BenchError};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(300);
/// Filters looked at in one measurement, about: a fraction of a microsecond each.
const EVALUATIONS: u64 = 500_000;
/// Of the beat among tenants.
const BEAT_PER_S: f64 = 100.0;
/// As `relay.batch`.
const BATCH: i32 = 1000;

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Fan-out")]
#[group(skip)]
pub(super) struct Options {
    /// Subscriptions that one event is for, by row
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 100, 10_000], default_values_if("quick", "true", ["1", "100"]),
        value_parser = clap::value_parser!(u64).range(1..))]
    fan_out: Vec<u64>,
    /// Tenants among which events are spread; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 10_000, default_value_if("quick", "true", "100"))]
    tenants: u64,
    /// Subscriptions of each of them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    tenant_subscriptions: u32,
    /// Events spread among them in each turn; as many for one tenant
    #[arg(long, value_name = "N", default_value_t = 20_000, default_value_if("quick", "true", "500"))]
    tenant_events: u64,
    /// Seconds of each turn's beat, of 100 events a second
    #[arg(long, value_name = "S", default_value = "3", default_value_if("quick", "true", "1"), value_parser = super::seconds)]
    #[serde(serialize_with = "super::in_seconds")]
    tenant_seconds: Duration,
    /// Subscriptions that an event is matched against in vain, by row
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [100, 1_000, 10_000, 30_000], default_values_if("quick", "true", ["100", "300"]),
        value_parser = clap::value_parser!(u64).range(1..))]
    matching: Vec<u64>,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.fan_out;
    let payloads = Payloads::of_size(1024);
    let scene = Scene { options, runs: arguments.runs, clock: Clock::start()?, payloads };
    let mut tables = vec![];
    scene.prepare(stage).await?;
    let rows = scene.one_to_many(stage).await?;
    let columns = vec![
        column("cold_ms", "cold ms", 1),
        spread_column("last_ms", "ms to the last", 1),
        spread_column("deliveries_per_s", "deliveries/s", 0),
        column("relay_peak_rss_mib", "RSS MiB", 0),
    ];
    tables.push(Table { name: "one_event", heading: "one event to", columns, rows });
    if options.tenants > 0 {
        stage.anew().await?;
        scene.prepare(stage).await?;
        let columns = vec![
            spread_column("deliveries_per_s", "deliveries/s", 0),
            column("deliveries_ratio", "of one", 2),
            column("cold_deliveries_per_s", "cold", 0),
            column("p50_ms", "p50 ms", 2),
            column("p50_ratio", "of one", 2),
            column("p99_ms", "p99 ms", 2),
            column("p99_ratio", "of one", 2),
            column("relay_cpu_ms", "relay CPU ms", 3),
            column("postgres_cpu_ms", "PostgreSQL", 3),
            column("wal_bytes", "WAL bytes", 0),
            column("relay_peak_rss_mib", "RSS MiB", 0),
        ];
        tables.push(Table { name: "tenants", heading: "tenants", columns, rows: scene.many_tenants(stage).await? });
    }
    let mut rows = vec![];
    for filter in [None, Some("$.total < 0")] {
        for count in &options.matching {
            stage.anew().await?;
            scene.prepare(stage).await?;
            rows.push(scene.in_vain(stage, *count, filter).await?);
        }
    }
    let columns =
        vec![spread_column("event_us", "us an event", 1), spread_column("subscription_ns", "ns a subscription", 0)];
    tables.push(Table { name: "matching", heading: "subscriptions that do not match", columns, rows });
    let notes = vec![
        "one event: from COMMIT to the last receipt; cold is a relay's first, which loads every endpoint".into(),
        format!(
            "tenants: {} subscriptions of each want every event of theirs; cold is with a relay that has just started; \
             commit to receipt is until the last of them has it",
            options.tenant_subscriptions
        ),
        "matching: the time of expand alone, in SQL, per event; with a filter each of them is evaluated, without one they \
         want other types"
            .into(),
    ];
    Ok(Report { tables, notes })
}

struct Scene<'a> {
    options: &'a Options,
    runs: u32,
    clock: Clock,
    payloads: Payloads,
}

impl Scene<'_> {
    /// The limits of a tenant are raised to what is measured here, and beyond.
    async fn prepare(&self, stage: &Stage) -> Result<(), BenchError> {
        let raise =
            "select outbox.set('max_subscriptions_per_tenant', '1000000'), outbox.set('max_fan_out', '1000000')";
        stage.client.batch_execute(raise).await?;
        stage.load(&self.payloads).await?;
        Ok(())
    }

    async fn one_to_many(&self, stage: &mut Stage) -> Result<Vec<Row>, BenchError> {
        let mut rows = vec![];
        for count in &self.options.fan_out {
            let (prefix, url) = (format!("fan-{count}"), self.clock.url());
            let crowd =
                Crowd { url: &url, tenants: 1, prefix: &prefix, each: *count, event_type: "order.*", filter: None };
            crowd.subscribe(&mut stage.client).await?;
            let relays = stage.relays(1).await?;
            let mut row = Row::new(format!("{count} subscriptions"), json!({ "subscriptions": count }));
            let (meter, began) = (Meter::start(stage, &relays).await?, log_end(stage).await?);
            let tenant = [format!("{prefix}-1")];
            for nth in 0..=self.runs {
                self.clock.reset();
                stage.fill_for(&tenant, 1).await?;
                let committed = Instant::now();
                let last = self.clock.wait_for(*count, LIMIT).await?.saturating_duration_since(committed);
                if nth == 0 {
                    row.add("cold_ms", last.as_secs_f64() * 1000.0);
                } else {
                    row.add("last_ms", last.as_secs_f64() * 1000.0);
                    row.add("deliveries_per_s", *count as f64 / last.as_secs_f64());
                }
                stage.drained(LIMIT).await?;
            }
            let used = meter.read(stage, &relays).await?;
            row.add_known("relay_peak_rss_mib", used.peak_rss_mib.first().copied());
            drop(relays);
            stage.alone().await?;
            row.add("delivered", delivered(stage, began, None).await? as f64);
            rows.push(row);
        }
        Ok(rows)
    }

    /// In turns: one tenant, many, one.
    async fn many_tenants(&self, stage: &mut Stage) -> Result<Vec<Row>, BenchError> {
        let mut one = self.set(stage, "one", 1).await?;
        let mut many = self.set(stage, "many", self.options.tenants).await?;
        let mut before = self.spread(stage, &mut one).await?;
        before.add_to(&mut one.row);
        for _ in 0..self.runs.div_ceil(3) {
            let turn = self.spread(stage, &mut many).await?;
            let after = self.spread(stage, &mut one).await?;
            turn.add_beside(&[before, after], &mut many.row);
            after.add_to(&mut one.row);
            before = after;
        }
        many.row.add("delivered_to_all", delivered(stage, 0, None).await? as f64);
        Ok(vec![one.row, many.row])
    }

    async fn set(&self, stage: &mut Stage, name: &str, tenants: u64) -> Result<Set, BenchError> {
        let each = self.options.tenant_subscriptions;
        let row = Row::new(tenants.to_string(), json!({ "tenants": tenants, "subscriptions_each": each }));
        let mut set = Set { ordering: vec![], beating: vec![], row };
        for (kind, url, event_type, names) in [
            ("order", self.clock.url(), "order.*", &mut set.ordering),
            ("beat", self.clock.timed_url(), BEAT, &mut set.beating),
        ] {
            let prefix = &format!("{name}-{kind}");
            let crowd = Crowd { url: &url, tenants, prefix, each: each.into(), event_type, filter: None };
            crowd.subscribe(&mut stage.client).await?;
            names.extend((1..=tenants).map(|n| format!("{prefix}-{n}")));
        }
        Ok(set)
    }

    async fn spread(&self, stage: &Stage, set: &mut Set) -> Result<Turn, BenchError> {
        let relays = stage.relays(1).await?;
        // A relay that has seen every tenant once is warm.
        let cold = self.deliver(stage, &set.ordering, self.options.tenants).await?;
        let meter = Meter::start(stage, &relays).await?;
        let per_s = self.deliver(stage, &set.ordering, self.options.tenant_events).await?;
        let used = meter.read(stage, &relays).await?;
        let (tenants, copies) = (set.beating.as_slice().into(), self.options.tenant_subscriptions);
        let beat = Beat { tenants, copies, ..Beat::new(BEAT_PER_S, &self.payloads) };
        let lasts = self.options.tenant_seconds;
        let latency = beat.last(stage, &self.clock, WARM_UP.min(lasts), lasts).await?;
        stage.drained(LIMIT).await?;
        drop(relays);
        stage.alone().await?;
        let deliveries = self.options.tenant_events * u64::from(self.options.tenant_subscriptions);
        set.row.add("cold_deliveries_per_s", cold);
        used.add_to(&mut set.row, deliveries as f64);
        Ok(Turn { per_s, latency })
    }

    /// Deliveries a second from a backlog of events for the tenants in turn.
    async fn deliver(&self, stage: &Stage, tenants: &[String], events: u64) -> Result<f64, BenchError> {
        stage.hold(true).await?;
        stage.fill_for(tenants, events).await?;
        stage.checkpoint().await?;
        let deliveries = events * u64::from(self.options.tenant_subscriptions);
        self.clock.reset();
        let began = Instant::now();
        stage.hold(false).await?;
        self.clock.wait_for(deliveries, LIMIT).await?;
        stage.drained(LIMIT).await?;
        Ok(deliveries as f64 / began.elapsed().as_secs_f64())
    }

    /// The time that expand takes for an event that nobody wants.
    async fn in_vain(&self, stage: &mut Stage, count: u64, filter: Option<&str>) -> Result<Row, BenchError> {
        let url = self.clock.url();
        let event_type = if filter.is_some() { "order.*" } else { "invoice.*" };
        let crowd = Crowd { url: &url, tenants: 1, prefix: "vain", each: count, event_type, filter };
        crowd.subscribe(&mut stage.client).await?;
        let events = if filter.is_some() { (EVALUATIONS / count).clamp(5, 5_000) } else { 5_000 };
        let session = stage.connect().await?;
        let epoch: i32 = session
            .query_one("select outbox_relay.register('bench', $1, 'default')", &[&env!("CARGO_PKG_VERSION")])
            .await?
            .get(0);
        let with = if filter.is_some() { "with a filter" } else { "of other types" };
        let mut row = Row::new(
            format!("{count} {with}"),
            json!({ "subscriptions": count, "filtered": filter.is_some(), "events": events }),
        );
        // The first makes plans.
        for nth in 0..=self.runs {
            let took = expand(stage, &session, epoch, events).await?;
            if nth > 0 {
                let event_us = took.as_secs_f64() * 1e6 / events as f64;
                row.add("event_us", event_us);
                row.add("subscription_ns", event_us * 1000.0 / count as f64);
            }
        }
        drop(session);
        stage.alone().await?;
        // To match each event with each version again would take minutes; nothing may have come of them, and that is all.
        let made = "select (select count(*) from outbox_relay.queue) + (select count(*) from outbox_relay.finished)";
        match stage.client.query_one(made, &[]).await?.get::<_, i64>(0) {
            0 => Ok(row),
            made => Err(format!("{made} deliveries of events that nobody wants").into()),
        }
    }
}

/// Tenants that are compared with others: some get backlogs, as many others beats.
struct Set {
    ordering: Vec<String>,
    beating: Vec<String>,
    row: Row,
}

/// How long a relay's session takes to expand so many events of the tenant that nobody wants.
async fn expand(stage: &Stage, session: &Client, epoch: i32, events: u64) -> Result<Duration, BenchError> {
    stage.fill_for(&["vain-1".to_owned()], events).await?;
    let sql = "select expanded, more from outbox_relay.expand($1, $2, 256, 64, '{}', '{}', false, true) where event_seq is null";
    let (mut expanded, began) = (0, Instant::now());
    loop {
        let row = session.query_opt(sql, &[&epoch, &BATCH]).await?.ok_or("the session is no relay's")?;
        expanded += u64::from(row.get::<_, i32>(0).unsigned_abs());
        if !row.get::<_, bool>(1) {
            break;
        }
    }
    let took = began.elapsed();
    if expanded != events {
        return Err(format!("{expanded} of {events} events were expanded").into());
    }
    Ok(took)
}
