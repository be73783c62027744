//! What is counted, in the order a delivery meets it.

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use outboxd::attempt;
use outboxd::db::{Cause, Event, Finished, HealthDelta};
use outboxd::egress::{NetRule, Policy, check_url};
use outboxd::endpoint::Endpoint;
use outboxd::envelope::Envelope;
use outboxd::outcome::{self, Failure, Outcome};
use outboxd::record;
use outboxd::sign::{Key, Message, Profile, Scheme};
use outboxd::trace::TraceContext;
use std::collections::HashMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// One thing that is counted.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) run: Box<dyn Fn()>,
}

/// Name and bytes of the payloads of the benchmark.
const PAYLOADS: [(&str, usize); 3] = [("0.3 KiB", 300), ("1 KiB", 1024), ("16 KiB", 16 * 1024)];

const ENVELOPES: [&str; 5] = ["standard", "event", "resource", "cloudevents", "payload"];

const PROFILES: [&str; 6] = ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"];

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    envelopes(&mut cases);
    signatures(&mut cases);
    attempts(&mut cases);
    destinations(&mut cases);
    answers(&mut cases);
    results(&mut cases);
    cases
}

/// Adds a case. What it returns is dropped within what is counted.
fn add<T>(cases: &mut Vec<Case>, name: impl Into<String>, run: impl Fn() -> T + 'static) {
    cases.push(Case { name: name.into(), run: Box::new(move || drop(black_box(run()))) });
}

fn event(payload_bytes: usize) -> Event {
    let pad = "x".repeat(payload_bytes - r#"{"order_id": 4711, "pad": ""}"#.len());
    Event {
        seq: 4711,
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        tenant_id: "acme".into(),
        kind: "order.created".into(),
        payload: format!(r#"{{"order_id": 4711, "pad": "{pad}"}}"#),
        occurred_at: at(1_700_000_000_123_456),
        traceparent: None,
    }
}

fn at(us: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(us)
}

fn envelopes(cases: &mut Vec<Case>) {
    for name in ENVELOPES {
        let envelope = Envelope::from_name(name).expect("an envelope");
        for (size, bytes) in PAYLOADS {
            let event = event(bytes);
            add(cases, format!("envelope {name}, {size}"), move || black_box(envelope).body(black_box(&event)));
        }
    }
}

fn keys(profile: Profile, count: usize) -> Vec<Key> {
    let secrets = match profile {
        Profile::StandardEd25519 => {
            ["whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAAAAA=", "whsk_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAAAAA="]
        }
        _ => ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    };
    let key = |(n, secret): (usize, &&str)| {
        Key::new(profile, format!("{n:016x}"), secret, None).expect("a secret that fits the profile")
    };
    secrets.iter().take(count).enumerate().map(key).collect()
}

fn signatures(cases: &mut Vec<Case>) {
    let mut sign = |name: &str, key_count: usize, size: &str, bytes: usize| {
        let profile = Profile::from_name(name).expect("a profile");
        let (scheme, keys) = (Scheme::new(profile, None).expect("a scheme"), keys(profile, key_count));
        let body = event(bytes).payload;
        let plural = if key_count == 1 { "" } else { "s" };
        add(cases, format!("sign {name}, {key_count} key{plural}, {size}"), move || {
            let mut headers = HeaderMap::new();
            let keys = scheme.in_turn(keys.iter().collect(), black_box(0));
            let message = Message {
                event_id: "01900000-0000-7000-8000-000000000001",
                kind: "order.created",
                timestamp: 1_700_000_000,
                body: black_box(body.as_bytes()),
            };
            scheme.sign(&keys, &message, &mut headers);
            headers
        });
    };
    for name in PROFILES {
        sign(name, 1, "1 KiB", 1024);
        sign(name, 2, "1 KiB", 1024);
    }
    sign("standard", 1, "0.3 KiB", 300);
    sign("standard", 1, "16 KiB", 16 * 1024);
}

fn endpoint(profile: &str, envelope: &str, key_count: usize) -> Endpoint {
    let profile = Profile::from_name(profile).expect("a profile");
    let envelope = Envelope::from_name(envelope).expect("an envelope");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(envelope.content_type()));
    headers.insert(USER_AGENT, HeaderValue::from_static("outboxd/0.0.0"));
    headers.insert(HeaderName::from_static("x-team"), HeaderValue::from_static("orders"));
    Endpoint {
        tenant_id: "acme".into(),
        uri: "https://hooks.example.com/in?team=orders".parse().expect("a URI"),
        headers,
        scheme: Scheme::new(profile, None).expect("a scheme"),
        envelope,
        timeout: Duration::from_secs(15),
        tls: None,
        keys: keys(profile, key_count),
    }
}

/// Body, headers, signature, and the headers as they are logged.
fn attempts(cases: &mut Vec<Case>) {
    let mut prepare = |name: String, endpoint: Endpoint, event: Event| {
        let now = at(1_700_000_001_000_000);
        add(cases, format!("attempt {name}"), move || {
            attempt::prepare(&endpoint, black_box(&event), None, black_box(0), 1024, black_box(now)).expect("a request")
        });
    };
    for (size, bytes) in PAYLOADS {
        prepare(format!("standard, {size}"), endpoint("standard", "standard", 1), event(bytes));
    }
    prepare("standard, two keys, 1 KiB".into(), endpoint("standard", "standard", 2), event(1024));
    prepare("github, 1 KiB".into(), endpoint("github", "payload", 1), event(1024));
    let traced =
        Event { traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()), ..event(1024) };
    prepare("standard, traced, 1 KiB".into(), endpoint("standard", "standard", 1), traced);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    add(cases, "traceparent", move || TraceContext::parse(black_box(traceparent)));
}

fn destinations(cases: &mut Vec<Case>) {
    for (what, url) in [
        ("a name", "https://hooks.example.com/services/in?team=orders"),
        ("a name in letters of its own", "https://höøks.example.com/in"),
        ("an IPv4 address", "https://192.0.2.10:8443/in"),
        ("an IPv6 address", "https://[2606:4700::1111]/in"),
        ("refused", "https://user@hooks.example.com/in"),
    ] {
        add(cases, format!("url, {what}"), move || check_url(black_box(url), false));
    }
    let rule = |n: usize| format!("10.{n}.0.0/16:8443").parse().expect("a rule");
    let rules: Vec<NetRule> = (0..16).map(rule).collect();
    for (policy, allow) in [("by default", &[][..]), ("with sixteen exceptions", &rules[..])] {
        let policy_name = policy;
        for (what, address) in [
            ("public IPv4", "1.1.1.1:443"),
            ("public IPv6", "[2606:4700::1111]:443"),
            ("private IPv4", "10.200.0.1:443"),
            ("IPv4 in IPv6", "[::ffff:1.1.1.1]:443"),
        ] {
            let policy = Policy::new(allow, &[], &[8443]).expect("a policy");
            let address: SocketAddr = address.parse().expect("an address");
            add(cases, format!("egress {policy_name}, {what}"), move || policy.judge(black_box(address)));
        }
    }
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let header =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    lines.iter().map(header).collect()
}

fn answers(cases: &mut Vec<Case>) {
    let short = headers(&[("content-length", "0"), ("date", "Tue, 14 Nov 2023 22:13:20 GMT")]);
    let long = headers(&[
        ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "17"),
        ("connection", "keep-alive"),
        ("server", "cloudflare"),
        ("cf-cache-status", "DYNAMIC"),
        ("cf-ray", "8260e2f1a9c35b2f-FRA"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-request-id", "5e1d9c52-2c35-4b3c-b0a6-1d7f8f2f1a11"),
        ("set-cookie", "session=4711; path=/; secure"),
        ("vary", "Accept-Encoding"),
    ]);
    add(cases, "headers as JSON, two", move || outcome::headers_json(black_box(&short)));
    add(cases, "headers as JSON, eleven", move || outcome::headers_json(black_box(&long)));
    let now = at(1_700_000_000_000_000);
    for (what, value) in [("seconds", "120"), ("a date", "Tue, 14 Nov 2023 22:15:20 GMT"), ("nonsense", "in a while")] {
        add(cases, format!("retry-after, {what}"), move || outcome::retry_after(black_box(value), black_box(now)));
    }
    let text = r#"{"status": "accepted", "id": "4711"} "#.repeat(30).into_bytes();
    let broken: Vec<u8> = (0..=255).cycle().take(1100).collect();
    // The body is the attempt's own: a copy of it is counted with what is made of it.
    add(cases, "excerpt, text", move || outcome::excerpt(black_box(&text).clone(), 1024));
    add(cases, "excerpt, no text", move || outcome::excerpt(black_box(&broken).clone(), 1024));
    add(cases, "outcome of a status", || {
        let status = black_box(StatusCode::SERVICE_UNAVAILABLE);
        (outcome::classify(status), outcome::rejection(status), outcome::may_ask_for_pause(status))
    });
    let failure = Failure::Connect("Connection refused (os error 111)".into());
    add(cases, "outcome of a failure", move || (black_box(&failure).outcome(), failure.message()));
}

/// A batch of 128 results of eight subscriptions, counted into their health.
fn results(cases: &mut Vec<Case>) {
    let finished = |n: i64| Finished {
        subscription_id: n % 8,
        event_seq: n,
        event_id: None,
        started_at: at(1_700_000_000_000_000),
        latency: Duration::from_millis(7),
        since_commit: None,
        outcome: Outcome::Delivered,
        is_unmade: false,
        status_code: Some(200),
        error: None,
        response_excerpt: None,
        response_headers: Some("{}".into()),
        request_headers: Some("{}".into()),
        key_ids: Some("0123456789abcdef".into()),
        retry_after_s: None,
        cause: Cause::Schedule,
    };
    let batch: Vec<Finished> = (0..128).map(finished).collect();
    add(cases, "health of 128 results", move || {
        let mut health: HashMap<i64, HealthDelta> = HashMap::new();
        batch.iter().for_each(|finished| _ = black_box(record::count(&mut health, finished)));
        health
    });
    let event = event(300);
    add(cases, "time of the insert", move || black_box(&event).inserted_at());
}
