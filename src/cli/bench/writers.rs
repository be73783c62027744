//! Producers: one event a transaction, as fast as they can, or at a steady rate.

use super::BenchError;
use super::payloads::Payloads;
use super::sink::Receiver;
use super::stage::Stage;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Writers that commit as fast as they can until they are stopped.
pub(super) struct Flood {
    started: Instant,
    stop: Arc<AtomicBool>,
    writers: JoinSet<Result<Vec<f64>, tokio_postgres::Error>>,
}

/// What they did.
pub(super) struct Committed {
    pub(super) commits: u64,
    pub(super) per_s: f64,
    /// How long each insert with its commit took.
    pub(super) latencies_ms: Vec<f64>,
}

impl Flood {
    /// Each of the writers has a connection and a prepared insert into `table` when this returns.
    pub(super) async fn start(
        stage: &Stage,
        writers: usize,
        table: &str,
        payloads: &Payloads,
    ) -> Result<Self, BenchError> {
        let sql = format!("insert into {table} (type, payload) values ($1, $2::text::jsonb)");
        let mut ready = vec![];
        for _ in 0..writers {
            let client = stage.connect().await?;
            let insert = client.prepare(&sql).await?;
            ready.push((client, insert));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let payloads = Arc::new(payloads.clone());
        let mut tasks = JoinSet::new();
        for (first, (client, insert)) in ready.into_iter().enumerate() {
            let (stop, payloads) = (stop.clone(), payloads.clone());
            tasks.spawn(async move {
                let mut latencies_ms = vec![];
                while !stop.load(Ordering::Relaxed) {
                    let (kind, payload) = payloads.nth((first + latencies_ms.len()) as u64);
                    let began = Instant::now();
                    client.execute(&insert, &[kind, payload]).await?;
                    latencies_ms.push(began.elapsed().as_secs_f64() * 1000.0);
                }
                Ok(latencies_ms)
            });
        }
        Ok(Self { started: Instant::now(), stop, writers: tasks })
    }

    /// Returns when the last of them has committed.
    pub(super) async fn stop(mut self) -> Result<Committed, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies_ms = vec![];
        while let Some(done) = self.writers.join_next().await {
            latencies_ms.extend(done??);
        }
        let (commits, seconds) = (latencies_ms.len() as u64, self.started.elapsed().as_secs_f64());
        Ok(Committed { commits, per_s: commits as f64 / seconds, latencies_ms })
    }
}

/// Events at a steady rate, and a receiver in this process that sees when each arrives: one clock measures both ends.
pub(super) struct Probe {
    receiver: Receiver,
    /// When each event arrived first, by its number.
    received: Arc<Mutex<Vec<Option<Instant>>>>,
}

/// What a rate is written with.
pub(super) struct Pace {
    pub(super) per_s: u64,
    /// Not counted: warms connections and plans.
    pub(super) warm_up: Duration,
    pub(super) lasts: Duration,
    /// Connections that take the events in turn, so that one slow commit does not hold up the others.
    pub(super) writers: usize,
}

/// How long events took to arrive.
pub(super) struct Arrivals {
    /// From the moment COMMIT returned.
    pub(super) from_commit_ms: Vec<f64>,
    /// From the moment the event was to be inserted, whether the writer was on time or not.
    pub(super) from_schedule_ms: Vec<f64>,
    pub(super) achieved_per_s: f64,
}

/// An event's number is in its id, of version 8: application's own.
const IDS: u128 = 0xbe7c_0000_0000_8000_8000_0000_0000_0000;

impl Probe {
    pub(super) fn start() -> Result<Self, BenchError> {
        let received: Arc<Mutex<Vec<Option<Instant>>>> = Arc::default();
        let seen = received.clone();
        let receiver = Receiver::start(move |arrived| {
            let now = Instant::now();
            let number =
                uuid::Uuid::parse_str(arrived.event_id()).map_or(usize::MAX, |id| (id.as_u128() ^ IDS) as usize);
            if let Some(slot) = seen.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                slot.get_or_insert(now);
            }
        })?;
        Ok(Self { receiver, received })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in", self.receiver.port)
    }

    /// Writes at that pace and waits until all has been delivered. The schedule is kept: an event that is late, because
    /// the one before it took long, is inserted at once, and counts from when it should have been.
    pub(super) async fn measure(
        &self,
        stage: &Stage,
        pace: &Pace,
        payloads: &Payloads,
    ) -> Result<Arrivals, BenchError> {
        let sql = "insert into outbox.event (event_id, type, payload) values ($1, $2, $3::text::jsonb)";
        let count = |lasts: Duration| (lasts.as_secs_f64() * pace.per_s as f64) as usize;
        let (warm_up, all) = (count(pace.warm_up), count(pace.warm_up) + count(pace.lasts));
        let first = {
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            let first = received.len();
            received.resize(first + all, None);
            first
        };
        let mut ready = vec![];
        for _ in 0..pace.writers.clamp(1, all.max(1)) {
            let client = stage.connect().await?;
            let insert = client.prepare(sql).await?;
            ready.push((client, insert));
        }
        let (writers, start, gap) = (ready.len(), Instant::now(), 1.0 / pace.per_s as f64);
        let payloads = Arc::new(payloads.clone());
        let mut tasks = JoinSet::new();
        for (own, (client, insert)) in ready.into_iter().enumerate() {
            let payloads = payloads.clone();
            tasks.spawn(async move {
                let mut committed = vec![];
                for n in (own..all).step_by(writers) {
                    let due = start + Duration::from_secs_f64(n as f64 * gap);
                    sleep_until(due).await;
                    let (kind, payload) = payloads.nth(n as u64);
                    let id = uuid::Uuid::from_u128(IDS | (first + n) as u128);
                    client.execute(&insert, &[&id, kind, payload]).await?;
                    committed.push((n, due, Instant::now()));
                }
                Ok::<_, tokio_postgres::Error>(committed)
            });
        }
        let mut committed = vec![];
        while let Some(done) = tasks.join_next().await {
            committed.extend(done??.into_iter().filter(|(n, ..)| *n >= warm_up));
        }
        stage.drained(Duration::from_secs(60)).await?;

        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut from_commit_ms, mut from_schedule_ms) = (vec![], vec![]);
        let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1000.0;
        for (n, due, at) in &committed {
            let received_at = received[first + n].ok_or("a committed event did not arrive")?;
            from_commit_ms.push(ms(*at, received_at));
            from_schedule_ms.push(ms(*due, received_at));
        }
        let last = committed.iter().map(|(_, _, at)| *at).max().unwrap_or(start);
        let took = last.saturating_duration_since(start + Duration::from_secs_f64(warm_up as f64 * gap)).as_secs_f64();
        // The gap after the last one belongs to it.
        let achieved_per_s = committed.len() as f64 / took.max(committed.len() as f64 * gap);
        Ok(Arrivals { from_commit_ms, from_schedule_ms, achieved_per_s })
    }
}
