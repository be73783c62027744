//! The doorbell: the trigger `outbox_relay.ring`, and the way a relay goes to sleep (`src/wake.rs`, `src/relay/session.rs`,
//! `src/relay/leasing.rs`).
//!
//! Nobody polls here: what only a poll would find counts as slept through.

mod variants;

use crate::explore::{Protocol, invariants};
use stateright::{Model, Property};

/// Transactions of producers, and relays.
const WRITERS: usize = 3;
const RELAYS: usize = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    Open,
    /// Committed and visible; what it holds it still holds.
    Visible,
    Over,
}

/// A transaction that inserts, in one statement or in two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Writer {
    phase: Phase,
    statements: u8,
    /// It holds the door in shared mode.
    shares: bool,
    /// It did not get it: a notification goes out with the commit.
    rings: bool,
    is_committed: bool,
    is_expanded: bool,
}

/// The direct session of a relay as the server knows it, which may be there longer than the relay has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Session {
    Of(usize),
    Lingering(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Look {
    #[default]
    None,
    /// On its way; the transaction has not run.
    Asked,
    /// It has run, and the answer is on its way.
    Answered { found: bool, more: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Relay {
    is_alive: bool,
    /// It has a direct connection.
    is_connected: bool,
    /// It drains: it takes nothing more.
    is_stopping: bool,
    /// It knows of a hold.
    is_held: bool,
    has_bell: bool,
    has_door: bool,
    /// `log_wanted`.
    is_wanted: bool,
    look: Look,
    has_room: bool,
    /// Notifications on their way to it: of a commit; a call for help; a hold or a release.
    rung: bool,
    called: bool,
    told: bool,
    /// Of a variant: it has the bell, and does not listen yet.
    is_deaf: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    writers: [Writer; WRITERS],
    relays: [Relay; RELAYS],
    door: Option<Session>,
    bell: Option<Session>,
    /// `outbox.hold()`.
    is_held: bool,
    /// Deaths, cut connections, stops and holds to come, and rooms that may be used up.
    faults_left: u8,
    fills_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The trigger tries for the door, and the row is inserted.
    Insert(usize),
    /// The row can be seen, and the notification is on its way.
    Commit(usize),
    /// What the transaction held is let go.
    LetGo(usize),
    RollBack(usize),
    Hold,
    Release,

    /// Asks for an expand.
    Look(usize),
    /// The expand of a relay runs: all there is, or some of it.
    Expand {
        relay: usize,
        all: bool,
    },
    /// Its answer comes: is the relay busy, and is its room used up?
    Answer {
        relay: usize,
        is_busy: bool,
        is_full: bool,
    },
    TryDoor(usize),
    Hear(usize),
    Called(usize),
    Told(usize),
    /// Once a second: how things stand, and the bell if nobody has it.
    Tick(usize),
    /// Of a variant.
    Listen(usize),
    /// An attempt ends.
    RoomBack(usize),
    /// Told to stop: leaves door and bell.
    Stop(usize),
    /// Killed, or at its end.
    Die(usize),
    Start(usize),
    /// The relay loses its connection; the server does not know yet.
    Cut(usize),
    /// The server has found out, and frees what that session held.
    SessionEnds(usize),
    Connect(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    AsBuilt,
    NoSecondLook,
    LetGoBeforeVisible,
    NobodyTakesTheBell,
    ForgetsWhatWasHeard,
    ListensLast,
    ReleasedInSilence,
    AttemptsDoNotEnd,
}

#[derive(Clone)]
pub(crate) struct Doorbell {
    variant: Variant,
    writers: usize,
    relays: usize,
    faults: u8,
    fills: u8,
}

impl Doorbell {
    fn new(variant: Variant, writers: usize, relays: usize) -> Self {
        Self { variant, writers, relays, faults: 1, fills: 0 }
    }

    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    /// The first writer may insert twice, the others once.
    fn statements(&self, writer: usize) -> u8 {
        if writer == 0 { 2 } else { 1 }
    }

    /// What there is to expand, writer by writer.
    fn waiting(state: &State) -> impl Iterator<Item = usize> {
        (0..WRITERS).filter(|w| state.writers[*w].is_committed && !state.writers[*w].is_expanded)
    }

    fn leave_door(state: &mut State, relay: usize) {
        if std::mem::take(&mut state.relays[relay].has_door) {
            state.door = None;
        }
    }

    fn leave_bell(state: &mut State, relay: usize) {
        Self::leave_door(state, relay);
        if std::mem::take(&mut state.relays[relay].has_bell) {
            state.bell = None;
            state.relays[relay].rung = false;
            Self::call_for_help(state, relay);
        }
    }

    fn call_for_help(state: &mut State, by: usize) {
        for (r, relay) in state.relays.iter_mut().enumerate() {
            relay.called |= r != by && relay.is_connected;
        }
    }

    fn tell_all(state: &mut State) {
        for relay in &mut state.relays {
            relay.told |= relay.is_connected;
        }
    }

    /// The relay has its connection no more, and what it heard on it is gone; the server finds out later.
    fn disconnect(state: &mut State, r: usize) {
        for holder in [&mut state.door, &mut state.bell].into_iter().flatten().filter(|h| **h == Session::Of(r)) {
            *holder = Session::Lingering(r);
        }
        let relay = &mut state.relays[r];
        (relay.is_connected, relay.has_bell, relay.has_door, relay.is_deaf) = (false, false, false, false);
        (relay.rung, relay.called, relay.told) = (false, false, false);
    }

    fn exchange(state: &mut State) {
        state.relays.swap(0, 1);
        for holder in [&mut state.door, &mut state.bell].into_iter().flatten() {
            let (Session::Of(r) | Session::Lingering(r)) = holder;
            *r = 1 - *r;
        }
    }

    fn free(state: &mut State, session: Session) {
        state.door = state.door.filter(|holder| *holder != session);
        state.bell = state.bell.filter(|holder| *holder != session);
    }

    fn wants_to_sleep(relay: &Relay) -> bool {
        relay.is_connected
            && !relay.is_stopping
            && !relay.is_held
            && relay.look == Look::None
            && !relay.is_wanted
            && relay.has_bell
            && !relay.has_door
            && relay.has_room
    }

    fn may_take_bell(&self, state: &State, relay: &Relay) -> bool {
        let is_first = state.faults_left == self.faults;
        let is_allowed = is_first || !self.is(Variant::NobodyTakesTheBell);
        !state.is_held && !relay.is_stopping && !relay.has_bell && state.bell.is_none() && is_allowed
    }

    fn must_leave_bell(state: &State, relay: &Relay) -> bool {
        state.is_held && relay.has_bell
    }

    /// Steps that will be made if nothing else is: by relays that run, and by transactions that are open.
    fn pending(&self, state: &State, steps: &mut Vec<Step>) {
        for (w, writer) in state.writers.iter().enumerate() {
            match writer.phase {
                Phase::Open => steps.extend([Step::Commit(w), Step::RollBack(w)]),
                Phase::Visible => steps.push(Step::LetGo(w)),
                Phase::Idle | Phase::Over => {}
            }
        }
        if state.is_held {
            steps.push(Step::Release);
        }
        for (r, relay) in state.relays.iter().enumerate() {
            if [state.door, state.bell].contains(&Some(Session::Lingering(r))) {
                steps.push(Step::SessionEnds(r));
            }
            if !relay.is_alive {
                continue;
            }
            match relay.look {
                Look::Asked => steps.extend([true, false].map(|all| Step::Expand { relay: r, all })),
                Look::Answered { .. } => {
                    for (is_busy, is_full) in [(false, false), (false, true), (true, false), (true, true)] {
                        steps.push(Step::Answer { relay: r, is_busy, is_full });
                    }
                }
                Look::None if relay.is_stopping => steps.push(Step::Die(r)),
                Look::None => {}
            }
            if relay.is_stopping {
                continue;
            }
            if !relay.is_connected {
                steps.push(Step::Connect(r));
                continue;
            }
            if relay.is_wanted && relay.look == Look::None && relay.has_room {
                steps.push(Step::Look(r));
            }
            if Self::wants_to_sleep(relay) {
                steps.push(Step::TryDoor(r));
            }
            for (is_on_its_way, step) in
                [(relay.rung, Step::Hear(r)), (relay.called, Step::Called(r)), (relay.told, Step::Told(r))]
            {
                steps.extend(is_on_its_way.then_some(step));
            }
            if relay.is_held != state.is_held || self.may_take_bell(state, relay) || Self::must_leave_bell(state, relay)
            {
                steps.push(Step::Tick(r));
            }
            if relay.is_deaf {
                steps.push(Step::Listen(r));
            }
            if !relay.has_room && !self.is(Variant::AttemptsDoNotEnd) {
                steps.push(Step::RoomBack(r));
            }
        }
    }

    fn answer(&self, state: &mut State, r: usize, is_busy: bool, is_full: bool) -> Option<()> {
        let Look::Answered { found, more } = std::mem::take(&mut state.relays[r].look) else { return None };
        if !found && (is_busy || is_full) || is_full && state.fills_left == 0 {
            return None;
        }
        state.fills_left -= u8::from(is_full);
        if found && (more || is_busy) {
            Self::leave_door(state, r);
        }
        let relay = &mut state.relays[r];
        if self.is(Variant::ForgetsWhatWasHeard) {
            relay.is_wanted = false;
        }
        relay.is_wanted |= more || (found && !relay.has_bell);
        relay.has_room &= !is_full;
        if more && is_full {
            Self::call_for_help(state, r);
        }
        Some(())
    }

    fn try_door(&self, state: &mut State, r: usize) {
        let is_free = state.door.is_none() && state.writers.iter().all(|writer| !writer.shares);
        if is_free {
            state.door = Some(Session::Of(r));
        }
        let relay = &mut state.relays[r];
        relay.has_door = is_free;
        relay.is_wanted = !(is_free && self.is(Variant::NoSecondLook));
    }

    fn tick(&self, state: &mut State, r: usize) {
        let is_held = state.is_held;
        if Self::must_leave_bell(state, &state.relays[r]) {
            Self::leave_bell(state, r);
        }
        let takes = self.may_take_bell(state, &state.relays[r]);
        state.bell = if takes { Some(Session::Of(r)) } else { state.bell };
        let relay = &mut state.relays[r];
        relay.is_wanted |= relay.is_held && !is_held;
        relay.is_held = is_held;
        relay.has_bell |= takes;
        relay.is_deaf |= takes && self.is(Variant::ListensLast);
    }
}

impl Protocol for Doorbell {
    fn broken(&self, state: &State) -> Option<&'static str> {
        let holders = state.relays.iter().filter(|relay| relay.has_door).count();
        if holders > 1 || (state.door.is_some() && state.writers.iter().any(|writer| writer.shares)) {
            return Some("the door is held twice");
        }
        let is_full = |relay: &Relay| self.is(Variant::AttemptsDoNotEnd) && !relay.has_room;
        let is_somebody_there =
            state.relays.iter().any(|relay| relay.is_alive && !relay.is_stopping && !is_full(relay));
        if is_somebody_there && Self::waiting(state).next().is_some() {
            let mut steps = Vec::new();
            self.pending(state, &mut steps);
            if steps.is_empty() {
                return Some("everybody sleeps, and an event waits");
            }
        }
        None
    }
}

impl Model for Doorbell {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let relay = Relay {
            is_alive: true,
            is_connected: false,
            is_stopping: false,
            is_held: false,
            has_bell: false,
            has_door: false,
            is_wanted: true,
            look: Look::None,
            has_room: true,
            rung: false,
            called: false,
            told: false,
            is_deaf: false,
        };
        vec![State {
            writers: [Writer::default(); WRITERS],
            // Those beyond self.relays are never started.
            relays: [0, 1].map(|r| Relay { is_alive: r < self.relays, ..relay }),
            door: None,
            bell: None,
            is_held: false,
            faults_left: self.faults,
            fills_left: self.fills,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.pending(state, steps);
        for w in 0..self.writers {
            let writer = &state.writers[w];
            // They are alike: one begins after the other.
            let is_next = w == 0 || state.writers[w - 1].phase != Phase::Idle;
            if matches!(writer.phase, Phase::Idle | Phase::Open) && writer.statements < self.statements(w) && is_next {
                steps.push(Step::Insert(w));
            }
        }
        if state.faults_left > 0 && !state.is_held {
            steps.push(Step::Hold);
        }
        for (r, relay) in state.relays.iter().enumerate() {
            if !relay.is_alive {
                steps.extend((r < self.relays).then_some(Step::Start(r)));
                continue;
            }
            if state.faults_left == 0 {
                continue;
            }
            steps.push(Step::Die(r));
            steps.extend((!relay.is_stopping).then_some(Step::Stop(r)));
            steps.extend(relay.is_connected.then_some(Step::Cut(r)));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        let s = &mut state;
        match step {
            Step::Insert(w) => {
                let is_open = s.door.is_none();
                let writer = &mut s.writers[w];
                writer.phase = Phase::Open;
                writer.statements += 1;
                writer.rings |= !is_open;
                writer.shares |= is_open && !self.is(Variant::LetGoBeforeVisible);
            }
            Step::Commit(w) => {
                s.writers[w].phase = Phase::Visible;
                s.writers[w].is_committed = true;
                if s.writers[w].rings {
                    for relay in &mut s.relays {
                        relay.rung |= relay.has_bell && !relay.is_deaf;
                    }
                }
            }
            Step::LetGo(w) => {
                (s.writers[w].phase, s.writers[w].shares, s.writers[w].rings) = (Phase::Over, false, false);
            }
            Step::RollBack(w) => {
                (s.writers[w].phase, s.writers[w].shares, s.writers[w].rings) = (Phase::Over, false, false);
            }
            Step::Hold => {
                s.faults_left -= 1;
                s.is_held = true;
                Self::tell_all(s);
            }
            Step::Release => {
                s.is_held = false;
                if !self.is(Variant::ReleasedInSilence) {
                    Self::tell_all(s);
                }
            }
            Step::Look(r) => (s.relays[r].is_wanted, s.relays[r].look) = (false, Look::Asked),
            Step::Expand { relay, all } => {
                let waiting: Vec<usize> = Self::waiting(last).collect();
                let some = if all || last.is_held { waiting.len() } else { 1 };
                if some > waiting.len() || (last.is_held && !all) {
                    return None;
                }
                let found = !waiting.is_empty() && !last.is_held;
                if found {
                    waiting[..some].iter().for_each(|w| s.writers[*w].is_expanded = true);
                }
                s.relays[relay].look = Look::Answered { found, more: found && !all };
            }
            Step::Answer { relay, is_busy, is_full } => self.answer(s, relay, is_busy, is_full)?,
            Step::TryDoor(r) => self.try_door(s, r),
            Step::Hear(r) => {
                (s.relays[r].rung, s.relays[r].is_wanted) = (false, true);
                if !s.relays[r].has_room {
                    Self::call_for_help(s, r);
                }
            }
            Step::Called(r) => (s.relays[r].called, s.relays[r].is_wanted) = (false, true),
            // It also asks at once how things stand; here that is a tick like others.
            Step::Told(r) => (s.relays[r].told, s.relays[r].is_wanted) = (false, true),
            Step::Tick(r) => self.tick(s, r),
            Step::Listen(r) => s.relays[r].is_deaf = false,
            Step::RoomBack(r) => s.relays[r].has_room = true,
            Step::Stop(r) => {
                s.faults_left -= 1;
                s.relays[r].is_stopping = true;
                Self::leave_bell(s, r);
            }
            Step::Die(r) => {
                s.faults_left -= u8::from(last.faults_left > 0 && !last.relays[r].is_stopping);
                Self::disconnect(s, r);
                let relay = &mut s.relays[r];
                (relay.is_alive, relay.is_stopping, relay.look) = (false, false, Look::None);
            }
            Step::Start(r) => {
                let relay = &mut s.relays[r];
                (relay.is_alive, relay.has_room, relay.is_wanted, relay.is_held) = (true, true, true, false);
            }
            Step::Cut(r) => {
                s.faults_left -= 1;
                Self::disconnect(s, r);
            }
            Step::SessionEnds(r) => Self::free(s, Session::Lingering(r)),
            Step::Connect(r) => (s.relays[r].is_connected, s.relays[r].is_wanted) = (true, true),
        }
        if self.is(Variant::AsBuilt) && self.relays == 2 && s.relays[1] < s.relays[0] {
            Self::exchange(s); // which is which makes no difference
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants()
    }
}

const SLEEPS: &str = "everybody sleeps, and an event waits";
