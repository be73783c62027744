//! The relay telling how it is: to `/metrics` and `/readyz` of this process, and to `outbox.activity()`.

use super::{Relay, TICK};
use crate::metrics::{Pulse, Sample};
use std::time::Duration;
use tokio::time::Instant;

/// How often a sample of the activity is kept, if there was any.
const SAMPLE: Duration = Duration::from_secs(5);

impl Relay {
    /// Tells the metrics, and by them `/readyz`, how the loop is.
    pub(super) fn note_turn(&self) {
        let pulse = Pulse {
            turned_at: Instant::now(),
            is_connected: self.is_connected(),
            is_stopping: self.drain_until.is_some(),
            // Until one more round of attempts has gone well.
            is_exhausted: self.exhausted_until.is_some_and(|until| Instant::now() < until + TICK),
            unrecorded_since: self.recording.as_ref().map(|_| self.recording_since),
        };
        let unrecorded = self.results.len() + self.recording_count + self.held_up.len();
        let (in_flight, slow_beside) = (self.attempts.len(), self.lanes.slow_beside().places);
        self.metrics.turned(pulse, in_flight, slow_beside, unrecorded, self.settings.concurrency);
        self.db.note_pool();
    }

    /// What was done since the last sample, if it is time for one and something was.
    pub(super) fn take_sample(&mut self, now: Instant) -> Option<(Duration, Sample)> {
        let span = now.duration_since(self.sampled_at);
        if span < SAMPLE && self.drain_until.is_none() {
            return None;
        }
        let totals = self.metrics.totals();
        let sample = totals.since(&self.sampled);
        (self.sampled, self.sampled_at) = (totals, now);
        sample.map(|sample| (span, sample))
    }
}
