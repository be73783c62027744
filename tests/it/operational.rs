//! Disabling what has failed for too long, and the events by which outboxd tells of itself.

use crate::support::{Daemon, Db, Expand, Relay, Session, Sink, sent};
use hyper::StatusCode;
use serde_json::Value;

/// The operational events so far: tenant, type, payload.
async fn told(session: &Session) -> Vec<(String, String, Value)> {
    session
        .query(
            "select tenant_id, type, payload::text from outbox.event where type like 'outbox.%' order by event_seq",
            &[],
        )
        .await
        .expect("the events")
        .iter()
        .map(|row| (row.get(0), row.get(1), serde_json::from_str(row.get(2)).expect("JSON")))
        .collect()
}

async fn stage() -> (Db, Session, Relay, i64) {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    let failing = app.subscribe_with("order.*", "name => 'orders', retry_policy => 'none'").await;
    (db, app, relay, failing)
}

/// As if it had failed for so long, to the last minute.
async fn fail_for(session: &Session, subscription: i64, span: &str) {
    session
        .run(&format!(
            "insert into outbox.subscription_health (subscription_id, failing_since, last_failure_at, consecutive_failures)
             values ({subscription}, now() - interval '{span}', now(), 5)
             on conflict (subscription_id) do update set failing_since = excluded.failing_since, last_failure_at = now()"
        ))
        .await;
}

#[tokio::test]
async fn what_nobody_is_told_rings_no_bell() {
    let (db, app, relay, failing) = stage().await;
    let (sleeper, mut bell) = (db.session().await, db.listener("outbox_bell").await);
    let event = app.insert("order.created", "{}").await;
    relay.expand_all(&Expand::default()).await;
    sleeper.run("select pg_advisory_lock(1869968482, 1)").await;
    let told = relay.record_one(sent((failing, event), 503)).await.expect("told");
    assert_eq!((told.state.as_deref(), bell.count().await), (Some("dead_letter"), 0));
    app.insert("order.created", "{}").await;
    assert_eq!(bell.count().await, 1, "this bell can be heard");
}

#[tokio::test]
async fn a_dead_letter_is_told_to_who_asked() {
    let (_db, app, relay, failing) = stage().await;
    let listener = app.subscribe_with("outbox.delivery.*", "name => 'ops'").await;
    let event = app.insert("order.created", r#"{"card": "4711"}"#).await;
    relay.expand_all(&Expand::default()).await;
    relay.record_one(sent((failing, event), 503)).await;
    let told = told(&app).await;
    assert_eq!(told.len(), 1);
    let (tenant, kind, payload) = &told[0];
    assert_eq!((tenant.as_str(), kind.as_str()), ("default", "outbox.delivery.dead_letter"));
    assert_eq!((&payload["subscription_id"], &payload["event_seq"]), (&failing.into(), &event.into()));
    assert_eq!((&payload["last_status_code"], &payload["attempts"]), (&503.into(), &1.into()));
    assert_eq!(payload["event_type"], "order.created");
    assert!(!payload.to_string().contains("4711"), "{payload}");
    let leases = relay.expand_all(&Expand::default()).await.leases;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].0, listener);
}

#[tokio::test]
async fn news_that_nobody_asked_for_is_not_written() {
    let (_db, app, relay, failing) = stage().await;
    app.subscribe_with("*", "name => 'all', tenant_id => 'default'").await;
    app.subscribe_with("outbox.*", "name => 'stranger', tenant_id => 'other'").await;
    let event = app.insert("order.created", "{}").await;
    relay.expand_all(&Expand::default()).await;
    relay.record_one(sent((failing, event), 503)).await;
    assert!(told(&app).await.is_empty());
}

#[tokio::test]
async fn everything_does_not_mean_the_news_of_outboxd() {
    let (_db, app, relay, _) = stage().await;
    let all = app.subscribe_with("*", "name => 'all'").await;
    let both = app.subscribe_with("*, outbox.*", "name => 'both'").await;
    let news = app.insert("outbox.something", "{}").await;
    let mut leases = relay.expand_all(&Expand::default()).await.leases;
    leases.sort_unstable();
    assert_eq!(leases, [(both, news)]);
    app.insert("invoice.sent", "{}").await;
    let mut leases = relay.expand_all(&Expand::default()).await.leases;
    leases.sort_unstable();
    assert_eq!(leases, [(all, news + 1), (both, news + 1)]);
    app.assert_accounted().await;
}

#[tokio::test]
async fn the_operator_hears_of_every_tenant() {
    let (_db, app, relay, failing) = stage().await;
    app.run("select outbox.set('operator_tenant', 'ops')").await;
    app.subscribe_with("outbox.*", "name => 'ops', tenant_id => 'ops'").await;
    let event = app.insert("order.created", "{}").await;
    relay.expand_all(&Expand::default()).await;
    relay.record_one(sent((failing, event), 503)).await;
    let told = told(&app).await;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].0.as_str(), &told[0].2["tenant_id"]), ("ops", &"default".into()));
}

#[tokio::test]
async fn the_failure_of_news_is_no_news() {
    let (_db, app, relay, failing) = stage().await;
    let listener = app.subscribe_with("outbox.*", "name => 'ops', retry_policy => 'none'").await;
    let event = app.insert("order.created", "{}").await;
    relay.expand_all(&Expand::default()).await;
    relay.record_one(sent((failing, event), 503)).await;
    for lease in relay.expand_all(&Expand::default()).await.leases {
        assert_eq!(lease.0, listener);
        relay.record_one(sent(lease, 503)).await;
    }
    app.run(&format!("select outbox.send_test({listener}, type => 'order.created')")).await;
    let test: i64 = app.one("select max(event_seq) from outbox.event").await;
    app.run(&format!(
        "update outbox_relay.queue set state = 'leased', epoch = {}, next_attempt_at = null",
        relay.epoch
    ))
    .await;
    relay.record_one(sent((listener, test), 503)).await;
    assert_eq!(app.state(listener, test).await.as_deref(), Some("dead_letter"));
    assert_eq!(told(&app).await.len(), 1);
}

#[tokio::test]
async fn what_only_failed_for_five_days_is_disabled_and_tells_when_it_recovers() {
    let (_db, app, relay, failing) = stage().await;
    app.subscribe_with("outbox.subscription.*", "name => 'ops'").await;
    fail_for(&app, failing, "4 days 23 hours").await;
    app.run("select outbox_relay.maintain()").await;
    assert!(app.one::<bool>("select active from outbox.subscription where name = 'orders'").await);
    fail_for(&app, failing, "5 days 1 hour").await;
    let done: Vec<String> = app.all("select action || ' ' || coalesce(detail, '') from outbox_relay.maintain()").await;
    assert!(done.iter().any(|line| line == &format!("disabled subscription {failing}")), "{done:?}");
    let reason: String = app.one("select disabled_reason from outbox.subscription where name = 'orders'").await;
    assert!(reason.starts_with("nothing but failures since 20"), "{reason}");
    let told_first = told(&app).await;
    assert_eq!(told_first.len(), 1);
    assert_eq!(told_first[0].1, "outbox.subscription.disabled");
    assert_eq!(told_first[0].2["reason"], reason.as_str());

    // Resumed, it has another five days, and its first success is news.
    app.run(&format!("select outbox.resume({failing}); select outbox_relay.maintain()")).await;
    assert!(app.one::<bool>("select active from outbox.subscription where name = 'orders'").await);
    for _ in 0..2 {
        app.run(&format!("select outbox_relay.add_health('{{{failing}}}', '{{1}}', '{{0}}', '{{0}}', array[now()], array[null::timestamptz])"))
            .await;
    }
    let kinds: Vec<String> = told(&app).await.into_iter().map(|(_, kind, _)| kind).collect();
    assert_eq!(kinds, ["outbox.subscription.disabled", "outbox.subscription.recovered"]);
    drop(relay);
}

#[tokio::test]
async fn one_old_failure_is_no_span_of_failures() {
    let (_db, app, _relay, failing) = stage().await;
    app.run(&format!(
        "insert into outbox.subscription_health (subscription_id, failing_since, last_failure_at, consecutive_failures)
         values ({failing}, now() - interval '30 days', now() - interval '30 days', 1);
         select outbox_relay.maintain()"
    ))
    .await;
    assert!(app.one::<bool>("select active from outbox.subscription").await);
}

#[tokio::test]
async fn one_that_somebody_is_changing_is_disabled_later() {
    let (db, app, _relay, failing) = stage().await;
    fail_for(&app, failing, "6 days").await;
    let operator = db.session().await;
    operator.run("begin; update outbox.subscription set description = 'x'").await;
    app.run("select outbox_relay.maintain()").await;
    operator.run("commit").await;
    assert!(app.one::<bool>("select active from outbox.subscription").await);
    app.run("select outbox_relay.maintain()").await;
    assert!(!app.one::<bool>("select active from outbox.subscription").await);
}

#[tokio::test]
async fn gone_is_told_and_delivered_by_the_real_program() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::new(|arrived, _| if arrived.path == "/gone" { StatusCode::GONE } else { StatusCode::OK }).await;
    let gone = session.endpoint(&sink.url("/gone"), "").await;
    let ops = session.endpoint(&sink.url("/ops"), "").await;
    session
        .run(&format!("update outbox.subscription set event_types = '{{outbox.*}}' where subscription_id = {}", ops.id))
        .await;
    let _relay = Daemon::on(&db).await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(ops.id, "succeeded", 2).await;
    let mut kinds: Vec<String> = sink
        .arrived_at("/ops")
        .iter()
        .map(|arrived| {
            let body: Value = serde_json::from_slice(&arrived.body).expect("JSON");
            assert_eq!(body["data"]["subscription_id"], gone.id);
            body["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["outbox.delivery.dead_letter", "outbox.subscription.disabled"]);
}
