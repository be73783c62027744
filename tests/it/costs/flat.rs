//! What a delivery costs does not depend on what happened before, on who looks on, and on what waits.

use super::count::Counter;
use super::stage::{Counted, Course, PAYLOAD, Stage};
use crate::support::{Expand, Relay, sent};

/// Fails if a call has become dearer by more than what where pages are split, and when dead rows are cleared away, makes of it.
fn assert_flat(call: &str, before: Counted, after: Counted) {
    for (what, (before, after)) in ["statements", "nested", "buffers", "dirtied", "wal records", "wal bytes"]
        .iter()
        .zip(before.into_iter().zip(after))
    {
        assert!(after <= before * 1.1 + 0.3, "{call}: {what} {before:.2} before, {after:.2} after");
    }
}

fn assert_all_flat(before: &Course, after: &Course) {
    assert_flat("expand", before.expand, after.expand);
    assert_flat("record, delivered", before.record_delivered, after.record_delivered);
    assert_flat("record, failed", before.record_failed, after.record_failed);
    assert_flat("claim", before.claim, after.claim);
}

#[tokio::test]
async fn the_same_after_twenty_thousand_deliveries() {
    let stage = Stage::with_subscriptions(1).await;
    let before = stage.course().await;
    stage.fill(20_000).await;
    stage.course().await;
    assert_all_flat(&before, &stage.course().await);
}

#[tokio::test]
async fn the_same_while_somebody_holds_an_old_snapshot() {
    let stage = Stage::with_subscriptions(1).await;
    let before = stage.course().await;
    let holder = stage.db.session().await;
    holder.run("begin isolation level repeatable read; select count(*) from outbox.event").await;
    stage.fill(20_000).await;
    stage.course().await;
    let after = stage.course().await;
    holder.run("commit").await;
    assert_flat("expand", before.expand, after.expand);
    assert_flat("record, delivered", before.record_delivered, after.record_delivered);
    assert_flat("record, failed", before.record_failed, after.record_failed);
}

#[tokio::test]
async fn the_same_beside_a_backlog_of_the_subscription() {
    let stage = Stage::with_subscriptions(1).await;
    stage.insert(1_000).await;
    stage.relay.expand_all(&Expand::queue_only(1_000)).await;
    stage.course().await;
    let before = stage.course().await;
    stage.insert(20_000).await;
    stage.relay.expand_all(&Expand::queue_only(10_000)).await;
    stage.course().await;
    assert_all_flat(&before, &stage.course().await);
}

#[tokio::test]
async fn the_same_beside_a_backlog_of_one_that_is_paused() {
    let stage = Stage::with_subscriptions(1).await;
    let paused = stage.app.subscribe("invoice.*").await;
    let backlog = async |count: usize| {
        stage
            .app
            .run(&format!(
                "select outbox.resume({paused});
                 insert into outbox.event (type, payload) select 'invoice.created', {PAYLOAD} from generate_series(1, {count}) n"
            ))
            .await;
        stage.relay.expand_all(&Expand::queue_only(10_000)).await;
        stage.app.run(&format!("select outbox.pause({paused})")).await;
        stage.course().await;
    };
    // Two levels of the queue's index.
    stage
        .app
        .run(&format!("update outbox.subscription set event_types = '{{order.*}}' where subscription_id <> {paused}"))
        .await;
    backlog(1_000).await;
    let before = stage.course().await;
    backlog(20_000).await;
    assert_all_flat(&before, &stage.course().await);
}

#[tokio::test]
async fn the_same_beside_subscriptions_that_want_something_else() {
    let stage = Stage::with_subscriptions(1).await;
    let subscribe = async |count: usize| {
        stage
            .app
            .run(&format!(
                "select outbox.subscribe('https://hooks.example.com/in', '{{*}}', tenant_id => 't' || n) from generate_series(1, {count}) n;
                 select outbox.subscribe('https://hooks.example.com/in', '{{invoice.*}}') from generate_series(1, {count} / 4) n"
            ))
            .await;
        stage.course().await;
    };
    subscribe(400).await;
    let before = stage.course().await;
    subscribe(3_000).await;
    assert_all_flat(&before, &stage.course().await);
}

/// What the statistics say of a table and its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Touched {
    inserted: i64,
    updated: i64,
    deleted: i64,
    dead: i64,
    scanned: i64,
    looked_up: i64,
}

#[tokio::test]
async fn what_has_happened_is_appended_and_never_visited_again() {
    const COUNT: i64 = 1024;
    let (counter, db) = Counter::with_database().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.insert_many("order.created", COUNT).await;
    loop {
        let leases = relay.expand(&Expand { event_limit: 128, ..Expand::default() }).await.leases;
        if leases.is_empty() {
            break;
        }
        relay.record(&leases.into_iter().map(|lease| sent(lease, 200)).collect::<Vec<_>>()).await;
    }
    // A session tells what it did at its end.
    drop((app, relay));
    let session = db.session().await;
    let inserted = "select coalesce(sum(n_tup_ins), 0) = 1024 from pg_stat_user_tables where relname ~ ";
    session.wait_until(&format!("{inserted} '^attempt_'")).await;
    session.wait_until(&format!("{inserted} '^event_(s|default)'")).await;
    let touched = async |tables: &str| {
        let sql = "select sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint, sum(n_tup_del)::bigint, sum(n_dead_tup)::bigint, sum(seq_scan)::bigint, sum(idx_scan)::bigint
                   from pg_stat_user_tables where relname ~ $1";
        let row = session.query_one(sql, &[&tables]).await.expect("the statistics");
        let [inserted, updated, deleted, dead, scanned, looked_up] = std::array::from_fn(|i| row.get(i));
        Touched { inserted, updated, deleted, dead, scanned, looked_up }
    };
    let appended = Touched { inserted: COUNT, updated: 0, deleted: 0, dead: 0, scanned: 0, looked_up: 0 };
    assert_eq!(touched("^finished_").await, appended);
    assert_eq!(touched("^attempt_").await, appended);
    // The log is read by the batch: each partition once, and the marks of what is not to wait its turn.
    let event = touched("^event_(s|default)").await;
    assert!(event.looked_up <= 6 * COUNT / 128, "{event:?}");
    assert_eq!(event, Touched { looked_up: event.looked_up, ..appended });
    // A delivery is put into the queue once, looked up once and taken out.
    let queue = touched("^queue$").await;
    assert_eq!(queue, Touched { deleted: COUNT, dead: queue.dead, looked_up: COUNT, ..appended });
    assert!(queue.dead <= COUNT, "{queue:?}");
    drop(counter);
}
