//! Housekeeping: segments of the log, retention, and what must never wait for it.

use crate::support::{Claim, Db, Expand, Relay, Session, sent};

/// Positions in one segment.
const WIDTH: i64 = 10_000_000_000;

/// What one run did, as `action segment`.
async fn maintain(session: &Session) -> Vec<String> {
    session.all("select trim(action || ' ' || coalesce(segment::text, '')) from outbox_relay.maintain()").await
}

/// A database whose first segment holds these events and is closed.
async fn with_closed_segment(app: &Session, count: i64) {
    app.insert_many("a", count).await;
    maintain(app).await;
    close_segment(app).await;
}

async fn close_segment(app: &Session) {
    app.run("update outbox_relay.segment set opened_at = now() - interval '2 days' where opened_at is not null and closed_at is null").await;
    let done = maintain(app).await;
    assert!(done.iter().any(|action| action.starts_with("begun")), "{done:?}");
}

/// Makes what is closed older than the retention.
async fn age(app: &Session) {
    app.run("update outbox_relay.segment set closed_at = now() - interval '31 days' where closed_at is not null").await;
}

#[tokio::test]
async fn segments_are_made_ahead_and_an_empty_log_begins_none() {
    let db = Db::new().await;
    let app = db.session().await;
    assert_eq!(maintain(&app).await, ["made 1", "made 2"]);
    assert_eq!(maintain(&app).await, Vec::<String>::new());
    app.run("update outbox_relay.segment set opened_at = now() - interval '1 year' where segment = 0").await;
    assert_eq!(maintain(&app).await, Vec::<String>::new());
    let parts: i64 = app
        .one("select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid where c.relname ~ '^(event|finished|attempt)_s[012]$'")
        .await;
    assert_eq!(parts, 9);
}

#[tokio::test]
async fn a_segment_is_cut_by_time() {
    let db = Db::new().await;
    let app = db.session().await;
    app.insert("a", "{}").await;
    maintain(&app).await;
    app.run("update outbox_relay.segment set opened_at = now() - interval '23 hours' where segment = 0").await;
    assert_eq!(maintain(&app).await, Vec::<String>::new());
    app.run("update outbox_relay.segment set opened_at = now() - interval '25 hours' where segment = 0").await;
    assert_eq!(maintain(&app).await, ["begun 1"]);
    assert_eq!(app.insert("a", "{}").await, WIDTH);
    assert_eq!(maintain(&app).await, ["made 3"]);
}

#[tokio::test]
async fn a_segment_is_cut_by_size() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('segment_events', '1000')").await;
    app.insert_many("a", 999).await;
    maintain(&app).await;
    assert_eq!(maintain(&app).await, Vec::<String>::new());
    app.insert("a", "{}").await;
    assert_eq!(maintain(&app).await, ["begun 1"]);
    assert_eq!(app.one::<i64>("select count(*) from outbox.event_default").await, 0);
}

#[tokio::test]
async fn a_cut_loses_and_doubles_nothing_of_a_transaction_that_spans_it() {
    let db = Db::new().await;
    let (app, writer, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    maintain(&app).await;
    writer.run("begin").await;
    let before = writer.insert("a", "{}").await;
    let other = app.insert("b", "{}").await;
    close_segment(&app).await;
    let after = writer.insert("a", "{}").await;
    assert!(before < WIDTH && after >= WIDTH);
    let small = Expand { event_limit: 1, ..Expand::default() };
    assert_eq!(relay.expand_all(&small).await.leases, [(subscription, other)]);
    writer.run("commit").await;
    let last = app.insert("b", "{}").await;
    let leases = relay.expand_all(&small).await.leases;
    assert_eq!(leases, [before, after, last].map(|event_seq| (subscription, event_seq)));
    relay.record(&leases.iter().map(|lease| sent(*lease, 200)).collect::<Vec<_>>()).await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.delivery where state = 'succeeded'").await, 3);
    app.assert_accounted().await;
}

#[tokio::test]
async fn events_of_a_new_segment_meet_the_same_rules() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.define_event_type('a')").await;
    with_closed_segment(&app, 1).await;
    app.refused("insert into outbox.event (type, payload) values ('not a type', '{}')", "OB001").await;
    app.refused("insert into outbox.event (type, payload) values ('b', '{}')", "OB004").await;
    app.insert("a", "{}").await;
    let indexes: i64 =
        app.one("select count(*) from pg_index where indrelid = 'outbox.event_s1'::regclass and indisvalid").await;
    assert_eq!(indexes, 4);
}

#[tokio::test]
async fn past_retention_a_segment_is_dropped_with_its_history() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    with_closed_segment(&app, 3).await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    relay.record(&leases.iter().map(|lease| sent(*lease, 200)).collect::<Vec<_>>()).await;
    let kept = app.insert("a", "{}").await;
    relay.expand_all(&Expand::default()).await;
    assert!(!maintain(&app).await.contains(&"dropped 0".to_owned()), "not before");
    age(&app).await;
    assert_eq!(maintain(&app).await, ["dropped 0"]);
    assert_eq!(app.all::<i64>("select event_seq from outbox.event").await, [kept]);
    assert_eq!(app.one::<i64>("select count(*) from outbox.attempt").await, 0);
    assert_eq!(app.deliveries().await.len(), 1);
    assert_eq!(app.one::<i64>("select count(*) from outbox_relay.segment where segment = 0").await, 0);
    app.assert_accounted().await;
    assert_eq!(app.one::<i64>("select log_head from outbox.status()").await, kept);
}

#[tokio::test]
async fn a_segment_with_something_outstanding_stays() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    with_closed_segment(&app, 2).await;
    age(&app).await;
    assert_eq!(maintain(&app).await, ["postponed 0"], "not expanded");
    relay.expand_all(&Expand::queue_only(10)).await;
    assert_eq!(maintain(&app).await, ["postponed 0"], "queued");
    let lease = relay.claim(&Claim { lease_limit: 1, ..Claim::default() }).await.leases[0];
    relay.record(&[sent(lease, 200)]).await;
    let why: String = app.one("select detail from outbox_relay.maintain()").await;
    assert!(why.contains("outstanding"), "{why}");
    app.run(&format!("select outbox.cancel({subscription}, 2)")).await;
    assert_eq!(maintain(&app).await, ["dropped 0"]);
}

#[tokio::test]
async fn a_reader_only_postpones_and_no_writer_waits_behind_it() {
    let db = Db::new().await;
    let (app, reader, writer) = (db.session().await, db.session().await, db.session().await);
    with_closed_segment(&app, 2).await;
    Relay::new(&db).await.expand_all(&Expand::default()).await;
    age(&app).await;
    reader.run("begin; select count(*) from outbox.event").await;
    let run = db.session().await.start("select string_agg(action, ',' order by action) from outbox_relay.maintain()");
    writer.insert("a", "{}").await;
    let done: String = run.await.expect("no panic").expect("it gave up").get(0);
    assert!(done.contains("postponed") && !done.contains("dropped"), "{done}");
    reader.run("commit").await;
    assert_eq!(maintain(&app).await, ["made 3"]);
    assert_eq!(maintain(&app).await, ["dropped 0"]);
}

#[tokio::test]
async fn making_a_segment_is_postponed_too_and_waits_for_no_writer() {
    let db = Db::new().await;
    let (app, reader, writer) = (db.session().await, db.session().await, db.session().await);
    reader.run("begin; select count(*) from outbox.event").await;
    let done = maintain(&app).await;
    assert!(done.iter().any(|action| action.starts_with("postponed")), "{done:?}");
    reader.run("commit").await;
    writer.run("begin").await;
    writer.insert("a", "{}").await;
    assert_eq!(maintain(&app).await, ["made 1", "made 2"]);
    writer.run("commit").await;
}

#[tokio::test]
async fn nothing_is_dropped_in_the_transaction_that_made_a_segment() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    with_closed_segment(&app, 2).await;
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::default()).await;
    age(&app).await;
    // Whoever reads now has locked the whole, and waits for the default partition, which is locked by attaching.
    app.run("begin").await;
    assert_eq!(maintain(&app).await, ["made 3"]);
    let reader = db.session().await;
    let read = reader.start("select count(*) from outbox.event");
    app.wait_until_blocked(&reader).await;
    assert_eq!(maintain(&app).await, ["postponed 0"], "the reader has the whole, and we what it waits for");
    app.run("commit").await;
    read.await.expect("no panic").expect("no deadlock");
    assert_eq!(maintain(&app).await, ["dropped 0"]);
}

#[tokio::test]
async fn what_is_in_the_way_of_one_segment_is_met_once() {
    let db = Db::new().await;
    let (app, reader) = (db.session().await, db.session().await);
    with_closed_segment(&app, 2).await;
    app.insert_many("a", 2).await;
    maintain(&app).await;
    close_segment(&app).await;
    Relay::new(&db).await.expand_all(&Expand::default()).await;
    age(&app).await;
    reader.run("begin; select count(*) from outbox.event").await;
    assert_eq!(maintain(&app).await, ["postponed 0"]);
    reader.run("commit").await;
    assert_eq!(maintain(&app).await, ["dropped 0", "dropped 1"]);
}

#[tokio::test]
async fn one_runs_at_a_time() {
    let db = Db::new().await;
    let (app, other) = (db.session().await, db.session().await);
    app.run("begin").await;
    assert_eq!(maintain(&app).await, ["made 1", "made 2"]);
    assert_eq!(maintain(&other).await, Vec::<String>::new(), "and the other does not wait");
    app.run("commit").await;
}

#[tokio::test]
async fn idempotency_keys_are_kept_for_their_time() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.publish('a', '{}', idempotency_key => k) from unnest('{old,new}'::text[]) k").await;
    app.run("update outbox_relay.idempotency_key set created_at = now() - interval '8 days' where key = 'old'").await;
    assert!(maintain(&app).await.contains(&"pruned".to_owned()));
    assert_eq!(app.all::<String>("select key from outbox_relay.idempotency_key").await, ["new"]);
}

#[tokio::test]
async fn if_nobody_cuts_a_segment_producers_go_on() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.run(&format!("select setval('outbox.event_event_seq_seq', {})", 7 * WIDTH)).await;
    let event_seq = app.insert("a", "{}").await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    assert_eq!(leases, [(subscription, event_seq)]);
    relay.record(&[sent(leases[0], 200)]).await;
    assert_eq!(app.state(subscription, event_seq).await.as_deref(), Some("succeeded"));
    app.assert_accounted().await;
}
