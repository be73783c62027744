//! Operating: tests, replays, cancels, holds, settings, and a database that has moved.

use crate::support::{Claim, Db, Expand, Relay, Session, sent};
use std::collections::HashSet;

/// A relay, a subscription to everything, and that many deliveries that ended in these states.
async fn history(states: &[u16]) -> (Db, Session, Relay, i64) {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe_with("*", "retry_policy => 'none'").await;
    app.insert_many("a", states.len() as i64).await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    let results: Vec<_> = leases.iter().zip(states).map(|(lease, status)| sent(*lease, *status as i16)).collect();
    relay.record(&results).await;
    (db, app, relay, subscription)
}

async fn outstanding(app: &Session) -> Vec<i64> {
    app.all("select event_seq from outbox_relay.queue order by event_seq").await
}

#[tokio::test]
async fn a_test_goes_to_its_subscription_alone() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("order.*").await;
    app.subscribe("*").await;
    let id: String = app
        .one(&format!(
            "select outbox.send_test({subscription}, type => 'order.created', payload => '{{\"n\": 1}}')::text"
        ))
        .await;
    let stored: bool = app
        .one_of("select type = 'order.created' and payload = '{\"n\": 1}' and addressed_to = 1 from outbox.event where event_id = $1::text::uuid", &[&id])
        .await;
    assert!(stored);
    relay.expand_all(&Expand::default()).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 1)]);
}

#[tokio::test]
async fn a_bad_test_is_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    app.refused(&format!("select outbox.send_test({subscription}, type => 'not a type')"), "OB001").await;
    app.refused(
        &format!("select outbox.send_test({subscription}, payload => to_jsonb(repeat('x', 2000000)))"),
        "OB003",
    )
    .await;
    app.run(&format!("select outbox.send_test({subscription}, type => null, payload => null)")).await; // the defaults
}

#[tokio::test]
async fn whatever_its_state_a_delivery_is_due_now_after_a_replay() {
    let (_db, app, relay, subscription) = history(&[200, 500]).await;
    app.insert("later", "{}").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    app.run("update outbox_relay.queue set next_attempt_at = now() + interval '1 hour', failures = 3").await;
    let replay = |event_seq: i64| format!("select outbox.replay({subscription}, {event_seq})");
    assert_eq!(app.one::<String>(&replay(1)).await, "failed", "succeeded before: it has attempts");
    assert_eq!(app.one::<String>(&replay(2)).await, "failed");
    assert_eq!(app.one::<String>(&replay(3)).await, "pending");
    let due: bool = app
        .one("select bool_and(next_attempt_at <= now() and failures = 0 and cause = 'replay') from outbox_relay.queue")
        .await;
    assert!(due);
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 3);
    assert_eq!(app.one::<String>(&replay(1)).await, "leased", "under way: nothing to do");
    assert_eq!(app.deliveries().await.len(), 3);
    app.assert_accounted().await;
}

#[tokio::test]
async fn replays_compose_with_a_query() {
    let (_db, app, _relay, _) = history(&[200, 500, 200, 500]).await;
    app.run("create table orders (event_seq bigint); insert into orders values (1), (2)").await;
    app.run(
        "select outbox.replay(d.subscription_id, d.event_seq) from outbox.delivery d join orders o using (event_seq)",
    )
    .await;
    assert_eq!(outstanding(&app).await, [1, 2]);
}

#[tokio::test]
async fn an_event_of_before_the_subscription_can_be_replayed_to_it() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::default()).await;
    let subscription = app.subscribe("b").await;
    assert_eq!(app.one::<String>(&format!("select outbox.replay({subscription}, 1)")).await, "pending");
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 1)]);
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.refused(&format!("select outbox.replay({subscription}, 99)"), "OB021").await;
    app.refused(&format!("select outbox.replay({subscription}, null)"), "OB021").await;
    app.refused("select outbox.replay(gen_random_uuid())", "OB021").await;
    app.refused("select outbox.replay(null::uuid)", "OB021").await;
    let unexpanded = app.insert("a", "{}").await;
    app.refused(&format!("select outbox.replay({subscription}, {unexpanded})"), "OB023").await;
    relay.expand_all(&Expand::default()).await;

    let foreign: i64 = app
        .one("insert into outbox.event (tenant_id, type, payload) values ('globex', 'a', '{}') returning event_seq")
        .await;
    let other = app.subscribe("*").await;
    app.run(&format!("select outbox.send_test({other})")).await;
    relay.expand_all(&Expand::default()).await;
    app.refused(&format!("select outbox.replay({subscription}, {foreign})"), "OB022").await;
    app.refused(&format!("select outbox.replay({subscription}, {})", foreign + 1), "OB022").await;
    let by_id = format!(
        "select outbox.replay(event_id, subscription_id => {subscription}) from outbox.event where event_seq = {foreign}"
    );
    app.refused(&by_id, "OB022").await;
    app.refused(
        "select outbox.replay(event_id, tenant_id => 'default') from outbox.event where tenant_id = 'globex'",
        "OB022",
    )
    .await;
}

#[tokio::test]
async fn replaying_an_event_sends_it_to_all_that_had_it_or_to_the_one_named() {
    let (_db, app, _relay, first) = history(&[200, 200]).await;
    let second = app.subscribe("*").await;
    let by_id = |more: &str| format!("select outbox.replay(event_id{more}) from outbox.event where event_seq = 1");
    assert_eq!(app.one::<i64>(&by_id("")).await, 1, "the second never had it");
    assert_eq!(app.one::<i64>(&by_id(&format!(", subscription_id => {second}"))).await, 1);
    assert_eq!(app.one::<i64>(&by_id("")).await, 2);
    let queued: Vec<i64> = app.all("select subscription_id from outbox_relay.queue order by 1").await;
    assert_eq!(queued, [first, second]);
    app.run(&format!("select outbox.unsubscribe({second})")).await;
    assert_eq!(app.one::<i64>(&by_id("")).await, 1, "who left is left out");
}

#[tokio::test]
async fn replays_wake_the_relay() {
    let (db, app, _relay, subscription) = history(&[200]).await;
    let mut signal = db.listener("outbox_signal").await;
    app.run(&format!("select outbox.replay({subscription}, 1)")).await;
    assert_eq!(signal.count().await, 1);
}

#[tokio::test]
async fn two_replays_at_once_make_one_delivery() {
    let (db, app, _relay, subscription) = history(&[500]).await;
    let other = db.session().await;
    app.run(&format!("begin; select outbox.replay({subscription}, 1)")).await;
    let second = other.start(&format!("select outbox.replay({subscription}, 1)"));
    db.session().await.wait_until_blocked(&other).await;
    app.run("commit").await;
    second.await.expect("no panic").expect("replayed");
    assert_eq!(app.deliveries().await.len(), 1);
}

#[tokio::test]
async fn the_dead_letters_of_a_window_are_replayed_once() {
    let (_db, app, _relay, subscription) = history(&[500, 500, 200, 500]).await;
    app.run("update outbox_relay.finished set finished_at = timestamptz '2024-01-01 00:00:00+00' + make_interval(days => event_seq::int)").await;
    let failed = |more: &str| format!("select outbox.replay_failed({subscription}{more})");
    assert_eq!(app.one::<i64>(&failed(", dry_run => true")).await, 3);
    assert!(outstanding(&app).await.is_empty());
    let window = ", since => '2024-01-02 00:00:00+00', until => '2024-01-03 00:00:00+00'";
    assert_eq!(app.one::<i64>(&failed(window)).await, 1, "since is inclusive, until exclusive");
    assert_eq!(outstanding(&app).await, [1]);
    assert_eq!(app.one::<i64>(&failed(", since => '2024-01-05 00:00:00+00'")).await, 1);
    assert_eq!(app.one::<i64>(&failed("")).await, 1, "the rest");
    assert_eq!(app.one::<i64>(&failed("")).await, 0);
    assert_eq!(outstanding(&app).await, [1, 2, 4], "what succeeded is left alone");
    app.assert_accounted().await;
}

#[tokio::test]
async fn what_never_got_a_delivery_is_found_in_its_window() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    for day in 1..=4 {
        app.run(&format!(
            "select outbox.publish('order.created', '{{\"day\": {day}}}', occurred_at => '2024-01-0{day} 00:00:00+00')"
        ))
        .await;
    }
    app.run("select outbox.publish('other', '{}', occurred_at => '2024-01-02 00:00:00+00')").await;
    app.run("select outbox.publish('order.created', '{\"day\": 1}', tenant_id => 'globex')").await;
    relay.expand_all(&Expand::default()).await;
    let subscription = app.subscribe_with("order.*", "filter => '$.day < 4'").await;
    let missing = |more: &str| format!("select outbox.replay_missing({subscription}{more})");
    assert_eq!(app.one::<i64>(&missing(", dry_run => true")).await, 3);
    assert!(outstanding(&app).await.is_empty());
    let window = ", since => '2024-01-02 00:00:00+00', until => '2024-01-03 00:00:00+00'";
    assert_eq!(app.one::<i64>(&missing(window)).await, 1);
    assert_eq!(app.one::<i64>(&missing("")).await, 2);
    assert_eq!(app.one::<i64>(&missing("")).await, 0);
    assert_eq!(outstanding(&app).await, [1, 2, 3]);

    app.run("select outbox.publish('order.created', '{\"day\": 1}')").await;
    assert_eq!(app.one::<i64>(&missing("")).await, 0, "what is not expanded yet comes by itself");
    relay.expand_all(&Expand::default()).await;
    assert_eq!(app.deliveries().await.len(), 4);
}

#[tokio::test]
async fn a_pause_is_made_good_by_replaying_what_is_missing() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.run(&format!("select outbox.pause({subscription})")).await;
    app.insert_many("a", 5).await;
    relay.expand_all(&Expand::default()).await;
    app.run(&format!("select outbox.resume({subscription})")).await;
    assert_eq!(app.one::<i64>(&format!("select outbox.replay_missing({subscription})")).await, 5);
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_window_that_ends_before_it_begins_is_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    for function in ["replay_failed", "replay_missing"] {
        app.refused(
            &format!("select outbox.{function}({subscription}, since => '2024-01-02', until => '2024-01-01')"),
            "OB018",
        )
        .await;
    }
}

#[tokio::test]
async fn what_is_outstanding_can_be_cancelled_once() {
    let (_db, app, relay, subscription) = history(&[200]).await;
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    app.run(&format!("select outbox.cancel({subscription}, 2)")).await;
    assert_eq!(app.state(subscription, 2).await.as_deref(), Some("cancelled"));
    for event_seq in ["1", "2", "99", "null"] {
        app.refused(&format!("select outbox.cancel({subscription}, {event_seq})"), "OB021").await;
    }
    app.run(&format!("select outbox.replay({subscription}, 2)")).await;
    assert_eq!(app.state(subscription, 2).await.as_deref(), Some("pending"), "and taken back");
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_hold_names_its_reason_and_release_lifts_all() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let mut signal = db.listener("outbox_signal").await;
    app.run("select outbox.hold('first')").await;
    app.run("select outbox.hold('second')").await;
    assert_eq!(signal.count().await, 2);
    assert_eq!(relay.tick().await.1.as_deref(), Some("first"));
    assert_eq!(app.one::<String>("select hold from outbox.status()").await, "first");
    app.run("select outbox.release()").await;
    assert_eq!(relay.tick().await.1, None);
    assert_eq!(app.one::<Option<String>>("select hold from outbox.status()").await, None);
    app.refused("select outbox.hold('')", "OB018").await;
    app.refused("select outbox.hold(null)", "OB018").await;
}

#[tokio::test]
async fn settings_are_checked_when_they_are_set() {
    const TABLE: [(&str, &str, bool); 22] = [
        ("allow_insecure_http", "'true'", true),
        ("allow_insecure_http", "'off'", true),
        ("allow_insecure_http", "'maybe'", false),
        ("allow_insecure_http", "null", false),
        ("retention", "'90 days'", true),
        ("retention", "'-1 day'", false),
        ("retention", "'1 second'", false),
        ("retention", "'a while'", false),
        ("segment_events", "'1000'", true),
        ("segment_events", "'999'", false),
        ("segment_events", "'1e6'", false),
        ("segment_events", "'99999999999999999999'", false),
        ("default_retry_policy", "'short'", true),
        ("default_retry_policy", "'forever'", false),
        ("default_timeout", "'100 milliseconds'", true),
        ("default_timeout", "'6 minutes'", false),
        ("response_excerpt_bytes", "'0'", true),
        ("response_excerpt_bytes", "'65537'", false),
        ("max_payload_bytes", "'1023'", false),
        ("secret_overlap", "'0'", true),
        ("environment", "'staging'", false),
        ("no_such_setting", "'1'", false),
    ];
    let db = Db::new().await;
    let app = db.session().await;
    for (name, value, is_accepted) in TABLE {
        let set = format!("select outbox.set('{name}', {value})");
        if is_accepted {
            app.run(&set).await;
            assert!(
                app.one::<bool>(&format!("select value = {value} from outbox.setting where name = '{name}'")).await
            );
        } else {
            app.refused(&set, "OB030").await;
        }
    }
    app.refused("select outbox.set(null, '1')", "OB030").await;
}

#[tokio::test]
async fn every_setting_is_described_and_has_a_value_it_would_accept() {
    let db = Db::new().await;
    let app = db.session().await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.setting where length(description) < 20").await, 0);
    app.run("select outbox.set(name, value) from outbox.setting where name <> 'environment'").await;
}

#[tokio::test]
async fn the_first_relay_claims_a_new_database_and_a_foreign_one_holds() {
    let db = Db::new().await;
    let app = db.session().await;
    let home = Relay::named(&db, "relay-1", "production").await;
    assert_eq!(app.one::<String>("select environment from outbox.status()").await, "production");
    let foreign = Relay::named(&db, "relay-2", "staging").await;
    let reason = foreign.tick().await.1.expect("it holds");
    assert!(reason.contains("outbox.adopt('staging')"), "{reason}");
    assert_eq!(home.tick().await.1, None);

    let said: String = app.one("select outbox.adopt('staging')").await;
    assert_eq!(said, "adopted as staging");
    assert_eq!(foreign.tick().await.1, None);
    assert!(home.tick().await.1.is_some());
    assert_eq!(home.try_expand(&Expand::default()).await, None);
    for bad in ["''", "null", "'a b'", "repeat('x', 64)"] {
        app.refused(&format!("select outbox.adopt({bad})"), "OB031").await;
    }
}

/// A logical dump restored into another cluster: transaction ids begin again, the cursor speaks of ids
/// far above them, and so do the events.
#[tokio::test]
async fn a_restored_database_holds_and_after_adoption_sends_what_was_pending_and_nothing_twice() {
    let (db, app, relay, subscription) = history(&[200, 500, 200]).await;
    app.run("insert into outbox.event (type, payload) values ('was.open', '{}'), ('unexpanded', '{}')").await;
    app.run(
        "update outbox.event set xact = case type when 'was.open' then '900000150' when 'unexpanded' then '900000250' else '900000001' end::xid8;
         update outbox_relay.cursor set seen = '900000100:900000200:900000150', seen_seq = 4, floor_xact = '900000001', floor_seq = 0,
             next_xact = '900000200', next_seq = 4, head_xact = '900000200', head_seq = 4
         where cursor_id = (select max(cursor_id) from outbox_relay.cursor);
         update outbox_relay.subscription_version set xact = '900000000';
         update outbox_relay.origin set system_identifier = system_identifier + 1",
    )
    .await;
    app.kill(&relay.session).await;

    let relay = Relay::named(&db, "relay-2", "test").await;
    let reason = relay.tick().await.1.expect("it holds");
    assert!(reason.contains("restored into another cluster"), "{reason}");
    assert_eq!(relay.try_expand(&Expand::default()).await, None);
    let fresh = app.insert("since.restore", "{}").await;

    let said: String = app.one("select outbox.adopt('test')").await;
    assert_eq!(said, "adopted as test; the log was rebased, 3 deliveries were pending");
    assert_eq!(relay.tick().await.1, None);
    let leases: HashSet<_> = relay.claim(&Claim::default()).await.leases.into_iter().collect();
    assert_eq!(leases, HashSet::from([(subscription, 4), (subscription, 5), (subscription, fresh)]));
    assert_eq!(relay.expand_all(&Expand::default()).await.expanded, 0, "the log is settled up to here");

    let next = app.insert("next", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, [(subscription, next)]);
    assert_eq!(app.deliveries().await.len(), 7);
    app.assert_accounted().await;
    assert!(app.one::<String>("select outbox.adopt('test')").await.ends_with("test"), "adopting again changes nothing");
}

#[tokio::test]
async fn a_transaction_that_was_open_during_adoption_is_expanded() {
    let (db, app, relay, subscription) = history(&[200]).await;
    let writer = db.session().await;
    app.run("update outbox_relay.origin set system_identifier = system_identifier + 1").await;
    writer.run("begin; create table mine (n int)").await; // has its id before, its events after
    app.run("select outbox.adopt('test')").await;
    let late = writer.insert("a", "{}").await;
    writer.run("commit").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, [(subscription, late)]);
    app.assert_accounted().await;
}

#[tokio::test]
async fn leases_of_the_cluster_that_was_left_behind_are_handed_back() {
    let (db, app, relay, _) = history(&[200]).await;
    app.insert("a", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases.len(), 1);
    app.kill(&relay.session).await;
    app.run("update outbox_relay.origin set system_identifier = system_identifier + 1; select outbox.adopt('test')")
        .await;
    let next = Relay::named(&db, "relay-2", "test").await;
    assert_eq!(next.claim(&Claim::default()).await.leases.len(), 1);
}
