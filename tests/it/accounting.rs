//! Accounting: what became of every event, and that nothing is lost.

use crate::support::{Claim, Db, Expand, Relay, Session, sent};

/// The verdict of `outbox.explain` on an event, for one subscription.
async fn verdict(app: &Session, event_seq: i64, subscription_id: i64) -> String {
    app.one(&format!(
        "select x.verdict from outbox.event e, lateral outbox.explain(e.event_id) x
         where e.event_seq = {event_seq} and x.subscription_id = {subscription_id}"
    ))
    .await
}

#[tokio::test]
async fn a_delivery_that_vanished_is_reported() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let (a, b) = (app.subscribe("*").await, app.subscribe("*").await);
    app.insert_many("a", 3).await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    relay.record(&leases.iter().filter(|l| l.0 == a).map(|l| sent(*l, 200)).collect::<Vec<_>>()).await;
    app.assert_accounted().await;

    app.run(&format!("delete from outbox_relay.queue where subscription_id = {b} and event_seq = 2")).await;
    app.run(&format!("delete from outbox_relay.finished where subscription_id = {a} and event_seq = 3")).await;
    let rows = app
        .query("select event_seq, event_id, subscription_id from outbox.unaccounted()", &[])
        .await
        .expect("the audit");
    let found: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(2))).collect();
    assert_eq!(found, [(2, b), (3, a)]);
}

#[tokio::test]
async fn a_test_that_vanished_is_reported() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("a").await;
    app.run(&format!("select outbox.send_test({subscription})")).await;
    relay.expand_all(&Expand::default()).await;
    app.assert_accounted().await;
    app.run("delete from outbox_relay.queue").await;
    assert_eq!(app.all::<i64>("select event_seq from outbox.unaccounted()").await, [1]);
}

#[tokio::test]
async fn what_is_not_expanded_yet_is_accounted_for() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.insert_many("a", 5).await;
    app.assert_accounted().await;
    assert_eq!(app.one::<i64>("select unexpanded_events from outbox.status()").await, 5);
    relay.expand(&Expand { event_limit: 2, ..Expand::default() }).await;
    app.assert_accounted().await;
    assert_eq!(app.one::<i64>("select unexpanded_events from outbox.status()").await, 3);
}

/// Each event is judged by the subscriptions of the batch that expanded it, though they changed between
/// the batches of one target.
#[tokio::test]
async fn each_event_is_judged_by_the_subscriptions_of_its_batch() {
    let db = Db::new().await;
    let (app, late, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    let one = Expand { event_limit: 1, ..Expand::default() };
    let subscription = app.subscribe("a").await;
    late.run("begin").await;
    late.insert("a", "{}").await;
    app.insert_many("a", 6).await;
    relay.expand(&one).await; // 2
    app.run(&format!("select outbox.pause({subscription})")).await;
    relay.expand(&one).await; // 3
    app.run(&format!("select outbox.resume({subscription}); update outbox.subscription set event_types = '{{b}}'"))
        .await;
    relay.expand(&one).await; // 4
    app.run("update outbox.subscription set event_types = '{a}', filter = '$.n > 100'").await;
    relay.expand(&one).await; // 5
    app.run("update outbox.subscription set filter = null").await;
    let second = app.subscribe("a").await;
    late.run("commit").await;
    relay.expand_all(&one).await; // 6, 7, and 1
    app.run("update outbox.subscription set event_types = '{c}'").await;

    app.assert_accounted().await;
    let mut verdicts = Vec::new();
    for event_seq in 1..=7 {
        verdicts.push((verdict(&app, event_seq, subscription).await, verdict(&app, event_seq, second).await));
    }
    let verdicts: Vec<_> = verdicts.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        verdicts,
        [
            ("leased", "leased"),
            ("leased", "created_later"),
            ("paused", "created_later"),
            ("type", "created_later"),
            ("filter", "created_later"),
            ("leased", "leased"),
            ("leased", "leased"),
        ]
    );
}

#[tokio::test]
async fn a_change_that_rolled_back_or_is_not_committed_decides_nothing() {
    let db = Db::new().await;
    let (app, operator, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("a").await;
    operator.run("begin; update outbox.subscription set event_types = '{b}'").await;
    app.insert("a", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, [(subscription, 1)]);
    operator.run("rollback").await;
    operator.run("begin; update outbox.subscription set event_types = '{b}'").await;
    app.insert("a", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, [(subscription, 2)]);
    operator.run("commit").await;
    app.insert("a", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, []);
    app.assert_accounted().await;
    assert_eq!(verdict(&app, 3, subscription).await, "type");
}

#[tokio::test]
async fn explain_names_the_state_or_the_reason_for_every_subscription_of_the_tenant() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let wanting = app.subscribe_with("*", "name => 'wanting'").await;
    let filtering = app.subscribe_with("*", "filter => '$.n > 1'").await;
    let other_type = app.subscribe("b").await;
    let paused = app.subscribe("*").await;
    let gone = app.subscribe("*").await;
    app.subscribe_with("*", "tenant_id => 'globex'").await;
    app.run(&format!("select outbox.pause({paused}); select outbox.unsubscribe({gone})")).await;
    let event_seq = app.insert("a", "{\"n\": 1}").await;
    assert_eq!(verdict(&app, event_seq, wanting).await, "unexpanded");
    relay.expand_all(&Expand::default()).await;
    let later = app.subscribe("*").await;

    let rows = app
        .query("select x.subscription_id, x.verdict from outbox.event e, lateral outbox.explain(e.event_id) x", &[])
        .await
        .expect("explained");
    let verdicts: Vec<(i64, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        verdicts,
        [
            (wanting, "leased"),
            (filtering, "filter"),
            (other_type, "type"),
            (paused, "paused"),
            (gone, "unsubscribed"),
            (later, "created_later")
        ]
    );
    relay.record(&[sent((wanting, event_seq), 500)]).await;
    let row = app
        .query_one(&format!("select x.name, x.verdict, x.detail, x.attempts, x.next_attempt_at > now() from outbox.event e, lateral outbox.explain(e.event_id) x where x.subscription_id = {wanting}"), &[])
        .await
        .expect("explained");
    assert_eq!(
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)),
        ("wanting", "failed", "test rejected", 1, true)
    );
    assert!(app.one::<bool>("select bool_and(detail is not null or verdict = 'leased') from outbox.event e, lateral outbox.explain(e.event_id) x").await, "a reason for each");
}

#[tokio::test]
async fn explain_knows_tests_and_refuses_what_is_not_there() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let (tested, other) = (app.subscribe("*").await, app.subscribe("*").await);
    app.run(&format!("select outbox.send_test({tested})")).await;
    relay.expand_all(&Expand::default()).await;
    assert_eq!(verdict(&app, 1, tested).await, "pending");
    assert_eq!(verdict(&app, 1, other).await, "addressed");
    app.refused("select outbox.explain(gen_random_uuid())", "OB021").await;
    app.refused("select outbox.explain(null)", "OB021").await;
}

#[tokio::test]
async fn status_counts_what_there_is() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let quiet: bool = app
        .one("select (log_head, unexpanded_events, pending, leased, failed, dead_letters, relays) = (0, 0, 0, 0, 0, 0, 1) and oldest_due is null and lag = '0' and hold is null and environment = 'test' from outbox.status()")
        .await;
    assert!(quiet);
    app.subscribe_with("*", "retry_policy => 'short'").await;
    let brief = app.subscribe_with("dead", "retry_policy => 'none'").await;
    app.insert_many("a", 5).await;
    app.insert("dead", "{}").await;
    let leases = relay.expand_all(&Expand { lease_limit: 4, ..Expand::default() }).await.leases;
    relay.record(&[sent(leases[0], 200), sent(leases[1], 500)]).await;
    relay.claim(&Claim { lease_limit: 10, busy: vec![(leases[0].0, 1000)], ..Claim::default() }).await;
    relay.record(&[sent((brief, 6), 500)]).await;
    app.insert_many("a", 2).await;
    let row = app
        .query_one("select log_head, unexpanded_events, pending, leased, failed, dead_letters, oldest_due is not null, lag > '0' from outbox.status()", &[])
        .await
        .expect("the status");
    let counts: Vec<i64> = (0..6).map(|column| row.get(column)).collect();
    assert_eq!(counts, [8, 2, 2, 2, 1, 1]);
    assert!(row.get::<_, bool>(6) && row.get::<_, bool>(7));

    app.kill(&relay.session).await;
    assert_eq!(app.one::<i64>("select relays from outbox.status()").await, 0, "the living only");
}

#[tokio::test]
async fn status_does_not_read_history() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    for _ in 0..4 {
        app.insert_many("a", 1000).await;
        let leases = relay.expand_all(&Expand::default()).await.leases;
        relay.record(&leases.iter().map(|lease| sent(*lease, 200)).collect::<Vec<_>>()).await;
    }
    app.run("vacuum analyze outbox.event, outbox_relay.finished, outbox_relay.queue").await;
    app.run("begin").await;
    let reads = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_xact_user_tables where relname in ('event_s0', 'finished_s0', 'attempt_s0')";
    let before: i64 = app.one(reads).await;
    app.run("select outbox.status()").await;
    let read = app.one::<i64>(reads).await - before;
    app.run("commit").await;
    assert!(read <= 2000, "read {read} rows of 12000");
}

#[tokio::test]
async fn the_delivery_view_asks_only_the_side_that_can_have_the_state() {
    let db = Db::new().await;
    let app = db.session().await;
    for (state, absent) in [
        ("succeeded", "queue"),
        ("dead_letter", "queue"),
        ("cancelled", "queue"),
        ("pending", "finished"),
        ("leased", "finished"),
        ("failed", "finished"),
    ] {
        let plan = app
            .all::<String>(&format!("explain select * from outbox.delivery where state = '{state}'"))
            .await
            .join("\n");
        assert!(!plan.contains(&format!(" on {absent}")), "{state}:\n{plan}");
    }
}
