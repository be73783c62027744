//! Who gets in: tokens, sessions of the console, and what keeps others out.

use crate::support::{Daemon, Db, PATIENCE, Seat, Session};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn stage(environment: &[(&str, &str)]) -> (Db, Session, Seat) {
    let db = Db::new().await;
    let app = db.session().await;
    let seat = Seat::with(&db, environment).await;
    (db, app, seat)
}

/// The name=value of the cookie that signing in with this token sets.
async fn sign_in(seat: &Seat, token: &str) -> String {
    let headers = [("content-type", "application/json"), ("x-outboxd-console", "1")];
    let answered = seat.send("POST", "/session", &headers, json!({"token": token}).to_string()).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    let cookie = answered.headers["set-cookie"].to_str().expect("ASCII").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"), "{cookie}");
    cookie.split(';').next().expect("a value").to_owned()
}

#[tokio::test]
async fn a_token_is_kept_as_a_hash_shows_its_last_use_and_ends_when_revoked() {
    let (_db, app, seat) = stage(&[]).await;
    seat.call("GET", "/webhooks", None).await.ok();
    let (used, found): (bool, i64) = (
        app.one("select last_used_at is not null from outbox.token").await,
        app.one_of(
            "select count(*) from outbox_relay.token_hash h where h.sha256 = sha256(convert_to($1, 'UTF8')) and h::text not like '%' || $1 || '%'",
            &[&seat.operator],
        )
        .await,
    );
    assert!(used && found == 1);
    // A refusal is a use, too: a stolen token that is tried out shows.
    let viewer: String = app.one("select outbox.create_token('viewer')").await;
    seat.call_as(&viewer, "DELETE", "/hold", None, &[]).await.problem(403);
    assert!(app.one::<bool>("select last_used_at is not null from outbox.token where role = 'viewer'").await);
    let listed = seat.call("GET", "/tokens", None).await;
    assert!(!listed.text.contains(&seat.operator) && !listed.text.contains("sha256"), "{}", listed.text);
    seat.call("DELETE", "/tokens/2", None).await.ok();
    seat.call_as(&viewer, "GET", "/webhooks", None, &[]).await.problem(401);
    let expired: String = app.one("select outbox.create_token('viewer', expires_in => '1 microsecond')").await;
    seat.call_as(&expired, "GET", "/webhooks", None, &[]).await.problem(401);
}

#[tokio::test]
async fn what_is_no_token_is_refused_and_too_many_of_them_have_to_wait() {
    let (_db, app, seat) = stage(&[]).await;
    let viewer: String = app.one("select outbox.create_token('viewer')").await;
    seat.call("GET", "/status", None).await.ok();
    for headers in [vec![], vec![("authorization", "Basic abc")], vec![("authorization", "Bearer ")]] {
        let answered = seat.send("GET", "/status", &headers, "").await;
        assert!(answered.headers["www-authenticate"].to_str().expect("ASCII").starts_with("Bearer"));
        answered.problem(401);
    }
    let tries = (0..40).map(|n| {
        let token = format!("outboxd_{n}");
        let seat = &seat;
        async move { seat.call_as(&token, "GET", "/status", None, &[]).await }
    });
    let mut statuses = Vec::new();
    for answered in futures_of(tries).await {
        if answered.status == 429 {
            let wait: u64 = answered.headers["retry-after"].to_str().expect("ASCII").parse().expect("seconds");
            assert!((1..=10).contains(&wait));
        }
        statuses.push(answered.status.as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 30);
    // Who was known before is not kept out by others at the same address; a newcomer waits.
    seat.call("GET", "/status", None).await.ok();
    assert_eq!(seat.call_as(&viewer, "GET", "/status", None, &[]).await.status, 429);
    let metrics = seat.send("GET", "/metrics", &[], "").await.text;
    assert!(metrics.contains("outboxd_admin_auth_failures_total 4"), "{metrics}");
}

#[tokio::test]
async fn no_operation_is_for_somebody_without_a_token() {
    let (_db, _app, seat) = stage(&[]).await;
    let document = seat.send("GET", "/openapi.json", &[], "").await.ok();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{delivery_id}", "1-1").replace("{event_id}", "00000000-0000-0000-0000-000000000000");
        let path = path
            .replace("{type}", "a.b")
            .replace("{name}", "retention")
            .replace("{subscription_id}", "1")
            .replace("{token_id}", "1");
        for method in item.as_object().expect("operations").keys().filter(|name| *name != "parameters") {
            seat.send(&method.to_uppercase(), &path, &[], "").await.problem(401);
            asked += 1;
        }
    }
    assert!(asked > 30);
}

/// All at once.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => {
                done.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn a_session_is_for_the_console_alone_and_ends_by_idling_signing_out_or_with_its_token() {
    let (_db, app, seat) = stage(&[("OUTBOXD_ADMIN__SESSION_IDLE", "20 minutes")]).await;
    let cookie = sign_in(&seat, &seat.operator).await;
    let ride = async |method: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("cookie", cookie.as_str())];
        all.extend(headers);
        seat.send(method, if method == "GET" { "/status" } else { "/hold" }, &all, "").await.status.as_u16()
    };
    assert_eq!(ride("GET", &[]).await, 200);
    assert_eq!(ride("GET", &[("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(ride("GET", &[("sec-fetch-site", "same-site")]).await, 403);
    assert_eq!(ride("DELETE", &[]).await, 403, "a form of another page");
    assert_eq!(ride("DELETE", &[("x-outboxd-console", "1"), ("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(ride("DELETE", &[("x-outboxd-console", "1"), ("sec-fetch-site", "same-origin")]).await, 200);
    let plain = seat
        .send("POST", "/session", &[("content-type", "application/json")], json!({"token": seat.operator}).to_string())
        .await;
    assert_eq!(plain.status, 403, "another page signs somebody in");

    // What the console asks by itself does not keep it alive; what somebody does, does.
    let age = "update outbox_relay.session set seen_at = now() - interval '19 minutes'";
    let seen = "select now() - seen_at < interval '1 minute' from outbox_relay.session";
    app.run(age).await;
    assert_eq!(ride("GET", &[("x-outboxd-background", "1")]).await, 200);
    assert!(!app.one::<bool>(seen).await);
    assert_eq!(ride("GET", &[]).await, 200);
    assert!(app.one::<bool>(seen).await);
    app.run("update outbox_relay.session set seen_at = now() - interval '21 minutes'").await;
    assert_eq!(ride("GET", &[]).await, 401);

    let cookie = sign_in(&seat, &seat.operator).await;
    let out = seat.send("DELETE", "/session", &[("cookie", &cookie), ("x-outboxd-console", "1")], "").await;
    assert!(out.status == 204 && out.headers["set-cookie"].to_str().expect("ASCII").contains("Max-Age=0"));
    assert_eq!(seat.send("GET", "/status", &[("cookie", &cookie)], "").await.status, 401);

    let viewer: String = app.one("select outbox.create_token('viewer')").await;
    let cookie = sign_in(&seat, &viewer).await;
    let about = seat.send("GET", "/session", &[("cookie", &cookie)], "").await.ok();
    assert_eq!((&about["role"], &about["idle_seconds"]), (&json!("viewer"), &json!(1200)));
    app.run("select outbox.revoke_token(2)").await;
    assert_eq!(seat.send("GET", "/session", &[("cookie", &cookie)], "").await.status, 401);
    let kept: String = app.one("select coalesce(string_agg(s::text, ' '), '') from outbox_relay.session s").await;
    assert!(!kept.contains(cookie.split_once('=').expect("a value").1), "the cookie itself is nowhere");
}

#[tokio::test]
async fn over_plain_http_it_answers_to_addresses_and_the_names_it_was_given() {
    let (_db, _app, seat) = stage(&[("OUTBOXD_ADMIN__HOSTS", r#"["ops.example.com"]"#)]).await;
    for (host, status) in [
        ("127.0.0.1:8480", 200),
        ("[::1]:8480", 200),
        ("localhost", 200),
        ("console.localhost:1", 200),
        ("ops.example.com", 200),
        ("OPS.example.com.:443", 200),
        ("evil.example.com", 421),
        ("localhost.evil.com", 421),
        ("", 421),
    ] {
        assert_eq!(seat.send("GET", "/healthz", &[("host", host)], "").await.status.as_u16(), status, "{host:?}");
    }
}

#[tokio::test]
async fn every_answer_is_hardened_and_the_console_loads_from_itself_alone() {
    let (_db, _app, seat) = stage(&[]).await;
    let console = seat.send("GET", "/", &[], "").await;
    let policy = console.headers["content-security-policy"].to_str().expect("ASCII").to_owned();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    for reference in console.text.split('"').filter(|part| part.starts_with('/') || part.contains("//")) {
        assert_eq!(seat.send("GET", reference, &[], "").await.status, 200, "{reference}");
    }
    for path in ["/", "/healthz", "/nowhere", "/openapi.json", "/console/app.js"] {
        let answered = seat.send("GET", path, &[], "").await;
        assert_eq!(answered.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answered.headers["cache-control"], "no-store", "{path}");
        assert_eq!(answered.headers["x-frame-options"], "DENY", "{path}");
    }
    for path in ["/console/../Cargo.toml", "/console/", "/console/nothing.js", "/console/%2e%2e/x"] {
        assert_ne!(seat.send("GET", path, &[], "").await.status, 200, "{path}");
    }
    assert_eq!(seat.send("HEAD", "/", &[], "").await.text, "");
}

#[tokio::test]
async fn slow_clients_hold_neither_the_database_nor_the_health_of_the_daemon() {
    let (_db, app, seat) = stage(&[("OUTBOXD_ADMIN__POOL_SIZE", "1"), ("OUTBOXD_ADMIN__REQUEST_TIMEOUT", "3s")]).await;
    // Bodies that never come, with a good token.
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(seat.address).await.expect("it listens");
        let head = format!(
            "POST /webhooks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
            seat.operator
        );
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        slow.push(stream);
    }
    app.wait_until("select last_used_at is not null from outbox.token").await;
    // Each would hold the only connection for three seconds.
    let began = Instant::now();
    seat.call("GET", "/webhooks", None).await.ok();
    let ready = seat.send("GET", "/readyz", &[], "").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, slow[0].read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn beyond_loopback_nothing_is_served_in_the_clear_nor_before_there_is_a_token() {
    let db = Db::new().await;
    let refused = Daemon::relay(&db.url(), "r").set("OUTBOXD_ADMIN__LISTEN", "0.0.0.0:0").output().await;
    assert_eq!(refused.code, Some(78));
    assert!(refused.complained.contains("admin.tls_certificate_file"), "{}", refused.complained);
    let daemon =
        Daemon::relay(&db.url(), "r").set("OUTBOXD_ADMIN__LISTEN", "0.0.0.0:0").set("OUTBOXD_ADMIN__PLAINTEXT", "true");
    let mut daemon = daemon.spawn().registered().await;
    daemon.wait_for_log("there is no token").await;
    assert!(!daemon.log().contains("url=\"http"), "{}", daemon.log());
    db.session().await.run("select outbox.create_token('viewer')").await;
    daemon.wait_for_log("url=\"http").await;
}

#[tokio::test]
async fn it_speaks_tls_with_the_certificate_it_was_given() {
    let db = Db::new().await;
    let directory = std::env::temp_dir().join(format!(
        "outboxd-seat-{}-{}",
        std::process::id(),
        db.url().rsplit('/').next().expect("a name")
    ));
    std::fs::create_dir_all(&directory).expect("a directory");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["ops.example.com".to_owned()])
        .expect("parameters")
        .self_signed(&key)
        .expect("a certificate");
    let (pem, key_pem) = (directory.join("admin.pem"), directory.join("admin-key.pem"));
    std::fs::write(&pem, certificate.pem()).expect("a file");
    std::fs::write(&key_pem, key.serialize_pem()).expect("a file");
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let seat = Seat::with(
        &db,
        &[("OUTBOXD_ADMIN__TLS_CERTIFICATE_FILE", &path(&pem)), ("OUTBOXD_ADMIN__TLS_KEY_FILE", &path(&key_pem))],
    )
    .await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(seat.address).await.expect("it listens");
    let name = "ops.example.com".try_into().expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let request = "GET /healthz HTTP/1.1\r\nhost: ops.example.com\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("strict-transport-security"), "{answer}");

    let half = Daemon::relay(&db.url(), "r").set("OUTBOXD_ADMIN__TLS_CERTIFICATE_FILE", &path(&pem)).output().await;
    assert!(half.code == Some(78) && half.complained.contains("admin.tls_key_file"), "{}", half.complained);
    let swapped = Daemon::relay(&db.url(), "r")
        .set("OUTBOXD_ADMIN__LISTEN", "127.0.0.1:0")
        .set("OUTBOXD_ADMIN__TLS_CERTIFICATE_FILE", &path(&key_pem))
        .set("OUTBOXD_ADMIN__TLS_KEY_FILE", &path(&key_pem))
        .output()
        .await;
    assert!(swapped.code == Some(78) && !swapped.complained.contains("PRIVATE KEY"), "{}", swapped.complained);
    std::fs::remove_dir_all(&directory).expect("it goes");
}

#[tokio::test]
async fn a_port_that_is_taken_does_not_keep_deliveries_waiting() {
    let (db, _app, seat) = stage(&[]).await;
    let daemon = Daemon::relay(&db.url(), "relay-2").set("OUTBOXD_ADMIN__LISTEN", &seat.address.to_string());
    let mut daemon = daemon.spawn().registered().await;
    daemon.wait_for_log("cannot listen yet").await;
    drop(seat);
    daemon.wait_for_log("url=\"http").await;
}

#[tokio::test]
async fn neither_a_head_that_does_not_come_nor_an_answer_that_is_not_taken_is_waited_for() {
    let (_db, _app, seat) = stage(&[]).await;
    let mut silent = TcpStream::connect(seat.address).await.expect("it listens");
    silent.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.expect("it is taken");
    let mut deaf = TcpStream::connect(seat.address).await.expect("it listens");
    let mut answer = Vec::new();
    let (ended, shut) = tokio::join!(tokio::time::timeout(PATIENCE, silent.read_to_end(&mut answer)), async {
        // More answers than the sockets' buffers hold, and nobody reads them: in the end writing fails.
        let request = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
        tokio::time::timeout(PATIENCE, async { while deaf.write_all(request).await.is_ok() {} }).await
    });
    assert!(ended.is_ok(), "the head is still waited for");
    assert!(shut.is_ok(), "the answers are still waited for");
    assert_eq!(seat.send("GET", "/healthz", &[], "").await.status, 200);
}
