//! An attempt in the loop: a lease is taken in, begins when there is a place, ends, and is recorded.

use super::{Relay, TICK};
use crate::attempt;
use crate::crash_point::{Point, reached};
use crate::lease::Work;
use crate::record::{self, Attempt, Held};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// Most results recorded in one call.
const RECORD_LIMIT: usize = 512;
/// So many results are recorded at once, and fewer after so long.
const RECORD_ENOUGH: usize = 128;
const RECORD_PACE: Duration = Duration::from_millis(3);

/// After so long without it, that this host has run out of something is said anew.
const EXHAUSTED_AGAIN: Duration = Duration::from_secs(10);

/// A lease to be handed back: its epoch, and its subscription and event.
pub(super) type Unwanted = (i32, (i64, i64));

impl Relay {
    /// Takes leases in; those for which there is no place wait.
    pub(super) fn take(&mut self, epoch: i32, work: Vec<Work>) {
        if epoch != self.epoch && self.retired.iter().all(|direct| direct.epoch != epoch) {
            return; // the epoch has ended, and they have been handed back
        }
        if self.drain_until.is_some() {
            self.unwanted.extend(work.iter().map(|(lease, _)| (epoch, lease.key())));
            return self.hand_back_now();
        }
        *self.unrecorded.entry(epoch).or_default() += work.len();
        let now = Instant::now();
        for (lease, known) in work {
            let held = Held::new(&lease, &self.held);
            self.ready.push(Arc::new(Attempt { lease, known, epoch, held }), now);
            reached(Point::LeaseTaken);
        }
    }

    /// Leases that have waited since then or longer are handed back, with the next tick.
    pub(super) fn give_up_waiting(&mut self, since: Instant) {
        for attempt in self.ready.give_up(since) {
            self.unwanted.push((attempt.epoch, attempt.lease.key()));
            self.settle(attempt.epoch, 1);
        }
    }

    pub(super) fn hand_back_now(&mut self) {
        self.tick_at = Instant::now();
    }

    /// So many of an epoch have no result to come any more.
    fn settle(&mut self, epoch: i32, count: usize) {
        if let Some(unrecorded) = self.unrecorded.get_mut(&epoch) {
            *unrecorded = unrecorded.saturating_sub(count);
        }
        self.unrecorded.retain(|_, unrecorded| *unrecorded > 0);
        // The session's end frees the lock of its epoch; the next tick finds it dead and hands back.
        self.retired.retain(|direct| self.unrecorded.contains_key(&direct.epoch));
    }

    pub(super) fn start_attempts(&mut self) {
        // Without its connection this relay may have been taken for dead: nothing more is begun.
        while self.direct.is_some()
            && self.lanes.quick_room() > 0
            && let Some(attempt) = self.ready.begin()
        {
            self.lanes.begin(attempt.lease.key(), attempt.lease.bytes(), Instant::now());
            let (sender, tracer, excerpt_bytes) = (self.sender.clone(), self.tracer.clone(), self.excerpt_bytes);
            self.attempts.spawn(async move {
                let finished = attempt::make(&sender, &tracer, &attempt.lease, &attempt.known, excerpt_bytes).await;
                (attempt, finished)
            });
        }
    }

    pub(super) fn on_attempted(&mut self, first: record::Result) {
        let mut next = Some(first);
        if self.results.is_empty() {
            self.resulted_at = Instant::now();
        }
        while let Some((attempt, finished)) = next {
            let id = attempt.lease.subscription_id;
            self.ready.end(id);
            self.lanes.end(attempt.lease.key(), finished.latency);
            next = self.attempts.try_join_next().and_then(Result::ok);
            if finished.is_unmade {
                self.unwanted.push((attempt.epoch, attempt.lease.key()));
                self.settle(attempt.epoch, 1);
                self.wait_for_means(finished.error.as_deref());
                continue;
            }
            self.metrics.attempted(&finished, attempt.lease.attempts == 0);
            if record::count(&mut self.health, &finished) == self.circuit_failures {
                self.tick_at = Instant::now(); // a circuit may have to open
            }
            self.results.push((attempt, finished));
        }
        reached(Point::ResultNoted);
        self.expand_for_room();
    }

    /// This host has run out of files or the like: nothing more is leased for a while, and said once in a while.
    fn wait_for_means(&mut self, error: Option<&str>) {
        let now = Instant::now();
        if self.exhausted_until.is_none_or(|until| now >= until + EXHAUSTED_AGAIN) {
            warn!(error, "attempts cannot be made and are handed back; they count for no receiver's failure");
        }
        self.exhausted_until = Some(now + TICK);
    }

    /// When the results there are are to be recorded: at once if they are many, or little else is under way; otherwise
    /// a few more are waited for, because a call costs a fraction of a millisecond whatever it brings.
    pub(super) fn record_at(&self) -> Instant {
        if self.results.len() >= RECORD_ENOUGH || self.results.len() >= self.attempts.len() {
            self.resulted_at
        } else {
            self.resulted_at + RECORD_PACE
        }
    }

    pub(super) fn start_recording(&mut self) {
        // A batch is of one epoch; after a lost connection the rest waits for the next call.
        let epoch = self.results[0].0.epoch;
        let same = self.results.iter().take(RECORD_LIMIT).take_while(|(attempt, _)| attempt.epoch == epoch).count();
        let batch: Vec<_> = self.results.drain(..same).collect();
        (self.recording_epoch, self.recording_count) = (epoch, batch.len());
        self.recording_since = Instant::now();
        self.recording = Some(tokio::spawn(record::record(self.db.clone(), self.settings.name.clone(), batch)));
    }

    pub(super) fn on_recorded(&mut self, done: record::Done) {
        reached(Point::RecordAnswered);
        let (next_due, recorded) = (done.next_due, self.recording_count - done.held_up.len());
        self.held_up.extend(done.held_up);
        self.metrics.recorded(done.states);
        self.settle(self.recording_epoch, recorded);
        self.recording_count = 0;
        if let Some(next_due) = next_due {
            self.due_within(next_due);
        }
        if std::mem::take(&mut self.due_left) {
            self.due_at = Some(Instant::now());
        }
        reached(Point::RecordSettled);
    }
}
