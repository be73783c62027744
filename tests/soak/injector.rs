//! Does what the plan says, and what a month would do within the run.

use crate::SoakError;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::plan::{Drawn, Fault, Kind};
use crate::stage::Stage;
use crate::writers::{Writer, settle};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// RestartSec of the unit.
const RESTART: Duration = Duration::from_secs(1);

/// All faults; returns when the last one is over.
pub(crate) async fn inject(stage: Arc<Stage>, ledger: Arc<Ledger>, plan: Vec<Fault>) -> Result<(), SoakError> {
    let began = Instant::from_std(ledger.start());
    let mut under_way: JoinSet<Result<(), SoakError>> = JoinSet::new();
    for fault in plan {
        sleep_until(began + fault.at).await;
        under_way.spawn(happen(stage.clone(), ledger.clone(), fault.kind));
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

async fn happen(stage: Arc<Stage>, ledger: Arc<Ledger>, kind: Kind) -> Result<(), SoakError> {
    let number = ledger.begin(kind);
    match kind {
        Kind::Kill { relay, down } => {
            stage.kill_relay(relay);
            sleep(down).await;
            stage.start_relay(relay)?;
        }
        Kind::Restart => stage.crash_server().await?,
        Kind::Hold { with_id: false, lasts, .. } => {
            let client = stage.connection().await;
            let begin = "begin isolation level repeatable read; select from outbox.setting limit 1";
            // A crash meanwhile ends it too.
            if client.batch_execute(begin).await.is_ok() {
                sleep(lasts).await;
            }
        }
        Kind::Hold { with_id: true, lasts, commits } => hold_writer(&stage, &ledger, lasts, commits).await,
    }
    ledger.end(number);
    Ok(())
}

async fn hold_writer(stage: &Stage, ledger: &Ledger, lasts: Duration, commits: bool) {
    let Some(writer) = Writer::new(stage).await else { return };
    let event = Drawn { tenant: 0, kind: 0, amount: 99, key: None, filler: 100, published: false };
    let (mut entered, mut in_doubt) = (vec![], vec![]);
    if writer.begin().await.is_err() || writer.insert(event, ledger, &mut entered).await.is_err() {
        let numbers: Vec<u32> = entered.iter().map(|event| event.number).collect();
        ledger.close(&numbers, crate::ledger::Fate::RolledBack);
        return;
    }
    sleep(lasts).await;
    // An error is one of the connection, and what became of the event is asked of the log.
    let _ = writer.end(commits, ledger, entered, &mut in_doubt).await;
    drop(writer);
    settle(stage, ledger, &in_doubt).await;
}

/// Starts relays again that ended by themselves, as a service manager does (systemd/outboxd.service); goes on for good.
pub(crate) async fn supervise(stage: Arc<Stage>, ledger: Arc<Ledger>, kept: Arc<Kept>) {
    loop {
        sleep(RESTART).await;
        for relay in stage.ended() {
            kept.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ledger.elapsed().as_secs_f64());
            // If it cannot be started, it is still ended next time.
            let _ = stage.start_relay(relay);
        }
    }
}

/// What was done beside the load.
#[derive(Default)]
pub(crate) struct Kept {
    /// When relays ended by themselves.
    pub(crate) ended: Mutex<Vec<f64>>,
    /// Segments that were dropped.
    pub(crate) dropped: AtomicU64,
    /// What housekeeping put off, by reason.
    pub(crate) postponed: Mutex<BTreeMap<String, u64>>,
    /// How often `outbox.unaccounted()` was asked, and how many rows it returned.
    pub(crate) audits: AtomicU64,
    pub(crate) unaccounted: AtomicU64,
    /// The longest it took.
    pub(crate) audit_ms: AtomicU64,
}

/// Rows that are kept for hours or days are made older once, so that they are pruned as they would be in a month:
/// samples (made few after an hour, a minute of them at a time, and kept for a day) and relays that ended (kept for
/// thirty days).
const LAPSE: &str = "
    update outbox_relay.sample set taken_at = taken_at - interval '72 minutes'
    where seconds < 59 and taken_at > now() - interval '30 minutes' and taken_at < date_bin('1 minute', now() - interval '5 seconds', 'epoch');
    update outbox_relay.sample set taken_at = taken_at - interval '25 hours'
    where seconds >= 59 and taken_at > now() - interval '20 hours' and taken_at < now() - interval '72 minutes';
    update outbox_relay.relay set fenced_at = fenced_at - interval '31 days'
    where fenced_at > now() - interval '1 day' and fenced_at < now() - interval '30 seconds'";

/// Housekeeping at the run's pace rather than once a minute, time that lapses, and the question whether anything is
/// unaccounted for, once in each retention. Goes on for good.
pub(crate) async fn keep(stage: Arc<Stage>, options: Options, kept: Arc<Kept>) {
    let mut audit_at = Instant::now() + Duration::from_secs_f64(options.retention);
    let mut client = stage.connection().await;
    loop {
        // Often enough to find a moment between the writers in which a segment can be dropped.
        sleep(Duration::from_secs_f64((options.segment / 4.0).min(15.0))).await;
        if client.is_closed() {
            client = stage.connection().await;
        }
        while maintain(&client, &kept).await {}
        // What a crash of the server undoes is done next time.
        let _ = client.batch_execute(LAPSE).await;
        if Instant::now() >= audit_at {
            audit_at = Instant::now() + Duration::from_secs_f64(options.retention);
            let _ = audit(&client, &kept).await;
        }
    }
}

/// One step of housekeeping; whether there may be more to do.
async fn maintain(client: &tokio_postgres::Client, kept: &Kept) -> bool {
    let mut more = false;
    let maintain = "select action, coalesce(detail, '') from outbox_relay.maintain()";
    for row in client.query(maintain, &[]).await.unwrap_or_default() {
        let action: &str = row.get(0);
        more |= ["made", "begun", "dropped"].contains(&action);
        kept.dropped.fetch_add(u64::from(action == "dropped"), Ordering::Relaxed);
        if action == "postponed" {
            let mut postponed = kept.postponed.lock().unwrap_or_else(PoisonError::into_inner);
            *postponed.entry(row.get(1)).or_default() += 1;
        }
    }
    more
}

pub(crate) async fn audit(client: &tokio_postgres::Client, kept: &Kept) -> Result<(), tokio_postgres::Error> {
    let began = Instant::now();
    let rows: i64 = client.query_one("select count(*) from outbox.unaccounted()", &[]).await?.get(0);
    kept.audits.fetch_add(1, Ordering::Relaxed);
    kept.unaccounted.fetch_add(rows.unsigned_abs(), Ordering::Relaxed);
    kept.audit_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    Ok(())
}
