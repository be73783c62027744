//! What receivers and networks do that is not 200: each has its outcome, and none of it stops the others.

use crate::support::{Daemon, Db, Session, Sink, raw_answer, raw_sink};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

async fn stage() -> (Db, Session) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session)
}

/// Waits for the first attempt and returns its outcome and error.
async fn first_attempt(session: &Session, subscription_id: i64) -> (String, String) {
    session
        .wait_until(&format!("select count(*) > 0 from outbox.attempt where subscription_id = {subscription_id}"))
        .await;
    let sql = "select outcome, coalesce(error, '') from outbox.attempt where subscription_id = $1 and attempt = 1 order by event_seq limit 1";
    let row = session.query_one(sql, &[&subscription_id]).await.expect("an attempt");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn retry_after_moves_the_next_attempt_within_the_bounds_of_the_policy() {
    let (db, session) = stage().await;
    session.run("insert into outbox.retry_policy values ('bounded', '{10s,60s,600s}', 0)").await;
    let mut expected = Vec::new();
    for (status, wish, least_s, most_s) in [
        ("429 Too Many Requests", "30".to_owned(), 30.0, 30.0),
        ("503 Service Unavailable", "30".to_owned(), 30.0, 30.0),
        ("429 Too Many Requests", "1".to_owned(), 10.0, 10.0),
        ("503 Service Unavailable", "99999999999999".to_owned(), 600.0, 600.0),
        // An HTTP-date has whole seconds, and is read against the relay's clock.
        ("429 Too Many Requests", httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(300)), 200.0, 301.0),
        ("429 Too Many Requests", "Thu, 01 Jan 2015 00:00:00 GMT".to_owned(), 10.0, 10.0),
        ("429 Too Many Requests", "soon".to_owned(), 10.0, 10.0),
        // Only 429 and 503 are asked.
        ("500 Internal Server Error", "30".to_owned(), 10.0, 10.0),
    ] {
        let header = format!("retry-after: {wish}");
        let answer = raw_answer(status, &[header.as_bytes()], b"later");
        let address = raw_sink(move |_| std::future::ready(answer.clone())).await;
        let endpoint = session.endpoint(&format!("http://{address}/in"), "retry_policy => 'bounded'").await;
        expected.push((endpoint.id, status, wish, least_s, most_s));
    }
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    for (id, status, wish, least_s, most_s) in expected {
        session.wait_for_state(id, "failed", 1).await;
        let wait_s: f64 = session
            .one_of("select extract(epoch from next_attempt_at - updated_at)::float8 from outbox.delivery where subscription_id = $1", &[&id])
            .await;
        // updated_at is when the recording transaction began.
        assert!(wait_s >= least_s && wait_s < most_s + 2.0, "{status}, retry-after {wish}: {wait_s} s");
    }
}

#[tokio::test]
async fn a_redirect_is_a_rejection_and_is_not_followed() {
    let (db, session) = stage().await;
    let elsewhere = Sink::accepting().await;
    let mut ids = Vec::new();
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("location: {}", elsewhere.url("/stolen"));
        let answer = raw_answer(status, &[location.as_bytes()], b"");
        let address = raw_sink(move |_| std::future::ready(answer.clone())).await;
        ids.push(session.endpoint(&format!("http://{address}/in"), "retry_policy => 'none'").await.id);
    }
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    for id in ids {
        session.wait_for_state(id, "dead_letter", 1).await;
        let (outcome, error) = first_attempt(&session, id).await;
        assert_eq!(outcome, "rejected");
        assert!(error.contains("not followed"), "{error}");
    }
    assert!(elsewhere.arrived().is_empty());
}

#[tokio::test]
async fn silence_a_closed_port_and_a_broken_answer_have_their_outcomes() {
    let (db, session) = stage().await;
    let silent = Sink::accepting().await;
    silent.close_gate();
    let closed = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let garbage = raw_sink(|_| std::future::ready(b"220 mail.example.com ESMTP\r\n\r\n".to_vec())).await;
    let hangup = raw_sink(|_| std::future::ready(Vec::new())).await;
    // The host cannot be resolved: .invalid is reserved for that (RFC 6761).
    let endpoints = [
        (silent.url("/in"), "timeout", "timeout => '200 milliseconds'"),
        (format!("http://{closed}/in"), "connect_error", "timeout => '5 seconds'"),
        (format!("http://{garbage}/in"), "protocol_error", "timeout => '5 seconds'"),
        (format!("http://{hangup}/in"), "protocol_error", "timeout => '5 seconds'"),
        ("http://hooks.example.invalid/in".to_owned(), "dns_error", "timeout => '15 seconds'"),
    ];
    let mut expected = Vec::new();
    for (url, outcome, arguments) in endpoints {
        let id = session.endpoint(&url, &format!("retry_policy => 'none', {arguments}")).await.id;
        expected.push((id, url, outcome));
    }
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    for (id, url, expected) in expected {
        let (outcome, error) = first_attempt(&session, id).await;
        assert_eq!(outcome, expected, "{url}: {error}");
    }
    let latency_ms: i32 = session.one("select latency_ms from outbox.attempt where outcome = 'timeout'").await;
    assert!((200..5000).contains(&latency_ms), "{latency_ms} ms");
}

#[tokio::test]
async fn loopback_is_refused_unless_it_is_allowed() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let literal = session.endpoint(&sink.url("/in"), "retry_policy => 'none'").await;
    let https = session.endpoint("https://127.0.0.1/in", "retry_policy => 'none'").await;
    let metadata = session.endpoint("http://169.254.169.254/latest", "retry_policy => 'none'").await;
    session.insert("order.created", "{}").await;
    let _relay = Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_EGRESS__ALLOW", "[]").spawn().registered().await;
    for endpoint in [literal, https, metadata] {
        let (outcome, error) = first_attempt(&session, endpoint.id).await;
        assert_eq!(outcome, "egress_refused", "{error}");
    }
    assert!(sink.arrived().is_empty());
}

#[tokio::test]
async fn nothing_goes_over_plain_http_once_it_is_forbidden() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'none'").await;
    let _relay = Daemon::on(&db).await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    session.run("select outbox.set('allow_insecure_http', 'false')").await;
    // The relay is told at once and asks again each second: after a whole tick it knows.
    session
        .run("select outbox.publish('order.created', '{}', deliver_at => now() + interval '2500 milliseconds')")
        .await;
    session.wait_for_state(endpoint.id, "dead_letter", 1).await;
    assert_eq!(sink.arrived().len(), 1);
    let error: String = session.one("select error from outbox.attempt where outcome = 'relay_error'").await;
    assert!(error.contains("http"), "{error}");
}

#[tokio::test]
async fn plain_http_that_is_allowed_is_sent_from_the_first_moment() {
    // Before its first look at the settings a relay knows nothing, and must not judge by that.
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'none'").await;
    for round in 1..=5 {
        session.insert("order.created", "{}").await;
        let _relay = Daemon::on(&db).await;
        session
            .wait_until(&format!(
                "select count(*) = {round} from outbox.attempt where subscription_id = {}",
                endpoint.id
            ))
            .await;
    }
    let outcomes: Vec<String> = session.all("select outcome || coalesce(': ' || error, '') from outbox.attempt").await;
    assert_eq!(outcomes, ["delivered"; 5]);
}

#[tokio::test]
async fn a_broken_subscription_fails_alone() {
    let (db, session) = stage().await;
    session.without_circuits().await;
    let sink = Sink::accepting().await;
    let keyless = session.endpoint(&sink.url("/keyless"), "retry_policy => 'quick'").await;
    let unparsable = session.endpoint(&sink.url("/unparsable"), "retry_policy => 'quick'").await;
    let strange = session.endpoint(&sink.url("/strange"), "retry_policy => 'quick'").await;
    let good = session.endpoint(&sink.url("/good"), "").await;
    session
        .run(&format!(
            "delete from outbox_relay.signing_secret where subscription_id = {};
             alter table outbox.subscription disable trigger subscription_check;
             update outbox.subscription set version = nextval('outbox_relay.subscription_version_seq'), url = 'http://[bad' where subscription_id = {};
             update outbox.subscription set version = nextval('outbox_relay.subscription_version_seq'), headers = '{{\"bad name\": \"x\"}}' where subscription_id = {};
             alter table outbox.subscription enable trigger subscription_check",
            keyless.id, unparsable.id, strange.id
        ))
        .await;
    let _relay = Daemon::on(&db).await;
    session.insert_many("order.created", 20).await;
    session.wait_for_state(good.id, "succeeded", 20).await;
    for endpoint in [&keyless, &unparsable, &strange] {
        session.wait_for_state(endpoint.id, "dead_letter", 20).await;
        let (outcome, error) = first_attempt(&session, endpoint.id).await;
        assert_eq!(outcome, "relay_error");
        assert!(error.len() > 10 && !error.contains("bad name\": \"x"), "{error}");
    }
    let keyless: String =
        session.one_of("select error from outbox.attempt where subscription_id = $1 limit 1", &[&keyless.id]).await;
    assert!(keyless.contains("outbox.rotate_secret"), "{keyless}");
    assert_eq!(sink.arrived().len(), 20);
    session.assert_accounted().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept_as_far_as_they_can_be() {
    let (db, session) = stage().await;
    let mut ids = Vec::new();
    for (status, state) in [("200 OK", "succeeded"), ("500 Oops", "dead_letter")] {
        let headers: [&[u8]; 3] = [b"x-odd: caf\xe9 \xff\xfe \"quoted\\\"", b"x-tab: a\tb", b"set-cookie: sid=hunter2"];
        let answer = raw_answer(status, &headers, b"a\0b\xff\xfe\xf0\x9f c\xc3\xa9");
        let address = raw_sink(move |_| std::future::ready(answer.clone())).await;
        ids.push((session.endpoint(&format!("http://{address}/in"), "retry_policy => 'none'").await.id, state));
    }
    session.insert("order.created", "{}").await;
    let _relay = Daemon::on(&db).await;
    for (id, state) in ids {
        session.wait_for_state(id, state, 1).await;
        let sql = "select response_excerpt, response_headers ->> 'x-odd', response_headers::text from outbox.attempt where subscription_id = $1";
        let row = session.query_one(sql, &[&id]).await.expect("an attempt");
        assert_eq!(row.get::<_, String>(0), "ab\u{fffd}\u{fffd}\u{fffd} cé");
        assert_eq!(row.get::<_, String>(1), "caf\u{fffd} \u{fffd}\u{fffd} \"quoted\\\"");
        assert!(!row.get::<_, String>(2).contains("hunter2"));
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_counts() {
    let (db, session) = stage().await;
    let address = raw_sink(|_| std::future::ready(raw_answer("200 OK", &[], &vec![b'x'; 1_000_000]))).await;
    let endpoint = session.endpoint(&format!("http://{address}/in"), "").await;
    session.run("select outbox.set('response_excerpt_bytes', '100')").await;
    let _relay = Daemon::on(&db).await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    let kept: i32 = session.one("select length(response_excerpt) from outbox.attempt").await;
    assert!(kept == 100 || kept == 1024, "{kept}: the setting is read once a second");
}
