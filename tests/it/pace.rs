//! Rate limits, counted by all relays together, and the maximum age of a delivery.

use crate::support::{Claim, Daemon, Db, Expand, Relay, Session, Sink, sent};

async fn stage(arguments: &str) -> (Db, Session, i64) {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe_with("*", arguments).await;
    (db, app, subscription)
}

/// As if that much time had passed for the rate limit.
async fn pass(session: &Session, interval: &str) {
    session.run(&format!("update outbox_relay.pace set spent_until = spent_until - interval '{interval}'")).await;
}

#[tokio::test]
async fn three_relays_together_keep_to_the_rate() {
    const RATE: f64 = 40.0;
    let (db, app, _) = stage("rate_limit => 40").await;
    let mut relays = Vec::new();
    for name in ["a", "b", "c"] {
        relays.push(Relay::named(&db, name, "test").await);
    }
    app.insert_many("a", 2000).await;
    assert!(relays[0].expand_all(&Expand::default()).await.leases.is_empty(), "nothing is born leased");
    // The clock of the database goes on while this runs: what it says has passed is added to what is made up.
    let clock = "select extract(epoch from clock_timestamp())::float8";
    let began: f64 = app.one(clock).await;
    let (mut leased, mut passed) = (0, 0.0);
    for round in 0..300 {
        pass(&app, "50 milliseconds").await;
        passed += 0.05;
        leased += relays[round % 3].claim(&Claim::default()).await.leases.len();
        leased += relays[(round + 1) % 3].claim(&Claim::default()).await.leases.len();
    }
    let elapsed = passed + app.one::<f64>(clock).await - began;
    let rate = leased as f64 / elapsed;
    println!("{leased} in {elapsed:.1} s: {rate:.2} a second, asked for {RATE}");
    assert!((rate / RATE - 1.0).abs() < 0.1, "{rate} a second");
}

#[tokio::test]
async fn less_than_one_a_second_is_a_rate_too() {
    let (db, app, _) = stage("rate_limit => 0.01").await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 3).await;
    relay.expand_all(&Expand::default()).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    let next = relay.claim(&Claim::default()).await;
    assert!(next.leases.is_empty() && next.has_next_due);
    pass(&app, "99 seconds").await;
    assert!(relay.claim(&Claim::default()).await.leases.is_empty());
    pass(&app, "2 seconds").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    // A long silence saves up one, not many.
    pass(&app, "1 day").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_noticed() {
    let (db, app, _) = stage("rate_limit => 0.01").await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 2).await;
    relay.expand_all(&Expand::default()).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    // As if all of it had been an hour ago by the clock there was then.
    pass(&app, "-1 hour").await;
    app.run("select outbox_relay.maintain()").await;
    assert!(relay.claim(&Claim::default()).await.leases.is_empty(), "the rate counts from now");
    pass(&app, "101 seconds").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
}

#[tokio::test]
async fn what_is_handed_back_has_spent_nothing() {
    let (db, app, _) = stage("rate_limit => 0.01").await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 3).await;
    relay.expand_all(&Expand::default()).await;
    for _ in 0..3 {
        let leases = relay.claim(&Claim::default()).await.leases;
        assert_eq!(leases.len(), 1);
        assert!(relay.claim(&Claim::default()).await.leases.is_empty());
        assert_eq!(relay.hand_back(&leases).await, 1);
        assert_eq!(relay.hand_back(&leases).await, 0, "it is not leased any more");
    }
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    assert!(relay.claim(&Claim::default()).await.leases.is_empty());
}

#[tokio::test]
async fn a_rate_limit_of_one_holds_back_nobody_else() {
    let (db, app, limited) = stage("rate_limit => 1").await;
    let plain = app.subscribe_with("*", "name => 'plain'").await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 50).await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    assert_eq!(leases.iter().filter(|lease| lease.0 == plain).count(), 50);
    assert_eq!(relay.claim(&Claim::default()).await.leases.iter().filter(|lease| lease.0 == limited).count(), 1);
}

#[tokio::test]
async fn a_rate_that_is_overspent_stops_nobody_else() {
    let (db, app, limited) = stage("rate_limit => 0.01").await;
    let plain = app.subscribe_with("other", "name => 'plain'").await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 3).await;
    relay.expand_all(&Expand::default()).await;
    app.run(&format!("select outbox.send_test({limited})")).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 2, "the test is not counted");
    app.run("update outbox_relay.pace set spent_until = now() + interval '1 hour'").await;
    let other = app.insert("other", "{}").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(plain, other)]);
}

#[tokio::test]
async fn a_limit_that_is_lifted_or_changed_holds_from_the_next_claim_on() {
    let (db, app, subscription) = stage("rate_limit => 1").await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 50).await;
    relay.expand_all(&Expand::default()).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    app.run("update outbox.subscription set rate_limit = 100").await;
    assert!(relay.claim(&Claim::default()).await.leases.len() > 1);
    app.run("update outbox.subscription set rate_limit = null").await;
    let rest = relay.claim(&Claim::default()).await;
    assert!(rest.leases.len() > 10 && rest.leases.iter().all(|lease| lease.0 == subscription));
    app.insert_many("a", 5).await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases.len(), 5);
}

#[tokio::test]
async fn two_relays_deliver_at_the_rate_and_no_faster() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "rate_limit => 100").await;
    let _relays = [
        Daemon::relay(&db.url(), "a").spawn().registered().await,
        Daemon::relay(&db.url(), "b").spawn().registered().await,
    ];
    session.insert_many("a", 300).await;
    sink.wait_for(300).await;
    session.wait_until("select count(*) = 300 from outbox.attempt").await;
    // In no second may there be more than a tenth above the rate; what the burst is made of is documented.
    let most: i64 = session
        .one(
            "select max(n) from (select count(*) over (order by started_at range between current row and interval '1 second' following) as n
             from outbox.attempt) w",
        )
        .await;
    let took: f64 =
        session.one("select extract(epoch from max(started_at) - min(started_at))::float8 from outbox.attempt").await;
    println!("300 deliveries in {took:.2} s, at most {most} within a second");
    assert!(most <= 115, "{most} in a second");
}

#[tokio::test]
async fn a_delivery_that_waited_too_long_is_given_up_and_not_sent() {
    let (db, app, subscription) = stage("retry_policy => 'none'").await;
    app.run(
        "insert into outbox.retry_policy (name, delays, max_age) values ('fresh', '{1m, 1m, 1m}', '10 minutes');
             update outbox.subscription set retry_policy = 'fresh'",
    )
    .await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 2).await;
    app.run("select outbox.publish('a', '{}', deliver_at => now() + interval '1 hour')").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    // The first has waited for eleven minutes, say in a pause; the third was told to wait until a minute ago.
    app.run(
        "update outbox_relay.queue set created_at = now() - interval '11 minutes' where event_seq in (1, 3);
         update outbox.event set deliver_at = now() - interval '1 minute' where event_seq = 3;
         update outbox_relay.queue set next_attempt_at = now()",
    )
    .await;
    let mut leases = relay.claim(&Claim::default()).await.leases;
    leases.sort_unstable();
    assert_eq!(leases, [(subscription, 2), (subscription, 3)]);
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("dead_letter"));
    let error: String = app.one("select last_error from outbox.delivery where event_seq = 1").await;
    assert!(error.contains("max_age"), "{error}");
    // A retry that would come too late is not scheduled.
    app.run("update outbox_relay.queue set created_at = now() - interval '9 minutes 30 seconds' where event_seq = 2")
        .await;
    assert_eq!(
        relay.record_one(sent((subscription, 2), 500)).await.expect("told").state.as_deref(),
        Some("dead_letter")
    );
    assert_eq!(relay.record_one(sent((subscription, 3), 500)).await.expect("told").state.as_deref(), Some("failed"));
    // Somebody who replays it wants it, whatever its age.
    app.run(&format!("select outbox.replay({subscription}, 1)")).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 1)]);
}

#[tokio::test]
async fn a_claim_that_gives_something_up_waits_no_less_for_what_follows() {
    let (db, app, subscription) = stage("retry_policy => 'none'").await;
    app.run(
        "insert into outbox.retry_policy (name, delays, max_age) values ('fresh', '{1m}', '10 minutes');
             update outbox.subscription set retry_policy = 'fresh'",
    )
    .await;
    let relay = Relay::new(&db).await;
    app.insert_many("a", 2).await;
    relay.expand_all(&Expand::queue_only(10)).await;
    app.run("update outbox_relay.queue set created_at = now() - interval '11 minutes' where event_seq = 1").await;
    relay.session.run("begin; set local lock_timeout = '7s'").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 2)]);
    assert_eq!(relay.session.one::<String>("show lock_timeout").await, "7s");
    relay.session.run("commit").await;
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("dead_letter"));
}
