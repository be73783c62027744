//! The whole promise at once: writers commit, roll back and dawdle while relays are killed again and again.
//! Every committed event arrives at least once, no other ever does, and what arrives twice has a killed
//! relay to explain it.

use crate::support::{Daemon, Db, Outboxd, PATIENCE, Session, Sink};
use hyper::StatusCode;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const WRITERS: usize = 8;
const CONCURRENCY: usize = 16;

/// Ids of the events that were committed, and of those that were rolled back.
#[derive(Default)]
struct Written {
    committed: HashSet<String>,
    rolled_back: HashSet<String>,
    /// The server did not say what became of the commit. Stays empty: nobody ends the writers' sessions.
    unknown: usize,
}

impl Written {
    fn note(&mut self, is_known: bool, commits: bool, kept: Vec<String>, undone: Vec<String>) {
        match (is_known, commits) {
            (true, true) => self.committed.extend(kept),
            (true, false) => self.rolled_back.extend(kept),
            (false, _) => self.unknown += 1,
        }
        self.rolled_back.extend(undone);
    }
}

/// Writes transactions of one to four events, some with savepoints that are rolled back alone, until told to stop.
async fn write(session: Session, stop: Arc<AtomicBool>, written: Arc<Mutex<Written>>) {
    while !stop.load(Ordering::SeqCst) {
        let (mut kept, mut undone) = (Vec::new(), Vec::new());
        session.run("begin").await;
        for _ in 0..fastrand::usize(1..=4) {
            kept.push(publish(&session).await);
            if fastrand::u8(..4) == 0 {
                session.run("savepoint s").await;
                undone.push(publish(&session).await);
                session.run("rollback to savepoint s").await;
            }
        }
        // Most are quick; some dawdle up to a second with their events written and not committed.
        if fastrand::u8(..8) == 0 {
            sleep(Duration::from_millis(fastrand::u64(..1000))).await;
        }
        let commits = fastrand::u8(..4) != 0;
        let ended = session.batch_execute(if commits { "commit" } else { "rollback" }).await;
        written.lock().expect("no panic while noting").note(ended.is_ok(), commits, kept, undone);
        sleep(Duration::from_millis(fastrand::u64(..30))).await;
    }
}

async fn publish(session: &Session) -> String {
    let types = ["order.created", "order.paid", "invoice.sent"];
    session
        .one_of(
            "insert into outbox.event (type, payload) values ($1, '{\"n\": 1.10}') returning event_id::text",
            &[&types[fastrand::usize(..types.len())]],
        )
        .await
}

/// Runs everything for that long and checks the promise. Returns how often a relay was killed.
async fn survive(for_: Duration, configure: impl Fn(Outboxd) -> Outboxd) -> usize {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    // One request in ten fails at first, so that there is always something to retry.
    let sink =
        Sink::new(
            |_, nth| if nth == 1 && fastrand::u8(..10) == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK },
        )
        .await;
    // A killed relay is to have something under way.
    sink.dawdle(Duration::from_millis(60));
    let all = session.endpoint(&sink.url("/all"), "retry_policy => 'quick'").await;
    let orders = session.endpoint(&sink.url("/orders"), "retry_policy => 'quick'").await;
    session
        .run(&format!(
            "update outbox.subscription set event_types = '{{order.*}}' where subscription_id = {}",
            orders.id
        ))
        .await;

    let start = |name: &str| {
        configure(Daemon::relay(&db.url(), name).set("OUTBOXD_RELAY__CONCURRENCY", &CONCURRENCY.to_string()))
            .spawn()
            .registered()
    };
    let names = ["a", "b", "c"];
    let mut relays = Vec::new();
    for name in names {
        relays.push(start(name).await);
    }
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Written::default())));
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(tokio::spawn(write(db.session().await, stop.clone(), written.clone())));
    }
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < for_ {
        sleep(Duration::from_millis(fastrand::u64(200..700))).await;
        let victim = fastrand::usize(..relays.len());
        relays[victim].kill();
        kills += 1;
        sleep(Duration::from_millis(fastrand::u64(..300))).await;
        relays[victim] = start(names[victim]).await;
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let began = Instant::now();
    let open = "select (select count(*) from outbox_relay.queue) + (select unexpanded_events from outbox.status())";
    loop {
        let open: i64 = session.one(open).await;
        if open == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{open} are still open");
        sleep(Duration::from_millis(20)).await;
    }

    let written = std::mem::take(&mut *written.lock().expect("no panic while noting"));
    assert_eq!(written.unknown, 0);
    let times = sink.times();
    let lost: Vec<_> = written.committed.iter().filter(|id| !times.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} of {} committed events never arrived: {lost:?}", lost.len(), written.committed.len());
    let foreign: Vec<_> = times.keys().filter(|id| !written.committed.contains(*id)).collect();
    assert!(foreign.is_empty(), "arrived without having been committed: {foreign:?}");
    assert!(!written.rolled_back.is_empty());
    session.assert_accounted().await;

    // Each delivery ended well, each subscription has what it asked for, and nothing besides.
    let wrong: i64 = session.one("select count(*) from outbox.delivery where state <> 'succeeded'").await;
    assert_eq!(wrong, 0);
    for (id, pattern) in [(all.id, "%"), (orders.id, "order.%")] {
        let (has, wants): (i64, i64) = (
            session.one(&format!("select count(*) from outbox.delivery where subscription_id = {id}")).await,
            session.one(&format!("select count(*) from outbox.event where type like '{pattern}'")).await,
        );
        assert_eq!(has, wants, "{pattern}");
    }

    // A request without an attempt in the log was made by a relay that was killed before it could record
    // it; at most as many as it had under way, or waiting to be recorded.
    let attempts: i64 = session.one("select count(*) from outbox.attempt").await;
    let arrived = sink.arrived().len();
    let unrecorded = arrived - usize::try_from(attempts).expect("a count");
    assert!(unrecorded <= kills * 3 * CONCURRENCY, "{unrecorded} requests are in no attempt log, after {kills} kills");
    let twice: i64 = session
        .one(
            "select count(*) from (select from outbox.attempt where outcome = 'delivered'
             group by subscription_id, event_seq having count(*) > 1) t",
        )
        .await;
    assert_eq!(twice, 0, "recorded as delivered twice, though no relay was fenced while it lived");
    println!(
        "{} committed, {} rolled back, {kills} kills, {arrived} requests, {unrecorded} of them by relays that were killed",
        written.committed.len(),
        written.rolled_back.len()
    );
    kills
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_commit_and_dawdle_while_relays_are_killed_and_nothing_is_lost() {
    assert!(survive(Duration::from_secs(15), |outboxd| outboxd).await >= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_listen_nothing_is_lost_either() {
    let polling =
        |outboxd: Outboxd| outboxd.set("OUTBOXD_RELAY__LISTEN", "false").set("OUTBOXD_RELAY__POLL_INTERVAL", "100ms");
    assert!(survive(Duration::from_secs(6), polling).await >= 3);
}
