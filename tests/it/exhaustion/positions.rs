//! The log's positions: a segment that nobody cut, and the end of the sequence.

use crate::support::{Daemon, Db, Expand, Outage, Outboxd, PATIENCE, Relay, Session, Sink};
use std::collections::BTreeSet;
use std::time::Instant;

/// Positions in one segment.
const WIDTH: i64 = 10_000_000_000;

/// What one run of the housekeeping did, as `action segment`.
async fn maintain(session: &Session) -> Vec<String> {
    session.all("select trim(action || ' ' || coalesce(segment::text, '')) from outbox_relay.maintain()").await
}

async fn insert(session: &Session, count: i64) -> BTreeSet<String> {
    let sql = format!(
        "insert into outbox.event (type, payload) select 'order.created', '{{}}' from generate_series(1, {count}) returning event_id::text"
    );
    session.all::<String>(&sql).await.into_iter().collect()
}

async fn in_default(session: &Session) -> i64 {
    session.one("select (select count(*) from outbox.event_default) + (select count(*) from outbox_relay.finished_default) + (select count(*) from outbox.attempt_default)").await
}

#[tokio::test]
async fn a_segment_that_nobody_cut_is_passed_over_and_pruned_in_its_time() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let _relay = Daemon::on(&db).await;
    session.run(&format!("select setval('outbox.event_event_seq_seq', {})", 7 * WIDTH)).await;
    let mut committed = insert(&session, 100).await;
    session.wait_for_state(endpoint.id, "succeeded", 100).await;
    assert_eq!(in_default(&session).await, 300, "event, delivery and attempt of each");

    let outage = Outage::is_over("segment-uncut");
    assert_eq!(maintain(&session).await, ["passed over 7", "made 8", "made 9", "begun 8"]);
    let event_seq = session.insert("order.created", "{}").await;
    assert_eq!(event_seq, 8 * WIDTH);
    committed.extend(insert(&session, 100).await);
    assert_eq!(outage.recovered(&session, &sink, &committed).await, 0);
    assert_eq!(in_default(&session).await, 300, "what comes now has its segment");
    maintain(&session).await;
    assert_eq!(maintain(&session).await, Vec::<String>::new());
    assert_eq!(session.one::<i64>("select max(segment) from outbox_relay.segment").await, 10);

    // What lies in the default partitions goes when its time has come, as everything else does.
    session.run("update outbox_relay.segment set closed_at = now() - interval '31 days' where segment = 7").await;
    assert_eq!(maintain(&session).await, ["dropped 7"]);
    assert_eq!(in_default(&session).await, 0);
    session.wait_for_state(endpoint.id, "succeeded", 101).await;
}

#[tokio::test]
async fn what_lies_in_the_default_partitions_stays_while_something_of_it_is_outstanding_and_goes_piece_by_piece() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    session.run(&format!("select setval('outbox.event_event_seq_seq', {})", 7 * WIDTH)).await;
    // More than is deleted at once, for nobody.
    insert(&session, 60_000).await;
    Relay::named(&db, "by hand", "default").await.expand_all(&Expand::queue_only(10_000)).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    insert(&session, 10).await;
    assert_eq!(maintain(&session).await, ["passed over 7", "made 8", "made 9", "begun 8"]);
    session.run("update outbox_relay.segment set closed_at = now() - interval '31 days' where segment = 7").await;
    assert_eq!(maintain(&session).await, ["postponed 7"]);
    assert_eq!(in_default(&session).await, 60_010);
    let _relay = Daemon::on(&db).await;
    sink.wait_for(10).await;
    session.wait_until("select pending + leased + unexpanded_events = 0 from outbox.status()").await;
    let began = Instant::now();
    while in_default(&session).await > 0 {
        assert!(began.elapsed() < PATIENCE, "it does not go");
        let done = maintain(&session).await;
        assert!(done.iter().all(|action| ["postponed 7", "dropped 7"].contains(&action.as_str())), "{done:?}");
    }
    session.wait_until("select not exists (select from outbox_relay.segment where segment = 7)").await;
}

#[tokio::test]
async fn the_last_positions_are_used_and_then_producers_are_told() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let check = async || Outboxd::on(&db.url(), &["check"]).output().await;
    let output = check().await;
    assert!(output.code == Some(0) && !output.printed.contains("positions"), "{output:?}");
    session.run(&format!("select setval('outbox.event_event_seq_seq', {})", i64::MAX - 100)).await;

    // Before the end: check, and the housekeeping's line in the relay's log.
    let output = check().await;
    assert!(output.code == Some(1) && output.printed.contains("100.00 % of the positions are used up"), "{output:?}");
    let mut relay = Daemon::on(&db).await;
    relay.wait_for_log("maintained done=\"running out").await;
    let committed = insert(&session, 100).await;
    session.wait_for_state(endpoint.id, "succeeded", 100).await;

    // After it: a clear error for producers, and everything else goes on.
    session.refused("insert into outbox.event (type, payload) values ('order.created', '{}')", "2200H").await;
    session.refused("select outbox.publish('order.created', '{}')", "2200H").await;
    assert_eq!(session.one::<i64>("select log_head from outbox.status()").await, i64::MAX);
    assert_eq!(maintain(&session).await, ["running out"]);
    session.run(&format!("select outbox.replay({}, {})", endpoint.id, i64::MAX)).await;
    sink.wait_for(101).await;
    let outage = Outage::is_over("sequence-end");
    assert_eq!(outage.recovered(&session, &sink, &committed).await, 1, "the one that was replayed");
}
