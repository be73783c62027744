//! Producing: what an application may insert, how it is refused, and when the doorbell rings.

use crate::support::{Db, expect_error};
use std::time::SystemTime;

/// The lock that a relay holds while it sleeps, see `outbox_relay.ring`.
const DOOR: &str = "1869968482, 1";

#[tokio::test]
async fn a_plain_insert_fills_in_everything_but_type_and_payload() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("insert into outbox.event (type, payload) values ('order.created', '{\"n\": 1.10}')").await;
    let row = app
        .query_one(
            "select tenant_id, priority, payload::text, occurred_at = now() or occurred_at > now() - interval '1 minute',
                    deliver_at is null and metadata is null and ordering_key is null and addressed_to is null, event_seq
             from outbox.event",
            &[],
        )
        .await
        .expect("the event");
    assert_eq!(row.get::<_, &str>(0), "default");
    assert_eq!(row.get::<_, i16>(1), 0);
    assert_eq!(row.get::<_, &str>(2), r#"{"n": 1.10}"#, "digit for digit");
    assert!(row.get::<_, bool>(3));
    assert!(row.get::<_, bool>(4));
    assert_eq!(row.get::<_, i64>(5), 1);
}

#[tokio::test]
async fn positions_rise_within_one_statement() {
    let db = Db::new().await;
    let app = db.session().await;
    app.insert_many("a", 500).await;
    let ordered: bool = app.one("select array_agg(payload -> 'n' order by event_seq) = array_agg(payload -> 'n' order by (payload ->> 'n')::int) from outbox.event").await;
    assert!(ordered);
}

#[tokio::test]
async fn copy_is_as_good_as_insert() {
    let db = Db::new().await;
    let app = db.session().await;
    copy(&app, "order.created\t1\norder.paid\t2.50\n").await.expect("copied");
    assert_eq!(app.one::<i64>("select count(*) from outbox.event where xact < pg_current_xact_id()").await, 2);
}

#[tokio::test]
async fn generated_ids_are_version_7_and_carry_the_time() {
    let db = Db::new().await;
    let app = db.session().await;
    app.insert_many("a", 50).await;
    app.run("select outbox.publish('a', '{}') from generate_series(1, 50)").await;
    let good: i64 = app
        .one(
            "select count(distinct event_id) from outbox.event
             where substr(event_id::text, 15, 1) = '7' and substr(event_id::text, 20, 1) in ('8', '9', 'a', 'b')
               and abs(('x' || left(replace(event_id::text, '-', ''), 12))::bit(48)::bigint
                       - extract(epoch from clock_timestamp()) * 1000) < 60000",
        )
        .await;
    assert_eq!(good, 100);
}

#[tokio::test]
async fn publish_takes_every_argument() {
    let db = Db::new().await;
    let app = db.session().await;
    let id: String = app
        .one(
            "select outbox.publish(type => 'order.created', payload => '{\"total\": 10}', tenant_id => 'acme',
                event_id => '01890a5d-ac96-774b-bcce-b302099a8057', ordering_key => 'o-1', occurred_at => '2024-01-02 03:04:05+00',
                deliver_at => '2030-01-01 00:00:00+00', priority => 5::smallint, metadata => '{\"traceparent\": \"00-ab\"}',
                idempotency_key => 'o-1-created')::text",
        )
        .await;
    assert_eq!(id, "01890a5d-ac96-774b-bcce-b302099a8057");
    let stored: bool = app
        .one(
            "select (event_id::text, tenant_id, type, payload, ordering_key, occurred_at, deliver_at, priority, metadata)
                = ('01890a5d-ac96-774b-bcce-b302099a8057', 'acme', 'order.created', jsonb '{\"total\": 10}', 'o-1',
                   timestamptz '2024-01-02 03:04:05+00', timestamptz '2030-01-01 00:00:00+00', 5::smallint, jsonb '{\"traceparent\": \"00-ab\"}')
             from outbox.event",
        )
        .await;
    assert!(stored);
}

#[tokio::test]
async fn publish_is_part_of_the_callers_transaction() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("begin; select outbox.publish('a', '{}', idempotency_key => 'k'); rollback").await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.event").await, 0);
    assert_eq!(app.one::<i64>("select count(*) from outbox_relay.idempotency_key").await, 0);
}

#[tokio::test]
async fn a_key_used_again_by_the_tenant_returns_the_first_event() {
    let db = Db::new().await;
    let app = db.session().await;
    let publish = |tenant: &str| {
        format!("select outbox.publish('a', '{{}}', tenant_id => '{tenant}', idempotency_key => 'k')::text")
    };
    let first: String = app.one(&publish("acme")).await;
    let again: String = app.one(&publish("acme")).await;
    let other: String = app.one(&publish("globex")).await;
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(app.one::<i64>("select count(*) from outbox.event").await, 2);
}

#[tokio::test]
async fn a_key_in_use_by_an_open_transaction_is_waited_for() {
    let db = Db::new().await;
    let (a, b, observer) = (db.session().await, db.session().await, db.session().await);
    a.run("begin").await;
    let first: String = a.one("select outbox.publish('a', '{}', idempotency_key => 'k')::text").await;
    let second = b.start("select outbox.publish('a', '{}', idempotency_key => 'k')::text");
    observer.wait_until_blocked(&b).await;
    a.run("commit").await;
    let second: String = second.await.expect("no panic").expect("published").get(0);
    assert_eq!(first, second);
    assert_eq!(a.one::<i64>("select count(*) from outbox.event").await, 1);
}

#[tokio::test]
async fn a_key_of_a_transaction_that_rolled_back_is_free_for_who_waited() {
    let db = Db::new().await;
    let (a, b, observer) = (db.session().await, db.session().await, db.session().await);
    a.run("begin").await;
    let first: String = a.one("select outbox.publish('a', '{}', idempotency_key => 'k')::text").await;
    let second = b.start("select outbox.publish('a', '{}', idempotency_key => 'k')::text");
    observer.wait_until_blocked(&b).await;
    a.run("rollback").await;
    let second: String = second.await.expect("no panic").expect("published").get(0);
    assert_ne!(first, second);
    assert_eq!(a.all::<String>("select event_id::text from outbox.event").await, [second]);
}

/// What is refused, by `publish` and by a plain insert alike: column, value in SQL, SQLSTATE.
const UNACCEPTABLE: [(&str, &str, &str); 16] = [
    ("type", "''", "OB001"),
    ("type", "'order..created'", "OB001"),
    ("type", "'.order'", "OB001"),
    ("type", "'order created'", "OB001"),
    ("type", "'order.*'", "OB001"),
    ("type", "E'order\\n'", "OB001"),
    ("type", "repeat('x', 256)", "OB001"),
    ("tenant_id", "''", "OB002"),
    ("tenant_id", "repeat('x', 256)", "OB002"),
    ("payload", "to_jsonb(repeat('x', 1048600))", "OB003"),
    ("occurred_at", "'infinity'", "OB005"),
    ("occurred_at", "'-infinity'", "OB005"),
    // What RFC 3339, or the relay's own clock, cannot say.
    ("occurred_at", "'0001-12-31 23:59:59.999999+00 BC'", "OB005"),
    ("occurred_at", "'4714-11-24 00:00:00+00 BC'", "OB005"),
    ("occurred_at", "'9999-12-30 22:00:00.000001+00'", "OB005"),
    ("occurred_at", "'294276-12-31 00:00:00+00'", "OB005"),
];

/// What `publish` refuses besides; in a plain insert it would harm no delivery, and each condition costs.
const UNACCEPTABLE_TO_PUBLISH: [(&str, &str, &str); 3] =
    [("metadata", "'[]'", "OB005"), ("metadata", "'null'", "OB005"), ("ordering_key", "repeat('x', 256)", "OB005")];

#[tokio::test]
async fn what_could_not_be_delivered_is_refused_with_a_code_and_a_hint() {
    let db = Db::new().await;
    let app = db.session().await;
    for (column, value, sqlstate) in UNACCEPTABLE {
        let (kind, payload) = match column {
            "type" => (value, "'{}'"),
            "payload" => ("'a'", value),
            _ => ("'a'", "'{}'"),
        };
        let (name, last) = match column {
            "type" | "payload" => (String::new(), String::new()),
            other => (format!(", {other}"), format!(", {value}")),
        };
        let argument = if name.is_empty() { String::new() } else { format!(", {column} => {value}") };
        app.refused(
            &format!("insert into outbox.event (type, payload{name}) values ({kind}, {payload}{last})"),
            sqlstate,
        )
        .await;
        app.refused(&format!("select outbox.publish({kind}, {payload}{argument})"), sqlstate).await;
    }
    for (column, value, sqlstate) in UNACCEPTABLE_TO_PUBLISH {
        app.refused(&format!("select outbox.publish('a', '{{}}', {column} => {value})"), sqlstate).await;
    }
    assert_eq!(app.one::<i64>("select count(*) from outbox.event").await, 0);
}

/// What an insert is judged by runs with the rights and settings of whoever inserts, who may own a schema and put it
/// before `pg_catalog`.
#[tokio::test]
async fn no_search_path_turns_what_an_insert_is_judged_by() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, db.session().await);
    app.run(
        "create schema evil;
         do $$
         declare o record;
         begin
             -- all are false, so that nothing is unacceptable and nobody sleeps
             for o in select distinct oprname as name, oprleft::regtype as l, oprright::regtype as r, oprresult::regtype as result
                      from pg_operator where oprname in ('!~', '~', '=', '<>', '<', '>', '<=', '>=', '||', '#>', '+') and oprleft <> 0
                        and oprleft::regtype::text !~ '^any|record' and oprright::regtype::text !~ '^any' loop
                 execute format('create function evil.%1$I(%2$s, %3$s) returns %4$s language sql as $f$ select %5$s::%4$s $f$;
                                 create operator evil.%1$s (function = evil.%1$I, leftarg = %2$s, rightarg = %3$s)', o.name, o.l, o.r, o.result,
                     case when o.result = 'boolean'::regtype then 'false' else 'null' end);
             end loop;
         end $$;
         create function evil.octet_length(text) returns integer language sql return 1;
         create function evil.pg_column_size(jsonb) returns integer language sql return 1;
         create function evil.pg_try_advisory_xact_lock_shared(integer, integer) returns boolean language sql return true;
         create function evil.current_setting(text, boolean) returns text language sql return 'on';
         create function evil.pg_notify(text, text) returns void language sql as '';
         grant usage on schema evil to outbox_producer",
    )
    .await;
    relay.run(&format!("select pg_advisory_lock({DOOR})")).await;
    let mut bell = db.listener("outbox_bell").await;
    app.run("set role outbox_producer; set standard_conforming_strings = off; set datestyle = 'SQL, DMY'").await;
    app.run("set search_path = evil, pg_catalog").await;
    assert!(!app.one::<bool>("select 1 = 1").await, "the schema is in force");
    for (column, value, sqlstate) in UNACCEPTABLE {
        let insert = match column {
            "type" => format!("(type, payload) values ({value}, '{{}}')"),
            "payload" => format!("(type, payload) values ('a', {value})"),
            _ => format!("(type, payload, {column}) values ('a', '{{}}', {value})"),
        };
        app.refused(&format!("insert into outbox.event {insert}"), sqlstate).await;
    }
    app.run("insert into outbox.event (type, payload) values ('a', '{}')").await;
    assert_eq!(bell.count().await, 1);
}

#[tokio::test]
async fn the_edges_of_what_is_acceptable_are_accepted() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run(
        "insert into outbox.event (type, payload, tenant_id, ordering_key, occurred_at, metadata, priority) values
            (repeat('x', 128), 'null', repeat('x', 128), repeat('k', 255), '0001-01-01 00:00:00+00', '{}', -32768),
            ('A-b_9.c', '[]', 'Zürich & Söhne', '', '9999-12-30 22:00:00+00', null, 32767)",
    )
    .await;
    for (year, at) in
        ["0001", "9999"].iter().zip(app.all::<SystemTime>("select occurred_at from outbox.event order by 1").await)
    {
        let written = jiff::Timestamp::try_from(at).expect("a relay can write it").to_string();
        assert!(written.starts_with(year) && written.ends_with('Z'), "{written}");
    }
}

#[tokio::test]
async fn publish_without_type_or_payload_is_refused_with_a_hint() {
    let db = Db::new().await;
    let app = db.session().await;
    app.refused("select outbox.publish(null, '{}')", "OB001").await;
    app.refused("select outbox.publish('a', null)", "OB005").await;
    app.refused("select outbox.publish('a', '{}', idempotency_key => '')", "OB006").await;
    app.refused("select outbox.publish('a', '{}', idempotency_key => repeat('x', 256))", "OB006").await;
}

#[tokio::test]
async fn a_null_tenant_is_the_default_tenant() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.publish('a', '{}', tenant_id => null, idempotency_key => 'k')").await;
    assert_eq!(app.one::<String>("select tenant_id from outbox.event").await, "default");
}

#[tokio::test]
async fn a_given_transaction_id_is_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    app.refused("insert into outbox.event (type, payload, xact) values ('a', '{}', '3')", "OB005").await;
}

#[tokio::test]
async fn one_bad_row_refuses_the_whole_statement() {
    let db = Db::new().await;
    let app = db.session().await;
    app.refused("insert into outbox.event (type, payload) values ('good', '{}'), ('not good', '{}')", "OB001").await;
    let copied = copy(&app, "good\t{}\nnot good\t{}\n").await;
    expect_error(copied, "OB001");
    assert_eq!(app.one::<i64>("select count(*) from outbox.event").await, 0);
}

#[tokio::test]
async fn the_payload_limit_follows_its_setting() {
    let db = Db::new().await;
    let app = db.session().await;
    let insert = "insert into outbox.event (type, payload) values ('a', to_jsonb(repeat('x', 3000)))";
    app.run(insert).await;
    app.run("select outbox.set('max_payload_bytes', '2048')").await;
    let error = app.refused(insert, "OB003").await;
    assert!(error.message().contains("2048"), "{error:?}");
    app.run("select outbox.set('max_payload_bytes', '4096')").await;
    app.run(insert).await;
}

#[tokio::test]
async fn the_payload_limit_counts_what_the_payload_is_not_what_compression_made_of_it() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("create table stash as select to_jsonb(repeat('x', 2000000)) as payload").await;
    app.refused("insert into outbox.event (type, payload) select 'a', payload from stash", "OB003").await;
}

#[tokio::test]
async fn while_the_catalog_is_empty_every_type_is_accepted_and_no_trigger_looks() {
    let db = Db::new().await;
    let app = db.session().await;
    app.insert("anything.at-all", "{}").await;
    let triggers: Vec<String> = app
        .all("select tgname::text from pg_trigger where tgrelid = 'outbox.event'::regclass and not tgisinternal order by tgname")
        .await;
    assert_eq!(triggers, ["event_acceptable", "event_doorbell"]);
}

#[tokio::test]
async fn from_the_first_definition_on_undefined_and_archived_types_are_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.define_event_type('order.created', description => 'An order', schema => '{\"type\": \"object\"}')").await;
    app.insert("order.created", "{}").await;
    app.refused("insert into outbox.event (type, payload) values ('order.paid', '{}')", "OB004").await;
    app.refused("select outbox.publish('order.paid', '{}')", "OB004").await;

    app.run("select outbox.archive_event_type('order.created')").await;
    let error = app.refused("insert into outbox.event (type, payload) values ('order.created', '{}')", "OB004").await;
    assert!(error.message().contains("archived"), "{error:?}");

    app.run("select outbox.define_event_type('order.created')").await;
    app.insert("order.created", "{}").await;
    let kept: bool = app
        .one("select description = 'An order' and schema is not null and archived_at is null from outbox.event_type")
        .await;
    assert!(kept, "a definition that says nothing changes nothing");
}

#[tokio::test]
async fn a_copy_with_one_undefined_type_is_refused_as_a_whole() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.define_event_type('order.created')").await;
    let copied = copy(&app, "order.created\t{}\norder.paid\t{}\n").await;
    expect_error(copied, "OB004");
    assert_eq!(app.one::<i64>("select count(*) from outbox.event").await, 0);
    copy(&app, "order.created\t{}\norder.created\t{}\n").await.expect("copied");
}

#[tokio::test]
async fn outboxds_own_types_need_no_definition() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.define_event_type('order.created')").await;
    let subscription = app.subscribe("*").await;
    app.run(&format!("select outbox.send_test({subscription})")).await;
}

#[tokio::test]
async fn the_first_definition_gives_up_on_a_writer_that_stays_open() {
    let db = Db::new().await;
    let (a, b) = (db.session().await, db.session().await);
    a.run("begin").await;
    a.insert("a", "{}").await;
    b.refused("select outbox.define_event_type('order.created')", "OB040").await;
    a.run("commit").await;
    b.run("select outbox.define_event_type('order.created')").await;
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    app.refused("select outbox.define_event_type('order.*')", "OB001").await;
    app.refused("select outbox.define_event_type(null)", "OB001").await;
    app.refused("select outbox.define_event_type('a', schema => '[]')", "OB018").await;
    app.refused("select outbox.archive_event_type('never.defined')", "OB021").await;
}

#[tokio::test]
async fn a_commit_rings_only_while_a_relay_sleeps() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, db.session().await);
    let mut bell = db.listener("outbox_bell").await;

    app.insert("a", "{}").await;
    assert_eq!(bell.count().await, 0, "nobody sleeps");

    relay.run(&format!("select pg_advisory_lock({DOOR})")).await;
    app.run("begin").await;
    app.insert_many("a", 20).await;
    app.insert_many("a", 20).await;
    assert_eq!(bell.count().await, 0, "not before the commit");
    app.run("commit").await;
    assert_eq!(bell.count().await, 1, "once a transaction");
    copy(&app, "a\t{}\n").await.expect("copied");
    assert_eq!(bell.count().await, 1, "COPY rings too");

    app.run("begin; select outbox.publish('a', '{}'); rollback").await;
    assert_eq!(bell.count().await, 0, "nothing came of it");

    relay.run(&format!("select pg_advisory_unlock({DOOR})")).await;
    app.insert("a", "{}").await;
    assert_eq!(bell.count().await, 0, "awake again");
}

#[tokio::test]
async fn a_relay_cannot_fall_asleep_past_an_open_writer() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, db.session().await);
    let try_door = format!("select pg_try_advisory_lock({DOOR})");
    app.run("begin").await;
    app.insert("a", "{}").await;
    assert!(!relay.one::<bool>(&try_door).await);
    app.run("commit").await;
    assert!(relay.one::<bool>(&try_door).await);
    assert_eq!(relay.one::<i64>("select count(*) from outbox.event").await, 1, "what it could not see is visible now");
}

#[tokio::test]
async fn writers_do_not_wait_for_each_other_or_for_a_sleeping_relay() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, db.session().await);
    for session in [&a, &b] {
        session.run("set lock_timeout = '1ms'").await;
    }
    a.run("begin").await;
    a.insert("a", "{}").await;
    b.insert("b", "{}").await;
    a.run("commit").await;
    relay.run(&format!("select pg_advisory_lock({DOOR})")).await;
    a.run("begin").await;
    a.insert("a", "{}").await;
    b.insert("b", "{}").await;
    a.run("commit").await;
}

/// Copies lines of type and payload into the log; the server reads them from a program it starts.
async fn copy(client: &tokio_postgres::Client, lines: &str) -> Result<u64, tokio_postgres::Error> {
    let lines = lines.replace('\t', "\\t").replace('\n', "\\n");
    client.execute(&format!("copy outbox.event (type, payload) from program $$printf '{lines}'$$"), &[]).await
}
