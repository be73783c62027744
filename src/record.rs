//! Recording results: never dropped, retried until the database takes them, each failure logged once.

use crate::db::{Db, DbError, Event, Failed, Finished, HealthDelta, Lease, Recorded};
use crate::endpoint::Known;
use crate::metrics::RecordedStates;
use crate::outcome::Outcome;
use crate::trace::TraceContext;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tracing::{error, warn};

/// Between a failed call and the next, growing.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What is remembered of an attempt until its result is recorded.
pub struct Attempt {
    /// What was leased.
    pub lease: Lease,
    /// For whom.
    pub known: Arc<Known>,
    /// Under which epoch.
    pub epoch: i32,
    /// Its part of what the relay may hold.
    pub held: Held,
}

impl Attempt {
    /// The same without its payload, for as long as its result waits: it was sent.
    fn without_payload(&self) -> Self {
        let (lease, held) = (self.lease.without_payload(), Held { bytes: 0, total: self.held.total.clone() });
        Self { lease, known: self.known.clone(), epoch: self.epoch, held }
    }
}

/// Bytes of payload that are held until this is dropped.
pub struct Held {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Held {
    /// Counts the payload of a lease into `total`.
    pub fn new(lease: &Lease, total: &Arc<AtomicUsize>) -> Self {
        let bytes = lease.bytes();
        total.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, total: total.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An attempt with its result.
pub type Result = (Arc<Attempt>, Finished);

/// What came of recording a batch.
pub struct Done {
    /// When the next of the failed ones is due, from now.
    pub next_due: Option<Duration>,
    /// What they became.
    pub states: RecordedStates,
    /// Those whose rows an operator's open transaction has locked; to be recorded later.
    pub held_up: Vec<Result>,
}

/// Records the batch under the name of the relay, however long it takes. All results are of one epoch.
pub async fn record(db: Db, relay: Arc<str>, batch: Vec<Result>) -> Done {
    let Some(epoch) = batch.first().map(|(attempt, _)| attempt.epoch) else {
        return Done { next_due: None, states: RecordedStates::default(), held_up: Vec::new() };
    };
    let (attempts, finished): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let mut wait = RETRY.0;
    let (recorded, held_up) = loop {
        match db.record(epoch, &relay, &finished).await {
            Ok(recorded) => break (recorded, Vec::new()),
            Err(e) if e.is_locked_row() => break without_locked(&db, epoch, &relay, &finished).await,
            Err(e) if e.is_refusal() => break one_by_one(&db, epoch, &relay, &finished).await,
            Err(error) => retry_later(&error, finished.len(), &mut wait).await,
        }
    };
    log_failures(&attempts, &finished, &recorded.failed);
    let states = count_states(&recorded.failed, finished.len() - held_up.len());
    // They may wait as long as an operator thinks; nobody else is to wait for the bytes.
    let later = |i: usize| (Arc::new(attempts[i].without_payload()), finished[i].clone());
    Done { next_due: recorded.next_due, states, held_up: held_up.into_iter().map(later).collect() }
}

/// Somebody's open transaction has some of them locked: the others go on, however many those are. Returns the indexes of
/// those that are locked.
async fn without_locked(db: &Db, epoch: i32, relay: &str, finished: &[Finished]) -> (Recorded, Vec<usize>) {
    let key = |one: &Finished| (one.subscription_id, one.event_seq);
    let leases: Vec<_> = finished.iter().map(key).collect();
    let locked: HashSet<_> = db.locked(epoch, &leases).await.unwrap_or_default().into_iter().collect();
    let (mut held_up, free): (Vec<usize>, Vec<usize>) = (0..finished.len()).partition(|i| locked.contains(&leases[*i]));
    let of_free: Vec<Finished> = free.iter().map(|i| finished[*i].clone()).collect();
    if of_free.is_empty() {
        return (Recorded::default(), held_up);
    }
    match db.record(epoch, relay, &of_free).await {
        Ok(recorded) => (recorded, held_up),
        // What record locks besides, or who has come meanwhile.
        Err(_) => {
            let (recorded, others) = one_by_one(db, epoch, relay, &of_free).await;
            held_up.extend(others.into_iter().map(|i| free[i]));
            (recorded, held_up)
        }
    }
}

/// One of them is unacceptable, or locked: the others go on. Returns the indexes of those that are locked;
/// of a subscription with a locked row no other is tried, because each trial waits.
async fn one_by_one(db: &Db, epoch: i32, relay: &str, finished: &[Finished]) -> (Recorded, Vec<usize>) {
    let (mut recorded, mut held_up, mut locked) = (Recorded::default(), Vec::new(), HashSet::new());
    for (i, one) in finished.iter().enumerate() {
        if !locked.contains(&one.subscription_id) {
            match record_one(db, epoch, relay, one.clone()).await {
                Some(one) => recorded = recorded.join(one),
                None => drop(locked.insert(one.subscription_id)),
            }
        }
        if locked.contains(&one.subscription_id) {
            held_up.push(i);
        }
    }
    (recorded, held_up)
}

/// A result that PostgreSQL will not store as it is loses its details. `None`: its row is locked.
async fn record_one(db: &Db, epoch: i32, relay: &str, mut one: Finished) -> Option<Recorded> {
    let mut wait = RETRY.0;
    loop {
        match db.record(epoch, relay, std::slice::from_ref(&one)).await {
            Ok(recorded) => return Some(recorded),
            Err(e) if e.is_locked_row() => return None,
            Err(e) if e.is_refusal() && (one.request_headers.is_some() || one.response_headers.is_some()) => {
                if one.outcome != Outcome::Delivered {
                    one.outcome = Outcome::RelayError;
                }
                one.error = Some("the details of this attempt could not be stored".into());
                (one.response_excerpt, one.response_headers, one.request_headers, one.retry_after_s) =
                    (None, None, None, None);
            }
            Err(e) if e.is_refusal() => {
                error!(error = %e, event_seq = one.event_seq, subscription_id = one.subscription_id, "a result could not be recorded at all; its lease ends with this relay");
                return Some(Recorded::default());
            }
            Err(error) => retry_later(&error, 1, &mut wait).await,
        }
    }
}

async fn retry_later(error: &DbError, results: usize, wait: &mut Duration) {
    warn!(%error, results, "results could not be recorded; trying again");
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(RETRY.1);
}

/// What became of a batch: `failed` lists what was no plain success.
fn count_states(failed: &[Failed], recorded: usize) -> RecordedStates {
    let mut states = RecordedStates::default();
    for one in failed {
        match one.state.as_deref() {
            Some("dead_letter") => states.dead_letter += 1,
            Some(_) => states.failed += 1,
            None => states.lease_lost += 1,
        }
    }
    states.succeeded = recorded.saturating_sub(failed.len()) as u64;
    states
}

/// One line for each attempt that did not deliver, and for each that came too late.
fn log_failures(attempts: &[Arc<Attempt>], finished: &[Finished], failed: &[Failed]) {
    if failed.is_empty() {
        return;
    }
    let by_key: HashMap<(i64, i64), usize> =
        finished.iter().enumerate().map(|(i, f)| ((f.subscription_id, f.event_seq), i)).collect();
    for r in failed {
        let Some(&i) = by_key.get(&(r.subscription_id, r.event_seq)) else { continue };
        let (attempt, f) = (&attempts[i], &finished[i]);
        let event: Option<&Event> = attempt.lease.event.as_deref();
        let tenant_id = event.map_or("", |e| e.tenant_id.as_str());
        let event_id = event.map(|e| e.id.to_string()).unwrap_or_default();
        let trace_id = TraceContext::of(&attempt.lease).map(|context| context.trace_id());
        let next_attempt_at =
            r.next_attempt_at.and_then(|at| jiff::Timestamp::try_from(at).ok()).map(|at| at.to_string());
        let uri = attempt
            .known
            .endpoint
            .as_ref()
            .ok()
            .map(|e| format!("{}{}", e.uri.authority().map_or("", |a| a.as_str()), e.uri.path()));
        warn!(
            tenant_id,
            subscription_id = r.subscription_id,
            event_id,
            event_seq = r.event_seq,
            attempt = r.attempt,
            outcome = f.outcome.as_str(),
            status_code = f.status_code,
            latency_ms = f.latency.as_millis() as u64,
            state = r.state.as_deref().unwrap_or("lease_lost"),
            next_attempt_at,
            url = uri,
            trace_id,
            error = f.error.as_deref(),
            "attempt failed"
        );
    }
}

/// Adds a result to the counts of its subscription, and returns how many have failed since the last success.
/// Tests do not count.
pub fn count(health: &mut HashMap<i64, HealthDelta>, finished: &Finished) -> i64 {
    if finished.cause == crate::db::Cause::Test {
        return 0;
    }
    let delta = health.entry(finished.subscription_id).or_default();
    if finished.outcome == Outcome::Delivered {
        delta.successes += 1;
        delta.trailing_failures = 0;
        delta.last_success_at = delta.last_success_at.max(Some(finished.started_at));
    } else {
        delta.failures += 1;
        delta.trailing_failures += 1;
        delta.last_failure_at = delta.last_failure_at.max(Some(finished.started_at));
    }
    delta.trailing_failures
}

/// Puts counts that could not be written back before those counted since.
pub fn put_back(health: &mut HashMap<i64, HealthDelta>, unwritten: Vec<(i64, HealthDelta)>) {
    for (id, older) in unwritten {
        let newer = health.entry(id).or_default();
        newer.trailing_failures += if newer.successes > 0 { 0 } else { older.trailing_failures };
        newer.successes += older.successes;
        newer.failures += older.failures;
        newer.last_success_at = newer.last_success_at.max(older.last_success_at);
        newer.last_failure_at = newer.last_failure_at.max(older.last_failure_at);
    }
}
