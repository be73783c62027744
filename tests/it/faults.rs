//! The short form of `make faults`: a few seeds, so that each kind of run is there.

#[path = "../faults/run/mod.rs"]
mod run;

use crate::support::PATIENCE;
use run::ledger::Request;
use run::plan::{Kind, Plan};
use run::{Happened, Outcome, Server, play, verdict};
use std::time::{Duration, Instant};

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
    assert!(outcome.happened.iter().all(|fault| fault.had_effect && fault.recovered.is_some()));
}

/// What is wrong with a run in which nothing happens but this.
async fn sabotaged(sabotage: (&'static str, &'static str), patience: Duration) -> (verdict::Verdict, String) {
    let plan = Plan { sabotage, patience, ..Plan::new(8, 1, &[Kind::SnapshotHeld]) };
    let verdict = play(Server::start().await, plan).await.verdict;
    let problems = verdict.problems.join("\n");
    println!("{problems}");
    (verdict, problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_promise_is_found_out() {
    let sent_again =
        "select outbox.replay(subscription_id, event_seq) from outbox.delivery where state = 'succeeded' limit 3";
    let (verdict, problems) = sabotaged(("", sent_again), PATIENCE).await;
    assert_eq!((verdict.lost, verdict.duplicates, verdict.unexplained), (0, 3, 3), "{problems}");
    assert!(problems.contains("and nobody was fenced"), "{problems}");
    let sabotage = (
        "create function public.lose() returns trigger language plpgsql as 'begin return null; end';
         create trigger lose before insert on outbox_relay.finished for each row when (new.event_seq % 7 = 0) execute function public.lose();
         create trigger lose before insert on outbox.attempt for each row when (new.event_seq % 11 = 0) execute function public.lose()",
        "delete from outbox.event where event_seq % 13 = 0",
    );
    let (verdict, problems) = sabotaged(sabotage, PATIENCE).await;
    assert_eq!(verdict.lost, 0, "all of it was sent: {problems}");
    for wrong in [
        "outbox.unaccounted() has",
        "deliveries are not in the database",
        "is recorded as delivered 0 times",
        "has 0 attempts in the log for 1 requests",
        "was committed and is not in the log",
        "which was not to have it",
    ] {
        assert!(problems.contains(wrong), "not noticed: {wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_sent_is_found_out() {
    let sabotage = ("update outbox.subscription set rate_limit = 0.001 where url like '%/all'", "");
    // What is stuck stays so.
    let (verdict, problems) = sabotaged(sabotage, Duration::from_secs(4)).await;
    assert!(
        verdict.lost > 0 && problems.contains("are stuck") && problems.contains("was never accepted"),
        "{problems}"
    );
}

/// The seed is all that is needed to play a run again.
#[test]
fn a_seed_brings_the_same_faults_again() {
    let plan = |seed| format!("{:?}", Plan::new(seed, 9, &[]));
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(15));
}

#[test]
fn a_fault_explains_what_it_can_have_done_and_nothing_else() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let request = |relay, sent| Request {
        path: "/all".to_owned(),
        event_id: String::new(),
        relay,
        at: at(sent),
        accepted: Some(at(sent)),
    };
    let fault = |kind, relay, began, over| {
        let (began, over) = (at(began), at(over));
        Happened { kind, relay, began, over, had_effect: true, recovered: None }
    };
    let explains = |fault, again| verdict::explaining(&request(1, 20), &request(2, again), &[fault]).next().is_some();
    assert!(explains(fault(Kind::RelayKilled, Some(1), 21, 22), 25));
    assert!(explains(fault(Kind::ServerKilled, None, 21, 22), 25));
    assert!(!explains(fault(Kind::RelayKilled, Some(0), 21, 22), 25), "another relay's");
    assert!(!explains(fault(Kind::RelayTerminated, Some(1), 21, 22), 25), "one that drains");
    assert!(!explains(fault(Kind::RelayKilled, Some(1), 10, 17), 25), "long over when it was sent");
    assert!(!explains(fault(Kind::RelayKilled, Some(1), 26, 27), 30), "recorded by then");
    assert!(!explains(fault(Kind::RelayKilled, Some(1), 24, 25), 23), "sent again before it");
    assert!(!explains(fault(Kind::RelayKilled, Some(1), 21, 22), 60), "long after it");
}
