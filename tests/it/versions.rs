//! The newest server that outboxd supports, beside the one that all other tests run on: the schema, one event's whole
//! way with the real program, and the plans of expand and claim. `make test-all-postgres` runs everything on each.

use crate::support::{Daemon, Outboxd, Session, Sink, left_out};
use hyper::StatusCode;
use outboxd::throwaway::{Options, Throwaway};
use std::path::Path;

/// The server that `tests/postgres/setup.sh 18` fetches. `OUTBOXD_POSTGRES_REQUIRE=1` makes it a failure if there is none.
fn newest() -> Option<Throwaway> {
    let bin_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres/18/native/bin");
    if !bin_dir.join("postgres").is_file() {
        let required = std::env::var_os("OUTBOXD_POSTGRES_REQUIRE").is_some_and(|value| value == "1");
        assert!(!required, "{} is not there: bash tests/postgres/setup.sh 18", bin_dir.display());
        left_out("PostgreSQL 18 beside the others", "bash tests/postgres/setup.sh 18 fetches it");
        return None;
    }
    let options = Options { bin_dir: Some(bin_dir), ..Options::default() };
    Some(Throwaway::start(options.without_durability().set("autovacuum", "off")).expect("PostgreSQL 18 starts"))
}

/// How many rows of the log and of the queue this session has read by walking a whole table, ever.
async fn walked(session: &Session) -> i64 {
    session.run("select pg_stat_force_next_flush()").await;
    session
        .one(
            "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_user_tables
             where relname in ('event_s0', 'event_default', 'queue', 'attempt_s0', 'finished_s0')",
        )
        .await
}

#[tokio::test]
async fn the_newest_server_has_the_schema_delivers_and_reads_by_index() {
    let Some(server) = newest() else { return };
    let url = server.url("postgres");
    let output = Outboxd::on(&url, &["migrate"]).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let checked = Outboxd::on(&url, &["check"]).output().await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.printed.contains("PostgreSQL 18"), "{checked:?}");
    let session = Session::at(&url).await;
    session.allow_http().await;
    let sink = Sink::new(|_, nth| if nth == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick', filter => '$.n > 0'").await;
    let mut relay = Daemon::relay(&url, "relay-1").spawn().registered().await;
    session.insert_many("order.created", 200).await;
    session.insert("order.created", r#"{"n": -1}"#).await;
    session.wait_for_state(endpoint.id, "succeeded", 200).await;
    assert!(sink.times().values().all(|times| *times == 2), "each once more after its failure");
    session.assert_accounted().await;
    relay.terminate();
    assert!(relay.ended().await.success());

    // As the relay would: with a backlog, statistics of an empty table, and nothing walked.
    session.run("analyze outbox.event, outbox_relay.queue, outbox.attempt").await;
    session.insert_many("order.created", 20_000).await;
    let epoch: i32 = session.one("select outbox_relay.register('by hand', 'test', 'default')").await;
    let before = walked(&session).await;
    let leased: i64 = session
        .one(&format!(
            "select count(*) from outbox_relay.expand({epoch}, 128, 64, 64, '{{}}', '{{}}', false, true) where event_seq is not null"
        ))
        .await;
    assert_eq!(leased, 64);
    let claimed: i64 = session
        .one(&format!(
            "select count(*) from outbox_relay.claim({epoch}, 64, 1000, '{{}}', '{{}}', true) where event_seq is not null"
        ))
        .await;
    assert_eq!(claimed, 64);
    assert_eq!(walked(&session).await - before, 0, "rows read by walking a table");
    session.run("select count(*) from outbox.event").await;
    assert!(walked(&session).await - before > 20_000, "walking would have been seen");
}
