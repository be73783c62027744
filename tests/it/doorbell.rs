//! How fast a relay hears of a commit, and that hearing is a hint: without it everything works, later.

use crate::support::{Daemon, Db, Outboxd, Session, Sink};
use std::time::{Duration, Instant};

/// Far from the poll interval of a minute, and generous to a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Whether some relay sleeps: it holds the door.
const SLEEPS: &str = "select exists (select from pg_locks where locktype = 'advisory' and classid = 1869968482 and objid = 1
    and mode = 'ExclusiveLock' and granted and database = (select oid from pg_database where datname = current_database()))";

/// The sessions that hold the bell.
const BELL: &str = "select pid from pg_locks where locktype = 'advisory' and classid = 1869968482 and objid = 2
    and granted and database = (select oid from pg_database where datname = current_database())";

async fn stage() -> (Db, Session, Sink) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session, Sink::accepting().await)
}

/// A relay that looks by itself once a minute only.
fn deaf_but_for_the_bell(db: &Db, name: &str) -> Outboxd {
    Daemon::relay(&db.url(), name).set("OUTBOXD_RELAY__POLL_INTERVAL", "60s")
}

#[tokio::test]
async fn without_listen_everything_is_found_by_polling() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_RELAY__LISTEN", "false")
        .set("OUTBOXD_RELAY__POLL_INTERVAL", "200ms")
        .spawn()
        .registered()
        .await;
    for round in 1..=5 {
        session.insert_many("order.created", 10).await;
        session.wait_for_state(endpoint.id, "succeeded", 10 * round).await;
    }
    session.run(&format!("select outbox.send_test({})", endpoint.id)).await;
    session.wait_for_state(endpoint.id, "succeeded", 51).await;
    assert!(!session.one::<bool>(SLEEPS).await, "who does not listen takes no door");
    assert!(session.all::<i32>(BELL).await.is_empty());
    session.assert_accounted().await;
}

#[tokio::test]
async fn a_commit_wakes_a_sleeping_relay() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let _relay = deaf_but_for_the_bell(&db, "relay-1").spawn().registered().await;
    let mut slowest = Duration::ZERO;
    for round in 1..=20 {
        session.wait_until(SLEEPS).await;
        let began = Instant::now();
        session.insert("order.created", "{}").await;
        sink.wait_for(round).await;
        slowest = slowest.max(began.elapsed());
    }
    println!("from insert to arrival, the slowest of 20: {} ms", slowest.as_millis());
    assert!(slowest < AT_ONCE, "{slowest:?}");
    session.wait_for_state(endpoint.id, "succeeded", 20).await;
}

#[tokio::test]
async fn a_retry_a_test_and_a_replay_wake_it_too() {
    let (db, session, _) = stage().await;
    let sink = Sink::new(|_, nth| if nth == 1 { hyper::StatusCode::BAD_GATEWAY } else { hyper::StatusCode::OK }).await;
    session.run("insert into outbox.retry_policy values ('soon', '{500ms,500ms,500ms}', 0)").await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'soon'").await;
    let _relay = deaf_but_for_the_bell(&db, "relay-1").spawn().registered().await;
    let event_seq = session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    session.wait_until(SLEEPS).await;
    let began = Instant::now();
    session.run(&format!("select outbox.replay({}, {event_seq})", endpoint.id)).await;
    sink.wait_for(3).await;
    session.run(&format!("select outbox.send_test({})", endpoint.id)).await;
    sink.wait_for(4).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_long_transaction_that_inserted_holds_up_nobody_but_itself() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let _relay = deaf_but_for_the_bell(&db, "relay-1").spawn().registered().await;
    let dawdler = db.session().await;
    dawdler.run("begin").await;
    let its_own = dawdler.insert("order.dawdled", "{}").await;
    for round in 1..=10 {
        let began = Instant::now();
        session.insert("order.created", "{}").await;
        sink.wait_for(round).await;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    session.wait_for_state(endpoint.id, "succeeded", 10).await;
    assert_eq!(session.state(endpoint.id, its_own).await, None);
    let began = Instant::now();
    dawdler.run("commit").await;
    sink.wait_for(11).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    session.wait_for_state(endpoint.id, "succeeded", 11).await;
    session.assert_accounted().await;
}

#[tokio::test]
async fn another_relay_takes_the_bell_when_its_holder_is_killed() {
    let (db, session, sink) = stage().await;
    session.endpoint(&sink.url("/in"), "").await;
    let mut first = deaf_but_for_the_bell(&db, "first").spawn().registered().await;
    session.wait_until(SLEEPS).await;
    let _second = deaf_but_for_the_bell(&db, "second").spawn().registered().await;
    session.wait_until("select relays = 2 from outbox.status()").await;
    let [holder] = session.all::<i32>(BELL).await.try_into().expect("one of the two has the bell");
    first.kill();
    let began = Instant::now();
    session.insert("order.created", "{}").await;
    sink.wait_for(1).await;
    println!("first event after the bell's holder was killed: {} ms", began.elapsed().as_millis());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    session.wait_until(&format!("select exists ({BELL} and pid <> {holder})")).await;
    // And from then on it is rung for.
    session.wait_until(SLEEPS).await;
    let began = Instant::now();
    session.insert("order.created", "{}").await;
    sink.wait_for(2).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}
