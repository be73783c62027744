//! Connections to the database run out, or its limits on statements and sessions are too tight for anybody.

use super::{PAUSE, wait_for_reason, wait_until_ready};
use crate::support::{Daemon, Db, Outage, Outboxd, PATIENCE, Seat, Session, Sink, Writer};
use outboxd::throwaway::{Options, Throwaway};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// Ends the relay's sessions, as a restart of the server would.
const END_RELAYS: &str =
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'outboxd%'";

/// Takes every connection that is left; ends when there is none.
async fn fill(url: &str) -> Vec<Client> {
    let mut taken = Vec::new();
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                taken.push(client);
            }
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
                return taken;
            }
        }
    }
}

#[tokio::test]
async fn connections_that_others_have_taken_are_waited_for() {
    let options = Options::default().without_durability().set("max_connections", "12");
    let server = Throwaway::start(options.set("superuser_reserved_connections", "0")).expect("a server");
    let url = server.url("postgres");
    let session = Session::at(&url).await;
    Outboxd::on(&url, &["migrate"]).output().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let mut seat = Seat::at(&url, &session, &[]).await;
    let writer = Writer::start(&url, PAUSE);
    sink.wait_for(10).await;

    session.run(END_RELAYS).await;
    let mut taken = Vec::new();
    let began = Instant::now();
    // The relay comes back at once, so that both draw for what is free.
    while !seat.daemon.log().contains("too many clients") {
        assert!(began.elapsed() < PATIENCE, "{}", seat.daemon.log());
        taken.extend(fill(&url).await);
        session.run(END_RELAYS).await;
    }
    seat.daemon.wait_for_log("too many clients").await;
    taken.extend(fill(&url).await);
    wait_for_reason(&seat, "cannot be asked").await;
    drop(taken);
    let outage = Outage::is_over("max-connections");
    tokio::time::sleep(PAUSE).await;
    let written = writer.stop().await;
    assert!(written.committed.len() > 10, "{written:?}");
    outage.recovered(&session, &sink, &written.committed).await;
    wait_until_ready(&seat).await;
}

/// A login of the relay's own, so that limits can be put on it.
async fn relay_role(session: &Session) -> String {
    let role = format!("{}_relay", session.one::<String>("select current_database()").await);
    session.run(&format!("create role {role} login in role outbox_relay")).await;
    role
}

/// Once what was said of the role is committed, so that the next ones go by it.
async fn end_sessions(session: &Session, role: &str) {
    session.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")).await;
}

/// A database, and how a relay reaches it that logs in as a role of its own.
async fn stage_of_a_role() -> (Db, Session, Sink, String, String) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let role = relay_role(&session).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let url = db.url().replacen("postgres@", &format!("{role}@"), 1);
    (db, session, sink, role, url)
}

#[tokio::test]
async fn a_role_without_a_connection_left_is_waited_for() {
    let (db, session, sink, role, url) = stage_of_a_role().await;
    let mut seat = Seat::at(&url, &session, &[]).await;
    let writer = Writer::start(&db.url(), PAUSE);
    sink.wait_for(10).await;
    session.run(&format!("alter role {role} connection limit 0")).await;
    end_sessions(&session, &role).await;
    seat.daemon.wait_for_log(&format!("too many connections for role \"{role}\"")).await;
    wait_for_reason(&seat, "not registered").await;
    wait_for_reason(&seat, "cannot be asked").await;
    // What is committed meanwhile waits in the log; so does lag in SQL, where somebody can ask.
    session.wait_until("select lag > interval '1 second' and relays = 0 from outbox.status()").await;

    session.run(&format!("alter role {role} connection limit -1")).await;
    let outage = Outage::is_over("role-connection-limit");
    let written = writer.stop().await;
    outage.recovered(&session, &sink, &written.committed).await;
    wait_until_ready(&seat).await;
}

#[tokio::test]
async fn limits_that_a_role_has_for_people_do_not_stop_the_relay() {
    let (db, session, sink, role, url) = stage_of_a_role().await;
    let mut relay = Daemon::relay(&url, "relay-1").spawn().registered().await;
    session
        .run(&format!(
            "alter role {role} set statement_timeout = '1ms'; alter role {role} set lock_timeout = '1ms';
             alter role {role} set idle_session_timeout = '200ms'; alter role {role} set idle_in_transaction_session_timeout = '1ms'"
        ))
        .await;
    end_sessions(&session, &role).await;
    // New sessions, under the limits.
    relay.wait_for_log("epoch=2").await;
    let before = relay.log().len();
    let writer = Writer::start(&db.url(), PAUSE);
    sink.wait_for(50).await;
    let written = writer.stop().await;
    // Idle for longer than a session of the role may be.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let outage = Outage::is_over("role-timeouts");
    session.insert("order.created", "{}").await;
    assert_eq!(outage.recovered(&session, &sink, &written.committed).await, 0);
    let log = relay.log().split_off(before);
    assert!(!log.contains("lost") && !log.contains("WARN"), "{log}");
}
