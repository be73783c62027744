//! What is built must hold; without one of the things it stands on it must fail.

use super::{LOST, Log, POSITIONS, Variant};
use crate::explore::{self, bound};

#[test]
fn every_committed_event_is_expanded_exactly_once_and_in_order() {
    let (writers, events) = (3 + bound(), 3 + bound());
    assert!(usize::from(events) < POSITIONS, "OUTBOXD_MODEL_BOUND: no more than {POSITIONS} positions");
    let log = Log { writers, events, oddities: 0, ..Log::new(Variant::AsBuilt) };
    explore::holds("cursor, all commits", log.clone());
    let log = Log { writers: writers - 1, events: events - 1, rollbacks: 1, oddities: 1, ..log };
    explore::holds("cursor, rollbacks and crashes", log);
    // Within these bounds the variants fail.
    explore::holds("cursor, a crash or the like", Log::new(Variant::AsBuilt));
}

#[test]
fn a_high_water_mark_loses_what_commits_late() {
    explore::fails("cursor", "high-water mark", Log::new(Variant::HighWaterMark), LOST);
}

#[test]
fn what_was_open_in_the_last_snapshot_must_be_looked_for() {
    explore::fails("cursor", "late forgotten", Log::new(Variant::NoLate), LOST);
}

#[test]
fn the_sequence_at_the_snapshot_does_not_bound_what_runs_beyond_it() {
    explore::fails("cursor", "end of the sequence at the snapshot", Log::new(Variant::EndAtSnapshot), LOST);
}

#[test]
fn the_sequence_must_be_read_before_expand_has_an_id() {
    explore::fails("cursor", "head read after the id", Log::new(Variant::HeadAfterId), LOST);
}

#[test]
fn the_end_of_a_target_must_be_read_after_its_snapshot() {
    explore::fails("cursor", "end read before the snapshot", Log::new(Variant::SequenceBeforeSnapshot), LOST);
}

#[test]
fn the_floor_must_stay_below_what_is_open() {
    explore::fails("cursor", "floor raised at once", Log::new(Variant::FloorRaised), LOST);
}

#[test]
fn a_transaction_must_have_its_id_before_it_draws_a_position() {
    explore::fails("cursor", "position before id", Log::new(Variant::PositionBeforeId), LOST);
}

#[test]
fn the_sequence_must_not_hand_out_blocks() {
    explore::fails("cursor", "sequence with a cache", Log::new(Variant::CachedSequence), LOST);
}

#[test]
fn who_waited_for_the_lock_must_not_read_with_an_older_snapshot() {
    explore::fails("cursor", "repeatable read", Log::new(Variant::RepeatableRead), "an event is expanded twice");
}
