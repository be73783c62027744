//! Leases, epochs and their end: `outbox_relay.claim` (and the leasing half of expand), `record`, `hand_back`, `fence`,
//! `register`, `resume_epoch`, and what a relay does when it loses a connection, or the answer of a call.
//!
//! A call is sent, runs, and is answered: three steps. A call whose answer is lost may have run, may run later, or never.

mod calls;
mod enabled;
mod normalize;
mod variants;

use crate::explore::{Protocol, invariants};
use stateright::{Model, Property};

const RELAYS: usize = 2;
/// Failures that are retried; the next one makes a dead letter.
const RETRIES: u8 = 1;

/// 0: none.
type Epoch = u8;
/// A set of epochs, deliveries or attempts, as bits.
type Set = u16;

const fn one(n: u8) -> Set {
    1 << n
}

fn members(set: Set) -> impl Iterator<Item = u8> {
    (0..16).filter(move |n| set & one(*n) != 0)
}

fn subsets(set: Set) -> impl Iterator<Item = Set> {
    (1..=set).filter(move |some| some & !set == 0)
}

/// Where a delivery stands. In the log, pending, or failed and due: whoever asks may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Due,
    Leased(Epoch),
    Succeeded,
    DeadLetter,
}

/// What is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Db {
    rows: Vec<(Row, u8)>,
    /// Attempts in `outbox.attempt`, told apart by when they started.
    logged: Set,
    fenced: Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    /// Leased, and not begun.
    Waiting,
    Sending(u8),
    Ended {
        attempt: u8,
        ok: bool,
    },
    Recording {
        attempt: u8,
        ok: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Attempt {
    delivery: u8,
    epoch: Epoch,
    phase: Phase,
}

/// A result on its way to the database: delivery, attempt, whether it was delivered.
type Outcome = (u8, u8, bool);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Call {
    Lease { epoch: Epoch },
    Record { epoch: Epoch, batch: Vec<Outcome> },
    HandBack { epoch: Epoch, deliveries: Set },
}

/// How far a call of a relay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Progress {
    #[default]
    Sent,
    /// Of a variant: the epoch was looked at, and nothing leased yet.
    Looked,
    Ran(Set),
    Lost,
}

/// What a relay has in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Relay {
    is_alive: bool,
    /// It believes to have its direct session.
    is_connected: bool,
    epoch: Epoch,
    doubted: Epoch,
    retired: Set,
    attempts: Vec<Attempt>,
    unwanted: Vec<(Epoch, u8)>,
    lease: Option<(Epoch, Progress)>,
    record: Option<(Epoch, Progress)>,
    hand_back: Option<(Epoch, Set, Progress)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    db: Db,
    /// What a crash of the server leaves of it: results and leases commit asynchronously.
    durable: Db,
    registered: u8,
    /// Epochs whose lock some session holds.
    sessions: Set,
    relays: [Relay; RELAYS],
    /// Calls whose relay does not wait for them any more.
    forgotten: Vec<Call>,
    next_attempt: u8,
    losses_left: u8,
    crashes_left: u8,
    failures_left: u8,
    waits_left: u8,
    /// For the invariants: epochs that a death, a lost connection or a crash has touched; under which epochs a delivery
    /// was sent and the failure not recorded; what was answered with 2xx; what went wrong.
    shaken: Set,
    sent: Vec<Set>,
    received: Set,
    wrong: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start of a process, and death of one.
    Start(usize),
    Die(usize),
    /// Opens the direct session: takes its epoch up again if there are results to record, or registers.
    Connect(usize),
    /// The relay loses its direct session; the server does not know yet.
    Cut(usize),
    /// The session with the lock of that epoch is gone, and nobody was told.
    SessionEnds(Epoch),
    Notice(usize),
    /// The server crashes and comes back.
    Crash,
    /// What is committed is on disk.
    Flush,
    /// Somebody's tick ends a dead epoch.
    Fence(Epoch),
    /// A relay's tick says that it was taken for dead.
    LearnFenced(usize),

    AskForLeases(usize),
    /// Of a variant.
    LookAtEpoch(usize),
    RunLease {
        relay: usize,
        got: Set,
    },
    TakeLeases(usize),
    Begin {
        relay: usize,
        attempt: usize,
    },
    Receive {
        relay: usize,
        attempt: usize,
        ok: bool,
    },
    RunRecord(usize),
    Settle(usize),
    /// A lease has waited too long for a place.
    GiveUpWaiting {
        relay: usize,
        attempt: usize,
    },
    SendHandBack(usize),
    RunHandBack(usize),
    HandedBack(usize),

    LoseLease(usize),
    LoseRecord(usize),
    LoseHandBack(usize),
    /// The relay gives up waiting for an answer that will not come.
    Doubt(usize),
    DoubtHandBack(usize),
    /// A call that nobody waits for runs all the same.
    RunForgotten {
        call: usize,
        got: Set,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    AsBuilt,
    RecordWithoutEpoch,
    RecordedAgain,
    FenceWithoutHandBack,
    LeaseWithoutFence,
    ResumedAfterFence,
    ResumedGoesOn,
    DoubtIgnored,
    RetiredAtOnce,
    HandedBackAgain,
}

#[derive(Clone)]
pub(crate) struct Leases {
    variant: Variant,
    deliveries: u8,
    relays: u8,
    /// Lost connections, relays and answers; crashes of the server.
    losses: u8,
    crashes: u8,
    failures: u8,
    waits: u8,
}

impl Leases {
    /// Nothing goes wrong.
    fn new(variant: Variant, deliveries: u8) -> Self {
        Self { variant, deliveries, relays: 2, losses: 0, crashes: 0, failures: 0, waits: 0 }
    }

    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn apply_lease(s: &mut State, epoch: Epoch, got: Set, looked: bool) {
        if !looked && s.db.fenced & one(epoch) != 0 {
            return;
        }
        for delivery in members(got) {
            s.db.rows[usize::from(delivery)].0 = Row::Leased(epoch);
        }
    }

    fn apply_record(&self, s: &mut State, epoch: Epoch, batch: &[Outcome]) {
        for (delivery, attempt, ok) in batch {
            let (row, failures) = s.db.rows[usize::from(*delivery)];
            let is_open = matches!(row, Row::Due | Row::Leased(_));
            let holds = row == Row::Leased(epoch) || (self.is(Variant::RecordWithoutEpoch) && is_open);
            let is_known = s.db.logged & one(*attempt) != 0;
            s.db.logged |= one(*attempt);
            if !holds || (is_known && !self.is(Variant::RecordedAgain)) {
                continue;
            }
            if is_known {
                s.wrong = Some("a result counts twice");
            }
            if row != Row::Leased(epoch) {
                s.wrong = Some("a result counts although its lease was lost");
            }
            let next = match (*ok, failures < RETRIES) {
                (true, _) => Row::Succeeded,
                (false, true) => Row::Due,
                (false, false) => Row::DeadLetter,
            };
            if next == Row::Due {
                s.sent[usize::from(*delivery)] &= !one(epoch);
            }
            s.db.rows[usize::from(*delivery)] = (next, failures + u8::from(!ok));
        }
    }

    fn apply_hand_back(s: &mut State, epoch: Epoch, deliveries: Set) {
        for delivery in members(deliveries) {
            let (row, _) = &mut s.db.rows[usize::from(delivery)];
            if *row == Row::Leased(epoch) {
                *row = Row::Due;
            }
        }
    }

    fn due(state: &State) -> Set {
        let rows = state.db.rows.iter().enumerate();
        rows.filter(|(_, (row, _))| *row == Row::Due).map(|(d, _)| one(d as u8)).sum()
    }

    fn batch(relay: &Relay) -> Vec<Outcome> {
        let recording = relay.attempts.iter().filter_map(|a| match a.phase {
            Phase::Recording { attempt, ok } => Some((a.delivery, attempt, ok)),
            _ => None,
        });
        recording.collect()
    }

    fn has_unrecorded(relay: &Relay, epoch: Epoch) -> bool {
        relay.attempts.iter().any(|attempt| attempt.epoch == epoch)
    }

    /// Whether some relay keeps the session of that epoch open.
    fn is_kept(state: &State, epoch: Epoch) -> bool {
        state.relays.iter().any(|relay| {
            relay.is_alive && (relay.is_connected && relay.epoch == epoch || relay.retired & one(epoch) != 0)
        })
    }

    fn give_up_waiting(relay: &mut Relay) {
        for attempt in relay.attempts.extract_if(.., |attempt| attempt.phase == Phase::Waiting) {
            relay.unwanted.push((attempt.epoch, attempt.delivery));
        }
        relay.unwanted.sort_unstable();
        Self::settle(relay);
    }

    /// A retired session ends with its last result.
    fn settle(relay: &mut Relay) {
        let kept = members(relay.retired).filter(|epoch| Self::has_unrecorded(relay, *epoch)).map(one).sum();
        relay.retired = kept;
    }

    fn lose_direct(relay: &mut Relay) {
        relay.is_connected = false;
        relay.doubted = relay.epoch;
    }

    fn doubt_after(&self, s: &mut State, r: usize, epoch: Epoch) {
        if s.relays[r].epoch == epoch && !self.is(Variant::DoubtIgnored) {
            s.relays[r].doubted = epoch;
            self.retire_doubted(s, r);
        }
    }

    fn retire_doubted(&self, s: &mut State, r: usize) {
        let relay = &mut s.relays[r];
        if relay.doubted == 0 || !relay.is_connected {
            return;
        }
        Self::give_up_waiting(relay);
        if relay.epoch == relay.doubted {
            if s.sessions & one(relay.epoch) == 0 {
                return Self::lose_direct(relay); // it can not step down: this is how it learns
            }
            if Self::has_unrecorded(relay, relay.epoch) && !self.is(Variant::RetiredAtOnce) {
                relay.retired |= one(relay.epoch);
            }
            (relay.epoch, relay.is_connected) = (0, false);
        }
        relay.doubted = 0;
    }

    fn connect(&self, s: &mut State, r: usize) {
        let previous = s.relays[r].epoch;
        let has_results = previous != 0 && Self::has_unrecorded(&s.relays[r], previous);
        let was_fenced = s.db.fenced & one(previous) != 0 && !self.is(Variant::ResumedAfterFence);
        if !has_results || s.sessions & one(previous) != 0 || was_fenced {
            s.registered += 1;
            s.relays[r].epoch = s.registered;
        }
        s.sessions |= one(s.relays[r].epoch);
        s.relays[r].is_connected = true;
        if self.is(Variant::ResumedGoesOn) {
            s.relays[r].doubted = 0;
        }
        self.retire_doubted(s, r);
    }

    fn forget(s: &mut State, call: Call) {
        s.forgotten.push(call);
        s.forgotten.sort_unstable();
    }

    /// The calls of a relay that have not run go on without it.
    fn die(s: &mut State, r: usize) {
        let relay = std::mem::take(&mut s.relays[r]);
        s.shaken |= members(relay.retired).map(one).sum::<Set>() | one(relay.epoch);
        if let Some((epoch, Progress::Sent)) = relay.lease {
            Self::forget(s, Call::Lease { epoch });
        }
        if let Some((epoch, Progress::Sent)) = relay.record {
            Self::forget(s, Call::Record { epoch, batch: Self::batch(&relay) });
        }
        if let Some((epoch, deliveries, Progress::Sent)) = relay.hand_back {
            Self::forget(s, Call::HandBack { epoch, deliveries });
        }
    }

    fn crash(s: &mut State) {
        s.db = s.durable.clone();
        s.sessions = 0;
        s.forgotten.clear();
        s.shaken |= (1..=s.registered).map(one).sum::<Set>();
        for relay in &mut s.relays {
            if let Some((_, progress)) = &mut relay.lease {
                *progress = Progress::Lost;
            }
            if let Some((_, _, progress)) = &mut relay.hand_back {
                *progress = Progress::Lost;
            }
            // The relay goes on trying.
            if let Some((_, progress)) = &mut relay.record {
                *progress = Progress::Sent;
            }
        }
    }

    /// Nothing that happens from here on can matter.
    fn is_over(state: &State) -> bool {
        state.db.rows.iter().all(|(row, _)| matches!(row, Row::Succeeded | Row::DeadLetter))
            && state.durable == state.db
            && state.forgotten.is_empty()
            && state.relays.iter().all(|relay| relay.attempts.is_empty())
    }
}

impl Protocol for Leases {
    fn broken(&self, state: &State) -> Option<&'static str> {
        if state.wrong.is_some() {
            return state.wrong;
        }
        if state.sessions & state.db.fenced != 0 {
            return Some("an epoch that has ended is alive");
        }
        for (delivery, (row, _)) in state.db.rows.iter().enumerate() {
            match row {
                Row::Leased(epoch) if state.db.fenced & one(*epoch) != 0 => {
                    return Some("a delivery is leased to an epoch that has ended");
                }
                Row::Succeeded if state.received & one(delivery as u8) == 0 => return Some("succeeded without a 2xx"),
                _ => {}
            }
        }
        if state.db.rows.iter().any(|(row, _)| matches!(row, Row::Due | Row::Leased(_))) {
            let mut steps = Vec::new();
            self.pending(state, &mut steps);
            if steps.is_empty() {
                return Some("a delivery is stuck");
            }
        }
        None
    }
}

impl Model for Leases {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let deliveries = usize::from(self.deliveries);
        let db = Db { rows: vec![(Row::Due, 0); deliveries], logged: 0, fenced: 0 };
        vec![State {
            durable: db.clone(),
            db,
            registered: self.relays,
            sessions: (1..=self.relays).map(one).sum(),
            relays: [1, 2].map(|epoch| {
                let is_alive = epoch <= self.relays;
                Relay { is_alive, is_connected: is_alive, epoch: if is_alive { epoch } else { 0 }, ..Relay::default() }
            }),
            forgotten: Vec::new(),
            next_attempt: 0,
            losses_left: self.losses,
            crashes_left: self.crashes,
            failures_left: self.failures,
            waits_left: self.waits,
            shaken: 0,
            sent: vec![0; deliveries],
            received: 0,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if !Self::is_over(state) {
            self.pending(state, steps);
            self.possible(state, steps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        let s = &mut state;
        match step {
            Step::Start(r) => s.relays[r].is_alive = true,
            Step::Die(r) => {
                s.losses_left -= 1;
                Self::die(s, r);
            }
            Step::Connect(r) => self.connect(s, r),
            Step::SessionEnds(epoch) => {
                if Self::is_kept(s, epoch) {
                    s.losses_left -= 1;
                    s.shaken |= one(epoch);
                }
                s.sessions &= !one(epoch);
            }
            Step::Notice(r) => Self::lose_direct(&mut s.relays[r]),
            Step::Crash => {
                s.crashes_left -= 1;
                Self::crash(s);
            }
            Step::Flush => s.durable = s.db.clone(),
            Step::Fence(epoch) => {
                s.db.fenced |= one(epoch);
                if !self.is(Variant::FenceWithoutHandBack) {
                    Self::apply_hand_back(s, epoch, Set::MAX >> (16 - self.deliveries));
                }
                s.durable = s.db.clone();
            }
            Step::LearnFenced(r) => {
                let relay = &mut s.relays[r];
                (relay.epoch, relay.is_connected, relay.doubted) = (0, false, 0);
                Self::give_up_waiting(relay);
            }
            Step::Begin { relay, attempt } => Self::begin(s, relay, attempt),
            Step::Receive { relay, attempt, ok } => {
                let Attempt { delivery, phase: Phase::Sending(id), .. } = s.relays[relay].attempts[attempt] else {
                    return None;
                };
                s.failures_left -= u8::from(!ok);
                s.received |= if ok { one(delivery) } else { 0 };
                s.relays[relay].attempts[attempt].phase = Phase::Ended { attempt: id, ok };
                s.relays[relay].attempts.sort_unstable();
                Self::send_results(&mut s.relays[relay]);
            }
            Step::GiveUpWaiting { relay, attempt } => {
                s.waits_left -= 1;
                let relay = &mut s.relays[relay];
                let Attempt { delivery, epoch, .. } = relay.attempts.remove(attempt);
                relay.unwanted.push((epoch, delivery));
                relay.unwanted.sort_unstable();
                Self::settle(relay);
            }
            Step::RunForgotten { call, got } => match s.forgotten.remove(call) {
                Call::Lease { epoch } => Self::apply_lease(s, epoch, got, false),
                Call::Record { epoch, batch } => self.apply_record(s, epoch, &batch),
                Call::HandBack { epoch, deliveries } => Self::apply_hand_back(s, epoch, deliveries),
            },
            Step::LoseLease(_) | Step::LoseRecord(_) | Step::LoseHandBack(_) | Step::Cut(_) => Self::lose(s, &step)?,
            _ => self.call_step(s, &step)?,
        }
        if s.crashes_left == 0 {
            s.durable = s.db.clone(); // no crash is to come
        }
        if self.is(Variant::AsBuilt) {
            normalize::normalize(s);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants()
    }
}
