//! Expanding reads the log by index, whatever the planner has been told about it.

use crate::support::{Db, Expand, PATIENCE, Relay, Session};
use std::time::Instant;

/// How many rows of the log's first segment this session has read since it began its transaction:
/// by sequential scans, and through indexes.
async fn reads(session: &Session) -> (i64, i64) {
    let row = session
        .query_one(
            "select sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint from pg_stat_xact_user_tables where relname = 'event_s0'",
            &[],
        )
        .await
        .expect("the counters");
    (row.get(0), row.get(1))
}

/// Each batch must read about as many events as it expands, whatever the planner believes.
async fn assert_batches_read_by_index(app: &Session, relay: &Relay, event_limit: i32) {
    for nth in 0..6 {
        relay.session.run("begin").await;
        let before = reads(&relay.session).await;
        assert_eq!(relay.expand(&Expand { event_limit, ..Expand::default() }).await.expanded, event_limit);
        let after = reads(&relay.session).await;
        relay.session.run("commit").await;
        assert_eq!(after.0 - before.0, 0, "batch {nth} read the whole segment");
        assert!(after.1 - before.1 <= 4 * i64::from(event_limit), "batch {nth} read {} events", after.1 - before.1);
    }
    let began = Instant::now();
    relay.expand_all(&Expand::queue_only(10_000)).await;
    assert!(began.elapsed() < PATIENCE);
    app.assert_accounted().await;
}

#[tokio::test]
async fn with_no_statistics_it_reads_by_index() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("order.*").await;
    app.insert_many("a", 100_000).await;
    assert_batches_read_by_index(&app, &relay, 128).await;
}

#[tokio::test]
async fn with_statistics_from_when_it_was_empty_it_reads_by_index() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("order.*").await;
    app.insert("a", "{}").await;
    relay.expand(&Expand::default()).await;
    app.run("vacuum analyze outbox.event, outbox_relay.queue, outbox_relay.cursor, outbox_relay.route").await;
    app.insert_many("a", 100_000).await;
    assert_batches_read_by_index(&app, &relay, 128).await;
}

#[tokio::test]
async fn a_large_transaction_that_commits_late_is_read_by_index() {
    let db = Db::new().await;
    let (app, late, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    app.subscribe("order.*").await;
    late.run("begin").await;
    late.insert_many("a", 50_000).await;
    app.insert_many("a", 1_000).await;
    relay.expand_all(&Expand::default()).await;
    late.run("commit").await;
    app.insert_many("a", 1_000).await;
    assert_batches_read_by_index(&app, &relay, 128).await;
}
