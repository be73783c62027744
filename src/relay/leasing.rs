//! The relay getting work: how much, when, and what to do with what came.

use super::{RETRY, Relay, TICK, slow};
use crate::db::Room;
use crate::lease::{self, Leased};
use crate::metrics::Wakeup;
use crate::wake::Direct;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// A failed expand is tried again with this fraction of its events.
const EXPAND_SHRINK: usize = 8;
/// Bytes of payload that one call brings at most, so that its time is not that of the network.
const MAX_CALL_BYTES: usize = 16 << 20;
/// Between two leases, unless there is room for many: a lease call costs about a millisecond.
const LEASE_PACE: Duration = Duration::from_millis(2);

/// Events of an expand at least, while there is room: where each leads to hundreds of deliveries, a few events would
/// fill it, and everybody else's waited in the log for many calls. What does not fit is queued.
const LEAST_EVENTS: usize = 16;
/// A claim that takes longer than this, and than [`CLAIM_PER_LEASE`] for each lease it brings, is followed by a
/// pause [`CLAIM_PAUSE`] times as long as what is beyond: it looks through all that fail, and what is new waits for it.
const CLAIM_FREE: Duration = Duration::from_millis(1);
const CLAIM_PER_LEASE: Duration = Duration::from_micros(100);
const CLAIM_PAUSE: u32 = 50;
const LONGEST_CLAIM_PAUSE: Duration = Duration::from_millis(250);

impl Relay {
    /// Claims what is due, else expands what is new, else goes to sleep the way `wake` describes.
    pub(super) async fn start_leasing(&mut self, now: Instant) {
        let room = self.room();
        if (room == 0 && !self.prioritised) || now < self.lease_at(room) {
            return;
        }
        self.leasing_epoch = self.epoch;
        let expand_wanted = self.log_wanted && now >= self.expand_at;
        let claim_wanted = room > 0 && self.due_at.is_some_and(|at| now >= at.max(self.claim_at));
        // In turns where both are wanted: endpoints that fail always have retries due, and would keep what is
        // new to everybody else waiting in the log.
        if claim_wanted && !(expand_wanted && self.claimed_last) {
            self.claimed_last = true;
            self.claim_began_at = now;
            self.due_at = None;
            if !self.polled {
                self.metrics.woken(Wakeup::Timer);
            }
            let claim_room = self.claim_room(room);
            self.leasing =
                Some(tokio::spawn(lease::claim(self.db.clone(), self.endpoints.clone(), self.epoch, claim_room)));
        } else if expand_wanted {
            self.claimed_last = false;
            self.log_wanted = false;
            // What is not to wait its turn lies behind what is: all of it goes to the queue, where claim can choose.
            let fitting = if self.prioritised { f64::INFINITY } else { (room as f64 / self.fan_out).ceil() };
            let least = if room * 4 >= self.settings.concurrency { LEAST_EVENTS } else { 1 };
            let wanted = (fitting as usize).max(least).min(self.settings.batch);
            if self.slow.is_wanted() {
                let (events, found) = (self.expanding, slow::find(self.db.clone(), self.epoch, self.expanding));
                self.leasing = Some(tokio::spawn(async move { Leased::Tried { slow: found.await, events } }));
                return;
            }
            // A batch of one has failed, and no filter was to blame: on with it, whatever its filters would say.
            let skip_filters = self.expand_limit == 0;
            self.expanding = self.slow.at_most(wanted.min(self.expand_limit).max(1));
            let slow = self.slow.begin();
            let call =
                lease::Expand { events: self.expanding, skip_filters, patience: self.slow.patience(&slow), slow };
            self.leasing = Some(tokio::spawn(lease::expand(
                self.db.clone(),
                self.endpoints.clone(),
                self.epoch,
                self.expand_room(room),
                call,
            )));
        } else if !self.log_wanted && self.wants_door() {
            self.try_to_sleep(now).await;
        }
    }

    /// Nothing is left to do, and the relay is the one that is rung for.
    pub(super) fn wants_door(&self) -> bool {
        self.hold.is_none() && self.direct.as_ref().is_some_and(|direct| direct.has_bell() && !direct.has_door())
    }

    /// When the next lease call may be made: with little room not right after the last, because each
    /// costs about a millisecond whatever it brings.
    pub(super) fn lease_at(&self, room: usize) -> Instant {
        if room * 8 < self.settings.concurrency {
            self.lease_at.max(self.leased_at + LEASE_PACE)
        } else {
            self.lease_at
        }
    }

    pub(super) async fn on_leased(&mut self, leased: Leased) {
        let now = Instant::now();
        (self.leased_at, self.lease_at) = (now, now);
        match leased {
            Leased::Expanded { work, events, queued, more, prioritised } => {
                self.prioritised = prioritised;
                let deliveries = work.len() + queued;
                self.expand_retry = RETRY.0;
                self.slow.on_expanded(events, self.expanding, now);
                self.expand_limit = self.expand_limit.max(1).saturating_mul(2);
                let polled = std::mem::take(&mut self.polled);
                if events > 0 {
                    self.metrics.expanded(events);
                    if polled {
                        self.metrics.poll_found_work();
                    }
                    self.fan_out = 0.75 * self.fan_out + 0.25 * (deliveries as f64 / events as f64).max(0.1);
                    self.leave_door_if_busy(now, more).await;
                }
                // Without a door to watch, look until nothing is found.
                self.log_wanted |= more || (events > 0 && !self.direct.as_ref().is_some_and(Direct::has_bell));
                if queued > 0 {
                    self.due_within(Duration::ZERO);
                }
                self.start_attempts(work);
                if more && self.room() == 0 {
                    self.call_for_help();
                }
            }
            Leased::Claimed { work, next_due, more } => {
                let leases = u32::try_from(work.len()).unwrap_or(u32::MAX);
                let beyond = (now - self.claim_began_at).saturating_sub(CLAIM_FREE + CLAIM_PER_LEASE * leases);
                self.claim_at = now + (beyond * CLAIM_PAUSE).min(LONGEST_CLAIM_PAUSE);
                self.claim_retry = RETRY.0;
                self.due_left = more;
                if let Some(next_due) = next_due {
                    self.due_within(next_due);
                }
                self.start_attempts(work);
            }
            Leased::Refused => {
                // On hold or fenced; the tick says which. Do not ask again before it has.
                self.lease_at = now + TICK;
                self.tick_at = self.tick_at.min(now + Duration::from_millis(20));
            }
            Leased::ExpandFailed(error) => {
                warn!(%error, retry_ms = self.expand_retry.as_millis() as u64, "the log could not be expanded");
                self.doubt_after(&error).await;
                self.log_wanted = true;
                if error.was_too_slow() {
                    if self.slow.on_expand_too_slow() {
                        self.expand_less();
                    }
                } else if error.blames_the_work() {
                    self.expand_less();
                }
                self.expand_at = now + self.expand_retry;
                self.expand_retry = (self.expand_retry * 2).min(RETRY.1);
            }
            Leased::Tried { slow, events } => {
                self.log_wanted = true;
                let found = slow.unwrap_or_else(|error| {
                    warn!(%error, "the filters could not be tried");
                    Vec::new()
                });
                if !self.slow.on_tried(found, events) {
                    self.expand_less();
                }
            }
            Leased::ClaimFailed(error) => {
                warn!(%error, retry_ms = self.claim_retry.as_millis() as u64, "nothing could be claimed");
                self.doubt_after(&error).await;
                self.due_within(self.claim_retry);
                self.claim_retry = (self.claim_retry * 2).min(RETRY.1);
            }
        }
    }

    /// Fewer events next time; after a single one, no filters.
    fn expand_less(&mut self) {
        self.expand_limit = if self.expanding == 1 { 0 } else { (self.expanding / EXPAND_SHRINK).max(1) };
    }

    /// Bytes of payload that may be taken in now.
    fn bytes_left(&self) -> usize {
        self.settings.max_payload_bytes_held.saturating_sub(self.held.load(Ordering::Relaxed))
    }

    /// Leases that may be taken now.
    pub(super) fn room(&self) -> usize {
        let unrecorded = self.results.len() + self.recording_count + self.held_up.len();
        if !self.has_ticked || self.bytes_left() == 0 || unrecorded > 2 * self.settings.concurrency {
            return 0;
        }
        self.lanes.quick_room()
    }

    /// For expand: the slow ones go to the queue, where claim lets them in as there is room for them.
    fn expand_room(&self, room: usize) -> Room {
        self.lease_room(room, false)
    }

    /// For claim: as many as either lane has room for. With little room for slow ones in turns without them, and with
    /// them, as many as their lane has room for.
    fn claim_room(&mut self, room: usize) -> Room {
        let slow_room = self.lanes.slow_room();
        if slow_room >= room.min(self.settings.concurrency / 4) {
            return self.lease_room(room.min(slow_room), true);
        }
        self.slow_turn = !self.slow_turn && slow_room > 0;
        if self.slow_turn { self.lease_room(slow_room, true) } else { self.lease_room(room, false) }
    }

    fn lease_room(&self, room: usize, with_slow: bool) -> Room {
        let busy = self.in_flight.iter().map(|(id, count)| (*id, *count));
        let (busy_ids, busy_counts) = if with_slow {
            busy.unzip()
        } else {
            let shut_out = self.lanes.slow().map(|id| (id, i32::MAX));
            busy.filter(|(id, _)| !self.lanes.is_slow(*id)).chain(shut_out).unzip()
        };
        Room {
            leases: i32::try_from(room).unwrap_or(i32::MAX),
            max_in_flight: i32::try_from(self.settings.max_in_flight).unwrap_or(i32::MAX),
            busy_ids,
            busy_counts,
            bytes: i64::try_from(self.bytes_left().min(MAX_CALL_BYTES)).unwrap_or(i64::MAX),
        }
    }
}
