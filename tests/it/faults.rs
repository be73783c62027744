//! The short form of `make faults`: a few seeds, so that each kind of run is there.

#[path = "../faults/run/mod.rs"]
mod run;

use run::plan::{Kind, Plan};
use run::{Outcome, Server, play, verdict};

async fn hold(seed: u64, faults: usize, only: &[Kind]) -> Outcome {
    let outcome = play(Server::start().await, Plan::new(seed, faults, only)).await;
    let verdict = &outcome.verdict;
    println!("{:?}\n{verdict:?}", outcome.happened);
    assert!(
        verdict.problems.is_empty(),
        "{:?}: {:#?}\n{}",
        outcome.plan,
        verdict.problems,
        outcome.logs.join("\n---\n")
    );
    assert_eq!((verdict.lost, verdict.unexplained), (0, 0));
    assert!(verdict.events > 0 && verdict.deliveries > 0 && verdict.rolled_back > 0, "{verdict:?}");
    assert_eq!(outcome.happened.len(), faults);
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_after_the_other_and_everything_arrives() {
    hold(2, 5, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_faults_at_once_and_everything_arrives() {
    hold(3, 8, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_dies_nothing_is_sent_twice() {
    for seed in [8, 9] {
        assert_eq!(hold(seed, 5, &[]).await.verdict.duplicates, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_and_server_killed_in_turn_and_everything_arrives() {
    let outcome = hold(4, 6, &[Kind::RelayKilled, Kind::ServerKilled, Kind::ServerRestarted]).await;
    assert_eq!(verdict::count(&outcome.happened, Kind::RelayTerminated), 0);
    assert!(outcome.happened.iter().all(|fault| fault.recovered.is_some()));
}

/// The seed is all that is needed to play a run again.
#[test]
fn a_seed_brings_the_same_faults_again() {
    let plan = |seed| format!("{:?}", Plan::new(seed, 9, &[]));
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(15));
}
