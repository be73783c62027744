//! The snapshot cursor: `outbox_relay.expand`, and what writers and other traffic do meanwhile.
//!
//! A transaction gets its id, draws positions, and ends; a look is one call of expand, step by step. Only one is under
//! way at a time (advisory lock 3) and it keeps nothing between two calls, so one stands for any number of relays.

mod variants;

use crate::explore::{Protocol, invariants};
use stateright::{Model, Property};

/// Positions are 1 to one less than this.
const POSITIONS: usize = 9;

/// It counts as expanded and was not, or no look will find it.
const LOST: &str = "a committed event is lost";

/// A set of transaction ids, or of positions, as bits.
type Set = u32;

const fn one(n: u8) -> Set {
    1 << n
}

fn members(set: Set) -> impl Iterator<Item = u8> {
    (0..32).filter(move |n| set & one(*n) != 0)
}

/// `pg_snapshot`: complete is every id before `end` that is not on the list. What runs from `end` on is on no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Snapshot {
    end: u8,
    open: Set,
}

impl Snapshot {
    /// `pg_visible_in_snapshot`.
    fn shows(self, xid: u8) -> bool {
        xid < self.end && self.open & one(xid) == 0
    }

    /// `pg_snapshot_xmin`.
    fn begins(self) -> u8 {
        if self.open == 0 { self.end } else { self.open.trailing_zeros() as u8 }
    }
}

/// The newest row of `outbox_relay.cursor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cursor {
    seen: Snapshot,
    seen_seq: u8,
    target: Option<Target>,
    floor_seq: u8,
    next_xact: u8,
    next_seq: u8,
    head_xact: u8,
    head_seq: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Target {
    snapshot: Snapshot,
    seq: u8,
    end: u8,
    position: u8,
    late: Set,
}

/// A call of expand under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Look {
    /// The row it found.
    cursor: Cursor,
    began_seq: u8,
    /// It has taken a snapshot of its own.
    opened: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Locked,
    Snapped,
    Ready,
    /// It has an id, and this batch.
    Written {
        xid: u8,
        batch: Set,
        filled: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The next transaction id, and the last one that completed.
    next_xid: u8,
    completed: u8,
    /// Transactions that have an id and have not ended; those of them that write; those that committed.
    running: Set,
    writers: Set,
    committed: Set,
    /// `last_value` of the sequence of positions.
    seq: u8,
    /// Whose the event at a position is; 0: nobody's.
    owner: [u8; POSITIONS],
    /// Which positions had been committed when it was inserted.
    before: [u16; POSITIONS],
    cursor: Cursor,
    look: Option<Look>,
    expanded: Set,
    twice: bool,
    misplaced: bool,
    writers_left: u8,
    /// Transactions and savepoints to be rolled back, and what expand may do that it seldom does.
    rollbacks_left: u8,
    oddities_left: u8,
    /// Of variants: a position drawn without an id; one left over in a session, and who drew it; the cursor that a
    /// second relay saw before it waited for the lock.
    early: u8,
    cached: (u8, u8),
    stale: Option<Cursor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A transaction gets its id; it may be anybody's, and insert nothing.
    Begin,
    /// It draws a position, and inserts there.
    Insert {
        xid: u8,
    },
    /// The same below a savepoint that is rolled back: an id of its own, and the position, are gone.
    InsertAndUndo {
        xid: u8,
    },
    Commit {
        xid: u8,
    },
    RollBack {
        xid: u8,
    },
    /// expand has the lock, and reads the sequence and the cursor.
    Look,
    TakeSnapshot,
    ReadSequence,
    /// Nothing is there, and no trace is left.
    FindNothing,
    /// Reads the batch and writes what came of it, which takes an id.
    Expand {
        limit: u8,
    },
    /// Inserts an event of its own (outbox_relay.tell).
    Tell,
    /// Writes the cursor, and commits.
    MoveOn,
    /// The relay dies, or the server: expand is rolled back.
    Crash,
    /// Of variants.
    DrawEarly,
    Wait,
}

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    AsBuilt,
    HighWaterMark,
    NoLate,
    EndAtSnapshot,
    HeadAfterId,
    SequenceBeforeSnapshot,
    FloorRaised,
    PositionBeforeId,
    CachedSequence,
    RepeatableRead,
}

#[derive(Clone)]
pub(crate) struct Log {
    variant: Variant,
    writers: u8,
    events: u8,
    rollbacks: u8,
    oddities: u8,
}

impl Log {
    fn new(variant: Variant) -> Self {
        Self { variant, writers: 2, events: 3, rollbacks: 0, oddities: 1 }
    }

    /// `pg_current_snapshot()`.
    fn snapshot(state: &State) -> Snapshot {
        let end = state.completed + 1;
        Snapshot { end, open: state.running & (one(end) - 1) }
    }

    /// The rows a look would read, all of them.
    fn readable(&self, state: &State, cursor: &Cursor, target: &Target) -> Set {
        let mut found = 0;
        for position in 1..=state.seq {
            let xid = state.owner[usize::from(position)];
            if xid == 0 || state.committed & one(xid) == 0 {
                continue;
            }
            let is_late = position > target.position.max(cursor.floor_seq)
                && position <= cursor.seen_seq
                && target.late & one(xid) != 0;
            let is_new = position > target.position.max(cursor.seen_seq)
                && position <= target.end
                && target.snapshot.shows(xid)
                && !cursor.seen.shows(xid);
            if is_late || is_new || (self.variant == Variant::HighWaterMark && position > cursor.seen_seq) {
                found |= one(position);
            }
        }
        found
    }

    /// `outbox_relay.expanded_before`.
    fn is_behind(cursor: &Cursor, position: u8, xid: u8) -> bool {
        position <= cursor.floor_seq
            || cursor.seen.shows(xid)
            || cursor.target.is_some_and(|target| position <= target.position && target.snapshot.shows(xid))
    }

    fn committed_positions(state: &State) -> Set {
        (1..=state.seq).filter(|p| state.committed & one(state.owner[usize::from(*p)]) & !1 != 0).map(one).sum()
    }

    fn open_target(&self, state: &State, cursor: &Cursor) -> Target {
        let snapshot = Self::snapshot(state);
        let seq = if cursor.head_xact < snapshot.end { cursor.head_seq } else { cursor.seen_seq };
        let late = members(cursor.seen.open).filter(|xid| snapshot.shows(*xid)).map(one).sum();
        let late = if self.variant == Variant::NoLate { 0 } else { late };
        Target { snapshot, seq, end: 0, position: 0, late }
    }

    fn end_transaction(state: &mut State, xid: u8, commits: bool) {
        state.running &= !one(xid);
        state.writers &= !one(xid);
        state.committed |= if commits { one(xid) } else { 0 };
        state.completed = state.completed.max(xid);
        if !commits {
            // What it inserted is nobody's.
            state.owner.iter_mut().filter(|owner| **owner == xid).for_each(|owner| *owner = 0);
        }
    }

    fn new_id(state: &mut State) -> u8 {
        let xid = state.next_xid;
        assert!(xid < 31, "a transaction id is a bit");
        state.next_xid += 1;
        state.running |= one(xid);
        xid
    }

    fn insert(&self, state: &mut State, xid: u8) {
        let position = if self.variant == Variant::CachedSequence && state.cached.0 != 0 {
            std::mem::take(&mut state.cached).0
        } else {
            state.seq += 1;
            let first = state.seq;
            if self.variant == Variant::CachedSequence {
                state.seq += 1;
                state.cached = (state.seq, xid);
            }
            first
        };
        state.owner[usize::from(position)] = xid;
        state.before[usize::from(position)] = Self::committed_positions(state) as u16;
    }

    /// The end of expand, from "if filled".
    fn move_on(&self, state: &mut State, look: Look) {
        let Stage::Written { xid, batch, filled } = look.stage else { unreachable!("only what was written") };
        let mut done = state.expanded;
        for position in members(batch) {
            state.misplaced |= Set::from(state.before[usize::from(position)]) & !done != 0;
            state.twice |= done & one(position) != 0;
            done |= one(position);
            state.before[usize::from(position)] = 0;
        }
        state.expanded = done;
        let mut c = look.cursor;
        let last = batch.checked_ilog2().unwrap_or(0) as u8;
        if self.variant == Variant::HighWaterMark {
            (c.target, c.seen_seq, c.floor_seq) = (None, c.seen_seq.max(last), c.seen_seq.max(last));
        } else if let Some(target) = c.target.as_mut().filter(|_| filled) {
            target.position = last;
        } else if let Some(target) = c.target.take() {
            if target.snapshot.begins() >= c.next_xact || self.variant == Variant::FloorRaised {
                c.floor_seq = if self.variant == Variant::FloorRaised { target.seq } else { c.next_seq };
                (c.next_xact, c.next_seq) = (target.snapshot.end, target.seq);
            }
            (c.seen, c.seen_seq) = (target.snapshot, target.seq);
        }
        c.head_xact = xid;
        c.head_seq = if self.variant == Variant::HeadAfterId { state.seq } else { look.began_seq };
        state.cursor = c;
        state.look = None;
        Self::end_transaction(state, xid, true);
    }

    fn look_steps(&self, state: &State, look: &Look, steps: &mut Vec<Step>) {
        let (Some(target), Stage::Ready) = (look.cursor.target, look.stage) else {
            return steps.push(match look.stage {
                Stage::Locked => Step::TakeSnapshot,
                Stage::Snapped => Step::ReadSequence,
                Stage::Ready | Stage::Written { .. } => Step::MoveOn,
            });
        };
        let found = self.readable(state, &look.cursor, &target).count_ones() as u8;
        if found == 0 && look.opened {
            steps.push(Step::FindNothing);
        }
        // "less than 1000" positions since: here, sometimes.
        if found > 0 || !look.opened || state.oddities_left > 0 {
            steps.extend((1..=found + 1).map(|limit| Step::Expand { limit }));
        }
    }
}

impl Protocol for Log {
    fn broken(&self, state: &State) -> Option<&'static str> {
        if state.twice {
            return Some("an event is expanded twice");
        }
        if state.misplaced {
            return Some("an event is expanded before one that was committed when it was inserted");
        }
        let committed = Self::committed_positions(state);
        if state.expanded & !committed != 0 {
            return Some("an event is expanded that was not committed");
        }
        let behind: Set = (1..=state.seq)
            .filter(|position| Self::is_behind(&state.cursor, *position, state.owner[usize::from(*position)]))
            .map(one)
            .sum();
        if behind & committed & !state.expanded != 0 {
            return Some(LOST);
        }
        if state.expanded & !behind != 0 {
            return Some("an event was expanded and does not count as such");
        }
        let is_quiet = state.running == 0 && state.look.is_none() && state.cursor.target.is_none();
        if is_quiet && committed != state.expanded {
            let target = Target { end: state.seq, ..self.open_target(state, &state.cursor) };
            if self.readable(state, &state.cursor, &target) == 0 {
                return Some(LOST);
            }
        }
        None
    }
}

impl Model for Log {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        // As the migration leaves it: nothing is open, and the next id is 1.
        let seen = Snapshot { end: 1, open: 0 };
        let cursor = Cursor {
            seen,
            seen_seq: 0,
            target: None,
            floor_seq: 0,
            next_xact: 1,
            next_seq: 0,
            head_xact: 1,
            head_seq: 0,
        };
        vec![State {
            next_xid: 1,
            completed: 0,
            running: 0,
            writers: 0,
            committed: 0,
            seq: 0,
            owner: [0; POSITIONS],
            before: [0; POSITIONS],
            cursor,
            look: None,
            expanded: 0,
            twice: false,
            misplaced: false,
            writers_left: self.writers,
            rollbacks_left: self.rollbacks,
            oddities_left: self.oddities,
            early: 0,
            cached: (0, 0),
            stale: None,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let may_draw = state.seq < self.events;
        if self.variant == Variant::PositionBeforeId && state.early == 0 && may_draw && state.writers_left > 0 {
            steps.push(Step::DrawEarly);
        }
        if state.writers_left > 0 && (self.variant != Variant::PositionBeforeId || state.early != 0) {
            steps.push(Step::Begin);
        }
        for xid in members(state.writers) {
            if may_draw && self.variant != Variant::PositionBeforeId {
                let has_cached = state.cached.0 != 0;
                if !has_cached || state.cached.1 == xid || state.running & one(state.cached.1) == 0 {
                    steps.push(Step::Insert { xid });
                }
                if state.rollbacks_left > 0 && self.variant != Variant::CachedSequence {
                    steps.push(Step::InsertAndUndo { xid });
                }
            }
            steps.push(Step::Commit { xid });
            if state.rollbacks_left > 0 {
                steps.push(Step::RollBack { xid });
            }
        }
        let Some(look) = &state.look else { return steps.push(Step::Look) };
        if self.variant == Variant::RepeatableRead && state.stale.is_none() {
            steps.push(Step::Wait);
        }
        self.look_steps(state, look, steps);
        if let Stage::Written { .. } = look.stage {
            if state.oddities_left > 0 {
                steps.push(Step::Crash);
            }
            if may_draw && state.oddities_left > 0 && self.variant == Variant::AsBuilt {
                steps.push(Step::Tell);
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        let s = &mut state;
        match step {
            Step::DrawEarly => {
                s.seq += 1;
                s.early = s.seq;
            }
            Step::Begin => {
                s.writers_left -= 1;
                let xid = Self::new_id(s);
                s.writers |= one(xid);
                let early = std::mem::take(&mut s.early);
                if early != 0 {
                    s.owner[usize::from(early)] = xid;
                    s.before[usize::from(early)] = Self::committed_positions(s) as u16;
                }
            }
            Step::Insert { xid } => self.insert(s, xid),
            Step::InsertAndUndo { .. } => {
                s.rollbacks_left -= 1;
                s.seq += 1;
                let below = s.next_xid;
                s.next_xid += 1;
                s.completed = s.completed.max(below);
            }
            Step::Commit { xid } => Self::end_transaction(s, xid, true),
            Step::RollBack { xid } => {
                s.rollbacks_left -= 1;
                Self::end_transaction(s, xid, false);
            }
            Step::Wait => s.stale = Some(s.cursor),
            Step::Look => {
                let cursor = s.stale.take().unwrap_or(s.cursor);
                let opened = cursor.target.is_none();
                let stage = if opened { Stage::Locked } else { Stage::Ready };
                s.look = Some(Look { cursor, began_seq: s.seq, opened, stage });
            }
            Step::TakeSnapshot => {
                let look = last.look?;
                let target = self.open_target(last, &look.cursor);
                let cursor = Cursor { target: Some(target), ..look.cursor };
                s.look = Some(Look { cursor, stage: Stage::Snapped, ..look });
            }
            Step::ReadSequence => {
                let look = s.look.as_mut()?;
                let target = look.cursor.target.as_mut()?;
                target.end = if self.variant == Variant::SequenceBeforeSnapshot { look.began_seq } else { s.seq };
                if self.variant == Variant::EndAtSnapshot {
                    target.seq = target.end;
                }
                let target = *target;
                look.stage = Stage::Ready;
                let look = *look;
                // What it will find is decided: if it is nothing, this is the end of the call, but for the odd trace.
                if last.oddities_left == 0 && look.opened && self.readable(last, &look.cursor, &target) == 0 {
                    s.look = None;
                }
            }
            Step::FindNothing => s.look = None,
            Step::Expand { limit } => {
                let look = last.look?;
                let found = self.readable(last, &look.cursor, &look.cursor.target?);
                let batch = members(found).take(usize::from(limit)).map(one).sum::<Set>();
                s.oddities_left -= u8::from(found == 0 && look.opened);
                let stage =
                    Stage::Written { xid: Self::new_id(s), batch, filled: batch.count_ones() == u32::from(limit) };
                s.look = Some(Look { stage, ..look });
            }
            Step::Tell => {
                let Some(Look { stage: Stage::Written { xid, .. }, .. }) = s.look else { return None };
                s.oddities_left -= 1;
                self.insert(s, xid);
            }
            Step::MoveOn => self.move_on(s, last.look?),
            Step::Crash => {
                let Some(Look { stage: Stage::Written { xid, .. }, .. }) = s.look else { return None };
                s.oddities_left -= 1;
                s.look = None;
                Self::end_transaction(s, xid, false);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants()
    }
}
