//! Roles that are bound to tenants: each sees and operates its own, in every table, view and function there is.

use crate::support::{Db, Expand, Relay, Session, left_out, sent};
use std::collections::BTreeSet;

/// The other tenant's name is in everything that is its own, so that whatever leaks shows.
pub(crate) const OWN: &str = "acme";
pub(crate) const OTHER: &str = "globex";

/// False on PostgreSQL 14, whose views run with their owner's rights: there it is seen to that it is refused, which leaves
/// out what a bound role sees.
pub(crate) async fn roles_can_be_bound(app: &Session) -> bool {
    if app.one::<i32>("select current_setting('server_version_num')::int4").await >= 150_000 {
        return true;
    }
    let role = format!("{}_at_14", app.one::<String>("select current_database()").await);
    app.run(&format!("create role {role}")).await;
    let error = app.refused(&format!("select outbox.bind_role('{role}', '{OWN}')"), "OB081").await;
    assert!(error.message().contains("PostgreSQL 14"), "{error:?}");
    left_out("roles bound to tenants", "PostgreSQL 14 refuses to bind them");
    false
}

/// A subscription with a delivered event, a dead letter that stops its key, and a pending delivery.
pub(crate) struct Tenant {
    pub(crate) subscription_id: i64,
    pub(crate) event_seq: i64,
    pub(crate) event_id: String,
    pub(crate) token_id: i64,
}

/// Two tenants in one database, and logins that are bound to them. Their names are the database's, because roles are the
/// cluster's; they own nothing, and go with the server.
pub(crate) struct Stage {
    pub(crate) db: Db,
    pub(crate) app: Session,
    pub(crate) prefix: String,
    pub(crate) own: Tenant,
    pub(crate) other: Tenant,
}

impl Stage {
    /// `None` on PostgreSQL 14, where no role can be bound.
    pub(crate) async fn new() -> Option<Self> {
        let db = Db::new().await;
        let (app, relay) = (db.session().await, Relay::new(&db).await);
        if !roles_can_be_bound(&app).await {
            return None;
        }
        let prefix: String = app.one("select current_database()").await;
        let own = Self::tenant(&app, &relay, OWN).await;
        let other = Self::tenant(&app, &relay, OTHER).await;
        let stage = Self { db, app, prefix, own, other };
        for tenant in [OWN, OTHER] {
            for group in ["producer", "viewer", "operator"] {
                let login = stage.role(tenant, group);
                stage.app.run(&format!("create role {login} login in role outbox_{group}")).await;
                stage.app.run(&format!("select outbox.bind_role('{login}', '{tenant}')")).await;
            }
        }
        for group in ["producer", "viewer", "operator"] {
            stage.app.run(&format!("create role {} login in role outbox_{group}", stage.role("free", group))).await;
        }
        Some(stage)
    }

    async fn tenant(app: &Session, relay: &Relay, tenant: &str) -> Tenant {
        let subscription_id = app
            .subscribe_with(
                "*",
                &format!(
                    "tenant_id => '{tenant}', name => 'of {tenant}', ordered => true, retry_policy => 'none', description => '{tenant}',
                     headers => '{{\"x-of\": \"{tenant}\"}}'"
                ),
            )
            .await;
        let mut seqs = Vec::new();
        for key in ["first", "second", "third"] {
            let seq: i64 = app
                .one(&format!(
                    "insert into outbox.event (type, payload, tenant_id, ordering_key, metadata)
                     values ('a.b', '{{\"of\": \"{tenant}\"}}', '{tenant}', '{tenant} {key}', '{{\"of\": \"{tenant}\"}}') returning event_seq"
                ))
                .await;
            seqs.push(seq);
        }
        let leases = relay.expand(&Expand { lease_limit: 2, ..Expand::default() }).await.leases;
        assert_eq!(leases.len(), 2);
        relay.record(&[sent(leases[0], 200), sent(leases[1], 500)]).await;
        app.run(&format!(
            "select outbox.create_token('viewer', tenant_id => '{tenant}', description => 'of {tenant}')"
        ))
        .await;
        app.run(&format!(
            "insert into outbox.subscription_health (subscription_id) values ({subscription_id}) on conflict do nothing"
        ))
        .await;
        Tenant {
            subscription_id,
            event_seq: seqs[1],
            event_id: app.one_of("select event_id::text from outbox.event where event_seq = $1", &[&seqs[1]]).await,
            token_id: app.one("select max(token_id) from outbox.token").await,
        }
    }

    pub(crate) fn role(&self, tenant: &str, group: &str) -> String {
        format!("{}_{tenant}_{group}", self.prefix)
    }

    pub(crate) async fn login(&self, tenant: &str, group: &str) -> Session {
        self.db.login(&self.role(tenant, group)).await
    }

    /// Everything that is the other tenant's, as one text: nothing of it may change.
    pub(crate) async fn all_of_the_other(&self) -> String {
        self.app
            .one(&format!(
                "select concat_ws(E'\\n',
                    (select string_agg(to_jsonb(s)::text, ' ') from outbox.subscription s where s.tenant_id = '{OTHER}'),
                    (select string_agg(to_jsonb(e)::text, ' ' order by event_seq) from outbox.event e where e.tenant_id = '{OTHER}'),
                    (select string_agg(to_jsonb(d)::text, ' ' order by event_seq) from outbox.delivery d where d.subscription_id = {id}),
                    (select string_agg(to_jsonb(k)::text, ' ') from outbox.signing_key k where k.subscription_id = {id}),
                    (select string_agg(to_jsonb(k)::text, ' ') from outbox.stopped_key k where k.subscription_id = {id}),
                    (select string_agg(to_jsonb(h)::text, ' ') from outbox.subscription_health h where h.subscription_id = {id}),
                    (select string_agg(to_jsonb(t)::text, ' ') from outbox.token t where t.tenant_id = '{OTHER}'),
                    (select count(*) from outbox.audit a where a.tenant_id = '{OTHER}'),
                    (select string_agg(to_jsonb(s)::text, ' ' order by name) from outbox.setting s),
                    (select string_agg(to_jsonb(p)::text, ' ' order by name) from outbox.retry_policy p),
                    (select count(*) from outbox_relay.hold), (select count(*) from outbox.event_type))",
                id = self.other.subscription_id
            ))
            .await
    }
}

/// What there is to read, as text. Fails if a table is empty, for then it shows nothing.
async fn everything_readable(session: &Session, app: &Session, group: &str) -> Vec<(String, String)> {
    let tables: Vec<String> = app
        .all(&format!(
            "select c.oid::regclass::text || '|' || string_agg(format('%I', a.attname), ', ' order by a.attnum)
             from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace in ('outbox'::regnamespace, 'outbox_relay'::regnamespace, 'outbox_http'::regnamespace) and c.relkind in ('r', 'p', 'v')
               and has_column_privilege('outbox_{group}', c.oid, a.attnum, 'select')
             group by c.oid"
        ))
        .await;
    let mut all = Vec::new();
    for table in tables {
        let (table, columns) = table.split_once('|').expect("a table and its columns");
        let rows: Vec<String> =
            session.all(&format!("select to_jsonb(r)::text from (select {columns} from {table}) r")).await;
        all.push((table.to_owned(), rows.join("\n")));
    }
    all
}

#[tokio::test]
async fn a_bound_role_reads_its_own_rows_in_every_table_and_view() {
    let Some(stage) = Stage::new().await else { return };
    stage.app.run("select outbox.define_event_type('a.b'); select outbox.create_token('viewer')").await;
    // An ordering key that was stopped, whatever the setting.
    for tenant in [&stage.own, &stage.other] {
        stage
            .app
            .run(&format!(
                "insert into outbox.stopped_key (subscription_id, ordering_key, event_seq) values ({}, 'k', 1) on conflict do nothing",
                tenant.subscription_id
            ))
            .await;
    }
    for group in ["viewer", "operator"] {
        let (bound, free) = (stage.login(OWN, group).await, stage.login("free", group).await);
        let all = everything_readable(&free, &stage.app, group).await;
        let own = everything_readable(&bound, &stage.app, group).await;
        assert!(all.len() >= 16, "{all:?}");
        for ((table, all), (_, own)) in all.iter().zip(&own) {
            assert!(!own.is_empty(), "{group} sees nothing in {table}");
            let ids: BTreeSet<_> =
                own.split("\"subscription_id\": ").skip(1).map(|rest| rest.split([',', '}']).next()).collect();
            let shared = ["outbox.event_type", "outbox.retry_policy", "outbox.setting", "outbox_relay.relay"]
                .contains(&table.as_str());
            assert_eq!(own == all, shared, "{group}, {table}: {own}");
            assert!(!own.contains(OTHER), "{group}, {table}: {own}");
            assert!(
                ids.iter().all(|id| *id == Some(&stage.own.subscription_id.to_string()) || *id == Some("null")),
                "{group}, {table}: {ids:?}"
            );
        }
    }
}

/// What a function does for who is bound.
enum Rule {
    /// Works on what is its own; what is another's is refused as what is not there is, in the same words.
    Own(&'static str),
    /// A reading that has its own rows alone: a count of those that are not.
    Confined(&'static str),
    /// About all tenants: refused.
    All(&'static str),
    /// Not for operators at all.
    Owners,
    /// The same for everybody.
    Shared(&'static str),
}

/// Every function of schema outbox. `{s}` is a subscription, `{e}` an event's position, `{id}` its id, `{t}` a tenant, `{k}` a token.
/// A new function has to be here.
const FUNCTIONS: [(&str, Rule); 34] = [
    ("outbox.activity(integer)", Rule::All("select * from outbox.activity()")),
    ("outbox.adopt(text)", Rule::All("select outbox.adopt('test')")),
    ("outbox.archive_event_type(text)", Rule::All("select outbox.archive_event_type('a')")),
    (
        "outbox.assert_published(text,jsonpath,integer,text)",
        Rule::Confined("select outbox.assert_published('*', count => 0)"),
    ),
    ("outbox.bind_role(name,text)", Rule::Owners),
    ("outbox.cancel(bigint,bigint,text)", Rule::Own("select outbox.replay({s}, {e}); select outbox.cancel({s}, {e})")),
    (
        "outbox.create_token(text,text,text,interval)",
        Rule::Own("select outbox.create_token('viewer', tenant_id => '{t}')"),
    ),
    ("outbox.define_event_type(text,text,jsonb,jsonb,text)", Rule::All("select outbox.define_event_type('a')")),
    ("outbox.explain(uuid,text)", Rule::Own("select * from outbox.explain('{id}')")),
    ("outbox.hold(text)", Rule::All("select outbox.hold('because')")),
    ("outbox.next_attempts(bigint,bigint)", Rule::Confined("select count(*) from outbox.next_attempts({s}, {e} + 1)")),
    ("outbox.park(bigint,bigint,text)", Rule::Own("select outbox.park({s}, {e})")),
    ("outbox.pause(bigint,text,text)", Rule::Own("select outbox.pause({s})")),
    (
        "outbox.publish(text,jsonb,text,uuid,text,timestamp with time zone,timestamp with time zone,smallint,jsonb,text)",
        Rule::Own(
            "set local role outbox_producer; select outbox.publish('a', '{}', tenant_id => '{t}', idempotency_key => 'k')",
        ),
    ),
    ("outbox.published(text,jsonpath,text)", Rule::Confined("select count(*) from outbox.published()")),
    ("outbox.relays()", Rule::All("select * from outbox.relays()")),
    ("outbox.release()", Rule::All("select outbox.release()")),
    ("outbox.replay(bigint,bigint,text)", Rule::Own("select outbox.replay({s}, {e})")),
    ("outbox.replay(uuid,bigint,text)", Rule::Own("select outbox.replay('{id}'::uuid)")),
    (
        "outbox.replay_failed(bigint,timestamp with time zone,timestamp with time zone,boolean,text)",
        Rule::Own("select outbox.replay_failed({s})"),
    ),
    (
        "outbox.replay_missing(bigint,timestamp with time zone,timestamp with time zone,boolean,text)",
        Rule::Own("select outbox.replay_missing({s})"),
    ),
    ("outbox.resume(bigint,text)", Rule::Own("select outbox.resume({s})")),
    ("outbox.retry_schedule(text)", Rule::Shared("select count(*) from outbox.retry_schedule()")),
    ("outbox.revoke_token(bigint,text)", Rule::Own("select outbox.revoke_token({k})")),
    ("outbox.rotate_secret(bigint,interval,text,text,text)", Rule::Own("select outbox.rotate_secret({s})")),
    ("outbox.send_test(bigint,text,jsonb,text)", Rule::Own("select outbox.send_test({s})")),
    ("outbox.set(text,text)", Rule::All("select outbox.set('retention', '40 days')")),
    ("outbox.skip(bigint,bigint,text)", Rule::Own("select outbox.skip({s}, {e})")),
    ("outbox.status()", Rule::Confined("select dead_letters - 1 from outbox.status()")),
    (
        "outbox.subscribe(text,text[],text,text,text,text,jsonb,text,text,text,interval,integer,numeric,boolean,text,text,jsonb,text)",
        Rule::Own("select outbox.subscribe('https://hooks.example.com/in', '{a}', tenant_id => '{t}')"),
    ),
    (
        "outbox.unaccounted()",
        Rule::Confined("select count(*) from outbox.unaccounted() u where u.subscription_id <> {own}"),
    ),
    ("outbox.unbind_role(name,text)", Rule::Owners),
    ("outbox.unsubscribe(bigint,text)", Rule::Own("select outbox.unsubscribe({s})")),
    // And what is changed without a function.
    (
        "update outbox.subscription",
        Rule::Confined("update outbox.subscription set description = 'x' where subscription_id <> {own}"),
    ),
];

fn filled(statement: &str, tenant: &Tenant, name: &str) -> String {
    statement
        .replace("{s}", &tenant.subscription_id.to_string())
        .replace("{e}", &tenant.event_seq.to_string())
        .replace("{id}", &tenant.event_id)
        .replace("{k}", &tenant.token_id.to_string())
        .replace("{t}", name)
}

/// What came of it, in a transaction that is undone; numbers and ids are blanked. A row is its first column.
async fn outcome(session: &Session, statement: &str) -> Result<(), (String, String)> {
    session.run("begin").await;
    let result = session.batch_execute(statement).await;
    session.run("rollback").await;
    result.map_err(|error| {
        let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
        let words = format!("{} {:?} {:?}", error.message(), error.detail(), error.hint());
        let blanked = words
            .split(|c: char| c.is_whitespace() || c == '(' || c == ')')
            .map(|word| if word.chars().any(|c| c.is_ascii_digit()) { "#" } else { word })
            .collect::<Vec<_>>()
            .join(" ");
        (error.code().code().to_owned(), blanked)
    })
}

#[tokio::test]
async fn every_function_works_on_what_is_the_bound_roles_own_and_on_nothing_else() {
    let Some(stage) = Stage::new().await else { return };
    let functions: BTreeSet<String> = stage
        .app
        .all("select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'outbox'::regnamespace")
        .await
        .into_iter()
        .collect();
    let listed: BTreeSet<String> =
        FUNCTIONS.iter().map(|(name, _)| (*name).to_owned()).filter(|name| !name.starts_with("update")).collect();
    assert_eq!(functions, listed, "say in FUNCTIONS what it does for a role that is bound to a tenant");

    stage.app.run(&format!("grant outbox_producer to {}", stage.role(OWN, "operator"))).await;
    let operator = stage.login(OWN, "operator").await;
    let before = stage.all_of_the_other().await;
    let nobody = Tenant {
        subscription_id: 99_999,
        event_seq: 99_999,
        event_id: "00000000-0000-7000-8000-000000000000".into(),
        token_id: 99_999,
    };
    for (function, rule) in &FUNCTIONS {
        match rule {
            Rule::Own(statement) => {
                assert_eq!(outcome(&operator, &filled(statement, &stage.own, OWN)).await, Ok(()), "{function}");
                let others = outcome(&operator, &filled(statement, &stage.other, OTHER)).await;
                let unknown = outcome(&operator, &filled(statement, &nobody, "nobody")).await;
                let (code, words) = others.clone().expect_err(function);
                assert!(["OB020", "OB021", "OB022"].contains(&code.as_str()), "{function}: {code} {words}");
                assert!(!words.contains(OTHER), "{function}: {words}");
                assert_eq!(others, unknown, "{function} tells what is another's from what is not there");
            }
            Rule::Confined(statement) => {
                let statement = statement.replace("{own}", &stage.own.subscription_id.to_string());
                for tenant in [&stage.other, &nobody] {
                    let statement = filled(&statement, tenant, OTHER);
                    let count = if statement.starts_with("update") {
                        i64::try_from(operator.execute(&statement, &[]).await.expect(function)).expect("a count")
                    } else {
                        operator.one::<i64>(&statement).await
                    };
                    assert_eq!(count, 0, "{function}: {statement}");
                }
            }
            Rule::All(statement) => {
                let (code, _) = outcome(&operator, statement).await.expect_err(function);
                assert_eq!(code, "OB080", "{function}");
            }
            Rule::Owners => {
                let allowed: bool =
                    operator.one(&format!("select has_function_privilege('{function}', 'execute')")).await;
                assert!(!allowed, "{function}");
            }
            Rule::Shared(statement) => {
                let free = stage.login("free", "operator").await;
                assert_eq!(operator.one::<i64>(statement).await, free.one::<i64>(statement).await, "{function}");
            }
        }
    }
    assert_eq!(stage.all_of_the_other().await, before);
}

#[tokio::test]
async fn naming_the_other_tenant_in_a_call_fails_closed() {
    let Some(stage) = Stage::new().await else { return };
    let operator = stage.login(OWN, "operator").await;
    let (id, seq) = (stage.own.subscription_id, stage.own.event_seq);
    for call in [
        format!("outbox.pause({id}, tenant_id => '{OTHER}')"),
        format!("outbox.replay({id}, {seq}, tenant_id => '{OTHER}')"),
        format!("outbox.replay('{}'::uuid, tenant_id => '{OTHER}')", stage.own.event_id),
        format!("outbox.explain('{}', tenant_id => '{OTHER}')", stage.own.event_id),
        format!("outbox.revoke_token({}, tenant_id => '{OTHER}')", stage.own.token_id),
        format!("outbox.subscribe('https://hooks.example.com/in', '{{a}}', tenant_id => '{OTHER}')"),
        "outbox.subscribe('https://hooks.example.com/in', '{a}')".into(),
        "outbox.create_token('viewer')".into(),
        format!("outbox.create_token('viewer', tenant_id => '{OTHER}')"),
    ] {
        operator.refused(&format!("select {call}"), "OB022").await;
    }
    // An event of the other tenant, for a subscription of one's own: as one that is not there.
    let error = operator.refused(&format!("select outbox.replay({id}, {})", stage.other.event_seq), "OB021").await;
    assert_eq!(error.message(), format!("there is no event {}", stage.other.event_seq));
}

#[tokio::test]
async fn the_http_functions_show_a_bound_role_nothing_of_others_and_change_nothing_there() {
    let Some(stage) = Stage::new().await else { return };
    let operator = stage.login(OWN, "operator").await;
    let before = stage.all_of_the_other().await;
    let functions: Vec<String> = stage
        .app
        .all(
            "select p.proname::text from pg_proc p where p.pronamespace = 'outbox_http'::regnamespace
               and oidvectortypes(p.proargtypes) = 'text, jsonb' and has_function_privilege('outbox_operator', p.oid, 'execute')",
        )
        .await;
    assert!(functions.len() > 30);
    let other = &stage.other;
    let mut answered = 0;
    for function in functions {
        for page in ["{}", r#"{"cursor": null, "limit": 500}"#] {
            let request = serde_json::json!({
                "subscription_id": other.subscription_id, "delivery_id": format!("{}-{}", other.subscription_id, other.event_seq),
                "event_id": other.event_id, "token_id": other.token_id, "name": "retention", "type": "a.b",
                "body": {"value": "40 days", "reason": "x", "description": "x", "url": "https://x.example.com/", "event_types": ["a"],
                    "delivery_ids": [format!("{}-{}", other.subscription_id, other.event_seq)]}});
            let request = if page == "{}" { request } else { serde_json::from_str(page).expect("JSON") };
            let sql = format!("select outbox_http.{function}(null, $1::text::jsonb)::text");
            let words = match operator.query_one(&sql, &[&request.to_string()]).await {
                Ok(row) => {
                    answered += 1;
                    row.get::<_, Option<String>>(0).unwrap_or_default()
                }
                Err(error) => outboxd::schema::describe(&error),
            };
            assert!(!words.contains(OTHER), "{function}: {words}");
        }
    }
    assert!(answered >= 10, "{answered} answered");
    assert_eq!(stage.all_of_the_other().await, before);
}
