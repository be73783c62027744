//! Looks at everything every few seconds.

use crate::ledger::{Interval, Ledger, RECOVERY};
use crate::options::Options;
use crate::proc;
use crate::stage::Stage;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::{Client, Error};

/// What was seen, by name; what could not be had is left out.
pub(crate) type Figures = BTreeMap<String, f64>;

#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Sample {
    /// Since the start.
    pub(crate) at_s: f64,
    pub(crate) figures: Figures,
}

/// Samples so far; the sampler goes on until it is aborted.
pub(crate) type Samples = Arc<Mutex<Vec<Sample>>>;

/// Tables by the name of the whole, partitions together.
const TABLES: &str = "
    select case when c.relname ~ '^(event|finished|attempt)_(s[0-9]+|default)$' then split_part(c.relname, '_', 1) else c.relname end,
           coalesce(sum(pg_total_relation_size(c.relid)), 0)::float8 / 1048576, sum(c.n_live_tup)::float8, sum(c.n_dead_tup)::float8
    from pg_stat_user_tables c where c.schemaname in ('outbox', 'outbox_relay') group by 1";

/// Counted, where there are few; the statistics are gone after a crash.
const COUNTS: &str = "
    select (select count(*) from outbox_relay.queue)::float8 as \"rows.queue\",
           (select count(*) from outbox_relay.cursor)::float8 as \"rows.cursor\",
           (select count(*) from outbox_relay.sample)::float8 as \"rows.sample\",
           (select count(*) from outbox_relay.relay)::float8 as \"rows.relay\",
           (select count(*) from outbox.audit)::float8 as \"rows.audit\",
           (select count(*) from outbox_relay.idempotency_key)::float8 as \"rows.idempotency_key\",
           (select count(*) from outbox_relay.subscription_version)::float8 as \"rows.subscription_version\",
           (select count(*) from outbox_relay.segment)::float8 as segments,
           (select count(*) from outbox_relay.segment where closed_at is not null)::float8 as closed_segments,
           (select sum(pg_total_relation_size(oid)) from pg_class where relnamespace = 'pg_catalog'::regnamespace and relkind = 'r')::float8 / 1048576
               as \"size.catalogs\",
           pg_database_size(current_database())::float8 / 1048576 as \"size.database\",
           (pg_current_wal_insert_lsn() - '0/0')::float8 / 1048576 as wal";

const STATUS: &str = "
    select unexpanded_events::float8 as unexpanded, (pending + leased + failed)::float8 as outstanding, leased::float8 as leased,
           dead_letters::float8 as dead_letters, extract(epoch from lag)::float8 as lag_s, relays::float8 as relays
    from outbox.status()";

/// What only grows; the difference of two looks is told, a second.
#[derive(Default)]
struct Meter {
    at: Option<Instant>,
    relays: BTreeMap<u32, f64>,
    postgres: Option<(u32, f64)>,
    soak: Option<f64>,
    machine: Option<(f64, f64)>,
    wal: Option<f64>,
}

pub(crate) async fn watch(stage: Arc<Stage>, ledger: Arc<Ledger>, options: Options, samples: Samples) {
    let mut ticks = interval(Duration::from_secs_f64(options.sample_every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut client, mut meter) = (None::<Client>, Meter::default());
    loop {
        ticks.tick().await;
        let mut figures = Figures::new();
        if client.as_ref().is_none_or(Client::is_closed) {
            // Not waited for: while the server is down, the rest is still to be seen.
            client = tokio::time::timeout(Duration::from_millis(200), stage.connection()).await.ok();
        }
        if let Some(client) = &client {
            // What fails meanwhile is left out.
            let _ = from_database(client, &mut figures).await;
        }
        let at_s = ledger.elapsed().as_secs_f64();
        from_processes(&stage, &mut meter, &mut figures);
        let began = meter.at.replace(Instant::now());
        if let Some(began) = began {
            from_interval(ledger.take_interval(), began.elapsed().as_secs_f64(), &mut figures);
        } else {
            ledger.take_interval();
        }
        samples.lock().expect("no panic while sampling").push(Sample { at_s, figures });
    }
}

async fn from_database(client: &Client, figures: &mut Figures) -> Result<(), Error> {
    for sql in [COUNTS, STATUS] {
        let row = client.query_one(sql, &[]).await?;
        for (nth, column) in row.columns().iter().enumerate() {
            figures.insert(column.name().to_owned(), row.get(nth));
        }
    }
    for row in client.query(TABLES, &[]).await? {
        let table: String = row.get(0);
        for (nth, what) in ["size", "live", "dead"].into_iter().enumerate() {
            figures.insert(format!("{what}.{table}"), row.get(nth + 1));
        }
    }
    let history = ["size.event", "size.finished", "size.attempt"];
    figures.insert("size.history".into(), history.iter().filter_map(|name| figures.get(*name)).sum());
    Ok(())
}

fn from_processes(stage: &Stage, meter: &mut Meter, figures: &mut Figures) {
    let Some(took) = meter.at.map(|at| at.elapsed().as_secs_f64()) else {
        // The sums begin here.
        read_sums(stage, meter);
        return;
    };
    for (number, id) in stage.relay_ids() {
        figures.extend(proc::rss_mib(id).map(|mib| (format!("relay-{number}.rss"), mib)));
        figures.extend(proc::fds(id).map(|fds| (format!("relay-{number}.fds"), fds)));
    }
    if let Some(postmaster) = stage.postmaster() {
        let family = proc::family(postmaster);
        let sum = |of: fn(u32) -> Option<f64>| family.iter().filter_map(|id| of(*id)).sum::<f64>();
        figures.insert("postgres.processes".into(), family.len() as f64);
        figures.insert("postgres.rss".into(), sum(proc::rss_mib));
        figures.insert("postgres.anonymous".into(), sum(proc::anonymous_mib));
        figures.insert("postgres.fds".into(), sum(proc::fds));
    }
    let before = std::mem::take(meter);
    read_sums(stage, meter);
    meter.at = before.at;
    let mut rate = |name: &str, was: Option<f64>, is: Option<f64>, unit: f64| {
        // What began anew has no difference.
        let grown = was.zip(is).map(|(was, is)| is - was).filter(|grown| *grown >= 0.0);
        figures.extend(grown.map(|grown| (name.to_owned(), grown * unit / took)));
    };
    let of_relays = meter.relays.iter().map(|(id, is)| is - before.relays.get(id).copied().unwrap_or(0.0)).sum();
    rate("cpu.relays", Some(0.0), Some(of_relays), 100.0);
    let (was, is) = (before.postgres, meter.postgres);
    let same = was.zip(is).is_some_and(|(was, is)| was.0 == is.0);
    rate("cpu.postgres", was.map(|was| was.1).filter(|_| same), is.map(|is| is.1), 100.0);
    rate("cpu.soak", before.soak, meter.soak, 100.0);
    rate("cpu.machine", before.machine.map(|sum| sum.0), meter.machine.map(|sum| sum.0), 100.0);
    rate("cpu.stolen", before.machine.map(|sum| sum.1), meter.machine.map(|sum| sum.1), 100.0);
    let wal = figures.get("wal").copied();
    meter.wal = wal.or(before.wal);
    if let (Some(was), Some(is)) = (before.wal, wal) {
        figures.insert("wal_per_s".into(), (is - was).max(0.0) / took);
    }
}

fn read_sums(stage: &Stage, meter: &mut Meter) {
    meter.relays = stage.relay_ids().into_iter().filter_map(|(_, id)| Some((id, proc::cpu_s(id)?))).collect();
    meter.postgres = stage.postmaster().map(|id| (id, proc::family_cpu_s(id)));
    meter.soak = proc::cpu_s(std::process::id());
    meter.machine = proc::machine();
}

fn from_interval(mut interval: Interval, took: f64, figures: &mut Figures) {
    figures.insert("deliveries_per_s".into(), interval.accepted as f64 / took);
    let mut put = |name: &str, share: f64, values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let nth = (values.len() as f64 * share) as usize;
        figures.extend(values.get(nth.min(values.len().saturating_sub(1))).map(|ms| (name.to_owned(), *ms)));
    };
    put("latency.p50", 0.5, &mut interval.calm_ms);
    put("latency.p99", 0.99, &mut interval.calm_ms);
    put("recovery.p50", 0.5, &mut interval.recovery_ms);
    put("recovery.max", 1.0, &mut interval.recovery_ms);
}

/// Whether a fault, or what came of it, was in this span.
pub(crate) fn is_calm(ledger: &[crate::ledger::Happened], from_s: f64, to_s: f64) -> bool {
    !ledger.iter().filter(|fault| fault.kind.disturbs()).any(|fault| {
        let over = fault.over_s().map_or(f64::INFINITY, |over| over + RECOVERY.as_secs_f64());
        fault.began_s() <= to_s && over >= from_s
    })
}
