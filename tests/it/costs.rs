//! What a delivery costs the server, counted: statements, buffers and WAL, a committed table of them, and that they
//! stay the same however much has happened before and whoever looks on.
//!
//! Counts, not times. `tests/costs.tsv` has those of the calls in batches of 128, as the relay makes them, with events of
//! 0.3 KiB; `make counts-accept` writes it anew. Each test has its database on a server that counts statements.

mod count;
mod daemon;
mod flat;
mod stage;

use crate::support::Db;
use crate::support::sheet::{Column, Counts, Sheet};
use stage::{BATCH, BATCHES, Counted, PAYLOAD, Stage};

/// The first two of a call, the others of a delivery; of an event, for what a producer does. Counted again they differ by
/// less than 1 %, but for claims and what is retried: 4 %.
const COLUMNS: [Column; 6] = [
    Column { name: "statements", share: 0.0, slack: 0.0 },
    Column { name: "nested", share: 0.0, slack: 0.3 },
    Column { name: "buffers", share: 0.06, slack: 0.05 },
    Column { name: "dirtied", share: 0.1, slack: 0.03 },
    Column { name: "wal records", share: 0.06, slack: 0.03 },
    Column { name: "wal bytes", share: 0.06, slack: 3.0 },
];

const CASES: [&str; 10] = [
    "claim",
    "expand, nobody wants it",
    "expand, one subscription",
    "expand, ten subscriptions",
    "insert",
    "insert, relay asleep",
    "publish",
    "record, delivered",
    "record, failed",
    "relay",
];

/// Compares with the table.
async fn check<const N: usize>(db: &Db, counts: [(&str, Counted); N]) {
    let version: i32 = db.session().await.one("select current_setting('server_version_num')::integer / 10000").await;
    let counts: Counts = counts.into_iter().map(|(case, counts)| (case.to_owned(), counts.to_vec())).collect();
    assert!(counts.keys().all(|case| CASES.contains(&case.as_str())), "a case that the list does not have");
    if let Err(changes) = sheet(version).check(&counts) {
        panic!("{changes}");
    }
}

fn sheet(version: i32) -> Sheet {
    Sheet {
        path: "tests/costs.tsv",
        title: "What a call takes in statements, a delivery in buffers and WAL (tests/it/costs.rs).",
        columns: &COLUMNS,
        made_with: format!("PostgreSQL {version}"),
    }
}

#[test]
fn the_table_lists_no_case_that_nobody_counts() {
    sheet(0).check_cases(CASES).unwrap_or_else(|stale| panic!("{stale}"));
}

#[tokio::test]
async fn what_a_delivery_costs() {
    let stage = Stage::with_subscriptions(1).await;
    let course = stage.course().await;
    check(
        &stage.db,
        [
            ("expand, one subscription", course.expand),
            ("record, delivered", course.record_delivered),
            ("record, failed", course.record_failed),
            ("claim", course.claim),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_an_event_for_ten_or_for_nobody_costs() {
    let ten = Stage::with_subscriptions(10).await;
    let wanted = ten.course().await.expand;
    drop(ten);
    let nobody = Stage::with_subscriptions(0).await;
    nobody.insert(BATCHES * BATCH).await;
    nobody.counter.start().await;
    for _ in 0..BATCHES {
        assert!(nobody.expand(BATCH).await.is_empty());
    }
    let unwanted = nobody.counter.taken().await.of_each(BATCHES, BATCHES * BATCH);
    check(&nobody.db, [("expand, ten subscriptions", wanted), ("expand, nobody wants it", unwanted)]).await;
}

#[tokio::test]
async fn what_a_producer_pays() {
    const COUNT: usize = 1024;
    let stage = Stage::with_subscriptions(1).await;
    let insert = format!(
        "insert into outbox.event (type, payload) select 'order.created', {PAYLOAD} from (values ($1::bigint)) v (n)"
    );
    let publish = format!("select outbox.publish('order.created', {PAYLOAD}) from (values ($1::bigint)) v (n)");
    let awake = stage.statements(&insert, COUNT).await;
    let published = stage.statements(&publish, COUNT).await;
    let door = stage.db.session().await;
    door.run("select pg_advisory_lock(1869968482, 1)").await;
    let asleep = stage.statements(&insert, COUNT).await;
    check(&stage.db, [("insert", awake), ("insert, relay asleep", asleep), ("publish", published)]).await;

    let calls = "select coalesce(sum(calls), 0)::bigint from pg_stat_xact_user_functions";
    let called = async || {
        stage.app.run("begin").await;
        let before: i64 = stage.app.one(calls).await;
        stage.app.insert("order.created", "{}").await;
        let after: i64 = stage.app.one(calls).await;
        stage.app.run("commit").await;
        after - before
    };
    // The one that judges the event, and the doorbell.
    assert_eq!(called().await, 2, "while the relay sleeps");
    door.run("select pg_advisory_unlock(1869968482, 1)").await;
    assert_eq!(called().await, 2, "while it is awake");
}
