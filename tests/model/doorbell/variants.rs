//! What is built must hold; without one of the things it stands on it must fail.

use super::{Doorbell, SLEEPS, Variant, WRITERS};
use crate::explore::{self, bound};

#[test]
fn nobody_sleeps_through_a_commit() {
    let more = usize::from(bound());
    let (crowd, pair) = ((2 + more).min(WRITERS), (1 + more).min(WRITERS));
    let one = Doorbell { faults: 1 + bound(), fills: 1, ..Doorbell::new(Variant::AsBuilt, crowd, 1) };
    explore::holds("doorbell, one relay", one);
    let two = Doorbell { faults: 1 + bound(), fills: bound(), ..Doorbell::new(Variant::AsBuilt, pair, 2) };
    explore::holds("doorbell, two relays", two);
    let called = Doorbell { faults: bound(), fills: 1, ..Doorbell::new(Variant::AsBuilt, 2, 2) };
    explore::holds("doorbell, two relays and a room that fills", called);
}

/// With a writer, and so many relays.
fn must_sleep_through(name: &str, variant: Variant, relays: usize) {
    explore::fails("doorbell", name, Doorbell::new(variant, 1, relays), SLEEPS);
}

#[test]
fn with_the_door_taken_the_log_must_be_looked_at_once_more() {
    must_sleep_through("no look after taking the door", Variant::NoSecondLook, 1);
}

#[test]
fn a_writer_must_keep_the_door_until_it_can_be_seen() {
    must_sleep_through("door let go before the commit is visible", Variant::LetGoBeforeVisible, 1);
}

#[test]
fn somebody_must_take_the_bell_over() {
    must_sleep_through("nobody takes the bell over", Variant::NobodyTakesTheBell, 2);
}

#[test]
fn what_is_heard_during_a_look_must_lead_to_another() {
    must_sleep_through("ring during a look forgotten", Variant::ForgetsWhatWasHeard, 1);
}

#[test]
fn who_takes_the_door_must_listen_by_then() {
    must_sleep_through("LISTEN after the door", Variant::ListensLast, 1);
}

/// A hold that is over before the relay has asked how things stand, and that refused a look.
#[test]
fn a_release_must_be_told() {
    must_sleep_through("release told to nobody", Variant::ReleasedInSilence, 1);
}

/// Not a mistake but a limit: what a full relay does not hear of, because it leaves the door open, waits for one of its
/// attempts to end or for the poll of another.
#[test]
fn beside_a_full_relay_the_others_must_poll() {
    let model = Doorbell { faults: 0, fills: 1, ..Doorbell::new(Variant::AttemptsDoNotEnd, 2, 2) };
    explore::fails("doorbell", "a full relay's attempts do not end", model, SLEEPS);
}
