//! How a bound role may try to get out, and how roles are bound.

use crate::support::{Db, Seat, Session, client_program, expect_error, left_out};
use crate::tenants::{OTHER, OWN, Stage, roles_can_be_bound};
use serde_json::json;
use tokio_postgres::SimpleQueryMessage;

/// How many rows of others a session sees, in all that knows a tenant.
const FOREIGN: &str = "select (select count(*) from outbox.subscription where tenant_id = 'globex')
    + (select count(*) from outbox.event where tenant_id = 'globex')
    + (select count(*) from outbox.delivery where tenant_id is distinct from 'acme')
    + (select count(*) from outbox.attempt where subscription_id in (select subscription_id from outbox.attempt except select subscription_id from outbox.subscription))
    + (select count(*) from outbox.audit where tenant_id is distinct from 'acme')
    + (select count(*) from outbox.token where tenant_id is distinct from 'acme')
    + (select count(*) from outbox.role_binding where tenant_id <> 'acme')";

async fn assert_confined(session: &Session, how: &str) {
    assert_eq!(session.one::<i64>(FOREIGN).await, 0, "{how}");
    assert_eq!(session.one::<i64>("select count(*) from outbox.subscription").await, 1, "{how}");
}

#[tokio::test]
async fn no_role_or_setting_that_a_bound_login_can_take_frees_it() {
    let Some(stage) = Stage::new().await else { return };
    let free = stage.login("free", "operator").await;
    assert!(free.one::<i64>(FOREIGN).await > 0);
    let operator = stage.login(OWN, "operator").await;
    assert_confined(&operator, "as it logged in").await;
    let name = stage.role(OWN, "operator");
    for escape in [
        "set role outbox_operator".to_owned(),
        "set role none".to_owned(),
        format!("set session authorization {name}"),
        format!("set outbox.tenant = '{OTHER}'"),
        "set outbox.actor = 'token 1 (acme)'".to_owned(),
        "set search_path = pg_temp, outbox_relay, outbox".to_owned(),
        "set outbox.override_managed = 'on'".to_owned(),
        "set plan_cache_mode = force_generic_plan".to_owned(),
    ] {
        operator.run(&escape).await;
        assert_confined(&operator, &escape).await;
        operator.refused(&format!("select outbox.pause({})", stage.other.subscription_id), "OB020").await;
        operator.refused("select outbox.hold('x')", "OB080").await;
    }
    for (escape, code) in [
        (format!("set role {}", stage.role("free", "operator")), "42501"),
        (format!("set role {}", stage.role(OTHER, "operator")), "42501"),
        (format!("set session authorization {}", stage.role("free", "operator")), "42501"),
        ("set role outbox_relay".to_owned(), "42501"),
        ("set session_replication_role = replica".to_owned(), "42501"),
        (format!("select outbox.unbind_role('{name}')"), "42501"),
        (format!("alter role {name} bypassrls"), "42501"),
        ("alter table outbox.subscription disable row level security".to_owned(), "42501"),
        ("create policy mine on outbox.subscription using (true)".to_owned(), "42501"),
        ("delete from outbox_relay.role_tenant".to_owned(), "42501"),
        ("select outbox_relay.enter('token', '', '1 minute', true)".to_owned(), "42501"),
    ] {
        operator.refused(&escape, code).await;
    }
    // It is an error, not a way round.
    operator.run("set row_security = off").await;
    operator.refused("select * from outbox.subscription", "42501").await;
    operator.refused("select * from outbox.delivery", "42501").await;
}

#[tokio::test]
async fn membership_binds_inherited_or_not_and_several_bindings_add_up() {
    let Some(stage) = Stage::new().await else { return };
    let (team, user) = (format!("{}_team", stage.prefix), format!("{}_user", stage.prefix));
    stage
        .app
        .run(&format!(
            "create role {team}; select outbox.bind_role('{team}', '{OWN}');
             create role {user} login noinherit in role {team}, outbox_operator"
        ))
        .await;
    let session = stage.db.login(&user).await;
    session.run("set role outbox_operator").await;
    assert_confined(&session, "a member that does not inherit").await;
    stage.app.run(&format!("select outbox.bind_role('{user}', '{OTHER}')")).await;
    let seen: Vec<String> = session.all("select distinct tenant_id from outbox.delivery order by 1").await;
    assert_eq!(seen, [OWN, OTHER]);
    session.run(&format!("select outbox.pause({})", stage.other.subscription_id)).await;
    stage.app.run(&format!("alter role {user} rename to {user}_renamed")).await;
    stage.app.run(&format!("select outbox.unbind_role('{team}')")).await;
    let seen: Vec<String> = session.all("select distinct tenant_id from outbox.delivery").await;
    assert_eq!(seen, [OTHER], "the renamed one stays bound");
    // A role that a superuser takes is the role, and so is the name a pooler's login takes.
    stage.app.run(&format!("set role {}", stage.role(OWN, "operator"))).await;
    assert_confined(&stage.app, "a superuser in the role").await;
    stage.app.run("reset role").await;
    assert!(stage.app.one::<i64>(FOREIGN).await > 0);
}

#[tokio::test]
async fn what_is_shadowed_or_leaky_sees_nothing_of_others() {
    let Some(stage) = Stage::new().await else { return };
    let operator = stage.login(OWN, "operator").await;
    operator
        .run(
            "create temp table seen (what text);
             create temp table subscription as select 0 as subscription_id, 'globex' as tenant_id;
             create temp table role_tenant (role oid, tenant_id text);
             create function pg_temp.bound_tenants(caller name default null) returns text[] language sql as 'select null::text[]';
             create function pg_temp.pg_has_role(name, oid, text) returns boolean language sql as 'select false';
             create function pg_temp.leak(what text) returns boolean language plpgsql cost 0.0000001 as
                 'begin insert into pg_temp.seen values (what); return true; end';
             create function pg_temp.same(a text, b text) returns boolean language sql as 'select pg_temp.leak(a) or pg_temp.leak(b)';
             create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.same);
             set search_path = pg_temp, pg_catalog",
        )
        .await;
    assert_confined(&operator, "with functions of its own in front").await;
    for query in [
        "select * from outbox.subscription where pg_temp.leak(url || tenant_id || name)",
        "select * from outbox.event where pg_temp.leak(payload::text) or tenant_id operator(pg_temp.=) 'globex'",
        "select * from outbox.delivery where pg_temp.leak(tenant_id) and pg_temp.leak(subscription_id::text)",
        "select * from outbox.delivery d join outbox.event e using (event_seq) where pg_temp.leak(e.metadata::text || d.state)",
        "select * from outbox.audit where pg_temp.leak(coalesce(tenant_id, 'globex is null'))",
        "select * from outbox.token where pg_temp.leak(description)",
        "select * from outbox.stopped_key where pg_temp.leak(ordering_key)",
        "select * from outbox.attempt where pg_temp.leak(subscription_id::text)",
        "select state from outbox_relay.queue where pg_temp.leak(subscription_id::text)",
        "select * from outbox_relay.finished where pg_temp.leak(subscription_id::text)",
        "select * from outbox.role_binding where pg_temp.leak(tenant_id)",
        "select * from outbox.subscription_health where pg_temp.leak(subscription_id::text)",
        "select * from outbox.signing_key where pg_temp.leak(subscription_id::text)",
        "update outbox.subscription set description = 'x' where pg_temp.leak(name)",
    ] {
        operator.run(&format!("truncate pg_temp.seen; {query}")).await;
        let seen: Vec<String> = operator.all("select what from pg_temp.seen").await;
        assert!(!seen.is_empty(), "{query}: the function was called for the own rows");
        let id = stage.other.subscription_id.to_string();
        assert!(seen.iter().all(|what| !what.contains(OTHER) && *what != id), "{query}: {seen:?}");
    }
}

#[tokio::test]
async fn prepared_statements_cursors_copy_and_wrappers_see_what_the_role_sees() {
    let Some(stage) = Stage::new().await else { return };
    let (own, free) = (stage.role(OWN, "operator"), stage.role("free", "operator"));
    // Prepared by who sees all, run by who does not; planned long ago.
    stage.app.run("prepare p as select count(*) from outbox.delivery where tenant_id is distinct from 'acme'").await;
    let counted = async |sql: &str| -> String {
        let answer = stage.app.simple_query(sql).await.expect(sql);
        let row = answer.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(0) } else { None });
        row.expect("a row").to_owned()
    };
    for _ in 0..7 {
        assert_eq!(counted("execute p").await, "3");
    }
    stage.app.run(&format!("set role {own}")).await;
    assert_eq!(counted("execute p").await, "0");
    stage.app.run("reset role").await;

    let operator = stage.login(OWN, "operator").await;
    operator
        .run("begin; declare c cursor for select tenant_id from outbox.delivery; set local role outbox_operator")
        .await;
    let answer = operator.simple_query("fetch all from c").await.expect("rows");
    assert_eq!(answer.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count(), 3);
    operator.run("commit").await;

    // A wrapper: of its own, and of somebody's who sees all.
    stage.app.run(&format!("create schema shop; grant usage, create on schema shop to {own}, {free}")).await;
    let wrapper = |name: &str| {
        format!(
            "create function shop.{name}() returns bigint language sql security definer as 'select count(*) from outbox.delivery';
             create function shop.{name}_pause(id bigint) returns void language sql security definer as 'select outbox.pause(id)';
             create view shop.{name}_view as select * from outbox.delivery"
        )
    };
    operator.run(&wrapper("own")).await;
    stage
        .login("free", "operator")
        .await
        .run(&format!("{}; grant select on shop.free_view to {own}", wrapper("free")))
        .await;
    for count in ["shop.own()", "shop.free()"] {
        assert_eq!(operator.one::<i64>(&format!("select {count}")).await, 3, "{count}");
    }
    for view in ["shop.own_view", "shop.free_view"] {
        assert_eq!(operator.one::<i64>(&format!("select count(*) from {view}")).await, 3, "{view}");
    }
    for pause in ["own_pause", "free_pause"] {
        operator.refused(&format!("select shop.{pause}({})", stage.other.subscription_id), "OB020").await;
    }
    // Who sees all calls the bound one's: it reads as its owner.
    assert_eq!(stage.login("free", "operator").await.one::<i64>("select shop.own()").await, 3);

    operator.refused("copy outbox_relay.signing_secret to stdout", "42501").await;
    let Some(psql) = client_program("psql") else { return left_out("tenant_escapes: copy", "there is no psql") };
    let copied = std::process::Command::new(psql)
        .args(["-X", "-c", "copy (select tenant_id from outbox.delivery) to stdout"])
        .arg(stage.db.url().replacen("postgres@", &format!("{own}@"), 1))
        .output()
        .expect("psql");
    assert_eq!(String::from_utf8(copied.stdout).expect("text"), "acme\nacme\nacme\n");
}

#[tokio::test]
async fn a_bound_producer_publishes_for_its_tenant_alone() {
    let Some(stage) = Stage::new().await else { return };
    let producer = stage.login(OWN, "producer").await;
    producer
        .run(&format!(
            "insert into outbox.event (type, payload, tenant_id) values ('a', '{{}}', '{OWN}'), ('a', '{{}}', '{OWN}')"
        ))
        .await;
    for insert in [
        format!("insert into outbox.event (type, payload, tenant_id) values ('a', '{{}}', '{OTHER}')"),
        format!(
            "insert into outbox.event (type, payload, tenant_id) select 'a', '{{}}', t from unnest('{{{OWN},{OTHER}}}'::text[]) t"
        ),
        "insert into outbox.event (type, payload) values ('a', '{}')".into(),
    ] {
        let error = producer.refused(&insert, "42501").await;
        assert!(error.message().contains("row-level security"), "{error:?}");
        assert!(error.detail().is_none(), "{error:?}");
    }
    producer.refused("select outbox.publish('a', '{}')", "OB022").await;
    producer.refused(&format!("select outbox.publish('a', '{{}}', tenant_id => '{OTHER}')"), "OB022").await;
    // A key that the other tenant has used is not used here.
    let publish = |tenant: &str| {
        format!("select outbox.publish('a', '{{}}', tenant_id => '{tenant}', idempotency_key => 'order-1')::text")
    };
    let theirs: String = stage.app.one(&publish(OTHER)).await;
    let own: String = producer.one(&publish(OWN)).await;
    assert_ne!(theirs, own);
    assert_eq!(own, producer.one::<String>(&publish(OWN)).await);
    // In a transaction of several, it counts its own.
    stage.app.run(&format!("begin; insert into outbox.event (type, payload, tenant_id) values ('a', '{{}}', '{OTHER}'), ('a', '{{}}', '{OWN}'); set local role {}", stage.role(OWN, "producer"))).await;
    let seen: Vec<String> = stage.app.all("select tenant_id from outbox.published()").await;
    stage.app.run("rollback").await;
    assert_eq!(seen, [OWN]);
}

#[tokio::test]
async fn a_name_of_the_other_tenant_is_free_and_no_error_tells_of_it() {
    let Some(stage) = Stage::new().await else { return };
    let operator = stage.login(OWN, "operator").await;
    operator
        .run(&format!("select outbox.subscribe('https://hooks.example.com/in', '{{a}}', tenant_id => '{OWN}', name => 'of {OTHER}')"))
        .await;
    let error = operator
        .refused(&format!("update outbox.subscription set name = 'same' where tenant_id = '{OWN}'"), "23505")
        .await;
    assert!(error.detail().is_none(), "{error:?}");
    for change in [
        "delete from outbox.retry_policy where name = 'none'",
        "update outbox.retry_policy set jitter = 0",
        "insert into outbox.retry_policy (name, delays) values ('mine', '{1s}')",
    ] {
        operator.refused(change, "OB080").await;
    }
}

#[tokio::test]
async fn a_lock_on_what_is_anothers_is_neither_waited_for_nor_taken() {
    let Some(stage) = Stage::new().await else { return };
    let (own, other) = (stage.login(OWN, "operator").await, stage.login(OTHER, "operator").await);
    let pause = format!("select outbox.pause({})", stage.other.subscription_id);
    other.run(&format!("begin; {pause}")).await;
    // Waiting would end in 57014.
    own.run("set statement_timeout = '10s'").await;
    own.refused(&pause, "OB020").await;
    other.run("commit").await;
    own.run("begin; savepoint s").await;
    own.refused(&pause, "OB020").await;
    other.run("set statement_timeout = '10s'").await;
    other.run(&format!("select outbox.resume({})", stage.other.subscription_id)).await;
}

#[tokio::test]
async fn only_a_role_that_can_be_confined_is_bound() {
    let db = Db::new().await;
    let app = db.session().await;
    if !roles_can_be_bound(&app).await {
        return;
    }
    let p: String = app.one("select current_database()").await;
    app.run(&format!(
        "create role {p}_super superuser; create role {p}_bypass bypassrls; create role {p}_relay in role outbox_relay;
         create role {p}_above; grant {p}_above to outbox_viewer; create role {p}_plain"
    ))
    .await;
    for (role, why) in [
        (format!("{p}_nobody"), "does not exist"),
        ("outbox_relay".into(), "group of outboxd"),
        ("outbox_producer".into(), "group of outboxd"),
        ("outbox_viewer".into(), "group of outboxd"),
        ("outbox_operator".into(), "group of outboxd"),
        (format!("{p}_super"), "superuser"),
        ("postgres".into(), "superuser"),
        (format!("{p}_bypass"), "BYPASSRLS"),
        (format!("{p}_relay"), "outbox_relay"),
        (format!("{p}_above"), "group of outboxd as its member"),
    ] {
        let error = app.refused(&format!("select outbox.bind_role('{role}', 'acme')"), "OB081").await;
        assert!(error.message().contains(why), "{error:?}");
    }
    app.run(&format!("revoke {p}_above from outbox_viewer")).await;
    app.refused("select outbox.bind_role(null, 'acme')", "OB081").await;
    for tenant in ["''", "null", "repeat('x', 129)", "E'a\\n'"] {
        app.refused(&format!("select outbox.bind_role('{p}_plain', {tenant})"), "OB002").await;
    }
    app.refused(&format!("select outbox.unbind_role('{p}_plain')"), "OB081").await;
    app.run(&format!("select outbox.bind_role('{p}_plain', 'acme'); select outbox.bind_role('{p}_plain', 'acme')"))
        .await;
    let audited: Vec<String> =
        app.all("select concat_ws(' ', action, tenant_id, detail ->> 'role') from outbox.audit").await;
    assert_eq!(audited, [format!("bind_role acme {p}_plain")]);
    app.refused(&format!("select outbox.unbind_role('{p}_plain', 'globex')"), "OB081").await;
    // One that was dropped is known by its number.
    app.run(&format!("drop role {p}_plain")).await;
    let number: String = app.one("select role::text from outbox.role_binding").await;
    assert!(number.parse::<u32>().is_ok(), "{number}");
    app.run(&format!("select outbox.unbind_role('{number}')")).await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.role_binding").await, 0);
}

#[tokio::test]
async fn copy_into_the_log_is_refused_while_a_role_is_bound_and_only_then() {
    /// In a session of its own, which a refused COPY leaves unusable.
    async fn copy(db: &Db, role: &str) -> Result<(), tokio_postgres::Error> {
        let session = db.session_as(role).await;
        let sink = session.copy_in::<_, bytes::Bytes>("copy outbox.event (type, payload) from stdin").await?;
        std::pin::pin!(sink).as_mut().finish().await.map(|_| ())
    }
    let db = Db::new().await;
    let app = db.session().await;
    if !roles_can_be_bound(&app).await {
        return;
    }
    let role = format!("{}_v", app.one::<String>("select current_database()").await);
    copy(&db, "outbox_producer").await.expect("no role is bound");
    app.run(&format!(
        "create role {role}; select outbox.bind_role('{role}', 'a'); select outbox.bind_role('{role}', 'b')"
    ))
    .await;
    expect_error(copy(&db, "outbox_producer").await, "0A000");
    let producer = db.session_as("outbox_producer").await;
    producer.run("insert into outbox.event (type, payload) values ('a', '{}')").await;
    copy(&db, "postgres").await.expect("policies are not for a superuser");
    app.run(&format!("select outbox.unbind_role('{role}', 'a')")).await;
    expect_error(copy(&db, "outbox_producer").await, "0A000");
    app.run(&format!("select outbox.unbind_role('{role}')")).await;
    copy(&db, "outbox_producer").await.expect("no role is bound any more");
}

#[tokio::test]
async fn the_first_binding_gives_up_on_a_transaction_that_writes_events() {
    let db = Db::new().await;
    let (app, writer) = (db.session().await, db.session().await);
    if !roles_can_be_bound(&app).await {
        return;
    }
    let role = format!("{}_v", app.one::<String>("select current_database()").await);
    writer.run("begin; insert into outbox.event (type, payload) values ('a', '{}')").await;
    app.run(&format!("create role {role}; set lock_timeout = '7s'")).await;
    app.refused(&format!("select outbox.bind_role('{role}', 'acme')"), "OB040").await;
    assert_eq!(app.one::<String>("show lock_timeout").await, "7s");
    assert_eq!(app.one::<i64>("select count(*) from outbox.role_binding").await, 0);
    writer.run("commit").await;
    app.run(&format!("select outbox.bind_role('{role}', 'acme')")).await;
    assert_eq!(app.one::<String>("show lock_timeout").await, "7s");
    // The second needs nobody's leave.
    writer.run("begin; insert into outbox.event (type, payload) values ('a', '{}')").await;
    app.run(&format!("select outbox.bind_role('{role}', 'globex')")).await;
    writer.run("commit").await;
}

#[tokio::test]
async fn a_request_of_a_token_is_confined_to_its_tenant_in_the_database_too() {
    let Some(stage) = Stage::new().await else { return };
    let relay = stage.db.session_as("outbox_relay").await;
    let enter = async |arguments: &str| {
        let token: String = stage.app.one(&format!("select outbox.create_token('operator'{arguments})")).await;
        relay.run("begin").await;
        relay
            .run(&format!("select outbox_relay.enter('token', sha256(convert_to('{token}', 'UTF8')), '1 hour', true); set local role outbox_operator"))
            .await;
    };
    enter(&format!(", tenant_id => '{OWN}'")).await;
    let seen: Vec<String> = relay.all("select distinct tenant_id from outbox.delivery").await;
    assert_eq!(seen, [OWN]);
    relay.run("savepoint s").await;
    relay.refused(&format!("select outbox.pause({})", stage.other.subscription_id), "OB020").await;
    relay.run("rollback to s").await;
    relay.refused("select outbox.hold('x')", "OB080").await;
    relay.run("rollback to s").await;
    relay.refused("insert into outbox.retry_policy (name, delays) values ('mine', '{1s}')", "OB080").await;
    relay.run("rollback").await;
    // The next request through the same session is another's.
    enter("").await;
    let seen: Vec<String> = relay.all("select distinct tenant_id from outbox.delivery order by 1").await;
    assert_eq!(seen, [OWN, OTHER]);
    relay.run("commit").await;
    // And the relay's own work is for all.
    assert_eq!(relay.one::<i64>("select dead_letters from outbox.status()").await, 2);
}

/// References to the relays' hosts, and a certificate authority, which is none.
const REFERENCES: [&str; 3] = [
    "secret_ref => 'env:OUTBOXD_SECRET_GLOBEX'",
    "secret_ref => 'file:globex'",
    "tls => '{\"client\": \"file:globex\"}'",
];

#[tokio::test]
async fn who_is_bound_names_nothing_that_stands_on_the_relays_hosts() {
    let Some(stage) = Stage::new().await else { return };
    let (operator, free) = (stage.login(OWN, "operator").await, stage.login("free", "operator").await);
    let own = stage.own.subscription_id;
    let subscribe = |argument: &str| {
        format!("select outbox.subscribe('https://hooks.example.com/in', '{{a}}', tenant_id => '{OWN}', {argument})")
    };
    for reference in REFERENCES {
        let error = operator.refused(&subscribe(reference), "OB080").await;
        assert!(error.hint().is_some_and(|hint| hint.contains("docs/tenants.md")), "{error}");
        free.run(&subscribe(reference)).await;
    }
    operator
        .refused(&format!("select outbox.rotate_secret({own}, secret_ref => 'env:OUTBOXD_SECRET_X')"), "OB080")
        .await;
    let set = |tls: &str| format!("update outbox.subscription set tls = '{tls}' where subscription_id = {own}");
    let pin = format!("\"pins\": [\"sha256//{}=\"]", "A".repeat(43));
    operator.refused(&set(r#"{"client": "file:globex"}"#), "OB080").await;
    operator.run(&set(&format!("{{{pin}}}"))).await;
    // What somebody else has set stays, also beside a change of the rest; another is another.
    free.run(&set(r#"{"client": "file:acme"}"#)).await;
    operator.run(&set(&format!(r#"{{"client": "file:acme", {pin}}}"#))).await;
    operator.run(&format!("update outbox.subscription set description = 'x' where subscription_id = {own}")).await;
    operator.refused(&set(r#"{"client": "file:globex"}"#), "OB080").await;
    operator.run(&format!("update outbox.subscription set tls = null where subscription_id = {own}")).await;
    operator.refused(&set(r#"{"client": "file:acme"}"#), "OB080").await;
}

#[tokio::test]
async fn a_token_that_is_bound_names_nothing_that_stands_on_the_relays_hosts() {
    let Some(stage) = Stage::new().await else { return };
    let seat = Seat::new(&stage.db).await;
    let token: String = stage.app.one(&format!("select outbox.create_token('operator', tenant_id => '{OWN}')")).await;
    let body = |more: serde_json::Value| {
        let mut body = json!({"url": "https://hooks.example.com/in", "event_types": ["a"]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Some(body)
    };
    let (reference, client) =
        (json!({"secret_ref": "env:OUTBOXD_SECRET_X"}), json!({"tls": {"client": "file:globex"}}));
    let webhook = format!("/webhooks/{}", stage.own.subscription_id);
    for (method, path, body) in [
        ("POST", "/webhooks".to_owned(), body(reference.clone())),
        ("POST", "/webhooks".to_owned(), body(client.clone())),
        ("PATCH", webhook.clone(), Some(client.clone())),
        ("POST", format!("{webhook}/rotate-secret"), Some(reference.clone())),
    ] {
        let refused = seat.call_as(&token, method, &path, body.clone(), &[]).await.problem(403);
        assert_eq!(refused["code"], "OB080");
        seat.call(method, &path, body).await.ok();
    }
    // The client that somebody else has set just now does not keep it from changing the rest.
    seat.call_as(&token, "PATCH", &webhook, Some(json!({"tls": {"client": "file:globex"}, "timeout": "3 s"})), &[])
        .await
        .ok();
    seat.call_as(&token, "PATCH", &webhook, Some(json!({"tls": null})), &[]).await.ok();
    seat.call_as(&token, "PATCH", &webhook, Some(client), &[]).await.problem(403);
    // The functions judge the tenant they are given, whoever's login the daemon has.
    stage.app.refused(&format!(r#"select outbox_http.rotate_secret('{OWN}', '{{"subscription_id": {}, "body": {{"secret_ref": "env:OUTBOXD_SECRET_Y"}}}}')"#,
        stage.own.subscription_id), "OB080").await;
}

#[tokio::test]
async fn who_asks_in_anothers_name_learns_nothing_and_a_wrapper_of_anothers_is_shown_nothing() {
    let Some(stage) = Stage::new().await else { return };
    let (other, own) = (stage.role(OTHER, "viewer"), stage.login(OWN, "viewer").await);
    assert_eq!(own.one::<Vec<String>>("select outbox_relay.bound_tenants()").await, [OWN]);
    assert!(own.one::<Vec<String>>(&format!("select outbox_relay.bound_tenants('{other}')")).await.is_empty());
    assert!(own.one::<bool>(&format!("select isempty(outbox_relay.bound_subscriptions('{other}'))")).await);
    // A function of the other tenant's that runs with its owner's rights.
    stage
        .app
        .run(&format!(
            "create schema trap;
             create function trap.seen() returns bigint language sql security definer as 'select count(*) from outbox.delivery';
             grant usage on schema trap to {other}, outbox_viewer; alter function trap.seen() owner to {other}"
        ))
        .await;
    assert_eq!(own.one::<i64>("select trap.seen()").await, 0);
    assert!(stage.login(OTHER, "viewer").await.one::<i64>("select trap.seen()").await > 0);
    let free = stage.login("free", "viewer").await;
    assert_eq!(
        free.one::<i64>("select trap.seen()").await,
        free.one::<i64>(&format!("select count(*) from outbox.delivery where tenant_id = '{OTHER}'")).await
    );
}
