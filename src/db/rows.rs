//! What goes into the calls and comes back.

use crate::outcome::Outcome;
use crate::secrets::Stored;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// An event as the relay needs it.
pub struct Event {
    /// Position in the log.
    pub seq: i64,
    /// The public id.
    pub id: Uuid,
    /// Whose event it is.
    pub tenant_id: String,
    /// Its type, as `order.created`.
    pub kind: String,
    /// As PostgreSQL wrote it; not parsed.
    pub payload: String,
    /// When it happened.
    pub occurred_at: SystemTime,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
}

impl std::fmt::Debug for Event {
    // Not the payload.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("seq", &self.seq)
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Event {
    /// The same with nothing in its payload.
    fn without_payload(&self) -> Self {
        Self {
            seq: self.seq,
            id: self.id,
            tenant_id: self.tenant_id.clone(),
            kind: self.kind.clone(),
            payload: String::new(),
            occurred_at: self.occurred_at,
            traceparent: self.traceparent.clone(),
        }
    }

    /// When the row was made: a version 7 UUID says so (RFC 9562, 5.7), to the millisecond. `occurred_at` may be
    /// long ago, of an event told late.
    pub fn inserted_at(&self) -> SystemTime {
        let bytes = self.id.as_bytes();
        if bytes[6] >> 4 != 7 {
            return self.occurred_at;
        }
        let ms = bytes[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first attempt or a retry.
    Schedule,
    /// Somebody called `outbox.replay…`.
    Replay,
    /// Somebody called `outbox.send_test`.
    Test,
}

impl Cause {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Replay => "replay",
            Self::Test => "test",
        }
    }

    pub(super) fn from_name(name: &str) -> Self {
        match name {
            "replay" => Self::Replay,
            "test" => Self::Test,
            _ => Self::Schedule,
        }
    }
}

/// Where a search for a slow filter stands: handed from call to call.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Everything up to this event and subscription has been tried.
    pub after: (i64, i64),
    /// Versions of subscriptions that are convicted.
    pub slow: Vec<i64>,
    /// Versions tried so far.
    pub versions: Vec<i64>,
    /// What each of them has taken.
    pub ms: Vec<f32>,
}

/// What one call of the search brought.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The version of the subscription whose filter is suspected.
    pub suspect: Option<i64>,
    /// Whether that needs no second opinion.
    pub is_sure: bool,
    /// Events of the batch before the one at which the search stopped.
    pub events_before: usize,
    /// Where the next call goes on, if no filter is suspected.
    pub next: Trial,
    /// Whether there is nothing left to try.
    pub is_done: bool,
}

/// A delivery leased to this relay.
#[derive(Clone, Debug)]
pub struct Lease {
    /// To whom.
    pub subscription_id: i64,
    /// The version of the subscription that is to be used.
    pub version: i64,
    /// Position of the event in the log.
    pub event_seq: i64,
    /// What; `None` if the event is gone from the log, which nothing but a human hand can bring about.
    pub event: Option<Arc<Event>>,
    /// Attempts made before.
    pub attempts: i32,
    /// Why now.
    pub cause: Cause,
    /// It comes straight from the log: nothing had to wait in the queue.
    pub is_fresh: bool,
}

impl Lease {
    /// Which delivery: its subscription and its event.
    pub fn key(&self) -> (i64, i64) {
        (self.subscription_id, self.event_seq)
    }

    /// What is to be known of it once it was sent.
    pub fn without_payload(&self) -> Self {
        let event = self.event.as_ref().map(|event| Arc::new(event.without_payload()));
        Self { event, ..self.clone() }
    }

    /// Bytes of its payload.
    pub fn bytes(&self) -> usize {
        self.event.as_ref().map_or(0, |event| event.payload.len())
    }
}

/// How to expand.
#[derive(Clone, Debug)]
pub struct Expand {
    /// So many events at most.
    pub events: usize,
    /// Evaluate no filter: whoever has one gets a dead letter.
    pub skip_filters: bool,
    /// Versions of subscriptions whose filters do not end: they get dead letters, and are disabled.
    pub slow: Vec<i64>,
    /// For so long at most; then it is cancelled.
    pub patience: Duration,
    /// What stands at the end of the batch and has no room of its own stays in the log, until it is so old.
    pub keep_back: Duration,
}

/// What `outbox_relay.expand` did.
#[derive(Debug, Default)]
pub struct Expanded {
    /// Born leased to this relay.
    pub leases: Vec<Lease>,
    /// Events expanded, whether wanted or not.
    pub events: usize,
    /// Deliveries queued rather than leased, which a claim may find.
    pub queued: usize,
    /// Whether the target has more.
    pub more: bool,
    /// Whether there is an event in the rest that is not to wait its turn.
    pub prioritised: bool,
    /// Events read and left in the log, because those who want them have no room of their own.
    pub kept_back: usize,
}

/// What `outbox_relay.claim` did.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Leased to this relay.
    pub leases: Vec<Lease>,
    /// When the next waiting delivery is due, from now.
    pub next_due: Option<Duration>,
    /// Whether some that are due were left for lack of room.
    pub more: bool,
}

/// What the relay has room for.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// Leases it can take in all.
    pub leases: i32,
    /// In flight at once for a subscription that names no limit of its own.
    pub max_in_flight: i32,
    /// Subscriptions with attempts under way.
    pub busy_ids: Vec<i64>,
    /// How many each, parallel to `busy_ids`.
    pub busy_counts: Vec<i32>,
    /// Bytes of payload it can take in, counted for each lease.
    pub bytes: i64,
}

/// The result of an attempt as `outbox_relay.record` takes it.
#[derive(Clone)]
pub struct Finished {
    /// To whom.
    pub subscription_id: i64,
    /// Position of the event in the log.
    pub event_seq: i64,
    /// Its public id: after a failover the position may be another event's.
    pub event_id: Option<Uuid>,
    /// When the attempt began.
    pub started_at: SystemTime,
    /// How long it took.
    pub latency: Duration,
    /// From the event's insert to the first byte of the answer, where nothing but the relay lay between.
    pub since_commit: Option<Duration>,
    /// What came of it.
    pub outcome: Outcome,
    /// No request was made, for want of what the host has run out of: it is handed back instead of recorded.
    pub is_unmade: bool,
    /// The status, if there was an answer.
    pub status_code: Option<i16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The first bytes of the answer.
    pub response_excerpt: Option<String>,
    /// A JSON object.
    pub response_headers: Option<String>,
    /// A JSON object, without signatures.
    pub request_headers: Option<String>,
    /// The keys that signed, between commas.
    pub key_ids: Option<String>,
    /// The receiver's wish.
    pub retry_after_s: Option<i32>,
    /// Why the attempt was made.
    pub cause: Cause,
}

impl std::fmt::Debug for Finished {
    // Neither what the receiver answered, which may repeat what it was sent, nor the headers it was sent.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finished")
            .field("subscription_id", &self.subscription_id)
            .field("event_seq", &self.event_seq)
            .field("outcome", &self.outcome)
            .field("status_code", &self.status_code)
            .finish_non_exhaustive()
    }
}

/// What `outbox_relay.record` did.
#[derive(Debug, Default)]
pub struct Recorded {
    /// One for each result that was not a plain success.
    pub failed: Vec<Failed>,
    /// When the next of these, or of those that the batch had held back, is due, from now.
    pub next_due: Option<Duration>,
}

impl Recorded {
    /// Both of them.
    pub fn join(mut self, other: Self) -> Self {
        self.failed.extend(other.failed);
        self.next_due = self.next_due.into_iter().chain(other.next_due).min();
        self
    }
}

/// What became of a result that was not a plain success.
#[derive(Debug)]
pub struct Failed {
    /// To whom.
    pub subscription_id: i64,
    /// Position of the event in the log.
    pub event_seq: i64,
    /// Its number in the attempt log.
    pub attempt: i32,
    /// `failed` or `dead_letter`; `None` if the lease was lost and the state is somebody else's.
    pub state: Option<String>,
    /// When the next attempt is due.
    pub next_attempt_at: Option<SystemTime>,
}

/// An endpoint with its live secrets.
pub struct SubscriptionRow {
    /// Its id.
    pub subscription_id: i64,
    /// Rises with each change.
    pub version: i64,
    /// Whose it is.
    pub tenant_id: String,
    /// Where to.
    pub url: String,
    /// A JSON object of static headers.
    pub headers: String,
    /// The signature profile's name.
    pub signature: String,
    /// The header that carries the signature, if not the profile's own.
    pub signature_header: Option<String>,
    /// The envelope's name.
    pub envelope: String,
    /// A JSON object of what the subscription says of TLS.
    pub tls: Option<String>,
    /// The time one attempt may take.
    pub timeout: Duration,
    /// Attempts under way at once, if it names a limit of its own.
    pub max_in_flight: Option<usize>,
    /// The live keys, oldest first.
    pub keys: Vec<StoredKey>,
}

/// A live key of a subscription.
#[derive(Debug)]
pub struct StoredKey {
    /// What it is known by.
    pub key_id: String,
    /// Its secret.
    pub stored: Stored,
    /// Signs until then.
    pub expires_at: Option<SystemTime>,
}

/// How things stand, from `outbox_relay.tick`.
#[derive(Debug)]
pub struct Tick {
    /// This relay's epoch was ended by another.
    pub fenced: bool,
    /// Why nothing is to be sent.
    pub hold: Option<String>,
    /// Deliveries of dead relays that were handed back.
    pub handed_back: i32,
    /// Setting `response_excerpt_bytes`.
    pub response_excerpt_bytes: usize,
    /// Setting `allow_insecure_http`.
    pub allow_insecure_http: bool,
    /// Setting `circuit_failures`.
    pub circuit_failures: i64,
    /// There are secrets that are plain.
    pub unsealed: bool,
}

/// Counts of one subscription since the last call of [`Db::add_health`].
#[derive(Clone, Debug, Default)]
pub struct HealthDelta {
    /// Attempts that delivered.
    pub successes: i64,
    /// Attempts that did not.
    pub failures: i64,
    /// Failures after the last success.
    pub trailing_failures: i64,
    /// Start of the last success.
    pub last_success_at: Option<SystemTime>,
    /// Start of the last failure.
    pub last_failure_at: Option<SystemTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_payload_nor_what_was_sent_and_answered() {
        let event = Event {
            seq: 1,
            id: Uuid::from_u128(1),
            tenant_id: "default".into(),
            kind: "a".into(),
            payload: "hunter2".into(),
            occurred_at: SystemTime::UNIX_EPOCH,
            traceparent: None,
        };
        let finished = Finished {
            subscription_id: 7,
            event_seq: 1,
            event_id: None,
            started_at: SystemTime::UNIX_EPOCH,
            latency: Duration::ZERO,
            since_commit: None,
            is_unmade: false,
            outcome: Outcome::Rejected,
            status_code: Some(500),
            error: None,
            response_excerpt: Some("hunter2".into()),
            response_headers: Some("hunter2".into()),
            request_headers: Some("hunter2".into()),
            key_ids: None,
            retry_after_s: None,
            cause: Cause::Schedule,
        };
        let shown = format!("{event:?} {finished:?}");
        assert!(!shown.contains("hunter2") && shown.contains("500"), "{shown}");
    }
}
