//! Recording results: never dropped, retried until the database takes them, each failure logged once.

use crate::db::{Db, Event, Finished, HealthDelta, Lease, Recorded};
use crate::endpoint::Known;
use crate::outcome::Outcome;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, warn};

/// What is remembered of an attempt until its result is recorded.
pub struct Attempt {
    /// What was leased.
    pub lease: Lease,
    /// For whom.
    pub known: Arc<Known>,
    /// Under which epoch.
    pub epoch: i32,
}

/// An attempt with its result.
pub type Result = (Arc<Attempt>, Finished);

/// Records the batch under the name of the relay, however long it takes. All results are of one epoch.
/// Returns when the next of the failed ones is due, from now.
pub async fn record(db: Db, relay: Arc<str>, batch: Vec<Result>) -> Option<Duration> {
    let epoch = batch.first()?.0.epoch;
    let (attempts, mut finished): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let mut wait = Duration::from_millis(50);
    let recorded = loop {
        match db.record(epoch, &relay, &finished).await {
            Ok(recorded) => break recorded,
            Err(e) if e.is_bad_data() && finished.len() > 1 => {
                // One of them is unacceptable: record them one by one, so that the others go on.
                let mut recorded = Vec::new();
                for one in finished.chunks(1) {
                    recorded.extend(record_one(&db, epoch, &relay, one).await);
                }
                break recorded;
            }
            Err(e) if e.is_bad_data() => break record_one(&db, epoch, &relay, &finished).await,
            Err(error) => {
                warn!(%error, results = finished.len(), "results could not be recorded; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    };
    log_failures(&attempts, &finished, &recorded);
    finished.clear();
    recorded.iter().filter_map(|r| r.next_due).min()
}

/// A result that PostgreSQL will not store as it is becomes a relay_error that says why.
async fn record_one(db: &Db, epoch: i32, relay: &str, one: &[Finished]) -> Vec<Recorded> {
    let mut wait = Duration::from_millis(50);
    let mut one = one.to_vec();
    loop {
        match db.record(epoch, relay, &one).await {
            Ok(recorded) => return recorded,
            Err(e)
                if e.is_bad_data()
                    && one.iter().any(|f| f.request_headers.is_some() || f.response_headers.is_some()) =>
            {
                for f in &mut one {
                    if f.outcome != Outcome::Delivered {
                        f.outcome = Outcome::RelayError;
                    }
                    f.error = Some("the details of this attempt could not be stored".into());
                    (f.response_excerpt, f.response_headers, f.request_headers, f.retry_after_s) =
                        (None, None, None, None);
                }
            }
            Err(e) if e.is_bad_data() => {
                error!(error = %e, event_seq = one[0].event_seq, subscription_id = one[0].subscription_id, "a result could not be recorded at all; its lease ends with this relay");
                return Vec::new();
            }
            Err(error) => {
                warn!(%error, "a result could not be recorded; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    }
}

/// One line for each attempt that did not deliver, and for each that came too late.
fn log_failures(attempts: &[Arc<Attempt>], finished: &[Finished], recorded: &[Recorded]) {
    if recorded.is_empty() {
        return;
    }
    let by_key: HashMap<(i64, i64), usize> =
        finished.iter().enumerate().map(|(i, f)| ((f.subscription_id, f.event_seq), i)).collect();
    for r in recorded {
        let Some(&i) = by_key.get(&(r.subscription_id, r.event_seq)) else { continue };
        let (attempt, f) = (&attempts[i], &finished[i]);
        let event: Option<&Event> = attempt.lease.event.as_deref();
        let tenant_id = event.map_or("", |e| e.tenant_id.as_str());
        let event_id = event.map(|e| e.id.to_string()).unwrap_or_default();
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
            latency_ms = f.latency_ms,
            state = r.state.as_deref().unwrap_or("lease_lost"),
            next_attempt_at,
            url = uri,
            error = f.error.as_deref(),
            "attempt failed"
        );
    }
}

/// Adds a result to the counts of its subscription. Tests do not count.
pub fn count(health: &mut HashMap<i64, HealthDelta>, finished: &Finished) {
    if finished.cause == crate::db::Cause::Test {
        return;
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
