//! What the database knows of all relays, for `/metrics` and `/readyz`: asked at most once a second.

use crate::db::{DbError, Gauges, Seat, SubscriptionGauge};
use crate::metrics::Made;
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, IntGaugeVec, Registry};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// Figures younger than this are not asked for again, however many scrape.
const FRESH: Duration = Duration::from_secs(1);

/// The fleet's figures and when they were read.
pub(crate) struct Fleet {
    registry: Registry,
    series: Series,
    shows_subscriptions: bool,
    seat: Seat,
    last: Mutex<Option<(Instant, Gauges)>>,
}

struct Series {
    queue: IntGaugeVec,
    circuits: IntGaugeVec,
    dead_letters: IntGauge,
    unexpanded: IntGauge,
    lag: Gauge,
    oldest_due: Gauge,
    relays: IntGauge,
    hold: IntGauge,
    segments: IntGauge,
    closed_segments: IntGauge,
    log_head: IntGauge,
    stopped_keys: IntGauge,
    disabled: IntGauge,
    age: Gauge,
}

impl Fleet {
    /// Asks through `seat`; with `shows_subscriptions` also of each of them.
    pub(crate) fn new(seat: Seat, shows_subscriptions: bool) -> Self {
        let registry = Registry::new();
        let made = Made(&registry);
        let series = Series {
            queue: made.gauges("queue_deliveries", "Outstanding deliveries of the whole fleet.", &["state"]),
            circuits: made.gauges("circuits", "Subscriptions whose circuit is not closed.", &["state"]),
            dead_letters: made.gauge("dead_letters", "Deliveries given up, as far as history reaches."),
            unexpanded: made.gauge("unexpanded_events", "Events that wait in the log."),
            lag: made.plain_gauge("lag_seconds", "How long the oldest work that a relay could do has waited."),
            oldest_due: made.plain_gauge("oldest_due_seconds", "How long the oldest due delivery has waited."),
            relays: made.gauge("relays", "Relays that live."),
            hold: made.gauge("hold", "1 while nothing is sent, by outbox.hold or because of the environment."),
            segments: made.gauge("segments", "Segments of the log that are open or made ahead; three is usual."),
            closed_segments: made.gauge("closed_segments", "Segments kept until their retention is over."),
            log_head: made.gauge("log_head", "Last position drawn in the log."),
            stopped_keys: made.gauge("stopped_keys", "Ordering keys that wait for an operator."),
            disabled: made.gauge("inactive_subscriptions", "Subscriptions that are paused or disabled."),
            age: made.plain_gauge("status_age_seconds", "How old the figures of the fleet are."),
        };
        Self { registry, series, shows_subscriptions, seat, last: Mutex::default() }
    }

    /// How things stand; what was read within a second is good enough.
    pub(crate) async fn gauges(&self) -> Result<Gauges, DbError> {
        // Whoever comes second waits for the first and takes what it read.
        let mut last = self.last.lock().await;
        if let Some((at, gauges)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(gauges.clone());
        }
        let gauges = self.seat.gauges().await?;
        *last = Some((Instant::now(), gauges.clone()));
        Ok(gauges)
    }

    /// The fleet's figures as families. A database that does not answer leaves the last ones, with their age.
    pub(crate) async fn gather(&self) -> Vec<MetricFamily> {
        if let Err(error) = self.gauges().await {
            warn!(%error, "the figures of the fleet could not be read");
        }
        let last = self.last.lock().await.clone();
        let Some((at, gauges)) = last else { return Vec::new() };
        self.series.set(&gauges, at.elapsed());
        let mut families = self.registry.gather();
        if self.shows_subscriptions {
            match self.seat.subscription_gauges().await {
                Ok(read) => families.extend(by_subscription(read)),
                Err(error) => warn!(%error, "the figures of subscriptions could not be read"),
            }
        }
        families
    }
}

impl Series {
    fn set(&self, gauges: &Gauges, age: Duration) {
        for (state, count) in [("pending", gauges.pending), ("leased", gauges.leased), ("failed", gauges.failed)] {
            self.queue.with_label_values(&[state]).set(count);
        }
        for (state, count) in [("open", gauges.circuits_open), ("half_open", gauges.circuits_half_open)] {
            self.circuits.with_label_values(&[state]).set(count);
        }
        self.dead_letters.set(gauges.dead_letters);
        self.unexpanded.set(gauges.unexpanded_events);
        self.lag.set(gauges.lag_s);
        self.oldest_due.set(gauges.oldest_due_s);
        self.relays.set(gauges.relays);
        self.hold.set(i64::from(gauges.on_hold));
        self.segments.set(gauges.segments);
        self.closed_segments.set(gauges.closed_segments);
        self.log_head.set(gauges.log_head);
        self.stopped_keys.set(gauges.stopped_keys);
        self.disabled.set(gauges.disabled);
        self.age.set(age.as_secs_f64());
    }
}

/// Series for each subscription; made anew each time, so that those that have ended are gone.
fn by_subscription(read: Vec<SubscriptionGauge>) -> Vec<MetricFamily> {
    let registry = Registry::new();
    let made = Made(&registry);
    let attempts = made.counters(
        "subscription_attempts_total",
        "Attempts of a subscription, to about a second.",
        &["tenant_id", "subscription_id", "result"],
    );
    let outstanding = made.gauges(
        "subscription_outstanding",
        "Outstanding deliveries of a subscription.",
        &["tenant_id", "subscription_id"],
    );
    for one in read {
        let id = one.subscription_id.to_string();
        for (result, count) in [("delivered", one.delivered), ("failed", one.failed)] {
            let counter = attempts.with_label_values(&[one.tenant_id.as_str(), &id, result]);
            counter.inc_by(u64::try_from(count).unwrap_or(0));
        }
        outstanding.with_label_values(&[one.tenant_id.as_str(), &id]).set(one.outstanding);
    }
    registry.gather()
}
