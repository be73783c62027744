//! Who may do what: each role, allowed and refused.

use crate::support::{Db, Expand, Relay, Session};

const ROLES: [&str; 4] = ["outbox_producer", "outbox_viewer", "outbox_operator", "outbox_relay"];

/// A statement, and for producer, viewer, operator and relay whether it is theirs to run. `%` is a subscription.
const TABLE: [(&str, [bool; 4]); 87] = [
    // Events in.
    ("insert into outbox.event (type, payload) values ('a', '{}')", [true, false, false, false]),
    (
        "insert into outbox.event (type, payload, event_id, tenant_id, occurred_at, ordering_key, priority, deliver_at, metadata) values ('a', '{}', gen_random_uuid(), 't', now(), 'k', 1, now(), '{}')",
        [true, false, false, false],
    ),
    ("insert into outbox.event (type, payload, event_seq) values ('a', '{}', 99)", [false; 4]),
    ("insert into outbox.event (type, payload, xact) values ('a', '{}', pg_current_xact_id())", [false; 4]),
    ("insert into outbox.event (type, payload, addressed_to) values ('a', '{}', 1)", [false; 4]),
    ("insert into outbox.event_s0 (type, payload) values ('a', '{}')", [false; 4]),
    ("update outbox.event set payload = '{}'", [false; 4]),
    ("delete from outbox.event", [false; 4]),
    ("truncate outbox.event", [false; 4]),
    ("select setval('outbox.event_event_seq_seq', 1)", [false; 4]),
    ("select outbox.publish('a', '{}', idempotency_key => 'k')", [true, false, false, false]),
    // Reading.
    ("select event_seq, event_id, type, occurred_at from outbox.event", [false, true, true, false]),
    ("select payload from outbox.event", [false, false, true, false]),
    ("select metadata from outbox.event", [false, false, true, false]),
    ("select xact from outbox.event", [false, false, true, false]),
    ("select * from outbox.event_type", [false, true, true, false]),
    ("select * from outbox.subscription", [false, true, true, false]),
    ("select * from outbox.subscription_health", [false, true, true, false]),
    ("select * from outbox.signing_key", [false, true, true, false]),
    ("select * from outbox.retry_policy", [false, true, true, false]),
    ("select * from outbox.delivery", [false, true, true, false]),
    ("select * from outbox.attempt", [false, true, true, false]),
    ("select * from outbox.setting", [false, true, true, false]),
    ("select * from outbox_relay.signing_secret", [false; 4]),
    ("select * from outbox_relay.queue", [false; 4]),
    ("select * from outbox_relay.finished", [false, true, true, false]), // outbox.delivery reads it,
    ("select subscription_id, event_seq, state from outbox_relay.queue", [false, true, true, false]),
    ("select * from outbox_relay.relay", [false; 4]),
    ("select * from outbox.role_binding", [false, true, true, false]),
    ("select outbox.bind_role('nobody', 'acme')", [false; 4]),
    ("select * from outbox_relay.cursor", [false; 4]),
    ("select * from outbox_relay.idempotency_key", [false; 4]),
    ("select * from outbox.status()", [false, true, true, true]),
    ("select * from outbox.explain((select event_id from outbox.event limit 1))", [false, true, true, false]),
    ("select * from outbox.unaccounted()", [false, true, true, false]),
    // Operating.
    ("select outbox.define_event_type('a')", [false, false, true, false]),
    ("select outbox.subscribe('https://hooks.example.com/in', '{a}')", [false, false, true, false]),
    ("select outbox.pause(%)", [false, false, true, false]),
    ("select outbox.resume(%)", [false, false, true, false]),
    ("select outbox.unsubscribe(%)", [false, false, true, false]),
    ("select outbox.rotate_secret(%)", [false, false, true, false]),
    ("select outbox.send_test(%)", [false, false, true, false]),
    ("select outbox.replay(%, 1)", [false, false, true, false]),
    ("select outbox.replay_failed(%)", [false, false, true, false]),
    ("select outbox.replay_missing(%)", [false, false, true, false]),
    ("select outbox.hold('because')", [false, false, true, false]),
    ("select outbox.release()", [false, false, true, false]),
    ("select outbox.adopt('test')", [false, false, true, false]),
    ("select outbox.set('retention', '40 days')", [false, false, true, false]),
    (
        "update outbox.subscription set url = 'https://other.example.com/in', event_types = '{b}', filter = '$.a', description = 'x'",
        [false, false, true, false],
    ),
    ("update outbox.subscription set tenant_id = 'globex'", [false; 4]),
    ("update outbox.subscription set active = false, disabled_at = now()", [false; 4]),
    (
        "insert into outbox.subscription (name, url, event_types, retry_policy) values ('n', 'https://a.example.com', '{a}', 'none')",
        [false; 4],
    ),
    ("delete from outbox.subscription", [false; 4]),
    ("update outbox.setting set value = 'x'", [false; 4]),
    ("insert into outbox.retry_policy (name, delays) values ('mine', '{1s}')", [false, false, true, false]),
    ("update outbox.subscription_health set failure_count = 0", [false; 4]),
    ("delete from outbox.attempt", [false; 4]),
    // The operator's seat: as in SQL, so in HTTP.
    ("select * from outbox.audit", [false, true, true, false]),
    ("select * from outbox.token", [false, true, true, false]),
    ("select * from outbox.activity()", [false, true, true, false]),
    ("select * from outbox.relays()", [false, true, true, false]),
    ("select outbox.create_token('viewer')", [false, false, true, false]),
    ("insert into outbox.audit (actor, via, action) values ('me', 'sql', 'nothing')", [false; 4]),
    ("delete from outbox.audit", [false; 4]),
    ("select * from outbox_relay.token_hash", [false; 4]),
    ("select * from outbox_relay.session", [false; 4]),
    ("select * from outbox_relay.idempotent_request", [false; 4]),
    ("select outbox_http.list_webhooks(null, '{}')", [false, true, true, false]),
    ("select outbox_http.release(null, '{}')", [false, false, true, false]),
    (
        "select outbox_http.publish_event(null, '{\"body\": {\"type\": \"a\", \"payload\": {}}}')",
        [true, false, false, false],
    ),
    ("select outbox_relay.enter('token', '', '1 minute', true)", [false, false, false, true]),
    ("select outbox_relay.gauges()", [false, false, false, true]),
    // The daemon.
    ("select outbox_relay.register('r', 'v', 'test')", [false, false, false, true]),
    ("select outbox_relay.expand(1, 1, 1, 1, '{}', '{}', false, true)", [false, false, false, true]),
    ("select outbox_relay.load_subscriptions('{1}')", [false, false, false, true]),
    ("select outbox_relay.maintain()", [false, false, false, true]),
    ("select outbox_relay.add_key(1, 'x-signature', 'a-secret-of-length')", [false; 4]),
    ("select outbox_relay.unsealed(1)", [false, false, false, true]),
    ("select outbox_relay.sealed_otherwise('k', 0, '', 1)", [false, false, false, true]),
    ("select outbox_relay.seal(1, 'k', '', '', 'k', 'text')", [false, false, false, true]),
    ("select outbox_relay.secret_counts()", [false, false, false, true]),
    ("select outbox_relay.offer_for(null, null)", [false, false, false, true]),
    (
        "select outbox_relay.offer_key(o.id, 'k', 'text', null, '', 'k') from outbox_relay.offer_for(null, null) o",
        [false, false, false, true],
    ),
    ("select outbox_relay.name_key(1, 'k', 'l', 'text', null)", [false, false, false, true]),
    ("select * from outbox_relay.offered_key", [false; 4]),
    ("create table outbox.mine (n int)", [false; 4]),
];

/// Whether the role may run it. Any other error than a missing privilege fails the test.
async fn may(session: &Session, statement: &str) -> bool {
    session.run("begin").await;
    let result = session.batch_execute(statement).await;
    session.run("rollback").await;
    match result.as_ref().err().and_then(|error| error.as_db_error()) {
        None => true,
        Some(error) => {
            assert_eq!(error.code().code(), "42501", "{statement}: {error:?}");
            false
        }
    }
}

#[tokio::test]
async fn each_role_may_do_its_own_and_nothing_else() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    let mut wrong = Vec::new();
    for (nth, role) in ROLES.iter().enumerate() {
        let session = db.session_as(role).await;
        for (statement, allowed) in TABLE {
            let is_allowed = may(&session, &statement.replace('%', &subscription.to_string())).await;
            if is_allowed != allowed[nth] {
                wrong.push(format!("{role} {} {statement}", if is_allowed { "may" } else { "may not" }));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn only_a_producer_may_copy_events_in() {
    let db = Db::new().await;
    for role in ROLES {
        let session = db.session_as(role).await; // given up with its unfinished COPY
        let copy = session.copy_in::<_, bytes::Bytes>("copy outbox.event (type, payload) from stdin").await;
        assert_eq!(copy.is_ok(), role == "outbox_producer", "{role}");
    }
}

#[tokio::test]
async fn a_producer_is_told_what_is_wrong_with_an_event() {
    let db = Db::new().await;
    db.session().await.run("select outbox.set('max_payload_bytes', '2048')").await;
    let producer = db.session_as("outbox_producer").await;
    let error = producer
        .refused("insert into outbox.event (type, payload) values ('a', to_jsonb(repeat('x', 4000)))", "OB003")
        .await;
    assert!(error.message().contains("2048"), "{error:?}");
    producer.refused("insert into outbox.event (type, payload) values ('', '{}')", "OB001").await;
    db.session().await.run("select outbox.define_event_type('known')").await;
    producer.refused("insert into outbox.event (type, payload) values ('unknown', '{}')", "OB004").await;
}

#[tokio::test]
async fn a_producer_rings_the_bell() {
    let db = Db::new().await;
    let sleeper = db.session().await;
    let mut bell = db.listener("outbox_bell").await;
    sleeper.run("select pg_advisory_lock(1869968482, 1)").await;
    db.session_as("outbox_producer").await.run("insert into outbox.event (type, payload) values ('a', '{}')").await;
    assert_eq!(bell.count().await, 1);
}

#[tokio::test]
async fn the_relays_role_can_do_the_whole_loop() {
    let db = Db::new().await;
    let app = db.session().await;
    app.subscribe("*").await;
    app.insert_many("a", 2).await;
    let relay = Relay { session: db.session_as("outbox_relay").await, epoch: 1 };
    relay.session.run("select outbox_relay.register('r', 'v', 'test')").await;
    let leases = relay.expand_all(&Expand::default()).await.leases;
    relay.record(&[crate::support::sent(leases[0], 200), crate::support::sent(leases[1], 410)]).await;
    relay.claim(&crate::support::Claim::default()).await;
    assert_eq!(relay.tick().await, (0, None));
    relay.session.run("select outbox_relay.maintain(); select outbox_relay.resume_epoch(1); select outbox_relay.fence(1); listen outbox_bell").await;
}

#[tokio::test]
async fn an_operator_may_set_the_payload_limit() {
    let db = Db::new().await;
    db.session_as("outbox_operator").await.run("select outbox.set('max_payload_bytes', '4096')").await;
}

#[tokio::test]
async fn everything_users_touch_is_commented() {
    let db = Db::new().await;
    let app = db.session().await;
    let mute: Vec<String> = app
        .all(
            "select p.oid::regprocedure::text from pg_proc p where p.pronamespace in ('outbox'::regnamespace, 'outbox_relay'::regnamespace, 'outbox_http'::regnamespace)
               and obj_description(p.oid, 'pg_proc') is null
             union all
             select c.oid::regclass::text from pg_class c
             where c.relnamespace in ('outbox'::regnamespace, 'outbox_relay'::regnamespace, 'outbox_http'::regnamespace) and c.relkind in ('r', 'p', 'v')
               and not c.relispartition and c.relname <> 'migration' and obj_description(c.oid, 'pg_class') is null",
        )
        .await;
    assert!(mute.is_empty(), "{mute:?}");
}

#[tokio::test]
async fn the_relays_role_takes_the_role_of_a_token_and_has_none_of_its_rights_otherwise() {
    let db = Db::new().await;
    let relay = db.session_as("outbox_relay").await;
    relay.refused("select * from outbox.audit", "42501").await;
    relay.run("begin; set local role outbox_viewer; select * from outbox.audit; commit").await;
    relay.refused("select * from outbox.audit", "42501").await;
    let viewer = db.session_as("outbox_viewer").await;
    viewer.refused("set role outbox_operator", "42501").await;
}
