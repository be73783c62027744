//! The circuit of a subscription: it opens after failures in a row, probes at growing intervals, closes by itself.

use crate::support::{Claim, Daemon, Db, Expand, Relay, Session, Sink, sent};
use hyper::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

async fn stage() -> (Db, Session, Relay, i64) {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    let subscription = app.subscribe("*").await;
    (db, app, relay, subscription)
}

/// What a relay counted: successes, then failures.
async fn tell(session: &Session, subscription: i64, successes: i64, failures: i64) {
    session
        .run(&format!(
            "select outbox_relay.add_health('{{{subscription}}}', '{{{successes}}}', '{{{failures}}}', '{{{failures}}}',
                array[case when {successes} > 0 then now() end], array[case when {failures} > 0 then now() end])"
        ))
        .await;
}

async fn circuit(session: &Session) -> String {
    session.one("select circuit from outbox.subscription_health").await
}

/// As if the time of the next probe had come.
async fn wait_for_probe(session: &Session) {
    session.run("update outbox.subscription_health set circuit_until = now() - interval '1 millisecond'").await;
}

#[tokio::test]
async fn it_opens_probes_at_growing_intervals_and_closes() {
    let (_db, app, relay, subscription) = stage().await;
    app.run("select outbox.set('circuit_interval', '10 seconds'), outbox.set('circuit_max_interval', '35 seconds')")
        .await;
    tell(&app, subscription, 1, 9).await;
    assert_eq!(circuit(&app).await, "closed");
    tell(&app, subscription, 0, 1).await;
    assert_eq!(circuit(&app).await, "open");

    // Nothing is born leased and nothing is claimed, but it is all there.
    app.insert_many("a", 5).await;
    let expanded = relay.expand_all(&Expand::default()).await;
    assert!(expanded.leases.is_empty() && expanded.queued == 0, "a claim would find nothing");
    let held = relay.claim(&Claim::default()).await;
    assert!(held.leases.is_empty() && held.has_next_due && !held.more);
    let detail: String =
        app.one("select x.detail from outbox.event e, outbox.explain(e.event_id) x where event_seq = 1").await;
    assert!(detail.contains("circuit is open"), "{detail}");
    assert_eq!(app.one::<Option<String>>("select oldest_due::text from outbox.status()").await, None);

    for least_s in [10, 20, 35, 35] {
        // Failures of attempts that were under way when it opened change nothing.
        tell(&app, subscription, 0, 3).await;
        let waits: f64 = app
            .one("select extract(epoch from circuit_until - clock_timestamp())::float8 from outbox.subscription_health")
            .await;
        assert!(waits <= f64::from(least_s) * 1.1 && waits > f64::from(least_s) - 5.0, "{waits} of {least_s}");
        wait_for_probe(&app).await;
        assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1, "one probe");
        assert_eq!(circuit(&app).await, "half_open");
        assert!(relay.claim(&Claim::default()).await.leases.is_empty(), "one at a time");
        tell(&app, subscription, 0, 1).await;
        assert_eq!(circuit(&app).await, "open");
    }
    wait_for_probe(&app).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    tell(&app, subscription, 1, 0).await;
    assert_eq!(circuit(&app).await, "closed");
    app.insert_many("a", 5).await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases.len(), 5);
}

#[tokio::test]
async fn a_probe_whose_relay_died_is_made_again() {
    let (db, app, relay, subscription) = stage().await;
    tell(&app, subscription, 0, 10).await;
    app.insert_many("a", 2).await;
    relay.expand_all(&Expand::default()).await;
    wait_for_probe(&app).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    app.kill(&relay.session).await;
    let heir = Relay::named(&db, "relay-2", "test").await;
    assert_eq!(heir.tick().await.0, 1);
    assert!(heir.claim(&Claim::default()).await.leases.is_empty());
    wait_for_probe(&app).await;
    assert_eq!(heir.claim(&Claim::default()).await.leases.len(), 1);
}

#[tokio::test]
async fn a_probe_that_was_never_begun_is_made_again_at_once() {
    let (_db, app, relay, subscription) = stage().await;
    tell(&app, subscription, 0, 10).await;
    app.insert_many("a", 2).await;
    relay.expand_all(&Expand::default()).await;
    wait_for_probe(&app).await;
    for probe in [1, 2] {
        let leases = relay.claim(&Claim::default()).await.leases;
        assert_eq!(leases.len(), 1, "probe {probe}");
        assert_eq!(circuit(&app).await, "half_open");
        assert_eq!(relay.hand_back(&leases).await, 1);
        assert_eq!(circuit(&app).await, "open");
    }
    // A claim that has the circuit's row is not waited for.
    let leases = relay.claim(&Claim::default()).await.leases;
    app.run("begin; select from outbox.subscription_health for update").await;
    assert_eq!(relay.hand_back(&leases).await, 1);
    app.run("commit").await;
    assert_eq!(circuit(&app).await, "half_open");
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_noticed() {
    let (_db, app, relay, subscription) = stage().await;
    tell(&app, subscription, 0, 10).await;
    app.insert_many("a", 1).await;
    relay.expand_all(&Expand::default()).await;
    // What is to come is as far ahead as it can be.
    app.run("update outbox.subscription_health set circuit_until = now() + 1.1 * (select value::interval from outbox.setting where name = 'circuit_max_interval')").await;
    app.run("select outbox_relay.maintain()").await;
    assert!(relay.claim(&Claim::default()).await.leases.is_empty());
    app.run("update outbox.subscription_health set circuit_until = circuit_until + interval '1 hour'").await;
    app.run("select outbox_relay.maintain()").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1, "the probe");
}

#[tokio::test]
async fn two_claims_at_once_make_one_probe() {
    let (db, app, relay, subscription) = stage().await;
    tell(&app, subscription, 0, 10).await;
    app.insert_many("a", 5).await;
    relay.expand_all(&Expand::default()).await;
    wait_for_probe(&app).await;
    let other = Relay::named(&db, "relay-2", "test").await;
    relay.session.run("begin").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    assert!(other.claim(&Claim::default()).await.leases.is_empty());
    relay.session.run("commit").await;
    assert!(other.claim(&Claim::default()).await.leases.is_empty());
}

#[tokio::test]
async fn a_replay_or_a_resume_closes_it() {
    for by in ["replay", "resume", "pause and resume"] {
        let (_db, app, relay, subscription) = stage().await;
        app.insert_many("a", 1).await;
        relay.expand_all(&Expand::queue_only(10)).await;
        tell(&app, subscription, 0, 10).await;
        assert!(relay.claim(&Claim::default()).await.leases.is_empty());
        match by {
            "replay" => app.run(&format!("select outbox.replay({subscription}, 1)")).await,
            "resume" => app.run(&format!("select outbox.resume({subscription})")).await,
            _ => app.run(&format!("select outbox.pause({subscription}); select outbox.resume({subscription})")).await,
        }
        assert_eq!(circuit(&app).await, "closed", "{by}");
        assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1, "{by}");
        assert_eq!(app.one::<i64>("select consecutive_failures from outbox.subscription_health").await, 0);
    }
}

#[tokio::test]
async fn retries_keep_to_their_schedule_and_are_as_good_as_probes() {
    let (_db, app, relay, subscription) = stage().await;
    app.insert_many("a", 4).await;
    relay.expand_all(&Expand { max_in_flight: 2, ..Expand::default() }).await;
    relay.record(&[sent((subscription, 1), 500), sent((subscription, 2), 500)]).await;
    tell(&app, subscription, 0, 10).await;
    let none = relay.claim(&Claim::default()).await;
    assert!(none.leases.is_empty() && none.has_next_due);
    app.run("update outbox_relay.queue set next_attempt_at = now() where event_seq = 2").await;
    wait_for_probe(&app).await;
    // Though the time of a probe has come, what was never attempted waits: the retry will tell.
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 2)]);
    assert_eq!(circuit(&app).await, "open");
    // With no other retry due, one more delivery is the probe.
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 3)]);
    assert_eq!(circuit(&app).await, "half_open");
}

#[tokio::test]
async fn an_endpoint_that_stays_down_exhausts_its_schedules() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::new(|_, _| StatusCode::SERVICE_UNAVAILABLE).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    session.insert_many("a", 40).await;
    let _relay = Daemon::on(&db).await;
    session.wait_for_state(endpoint.id, "dead_letter", 40).await;
    assert_eq!(circuit(&session).await, "open");
}

#[tokio::test]
async fn a_test_is_sent_though_the_circuit_is_open() {
    let (_db, app, relay, subscription) = stage().await;
    tell(&app, subscription, 0, 10).await;
    app.run(&format!("select outbox.send_test({subscription})")).await;
    app.insert_many("a", 3).await;
    relay.expand_all(&Expand::default()).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 1)]);
    // It is no probe: it says nothing of health.
    assert_eq!(circuit(&app).await, "open");
}

#[tokio::test]
async fn with_a_threshold_of_zero_there_is_no_circuit() {
    let (_db, app, _relay, subscription) = stage().await;
    tell(&app, subscription, 0, 10).await;
    assert_eq!(circuit(&app).await, "open");
    app.without_circuits().await;
    tell(&app, subscription, 0, 1_000_000).await;
    assert_eq!(circuit(&app).await, "closed");
}

#[tokio::test]
async fn an_endpoint_that_comes_back_gets_everything_and_was_spared_meanwhile() {
    const EVENTS: usize = 400;
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    session.run("select outbox.set('circuit_interval', '100 milliseconds'), outbox.set('circuit_max_interval', '400 milliseconds')").await;
    let healthy = Arc::new(AtomicBool::new(false));
    let answers = healthy.clone();
    let sink = Sink::new(
        move |_, _| {
            if answers.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        },
    )
    .await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick', max_in_flight => 8").await;
    let mut relay = Daemon::on(&db).await;
    session.insert_many("a", EVENTS as i64).await;
    session.wait_until("select coalesce(bool_or(circuit <> 'closed'), false) from outbox.subscription_health").await;
    // Three probes, each a request; the rest waits and loses no attempt.
    session.wait_until("select circuit_trips >= 3 from outbox.subscription_health").await;
    let spared: i64 = session.one("select count(*) from outbox.delivery where attempts = 0").await;
    assert!(spared as usize > EVENTS / 2, "only {spared} of {EVENTS} were spared");
    healthy.store(true, Ordering::SeqCst);
    session
        .wait_until(&format!("select count(*) = {EVENTS} from outbox.delivery where subscription_id = {} and state in ('succeeded', 'dead_letter')", endpoint.id))
        .await;
    assert_eq!(circuit(&session).await, "closed");
    session.assert_accounted().await;
    relay.terminate();
    assert!(relay.ended().await.success());
}

#[tokio::test]
async fn what_has_grown_too_old_is_given_up_and_does_not_stand_before_the_probe() {
    let (_db, app, relay, subscription) = stage().await;
    app.run(
        "insert into outbox.retry_policy (name, delays, max_age) values ('fresh', '{1m}', '10 minutes');
         update outbox.subscription set retry_policy = 'fresh'",
    )
    .await;
    tell(&app, subscription, 0, 10).await;
    app.insert_many("a", 31).await;
    relay.expand_all(&Expand::default()).await;
    app.run(
        "update outbox_relay.queue set created_at = now() - interval '11 minutes', next_attempt_at = now() - interval '11 minutes'
         where event_seq <= 30",
    )
    .await;
    assert!(relay.claim(&Claim::default()).await.leases.is_empty(), "the circuit is open");
    wait_for_probe(&app).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 31)]);
    assert_eq!(circuit(&app).await, "half_open");
    let given_up = "select count(*) from outbox.delivery where state = 'dead_letter' and last_error like '%max_age%'";
    assert_eq!(app.one::<i64>(given_up).await, 30);
    tell(&app, subscription, 1, 0).await;
    assert_eq!(circuit(&app).await, "closed");
}
