//! Several relays, and what becomes of the work when one of them, its connections or the server goes.

use crate::support::{Cable, Daemon, Db, PATIENCE, Session, Sink};
use hyper::StatusCode;
use outboxd::schema;
use outboxd::throwaway::{Options, Throwaway};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

/// The contract says two; a test machine may be busy.
const HAND_OVER: Duration = Duration::from_secs(5);

async fn stage() -> (Db, Session, Sink) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session, Sink::accepting().await)
}

/// The port and the name of the database.
fn port_and_name(db: &Db) -> (u16, String) {
    let url = db.url();
    let (server, name) = url.rsplit_once('/').expect("a name");
    (server.rsplit_once(':').expect("a port").1.parse().expect("a number"), name.to_owned())
}

#[tokio::test]
async fn three_relays_share_the_work_and_send_everything_once() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut relays = Vec::new();
    for name in ["a", "b", "c"] {
        relays.push(Daemon::relay(&db.url(), name).set("OUTBOXD_RELAY__CONCURRENCY", "4").spawn().registered().await);
    }
    sink.close_gate();
    session.insert_many("order.created", 300).await;
    // One has room for four: twelve can only wait if all three have taken some.
    sink.wait_for_waiting(12).await;
    sink.open_gate();
    session.wait_for_state(endpoint.id, "succeeded", 300).await;
    let times = sink.times();
    assert_eq!((times.len(), times.values().max()), (300, Some(&1)));
    assert_eq!(session.one::<i64>("select count(distinct relay) from outbox.attempt").await, 3);
    assert_eq!(session.one::<i64>("select relays from outbox.status()").await, 3);
    session.assert_accounted().await;
}

#[tokio::test]
async fn what_a_killed_relay_had_leased_is_sent_by_another() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut killed = Daemon::relay(&db.url(), "killed").spawn().registered().await;
    sink.close_gate();
    session.insert_many("order.created", 5).await;
    sink.wait_for_waiting(5).await;
    let _survivor = Daemon::relay(&db.url(), "survivor").spawn().registered().await;
    sink.open_gate_after(|| killed.kill());
    let began = Instant::now();
    sink.wait_for(10).await;
    let took = began.elapsed();
    println!("hand-over after SIGKILL: {} ms", took.as_millis());
    assert!(took < HAND_OVER, "{took:?}");
    session.wait_for_state(endpoint.id, "succeeded", 5).await;
    assert!(sink.times().values().all(|times| *times == 2));
    let relays: Vec<String> = session.all("select distinct relay from outbox.attempt").await;
    assert_eq!(relays, ["survivor"]);
    session.assert_accounted().await;
}

#[tokio::test]
async fn the_only_relay_finds_its_own_work_when_it_is_started_again() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let start = || Daemon::relay(&db.url(), "only").set("OUTBOXD_RELAY__POLL_INTERVAL", "60s").spawn().registered();
    let mut relay = start().await;
    sink.close_gate();
    session.insert_many("order.created", 5).await;
    sink.wait_for_waiting(5).await;
    sink.open_gate_after(|| relay.kill());
    session.insert_many("order.created", 5).await;
    let _relay = start().await;
    let began = Instant::now();
    session.wait_for_state(endpoint.id, "succeeded", 10).await;
    let took = began.elapsed();
    println!("picked up after a restart: {} ms", took.as_millis());
    assert!(took < HAND_OVER, "{took:?}");
}

#[tokio::test]
async fn a_stopped_relay_finishes_what_it_began_and_begins_nothing() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut relay = Daemon::on(&db).await;
    sink.close_gate();
    session.insert_many("order.created", 3).await;
    sink.wait_for_waiting(3).await;
    relay.terminate();
    relay.wait_for_log("stopping").await;
    session.insert_many("order.created", 3).await;
    sink.open_gate();
    assert_eq!(relay.ended().await.code(), Some(0));
    session.wait_for_state(endpoint.id, "succeeded", 3).await;
    assert_eq!(sink.arrived().len(), 3);
    // A look at the log that was under way may have found them; then they were handed back unsent.
    let standing: String = session
        .one("select format('%s %s %s', unexpanded_events + pending, leased, relays) from outbox.status()")
        .await;
    assert_eq!(standing, "3 0 0");
    assert_eq!(session.one::<i64>("select count(*) from outbox.attempt where outcome = 'delivered'").await, 3);
}

/// A relay whose places are all taken by attempts that do not end, and that has two more leases.
async fn relay_with_leases_that_wait(db: &Db, session: &Session, sink: &Sink) -> (Daemon, i64) {
    let endpoint = session.endpoint(&sink.url("/in"), "timeout => '60 seconds'").await;
    let relay = Daemon::relay(&db.url(), "full").set("OUTBOXD_RELAY__CONCURRENCY", "8").spawn().registered().await;
    sink.close_gate();
    session.insert_many("order.created", 10).await;
    session.wait_for_state(endpoint.id, "leased", 10).await;
    sink.wait_for_waiting(8).await;
    (relay, endpoint.id)
}

#[tokio::test]
async fn a_stopped_relay_hands_back_at_once_what_had_not_begun() {
    let (db, session, sink) = stage().await;
    let (mut relay, endpoint) = relay_with_leases_that_wait(&db, &session, &sink).await;
    relay.terminate();
    relay.wait_for_log("stopping").await;
    let begun = sink.waiting();
    session.wait_for_state(endpoint, "pending", 10 - i64::try_from(begun).expect("a count")).await;
    let _other = Daemon::relay(&db.url(), "other").spawn().registered().await;
    sink.wait_for_waiting(10).await;
    // On a machine that is busy for a second all ten may have begun.
    let relays = if begun < 10 { 2 } else { 1 };
    assert_eq!(session.one::<i64>("select count(distinct leased_by) from outbox.delivery").await, relays);
    sink.open_gate();
    session.wait_for_state(endpoint, "succeeded", 10).await;
    assert_eq!(relay.ended().await.code(), Some(0));
    assert_eq!(sink.arrived().len(), 10);
    session.assert_accounted().await;
}

#[tokio::test]
async fn a_stopped_relay_hands_back_what_does_not_end_before_the_deadline() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "timeout => '60 seconds'").await;
    let mut relay =
        Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_RELAY__DRAIN_DEADLINE", "1s").spawn().registered().await;
    sink.close_gate();
    session.insert_many("order.created", 3).await;
    sink.wait_for_waiting(3).await;
    let began = Instant::now();
    relay.terminate();
    assert_eq!(relay.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..HAND_OVER).contains(&took), "{took:?}");
    let due: i64 =
        session.one("select count(*) from outbox.delivery where state = 'pending' and next_attempt_at <= now()").await;
    assert_eq!(due, 3, "handed back, not waiting for anybody to notice");
    let _next = Daemon::relay(&db.url(), "relay-2").spawn().registered().await;
    sink.open_gate();
    session.wait_for_state(endpoint.id, "succeeded", 3).await;
}

/// The session of the only relay ends, and before it can come back another has its lock: dead, for all the database
/// knows. The lock is asked for first and granted in the moment the session is gone.
async fn usurp(db: &Db, session: &Session) -> Session {
    let usurper = db.session().await;
    let waits = usurper.start("select pg_advisory_lock(1869968483, 1)::text");
    session.wait_until_blocked(&usurper).await;
    session
        .run("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 1869968483 and objid = 1 and granted
              and database = (select oid from pg_database where datname = current_database())")
        .await;
    waits.await.expect("no panic").expect("the lock");
    usurper
}

#[tokio::test]
async fn the_late_result_of_a_fenced_relay_is_refused_and_logged() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "timeout => '60 seconds', max_in_flight => 1").await;
    let mut fenced = Daemon::relay(&db.url(), "fenced").spawn().registered().await;
    sink.close_gate();
    session.insert("order.created", "{}").await;
    sink.wait_for_waiting(1).await;
    let _usurper = usurp(&db, &session).await;
    assert_eq!(session.one::<i32>("select outbox_relay.fence(1)").await, 1);
    // It has lost one lease and keeps its slot busy; another relay sends again.
    let _other = Daemon::relay(&db.url(), "other").spawn().registered().await;
    sink.wait_for_waiting(2).await;
    fenced.wait_for_log("registered epoch=2").await;
    sink.open_gate();
    fenced.wait_for_log("lease_lost").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    session.wait_until("select count(*) = 2 from outbox.attempt").await;
    let attempts: Vec<String> = session.all("select relay from outbox.attempt order by relay").await;
    assert_eq!(attempts, ["fenced", "other"]);
    assert_eq!(session.one::<i32>("select attempts from outbox.delivery").await, 2);
    session.assert_accounted().await;
}

#[tokio::test]
async fn what_a_fenced_relay_had_not_begun_it_does_not_begin_when_it_is_back() {
    let (db, session, sink) = stage().await;
    let (mut fenced, endpoint) = relay_with_leases_that_wait(&db, &session, &sink).await;
    let _usurper = usurp(&db, &session).await;
    let begun = sink.waiting();
    assert_eq!(session.one::<i32>("select outbox_relay.fence(1)").await, 10);
    let _other = Daemon::relay(&db.url(), "other").spawn().registered().await;
    sink.wait_for_waiting(begun + 10).await;
    fenced.wait_for_log("registered epoch=2").await;
    sink.open_gate();
    session.wait_for_state(endpoint, "succeeded", 10).await;
    session.wait_until(&format!("select count(*) = {} from outbox.attempt", begun + 10)).await;
    assert_eq!(sink.arrived().len(), begun + 10);
    session.assert_accounted().await;
}

/// Ends the sessions of all relays.
const CUT_ALL: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'outboxd%' and pid <> pg_backend_pid()";

#[tokio::test]
async fn a_relay_whose_connections_are_cut_again_and_again_loses_nothing() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut relay = Daemon::on(&db).await;
    let named: i64 = session
        .one("select count(*) from pg_stat_activity where datname = current_database() and application_name like 'outboxd%'")
        .await;
    assert!(named > 0, "its sessions are known by their name");
    let mut total = 0;
    for round in 1..=25 {
        for _ in 0..8 {
            session.insert_many("order.created", 5).await;
            total += 5;
        }
        session.run(CUT_ALL).await;
        // It comes back and goes on before it is cut again.
        let sent = usize::try_from(total).expect("a count") - 40 + round;
        sink.wait_for(sent).await;
    }
    session.wait_for_state(endpoint.id, "succeeded", total).await;
    assert_eq!(sink.times().len(), usize::try_from(total).expect("a count"));
    session.assert_accounted().await;
    relay.terminate();
    assert_eq!(relay.ended().await.code(), Some(0));
}

/// The answer to one statement, `text` says which, is lost after it was committed.
async fn survives_a_cut_at(text: &'static str) {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "max_in_flight => 2").await;
    let (port, name) = port_and_name(&db);
    let cable = Cable::to(port).await;
    let mut relay = Daemon::relay(&cable.url(&name), "relay-1")
        .set("OUTBOXD_RELAY__POLL_INTERVAL", "60s")
        .spawn()
        .registered()
        .await;
    // More than there is room for: two are leased as they are expanded, and the rest wait to be claimed.
    sink.close_gate();
    session.insert_many("order.created", 7).await;
    session.wait_for_state(endpoint.id, "pending", 5).await;
    session
        .run(&format!(
            "update outbox.subscription set description = 'a new version' where subscription_id = {}",
            endpoint.id
        ))
        .await;
    if text.contains("expand") {
        sink.open_gate();
        session.wait_for_state(endpoint.id, "succeeded", 7).await;
        sink.close_gate();
    }
    cable.cut_at(text);
    session.insert_many("order.created", 3).await;
    sink.open_gate();
    session.wait_for_state(endpoint.id, "succeeded", 10).await;
    assert!(!cable.is_armed(), "no statement with {text} was made");
    let times = sink.times();
    assert_eq!((times.len(), times.values().max()), (10, Some(&1)), "what is known to be under way is not sent again");
    session.assert_accounted().await;
    assert_eq!(session.one::<i64>("select count(*) from outbox.attempt").await, 10, "the log has each request once");
    assert_eq!(session.one::<i64>("select leased from outbox.status()").await, 0);
    relay.terminate();
    assert!(relay.ended().await.success());
}

#[tokio::test]
async fn an_expand_whose_answer_is_lost_strands_no_delivery() {
    survives_a_cut_at("outbox_relay.expand(").await;
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_strands_no_delivery() {
    survives_a_cut_at("outbox_relay.claim(").await;
}

#[tokio::test]
async fn a_record_whose_answer_is_lost_is_made_again() {
    survives_a_cut_at("outbox_relay.record(").await;
}

#[tokio::test]
async fn subscriptions_whose_load_is_cut_are_loaded_again() {
    survives_a_cut_at("outbox_relay.load_subscriptions(").await;
}

#[tokio::test]
async fn a_crash_of_the_server_loses_nothing_that_was_committed() {
    // With default durability, as a user would run it.
    let started = tokio::task::spawn_blocking(|| Throwaway::start(Options::default()).expect("a server"));
    let mut server = started.await.expect("it started");
    let url = server.url("postgres");
    let connect = || async {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let mut client = connect().await.expect("a connection");
    schema::migrate(&mut client).await.expect("the schema");
    let sink =
        Arc::new(Sink::new(|_, nth| if nth == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }).await);
    client
        .batch_execute(&format!(
            "select outbox.set('allow_insecure_http', 'true'), outbox.set('circuit_failures', '0');
             insert into outbox.retry_policy (name, delays, jitter) values ('quick', array_fill(interval '50ms', array[20]), 0);
             select outbox.subscribe('{}', '{{*}}', retry_policy => 'quick')",
            sink.url("/in")
        ))
        .await
        .expect("a subscription");
    let mut relay = Daemon::relay(&url, "relay-1").spawn().registered().await;

    let committed = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let crashes = Arc::new(AtomicUsize::new(0));
    let writer = {
        let (url, committed, crashes) = (url.clone(), committed.clone(), crashes.clone());
        tokio::spawn(async move {
            while crashes.load(Ordering::SeqCst) < 3 {
                let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                tokio::spawn(connection);
                while let Ok(row) = client.query_one("select outbox.publish('order.created', '{}')::text", &[]).await {
                    committed.lock().expect("kept").push(row.get(0));
                    if crashes.load(Ordering::SeqCst) >= 3 {
                        break;
                    }
                }
            }
        })
    };
    for crash in 1..=3 {
        sink.wait_for(sink.arrived().len() + 200).await;
        server = tokio::task::spawn_blocking(move || {
            server.crash_and_restart().expect("it recovers");
            server
        })
        .await
        .expect("no panic");
        crashes.store(crash, Ordering::SeqCst);
    }
    writer.await.expect("the writer ends");
    let client = connect().await.expect("a connection");
    let began = Instant::now();
    let open = "select (select count(*) from outbox_relay.queue) + (select unexpanded_events from outbox.status())";
    while client.query_one(open, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
        assert!(began.elapsed() < PATIENCE, "not finished:\n{}", relay.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let committed = committed.lock().expect("kept").clone();
    let times = sink.times();
    let lost: Vec<_> = committed.iter().filter(|id| !times.contains_key(*id)).collect();
    println!("{} events committed through three crashes, {} requests", committed.len(), sink.arrived().len());
    assert!(lost.is_empty(), "lost: {lost:?}");
    let rows = client.query("select event_seq from outbox.unaccounted()", &[]).await.expect("an audit");
    assert!(rows.is_empty(), "{} events are unaccounted for", rows.len());
    relay.terminate();
    assert!(relay.ended().await.success());
}
