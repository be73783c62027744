//! What scenarios of several turns share: a receiver with a clock, a steady beat, and databases beside the stage's.
//!
//! Two shared cores drift by more than what is to be seen, so a turn is told as its ratio to the mean of the turns
//! before and after it that lack what it has ([`Compared`]).

use super::BenchError;
use super::report::{Row, quantiles};
use super::sink::Receiver;
use super::stage::Stage;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

/// Connections, plans and endpoints are warm then.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);
/// What is late is waited for, and counted as late as it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A receiver in this process: it counts what arrives, and notes when.
pub(super) struct Clock {
    receiver: Receiver,
    arrived: Arc<Arrived>,
}

#[derive(Default)]
struct Arrived {
    /// At `/in`.
    count: AtomicU64,
    /// The count that somebody waits for.
    wanted: AtomicU64,
    reached: Notify,
    first_at: Mutex<Option<Instant>>,
    /// By event, at `/timed`: how often, and when last.
    timed: Mutex<HashMap<u128, (u32, Instant)>>,
}

impl Arrived {
    fn note(&self, path: &str, event_id: &str) {
        if path == "/timed" {
            let id = Uuid::parse_str(event_id).map_or(0, |id| id.as_u128());
            let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = timed.entry(id).or_insert((0, Instant::now()));
            *entry = (entry.0 + 1, Instant::now());
            return;
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count == 1 {
            *self.first_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        if count == self.wanted.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }
}

impl Clock {
    pub(super) fn start() -> Result<Self, BenchError> {
        let arrived = Arc::<Arrived>::default();
        let noted = arrived.clone();
        let receiver = Receiver::start(move |request| noted.note(request.path, request.event_id()))?;
        Ok(Self { receiver, arrived })
    }

    /// Where deliveries are counted.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in", self.receiver.port)
    }

    /// Where they are timed, for [`Beat`].
    pub(super) fn timed_url(&self) -> String {
        format!("http://127.0.0.1:{}/timed", self.receiver.port)
    }

    /// Where deliveries are refused.
    pub(super) fn refusing_url(&self) -> String {
        format!("http://127.0.0.1:{}/status/503", self.receiver.port)
    }

    /// Begins to count anew.
    pub(super) fn reset(&self) {
        self.arrived.count.store(0, Ordering::SeqCst);
        *self.arrived.first_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn count(&self) -> u64 {
        self.arrived.count.load(Ordering::SeqCst)
    }

    /// When the first since the reset arrived.
    pub(super) fn first_at(&self) -> Option<Instant> {
        *self.arrived.first_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many have arrived since the reset.
    pub(super) async fn wait_for(&self, count: u64, limit: Duration) -> Result<Instant, BenchError> {
        self.arrived.wanted.store(count, Ordering::SeqCst);
        let reached = async {
            // A permit may be left of an earlier wait.
            while self.count() < count {
                self.arrived.reached.notified().await;
            }
            Instant::now()
        };
        let reached = timeout(limit, reached).await;
        reached
            .map_err(|_| format!("{} of {count} deliveries arrived within {} s", self.count(), limit.as_secs()).into())
    }
}

/// Events at a steady rate, each timed from its COMMIT to its last receipt.
pub(super) struct Beat<'a> {
    pub(super) rate: u64,
    pub(super) event_type: &'a str,
    pub(super) payload: &'a str,
    /// They are for these tenants in turn.
    pub(super) tenants: &'a [String],
    /// So many deliveries of each.
    pub(super) copies: u32,
    /// Not counted.
    pub(super) warm_up: Duration,
}

impl Beat<'_> {
    /// Goes on for so long after having warmed up.
    pub(super) async fn last(&self, stage: &Stage, clock: &Clock, duration: Duration) -> Result<Latency, BenchError> {
        let until = Instant::now() + self.warm_up + duration;
        self.go_on(stage, clock, || Instant::now() < until).await
    }

    /// Goes on while `more` says so.
    pub(super) async fn go_on(
        &self,
        stage: &Stage,
        clock: &Clock,
        more: impl Fn() -> bool,
    ) -> Result<Latency, BenchError> {
        let writer = stage.connect().await?;
        let insert = writer.prepare(INSERT).await?;
        let mut tick = interval(Duration::from_secs_f64(1.0 / self.rate as f64));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let counted_from = Instant::now() + self.warm_up;
        let (mut committed, mut tenants) = (vec![], self.tenants.iter().cycle());
        while more() {
            tick.tick().await;
            let id = Uuid::from_u128(fastrand::u128(..));
            let tenant = tenants.next().ok_or("a beat is for somebody")?;
            writer.execute(&insert, &[&id, &tenant, &self.event_type, &self.payload]).await?;
            let at = Instant::now();
            if at >= counted_from {
                committed.push((id.as_u128(), at));
            }
        }
        let limit = Instant::now() + PATIENCE;
        loop {
            let late = {
                let timed = clock.arrived.timed.lock().unwrap_or_else(PoisonError::into_inner);
                committed.iter().filter(|(id, _)| timed.get(id).is_none_or(|(times, _)| *times < self.copies)).count()
            };
            if late == 0 {
                break;
            }
            if Instant::now() > limit {
                return Err(format!("{late} of {} events did not arrive within a minute", committed.len()).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        let timed = std::mem::take(&mut *clock.arrived.timed.lock().unwrap_or_else(PoisonError::into_inner));
        let ms = committed.iter().filter_map(|(id, at)| {
            timed.get(id).map(|(_, arrived_at)| arrived_at.saturating_duration_since(*at).as_secs_f64() * 1000.0)
        });
        Ok(Latency::of(ms.collect()))
    }
}

const INSERT: &str =
    "insert into outbox.event (event_id, tenant_id, type, payload) values ($1, $2, $3, $4::text::jsonb)";

/// Commit to receipt, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

impl Latency {
    fn of(mut ms: Vec<f64>) -> Self {
        let [p50, p99, p999] = quantiles(&mut ms, [0.5, 0.99, 0.999]).map(Option::unwrap_or_default);
        Self { p50, p99, p999 }
    }

    pub(super) fn add_to(self, row: &mut Row) {
        row.add("p50_ms", self.p50);
        row.add("p99_ms", self.p99);
        row.add("p999_ms", self.p999);
    }
}

/// What is compared of two turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) per_s: f64,
    pub(super) latency: Latency,
}

impl Turn {
    pub(super) fn add_to(self, row: &mut Row) {
        row.add("deliveries_per_s", self.per_s);
        self.latency.add_to(row);
    }

    /// The same, with its ratios to the mean of its neighbours.
    pub(super) fn add_beside(self, neighbours: &[Turn], row: &mut Row) {
        self.add_to(row);
        let of = |figure: fn(&Turn) -> f64| {
            figure(&self) * neighbours.len() as f64 / neighbours.iter().map(figure).sum::<f64>()
        };
        row.add("deliveries_ratio", of(|turn| turn.per_s));
        row.add("p50_ratio", of(|turn| turn.latency.p50));
        row.add("p99_ratio", of(|turn| turn.latency.p99));
        row.add("p999_ratio", of(|turn| turn.latency.p999));
    }
}

/// Where the log ends now.
pub(super) async fn log_end(stage: &Stage) -> Result<i64, BenchError> {
    let end = "select last_value - (not is_called)::integer from outbox.event_event_seq_seq";
    Ok(stage.client.query_one(end, &[]).await?.get(0))
}

/// How many deliveries of events beyond that position have succeeded. Fails if one has not, or is missing. Tenants whose
/// names begin so may have deliveries that have not.
///
/// `outbox.unaccounted()` is asked with its own text, not by its name, so that the planner takes the condition into the
/// look at the log: the whole of it would be read otherwise.
pub(super) async fn delivered(stage: &Stage, beyond: i64, but_for: Option<&str>) -> Result<u64, BenchError> {
    let text = "select prosrc from pg_proc where oid = 'outbox.unaccounted'::regproc";
    let text: String = stage.client.query_one(text, &[]).await?.get(0);
    let count = format!("select count(*) from ({text}) u where u.event_seq > $1");
    let lost: i64 = stage.client.query_one(&count, &[&beyond]).await?.get(0);
    let count = "select count(*) filter (where state = 'succeeded'), count(*) filter (where state <> 'succeeded')
         from outbox.delivery where event_seq > $1 and starts_with(tenant_id, $2) is not true";
    let row = stage.client.query_one(count, &[&beyond, &but_for]).await?;
    let (succeeded, not): (i64, i64) = (row.get(0), row.get(1));
    if lost + not > 0 {
        return Err(format!("{not} deliveries have not succeeded, and {lost} are unaccounted for").into());
    }
    Ok(u64::try_from(succeeded)?)
}
