//! The log and history are read by index, whatever the planner has been told about them, and by whomever.

use crate::support::{Claim, Db, Expand, PATIENCE, Relay, Session, sent};
use crate::tenants::roles_can_be_bound;
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

/// Statistics of a log that one transaction had written say that looking for a transaction is no use.
#[tokio::test]
async fn what_commits_late_is_looked_up_by_its_transaction_whatever_statistics_say() {
    let db = Db::new().await;
    let (app, late, open, relay) = (db.session().await, db.session().await, db.session().await, Relay::new(&db).await);
    app.subscribe("order.*").await;
    app.run("alter table outbox.event_s0 set (autovacuum_enabled = false)").await;
    app.insert_many("a", 20_000).await;
    app.run("vacuum analyze outbox.event").await;
    let values: f32 =
        app.one("select n_distinct from pg_stats where tablename = 'event_s0' and attname = 'xact'").await;
    assert!((values - 1.0).abs() < f32::EPSILON, "one transaction, as far as the planner knows");
    relay.expand_all(&Expand::queue_only(30_000)).await;
    for session in [&open, &late] {
        session.run("begin").await;
        session.insert("a", "{}").await;
    }
    app.insert_many("a", 20_000).await;
    // More than once, because where new events are looked for follows one call behind.
    for _ in 0..3 {
        relay.expand_all(&Expand::queue_only(30_000)).await;
        app.insert("a", "{}").await;
    }
    relay.expand_all(&Expand::queue_only(30_000)).await;
    late.insert_many("order.late", 10).await;
    late.run("commit").await;

    relay.session.run("begin").await;
    let before = reads(&relay.session).await;
    assert_eq!(relay.expand(&Expand { event_limit: 128, ..Expand::default() }).await.expanded, 11);
    let after = reads(&relay.session).await;
    relay.session.run("commit").await;
    assert_eq!(after.0 - before.0, 0, "it read the whole segment");
    assert!(after.1 - before.1 <= 400, "it read {} events", after.1 - before.1);

    // The transaction that is still open has been looked for, and its one event cannot be seen.
    let before = reads(&app).await;
    app.run("begin").await;
    assert_eq!(app.one::<i64>("select unexpanded_events from outbox.status()").await, 0);
    let after = reads(&app).await;
    app.run("commit").await;
    assert!(after.1 - before.1 <= 100, "status read {} events", after.1 - before.1);
}

/// How often this session has looked something up in the queue since it began its transaction.
async fn look_ups(session: &Session) -> i64 {
    session
        .one("select sum(idx_scan)::bigint from pg_stat_xact_user_tables where relid = 'outbox_relay.queue'::regclass")
        .await
}

#[tokio::test]
async fn with_statistics_from_when_it_was_empty_the_queue_is_reached_by_its_key() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("order.*").await;
    app.run("vacuum analyze outbox_relay.queue").await;
    // Each call once while it is empty, so that its plans are those for an empty table.
    relay.claim(&Claim::default()).await;
    relay.record(&[sent((1, 1), 200), sent((1, 2), 500)]).await;
    app.insert_many("order.created", 600).await;
    relay.expand_all(&Expand::queue_only(600)).await;
    for status in [200, 500] {
        relay.session.run("begin").await;
        let before = look_ups(&relay.session).await;
        let leases = relay.claim(&Claim { lease_limit: 200, max_in_flight: 200, ..Claim::default() }).await.leases;
        let claimed = look_ups(&relay.session).await - before;
        assert_eq!(leases.len(), 200);
        assert!(claimed >= 200, "claim walked the queue: {claimed} look-ups for 200 leases");
        relay.record(&leases.into_iter().map(|lease| sent(lease, status)).collect::<Vec<_>>()).await;
        let recorded = look_ups(&relay.session).await - before - claimed;
        assert!(recorded >= 200, "record walked the queue: {recorded} look-ups for 200 results of {status}");
        relay.session.run("commit").await;
    }
}

/// The names of the nodes of a plan, and what they scan.
async fn plan(session: &Session, query: &str) -> String {
    session.all::<String>(&format!("explain (costs off) {query}")).await.join("\n")
}

#[tokio::test]
async fn history_is_read_by_index_by_who_is_subject_to_policies_bound_or_not() {
    let db = Db::new().await;
    let app = db.session().await;
    for n in 0..50 {
        app.subscribe_with("*", &format!("tenant_id => 't{n}'")).await;
    }
    let bound = format!("{}_bound", app.one::<String>("select current_database()").await);
    app.run(&format!(
        "insert into outbox_relay.finished (subscription_id, event_seq, created_at, attempts, state)
         select n % 50 + 1, n, now(), 1, case when n % 5000 = 0 then 'dead_letter' else 'succeeded' end from generate_series(1, 200000) n;
         insert into outbox_relay.queue (subscription_id, event_seq, state, next_attempt_at)
         select n % 50 + 1, n, 'pending', now() from generate_series(200001, 201000) n;
         create schema shop; create table shop.orders as select n as order_id, n * 171 as event_seq, n * 171 % 50 + 1 as subscription_id from generate_series(1, 40) n;
         create role {bound} login in role outbox_operator;
         grant usage on schema shop to public; grant select on shop.orders to public;
         analyze outbox_relay.finished, outbox_relay.queue, outbox.subscription, shop.orders"
    ))
    .await;
    // Without policies on PostgreSQL 14.
    let is_confined = roles_can_be_bound(&app).await;
    if is_confined {
        app.run(&format!("select outbox.bind_role('{bound}', 't1')")).await;
    }
    for session in
        [db.session_as("outbox_viewer").await, db.session_as("outbox_operator").await, db.login(&bound).await]
    {
        for query in [
            "select * from outbox.delivery where subscription_id = 5 and event_seq = 104",
            "select * from outbox.delivery where subscription_id = 5 order by event_seq desc limit 50",
            "select * from outbox.delivery where subscription_id = 5 and event_seq < 100000 order by event_seq desc limit 50",
            "select * from outbox.delivery where state = 'dead_letter'",
            "select * from outbox.delivery where subscription_id = 5 and state in ('pending', 'leased', 'failed')",
            "select outbox.replay(d.subscription_id, d.event_seq) from outbox.delivery d
             join shop.orders o using (subscription_id, event_seq) where o.order_id < 20",
        ] {
            if query.starts_with("select outbox.replay")
                && session.one::<bool>("select session_user = 'outbox_viewer'").await
            {
                continue;
            }
            let plan = plan(&session, query).await;
            assert!(!plan.contains("Seq Scan on finished_s0"), "{query}\n{plan}");
            assert!(!is_confined || plan.contains("InitPlan"), "a policy is in it: {query}\n{plan}");
        }
    }
}
