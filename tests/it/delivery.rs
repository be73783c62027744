//! What a receiver gets, and what the attempt log keeps of it: the real relay against real sockets.

use crate::support::{Daemon, Db, Session, Sink};
use hyper::StatusCode;
use outboxd::receiver::{Arrived, Verdict, verify};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Of RFC 8032's first test vector.
const OTHER_PUBLIC_KEY: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn stage() -> (Db, Session) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session)
}

fn verdict(arrived: &Arrived, secrets: &[&str]) -> Verdict {
    verify(arrived, secrets, None, SystemTime::now())
}

#[tokio::test]
async fn a_delivery_verifies_in_every_profile_and_envelope() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let profiles = ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"];
    let envelopes = ["standard", "event", "resource", "cloudevents", "payload"];
    let mut endpoints = Vec::new();
    for (signature, envelope) in profiles.iter().flat_map(|s| envelopes.iter().map(move |e| (*s, *e))) {
        let path = format!("/{signature}/{envelope}");
        let arguments = format!(
            "signature => '{signature}', envelope => '{envelope}', headers => '{{\"X-Team\": \"blue, \\\"7\\\"\"}}'"
        );
        let endpoint = session.endpoint(&sink.url(&path), &arguments).await;
        let public: Option<String> = session
            .one_of("select public_key from outbox.signing_key where subscription_id = $1", &[&endpoint.id])
            .await;
        assert_eq!(public.is_some(), signature == "standard-ed25519");
        let verifies_with = public.unwrap_or_else(|| endpoint.secret.clone());
        endpoints.push((path, signature, envelope, endpoint, verifies_with));
    }
    let payload = r#"{"amount": 123456789012345678901234567890.10, "small": 1E-7, "text": "Grüße \"x\""}"#;
    let stored: String = session.one(&format!("select '{payload}'::jsonb::text")).await;
    let event_id: String = session
        .one(&format!(
            "select outbox.publish('order.created', '{payload}', occurred_at => '2026-01-02 03:04:05.678901+00',
                 metadata => '{{\"traceparent\": \"{TRACEPARENT}\"}}')::text"
        ))
        .await;
    let _relay = Daemon::on(&db).await;
    for (path, signature, envelope, endpoint, verifies_with) in &endpoints {
        session.wait_for_state(endpoint.id, "succeeded", 1).await;
        let [arrived] = sink.arrived_at(path).try_into().expect("one request");
        let other =
            if *signature == "standard-ed25519" { OTHER_PUBLIC_KEY } else { "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" };
        assert_eq!(verdict(&arrived, &[other, verifies_with.as_str()]), Verdict::Verified(1), "{path}");
        // Stripe's receivers know the event by its body alone.
        assert_eq!(arrived.event_id(), if *signature == "stripe" { "" } else { &event_id }, "{path}");
        let media_type = if *envelope == "cloudevents" { "application/cloudevents+json" } else { "application/json" };
        assert_eq!(arrived.header("content-type"), media_type);
        if *signature == "github" {
            assert_eq!(arrived.header("x-github-event"), "order.created");
        }
        assert_eq!(arrived.header("user-agent"), concat!("outboxd/", env!("CARGO_PKG_VERSION")));
        assert_eq!(arrived.header("traceparent"), TRACEPARENT); // as it came, unless outboxd takes part
        assert_eq!(arrived.header("x-team"), "blue, \"7\"");
        let time = "2026-01-02T03:04:05.678901Z";
        let expected = match *envelope {
            "standard" => format!(
                r#"{{"id":"{event_id}","type":"order.created","timestamp":"{time}","tenant_id":"default","data":{stored}}}"#
            ),
            "event" => format!(
                r#"{{"id":"{event_id}","type":"order.created","tenant":"default","occurred_at":"{time}","payload":{stored}}}"#
            ),
            "resource" => format!(
                r#"{{"id":"evt_{}","type":"order.created","created_at":"{time}","data":{{"object":{stored}}},"workspace_id":"default"}}"#,
                event_id.replace('-', "")
            ),
            "cloudevents" => format!(
                r#"{{"specversion":"1.0","id":"{event_id}","source":"/tenants/default","type":"order.created","time":"{time}","datacontenttype":"application/json","tenantid":"default","data":{stored}}}"#
            ),
            _ => stored.clone(),
        };
        assert_eq!(String::from_utf8_lossy(&arrived.body), expected);
        assert!(expected.contains("123456789012345678901234567890.10"), "{expected}");

        let logged = session
            .query_one(
                "select outcome, status_code, key_ids, cause, relay, request_headers::text, response_headers ->> 'content-type'
                 from outbox.attempt where subscription_id = $1",
                &[&endpoint.id],
            )
            .await
            .expect("one attempt");
        assert_eq!((logged.get(0), logged.get(1)), ("delivered", 200_i16));
        assert_eq!(logged.get::<_, Vec<String>>(2), [endpoint.key_id.as_str()]);
        assert_eq!((logged.get(3), logged.get(4), logged.get(6)), ("schedule", "relay-1", "text/plain"));
        let headers: String = logged.get(5);
        assert!(headers.contains("traceparent") && headers.contains("x-team"), "{headers}");
        let signatures = arrived
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().contains("-signature") && !name.as_str().ends_with("-id"));
        let signatures: Vec<&str> = signatures.map(|(_, value)| value.to_str().expect("ASCII")).collect();
        assert_eq!(signatures.len(), 1, "{path}");
        assert!(!headers.contains(signatures[0]), "{headers}");
    }
    session.assert_accounted().await;
}

#[tokio::test]
async fn every_attempt_sends_the_same_bytes_until_one_succeeds() {
    let (db, session) = stage().await;
    let sink =
        Sink::new(|_, nth| if nth < 4 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT }).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    session.insert("order.created", r#"{"n": 1.10, "z": [1, 2.50], "a": null}"#).await;
    let _relay = Daemon::on(&db).await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    let arrived = sink.arrived();
    assert_eq!(arrived.len(), 4);
    for attempt in &arrived {
        assert_eq!(attempt.body, arrived[0].body);
        assert_eq!(attempt.event_id(), arrived[0].event_id());
        assert_eq!(verdict(attempt, &[&endpoint.secret]), Verdict::Verified(0));
    }
    let log: Vec<String> = session
        .all("select concat_ws(' ', attempt, outcome, status_code, error) from outbox.attempt order by attempt")
        .await;
    assert_eq!(
        log,
        [
            "1 rejected 500 answered 500",
            "2 rejected 500 answered 500",
            "3 rejected 500 answered 500",
            "4 delivered 204"
        ]
    );
    let in_order: bool = session
        .one("select bool_and(a.started_at < b.started_at) from outbox.attempt a join outbox.attempt b on b.attempt = a.attempt + 1")
        .await;
    assert!(in_order);
    // Health is written once a second.
    session
        .wait_until(
            "select count(*) = 1 from outbox.subscription_health where failure_count = 3 and success_count = 1
             and consecutive_failures = 0 and last_success_at > last_failure_at",
        )
        .await;
}

#[tokio::test]
async fn an_exhausted_schedule_is_a_dead_letter_that_replay_failed_delivers() {
    let (db, session) = stage().await;
    let healthy = Arc::new(AtomicBool::new(false));
    let ask = healthy.clone();
    let sink =
        Sink::new(move |_, _| if ask.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::BAD_GATEWAY }).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    session.wait_for_state(endpoint.id, "dead_letter", 1).await;
    let (attempts, failures): (i64, String) = {
        let sql = "select count(*), (select format('%s %s %s', attempts, last_status_code, last_error) from outbox.delivery) from outbox.attempt";
        let row = session.query_one(sql, &[]).await.expect("counts");
        (row.get(0), row.get(1))
    };
    assert_eq!((attempts, failures.as_str()), (11, "11 502 answered 502"), "ten delays are eleven attempts");
    session.wait_until("select exists (select from outbox.subscription_health where consecutive_failures = 11 and success_count = 0)").await;

    healthy.store(true, Ordering::SeqCst);
    assert_eq!(session.one::<i64>(&format!("select outbox.replay_failed({})", endpoint.id)).await, 1);
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    let causes: Vec<String> = session.all("select cause from outbox.attempt order by attempt").await;
    assert_eq!((causes.len(), causes[10].as_str(), causes[11].as_str()), (12, "schedule", "replay"));
    let bodies: Vec<_> = sink.arrived().into_iter().map(|arrived| arrived.body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "a replay sends the same bytes");
}

#[tokio::test]
async fn gone_ends_the_delivery_and_disables_the_subscription() {
    let (db, session) = stage().await;
    let sink = Sink::new(|_, _| StatusCode::GONE).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    session.wait_for_state(endpoint.id, "dead_letter", 1).await;
    let disabled: String = session
        .one("select disabled_reason from outbox.subscription where not active and disabled_at is not null")
        .await;
    assert!(disabled.contains("410"), "{disabled}");
    assert_eq!(sink.arrived().len(), 1);
}

#[tokio::test]
async fn both_keys_sign_until_the_old_one_expires() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let mut old = Vec::new();
    for (path, signature) in [("/standard", "standard"), ("/x", "x-signature")] {
        old.push((path, session.endpoint(&sink.url(path), &format!("signature => '{signature}'")).await));
    }
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    let mut new = Vec::new();
    for (_, endpoint) in &old {
        session.wait_for_state(endpoint.id, "succeeded", 1).await;
        let sql = "select secret, key_id from outbox.rotate_secret($1, overlap => '5 seconds')";
        let row = session.query_one(sql, &[&endpoint.id]).await.expect("a new key");
        new.push((row.get::<_, String>(0), row.get::<_, String>(1)));
    }
    session.insert("order.created", "{}").await;
    for ((path, endpoint), (secret, key_id)) in old.iter().zip(&new) {
        session.wait_for_state(endpoint.id, "succeeded", 2).await;
        let during = &sink.arrived_at(path)[1];
        assert_eq!(verdict(during, &[&endpoint.secret]), Verdict::Verified(0), "{path}: the old key signs");
        assert_eq!(verdict(during, &[secret]), Verdict::Verified(0), "{path}: the new key signs");
        let keys: Vec<String> = session
            .one_of(
                "select key_ids from outbox.attempt where subscription_id = $1 order by started_at desc limit 1",
                &[&endpoint.id],
            )
            .await;
        assert_eq!(keys, [endpoint.key_id.as_str(), key_id.as_str()]);
    }
    // The relay holds both keys and drops the old one by itself, without being told.
    session.wait_until("select count(*) = 2 from outbox.signing_key where expires_at < now()").await;
    session.insert("order.created", "{}").await;
    for ((path, endpoint), (secret, key_id)) in old.iter().zip(&new) {
        session.wait_for_state(endpoint.id, "succeeded", 3).await;
        let after = &sink.arrived_at(path)[2];
        assert_eq!(verdict(after, &[secret]), Verdict::Verified(0), "{path}");
        assert_eq!(verdict(after, &[&endpoint.secret]), Verdict::Refused("no signature matches"), "{path}");
        let keys: Vec<String> = session
            .one_of(
                "select key_ids from outbox.attempt where subscription_id = $1 order by started_at desc limit 1",
                &[&endpoint.id],
            )
            .await;
        assert_eq!(keys, [key_id.as_str()]);
    }
}

#[tokio::test]
async fn a_test_reaches_a_paused_subscription_and_does_not_count() {
    let (db, session) = stage().await;
    let sink =
        Sink::new(|arrived, _| if arrived.path == "/bad" { StatusCode::NOT_FOUND } else { StatusCode::OK }).await;
    let good = session.endpoint(&sink.url("/good"), "retry_policy => 'quick'").await;
    let bad = session.endpoint(&sink.url("/bad"), "retry_policy => 'quick'").await;
    let witness = session.endpoint(&sink.url("/witness"), "").await;
    session.run(&format!("select outbox.pause({}), outbox.pause({})", good.id, bad.id)).await;
    let _relay = Daemon::on(&db).await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(witness.id, "succeeded", 1).await;
    let test_id: String = session.one(&format!("select outbox.send_test({})::text", good.id)).await;
    session.run(&format!("select outbox.send_test({}, type => 'ping', payload => '[7]')", bad.id)).await;
    session.wait_for_state(good.id, "succeeded", 1).await;
    session.wait_for_state(bad.id, "dead_letter", 1).await;
    let [arrived] = sink.arrived_at("/good").try_into().expect("the test and nothing else");
    assert_eq!((arrived.event_id(), verdict(&arrived, &[&good.secret])), (test_id.as_str(), Verdict::Verified(0)));
    let [arrived] = sink.arrived_at("/bad").try_into().expect("a test is sent once");
    let body = String::from_utf8_lossy(&arrived.body);
    assert!(body.contains(r#""type":"ping""#) && body.ends_with(r#""data":[7]}"#), "{body}");
    assert_eq!(sink.arrived_at("/witness").len(), 1, "a test is for one subscription");
    let causes: Vec<String> =
        session.all(&format!("select cause from outbox.attempt where subscription_id <> {}", witness.id)).await;
    assert_eq!(causes, ["test", "test"]);
    // The witness' health is written in the same second as theirs would be.
    session.insert("order.created", "{}").await;
    session
        .wait_until(&format!(
            "select exists (select from outbox.subscription_health where success_count = 2 and subscription_id = {})",
            witness.id
        ))
        .await;
    let counted: i64 = session
        .one(&format!(
            "select coalesce(sum(success_count + failure_count), 0)::int8 from outbox.subscription_health where subscription_id <> {}",
            witness.id
        ))
        .await;
    assert_eq!(counted, 0);
}

#[tokio::test]
async fn an_event_is_not_sent_before_its_time() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let _relay = Daemon::on(&db).await;
    session
        .run("select outbox.publish('order.created', '{}', deliver_at => now() + interval '1500 milliseconds')")
        .await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    let early: i64 = session
        .one("select count(*) from outbox.attempt join outbox.event using (event_seq) where deliver_at is not null")
        .await;
    assert_eq!(early, 0);
    session.wait_for_state(endpoint.id, "succeeded", 2).await;
    let waited: bool = session
        .one("select started_at >= deliver_at from outbox.attempt join outbox.event using (event_seq) where deliver_at is not null")
        .await;
    assert!(waited);
}
