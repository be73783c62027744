//! A whole run with everything logged, and then a search for the secrets and payloads that were used in it: in every
//! log line, answer, metric and table, and in what PostgreSQL itself writes down.

use crate::support::{Daemon, Outboxd, Seat, Session, Sink};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::StatusCode;
use outboxd::secrets::{SealingKey, make};
use outboxd::throwaway::{Options, Throwaway};
use serde_json::json;
use std::path::PathBuf;

/// In every payload, in each place where one can be.
const MARKER: &str = "payload-marker-7f3a9c51";

/// Everything that must not be found, by name.
#[derive(Default)]
struct Hunt {
    needles: Vec<(String, Vec<String>)>,
    found: Vec<String>,
}

impl Hunt {
    /// A secret in the forms in which it might get out.
    fn add(&mut self, name: &str, secret: &str) {
        let mut forms = vec![secret.to_owned(), BASE64.encode(secret), hex::encode(secret)];
        // What stands behind the prefix, in case that is taken off, and its bytes as PostgreSQL shows them.
        if let Some((_, encoded)) = secret.split_once('_').filter(|(prefix, _)| prefix.starts_with("wh")) {
            forms.push(encoded.trim_end_matches('=').to_owned());
            forms.push(hex::encode(BASE64.decode(encoded).expect("base64")));
        }
        self.needles.push((name.to_owned(), forms));
    }

    /// The names of those that are in the text.
    fn in_text(&self, text: &str) -> Vec<&str> {
        let is_in = |forms: &[String]| forms.iter().any(|form| text.contains(form.as_str()));
        self.needles.iter().filter(|(_, forms)| is_in(forms)).map(|(name, _)| name.as_str()).collect()
    }

    fn search(&mut self, place: &str, text: &str) {
        assert!(!text.is_empty(), "nothing to search in {place}");
        let found: Vec<String> = self.in_text(text).into_iter().map(|name| format!("{name} in {place}")).collect();
        for needle in &found {
            let lines = text.lines().filter(|line| !self.in_text(line).is_empty());
            eprintln!(
                "{needle}: {}",
                lines.take(3).map(|line| &line[..line.len().min(600)]).collect::<Vec<_>>().join("\n")
            );
        }
        self.found.extend(found);
    }
}

/// A directory of this test's own, removed with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("outboxd-leak-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn put(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Every row of every table of the three schemas, as text.
async fn tables(session: &Session) -> Vec<(String, String)> {
    let names: Vec<String> = session
        .all(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('outbox', 'outbox_relay', 'outbox_http') and c.relkind in ('r', 'p') and not c.relispartition",
        )
        .await;
    let mut tables = Vec::new();
    for name in names {
        let rows: Vec<String> = session.all(&format!("select t::text from {name} t")).await;
        tables.push((name, rows.join("\n")));
    }
    tables
}

#[tokio::test]
async fn nothing_of_a_whole_run_shows_a_secret_or_a_payload() {
    let statistics = |options: Options| options.set("shared_preload_libraries", "'pg_stat_statements'");
    let quiet = Options::default().without_durability();
    let (server, has_statistics) = match Throwaway::start(statistics(quiet.clone())) {
        Ok(server) => (server, true),
        Err(_) => (Throwaway::start(quiet).expect("a server"), false),
    };
    let url = server.url("postgres");
    {
        let (mut client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("a connection");
        tokio::spawn(connection);
        outboxd::schema::migrate(&mut client).await.expect("the schema");
    }
    let session = Session::at(&url).await;
    if has_statistics {
        session.run("create extension pg_stat_statements").await;
    }
    session.allow_http().await;
    session.run("select outbox.set('circuit_failures', '0')").await;

    let mut hunt = Hunt::default();
    let random = |profile: &str| make(profile).expect("random").expose().to_owned();
    let (sealing_key, old_key) = (SealingKey::generate().expect("random"), SealingKey::generate().expect("random"));
    hunt.add("the sealing key", sealing_key.encode().expose());
    hunt.add("the old sealing key", old_key.encode().expose());
    hunt.add("the payload", MARKER);
    let place = Place::new();
    let (of_file, of_variable, of_block) = (random("standard"), random("standard-ed25519"), random("standard"));
    for (name, secret) in [("of a file", &of_file), ("of a variable", &of_variable), ("of a block", &of_block)] {
        hunt.add(name, secret);
    }
    place.put("orders", &of_file);

    // Receivers that accept, refuse, and answer with what they were sent.
    let sink = Sink::new(|arrived, nth| match arrived.path.as_str() {
        "/refusing" => StatusCode::INTERNAL_SERVER_ERROR,
        "/moody" if nth < 3 => StatusCode::BAD_GATEWAY,
        _ => StatusCode::OK,
    })
    .await;
    let config = place.put(
        "outboxd.toml",
        &format!(
            "[[subscription]]\nname = \"block\"\nurl = \"{0}\"\nevent_types = [\"*\"]\nsecret = \"{of_block}\"\n\
             [[subscription]]\nname = \"referenced\"\nurl = \"{0}\"\nevent_types = [\"*\"]\nsecret_ref = \"file:orders\"\n",
            sink.url("/block")
        ),
    );

    // Made in SQL before any relay, in every profile, and rotated.
    let profiles = ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"];
    let mut ids = Vec::new();
    for profile in profiles {
        for path in ["/accepting", "/refusing", "/moody"] {
            let policy = if path == "/refusing" { "none" } else { "quick" };
            let endpoint = session
                .endpoint(&sink.url(path), &format!("signature => '{profile}', retry_policy => '{policy}'"))
                .await;
            hunt.add(&format!("of SQL for {profile}{path}"), &endpoint.secret);
            ids.push(endpoint.id);
        }
        let rotated: String =
            session.one_of("select (outbox.rotate_secret($1)).secret", &[ids.last().expect("one")]).await;
        hunt.add(&format!("rotated in SQL for {profile}"), &rotated);
    }
    session.run(&format!("select outbox.subscribe('{}', '{{*}}', secret_ref => 'env:OUTBOXD_SECRET_PAIR', signature => 'standard-ed25519', name => 'pair')", sink.url("/accepting"))).await;
    session.run(&format!("select outbox.subscribe('{}', '{{*}}', secret_ref => 'file:missing', name => 'missing', retry_policy => 'none')", sink.url("/accepting"))).await;

    // Two relays at the highest level, one of them as JSON and with the operator's seat.
    let directory = place.0.to_str().expect("UTF-8").to_owned();
    let old_keys = format!("[\"{}\"]", old_key.encode().expose());
    let key = sealing_key.encode();
    let common = [
        ("OUTBOXD_LOG__LEVEL", "trace"),
        ("OUTBOXD_SECRETS__KEY", key.expose()),
        ("OUTBOXD_SECRETS__OLD_KEYS", &old_keys),
        ("OUTBOXD_SECRETS__DIRECTORY", &directory),
        ("OUTBOXD_SECRET_PAIR", &of_variable),
    ];
    let mut second = Outboxd::on(&url, &["--config", &config, "run", "-vv"])
        .set("OUTBOXD_RELAY__NAME", "relay-2")
        .set("OUTBOXD_ADMIN__LISTEN", "off");
    for (name, value) in common {
        second = second.set(name, value);
    }
    let second = second.spawn().registered().await;
    let seat = Seat::at(&url, &session, &[common.as_slice(), &[("OUTBOXD_LOG__FORMAT", "json")]].concat()).await;

    // Through HTTP: what is shown this once, and what is refused, with secrets and payloads in it.
    let mut answers = Vec::new();
    for profile in profiles {
        let body = json!({"url": sink.url("/accepting"), "event_types": ["*"], "signature": profile});
        let made = seat.call("POST", "/webhooks", Some(body)).await.ok();
        let id = made["webhook"]["subscription_id"].as_i64().expect("an id");
        hunt.add(&format!("of HTTP for {profile}"), made["secret"].as_str().expect("shown this once"));
        answers.push(made["webhook"].to_string());
        let given = random(profile);
        let path = format!("/webhooks/{id}/rotate-secret");
        let once: &[(&str, &str)] = &[("idempotency-key", profile)];
        let body = json!({"secret": given});
        let rotated = seat.call_as(&seat.operator, "POST", &path, Some(body.clone()), once).await.ok();
        assert_eq!(rotated["secret"], given);
        hunt.add(&format!("rotated over HTTP for {profile}"), &given);
        answers.push(seat.call_as(&seat.operator, "POST", &path, Some(body), once).await.text);
        answers.push(seat.call("GET", &format!("/webhooks/{id}"), None).await.text);
    }
    let refused = random("standard");
    hunt.add("a refused one", &refused);
    let url_of = sink.url("/accepting");
    let webhook = |more: serde_json::Value| {
        let mut body = json!({"url": url_of, "event_types": ["*"]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let mut bad = vec![
        ("/webhooks", webhook(json!({"secret": format!(" {refused}")})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "signature": "standard-ed25519"})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused.repeat(30)})).to_string()),
        ("/webhooks", webhook(json!({"secret": [refused]})).to_string()),
        ("/webhooks", webhook(json!({"secret_ref": refused})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "secret_ref": "file:orders"})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "retry_policy": "nosuch"})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "name": "block"})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "filter": "$.a ?? "})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "nonsense": refused})).to_string()),
        ("/webhooks", webhook(json!({"secret": format!("{refused}\u{0}")})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused, "description": "\u{0}"})).to_string()),
        ("/webhooks", webhook(json!({"secret": refused})).to_string().replace('}', "")),
        ("/webhooks/1/rotate-secret", json!({"secret": refused, "overlap": "99999 days"}).to_string()),
        ("/webhooks/99999/rotate-secret", json!({"secret": refused}).to_string()),
    ];
    for event in [
        json!({"type": "a b", "payload": {"a": MARKER}}),
        json!({"type": "a", "payload": {"a": format!("{MARKER}\u{0}")}}),
        json!({"type": "a", "payload": {"a": MARKER}, "event_id": MARKER}),
        json!({"type": "a", "payload": {"a": MARKER.repeat(60_000)}}),
        json!({"type": "a", "payload": {"a": MARKER}, "occurred_at": "9999-99-99T00:00:00Z"}),
        json!({"type": "a", "payload": {"a": MARKER}, "priority": 99_999_999}),
        json!({"type": "outbox.reserved", "payload": {"a": MARKER}}),
    ] {
        bad.push(("/events", event.to_string()));
    }
    let producer: String = session.one("select outbox.create_token('producer')").await;
    for (path, body) in bad {
        for token in [&seat.operator, &producer] {
            let authorization = format!("Bearer {token}");
            let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
            let answer = seat.send("POST", path, &headers, body.clone()).await;
            assert!(!answer.status.is_success(), "{path} {body}: {answer:?}");
            answers.push(answer.text);
        }
    }
    hunt.add("the operator's token", &seat.operator);
    hunt.add("the producer's token", &producer);

    // Events, delivered and not, and errors of the database in the middle of it.
    let event = json!({"type": "order.paid", "payload": {"a": MARKER, MARKER: [MARKER]}});
    answers
        .push(seat.call_as(&producer, "POST", "/events", Some(event.clone()), &[("idempotency-key", "e")]).await.text);
    for n in 0..5 {
        session.insert("order.created", &json!({"n": n, "a": MARKER}).to_string()).await;
    }
    let settled = "select not exists (select from outbox.delivery where state in ('pending', 'leased', 'failed'))
                   and (select count(*) > 100 from outbox.delivery)";
    session.wait_until(settled).await;
    session.run("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend' and query like '%outbox%'").await;
    session.run("alter function outbox_relay.tick(integer) rename to tick_away").await;
    session.insert("order.shipped", &json!({"a": MARKER}).to_string()).await;
    session.wait_until("select count(*) > 0 from outbox.delivery d join outbox.event e using (event_seq) where e.type = 'order.shipped'").await;
    session.run("alter function outbox_relay.tick_away(integer) rename to tick").await;
    session.wait_until(settled).await;
    session.run(&format!("select outbox.send_test({}), outbox.replay(subscription_id, event_seq) from outbox.delivery where state = 'dead_letter' limit 1", ids[0])).await;
    session.wait_until(settled).await;
    session.wait_until("select not exists (select from outbox_relay.signing_secret where secret is not null)").await;

    for path in [
        "/metrics",
        "/webhooks",
        "/status",
        "/deliveries",
        "/audit",
        "/settings",
        "/openapi.json",
        "/events?type=order.paid",
    ] {
        answers.push(seat.call("GET", path, None).await.text);
    }

    // The search can find: what was shown once, what the receiver got, and what is in the log of events.
    assert!(
        !hunt.in_text(&of_file).is_empty()
            && !hunt.in_text(&hex::encode(BASE64.decode(&of_block[6..]).expect("base64"))).is_empty()
    );
    assert!(sink.arrived().iter().any(|arrived| String::from_utf8_lossy(&arrived.body).contains(MARKER)));
    let tables = tables(&session).await;
    let of_events = tables.iter().find(|(name, _)| name == "outbox.event").map(|(_, text)| text.as_str());
    assert_eq!(hunt.in_text(of_events.expect("the events")), ["the payload"]);

    for (name, text) in tables.iter().filter(|(name, text)| name != "outbox.event" && !text.is_empty()) {
        hunt.search(name, text);
    }
    let logs = [("the log as JSON", seat.daemon.log()), ("the log as text", second.log())];
    for (name, log) in &logs {
        assert!(log.contains("TRACE"), "{name} is not at the highest level");
        assert!(log.contains("sealed") || log.contains("reconciled"), "{name}: {log}");
        hunt.search(name, log);
    }
    for answer in &answers {
        hunt.search("an answer", answer);
    }
    if has_statistics {
        let statements: Vec<String> =
            session.all("select query from pg_stat_statements where query like '%outbox%'").await;
        assert!(statements.len() > 20);
        // What tests wrote into their own statements, PostgreSQL has taken out.
        hunt.search("pg_stat_statements", &statements.join("\n"));
    } else {
        eprintln!("pg_stat_statements is not installed here: not searched");
    }
    let server_log = std::fs::read_to_string(server.data_dir().with_file_name("log")).expect("the server's log");
    assert!(server_log.contains("outbox_relay.tick"), "the daemon's errors are not in the server's log:\n{server_log}");
    hunt.search("the server's log", &server_log);
    assert!(hunt.found.is_empty(), "{:#?}", hunt.found);
    drop((seat, second));
}

#[tokio::test]
async fn a_crash_of_the_daemon_leaves_no_core() {
    let server = crate::support::Db::new().await;
    let daemon = Daemon::on(&server).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}
