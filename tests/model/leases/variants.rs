//! What is built must hold; without one of the things it stands on it must fail.

use super::{Leases, Variant};
use crate::explore::{self, bound};

#[test]
fn every_delivery_is_sent_until_it_ends_and_once_unless_something_explains_more() {
    let more = bound();
    let single = Leases { failures: more, waits: more, ..Leases::new(Variant::AsBuilt, 1) };
    explore::holds("leases, a failure and a loss", Leases { losses: 1 + more, failures: 1, ..single.clone() });
    explore::holds("leases, a wait and a loss", Leases { losses: 1 + more, waits: 1, ..single.clone() });
    explore::holds("leases, a crash", Leases { crashes: 1, ..single });
}

#[test]
fn deliveries_that_share_an_epoch_do_not_hold_each_other_up() {
    let relays = 1 + bound().min(1);
    let two = Leases { relays, ..Leases::new(Variant::AsBuilt, 2) };
    explore::holds("leases, two deliveries and a loss", Leases { losses: 1, ..two.clone() });
    explore::holds("leases, two deliveries and a crash", Leases { crashes: 1, ..two });
}

const COUNTS_LATE: &str = "a result counts although its lease was lost";
const ORPHANED: &str = "a delivery is leased to an epoch that has ended";
const REPEATED: &str = "a delivery is sent again, and nothing explains it";
const STUCK: &str = "a delivery is stuck";

/// With one connection, relay or answer lost.
fn losing(variant: Variant, deliveries: u8) -> Leases {
    Leases { losses: 1, ..Leases::new(variant, deliveries) }
}

#[test]
fn record_must_look_at_the_epoch() {
    explore::fails("leases", "record without the epoch", losing(Variant::RecordWithoutEpoch, 1), COUNTS_LATE);
}

#[test]
fn a_result_that_is_recorded_again_must_be_known_for_one() {
    let leases = Leases { failures: 1, ..losing(Variant::RecordedAgain, 1) };
    explore::fails("leases", "record repeated blindly", leases, "a result counts twice");
}

#[test]
fn the_end_of_an_epoch_must_hand_back() {
    explore::fails("leases", "fence without handing back", losing(Variant::FenceWithoutHandBack, 1), ORPHANED);
}

#[test]
fn a_lease_and_a_fence_must_exclude_each_other() {
    explore::fails("leases", "lease without fence", losing(Variant::LeaseWithoutFence, 1), ORPHANED);
}

#[test]
fn an_epoch_must_not_be_taken_up_again_after_it_was_fenced() {
    let invariant = "an epoch that has ended is alive";
    explore::fails("leases", "resumed after the fence", losing(Variant::ResumedAfterFence, 1), invariant);
}

#[test]
fn an_epoch_that_is_taken_up_again_must_lease_nothing_more() {
    let leases = Leases { relays: 1, crashes: 1, ..Leases::new(Variant::ResumedGoesOn, 2) };
    explore::fails("leases", "resumed epoch goes on", leases, STUCK);
}

#[test]
fn leases_whose_answer_was_lost_must_come_back() {
    explore::fails("leases", "doubt ignored", losing(Variant::DoubtIgnored, 1), STUCK);
}

#[test]
fn a_retired_epoch_must_live_until_its_results_are_recorded() {
    let leases = Leases { relays: 1, ..losing(Variant::RetiredAtOnce, 2) };
    explore::fails("leases", "retired at once", leases, REPEATED);
}

#[test]
fn a_lease_must_be_handed_back_once() {
    let leases = Leases { waits: 1, ..losing(Variant::HandedBackAgain, 1) };
    explore::fails("leases", "handed back again", leases, REPEATED);
}
