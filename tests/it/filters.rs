//! A filter that takes for ever on some payload: whose it is is found out, and nobody else pays for it twice.

use crate::support::{Authority, Daemon, Db, PATIENCE, Relay, Session, Sink, expect_error, tls_database};
use outboxd::config::{ConnectSettings, TlsMode};
use std::time::Duration;

/// An odd number of x is no even one, and the expression has to try them all: minutes for some thousand.
const SLOW: &str = r#"$.s like_regex "^(x+)(x+)(x+)\\1\\2\\3$""#;

async fn stage() -> (Db, Session) {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    (db, app)
}

fn insert_slow(tenant_id: &str, length: i32) -> String {
    format!(
        "insert into outbox.event (type, tenant_id, payload) values ('order.created', '{tenant_id}', jsonb_build_object('s', repeat('x', {length})))"
    )
}

/// One call of the search: the suspect, whether it is done, versions and times to go on with.
async fn try_filters(relay: &Relay, events: i32, after: (i64, i64), slow: &[i64]) -> (Option<i64>, bool) {
    let row = relay
        .session
        .query_one(
            "select suspect, done from outbox_relay.try_filters($1, $2, $3, $4, $5, '{}', '{}')",
            &[&relay.epoch, &events, &after.0, &after.1, &slow],
        )
        .await
        .unwrap_or_else(|error| panic!("try_filters: {}", outboxd::schema::describe(&error)));
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn one_that_does_not_end_is_disabled_once_and_everybody_else_is_delivered_to() {
    let (db, app) = stage().await;
    let sink = Sink::accepting().await;
    let slow =
        app.endpoint(&sink.url("/slow"), &format!("tenant_id => 'bad', name => 'slow', filter => '{SLOW}'")).await;
    let beside = app.endpoint(&sink.url("/beside"), "tenant_id => 'bad', filter => '$.s like_regex \"^x\"'").await;
    let news = app
        .one::<i64>(&format!(
            "select (outbox.subscribe('{}', '{{outbox.*}}', tenant_id => 'bad')).subscription_id",
            sink.url("/news")
        ))
        .await;
    let good = app.endpoint(&sink.url("/good"), "tenant_id => 'good', filter => '$.n >= 0'").await;
    // Ten events that hang, among a hundred of somebody else.
    for n in 0..10 {
        app.run(&insert_slow("bad", 4001 + 2 * n)).await;
        app.run("insert into outbox.event (type, tenant_id, payload) select 'order.created', 'good', jsonb_build_object('n', n) from generate_series(1, 10) n").await;
    }
    let _relay = Daemon::on(&db).await;
    app.wait_for_state(good.id, "succeeded", 100).await;
    app.wait_for_state(beside.id, "succeeded", 10).await;
    // The dead letter is of the first; the others were expanded when it was disabled.
    app.wait_for_state(slow.id, "dead_letter", 1).await;
    let (reason, times): (String, i64) = (
        app.one(&format!("select disabled_reason from outbox.subscription where subscription_id = {}", slow.id)).await,
        app.one("select count(*) from outbox_relay.slow_filter").await,
    );
    assert!(reason.starts_with("its filter did not end within 500 milliseconds"), "{reason}");
    assert!(reason.ends_with("event_seq 1"), "{reason}");
    assert_eq!(times, 1);
    let audited: i64 = app
        .one(&format!("select count(*) from outbox.audit where subscription_id = {} and actor = 'relay'", slow.id))
        .await;
    assert_eq!(audited, 1);
    app.wait_until(&format!(
        "select exists (select from outbox.delivery d join outbox.event e using (event_seq) where d.subscription_id = {news}
            and d.state = 'succeeded' and e.type = 'outbox.subscription.disabled' and (e.payload ->> 'subscription_id')::bigint = {})",
        slow.id
    ))
    .await;
    app.assert_accounted().await;

    // Mended, it gets all that it missed.
    app.run(&format!(
        "update outbox.subscription set filter = '$.s like_regex \"^x+$\"' where subscription_id = {}",
        slow.id
    ))
    .await;
    app.run(&format!(
        "select outbox.resume({0}); select outbox.replay_failed({0}); select outbox.replay_missing({0})",
        slow.id
    ))
    .await;
    app.wait_for_state(slow.id, "succeeded", 10).await;
    app.run(&insert_slow("bad", 5)).await;
    app.wait_for_state(slow.id, "succeeded", 11).await;
    app.assert_accounted().await;
}

/// The database behind TLS, and no other way: what does not ask for TLS first is hung up on. Returns its URL.
async fn behind_tls(db: &Db) -> String {
    let url = db.url();
    let (_, behind) = url.split_once('@').expect("a user");
    let (server, name) = behind.split_once('/').expect("a database");
    let port = tls_database(server, &Authority::new().identity("localhost", |_| {})).await;
    format!("postgres://postgres@localhost:{port}/{name}?sslmode=require")
}

#[tokio::test]
async fn where_the_database_is_reached_over_tls_alone_an_expand_is_stopped_all_the_same() {
    let (db, app) = stage().await;
    let sink = Sink::accepting().await;
    app.endpoint(&sink.url("/slow"), &format!("tenant_id => 'bad', filter => '{SLOW}'")).await;
    let good = app.endpoint(&sink.url("/good"), "tenant_id => 'good'").await;
    app.run(&insert_slow("bad", 4001)).await;
    app.run(&insert_slow("good", 1)).await;
    // The server's own limit comes too late for the test.
    let _relay = Daemon::relay(&behind_tls(&db).await, "relay-1")
        .set("OUTBOXD_DATABASE__STATEMENT_TIMEOUT", "10m")
        .spawn()
        .registered()
        .await;
    app.wait_for_state(good.id, "succeeded", 1).await;
    app.assert_accounted().await;
}

#[tokio::test]
async fn with_the_third_of_a_tenant_all_its_filters_go_and_no_new_one_comes_for_an_hour() {
    let (db, app) = stage().await;
    let sink = Sink::accepting().await;
    let mut slow = Vec::new();
    for n in 0..8 {
        // The same, in eight writings.
        let filter = if n == 0 {
            SLOW.to_owned()
        } else {
            format!("$.s ? (@ like_regex \"^(x+)(x+)(x+)\\\\1\\\\2\\\\3({n})?$\")")
        };
        slow.push(app.endpoint(&sink.url("/slow"), &format!("tenant_id => 'bad', filter => '{filter}'")).await.id);
    }
    let plain = app.endpoint(&sink.url("/plain"), "tenant_id => 'bad'").await;
    let good = app.endpoint(&sink.url("/good"), "tenant_id => 'good', filter => '$.s != \"\"'").await;
    app.run("select outbox.set('filter_timeout', '50 milliseconds')").await;
    app.run(&insert_slow("bad", 4001)).await;
    app.run(&insert_slow("good", 1)).await;
    let _relay = Daemon::on(&db).await;
    app.wait_for_state(good.id, "succeeded", 1).await;
    app.wait_for_state(plain.id, "succeeded", 1).await;
    app.wait_until(
        "select count(*) = 0 from outbox.subscription where tenant_id = 'bad' and filter is not null and active",
    )
    .await;
    assert_eq!(
        app.one::<i64>("select count(*) from outbox_relay.slow_filter").await,
        3,
        "no more than three were waited for"
    );
    // Nothing is lost: each has a dead letter of the event at which they were disabled.
    let given_up: i64 = app.one("select count(*) from outbox.delivery where state = 'dead_letter'").await;
    assert_eq!(given_up, 8);
    app.assert_accounted().await;

    let refused =
        "select outbox.subscribe('https://hooks.example.com/in', '{a}', tenant_id => 'bad', filter => '$.n == 1')";
    app.refused(refused, "OB072").await;
    app.refused(&format!("select outbox.resume({})", slow[0]), "OB072").await;
    app.run(&refused.replace(", filter => '$.n == 1'", "")).await;
    app.run(&refused.replace("'bad'", "'good'")).await;
    app.run(&format!(
        "update outbox.subscription set filter = null where subscription_id = {0}; select outbox.resume({0})",
        slow[0]
    ))
    .await;
    app.run("update outbox_relay.slow_filter set found_at = found_at - interval '1 hour'").await;
    app.run(refused).await;
}

#[tokio::test]
async fn a_filter_that_is_slow_on_every_event_is_found_though_it_ends_each_time() {
    let (db, app) = stage().await;
    let relay = Relay::new(&db).await;
    app.subscribe_with("*", "filter => '$.n >= 0'").await;
    let slow = app.subscribe_with("*", &format!("filter => '{SLOW}'")).await;
    app.run("select outbox.set('filter_timeout', '10 milliseconds')").await;
    // Some milliseconds each: not one of them too much.
    for _ in 0..300 {
        app.run(&insert_slow("default", 151)).await;
    }
    let version: i64 =
        app.one(&format!("select version from outbox.subscription where subscription_id = {slow}")).await;
    // Called as the relay does, handing on what was spent.
    let found: Option<i64> = app
        .one(&format!(
            "with recursive t as (
                select x.* from outbox_relay.try_filters({0}, 1000, 0, 0, '{{}}', '{{}}', '{{}}') x
                union all
                select x.* from t cross join lateral
                    outbox_relay.try_filters({0}, 1000, t.reached_seq, t.reached_id, '{{}}', t.versions, t.ms) x
                where t.suspect is null and not t.done)
             select max(suspect) from t",
            relay.epoch
        ))
        .await;
    assert_eq!(found, Some(version));
}

#[tokio::test]
async fn honest_filters_are_never_suspected_and_those_found_out_are_passed_over() {
    let (db, app) = stage().await;
    let relay = Relay::new(&db).await;
    app.run("select outbox.set('filter_timeout', '10 seconds')").await;
    for _ in 0..20 {
        app.subscribe_with("*", "filter => '$.s like_regex \"^x+$\"'").await;
    }
    app.run("insert into outbox.event (type, payload) select 'a', jsonb_build_object('s', repeat('x', 1000)) from generate_series(1, 100)").await;
    assert_eq!(try_filters(&relay, 1000, (0, 0), &[]).await, (None, true));
    let slow = app.subscribe_with("*", &format!("filter => '{SLOW}'")).await;
    app.run(&insert_slow("default", 4001)).await;
    let version: i64 =
        app.one(&format!("select version from outbox.subscription where subscription_id = {slow}")).await;
    assert_eq!(try_filters(&relay, 1000, (0, 0), &[version]).await, (None, true));
    app.run("select outbox.set('filter_timeout', '10 milliseconds')").await;
    relay.session.run("begin; select outbox_relay.begin_trial()").await;
    assert_eq!(try_filters(&relay, 1000, (101, 0), &[]).await, (Some(version), false));
    relay.session.run("commit").await;
}

#[tokio::test]
async fn the_time_of_a_trial_is_the_settings_and_not_that_of_other_calls() {
    let (db, app) = stage().await;
    let relay = Relay::new(&db).await;
    app.run("select outbox.set('filter_timeout', '500 milliseconds')").await;
    let slow = app.subscribe_with("*", &format!("filter => '{SLOW}'")).await;
    app.run(&insert_slow("default", 4001)).await;
    let version: i64 =
        app.one(&format!("select version from outbox.subscription where subscription_id = {slow}")).await;
    let settings = ConnectSettings::new(db.url().parse().expect("a URL"), TlsMode::Disable);
    let pool = outboxd::connect::pool(&settings, 1, PATIENCE).expect("a pool");
    // As with a database.statement_timeout that is shorter than twice filter_timeout.
    let metrics = outboxd::metrics::Metrics::default();
    let calls = outboxd::db::Db::new(pool, Duration::from_millis(50), false, metrics);
    let tried = calls.try_filters(relay.epoch, 10, &outboxd::db::Trial::default()).await.expect("it is found");
    assert_eq!(tried.suspect, Some(version));
}

#[tokio::test]
async fn somebody_elses_cancel_convicts_nobody() {
    let (db, app) = stage().await;
    let relay = Relay::new(&db).await;
    app.run("select outbox.set('filter_timeout', '10 seconds')").await;
    app.subscribe_with("*", &format!("filter => '{SLOW}'")).await;
    app.run(&insert_slow("default", 4001)).await;
    let searching = relay
        .session
        .start(&format!("select * from outbox_relay.try_filters({}, 10, 0, 0, '{{}}', '{{}}', '{{}}')", relay.epoch));
    app.wait_until(&format!("select state = 'active' from pg_stat_activity where pid = {}", relay.session.pid)).await;
    app.run(&format!("select pg_cancel_backend({})", relay.session.pid)).await;
    expect_error(searching.await.expect("it ends").map(|_| ()), "57014");
}

#[tokio::test]
async fn a_filter_that_was_mended_meanwhile_is_not_taken_out_for_what_it_was() {
    let (db, app) = stage().await;
    let relay = Relay::new(&db).await;
    let id = app.subscribe_with("*", &format!("filter => '{SLOW}'")).await;
    let version: i64 = app.one(&format!("select version from outbox.subscription where subscription_id = {id}")).await;
    app.run("update outbox.subscription set filter = '$.s != \"\"'").await;
    app.run(&insert_slow("default", 4001)).await;
    let sql = format!(
        "select count(*) from outbox_relay.expand({}, 1, 10, 10, '{{}}', '{{}}', false, true, '{{{version}}}')",
        relay.epoch
    );
    assert_eq!(relay.session.one::<i64>(&sql).await, 2, "a lease and the summary");
    assert!(app.one::<bool>(&format!("select active from outbox.subscription where subscription_id = {id}")).await);
    app.assert_accounted().await;
}

#[tokio::test]
async fn while_somebody_asks_what_a_hanging_filter_says_everybody_is_delivered_to() {
    let (db, app) = stage().await;
    let sink = Sink::accepting().await;
    let id = app.endpoint(&sink.url("/slow"), &format!("tenant_id => 'bad', filter => '{SLOW}'")).await.id;
    let good = app.endpoint(&sink.url("/good"), "tenant_id => 'good'").await;
    app.run(&format!("select outbox.pause({id})")).await;
    let _relay = Daemon::on(&db).await;
    app.run(&insert_slow("bad", 4001)).await;
    app.wait_until("select unexpanded_events = 0 from outbox.status()").await;
    // The subscription's row is locked by this, and its filter evaluated for minutes.
    let operator = db.session().await;
    operator.run("set statement_timeout = '60s'").await;
    let asking = operator.start(&format!("select outbox.replay_missing({id})"));
    app.wait_until(&format!("select state = 'active' from pg_stat_activity where pid = {}", operator.pid)).await;
    for _ in 0..20 {
        app.run("insert into outbox.event (type, tenant_id, payload) values ('a', 'good', '{}')").await;
        app.run("insert into outbox.event (type, tenant_id, payload) values ('a', 'bad', '{}')").await;
    }
    app.wait_for_state(good.id, "succeeded", 20).await;
    assert!(!asking.is_finished(), "it hangs still");
    app.run(&format!("select pg_cancel_backend({})", operator.pid)).await;
    expect_error(asking.await.expect("it ends").map(|_| ()), "57014");
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_an_error_of_who_asks() {
    let (db, app) = stage().await;
    let relay = Relay::new(&db).await;
    app.run("select outbox.set('max_filter_bytes', '16384'); select outbox.set('max_payload_bytes', '67108864')").await;
    app.subscribe_with("*", "filter => '$.a.a.a.a == 1'").await;
    // PostgreSQL's own limit of its stack, in the session that writes.
    app.refused(
        "insert into outbox.event (type, payload) values ('a', (repeat('[', 1000000) || repeat(']', 1000000))::jsonb)",
        "54001",
    )
    .await;
    let deep = |depth: usize| {
        format!(
            "select outbox.subscribe('https://hooks.example.com/in', '{{a}}', filter => '{}$.a == 1{}')",
            "!(".repeat(depth),
            ")".repeat(depth)
        )
    };
    app.run(&deep(100)).await;
    app.refused(&deep(200_000), "OB012").await;
    // What just fits is expanded.
    app.insert("a", &format!("{}1{}", "{\"a\": ".repeat(1000), "}".repeat(1000))).await;
    let leased = relay.expand(&crate::support::Expand::default()).await;
    assert_eq!(leased.expanded, 1);
    app.assert_accounted().await;
}
