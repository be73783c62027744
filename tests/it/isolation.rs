//! One subscription's troubles are its own; what an operator stops is stopped, and goes on afterwards.

use crate::support::{Daemon, Db, Session, Sink};
use hyper::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

async fn stage() -> (Db, Session) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session)
}

#[tokio::test]
async fn a_hanging_endpoint_holds_no_more_than_its_share() {
    let (db, session) = stage().await;
    let (hanging, healthy) = (Sink::accepting().await, Sink::accepting().await);
    hanging.close_gate();
    let slow = session.endpoint(&hanging.url("/in"), "max_in_flight => 3, timeout => '60 seconds'").await;
    let by_default = session.endpoint(&hanging.url("/in"), "timeout => '60 seconds'").await;
    let good = session.endpoint(&healthy.url("/in"), "").await;
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_RELAY__MAX_IN_FLIGHT", "5")
        .set("OUTBOXD_RELAY__CONCURRENCY", "16")
        .spawn()
        .registered()
        .await;
    session.insert_many("order.created", 40).await;
    session.wait_for_state(good.id, "succeeded", 40).await;
    // Some come in a second round, as claims that find no room: those are not let in either.
    session.insert_many("order.created", 40).await;
    session.wait_for_state(good.id, "succeeded", 80).await;
    hanging.wait_for_waiting(8).await;
    session.wait_for_state(slow.id, "leased", 3).await;
    session.wait_for_state(by_default.id, "leased", 5).await;
    hanging.open_gate();
    for id in [slow.id, by_default.id] {
        session.wait_for_state(id, "succeeded", 80).await;
    }
    assert_eq!(hanging.most_waiting(), 8);
    assert!(hanging.times().values().all(|times| *times == 2), "once for each of the two subscriptions");
    session.assert_accounted().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_over_large_payloads_leaves_the_others_their_bytes() {
    let (db, session) = stage().await;
    let (hanging, healthy) = (Sink::accepting().await, Sink::accepting().await);
    hanging.close_gate();
    let slow = session.endpoint(&hanging.url("/in"), "timeout => '60 seconds'").await;
    let good = session.endpoint(&healthy.url("/in"), "").await;
    // Four of these payloads fill what the relay may hold.
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_RELAY__MAX_PAYLOAD_BYTES_HELD", "1048576")
        .spawn()
        .registered()
        .await;
    let insert = "insert into outbox.event (type, payload)
                  select 'order.created', jsonb_build_object('photo', repeat('x', 300000)) from generate_series(1, 8)";
    session.run(insert).await;
    hanging.wait_for_waiting(2).await;
    session.insert_many("order.created", 20).await;
    session.wait_for_state(good.id, "succeeded", 28).await;
    let large = hanging.arrived().iter().filter(|arrived| arrived.body.len() > 300_000).count();
    assert!(large <= 6, "{large}: more than a lane and what was leased ahead");
    hanging.open_gate();
    session.wait_for_state(slow.id, "succeeded", 28).await;
    session.assert_accounted().await;
}

#[tokio::test]
async fn no_transaction_is_open_while_a_request_is() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    sink.close_gate();
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let _relay = Daemon::on(&db).await;
    session.insert_many("order.created", 5).await;
    sink.wait_for_waiting(5).await;
    // Its calls once a second come and go; a transaction that is kept waits for its client.
    let kept = "select count(*) from pg_stat_activity
                where datname = current_database() and application_name like 'outboxd%' and state like 'idle in transaction%'";
    let sessions = "select count(*) from pg_stat_activity
                    where datname = current_database() and application_name like 'outboxd%'";
    for _ in 0..20 {
        assert_eq!(session.one::<i64>(kept).await, 0);
    }
    assert!(session.one::<i64>(sessions).await > 1, "they were looked for under their name");
    sink.open_gate();
    session.wait_for_state(endpoint.id, "succeeded", 5).await;
}

#[tokio::test]
async fn a_paused_subscription_gets_nothing_until_it_is_resumed() {
    let (db, session) = stage().await;
    let healthy = Arc::new(AtomicBool::new(false));
    let ask = healthy.clone();
    let sink = Sink::new(move |arrived, _| {
        if arrived.path == "/witness" || ask.load(Ordering::SeqCst) {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        }
    })
    .await;
    session
        .run("insert into outbox.retry_policy values ('often', array_fill(interval '100 milliseconds', array[100]), 0)")
        .await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'often'").await;
    let witness = session.endpoint(&sink.url("/witness"), "").await;
    let _relay = Daemon::on(&db).await;
    session.insert("order.created", "{}").await;
    session
        .wait_until(&format!(
            "select exists (select from outbox.delivery where attempts >= 3 and subscription_id = {})",
            endpoint.id
        ))
        .await;

    session.run(&format!("select outbox.pause({})", endpoint.id)).await;
    // An attempt that was under way ends; then what is outstanding becomes due, and waits.
    session
        .wait_until(&format!(
            "select state = 'failed' and next_attempt_at < now() - interval '200 milliseconds' from outbox.delivery where subscription_id = {}",
            endpoint.id
        ))
        .await;
    let before = sink.arrived_at("/in").len();
    session.insert("order.created", "{}").await;
    session.wait_for_state(witness.id, "succeeded", 2).await;
    session.run(&format!("select outbox.send_test({})", witness.id)).await; // makes the relay claim
    session.wait_for_state(witness.id, "succeeded", 3).await;
    assert_eq!(sink.arrived_at("/in").len(), before);

    healthy.store(true, Ordering::SeqCst);
    session.run(&format!("select outbox.resume({})", endpoint.id)).await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    assert_eq!(session.deliveries().await.len(), 4, "the event of the pause was not created for it");
    assert_eq!(session.one::<i64>(&format!("select outbox.replay_missing({})", endpoint.id)).await, 1);
    session.wait_for_state(endpoint.id, "succeeded", 2).await;
}

#[tokio::test]
async fn a_hold_stops_all_sending_until_it_is_released() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut relay = Daemon::on(&db).await;
    session.run("select outbox.hold('the database moves at noon')").await;
    session.insert_many("order.created", 5).await;
    session.run(&format!("select outbox.send_test({})", endpoint.id)).await;
    relay.wait_for_log("the database moves at noon").await;
    assert_eq!(session.one::<String>("select hold from outbox.status()").await, "the database moves at noon");
    assert!(sink.arrived().is_empty());
    session.run("select outbox.release()").await;
    session.wait_for_state(endpoint.id, "succeeded", 6).await;
    relay.wait_for_log("the hold is lifted").await;
}

#[tokio::test]
async fn what_is_under_way_when_a_subscription_ends_is_logged_and_changes_nothing() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    sink.close_gate();
    let endpoint = session.endpoint(&sink.url("/in"), "max_in_flight => 2").await;
    let mut relay = Daemon::on(&db).await;
    session.insert_many("order.created", 5).await;
    sink.wait_for_waiting(2).await;
    session.wait_until("select count(*) = 5 from outbox.delivery").await;
    assert_eq!(session.one::<i64>(&format!("select outbox.unsubscribe({})", endpoint.id)).await, 5);
    sink.open_gate();
    session.wait_until("select count(*) = 2 from outbox.attempt").await;
    relay.wait_for_log("lease_lost").await;
    session.insert("order.created", "{}").await;
    session.wait_until("select unexpanded_events = 0 from outbox.status()").await;
    let states: Vec<String> = session.all("select distinct state from outbox.delivery").await;
    assert_eq!(states, ["cancelled"]);
    assert_eq!(sink.arrived().len(), 2);
    session.assert_accounted().await;
}

#[tokio::test]
async fn a_relay_of_another_environment_sends_nothing_until_the_database_is_adopted() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    session.run("select outbox.adopt('production')").await;
    session.insert_many("order.created", 3).await;
    let mut relay =
        Daemon::relay(&db.url(), "clone").set("OUTBOXD_RELAY__ENVIRONMENT", "staging").spawn().registered().await;
    relay.wait_for_log("belongs to environment 'production'").await;
    session.run(&format!("select outbox.send_test({})", endpoint.id)).await;
    let hold: String = session.one("select hold from outbox.status()").await;
    assert!(hold.contains("outbox.adopt('staging')"), "{hold}");
    // Two ticks later it still has sent nothing.
    session.wait_until("select now() > started_at + interval '2 seconds' from outbox_relay.relay").await;
    assert!(sink.arrived().is_empty());
    session.run("select outbox.adopt('staging')").await;
    session.wait_for_state(endpoint.id, "succeeded", 4).await;
}

#[tokio::test]
async fn no_secret_payload_or_query_is_in_the_log() {
    const PAYLOAD: &str = "marker-in-the-payload";
    const QUERY: &str = "token-in-the-query";
    const HEADER: &str = "value-of-a-header";
    for verbosity in ["-v", "-vv"] {
        let (db, session) = stage().await;
        session.without_circuits().await;
        let sink = Sink::new(|arrived, nth| match (arrived.path.as_str().split('?').next(), nth) {
            (Some("/good"), 1) => StatusCode::INTERNAL_SERVER_ERROR,
            (Some("/good"), _) => StatusCode::OK,
            _ => StatusCode::FORBIDDEN,
        })
        .await;
        let silent = Sink::accepting().await;
        silent.close_gate();
        let arguments =
            format!("retry_policy => 'quick', timeout => '300 milliseconds', headers => '{{\"X-Key\": \"{HEADER}\"}}'");
        let mut secrets = vec![PAYLOAD.to_owned(), QUERY.to_owned(), HEADER.to_owned()];
        let mut endpoints = Vec::new();
        for (sink, path, signature) in [
            (&sink, "/good", "standard"),
            (&sink, "/bad", "x-signature"),
            (&silent, "/silent", "standard"),
            (&sink, "/broken", "standard"),
        ] {
            let url = format!("{}?q={QUERY}", sink.url(path));
            let endpoint = session.endpoint(&url, &format!("signature => '{signature}', {arguments}")).await;
            secrets.push(endpoint.secret.trim_start_matches("whsec_").to_owned());
            endpoints.push(endpoint);
        }
        session
            .run(&format!(
                "alter table outbox.subscription disable trigger subscription_check;
                 update outbox.subscription set version = nextval('outbox_relay.subscription_version_seq'), url = 'http://[?q={QUERY}' where subscription_id = {};
                 alter table outbox.subscription enable trigger subscription_check",
                endpoints[3].id
            ))
            .await;
        session.insert_many("order.created", 3).await;
        session.insert("order.created", &format!(r#"{{"card": "{PAYLOAD}"}}"#)).await;
        let outboxd = crate::support::Outboxd::on(&db.url(), &["run", verbosity, "--log-format", "json"]);
        let mut relay = outboxd.set("OUTBOXD_RELAY__NAME", "relay-1").spawn().registered().await;
        session.wait_for_state(endpoints[0].id, "succeeded", 4).await;
        session.wait_for_state(endpoints[1].id, "dead_letter", 4).await;
        session.wait_for_state(endpoints[3].id, "dead_letter", 4).await;
        session.run(&format!("select outbox.rotate_secret({})", endpoints[0].id)).await;
        session.run(&format!("select outbox.unsubscribe({})", endpoints[2].id)).await;
        relay.terminate();
        assert!(relay.ended().await.success());
        relay.wait_for_log("stopped").await;
        let log = relay.log();
        assert!(log.lines().filter(|line| line.contains("attempt failed")).count() > 20, "{log}");
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for secret in &secrets {
                assert!(!line.contains(secret.as_str()), "{verbosity}: {secret} is in {line}");
            }
        }
    }
}
