//! Who did what, when, on which rows: every operator action leaves a row, whichever way it came.

use crate::support::{Db, Expand, Relay, sent};

/// What an operator can do, and the row it leaves: action, subscription, event. `%` is a subscription with a dead letter of event 1
/// and a pending delivery of event 2.
const ACTIONS: [(&str, &str, bool, bool); 24] = [
    ("select outbox.subscribe('https://hooks.example.com/in', '{x}', name => 'new')", "subscribe", true, false),
    ("update outbox.subscription set description = 'changed' where subscription_id = %", "change", true, false),
    ("select outbox.pause(%, reason => 'inventory')", "pause", true, false),
    ("select outbox.pause(%); select outbox.resume(%)", "resume", true, false),
    ("select outbox.rotate_secret(%)", "rotate_secret", true, false),
    ("select outbox.send_test(%)", "send_test", true, true),
    ("select outbox.replay(%, 1)", "replay", true, true),
    ("select outbox.replay((select event_id from outbox.event where event_seq = 1))", "replay", false, true),
    ("select outbox.replay_failed(%)", "replay_failed", true, false),
    ("select outbox.cancel(%, 2)", "cancel", true, true),
    ("select outbox.skip(%, 1)", "skip", true, true),
    ("select outbox.park(%, 2)", "park", true, true),
    ("select outbox.unsubscribe(%)", "unsubscribe", true, false),
    ("select outbox.hold('noon')", "hold", false, false),
    ("select outbox.release()", "release", false, false),
    ("select outbox.set('retention', '40 days')", "set", false, false),
    ("select outbox.adopt('elsewhere')", "adopt", false, false),
    ("select outbox.define_event_type('a', version => '2')", "define_event_type", false, false),
    ("select outbox.define_event_type('a'); select outbox.archive_event_type('a')", "archive_event_type", false, false),
    ("insert into outbox.retry_policy (name, delays) values ('mine', '{1s}')", "define_retry_policy", false, false),
    (
        "insert into outbox.retry_policy (name, delays) values ('mine', '{1s}'); update outbox.retry_policy set jitter = 0 where name = 'mine'",
        "change_retry_policy",
        false,
        false,
    ),
    (
        "insert into outbox.retry_policy (name, delays) values ('mine', '{1s}'); delete from outbox.retry_policy where name = 'mine'",
        "drop_retry_policy",
        false,
        false,
    ),
    ("select outbox.create_token('viewer', description => 'ci')", "create_token", false, false),
    (
        "select outbox.create_token('viewer'); select outbox.revoke_token((select max(token_id) from outbox.token))",
        "revoke_token",
        false,
        false,
    ),
];

#[tokio::test]
async fn every_action_in_sql_leaves_its_row_in_its_own_transaction() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let id = app.subscribe_with("*", "retry_policy => 'none'").await;
    app.insert("a", "{}").await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    relay.record(&[sent(leases[0], 500)]).await;
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    let operator = db.session_as("outbox_operator").await;
    for (statement, action, has_subscription, has_event) in ACTIONS {
        operator.run("begin").await;
        let before: i64 = operator.one("select coalesce(max(audit_id), 0) from outbox.audit").await;
        operator.run(&statement.replace('%', &id.to_string())).await;
        let found: i64 = operator
            .one(&format!(
                "select count(*) from outbox.audit where audit_id > {before} and action = '{action}' and actor = session_user and via = 'sql'
                   and db_user = session_user and (subscription_id is not null) = {has_subscription} and (event_seq is not null) = {has_event}"
            ))
            .await;
        let all: Vec<String> =
            operator.all(&format!("select a::text from outbox.audit a where audit_id > {before}")).await;
        assert_eq!(found, 1, "{statement}: {all:?}");
        operator.run("rollback").await;
        assert_eq!(
            operator.one::<i64>("select coalesce(max(audit_id), 0) from outbox.audit").await,
            before,
            "what is undone was not done"
        );
    }
}

#[tokio::test]
async fn what_changes_nothing_leaves_nothing() {
    let db = Db::new().await;
    let app = db.session().await;
    let id = app.subscribe("*").await;
    let before: i64 = app.one("select count(*) from outbox.audit").await;
    app.run(&format!("select outbox.resume({id}); select outbox.replay_failed({id}); select outbox.replay_failed({id}, dry_run => true)")).await;
    app.run("update outbox.subscription set description = description").await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.audit").await, before);
}

#[tokio::test]
async fn a_circuit_that_is_closed_by_hand_is_noted() {
    let db = Db::new().await;
    let app = db.session().await;
    let id = app.subscribe("*").await;
    app.run(&format!(
        "insert into outbox.subscription_health (subscription_id, circuit, circuit_until) values ({id}, 'open', now()); select outbox.resume({id})"
    ))
    .await;
    let detail: String = app.one("select detail::text from outbox.audit where action = 'resume'").await;
    assert!(detail.contains("closed"), "{detail}");
}

#[tokio::test]
async fn no_secret_of_an_url_a_key_or_a_token_is_in_it() {
    let db = Db::new().await;
    let app = db.session().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    app.run(&format!(
        "select outbox.subscribe('https://hooks.example.com/in?token=hunter2', '{{*}}', secret => '{secret}');
         update outbox.subscription set url = 'https://hooks.example.com/in?token=hunter2?to=hunter3'"
    ))
    .await;
    let rotated: String = app.one("select (outbox.rotate_secret(1)).secret").await;
    let token: String = app.one("select outbox.create_token('viewer')").await;
    let all = app.all::<String>("select a::text from outbox.audit a").await.join("\n");
    for hidden in ["hunter", secret, &rotated, &token] {
        assert!(!all.contains(hidden), "{hidden} in {all}");
    }
    let changes: i64 = app.one("select count(*) from outbox.audit where action = 'change' and detail ? 'url'").await;
    assert_eq!(changes, 1, "that the query changed is seen");
}

#[tokio::test]
async fn nobody_but_the_daemon_can_act_in_anothers_name() {
    let db = Db::new().await;
    let operator = db.session_as("outbox_operator").await;
    operator.run("set outbox.actor = 'token 1 (the boss)'; select outbox.hold('mischief')").await;
    let row: String = operator.one("select actor || ' ' || via from outbox.audit").await;
    assert_eq!(row, "outbox_operator sql");
    operator.refused("update outbox.audit set actor = 'me'", "42501").await;
}

#[tokio::test]
async fn what_outboxd_does_by_itself_is_told_apart() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.insert("a", "{}").await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    relay.record(&[sent(leases[0], 410)]).await;
    let row: String =
        app.one("select actor || ' ' || via || ' ' || action from outbox.audit where action = 'disable'").await;
    assert_eq!(row, "relay relay disable");
}

#[tokio::test]
async fn it_is_kept_for_as_long_as_the_setting_says() {
    let db = Db::new().await;
    let app = db.session().await;
    app.subscribe("*").await;
    app.run("update outbox.audit set at = now() - interval '2 years'; select outbox.hold('later')").await;
    app.run("select outbox_relay.maintain()").await;
    assert_eq!(app.all::<String>("select action from outbox.audit").await, ["hold"]);
}
