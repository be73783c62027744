//! An attempt in the loop: a lease is taken in, begins when there is a place, ends, and is recorded.

use super::Relay;
use crate::attempt;
use crate::lease::Work;
use crate::record::{self, Attempt, Held};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most results recorded in one call.
const RECORD_LIMIT: usize = 512;
/// So many results are recorded at once, and fewer after so long.
const RECORD_ENOUGH: usize = 128;
const RECORD_PACE: Duration = Duration::from_millis(3);

impl Relay {
    /// Takes leases in; those for which there is no place wait.
    pub(super) fn take(&mut self, epoch: i32, work: Vec<Work>) {
        if self.drain_until.is_some() || epoch != self.epoch {
            return; // handed back when the epoch ends
        }
        *self.unrecorded.entry(epoch).or_default() += work.len();
        for (lease, known) in work {
            let held = Held::new(&lease, &self.held);
            self.ready.push(Arc::new(Attempt { lease, known, epoch, held }));
        }
    }

    /// Leases that have not begun: whoever fences this epoch hands them back.
    pub(super) fn give_up_waiting(&mut self) {
        for attempt in self.ready.clear() {
            if let Some(count) = self.unrecorded.get_mut(&attempt.epoch) {
                *count = count.saturating_sub(1);
            }
        }
        self.unrecorded.retain(|_, count| *count > 0);
    }

    pub(super) fn start_attempts(&mut self) {
        while self.lanes.quick_room() > 0
            && let Some(attempt) = self.ready.begin()
        {
            self.lanes.begin((attempt.lease.subscription_id, attempt.lease.event_seq), Instant::now());
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
            self.lanes.end((id, attempt.lease.event_seq), finished.latency);
            self.metrics.attempted(&finished, attempt.lease.attempts == 0);
            if record::count(&mut self.health, &finished) == self.circuit_failures {
                self.tick_at = Instant::now(); // a circuit may have to open
            }
            self.results.push((attempt, finished));
            next = self.attempts.try_join_next().and_then(Result::ok);
        }
        self.expand_for_room();
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
        self.recording = Some(tokio::spawn(record::record(self.db.clone(), self.settings.name.clone(), batch)));
    }

    pub(super) fn on_recorded(&mut self, done: record::Done) {
        let (next_due, recorded) = (done.next_due, self.recording_count - done.held_up.len());
        self.held_up.extend(done.held_up);
        self.metrics.recorded(done.states);
        if let Some(count) = self.unrecorded.get_mut(&self.recording_epoch) {
            *count = count.saturating_sub(recorded);
        }
        self.unrecorded.retain(|_, count| *count > 0);
        // The session's end frees the lock of its epoch; the next tick finds it dead and hands back.
        self.retired.retain(|direct| self.unrecorded.contains_key(&direct.epoch));
        self.recording_count = 0;
        if let Some(next_due) = next_due {
            self.due_within(next_due);
        }
        if std::mem::take(&mut self.due_left) {
            self.due_at = Some(Instant::now());
        }
    }
}
