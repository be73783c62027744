//! What would stop one delivery, or one session, stops nobody else: times and filters that never come to an
//! end, rules that came later, transactions that operators and bulk writers leave open, a bell nobody answers.

use crate::support::{Daemon, Db, Expand, Relay, Session, Sink};
use std::time::{Duration, Instant};

/// Far from the poll interval of the relays that are to be rung for, and generous to a busy machine.
const BEFORE_THE_POLL: Duration = Duration::from_secs(10);

/// Whether some relay sleeps: it holds the door.
const SLEEPS: &str = "select exists (select from pg_locks where locktype = 'advisory' and classid = 1869968482 and objid = 1
    and mode = 'ExclusiveLock' and granted and database = (select oid from pg_database where datname = current_database()))";

async fn stage() -> (Db, Session, Sink) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session, Sink::accepting().await)
}

/// Inserts that many events of one tenant.
async fn insert_for(session: &Session, tenant_id: &str, count: i64) {
    session
        .run(&format!("insert into outbox.event (type, tenant_id, payload) select 'order.created', '{tenant_id}', '{{}}' from generate_series(1, {count})"))
        .await;
}

#[tokio::test]
async fn a_time_that_never_comes_stops_nobody() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut relay = Daemon::on(&db).await;
    let never: i64 = session
        .one("insert into outbox.event (type, payload, deliver_at) values ('order.created', '{}', 'infinity') returning event_seq")
        .await;
    session
        .run(
            "insert into outbox.event (type, payload, deliver_at)
             values ('order.created', '{}', '294276-12-31'), ('order.created', '{}', '-infinity'), ('order.created', '{}', null)",
        )
        .await;
    session.wait_for_state(endpoint.id, "succeeded", 2).await;
    let event_seq = session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 3).await;
    // Only a claim finds a replay, and a claim is what is told when the next one is due.
    session.run(&format!("select outbox.replay({}, {event_seq})", endpoint.id)).await;
    sink.wait_for(4).await;
    session.wait_for_state(endpoint.id, "succeeded", 3).await;
    assert_eq!(session.state(endpoint.id, never).await.as_deref(), Some("pending"));
    session.run(&format!("select outbox.cancel({}, {never})", endpoint.id)).await;
    relay.terminate();
    assert!(relay.ended().await.success());
    assert!(!relay.log().contains("nothing could be claimed"), "{}", relay.log());
    session.assert_accounted().await;
}

#[tokio::test]
async fn a_filter_that_does_not_end_gives_a_dead_letter_that_says_so() {
    let (db, session, sink) = stage().await;
    let slow = session
        .endpoint(
            &sink.url("/slow"),
            "tenant_id => 'a', name => 'slow', filter => '$.s like_regex \"^(x+)(x+)(x+)\\\\1\\\\2\\\\3$\"'",
        )
        .await;
    let plain = session.endpoint(&sink.url("/plain"), "tenant_id => 'a', name => 'plain'").await;
    let other = session.endpoint(&sink.url("/other"), "tenant_id => 'b', filter => '$.n == 1'").await;
    let _relay =
        Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_DATABASE__STATEMENT_TIMEOUT", "1s").spawn().registered().await;
    // An odd number of x is no even one, and the expression has to try them all.
    session
        .run(
            "begin;
             insert into outbox.event (type, tenant_id, payload) values ('order.created', 'b', '{\"n\": 1}');
             insert into outbox.event (type, tenant_id, payload)
             values ('order.created', 'a', jsonb_build_object('s', repeat('x', 4001)));
             insert into outbox.event (type, tenant_id, payload) values ('order.created', 'b', '{\"n\": 1}'), ('order.created', 'b', '{\"n\": 2}');
             commit",
        )
        .await;
    let began = Instant::now();
    session.wait_for_state(slow.id, "dead_letter", 1).await;
    println!("given up after {} ms", began.elapsed().as_millis());
    // Those before and behind it in the same batch are none of its victims.
    session.wait_until("select unexpanded_events = 0 from outbox.status()").await;
    let victims: Vec<i64> = session
        .all(&format!(
            "select event_seq from outbox.delivery where subscription_id = {} and state = 'dead_letter'",
            other.id
        ))
        .await;
    assert!(victims.is_empty(), "given up without having been tried alone: {victims:?}");
    session.wait_for_state(other.id, "succeeded", 2).await;
    session.wait_for_state(plain.id, "succeeded", 1).await;
    assert!(sink.arrived_at("/slow").is_empty());
    let last_error: String =
        session.one(&format!("select last_error from outbox.delivery where subscription_id = {}", slow.id)).await;
    assert_eq!(last_error, "the filter could not be evaluated in time");
    let explained: String = session
        .one("select x.verdict || ': ' || x.detail from outbox.event e, outbox.explain(e.event_id) x where e.tenant_id = 'a' and x.name = 'slow'")
        .await;
    assert_eq!(explained, "dead_letter: the filter could not be evaluated in time");
    // Nobody else pays for it again: the subscription is disabled until somebody mends and resumes it.
    let reason: String = session
        .one(&format!("select disabled_reason from outbox.subscription where subscription_id = {}", slow.id))
        .await;
    assert!(reason.starts_with("its filter did not end within"), "{reason}");
    session.run(&format!("select outbox.resume({})", slow.id)).await;
    // And filters are looked at again.
    session
        .run("insert into outbox.event (type, tenant_id, payload) values ('order.created', 'a', '{\"s\": \"xxxxxx\"}')")
        .await;
    session.wait_for_state(slow.id, "succeeded", 1).await;
    session.wait_for_state(other.id, "succeeded", 2).await;
}

/// As an operator's VACUUM FULL of the queue does.
#[tokio::test]
async fn a_lock_that_is_held_for_longer_than_any_statement_may_take_is_no_filters_fault() {
    let (db, session, sink) = stage().await;
    let filtered = session.endpoint(&sink.url("/filtered"), "filter => '$.n == 1'").await;
    let mut relay =
        Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_DATABASE__STATEMENT_TIMEOUT", "1s").spawn().registered().await;
    let operator = db.session().await;
    operator.run("begin; lock table outbox_relay.queue in access exclusive mode").await;
    session.insert("order.created", "{\"n\": 1}").await;
    session.insert("order.created", "{\"n\": 2}").await;
    // Alone, with all the time there is, and once more after the filters have been tried.
    relay.wait_for_log_times("the log could not be expanded", 5).await;
    operator.run("commit").await;
    session.wait_for_state(filtered.id, "succeeded", 1).await;
    session.wait_until("select unexpanded_events = 0 from outbox.status()").await;
    assert_eq!(session.one::<i64>("select count(*) from outbox.delivery").await, 1);
    session.assert_accounted().await;
}

#[tokio::test]
async fn a_filter_that_could_raise_or_run_wild_is_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    for filter in [
        "$.total > $limit",
        "$.total > $\"a limit\"",
        "$.d.datetime() < \"2020-01-01\".datetime()",
        "$.d.datetime(\"HH24\") < $.e.datetime()",
        "$.** ? (@.a == 1)",
        "$.**{2} == 1",
        "$.a ? (@.b == 1) ? (@.c == 2)",
        "$.a ? (exists (@.b ? (@.c == 2)))",
        "$.a[*] ? (@ == $.b)",
        "$.a == $.b",
        "$.a[*] ? (@.b < @.c)",
        "$.n > -$.m",
        "strict $.a[*] == $.b[*]",
        "strict $.a[0 to 9] == $.b",
    ] {
        let filter = filter.replace('\'', "''");
        app.refused(
            &format!("select outbox.subscribe('https://hooks.example.com/in', '{{a}}', filter => '{filter}')"),
            "OB012",
        )
        .await;
    }
    for filter in [
        r#"$.a == "what? $x ** .datetime(""#,
        r#"$.a == "what? \"$x\" ** ? .datetime(""#,
        r#"$.a ? (@ == "? $")"#,
        r#"$."datetime" == 1"#,
        r#"$."what? ** $" == 1"#,
        r#"$.a like_regex "^.*?x$" flag "i""#,
        r#"$.a * 2 == 4"#,
        r#"strict $.old.state != $.new.state"#,
        r#"$.*.a ? (@ > 1)"#,
    ] {
        app.run(&format!("select outbox.subscribe('https://hooks.example.com/in', '{{a}}', filter => '{filter}')"))
            .await;
    }
    let relay = Relay::new(&db).await;
    app.insert("a", r#"{"a": "what? $x ** .datetime("}"#).await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases.len(), 1);
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_rule_that_came_later_keeps_nobody_from_stopping() {
    let (db, session, sink) = stage().await;
    let (kept, ended) =
        (session.endpoint(&sink.url("/a"), "").await.id, session.endpoint(&sink.url("/b"), "").await.id);
    session.run("select outbox.set('allow_insecure_http', 'false')").await;
    for id in [kept, ended] {
        session.run(&format!("select outbox.pause({id}); select outbox.resume({id}); select outbox.pause({id})")).await;
        session.run(&format!("select outbox.rotate_secret({id})")).await;
        session.run(&format!("update outbox.subscription set description = 'old' where subscription_id = {id}")).await;
    }
    assert_eq!(session.one::<i64>(&format!("select outbox.unsubscribe({ended})")).await, 0);
    let set_url = |url: &str| format!("update outbox.subscription set url = '{url}' where subscription_id = {kept}");
    session.refused(&set_url("http://hooks.example.com/in"), "OB010").await;
    session.run(&set_url("https://hooks.example.com/in")).await;
    session.refused(&set_url(&sink.url("/a")), "OB010").await;
    drop(db);
}

#[tokio::test]
async fn an_operators_open_transaction_holds_up_no_other_subscriptions_results() {
    for (end, state) in [("commit", "cancelled"), ("rollback", "succeeded")] {
        let (db, session, gated) = stage().await;
        let sink = Sink::accepting().await;
        gated.close_gate();
        let a = session.endpoint(&gated.url("/a"), "tenant_id => 'a'").await;
        let b = session.endpoint(&sink.url("/b"), "tenant_id => 'b'").await;
        let _relay = Daemon::on(&db).await;
        insert_for(&session, "a", 1).await;
        gated.wait_for_waiting(1).await;
        let operator = db.session().await;
        let event_seq: i64 = session.one("select event_seq from outbox.event").await;
        operator.run(&format!("begin; select outbox.cancel({}, {event_seq})", a.id)).await;
        gated.open_gate();
        // The relay has A's result now: it waits for the operator's transaction, and gives up waiting.
        session
            .wait_until(&format!(
                "select exists (select from pg_stat_activity where {} = any (pg_blocking_pids(pid)))",
                operator.pid
            ))
            .await;
        for round in 1..=10 {
            insert_for(&session, "b", 5).await;
            session.wait_for_state(b.id, "succeeded", 5 * round).await;
        }
        assert_eq!(
            session.one::<i64>(&format!("select count(*) from outbox.attempt where subscription_id = {}", a.id)).await,
            0
        );
        operator.run(end).await;
        session.wait_until(&format!("select count(*) = 1 from outbox.attempt where subscription_id = {}", a.id)).await;
        assert_eq!(session.state(a.id, event_seq).await.as_deref(), Some(state), "after {end}");
        assert_eq!(gated.arrived().len(), 1);
        session.assert_accounted().await;
    }
}

#[tokio::test]
async fn an_open_adoption_stops_nobody() {
    let (db, session, sink) = stage().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let mut first = Daemon::relay(&db.url(), "first").spawn().registered().await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    let environment: String = session.one("select value from outbox.setting where name = 'environment'").await;
    let operator = db.session().await;
    operator.run(&format!("begin; select outbox.adopt('{environment}')")).await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 2).await;
    // A relay that begins meanwhile works too, alone.
    let mut second = Daemon::relay(&db.url(), "second").spawn().registered().await;
    first.terminate();
    assert!(first.ended().await.success());
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 3).await;
    operator.run("commit").await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 4).await;
    second.terminate();
    assert!(second.ended().await.success());
    session.assert_accounted().await;
}

#[tokio::test]
async fn the_loop_refuses_transactions_with_one_snapshot_for_all() {
    let db = Db::new().await;
    let relay = Relay::new(&db).await;
    let epoch = relay.epoch;
    let calls = [
        format!("select * from outbox_relay.expand({epoch}, 1, 1, 1, '{{}}', '{{}}', false, true)"),
        format!("select * from outbox_relay.claim({epoch}, 1, 1, '{{}}', '{{}}', true)"),
        format!(
            "select * from outbox_relay.record({epoch}, 'relay-1', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', true)"
        ),
        format!("select outbox_relay.fence({epoch})"),
    ];
    for level in ["repeatable read", "serializable"] {
        relay.session.run(&format!("set default_transaction_isolation = '{level}'")).await;
        for call in &calls {
            relay.session.refused(call, "OB041").await;
        }
    }
    relay.session.run("set default_transaction_isolation = 'read committed'").await;
    for call in &calls {
        relay.session.run(call).await;
    }
}

#[tokio::test]
async fn a_quiet_session_can_prepare_its_transaction_while_a_relay_sleeps() {
    let db = Db::new().await;
    let (app, sleeper) = (db.session().await, db.session().await);
    let mut bell = db.listener("outbox_bell").await;
    sleeper.run("select pg_advisory_lock(1869968482, 1)").await;

    app.run("begin").await;
    app.insert("order.created", "{}").await;
    // feature_not_supported: it has executed NOTIFY
    app.refused(&format!("prepare transaction 'loud-{}'", app.pid), "0A000").await;
    assert_eq!(bell.count().await, 0, "it was rolled back");

    app.run("set outbox.quiet = on; begin").await;
    app.insert("order.created", "{}").await;
    app.run(&format!("prepare transaction 'quiet-{}'", app.pid)).await;
    app.run(&format!("commit prepared 'quiet-{}'", app.pid)).await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.event").await, 1);
    assert_eq!(bell.count().await, 0);

    app.run("reset outbox.quiet").await;
    app.insert("order.created", "{}").await;
    assert_eq!(bell.count().await, 1);
}

#[tokio::test]
async fn a_relay_that_would_not_act_leaves_the_bell_to_one_that_does() {
    let (db, session, sink) = stage().await;
    session.endpoint(&sink.url("/in"), "").await;
    session.run("select outbox.adopt('test')").await;
    let relay = |name, environment| {
        Daemon::relay(&db.url(), name)
            .set("OUTBOXD_RELAY__ENVIRONMENT", environment)
            .set("OUTBOXD_RELAY__POLL_INTERVAL", "30s")
            .spawn()
            .registered()
    };
    let mut staging = relay("staging", "staging").await;
    staging.wait_for_log("on hold").await;
    let mut test = relay("test", "test").await;
    session.wait_until(SLEEPS).await;
    let began = Instant::now();
    session.insert("order.created", "{}").await;
    sink.wait_for(1).await;
    assert!(began.elapsed() < BEFORE_THE_POLL, "{:?}", began.elapsed());

    // The one that slept is put on hold, and the other may act now: the bell changes hands.
    session.run("select outbox.adopt('staging')").await;
    test.wait_for_log("on hold").await;
    staging.wait_for_log("the hold is lifted").await;
    let began = Instant::now();
    session.insert("order.created", "{}").await;
    sink.wait_for(2).await;
    assert!(began.elapsed() < BEFORE_THE_POLL, "{:?}", began.elapsed());
    session.wait_until("select count(distinct relay) = 2 from outbox.attempt").await;
}

/// Index entries of the log that this session has read and not reported yet: only differences within a
/// transaction mean something.
const ENTRIES_READ: &str = "select coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0)::bigint
    from pg_partition_tree('outbox.event') p join pg_index i on i.indrelid = p.relid";

#[tokio::test]
async fn what_a_bulk_writer_has_not_committed_is_not_read_again_and_again() {
    const BULK: i64 = 20_000;
    let db = Db::new().await;
    let (app, writer, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    writer.run("begin").await;
    writer.insert_many("order.imported", BULK).await;
    app.insert("order.created", "{}").await;
    let call = Expand::default();
    assert_eq!(relay.expand_all(&call).await.expanded, 1);
    let mut read = Vec::new();
    for _ in 0..4 {
        relay.session.run("begin").await;
        let before: i64 = relay.session.one(ENTRIES_READ).await;
        assert_eq!(relay.expand(&call).await.expanded, 0);
        read.push(relay.session.one::<i64>(ENTRIES_READ).await - before);
        relay.session.run("commit").await;
    }
    println!("index entries read by looks that found nothing: {read:?}");
    assert!(read[3] < 1000, "{read:?}");
    // They come all the same, and so does what was committed before them.
    app.insert("order.created", "{}").await;
    writer.run("commit").await;
    assert_eq!(i64::from(relay.expand_all(&call).await.expanded), BULK + 1);
    app.assert_accounted().await;
}

#[tokio::test]
async fn an_open_transaction_over_many_subscriptions_holds_up_no_other() {
    // To wait a fifth of a second for each of them would take longer than a test waits.
    const MANY: usize = 120;
    let (db, session, sink) = stage().await;
    for n in 0..MANY {
        session.endpoint(&sink.url("/many"), &format!("name => 'many-{n}', tenant_id => 'many'")).await;
    }
    let other = session.endpoint(&sink.url("/other"), "").await;
    let _relay = Daemon::on(&db).await;
    sink.close_gate();
    insert_for(&session, "many", 1).await;
    sink.wait_for_waiting(MANY).await;
    let operator = db.session().await;
    operator
        .run("begin; select outbox.cancel(subscription_id, event_seq) from outbox.delivery where state = 'leased'")
        .await;
    session.insert_many("order.created", 20).await;
    sink.open_gate();
    session.wait_for_state(other.id, "succeeded", 20).await;
    operator.run("rollback").await;
    session.wait_until("select count(*) = 0 from outbox.delivery where state <> 'succeeded'").await;
    assert_eq!(sink.times().values().sum::<usize>(), MANY + 20, "each was recorded in the end, and none sent again");
    session.assert_accounted().await;
}

#[tokio::test]
async fn results_that_an_open_transaction_holds_up_keep_no_payload_from_others() {
    let (db, session, sink) = stage().await;
    let large = session.endpoint(&sink.url("/large"), "tenant_id => 'large'").await;
    let other = session.endpoint(&sink.url("/other"), "").await;
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_RELAY__MAX_PAYLOAD_BYTES_HELD", "1048576")
        .spawn()
        .registered()
        .await;
    sink.close_gate();
    // The two of them fill what the relay may hold.
    let insert = "insert into outbox.event (type, tenant_id, payload)
                  select 'order.created', 'large', jsonb_build_object('photo', repeat('x', 600000)) from generate_series(1, 2)";
    session.run(insert).await;
    sink.wait_for_waiting(2).await;
    let operator = db.session().await;
    operator
        .run(&format!("begin; select from outbox_relay.queue where subscription_id = {} for update", large.id))
        .await;
    sink.open_gate();
    session.insert_many("order.created", 20).await;
    session.wait_for_state(other.id, "succeeded", 20).await;
    session.wait_for_state(large.id, "leased", 2).await;
    operator.run("rollback").await;
    session.wait_for_state(large.id, "succeeded", 2).await;
    assert_eq!(sink.arrived().len(), 22, "each was recorded in the end, and none sent again");
    session.assert_accounted().await;
}
