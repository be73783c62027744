//! What the relay counts, for Prometheus at `/metrics` and for `outbox.activity()`.
//!
//! Cardinality is low by construction: labels are outcomes, states, causes and names of calls. What is known of
//! the whole fleet is read from the database when somebody asks, see [`crate::admin`].

use crate::db::{Cause, Finished};
use crate::outcome::Outcome;
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Upper bounds of the latency buckets, in seconds: a step is a factor of 1.3 to 2, so that a quantile is known
/// to within that. `outbox_relay.latency_bounds_ms()` has the same.
pub const LATENCY_BOUNDS_S: [f64; 28] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0,
];

/// How many events or results a call takes.
const BATCH_BOUNDS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10_000.0];

/// The calls of the loop, as [`Metrics::called`] is told of them.
const CALLS: [&str; 10] =
    ["expand", "claim", "record", "tick", "add_health", "load_subscriptions", "maintain", "fence", "help", "sample"];

/// Why a relay looks for work.
#[derive(Clone, Copy, Debug)]
pub enum Wakeup {
    /// A producer rang.
    Bell,
    /// Another relay has more than it has room for.
    Help,
    /// An operator made something due.
    Due,
    /// A hold, a setting or an adoption changed.
    Control,
    /// The due time of a delivery has come.
    Timer,
    /// The fallback: so long nothing was heard.
    Poll,
}

/// What became of recorded results.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordedStates {
    /// Delivered for good.
    pub succeeded: u64,
    /// Another attempt is scheduled.
    pub failed: u64,
    /// Given up.
    pub dead_letter: u64,
    /// Came after the lease was lost.
    pub lease_lost: u64,
}

/// Everything one process counts. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    attempts: IntCounterVec,
    first_attempts: IntCounterVec,
    deliveries: IntCounterVec,
    attempt_seconds: Histogram,
    commit_seconds: Histogram,
    in_flight: IntGauge,
    slow_beside: IntGauge,
    concurrency: IntGauge,
    unrecorded: IntGauge,
    expand_batch: Histogram,
    record_batch: Histogram,
    wakeups: IntCounterVec,
    poll_found_work: IntCounter,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    connected: IntGauge,
    reconnects: IntCounter,
    loop_age: Gauge,
    admin_requests: IntCounterVec,
    admin_refused: IntCounter,
    pool: IntGaugeVec,
    pool_waiting: IntGauge,
    pulse: Mutex<Pulse>,
}

/// How the loop is, as of its last turn.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// When the loop last went round.
    pub turned_at: Instant,
    /// Whether it has registered with the database.
    pub is_connected: bool,
    /// Whether it was told to stop.
    pub is_stopping: bool,
    /// Whether its host has run out of files or the like, so that attempts cannot be made.
    pub is_exhausted: bool,
    /// Since when results are waiting to be recorded.
    pub unrecorded_since: Option<Instant>,
}

/// What was counted between two looks, for `outbox_relay.add_sample`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Attempts that delivered.
    pub delivered: i64,
    /// Attempts that did not.
    pub failed: i64,
    /// First attempts that delivered.
    pub first_delivered: i64,
    /// First attempts that did not.
    pub first_failed: i64,
    /// Attempts by latency, in the buckets of [`LATENCY_BOUNDS_S`] and one for what took longer.
    pub attempt_counts: Vec<i64>,
    /// First attempts by the time from commit to first byte, likewise.
    pub commit_counts: Vec<i64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let made = Made(&registry);
        let inner = Inner {
            attempts: made.counters("attempts_total", "HTTP attempts by how they ended.", &["outcome"]),
            first_attempts: made.counters("first_attempts_total", "First attempts of deliveries.", &["result"]),
            deliveries: made.counters("deliveries_total", "Recorded results by the state they led to.", &["state"]),
            attempt_seconds: made.histogram(
                "attempt_duration_seconds",
                "From the start of an attempt to its outcome.",
                &LATENCY_BOUNDS_S,
            ),
            commit_seconds: made.histogram(
                "commit_to_first_byte_seconds",
                "From an event's insert to the first byte of the answer to its first attempt; not of what had to wait in the queue (deliver_at, rate limit, in-flight cap, circuit).",
                &LATENCY_BOUNDS_S,
            ),
            in_flight: made.gauge("in_flight_attempts", "Attempts under way."),
            slow_beside: made.gauge(
                "slow_attempts",
                "Of the attempts under way, the slow ones that hold no place of relay.concurrency: they go on beside, as many at most.",
            ),
            concurrency: made.gauge("concurrency", "Most attempts under way at once besides the slow ones (relay.concurrency)."),
            unrecorded: made.gauge("unrecorded_results", "Results that the database does not have yet."),
            expand_batch: made.histogram("expand_batch_events", "Events expanded by a call that found some.", &BATCH_BOUNDS),
            record_batch: made.histogram("record_batch_results", "Results recorded by a call.", &BATCH_BOUNDS),
            wakeups: made.counters("wakeups_total", "Why the relay looked for work.", &["cause"]),
            poll_found_work: made.counter(
                "poll_found_work_total",
                "Polls that found what no wake-up had told of; near zero while relay.listen is on.",
            ),
            calls: made.counters("database_calls_total", "Calls of outbox_relay functions.", &["call", "result"]),
            call_seconds: made.histograms(
                "database_call_duration_seconds",
                "How long a call took, waiting for a connection included.",
                &["call"],
                &LATENCY_BOUNDS_S[..24],
            ),
            connected: made.gauge("database_connected", "Whether the direct connection stands."),
            reconnects: made.counter("reconnects_total", "Times the direct connection was lost."),
            loop_age: made.plain_gauge("loop_age_seconds", "Since the loop last went round."),
            admin_requests: made.counters("admin_requests_total", "Requests to the operator's seat.", &["status"]),
            admin_refused: made.counter("admin_auth_failures_total", "Requests with no good token or session."),
            pool: made.gauges("pool_connections", "Pooled database connections.", &["state"]),
            pool_waiting: made.gauge("pool_waiting", "Calls that wait for a connection."),
            pulse: Mutex::new(Pulse {
                turned_at: Instant::now(),
                is_connected: false,
                is_stopping: false,
                is_exhausted: false,
                unrecorded_since: None,
            }),
            registry: registry.clone(),
        };
        made.gauges("build_info", "1, with the version.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        #[cfg(target_os = "linux")]
        let _ = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        // A series exists from the start, so that a rate over its first increment is right.
        for outcome in Outcome::ALL {
            inner.attempts.with_label_values(&[outcome.as_str()]);
        }
        for result in ["delivered", "failed"] {
            inner.first_attempts.with_label_values(&[result]);
        }
        for state in ["succeeded", "failed", "dead_letter", "lease_lost"] {
            inner.deliveries.with_label_values(&[state]);
        }
        for class in ["2xx", "3xx", "4xx", "5xx"] {
            inner.admin_requests.with_label_values(&[class]);
        }
        for call in CALLS {
            for result in ["ok", "refused", "failed"] {
                inner.calls.with_label_values(&[call, result]);
            }
            inner.call_seconds.with_label_values(&[call]);
        }
        for cause in [Wakeup::Bell, Wakeup::Help, Wakeup::Due, Wakeup::Control, Wakeup::Timer, Wakeup::Poll] {
            inner.wakeups.with_label_values(&[cause.as_str()]);
        }
        Self(Arc::new(inner))
    }
}

impl Wakeup {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bell => "bell",
            Self::Help => "help",
            Self::Due => "due",
            Self::Control => "control",
            Self::Timer => "timer",
            Self::Poll => "poll",
        }
    }
}

impl Metrics {
    /// An attempt has ended. `is_first`: nothing was attempted before.
    pub fn attempted(&self, finished: &Finished, is_first: bool) {
        self.0.attempts.with_label_values(&[finished.outcome.as_str()]).inc();
        self.0.attempt_seconds.observe(finished.latency.as_secs_f64());
        if is_first && finished.cause != Cause::Test {
            let result = if finished.outcome == Outcome::Delivered { "delivered" } else { "failed" };
            self.0.first_attempts.with_label_values(&[result]).inc();
        }
        if let Some(since_commit) = finished.since_commit {
            self.0.commit_seconds.observe(since_commit.as_secs_f64());
        }
    }

    /// A batch of results is recorded.
    pub fn recorded(&self, states: RecordedStates) {
        let RecordedStates { succeeded, failed, dead_letter, lease_lost } = states;
        self.0.record_batch.observe((succeeded + failed + dead_letter + lease_lost) as f64);
        for (state, count) in
            [("succeeded", succeeded), ("failed", failed), ("dead_letter", dead_letter), ("lease_lost", lease_lost)]
        {
            self.0.deliveries.with_label_values(&[state]).inc_by(count);
        }
    }

    /// A batch of events is expanded.
    pub fn expanded(&self, events: usize) {
        self.0.expand_batch.observe(events as f64);
    }

    /// The relay looks for work.
    pub fn woken(&self, cause: Wakeup) {
        self.0.wakeups.with_label_values(&[cause.as_str()]).inc();
    }

    /// A poll found what no wake-up had told of.
    pub fn poll_found_work(&self) {
        self.0.poll_found_work.inc();
    }

    /// A call of the database has ended: ok, refused or failed.
    pub fn called(&self, call: &str, result: &str, took: Duration) {
        self.0.calls.with_label_values(&[call, result]).inc();
        self.0.call_seconds.with_label_values(&[call]).observe(took.as_secs_f64());
    }

    /// The direct connection is lost.
    pub fn lost_connection(&self) {
        self.0.reconnects.inc();
    }

    /// The loop has gone round.
    pub fn turned(&self, pulse: Pulse, in_flight: usize, slow_beside: usize, unrecorded: usize, concurrency: usize) {
        *self.0.pulse.lock().unwrap_or_else(PoisonError::into_inner) = pulse;
        self.0.connected.set(i64::from(pulse.is_connected));
        self.0.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        self.0.slow_beside.set(i64::try_from(slow_beside).unwrap_or(i64::MAX));
        self.0.unrecorded.set(i64::try_from(unrecorded).unwrap_or(i64::MAX));
        self.0.concurrency.set(i64::try_from(concurrency).unwrap_or(i64::MAX));
    }

    /// How the loop was at its last turn.
    pub fn pulse(&self) -> Pulse {
        *self.0.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the connection pool.
    pub fn pool(&self, idle: usize, busy: usize, waiting: usize) {
        let set = |state: &str, count: usize| self.0.pool.with_label_values(&[state]).set(count as i64);
        set("idle", idle);
        set("busy", busy);
        self.0.pool_waiting.set(waiting as i64);
    }

    /// A request to the operator's seat was answered with this status.
    pub fn admin_answered(&self, status: u16) {
        let class = match status {
            0..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.0.admin_requests.with_label_values(&[class]).inc();
    }

    /// Somebody came with no good token or session.
    pub fn admin_refused(&self) {
        self.0.admin_refused.inc();
    }

    /// Everything of this process, as families to be written in Prometheus' text format.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.0.loop_age.set(self.pulse().turned_at.elapsed().as_secs_f64());
        self.0.registry.gather()
    }

    /// The totals of what a sample is made of; the difference of two is a [`Sample`].
    pub fn totals(&self) -> Sample {
        let first = |result: &str| self.0.first_attempts.with_label_values(&[result]).get() as i64;
        let attempts = |outcome: Outcome| self.0.attempts.with_label_values(&[outcome.as_str()]).get() as i64;
        let delivered = attempts(Outcome::Delivered);
        Sample {
            delivered,
            failed: Outcome::ALL.into_iter().map(attempts).sum::<i64>() - delivered,
            first_delivered: first("delivered"),
            first_failed: first("failed"),
            attempt_counts: buckets(&self.0.attempt_seconds),
            commit_counts: buckets(&self.0.commit_seconds),
        }
    }
}

impl Sample {
    /// What was counted since `earlier`; `None` if that is nothing.
    pub fn since(&self, earlier: &Sample) -> Option<Sample> {
        let less = |now: &[i64], then: &[i64]| -> Vec<i64> {
            now.iter().zip(then.iter().chain(std::iter::repeat(&0))).map(|(now, then)| now - then).collect()
        };
        let sample = Sample {
            delivered: self.delivered - earlier.delivered,
            failed: self.failed - earlier.failed,
            first_delivered: self.first_delivered - earlier.first_delivered,
            first_failed: self.first_failed - earlier.first_failed,
            attempt_counts: less(&self.attempt_counts, &earlier.attempt_counts),
            commit_counts: less(&self.commit_counts, &earlier.commit_counts),
        };
        (sample.delivered + sample.failed > 0).then_some(sample)
    }
}

/// Counts by bucket (the format has them cumulative), and of what is beyond the last.
fn buckets(histogram: &Histogram) -> Vec<i64> {
    let families = histogram.collect();
    let Some(metric) = families.first().and_then(|family| family.get_metric().first()) else { return Vec::new() };
    let histogram = metric.get_histogram();
    let upto = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count());
    let upto: Vec<u64> = upto.chain([histogram.get_sample_count()]).collect();
    upto.iter().zip([0].iter().chain(&upto)).map(|(upto, before)| upto.saturating_sub(*before) as i64).collect()
}

/// Makes metrics called `outboxd_…` and registers them. The names are constants: what is wrong with one shows in
/// every test.
pub(crate) struct Made<'a>(pub(crate) &'a Registry);

#[allow(clippy::expect_used, reason = "names and labels are constants")]
impl Made<'_> {
    fn registered<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a metric's name and labels are valid");
        self.0.register(Box::new(metric.clone())).expect("a metric is registered once");
        metric
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("outboxd_{name}"), help)
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::with_opts(Self::opts(name, help)))
    }

    pub(crate) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Self::opts(name, help), labels))
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::with_opts(Self::opts(name, help)))
    }

    pub(crate) fn plain_gauge(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::with_opts(Self::opts(name, help)))
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(bounds.to_vec());
        self.registered(Histogram::with_opts(opts))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(bounds.to_vec());
        self.registered(HistogramVec::new(opts, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_was_counted_since_the_last() {
        let metrics = Metrics::default();
        let before = metrics.totals();
        assert_eq!(metrics.totals().since(&before), None);
        metrics.0.attempts.with_label_values(&["delivered"]).inc();
        metrics.0.attempts.with_label_values(&["timeout"]).inc_by(2);
        metrics.0.attempt_seconds.observe(0.0004);
        metrics.0.attempt_seconds.observe(0.5);
        metrics.0.attempt_seconds.observe(1000.0);
        let sample = metrics.totals().since(&before).expect("something happened");
        assert_eq!((sample.delivered, sample.failed), (1, 2));
        assert_eq!(sample.attempt_counts.len(), LATENCY_BOUNDS_S.len() + 1);
        assert_eq!((sample.attempt_counts[0], sample.attempt_counts[16], sample.attempt_counts[28]), (1, 1, 1));
        assert_eq!(sample.attempt_counts.iter().sum::<i64>(), 3);
    }
}
