//! Producers: one event a transaction, as fast as they can, or at a steady rate.

use super::BenchError;
use super::clock::Clock;
use super::payloads::Payloads;
use super::report::{Row, quantiles};
use super::stage::Stage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, Statement};

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

/// Events at a steady rate, each timed from its writer to its last receipt.
///
/// The loop is open: when an event is due depends on the rate alone, not on how long the ones before it took. One that
/// is late, because every connection is busy, is inserted at once. Two times are told of each. The one that scenarios
/// compare begins when COMMIT has returned: what a relay can do something about; an event that arrives before its writer
/// hears of the COMMIT took no time. The other begins when the event was due, and is the more honest one of what a user
/// waits for: the insert is in it, and so is what a writer that was held up did not send in time.
#[derive(Clone)]
pub(super) struct Beat {
    pub(super) per_s: f64,
    pub(super) payloads: Arc<Payloads>,
    /// They are for these tenants in turn.
    pub(super) tenants: Arc<[String]>,
    /// So many deliveries of each.
    pub(super) copies: u32,
    /// Connections, of which whichever is free takes the next event: one slow commit does not hold up the others.
    pub(super) writers: usize,
}

/// What a beat's events are called, whatever they carry.
pub(super) const BEAT: &str = "beat";

/// An event of a beat, committed.
struct Written {
    /// Within the beat.
    nth: u64,
    /// By which the receiver knows it.
    number: usize,
    due: Instant,
    committed_at: Instant,
}

impl Beat {
    /// For the tenant that events have which name none.
    pub(super) fn new(per_s: f64, payloads: &Payloads) -> Self {
        let (payloads, tenants) = (Arc::new(payloads.clone()), Arc::new(["default".to_owned()]));
        Self { per_s, payloads, tenants, copies: 1, writers: 16 }
    }

    /// So many events last so long.
    fn events(&self, lasts: Duration) -> u64 {
        (lasts.as_secs_f64() * self.per_s).round() as u64
    }

    /// Goes on for so long after having warmed up, and waits until everything has arrived.
    pub(super) async fn last(
        &self,
        stage: &Stage,
        clock: &Clock,
        warm_up: Duration,
        lasts: Duration,
    ) -> Result<Latency, BenchError> {
        let not_counted = self.events(warm_up);
        let all = not_counted + self.events(lasts).max(1);
        let mut written = self.write(self.connect(stage).await?, clock, move |nth| nth < all).await?;
        written.retain(|event| event.nth >= not_counted);
        self.time(clock, &written).await
    }

    /// Goes on while `more` says so, and waits until everything has arrived. The connections are made before what it is to
    /// accompany begins.
    pub(super) async fn last_while(
        &self,
        connected: Vec<(Client, Statement)>,
        clock: &Clock,
        more: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<Latency, BenchError> {
        let written = self.write(connected, clock, move |_| more()).await?;
        self.time(clock, &written).await
    }

    /// Goes on for so long; whether it arrives is nobody's concern.
    pub(super) async fn only_write(&self, stage: &Stage, clock: &Clock, lasts: Duration) -> Result<(), BenchError> {
        let all = self.events(lasts);
        self.write(self.connect(stage).await?, clock, move |nth| nth < all).await?;
        Ok(())
    }

    /// Its connections, with what each of them inserts by.
    pub(super) async fn connect(&self, stage: &Stage) -> Result<Vec<(Client, Statement)>, BenchError> {
        let sql = "insert into outbox.event (event_id, tenant_id, type, payload) values ($1, $2, $3, $4::text::jsonb)";
        let mut connected = vec![];
        for _ in 0..self.writers {
            let client = stage.connect().await?;
            let insert = client.prepare(sql).await?;
            connected.push((client, insert));
        }
        Ok(connected)
    }

    /// Writes while there is a next event.
    async fn write(
        &self,
        connected: Vec<(Client, Statement)>,
        clock: &Clock,
        is_next: impl Fn(u64) -> bool + Clone + Send + 'static,
    ) -> Result<Vec<Written>, BenchError> {
        let (start, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for (client, insert) in connected {
            let (beat, numbers, next, is_next) = (self.clone(), clock.numbers(), next.clone(), is_next.clone());
            writers.spawn(async move {
                let mut written = vec![];
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if !is_next(nth) {
                        break;
                    }
                    let due = start + Duration::from_secs_f64(nth as f64 / beat.per_s);
                    sleep_until(due).await;
                    // It may have been called off meanwhile.
                    if !is_next(nth) {
                        break;
                    }
                    let (number, id) = numbers.next();
                    let tenant = &beat.tenants[(nth % beat.tenants.len() as u64) as usize];
                    let (_, payload) = beat.payloads.nth(nth);
                    client.execute(&insert, &[&id, tenant, &BEAT, payload]).await?;
                    written.push(Written { nth, number, due, committed_at: Instant::now() });
                }
                Ok::<_, tokio_postgres::Error>(written)
            });
        }
        let mut written = vec![];
        while let Some(done) = writers.join_next().await {
            written.extend(done??);
        }
        Ok(written)
    }

    /// Waits until these have arrived; how long it took them.
    async fn time(&self, clock: &Clock, written: &[Written]) -> Result<Latency, BenchError> {
        if written.is_empty() {
            return Err("what was to be accompanied was over before the first event of the beat".into());
        }
        let numbers: Vec<usize> = written.iter().map(|event| event.number).collect();
        let receipts = clock.last_receipts(&numbers, self.copies).await?;
        let ms = |from: fn(&Written) -> Instant| {
            let both = written.iter().zip(&receipts);
            both.map(|(event, at)| at.saturating_duration_since(from(event)).as_secs_f64() * 1000.0).collect::<Vec<_>>()
        };
        let [p50, p99, p999] =
            quantiles(&mut ms(|event| event.committed_at), [0.5, 0.99, 0.999]).map(Option::unwrap_or_default);
        let [from_schedule_p50, from_schedule_p99] =
            quantiles(&mut ms(|event| event.due), [0.5, 0.99]).map(Option::unwrap_or_default);
        let began = written.iter().map(|event| event.due).min();
        let ended = written.iter().map(|event| event.committed_at).max();
        let took = began.zip(ended).map(|(began, ended)| ended.saturating_duration_since(began).as_secs_f64());
        // The gap after the last one belongs to it.
        let at_least = written.len() as f64 / self.per_s;
        let achieved_per_s = written.len() as f64 / took.unwrap_or_default().max(at_least);
        let events = written.len() as u64;
        Ok(Latency { events, achieved_per_s, p50, p99, p999, from_schedule_p50, from_schedule_p99 })
    }
}

/// How long a beat's events took to arrive, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) events: u64,
    /// By which the writers were on time, or were not.
    pub(super) achieved_per_s: f64,
    /// From the moment COMMIT returned.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    /// From the moment the event was due.
    pub(super) from_schedule_p50: f64,
    pub(super) from_schedule_p99: f64,
}

impl Latency {
    pub(super) fn add_to(self, row: &mut Row) {
        row.add("achieved_per_s", self.achieved_per_s);
        row.add("p50_ms", self.p50);
        row.add("p99_ms", self.p99);
        row.add("p999_ms", self.p999);
        row.add("from_schedule_p50_ms", self.from_schedule_p50);
        row.add("from_schedule_p99_ms", self.from_schedule_p99);
    }
}
