//! The relay getting work: how much, when, and what to do with what came.

use super::lanes::Width;
use super::{RETRY, Relay, TICK, slow, value};
use crate::db::{Expand, Expanded, Room};
use crate::lease::{self, Leased};
use crate::metrics::Wakeup;
use crate::wake::Direct;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

/// A failed expand is tried again with this fraction of its events.
const EXPAND_SHRINK: usize = 8;
/// Bytes of payload that one call brings at most, so that its time is not that of the network.
const MAX_CALL_BYTES: usize = 16 << 20;
/// Slow ones are let in while at least this part of their lane's bytes is free: a claim weighs all it picks, however
/// few of them fit.
const LEAST_SLOW_BYTES: usize = 16;
/// Between two leases, unless there is room for many: a lease call costs about a millisecond.
const LEASE_PACE: Duration = Duration::from_millis(2);

/// Events of an expand at least, while there is room: where each leads to hundreds of deliveries, a few events would
/// fill it, and everybody else's waited in the log for many calls. What does not fit is queued.
const LEAST_EVENTS: usize = 16;
/// One more for each so many places is leased ahead, so that no place is empty while the next call is under way. Such a
/// lease costs its payload; an attempt under way costs about 60 KiB.
const AHEAD: usize = 4;
/// So old may an event become in the log because its subscriptions have no room of their own: what lies behind it
/// waits too.
const KEEP_BACK: Duration = Duration::from_millis(50);
/// An expand finds room for nothing of what it reads: after so long all of that is queued.
const STUCK: Duration = Duration::from_millis(5);
/// So long nothing is kept back then: where receivers are slow, others' events would wait too often.
const KEEP_BACK_PAUSE: Duration = Duration::from_secs(5);
/// A claim that takes longer than this, and than [`CLAIM_PER_LEASE`] for each lease it brings, is followed by a
/// pause [`CLAIM_PAUSE`] times as long as what is beyond, unless it brings all it may: it looks through all that fail,
/// and what is new waits for it.
const CLAIM_FREE: Duration = Duration::from_millis(3);
const CLAIM_PER_LEASE: Duration = Duration::from_micros(100);
const CLAIM_PAUSE: u32 = 20;
const LONGEST_CLAIM_PAUSE: Duration = Duration::from_millis(250);

/// An expand or a claim under way, and what of the room is kept for it.
pub(super) struct Call {
    epoch: i32,
    width: Width,
    task: JoinHandle<Leased>,
}

impl Call {
    /// What it brought, and under which epoch; never, if there is none. Cancel safe.
    pub(super) async fn end(call: &mut Option<Self>) -> (i32, Leased) {
        match call {
            Some(Self { epoch, task, .. }) => {
                let (leased, epoch) = (value(task).await, *epoch);
                *call = None;
                (epoch, leased)
            }
            None => pending().await,
        }
    }
}

impl Relay {
    /// Expands what is new, claims what is due, goes to sleep the way `wake` describes if there is neither.
    pub(super) async fn start_leasing(&mut self, now: Instant) {
        // In turns, where there is not room enough for both: endpoints that fail always have retries due, and would
        // keep what is new to everybody else waiting in the log.
        if self.claimed_last {
            self.start_expanding(now);
            self.start_claiming(now);
        } else {
            self.start_claiming(now);
            self.start_expanding(now);
        }
        if self.wants_to_sleep() && now >= self.lease_at {
            self.try_to_sleep(now).await;
        }
    }

    pub(super) fn wants_to_sleep(&self) -> bool {
        self.expand.is_none() && !self.log_wanted && self.wants_door() && self.room() > 0
    }

    /// When a claim is to be made, as things stand.
    pub(super) fn claim_time(&self) -> Option<Instant> {
        let room = self.room();
        let due_at = self.due_at.filter(|_| self.claim.is_none() && room > 0)?;
        Some(due_at.max(self.claim_at).max(self.lease_at(room, self.claimed_at)))
    }

    /// When an expand is to be made, as things stand.
    pub(super) fn expand_time(&self) -> Option<Instant> {
        let room = self.room();
        let can_be = self.expand.is_none() && self.log_wanted && (room > 0 || self.prioritised);
        can_be.then(|| self.expand_at.max(self.lease_at(room, self.expanded_at)))
    }

    fn start_claiming(&mut self, now: Instant) {
        if self.claim_time().is_none_or(|at| now < at) {
            return;
        }
        self.claimed_last = true;
        self.claim_began_at = now;
        self.due_at = None;
        if !self.polled {
            self.metrics.woken(Wakeup::Timer);
        }
        let room = self.claim_room(self.room());
        let task = lease::claim(self.db.clone(), self.endpoints.clone(), self.epoch, room.clone());
        let call = self.call(&room, task);
        self.claim_width = call.width;
        self.claim = Some(call);
    }

    fn start_expanding(&mut self, now: Instant) {
        if self.expand_time().is_none_or(|at| now < at) {
            return;
        }
        let room = self.room();
        self.claimed_last = false;
        self.log_wanted = false;
        // What is not to wait its turn lies behind what is: all of it goes to the queue, where claim can choose.
        let fitting = if self.prioritised { f64::INFINITY } else { (room as f64 / self.fan_out).ceil() };
        let least = if room * 4 >= self.settings.concurrency { LEAST_EVENTS } else { 1 };
        let wanted = (fitting as usize).max(least).min(self.settings.batch);
        if self.slow.is_wanted() {
            let (events, found) = (self.expanding, slow::find(self.db.clone(), self.epoch, self.expanding));
            let task = async move { Leased::Tried { slow: found.await, events } };
            self.expand = Some(self.call(&Room::default(), task));
            return;
        }
        let skip_filters = self.expand_limit == 0;
        let may_keep = !self.prioritised && !self.slow.has_found() && now >= self.keep_back_at;
        let keep_back = if may_keep { KEEP_BACK } else { Duration::ZERO };
        self.expanding = self.slow.at_most(wanted.min(self.expand_limit).max(1));
        let slow = self.slow.begin();
        let patience = self.slow.patience(&slow);
        let call = Expand { events: self.expanding, skip_filters, patience, slow, keep_back };
        // The slow ones go to the queue, where claim lets them in as there is room for them.
        let room = self.lease_room(room, false);
        let task = lease::expand(self.db.clone(), self.endpoints.clone(), self.epoch, room.clone(), call);
        self.expand = Some(self.call(&room, task));
    }

    fn call(&self, room: &Room, task: impl Future<Output = Leased> + Send + 'static) -> Call {
        let (places, bytes) = (room.leases.unsigned_abs() as usize, usize::try_from(room.bytes).unwrap_or_default());
        Call { epoch: self.epoch, width: Width { places, bytes }, task: tokio::spawn(task) }
    }

    /// Nothing is left to do, and the relay is the one that is rung for.
    fn wants_door(&self) -> bool {
        self.hold.is_none() && self.direct.as_ref().is_some_and(|direct| direct.has_bell() && !direct.has_door())
    }

    /// When the next call may be made after one that ended at `last`: with little room not right after it, because
    /// each costs about a millisecond whatever it brings.
    fn lease_at(&self, room: usize, last: Instant) -> Instant {
        let at = self.exhausted_until.map_or(self.lease_at, |until| self.lease_at.max(until));
        if room * 8 < self.settings.concurrency { at.max(last + LEASE_PACE) } else { at }
    }

    pub(super) async fn on_leased(&mut self, (epoch, leased): (i32, Leased)) {
        let now = Instant::now();
        self.lease_at = now;
        match leased {
            Leased::Expanded(work, found) => {
                self.expanded_at = now;
                self.prioritised = found.prioritised;
                self.expand_retry = RETRY.0;
                self.slow.on_expanded(found.events, self.expanding, now);
                self.expand_limit = self.expand_limit.max(1).saturating_mul(2);
                let polled = std::mem::take(&mut self.polled);
                if found.events > 0 {
                    self.metrics.expanded(found.events);
                    if polled {
                        self.metrics.poll_found_work();
                    }
                    let deliveries = work.len() + found.queued;
                    self.fan_out = 0.75 * self.fan_out + 0.25 * (deliveries as f64 / found.events as f64).max(0.1);
                }
                if found.events + found.kept_back > 0 {
                    self.leave_door_if_busy(now, found.more).await;
                }
                // Without a door to watch, look until nothing is found.
                self.log_wanted |=
                    found.more || (found.events > 0 && !self.direct.as_ref().is_some_and(Direct::has_bell));
                if found.queued > 0 {
                    self.due_within(Duration::ZERO);
                }
                self.wait_for_room(now, &found);
                self.take(epoch, work);
                if found.more && self.room() == 0 {
                    self.call_for_help();
                }
            }
            Leased::Claimed(work, found) => {
                self.claimed_at = now;
                let leases = u32::try_from(work.len()).unwrap_or(u32::MAX);
                let beyond = (now - self.claim_began_at).saturating_sub(CLAIM_FREE + CLAIM_PER_LEASE * leases);
                // One that brings all it may, or half the bytes, has not looked in vain, however many wait.
                let bytes: usize = work.iter().map(|(lease, _)| lease.bytes()).sum();
                let is_in_vain = work.len() < self.claim_width.places && bytes < self.claim_width.bytes / 2;
                self.claim_at = if is_in_vain { now + (beyond * CLAIM_PAUSE).min(LONGEST_CLAIM_PAUSE) } else { now };
                self.claim_retry = RETRY.0;
                self.due_left = found.more;
                if let Some(next_due) = found.next_due {
                    self.due_within(next_due);
                }
                self.take(epoch, work);
            }
            Leased::Refused => {
                // On hold or fenced; the tick says which. Do not ask again before it has.
                self.stuck_since = None;
                self.lease_at = now + TICK;
                self.tick_at = self.tick_at.min(now + Duration::from_millis(20));
            }
            Leased::ExpandFailed(error) => {
                warn!(%error, retry_ms = self.expand_retry.as_millis() as u64, "the log could not be expanded");
                self.doubt_after(&error, epoch).await;
                (self.log_wanted, self.stuck_since) = (true, None);
                if error.was_too_slow() {
                    if self.slow.on_expand_too_slow() {
                        self.expand_less(1);
                    }
                } else if error.is_refusal() {
                    // Of a single event only its filters can have raised something: on without them.
                    self.expand_less(if error.may_be_a_filters() { 0 } else { 1 });
                }
                self.expand_at = now + self.expand_retry;
                self.expand_retry = (self.expand_retry * 2).min(RETRY.1);
            }
            Leased::Tried { slow, events } => {
                (self.log_wanted, self.stuck_since) = (true, None);
                let found = slow.unwrap_or_else(|error| {
                    warn!(%error, "the filters could not be tried");
                    Vec::new()
                });
                if !self.slow.on_tried(found, events) {
                    self.expand_less(1); // no filter's doing: a lock that somebody holds, or the machine
                }
            }
            Leased::ClaimFailed(error) => {
                warn!(%error, retry_ms = self.claim_retry.as_millis() as u64, "nothing could be claimed");
                self.doubt_after(&error, epoch).await;
                self.due_within(self.claim_retry);
                self.claim_retry = (self.claim_retry * 2).min(RETRY.1);
            }
        }
    }

    /// Fewer events next time; `then` after a single one, 0 being one without its filters.
    fn expand_less(&mut self, then: usize) {
        self.expand_limit = if self.expanding == 1 { then } else { (self.expanding / EXPAND_SHRINK).max(1) };
    }

    /// After an expand that kept something back: asks for less, and waits for attempts to end. Where none does, what
    /// lies behind must not wait: for a while nothing is kept back.
    fn wait_for_room(&mut self, now: Instant, found: &Expanded) {
        if found.kept_back == 0 || found.events > 0 {
            self.stuck_since = None;
        }
        if found.kept_back == 0 {
            return;
        }
        self.expand_limit = self.expand_limit.min((2 * found.events).max(LEAST_EVENTS));
        if found.events > 0 {
            self.expand_at = now + LEASE_PACE;
        } else if now >= *self.stuck_since.get_or_insert(now) + STUCK {
            self.stuck_since = None;
            self.keep_back_at = now + KEEP_BACK_PAUSE;
        } else {
            self.expand_at = now + STUCK;
        }
    }

    /// An attempt has ended.
    pub(super) fn expand_for_room(&mut self) {
        if self.stuck_since.is_some() {
            self.expand_at = self.expand_at.min(Instant::now() + LEASE_PACE);
        }
    }

    /// Of what is held at most, this much may be taken in by one call: so that another has its share.
    fn share(whole: usize) -> usize {
        whole.div_ceil(2)
    }

    /// Bytes of payload that may be taken in now. Those of slow attempts are in a lane of their own.
    fn bytes_left(&self) -> usize {
        let held = self.held.load(Ordering::Relaxed).saturating_sub(self.lanes.slow_beside().bytes);
        let kept = self.calls().map(|call| call.width.bytes).sum::<usize>() + held;
        let whole = self.settings.max_payload_bytes_held;
        whole.saturating_sub(kept).min(Self::share(whole)).min(MAX_CALL_BYTES)
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.expand.iter().chain(&self.claim)
    }

    /// Leases that one call may take now: some more than there are places for.
    pub(super) fn room(&self) -> usize {
        let unrecorded = self.results.len() + self.recording_count + self.held_up.len();
        if !self.has_ticked || self.bytes_left() == 0 || unrecorded > 2 * self.settings.concurrency {
            return 0;
        }
        let ahead = self.settings.concurrency / AHEAD;
        let kept = self.calls().map(|call| call.width.places).sum::<usize>() + self.ready.want_places(ahead);
        let room = self.lanes.quick_room() + ahead;
        room.saturating_sub(kept).min(Self::share(self.settings.concurrency))
    }

    /// For claim: as much as either lane has room for. With little room for slow ones in turns without them, and with
    /// them, as much as their lane has room for.
    fn claim_room(&mut self, room: usize) -> Room {
        let (slow_room, whole) = (self.lanes.slow_room(), self.settings.max_payload_bytes_held);
        let is_open = slow_room.bytes >= whole / LEAST_SLOW_BYTES;
        let is_wide = slow_room.places >= room.min(self.settings.concurrency / 4)
            && slow_room.bytes >= self.bytes_left().min(whole / 4);
        self.slow_turn = is_open && (is_wide || (!self.slow_turn && slow_room.places > 0));
        if self.slow_turn { self.lease_room(room.min(slow_room.places), true) } else { self.lease_room(room, false) }
    }

    fn lease_room(&self, room: usize, with_slow: bool) -> Room {
        let shut_out = if with_slow { self.lanes.sated() } else { self.lanes.slow().collect() };
        let busy = self.ready.leased().filter(|(id, _)| !shut_out.contains(id));
        let (busy_ids, busy_counts) = busy.chain(shut_out.iter().map(|id| (*id, i32::MAX))).unzip();
        let bytes = if with_slow { self.bytes_left().min(self.lanes.slow_room().bytes) } else { self.bytes_left() };
        Room {
            leases: i32::try_from(room).unwrap_or(i32::MAX),
            max_in_flight: i32::try_from(self.settings.max_in_flight).unwrap_or(i32::MAX),
            busy_ids,
            busy_counts,
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }
}
