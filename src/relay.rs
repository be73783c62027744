//! The loop: wait, expand, sign, send, record, wait.
//!
//! [`Relay::run`] owns the order; everything it calls is a leaf that never calls back. At any moment
//! there is at most one expand, one claim, one record call and one housekeeping call under way, and as many
//! attempts as `concurrency` allows. So batches grow by themselves with the load: what finishes while one record
//! call is under way is the next one's batch.
//!
//! What it holds in memory is bounded by twice `concurrency` and twice `max_payload_bytes_held` ([`lanes`]), and a
//! quarter more places that are leased ahead ([`ready`]): leases are taken only into free room, and not at all while
//! results wait unrecorded. A backlog stays in the log, or as pending rows.

mod attempts;
mod housekeeping;
mod lanes;
mod leasing;
mod observe;
mod ready;
mod session;
mod slow;

use crate::config::ConnectSettings;
use crate::crash_point::{Point, reached};
use crate::db::{Db, HealthDelta};
use crate::endpoint::Endpoints;
use crate::lease::Leased;
use crate::metrics::{Metrics, Sample, Wakeup};
use crate::record;
use crate::send::Sender;
use crate::trace::Tracer;
use crate::wake::{Direct, Heard};
use attempts::Unwanted;
use housekeeping::Housekept;
use lanes::{Lanes, Width};
use leasing::Call;
use ready::Ready;
use slow::Slow;
use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

/// Events of the first expand: how many deliveries they lead to is not known yet.
const FIRST_EXPAND: usize = 64;
/// How often the database is told that the relay lives, and asked how things stand.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the log while a writer's open transaction keeps the relay from sleeping.
const DOOR_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));
/// Rung again within this time, a relay is busy: it leaves the door, and producers stop notifying.
const BUSY: Duration = Duration::from_millis(20);
/// Between a failed call and the next, growing.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What a relay is told by the configuration.
pub struct Settings {
    /// Shown as `leased_by` and in the attempt log.
    pub name: Arc<str>,
    /// Must be the database's, or the relay holds.
    pub environment: Arc<str>,
    /// Attempts under way at once, and as many slow ones beside them.
    pub concurrency: usize,
    /// The same for one subscription that names no limit of its own.
    pub max_in_flight: usize,
    /// Events expanded in one call.
    pub batch: usize,
    /// Bytes of payload held at once, counted for each delivery, and as many for slow ones beside them.
    pub max_payload_bytes_held: usize,
    /// Whether to use LISTEN; polling alone works too.
    pub listen: bool,
    /// How often to look without having been told.
    pub poll_interval: Duration,
    /// How long attempts under way may take to end once the relay is told to stop.
    pub drain_deadline: Duration,
}

/// A running relay.
pub struct Relay {
    settings: Arc<Settings>,
    target: Arc<ConnectSettings>,
    db: Db,
    sender: Sender,
    endpoints: Arc<Endpoints>,
    metrics: Metrics,
    tracer: Tracer,
    excerpt_bytes: usize,
    /// After so many failures in a row, health is told without waiting for the next tick.
    circuit_failures: i64,

    /// `None` while it is being opened again; nothing is leased then.
    direct: Option<Direct>,
    epoch: i32,
    reconnecting: Option<JoinHandle<Direct>>,
    /// An epoch that may hold leases which nobody here knows of: its connection was lost, and a crash of
    /// the server may have undone results that were committed asynchronously; or a lease call may have
    /// been committed though its answer was lost.
    doubted: Option<i32>,
    /// Doubted epochs, kept alive until everything known to be theirs is recorded. Their end hands the
    /// unknown leases back, and a lease call that is still on its way is refused.
    retired: Vec<Direct>,
    /// Attempts without a recorded result, by epoch.
    unrecorded: HashMap<i32, usize>,

    /// Events may wait in the log.
    log_wanted: bool,
    door_backoff: Duration,
    rung_at: Instant,
    /// When the next delivery in the queue is due, as far as this relay knows.
    due_at: Option<Instant>,
    /// A claim left some that are due, for lack of room.
    due_left: bool,
    /// The last expand left something in the log that is not to wait its turn.
    prioritised: bool,
    /// Deliveries an event led to, lately: the room that one more event will need.
    fan_out: f64,
    /// Most events of the next expand: cut when one fails, so that what is too much, or does not end,
    /// is found alone.
    expand_limit: usize,
    /// What is known of filters that do not end.
    slow: Slow,
    expand_at: Instant,
    claim_retry: Duration,
    expand_retry: Duration,

    expand: Option<Call>,
    claim: Option<Call>,
    /// Events asked of the last expand.
    expanding: usize,
    expanded_at: Instant,
    claimed_at: Instant,
    lease_at: Instant,
    /// Before that an expand keeps nothing back.
    keep_back_at: Instant,
    /// Before that nothing is leased, because this host has run out of what attempts take; none if it has not.
    exhausted_until: Option<Instant>,
    /// Since when expand has kept back all it read.
    stuck_since: Option<Instant>,
    ready: Ready,
    /// Leases to be handed back with the next tick.
    unwanted: Vec<Unwanted>,
    attempts: JoinSet<record::Result>,
    /// Bytes of payload in attempts and results.
    held: Arc<AtomicUsize>,
    lanes: Lanes,
    /// When the next attempt becomes a slow one.
    lane_change_at: Option<Instant>,
    claim_began_at: Instant,
    /// So much it may bring.
    claim_width: Width,
    /// Before that no claim, however much is due.
    claim_at: Instant,
    /// The last lease call was a claim.
    claimed_last: bool,
    /// The last claim left out the slow ones; the next one lets them in.
    slow_turn: bool,
    results: Vec<record::Result>,
    /// Since when there are some.
    resulted_at: Instant,
    recording: Option<JoinHandle<record::Done>>,
    recording_epoch: i32,
    recording_count: usize,
    recording_since: Instant,
    /// Results that wait for an operator's open transaction; tried again with every tick.
    held_up: Vec<record::Result>,
    /// The last call for help; one at a time, or they would stand before all others at the pool.
    help: Option<JoinHandle<()>>,
    health: HashMap<i64, HealthDelta>,

    housekeeping: Option<JoinHandle<Housekept>>,
    tick_at: Instant,
    /// When the loop says next that it goes round.
    pulse_at: Instant,
    /// What the last sample had counted, and when it was taken.
    sampled: Sample,
    sampled_at: Instant,
    poll_at: Instant,
    /// The next look at the log is made because nothing was heard for so long.
    polled: bool,
    maintain_at: Instant,
    /// The database has said how things stand; before that nothing is leased, because URLs would be
    /// judged by the defaults of settings that may say otherwise.
    has_ticked: bool,
    hold: Option<String>,
    /// Told to stop: until when attempts under way may end.
    drain_until: Option<Instant>,
}

enum Happened {
    Heard(Heard),
    Connected(Direct),
    Leased((i32, Leased)),
    Attempted(record::Result),
    Recorded(record::Done),
    Housekept(Housekept),
    Stop,
    Time,
}

impl Relay {
    /// A relay that is not connected yet.
    pub fn new(
        settings: Settings,
        target: ConnectSettings,
        db: Db,
        sender: Sender,
        endpoints: Endpoints,
        observer: (Metrics, Tracer),
    ) -> Self {
        let (metrics, tracer) = observer;
        let now = Instant::now();
        let width = Width { places: settings.concurrency, bytes: settings.max_payload_bytes_held };
        let (lanes, ready) = (Lanes::new(width), Ready::new(settings.max_in_flight));
        Self {
            settings: Arc::new(settings),
            target: Arc::new(target),
            db,
            sender,
            endpoints: Arc::new(endpoints),
            sampled: metrics.totals(),
            metrics,
            tracer,
            excerpt_bytes: 1024,
            circuit_failures: i64::MAX,
            direct: None,
            epoch: 0,
            reconnecting: None,
            doubted: None,
            retired: Vec::new(),
            unrecorded: HashMap::new(),
            log_wanted: true,
            door_backoff: DOOR_BACKOFF.0,
            rung_at: now,
            due_at: Some(now),
            due_left: false,
            prioritised: false,
            fan_out: 1.0,
            expand_limit: FIRST_EXPAND,
            slow: Slow::new(),
            expand_at: now,
            claim_retry: RETRY.0,
            expand_retry: RETRY.0,
            expand: None,
            claim: None,
            expanding: 0,
            expanded_at: now,
            claimed_at: now,
            lease_at: now,
            keep_back_at: now,
            exhausted_until: None,
            stuck_since: None,
            ready,
            unwanted: Vec::new(),
            attempts: JoinSet::new(),
            held: Arc::default(),
            lanes,
            lane_change_at: None,
            claim_began_at: now,
            claim_width: Width::default(),
            claim_at: now,
            claimed_last: false,
            slow_turn: false,
            results: Vec::new(),
            resulted_at: now,
            recording: None,
            recording_epoch: 0,
            recording_count: 0,
            recording_since: now,
            held_up: Vec::new(),
            help: None,
            health: HashMap::new(),
            housekeeping: None,
            tick_at: now,
            pulse_at: now,
            sampled_at: now,
            poll_at: now,
            polled: false,
            maintain_at: now,
            has_ticked: false,
            hold: None,
            drain_until: None,
        }
    }

    /// Runs until `stop` turns true, then drains: nothing new is leased, what is under way may end until
    /// the deadline, and what has not ended is handed back. `alive` is called about once a second by the loop itself,
    /// whatever the database does: a loop that stands still does not call it.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, mut alive: impl FnMut(&Self)) {
        loop {
            self.start_what_can_be().await;
            if Instant::now() >= self.pulse_at {
                self.pulse_at = Instant::now() + TICK;
                self.note_turn();
                alive(&self);
            }
            if self.drain_until.is_some_and(|until| self.is_drained() || Instant::now() >= until) {
                break;
            }
            match self.next(&mut stop).await {
                Happened::Heard(heard) => self.on_heard(heard),
                Happened::Connected(direct) => self.on_connected(direct).await,
                Happened::Leased(leased) => self.on_leased(leased).await,
                Happened::Attempted(result) => self.on_attempted(result),
                Happened::Recorded(done) => self.on_recorded(done),
                Happened::Housekept(housekept) => self.on_housekept(housekept).await,
                Happened::Stop => {
                    info!(in_flight = self.attempts.len(), "stopping: waiting for attempts under way");
                    reached(Point::StopTold);
                    self.drain_until = Some(Instant::now() + self.settings.drain_deadline);
                    self.give_up_waiting(Instant::now());
                    self.hand_back_now();
                    self.keep_or_leave_bell().await;
                }
                Happened::Time => {}
            }
        }
        self.end().await;
    }

    /// What requests go out through.
    pub fn sender(&self) -> Sender {
        Sender::clone(&self.sender)
    }

    /// The subscriptions as the relay holds them.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(&self.endpoints)
    }

    /// Whether the relay has registered with the database.
    pub fn is_connected(&self) -> bool {
        self.direct.is_some()
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self, stop: &mut watch::Receiver<bool>) -> Happened {
        let wake_at = self.next_time();
        let draining = self.drain_until.is_some();
        tokio::select! {
            // In this order where several are ready: results first, so that room is made before it is filled.
            biased;
            result = join(&mut self.recording) => { self.recording = None; Happened::Recorded(result) }
            Some(result) = self.attempts.join_next(), if !self.attempts.is_empty() => match result {
                Ok(result) => Happened::Attempted(result),
                // A panic is a bug; the delivery's lease ends with this epoch, the others go on.
                Err(e) => { error!(error = %e, "an attempt ended abnormally"); Happened::Time }
            },
            leased = Call::end(&mut self.expand) => Happened::Leased(leased),
            leased = Call::end(&mut self.claim) => Happened::Leased(leased),
            housekept = join(&mut self.housekeeping) => { self.housekeeping = None; Happened::Housekept(housekept) }
            direct = join(&mut self.reconnecting) => { self.reconnecting = None; Happened::Connected(direct) }
            heard = async { match &self.direct { Some(direct) => direct.hear().await, None => pending().await } } => Happened::Heard(heard),
            () = stopped(stop), if !draining => Happened::Stop,
            () = sleep_until(wake_at) => Happened::Time,
        }
    }

    /// The earliest time at which something is to be started that nothing else would bring about.
    fn next_time(&self) -> Instant {
        let mut at =
            if self.housekeeping.is_none() && self.epoch != 0 { self.tick_at.min(self.poll_at) } else { self.poll_at };
        at = at.min(self.pulse_at);
        if self.recording.is_none() && !self.results.is_empty() {
            at = at.min(self.record_at());
        }
        if let Some(until) = self.drain_until {
            return at.min(until);
        }
        if let Some(change_at) = self.lane_change_at {
            at = at.min(change_at);
        }
        if self.direct.is_some() {
            let door_at = self.wants_to_sleep().then_some(self.lease_at);
            at = [self.expand_time(), self.claim_time(), door_at].into_iter().flatten().fold(at, Instant::min);
        }
        at
    }

    /// Starts every call that is wanted and possible now.
    async fn start_what_can_be(&mut self) {
        let now = Instant::now();
        self.lane_change_at = self.lanes.change(now);
        self.start_attempts();
        if self.recording.is_none() && !self.results.is_empty() && now >= self.record_at() {
            self.start_recording();
        }
        if self.housekeeping.is_none() && now >= self.tick_at && self.epoch != 0 {
            self.start_housekeeping(now);
        }
        if self.direct.is_none() && self.reconnecting.is_none() && self.drain_until.is_none() {
            self.start_connecting();
        }
        if now >= self.poll_at {
            // The safety net: whatever was not heard of is found now.
            self.poll_at = now + self.settings.poll_interval;
            self.metrics.woken(Wakeup::Poll);
            self.polled = !self.log_wanted && self.direct.as_ref().is_some_and(Direct::has_door);
            self.log_wanted = true;
            self.due_at = Some(now);
        }
        if self.direct.is_some() && self.drain_until.is_none() {
            self.start_leasing(now).await;
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        let now = Instant::now();
        if heard.lost {
            self.lose_direct();
            return;
        }
        for (is_heard, cause) in [
            (heard.bell, Wakeup::Bell),
            (heard.help, Wakeup::Help),
            (heard.due, Wakeup::Due),
            (heard.control, Wakeup::Control),
        ] {
            if is_heard {
                self.metrics.woken(cause);
                self.polled = false;
            }
        }
        self.log_wanted |= heard.bell || heard.help || heard.control;
        if heard.bell && self.room() == 0 {
            self.call_for_help();
        }
        if heard.due || heard.control {
            self.due_at = Some(now);
        }
        if heard.control {
            self.tick_at = now;
        }
    }

    fn due_within(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.due_at = Some(self.due_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn is_drained(&self) -> bool {
        self.attempts.is_empty()
            && self.results.is_empty()
            && self.held_up.is_empty()
            && self.recording.is_none()
            && self.expand.is_none()
            && self.claim.is_none()
    }

    /// Gives up what is still under way and hands every lease back.
    async fn end(mut self) {
        let given_up = self.attempts.len();
        self.attempts.shutdown().await;
        let grace = Duration::from_secs(5);
        let rest = async {
            if let Some(recording) = self.recording.take() {
                let _ = recording.await;
            }
            self.results.append(&mut self.held_up);
            while !self.results.is_empty() {
                self.start_recording();
                let _ = join(&mut self.recording).await;
            }
            for call in [&mut self.expand, &mut self.claim] {
                if call.is_some() {
                    let _ = Call::end(call).await;
                }
            }
            if let Some(housekeeping) = self.housekeeping.take()
                && let Ok(kept) = housekeeping.await
            {
                record::put_back(&mut self.health, kept.unwritten);
                self.unwanted.extend(kept.unwanted);
            }
            // As never begun; what is left of them, the fence hands back with the others.
            housekeeping::hand_back(&self.db, std::mem::take(&mut self.unwanted)).await;
            let deltas: Vec<_> = self.health.drain().collect();
            if !deltas.is_empty() {
                let _ = self.db.add_health(&deltas).await;
            }
            if let Some((span, sample)) = self.take_sample(Instant::now()) {
                let _ = self.db.add_sample(self.epoch, span, &sample).await;
            }
            for direct in std::mem::take(&mut self.retired) {
                let _ = self.db.fence(direct.epoch).await;
            }
            reached(Point::Drained);
            self.db.fence(self.epoch).await
        };
        match timeout(grace, rest).await {
            Ok(Ok(handed_back)) => info!(given_up, handed_back, "stopped"),
            Ok(Err(error)) => warn!(%error, "stopped; the leases are handed back when the database notices"),
            Err(_) => warn!("stopped; the database did not answer, so the leases are handed back when it notices"),
        }
    }
}

/// The result of a call under way; never, if there is none. Cancel safe.
async fn join<T>(task: &mut Option<JoinHandle<T>>) -> T {
    match task {
        Some(task) => value(task).await,
        None => pending().await,
    }
}

/// What a task of ours came to; its panic is ours. Cancel safe.
async fn value<T>(task: &mut JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone counts as told.
    let _ = stop.wait_for(|stop| *stop).await;
}
