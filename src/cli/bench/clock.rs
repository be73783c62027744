//! A receiver in this process, so that one clock measures both ends: it counts what arrives at one path, and notes when
//! what arrives at another.

use super::BenchError;
use super::sink::Receiver;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// What is late is waited for, and counted as late as it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event that is timed has its number in its id, of version 8: application's own. One after the other they lie
/// together in an index, as those of version 7 do that the outbox gives.
const IDS: u128 = 0xbe7c_0000_0000_8000_8000_0000_0000_0000;

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
    /// At `/timed`, by the event's number.
    timed: Mutex<Vec<Receipts>>,
}

/// Of one event.
#[derive(Clone, Copy, Default)]
struct Receipts {
    count: u32,
    last_at: Option<Instant>,
}

impl Arrived {
    fn note(&self, path: &str, event_id: &str) {
        let now = Instant::now();
        if path == "/timed" {
            let number = Uuid::parse_str(event_id).map_or(usize::MAX, |id| (id.as_u128() ^ IDS) as usize);
            if let Some(receipts) = self.timed.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                *receipts = Receipts { count: receipts.count + 1, last_at: Some(now) };
            }
            return;
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count == 1 {
            *self.first_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        if count == self.wanted.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }
}

/// Gives events that are to be timed their numbers.
#[derive(Clone)]
pub(super) struct Numbers(Arc<Arrived>);

impl Numbers {
    /// The next event's number, and its id.
    pub(super) fn next(&self) -> (usize, Uuid) {
        let mut timed = self.0.timed.lock().unwrap_or_else(PoisonError::into_inner);
        timed.push(Receipts::default());
        let number = timed.len() - 1;
        (number, Uuid::from_u128(IDS | number as u128))
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

    /// Where they are timed.
    pub(super) fn timed_url(&self) -> String {
        format!("http://127.0.0.1:{}/timed", self.receiver.port)
    }

    /// Where they are refused.
    pub(super) fn refusing_url(&self) -> String {
        format!("http://127.0.0.1:{}/status/503", self.receiver.port)
    }

    /// Begins to count anew.
    pub(super) fn reset(&self) {
        self.arrived.count.store(0, Ordering::SeqCst);
        *self.arrived.first_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn count(&self) -> u64 {
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

    /// What gives events that are timed here their numbers.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers(self.arrived.clone())
    }

    /// Waits until each of these events has arrived so many times; when it did so last.
    pub(super) async fn last_receipts(&self, numbers: &[usize], copies: u32) -> Result<Vec<Instant>, BenchError> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let receipts: Vec<Option<Instant>> = {
                let timed = self.arrived.timed.lock().unwrap_or_else(PoisonError::into_inner);
                let receipts = numbers.iter().map(|number| timed[*number]);
                receipts.map(|receipts| receipts.last_at.filter(|_| receipts.count >= copies)).collect()
            };
            if let Some(all) = receipts.iter().copied().collect() {
                return Ok(all);
            }
            if Instant::now() > limit {
                let late = receipts.iter().filter(|receipt| receipt.is_none()).count();
                return Err(format!("{late} of {} events did not arrive within a minute", numbers.len()).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_is_there_when_all_its_copies_are_and_counts_from_the_last() {
        let arrived = Arc::<Arrived>::default();
        let numbers = Numbers(arrived.clone());
        let [(_, first), (number, second)] = [numbers.next(), numbers.next()];
        for id in [first, second, Uuid::nil(), second] {
            arrived.note("/timed", &id.to_string());
        }
        let counts: Vec<u32> = arrived.timed.lock().expect("no panic").iter().map(|receipts| receipts.count).collect();
        assert_eq!(counts, [1, 2], "the id of another producer is nobody's here");

        let clock = Clock { receiver: Receiver::start(|_| ()).expect("a port"), arrived: arrived.clone() };
        let last = clock.last_receipts(&[number], 2).await.expect("both have arrived")[0];
        arrived.note("/timed", &second.to_string());
        assert!(clock.last_receipts(&[number], 3).await.expect("all three have arrived")[0] > last);
    }
}
