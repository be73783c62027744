//! Attempts against real listeners on the loopback interface.

mod proxy;
mod sink;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;

use self::sink::{BODY, Sink, Then};
use super::*;
use crate::outcome::Outcome;

/// Long enough for anything that is meant to happen.
const PATIENT: Duration = Duration::from_secs(20);
/// Short, for what is never going to happen.
const BRIEF: Duration = Duration::from_millis(80);

fn settings() -> Settings {
    Settings {
        pool_idle_timeout: Duration::from_secs(30),
        max_response_bytes: 64 * 1024,
        max_response_header_bytes: 16 * 1024,
        extra_roots_pem: None,
        http2: true,
        http2_keep_alive_interval: Duration::from_secs(30),
        name_servers: Vec::new(),
        proxy: None,
    }
}

fn sender_with(settings: Settings, allow: &[&str]) -> Sender {
    let allow: Vec<_> = allow.iter().map(|rule| rule.parse().expect("a rule")).collect();
    let policy = Policy::new(&allow, &[], &[]).expect("a policy");
    Sender::new(settings, Arc::new(policy)).expect("a sender")
}

/// A sender that may dial the loopback interface.
fn sender() -> Sender {
    sender_with(settings(), &["127.0.0.0/8", "::1"])
}

fn outgoing(uri: &str, timeout: Duration) -> Outgoing {
    Outgoing {
        uri: uri.parse().expect("a URI"),
        headers: HeaderMap::new(),
        body: Bytes::from_static(BODY),
        tls: None,
        timeout,
        excerpt_bytes: 100,
    }
}

async fn attempt(answer: &'static str, then: Then, timeout: Duration) -> Attempted {
    let sink = Sink::raw(answer, then).await;
    sender().send(outgoing(&sink.http(), timeout)).await
}

#[track_caller]
fn assert_failed(attempted: &Attempted, outcome: Outcome, words: &str) {
    let error = attempted.error.as_deref().unwrap_or_default();
    assert_eq!(attempted.outcome, outcome, "{error}");
    assert!(error.contains(words), "{error:?} does not say {words:?}");
}

#[tokio::test]
async fn a_2xx_is_delivered_and_the_connection_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let sink = Sink::raw(answer, Then::Keep).await;
        let sender = sender();
        for _ in 0..20 {
            let attempted = sender.send(outgoing(&sink.http(), PATIENT)).await;
            assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
            assert_eq!(attempted.error, None);
            assert_eq!(attempted.response_headers.as_ref().and_then(|headers| headers.get("x-a")).expect("x-a"), "b");
            assert!(attempted.latency < PATIENT && attempted.retry_after.is_none());
            let body = attempted.response_excerpt.as_deref();
            assert_eq!(body, (attempted.status_code != Some(204)).then_some("ok"));
        }
        assert_eq!(sink.accepted(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let target = Sink::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Keep).await;
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.http());
    let sink = Sink::raw(answer, Then::Keep).await;
    let attempted = sender().send(outgoing(&sink.http(), PATIENT)).await;
    assert_failed(&attempted, Outcome::Rejected, "answered 302");
    assert_eq!((attempted.status_code, target.accepted()), (Some(302), 0));
}

#[tokio::test]
async fn any_other_status_is_rejected_and_two_may_ask_for_a_pause() {
    for (status, pause_s) in [(500, None), (404, None), (410, None), (429, Some(120)), (503, Some(120))] {
        let answer = format!("HTTP/1.1 {status} X\r\nretry-after: 120\r\ncontent-length: 6\r\n\r\na\0b\u{fffd}");
        let sink = Sink::raw(answer, Then::Keep).await;
        let attempted = sender().send(outgoing(&sink.http(), PATIENT)).await;
        assert_failed(&attempted, Outcome::Rejected, &format!("answered {status}"));
        assert_eq!(attempted.status_code, Some(status));
        assert_eq!(attempted.retry_after, pause_s.map(Duration::from_secs));
        assert_eq!(attempted.response_excerpt.as_deref(), Some("ab\u{fffd}"));
    }
}

#[tokio::test]
async fn the_deadline_covers_headers_and_body() {
    let attempted = attempt("", Then::Hang, BRIEF).await;
    assert_failed(&attempted, Outcome::Timeout, "no answer within 80 ms");
    assert_eq!(attempted.status_code, None);

    let attempted = attempt("HTTP/1.1 200 OK\r\ncontent-le", Then::Hang, BRIEF).await;
    assert_failed(&attempted, Outcome::Timeout, "no answer within 80 ms");

    let attempted = attempt("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Then::Hang, BRIEF).await;
    assert_failed(&attempted, Outcome::Timeout, "body was not complete within 80 ms");
    assert_eq!((attempted.status_code, attempted.response_excerpt.as_deref()), (Some(200), Some("abc")));
    assert!(attempted.latency >= BRIEF);
}

#[tokio::test]
async fn the_deadline_covers_the_tls_handshake() {
    let sink = Sink::raw("", Then::Hang).await;
    let attempted = sender().send(outgoing(&sink.https("127.0.0.1"), BRIEF)).await;
    assert_failed(&attempted, Outcome::Timeout, "no answer within 80 ms");
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("addr");
    drop(listener);
    let attempted = sender().send(outgoing(&format!("http://{addr}/"), PATIENT)).await;
    assert_failed(&attempted, Outcome::ConnectError, &format!("cannot connect: {addr}: "));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_dns_error() {
    // A label of 64 octets cannot be put into a query, so nothing leaves this host.
    let host = format!("{}.invalid", "a".repeat(64));
    let attempted = sender().send(outgoing(&format!("http://{host}/?token=hunter2"), PATIENT)).await;
    assert_failed(&attempted, Outcome::DnsError, &format!("cannot resolve {host}: "));
    assert!(!attempted.error.expect("an error").contains("hunter2"));
}

#[tokio::test]
async fn what_is_no_whole_answer_is_a_protocol_error() {
    for (answer, words) in [
        ("", "closed before the answer was complete"),
        ("HTTP/1.1 200 O", "closed before the answer was complete"),
        ("HTTP/1.1 200 OK\r\nx: y\r\n", "closed before the answer was complete"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "broken answer"),
        ("\u{0}\u{1}\u{2}garbage\r\n\r\n", "broken answer"),
        ("HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "broken answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "broken answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "broken answer"),
    ] {
        let attempted = attempt(answer, Then::Close, PATIENT).await;
        assert_failed(&attempted, Outcome::ProtocolError, words);
    }
}

#[tokio::test]
async fn headers_are_bounded() {
    let answer = format!("HTTP/1.1 200 OK\r\nx-large: {}\r\n\r\n", "a".repeat(64 * 1024));
    let sink = Sink::raw(answer, Then::Hang).await;
    let attempted = sender().send(outgoing(&sink.http(), PATIENT)).await;
    assert_failed(&attempted, Outcome::ProtocolError, "too large");

    let many = "a: b\r\n".repeat(200);
    let sink = Sink::raw(format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Then::Hang).await;
    let attempted = sender().send(outgoing(&sink.http(), PATIENT)).await;
    assert_failed(&attempted, Outcome::ProtocolError, "too large");
}

#[tokio::test]
async fn an_endless_body_is_read_to_the_limit_and_dropped() {
    let sink = Sink::raw("HTTP/1.1 200 OK\r\n\r\n", Then::Repeat("0123456789")).await;
    let attempted = sender().send(outgoing(&sink.http(), PATIENT)).await;
    assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
    assert_eq!(attempted.response_excerpt.map(|excerpt| excerpt.len()), Some(100));
    // The sink can only end because the connection was closed under it.
    sink.closed_by_client().await;
}

#[tokio::test]
async fn framing_headers_of_a_subscription_are_not_sent() {
    let sink = Sink::echo().await;
    let mut outgoing = outgoing(&sink.http(), PATIENT);
    outgoing.excerpt_bytes = 10_000;
    for name in FRAMING_HEADERS {
        outgoing.headers.insert(name, "7".parse().expect("a value"));
    }
    outgoing.headers.insert("x-kept", "yes".parse().expect("a value"));
    let attempted = sender().send(outgoing).await;
    assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
    let echoed = attempted.response_excerpt.expect("the request comes back").to_ascii_lowercase();
    let (head, body) = echoed.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    let expected_host = format!("host: {}", sink.addr());
    assert_eq!(lines, ["post / http/1.1", "content-length: 17", expected_host.as_str(), "x-kept: yes"]);
    assert_eq!(body.as_bytes(), BODY);
}

#[tokio::test]
async fn loopback_is_refused_by_default_however_it_is_named() {
    let sink = Sink::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Keep).await;
    let port = sink.addr().port();
    let default = sender_with(settings(), &[]);
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let attempted = default.send(outgoing(&format!("http://{host}:{port}/"), PATIENT)).await;
        assert_failed(&attempted, Outcome::EgressRefused, "egress refused: ");
    }
    // Addresses in the spellings of inet_aton are no names, and are not read as addresses.
    for host in ["127.1", "2130706433", "localhost.1."] {
        let attempted = default.send(outgoing(&format!("http://{host}:{port}/"), PATIENT)).await;
        assert_failed(&attempted, Outcome::DnsError, "ends in a number");
    }
    assert_eq!(sink.accepted(), 0);

    let other_port = sender_with(settings(), &["127.0.0.1:1"]);
    let attempted = other_port.send(outgoing(&sink.http(), PATIENT)).await;
    assert_failed(&attempted, Outcome::EgressRefused, "127.0.0.1 is in 127.0.0.0/8 (loopback)");
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn a_connection_made_under_another_policy_is_not_used_again() {
    let sink = Sink::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Keep).await;
    let sender = sender();
    let other = sender.clone();
    for _ in 0..2 {
        assert_eq!(sender.send(outgoing(&sink.http(), PATIENT)).await.outcome, Outcome::Delivered);
    }
    assert_eq!(sink.accepted(), 1);
    let stricter = Policy::new(&[], &[], &[]).expect("a policy");
    other.replace_policy(Arc::new(stricter)).expect("a resolver");
    let attempted = sender.send(outgoing(&sink.http(), PATIENT)).await;
    assert_failed(&attempted, Outcome::EgressRefused, "loopback");
    // Back again: what was pooled before is gone for good.
    let lenient = Policy::new(&["127.0.0.0/8".parse().expect("a rule")], &[], &[]).expect("a policy");
    sender.replace_policy(Arc::new(lenient)).expect("a resolver");
    assert_eq!(other.send(outgoing(&sink.http(), PATIENT)).await.outcome, Outcome::Delivered);
    assert_eq!(sink.accepted(), 2);
}

#[tokio::test]
async fn a_request_without_a_host_is_a_relay_error() {
    let attempted = sender().send(outgoing("/only/a/path", PATIENT)).await;
    assert_failed(&attempted, Outcome::RelayError, "the relay could not send");
    let attempted = sender().send(outgoing("ftp://127.0.0.1/", PATIENT)).await;
    assert_failed(&attempted, Outcome::RelayError, "the relay could not send");
}

/// A certificate authority's PEM and an acceptor with a certificate of it for this name.
fn authority(name: &str, alpn: &[&str]) -> (Vec<u8>, TlsAcceptor) {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new([name.to_owned()]).expect("parameters").signed_by(&key, &issuer).expect("a certificate");
    (issuer.pem().into_bytes(), acceptor(certificate.der().clone(), &key, alpn))
}

fn acceptor(certificate: rustls::pki_types::CertificateDer<'static>, key: &KeyPair, alpn: &[&str]) -> TlsAcceptor {
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn an_own_authority_is_trusted_over_http2_and_http1() {
    for (offered, http2, version) in [
        (&["h2", "http/1.1"][..], true, "HTTP/2.0"),
        (&["h2", "http/1.1"][..], false, "HTTP/1.1"),
        (&["http/1.1"][..], true, "HTTP/1.1"),
        (&[][..], true, "HTTP/1.1"),
    ] {
        let (pem, acceptor) = authority("localhost", offered);
        let sink = Sink::tls(acceptor).await;
        let settings = Settings { extra_roots_pem: Some(pem), http2, ..settings() };
        let sender = sender_with(settings, &["127.0.0.0/8", "::1"]);
        assert!(sender.trusted_roots() > 0);
        for _ in 0..5 {
            let attempted = sender.send(outgoing(&sink.https("localhost"), PATIENT)).await;
            assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
            assert_eq!(attempted.response_excerpt.as_deref(), Some(version));
        }
        assert_eq!(sink.accepted(), 1);
    }
}

#[tokio::test]
async fn what_tls_does_not_trust_is_a_tls_error() {
    let key = KeyPair::generate().expect("a key");
    let own =
        CertificateParams::new(["localhost".to_owned()]).expect("parameters").self_signed(&key).expect("a certificate");
    let sink = Sink::tls(acceptor(own.der().clone(), &key, &["h2", "http/1.1"])).await;
    let attempted = sender().send(outgoing(&sink.https("localhost"), PATIENT)).await;
    assert_failed(&attempted, Outcome::TlsError, "certificate");

    let (pem, acceptor) = authority("elsewhere.example", &[]);
    let sink = Sink::tls(acceptor).await;
    let settings = Settings { extra_roots_pem: Some(pem), ..settings() };
    let attempted =
        sender_with(settings, &["127.0.0.0/8", "::1"]).send(outgoing(&sink.https("localhost"), PATIENT)).await;
    assert_failed(&attempted, Outcome::TlsError, "certificate");
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_a_tls_error() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let sink = Sink::raw_at_once(answer).await;
        let attempted = sender().send(outgoing(&sink.https("127.0.0.1"), PATIENT)).await;
        assert_failed(&attempted, Outcome::TlsError, "TLS failed, protocol: ");
    }
}

#[tokio::test]
async fn every_connection_is_shown_a_certificate() {
    let (pem, acceptor) = authority("localhost", &[]);
    let authority = String::from_utf8(pem.clone()).expect("PEM");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("https://localhost:{}/", listener.local_addr().expect("addr").port());
    let handshakes = tokio::spawn(async move {
        let mut kinds = Vec::new();
        while kinds.len() < 6 {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let mut stream = acceptor.accept(tcp).await.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind());
            let mut request = vec![0; 4096];
            // Tickets came before the answer, so the client has them.
            let _read = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.expect("a request");
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("written");
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("closed");
        }
        kinds
    });
    let sender = sender_with(Settings { extra_roots_pem: Some(pem), ..settings() }, &["127.0.0.0/8", "::1"]);
    let own = sender.own_tls(TlsOptions { authority: Some(&authority), ..TlsOptions::default() }).expect("options");
    let own = Arc::new(own);
    for tls in [None, None, None, Some(&own), Some(&own), Some(&own)] {
        let attempted = sender.send(Outgoing { tls: tls.cloned(), ..outgoing(&url, PATIENT) }).await;
        assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
    }
    let kinds = handshakes.await.expect("it ends");
    assert!(kinds.iter().all(|kind| *kind == Some(rustls::HandshakeKind::Full)), "{kinds:?}");
}

#[tokio::test]
async fn answers_longer_than_wanted_do_not_cost_an_http2_connection() {
    let (pem, acceptor) = authority("localhost", &["h2"]);
    let sink = Sink::tls_saying(acceptor, 300 * 1024).await;
    for max_response_bytes in [0, 64 * 1024] {
        let settings = Settings { extra_roots_pem: Some(pem.clone()), max_response_bytes, ..settings() };
        let sender = sender_with(settings, &["127.0.0.0/8", "::1"]);
        let before = sink.accepted();
        for nth in 0..100 {
            let attempted = sender.send(outgoing(&sink.https("localhost"), PATIENT)).await;
            assert_eq!(attempted.outcome, Outcome::Delivered, "{nth}: {:?}", attempted.error);
        }
        assert_eq!(sink.accepted() - before, 1);
    }
}

#[tokio::test]
async fn with_too_many_connections_open_none_more_is_kept() {
    let allow = ["127.0.0.0/8".parse().expect("a rule")];
    let policy = Arc::new(Policy::new(&allow, &[], &[]).expect("a policy"));
    let sender = Sender::keeping(3, settings(), policy).expect("a sender");
    let mut sinks = Vec::new();
    for _ in 0..6 {
        sinks.push(Sink::raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Then::Keep).await);
    }
    for _ in 0..4 {
        for sink in &sinks {
            // What is not kept takes a moment to be closed.
            while sender.shared.open.is_crowded() {
                tokio::task::yield_now().await;
            }
            let attempted = sender.send(outgoing(&sink.http(), PATIENT)).await;
            assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
        }
    }
    let accepted: Vec<_> = sinks.iter().map(Sink::accepted).collect();
    assert_eq!(accepted, [1, 1, 1, 4, 4, 4]);
}
