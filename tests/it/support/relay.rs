//! A relay as the database sees it: a session that holds an epoch and calls the functions of the loop.

use super::{Db, Session};
use std::collections::HashMap;

/// Calls `expand`, `claim` and `record` under one epoch. The session is the one that holds the epoch's
/// lock; killing it is the relay's death.
pub(crate) struct Relay {
    pub(crate) session: Session,
    pub(crate) epoch: i32,
}

/// Arguments of `outbox_relay.expand`, with roomy defaults.
#[derive(Clone)]
pub(crate) struct Expand {
    pub(crate) event_limit: i32,
    pub(crate) lease_limit: i32,
    pub(crate) max_in_flight: i32,
    /// What the relay has in flight, by subscription.
    pub(crate) busy: Vec<(i64, i32)>,
    pub(crate) keep_back_ms: i32,
}

impl Default for Expand {
    fn default() -> Self {
        Self { event_limit: 1000, lease_limit: 1000, max_in_flight: 1000, busy: Vec::new(), keep_back_ms: 0 }
    }
}

impl Expand {
    /// Batches of that many events, and nothing leased.
    pub(crate) fn queue_only(event_limit: i32) -> Self {
        Self { event_limit, lease_limit: 0, ..Self::default() }
    }
}

/// What one call of `expand` returned.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// Subscription and event, in the order they were returned.
    pub(crate) leases: Vec<(i64, i64)>,
    pub(crate) expanded: i32,
    pub(crate) queued: i32,
    pub(crate) more: bool,
    pub(crate) prioritised: bool,
    pub(crate) kept_back: i32,
}

/// Arguments of `outbox_relay.claim`.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) lease_limit: i32,
    pub(crate) max_in_flight: i32,
    pub(crate) busy: Vec<(i64, i32)>,
}

impl Default for Claim {
    fn default() -> Self {
        Self { lease_limit: 1000, max_in_flight: 1000, busy: Vec::new() }
    }
}

/// What one call of `claim` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// Subscription and event, in the order they were returned.
    pub(crate) leases: Vec<(i64, i64)>,
    /// Whether a next due time was given.
    pub(crate) has_next_due: bool,
    pub(crate) more: bool,
}

/// The result of one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) subscription_id: i64,
    pub(crate) event_seq: i64,
    pub(crate) outcome: &'static str,
    pub(crate) status_code: Option<i16>,
    pub(crate) retry_after_s: Option<i32>,
}

/// An attempt that got this status: delivered if it is 2xx, rejected otherwise.
pub(crate) fn sent((subscription_id, event_seq): (i64, i64), status_code: i16) -> Sent {
    let outcome = if (200..300).contains(&status_code) { "delivered" } else { "rejected" };
    Sent { subscription_id, event_seq, outcome, status_code: Some(status_code), retry_after_s: None }
}

/// What `record` said of an attempt that was no success or came late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) attempt: i32,
    /// Null when the lease was lost.
    pub(crate) state: Option<String>,
    /// Whether a next attempt was scheduled.
    pub(crate) is_scheduled: bool,
}

impl Relay {
    pub(crate) async fn new(db: &Db) -> Self {
        Self::named(db, "relay-1", "test").await
    }

    pub(crate) async fn named(db: &Db, name: &str, environment: &str) -> Self {
        let session = db.session().await;
        let epoch = session.one_of("select outbox_relay.register($1, 'test', $2)", &[&name, &environment]).await;
        Self { session, epoch }
    }

    /// The same epoch through another session, as the relay's pool does.
    pub(crate) async fn pooled(&self, db: &Db) -> Self {
        Self { session: db.session().await, epoch: self.epoch }
    }

    /// `None` when the function returned no row: on hold, or fenced.
    pub(crate) async fn try_expand(&self, call: &Expand) -> Option<Expanded> {
        let (busy_ids, busy_counts): (Vec<i64>, Vec<i32>) = call.busy.iter().copied().unzip();
        let rows = self
            .session
            .query(
                "select event_seq, subscription_ids, expanded, queued, more, prioritised, kept_back
                 from outbox_relay.expand($1, $2, $3, $4, $5, $6, false, true, keep_back_ms => $7)",
                &[
                    &self.epoch,
                    &call.event_limit,
                    &call.lease_limit,
                    &call.max_in_flight,
                    &busy_ids,
                    &busy_counts,
                    &call.keep_back_ms,
                ],
            )
            .await
            .unwrap_or_else(|error| panic!("expand: {}", outboxd::schema::describe(&error)));
        let (summary, leased) = rows.split_last()?;
        assert!(summary.get::<_, Option<i64>>(0).is_none(), "the last row sums up");
        let leases = leased.iter().flat_map(|row| {
            let event_seq: i64 = row.get(0);
            row.get::<_, Vec<i64>>(1).into_iter().map(move |subscription_id| (subscription_id, event_seq))
        });
        Some(Expanded {
            leases: leases.collect(),
            expanded: summary.get(2),
            queued: summary.get(3),
            more: summary.get(4),
            prioritised: summary.get(5),
            kept_back: summary.get(6),
        })
    }

    pub(crate) async fn expand(&self, call: &Expand) -> Expanded {
        self.try_expand(call).await.expect("neither held nor fenced")
    }

    /// Expands until nothing is left; everything that came of it.
    pub(crate) async fn expand_all(&self, call: &Expand) -> Expanded {
        let mut total = self.expand(call).await;
        while total.more {
            let batch = self.expand(call).await;
            total.leases.extend(batch.leases);
            total.expanded += batch.expanded;
            total.queued += batch.queued;
            total.more = batch.more;
        }
        total
    }

    /// `None` when the function returned no row: on hold, or fenced.
    pub(crate) async fn try_claim(&self, call: &Claim) -> Option<Claimed> {
        let (busy_ids, busy_counts): (Vec<i64>, Vec<i32>) = call.busy.iter().copied().unzip();
        let rows = self
            .session
            .query(
                "select subscription_id, event_seq, next_due_at is not null, more
                 from outbox_relay.claim($1, $2, $3, $4, $5, true)",
                &[&self.epoch, &call.lease_limit, &call.max_in_flight, &busy_ids, &busy_counts],
            )
            .await
            .unwrap_or_else(|error| panic!("claim: {}", outboxd::schema::describe(&error)));
        let (summary, leased) = rows.split_last()?;
        assert!(summary.get::<_, Option<i64>>(1).is_none(), "the last row sums up");
        Some(Claimed {
            leases: leased.iter().map(|row| (row.get(0), row.get(1))).collect(),
            has_next_due: summary.get(2),
            more: summary.get(3),
        })
    }

    pub(crate) async fn claim(&self, call: &Claim) -> Claimed {
        self.try_claim(call).await.expect("neither held nor fenced")
    }

    /// Records results; what the function returned, by delivery.
    pub(crate) async fn record(&self, results: &[Sent]) -> HashMap<(i64, i64), Recorded> {
        let count = results.len();
        let ids: Vec<i64> = results.iter().map(|r| r.subscription_id).collect();
        let seqs: Vec<i64> = results.iter().map(|r| r.event_seq).collect();
        let outcomes: Vec<&str> = results.iter().map(|r| r.outcome).collect();
        let codes: Vec<Option<i16>> = results.iter().map(|r| r.status_code).collect();
        let errors: Vec<Option<String>> =
            results.iter().map(|r| (r.outcome != "delivered").then(|| format!("test {}", r.outcome))).collect();
        let retry_afters: Vec<Option<i32>> = results.iter().map(|r| r.retry_after_s).collect();
        let (latencies, nothing) = (vec![7_i32; count], vec![None::<&str>; count]);
        let (headers, keys, causes) = (vec![Some("{}"); count], vec!["k1,k2"; count], vec!["schedule"; count]);
        let length = i32::try_from(count).expect("a small batch");
        let rows = self
            .session
            .query(
                "select subscription_id, event_seq, attempt, state, next_attempt_at is not null
                 from outbox_relay.record($1, 'relay-1', $2, $3, array_fill(clock_timestamp(), array[$4::integer]), $5, $6, $7, $8,
                     $9, $10, $10, $11, $12, $13, true)",
                &[
                    &self.epoch, &ids, &seqs, &length, &latencies, &outcomes, &codes, &errors, &nothing, &headers, &keys,
                    &retry_afters, &causes,
                ],
            )
            .await
            .unwrap_or_else(|error| panic!("record: {}", outboxd::schema::describe(&error)));
        // One without a position says that something of an ordering key is due.
        rows.iter()
            .filter(|row| row.get::<_, Option<i64>>(1).is_some())
            .map(|row| {
                let recorded = Recorded { attempt: row.get(2), state: row.get(3), is_scheduled: row.get(4) };
                ((row.get(0), row.get(1)), recorded)
            })
            .collect()
    }

    /// Records one result.
    pub(crate) async fn record_one(&self, result: Sent) -> Option<Recorded> {
        let key = (result.subscription_id, result.event_seq);
        self.record(&[result]).await.remove(&key)
    }

    /// Hands these leases back as not begun. How many of them were.
    pub(crate) async fn hand_back(&self, leases: &[(i64, i64)]) -> i64 {
        let (ids, seqs): (Vec<i64>, Vec<i64>) = leases.iter().copied().unzip();
        let call = "select count(*) filter (where not is_left) from outbox_relay.hand_back($1, $2, $3)";
        self.session.one_of(call, &[&self.epoch, &ids, &seqs]).await
    }

    /// Once a second: fences the dead. How many deliveries were handed back, and why this relay holds.
    pub(crate) async fn tick(&self) -> (i32, Option<String>) {
        let row = self.session.query_one("select handed_back, hold from outbox_relay.tick($1)", &[&self.epoch]).await;
        let row = row.unwrap_or_else(|error| panic!("tick: {}", outboxd::schema::describe(&error)));
        (row.get(0), row.get(1))
    }
}
