//! The commands as a user or a unit file meets them: exit codes, and messages that say what to do.

use crate::support::{Daemon, Db, Outboxd, Session, Sink};
use outboxd::throwaway::{Options, Throwaway, free_port};
use std::time::Duration;
use tokio_postgres::NoTls;

/// Makes a login role of this test's own; roles belong to the whole server.
async fn login_role(session: &Session) -> String {
    let role = format!("app_{}", session.one::<String>("select current_database()::text").await);
    session.run(&format!("create role {role} login")).await;
    role
}

fn url_as(db: &Db, role: &str) -> String {
    db.url().replace("postgres@", &format!("{role}@"))
}

#[tokio::test]
async fn exit_codes_are_0_1_2_and_78() {
    let db = Db::new().await;
    for (outboxd, code) in [
        (Outboxd::new(&["--version"]), 0),
        (Outboxd::new(&["--help"]), 0),
        (Outboxd::on(&db.url(), &["status"]), 0),
        (Outboxd::on("postgres://postgres@127.0.0.1:1/shop", &["status"]), 1),
        (Outboxd::on("postgres://postgres@127.0.0.1:1/shop", &["run"]), 1),
        (Outboxd::on("postgres://postgres@127.0.0.1:1/shop", &["migrate"]), 1),
        (Outboxd::on("postgres://postgres@127.0.0.1:1/shop", &["check"]), 1),
        (Outboxd::new(&[]), 2),
        (Outboxd::new(&["fly"]), 2),
        (Outboxd::new(&["status", "--loudly"]), 2),
        (Outboxd::new(&["status", "--json", "--watch"]), 2),
        (Outboxd::new(&["run"]), 78),
        (Outboxd::on(&db.url(), &["check"]).set("OUTBOXD_RELAY__CONCURRENCY", "0"), 78),
        (Outboxd::on(&db.url(), &["run", "--config", "/nonexistent/outboxd.toml"]), 78),
    ] {
        let output = outboxd.output().await;
        assert_eq!(output.code, Some(code), "{output:?}");
        assert!(output.complained.len() + output.printed.len() > 10, "it says why: {output:?}");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_refused_by_key_and_source_without_its_value() {
    let db = Db::new().await;
    let file = std::env::temp_dir().join(format!("outboxd-{}-{}.toml", std::process::id(), fastrand::u64(..)));
    std::fs::write(&file, "[relay]\nconcurency = 5\n\n[database]\npool_size = \"hunter2\"\n").expect("a file");
    let path = file.to_str().expect("UTF-8").to_owned();
    let output =
        Outboxd::on(&db.url(), &["check", "--config", &path]).set("OUTBOXD_HTTP__COLOUR", "hunter2").output().await;
    std::fs::remove_file(&file).expect("it was there");
    assert_eq!(output.code, Some(78));
    for expected in [
        "relay.concurency",
        "database.pool_size",
        path.as_str(),
        "concurrency",
        "http.colour",
        "environment variable OUTBOXD_HTTP__COLOUR",
    ] {
        assert!(output.complained.contains(expected), "{expected} is not in {}", output.complained);
    }
    assert!(!output.complained.contains("hunter2"), "{}", output.complained);
}

#[tokio::test]
async fn an_unreachable_database_is_named_without_its_password() {
    for command in ["status", "check", "migrate", "run"] {
        let output = Outboxd::on("postgres://app:hunter2@127.0.0.1:1/shop", &[command]).output().await;
        let said = format!("{}{}", output.printed, output.complained);
        assert!(said.contains("Connection refused") && !said.contains("hunter2"), "{command}: {said}");
    }
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_with_the_command_that_mends_it() {
    let refused = async |db: &Db, expected: &[&str]| {
        for command in ["run", "check"] {
            let output = Outboxd::on(&db.url(), &[command]).output().await;
            assert_eq!(output.code, Some(1), "{output:?}");
            let said = format!("{}{}", output.printed, output.complained);
            for part in expected {
                assert!(said.contains(part), "{command} does not say {part}: {said}");
            }
        }
    };
    refused(&Db::empty().await, &["missing", "outboxd migrate"]).await;

    let db = Db::new().await;
    let session = db.session().await;
    let hash: String = session.one("select sha256 from outbox_relay.applied_file where path like '%/expand.sql'").await;
    session.run("update outbox_relay.applied_file set sha256 = 'x' where path like '%/expand.sql'").await;
    refused(&db, &["1 SQL functions", "outboxd migrate"]).await;
    session
        .run(&format!("update outbox_relay.applied_file set sha256 = '{hash}' where path like '%/expand.sql'"))
        .await;
    assert_eq!(Outboxd::on(&db.url(), &["check"]).output().await.code, Some(0));

    let newest: i32 = session.one("select max(version) from outbox_relay.migration").await;
    session.run(&format!("update outbox_relay.migration set version = 1000 where version = {newest}")).await;
    refused(&db, &["1000", "later one"]).await;
    let output = Outboxd::on(&db.url(), &["migrate"]).output().await;
    assert!(
        output.code == Some(1) && output.complained.contains("1000"),
        "an older program migrates nothing: {output:?}"
    );

    session.run("delete from outbox_relay.migration where version = 1000").await;
    refused(&db, &[&format!("version {}", newest - 1), &format!("needs version {newest}"), "outboxd migrate"]).await;
}

#[tokio::test]
async fn check_names_the_privileges_that_are_missing_and_the_group_suffices() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let role = login_role(&session).await;
    let url = url_as(&db, &role);
    let output = Outboxd::on(&url, &["check"]).output().await;
    assert!(output.code == Some(1) && output.printed.contains("PROBLEM"), "{output:?}");

    session
        .run(&format!(
            "grant usage on schema outbox, outbox_relay to {role};
             grant select on outbox_relay.applied_file, outbox_relay.migration to {role};
             grant execute on function outbox.status to {role}"
        ))
        .await;
    let output = Outboxd::on(&url, &["check"]).output().await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = output.printed.lines().find(|line| line.starts_with("PROBLEM")).expect("a problem");
    assert!(line.contains("claim") && line.contains("record") && line.contains("grant outbox_relay"), "{line}");

    session
        .run(&format!("revoke all on all functions in schema outbox from {role}; grant outbox_relay to {role}"))
        .await;
    let output = Outboxd::on(&url, &["check"]).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!output.printed.contains("PROBLEM"), "{output:?}");

    // And a relay that is nothing but a member of the group works.
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut relay = Daemon::relay(&url, "relay-1").spawn().registered().await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    session.run(&format!("select outbox.send_test({})", endpoint.id)).await;
    session.wait_for_state(endpoint.id, "succeeded", 2).await;
    session.wait_until("select exists (select from outbox.subscription_health where success_count = 1)").await;
    assert_eq!(Outboxd::on(&url, &["status"]).output().await.code, Some(0));
    relay.terminate();
    assert!(relay.ended().await.success());
    assert!(!relay.log().contains("permission denied"), "{}", relay.log());
}

#[tokio::test]
async fn check_tells_another_environment_and_a_hold() {
    let db = Db::new().await;
    let session = db.session().await;
    session.run("select outbox.adopt('production'); select outbox.hold('the database moves at noon')").await;
    let output = Outboxd::on(&db.url(), &["check"]).set("OUTBOXD_RELAY__ENVIRONMENT", "staging").output().await;
    assert_eq!(output.code, Some(1));
    assert!(
        output.printed.contains("outbox.adopt('staging')") && output.printed.contains("the database moves at noon"),
        "{output:?}"
    );
    let output = Outboxd::on(&db.url(), &["check"]).set("OUTBOXD_RELAY__ENVIRONMENT", "production").output().await;
    assert_eq!(output.code, Some(0), "a hold is no fault: {output:?}");
}

#[tokio::test]
async fn status_is_one_json_object_with_the_promised_keys() {
    let db = Db::new().await;
    let session = db.session().await;
    session.subscribe("*").await;
    session.insert_many("order.created", 3).await;
    session.run("select outbox.hold('noon')").await;
    let output = Outboxd::on(&db.url(), &["status", "--json"]).output().await;
    let status: serde_json::Value = serde_json::from_str(&output.printed).expect("one JSON object");
    let mut keys: Vec<&str> = status.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "dead_letters",
            "environment",
            "failed",
            "hold",
            "lag",
            "leased",
            "log_head",
            "oldest_due",
            "pending",
            "relays",
            "unexpanded_events"
        ]
    );
    assert_eq!(
        (&status["unexpanded_events"], &status["hold"], &status["relays"]),
        (&3.into(), &"noon".into(), &0.into())
    );
    let people = Outboxd::on(&db.url(), &["status"]).output().await.printed;
    assert!(people.contains("noon") && people.contains("start outboxd run"), "{people}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_processes_may_migrate_at_once() {
    let db = Db::empty().await;
    let url = db.url();
    let migrating: Vec<_> = (0..10)
        .map(|_| Outboxd::on(&url, &["migrate"]))
        .map(|outboxd| tokio::spawn(async move { outboxd.output().await }))
        .collect();
    let mut did_something = 0;
    for output in migrating {
        let output = output.await.expect("no panic");
        assert_eq!(output.code, Some(0), "{output:?}");
        did_something += usize::from(!output.printed.contains("up to date"));
    }
    assert_eq!(did_something, 1);
    assert_eq!(Outboxd::on(&url, &["check"]).output().await.code, Some(0));
}

#[tokio::test]
async fn who_may_not_create_roles_is_given_the_sql() {
    // Roles belong to the server, and the tests' own has them: this needs another.
    let started = tokio::task::spawn_blocking(|| Throwaway::start(Options::default().without_durability()));
    let server = started.await.expect("no panic").expect("a server");
    let (admin, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    for sql in ["create role app login", "create database shop owner app"] {
        admin.batch_execute(sql).await.expect("a role and its database");
    }
    let url = server.url("shop").replace("postgres@", "app@");

    let output = Outboxd::on(&url, &["migrate"]).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let sql = output
        .printed
        .split_once("\n\n")
        .map(|(_, rest)| rest.split_once("\n\n").map_or(rest, |(_, sql)| sql))
        .expect("SQL");
    assert!(sql.contains("create role") && sql.contains("outbox_relay"), "{output:?}");
    // The owner can run it already; only the grants to the groups are missing.
    assert_eq!(Outboxd::on(&url, &["check"]).output().await.code, Some(0));

    admin.batch_execute(sql).await.expect("what was printed runs as it is");
    let output = Outboxd::on(&url, &["migrate"]).output().await;
    assert!(output.code == Some(0) && !output.printed.contains("may not create roles"), "{output:?}");
    admin.batch_execute("create role relay login in role outbox_relay").await.expect("a member");
    let output = Outboxd::on(&server.url("shop").replace("postgres@", "relay@"), &["check"]).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let output = Outboxd::on(&url, &["migrate"]).output().await;
    assert!(output.printed.contains("up to date"), "{output:?}");
}

#[tokio::test]
async fn listen_verifies_what_it_receives_and_answers_as_told() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let (good, bad) = (free_port().expect("a port"), free_port().expect("a port"));
    let known = session.endpoint(&format!("http://127.0.0.1:{good}/in"), "retry_policy => 'quick'").await;
    let unknown = session
        .endpoint(&format!("http://127.0.0.1:{bad}/in"), "retry_policy => 'none', signature => 'x-signature'")
        .await;
    let listen = |port: u16, more: &[&str]| {
        let address = format!("127.0.0.1:{port}");
        let arguments = [&["listen", "--address", &address], more].concat();
        Outboxd::new(&arguments).spawn()
    };
    let mut listener = listen(good, &["--secret", &known.secret, "--fail-first", "2", "--delay", "20"]);
    let mut suspicious = listen(bad, &["--secret", &known.secret]);
    listener.wait_for_log("listening on").await;
    suspicious.wait_for_log("listening on").await;
    let _relay = Daemon::on(&db).await;
    session.insert("order.created", r#"{"total": 7.50}"#).await;
    session.wait_for_state(known.id, "succeeded", 1).await;
    session.wait_for_state(unknown.id, "dead_letter", 1).await;
    listener.wait_for_log("verified, answered 200").await;
    assert_eq!(listener.log().matches("verified, answered 500").count(), 2, "{}", listener.log());
    assert!(listener.log().contains(r#"{"total": 7.50}"#), "{}", listener.log());
    suspicious.wait_for_log("REFUSED").await;
    let status: i16 = session
        .one(&format!("select last_status_code from outbox.delivery where subscription_id = {}", unknown.id))
        .await;
    assert_eq!(status, 401);
    let slow: i32 =
        session.one(&format!("select min(latency_ms) from outbox.attempt where subscription_id = {}", known.id)).await;
    assert!(Duration::from_millis(slow.unsigned_abs().into()) >= Duration::from_millis(20));
}

/// Its sslmode says nothing there, as for libpq.
#[tokio::test]
async fn a_database_is_reached_by_the_servers_socket() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    for mode in ["", " sslmode=verify-full"] {
        let output = Outboxd::on(&format!("{}{mode}", db.socket()), &["status"]).output().await;
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let _relay = Daemon::relay(&db.socket(), "one").spawn().registered().await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
}
