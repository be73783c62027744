//! What is due and more important goes first; what is to wait costs nothing while it waits.

use crate::support::{Claim, Daemon, Db, Expand, Relay, Session, Sink, sent};
use std::time::Duration;

async fn insert(session: &Session, priority: i16) -> i64 {
    session
        .one_of(
            "insert into outbox.event (type, payload, priority) values ('a', '{}', $1) returning event_seq",
            &[&priority],
        )
        .await
}

fn positions(leases: &[(i64, i64)]) -> Vec<i64> {
    leases.iter().map(|(_, event_seq)| *event_seq).collect()
}

#[tokio::test]
async fn the_higher_priority_is_leased_first() {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    let subscription = app.subscribe("*").await;
    let [low, plain, high] = [insert(&app, -5).await, insert(&app, 0).await, insert(&app, 7).await];
    // Room for one, at expand and at each claim.
    let expand = Expand { max_in_flight: 1, ..Expand::default() };
    assert_eq!(positions(&relay.expand_all(&expand).await.leases), [high]);
    for next in [plain, low] {
        let claim = Claim { max_in_flight: 1, ..Claim::default() };
        assert_eq!(positions(&relay.claim(&claim).await.leases), [next]);
        relay.record_one(sent((subscription, next), 200)).await;
    }
}

#[tokio::test]
async fn among_equals_the_longest_due_goes_first() {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    app.subscribe("*").await;
    for _ in 0..3 {
        insert(&app, 3).await;
    }
    relay.expand_all(&Expand::queue_only(10)).await;
    app.run("update outbox_relay.queue set next_attempt_at = now() - event_seq * interval '1 minute'").await;
    let all = relay.claim(&Claim { lease_limit: 1, ..Claim::default() }).await;
    assert_eq!(positions(&all.leases), [3]);
}

#[tokio::test]
async fn a_higher_priority_that_is_not_due_waits() {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    app.subscribe("*").await;
    app.run("select outbox.publish('a', '{}', priority => 9::smallint, deliver_at => now() + interval '1 hour')").await;
    let plain = insert(&app, 0).await;
    assert_eq!(positions(&relay.expand_all(&Expand::default()).await.leases), [plain]);
    assert!(relay.claim(&Claim::default()).await.leases.is_empty());
}

#[tokio::test]
async fn the_priority_outlives_a_replay() {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    let subscription = app.subscribe("*").await;
    let [plain, high] = [insert(&app, 0).await, insert(&app, 1).await];
    let leases = relay.expand_all(&Expand::default()).await.leases;
    relay.record(&leases.iter().map(|lease| sent(*lease, 200)).collect::<Vec<_>>()).await;
    app.run(&format!("select outbox.replay({subscription}, {plain}); select outbox.replay({subscription}, {high})"))
        .await;
    assert_eq!(positions(&relay.claim(&Claim { lease_limit: 1, ..Claim::default() }).await.leases), [high]);
}

#[tokio::test]
async fn an_urgent_event_overtakes_a_backlog_that_is_still_in_the_log() {
    const BACKLOG: i64 = 2000;
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    sink.dawdle(Duration::from_millis(20));
    session.endpoint(&sink.url("/in"), "").await;
    session.insert_many("order.created", BACKLOG).await;
    let urgent: String =
        session.one("select outbox.publish('order.cancelled', '{}', priority => 1::smallint)::text").await;
    // Two at a time: by their turn, the last would take ten seconds.
    let _relay = Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_RELAY__CONCURRENCY", "2").spawn().registered().await;
    session
        .wait_until(&format!(
            "select exists (select from outbox.attempt join outbox.event using (event_seq) where event_id = '{urgent}')"
        ))
        .await;
    let place = sink.arrived().iter().position(|arrived| arrived.event_id() == urgent).expect("it arrived");
    assert!(place < 200, "it was number {place}");
    assert!(sink.arrived().len() < usize::try_from(BACKLOG).expect("a count") / 2);
}

#[tokio::test]
async fn an_event_for_later_is_sent_when_its_time_has_come_though_nobody_polls() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let _relay =
        Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_RELAY__POLL_INTERVAL", "60s").spawn().registered().await;
    session.run("select outbox.publish('a', '{}', deliver_at => now() + interval '1200 milliseconds')").await;
    sink.wait_for(1).await;
    session.wait_until("select count(*) = 1 from outbox.attempt").await;
    // Between being queued and being due nobody looked for it: the relay slept until the stroke.
    let in_time: bool = session
        .one(
            "select started_at between deliver_at and deliver_at + interval '30 seconds'
             from outbox.attempt join outbox.event using (event_seq)",
        )
        .await;
    assert!(in_time);
}
