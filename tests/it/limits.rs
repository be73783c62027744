//! Limits, each at its edge: what one tenant may ask for, and how much of it the relay holds at once.

use crate::support::{Claim, Daemon, Db, Relay, Seat, Session, Sink, expect_error};
use serde_json::json;

/// A limit: the setting, a value for it, what is just allowed, what is just refused, and with which SQLSTATE.
type Edge = (&'static str, &'static str, String, String, &'static str);

fn subscribe(arguments: &str) -> String {
    format!("select outbox.subscribe('https://hooks.example.com/in', '{{a}}', {arguments})")
}

fn edges() -> Vec<Edge> {
    let url = |length: usize| {
        let url = format!("https://hooks.example.com/{}", "x".repeat(length - 26));
        assert_eq!(url.len(), length);
        format!("select outbox.subscribe('{url}', '{{a}}')")
    };
    let types = |count: usize| {
        format!(
            "select outbox.subscribe('https://hooks.example.com/in', array(select 'a' || n from generate_series(1, {count}) n))"
        )
    };
    let headers = |count: usize| {
        subscribe(&format!("headers => (select jsonb_object_agg('x-h' || n, 'v') from generate_series(1, {count}) n)"))
    };
    // As jsonb writes it: {"x-h": "…"}
    let header_bytes = |length: usize| subscribe(&format!("headers => '{{\"x-h\": \"{}\"}}'", "v".repeat(length - 11)));
    // As jsonpath writes it: ($."s" == "…")
    let filter = |length: usize| subscribe(&format!("filter => '$.s == \"{}\"'", "x".repeat(length - 13)));
    let payload = |length: usize| {
        // An object of one short key and a string: what its jsonb takes besides the string is asked of the server.
        format!(
            "insert into outbox.event (type, payload) select 'a', jsonb_build_object('k', repeat('x', {length}
                - (pg_column_size(jsonb_build_object('k', repeat('x', 1000))) - 1000)))"
        )
    };
    let metadata = |length: usize| {
        format!("select outbox.publish('a', '{{}}', metadata => '{{\"k\": \"{}\"}}')", "x".repeat(length - 9))
    };
    vec![
        ("max_url_bytes", "100", url(100), url(101), "OB010"),
        ("max_url_bytes", "2048", url(2048), url(2049), "OB010"),
        ("max_event_types", "7", types(7), types(8), "OB011"),
        ("max_headers", "3", headers(3), headers(4), "OB016"),
        ("max_header_bytes", "256", header_bytes(256), header_bytes(257), "OB016"),
        ("max_filter_bytes", "64", filter(64), filter(65), "OB012"),
        ("max_payload_bytes", "2000", payload(2000), payload(2001), "OB003"),
        ("max_metadata_bytes", "256", metadata(256), metadata(257), "OB005"),
        (
            "max_subscriptions_per_tenant",
            "1",
            subscribe("tenant_id => 'one'"),
            subscribe("tenant_id => 'one'"),
            "OB070",
        ),
        ("max_fan_out", "1", subscribe("tenant_id => 'two'"), subscribe("tenant_id => 'two'"), "OB071"),
    ]
}

#[tokio::test]
async fn what_is_just_within_a_limit_is_accepted_and_one_more_is_refused_naming_the_setting() {
    let db = Db::new().await;
    let app = db.session().await;
    for (setting, value, allowed, refused, sqlstate) in edges() {
        let default: String = app.one(&format!("select value from outbox.setting where name = '{setting}'")).await;
        app.run(&format!("select outbox.set('{setting}', '{value}')")).await;
        app.run(&allowed).await;
        let error = app.refused(&refused, sqlstate).await;
        assert!(error.message().contains(setting), "{setting}: {}", error.message());
        assert!(error.message().contains(&format!(" {value} ")), "the limit is named: {}", error.message());
        app.run(&format!("select outbox.set('{setting}', '{default}')")).await;
    }
}

#[tokio::test]
async fn a_limit_can_not_be_set_beyond_what_the_relay_could_keep() {
    let db = Db::new().await;
    let app = db.session().await;
    for (name, bad) in [
        ("max_url_bytes", "2049"),
        ("max_headers", "101"),
        ("max_header_bytes", "65537"),
        ("max_event_types", "0"),
        ("max_filter_bytes", "16385"),
        ("filter_timeout", "11 seconds"),
        ("filter_timeout", "1 millisecond"),
        ("max_subscriptions_per_tenant", "0"),
        ("max_fan_out", "-1"),
        ("max_metadata_bytes", "many"),
    ] {
        app.refused(&format!("select outbox.set('{name}', '{bad}')"), "OB030").await;
    }
}

#[tokio::test]
async fn who_was_there_before_a_limit_was_lowered_goes_on_and_may_change_what_is_not_too_large() {
    let db = Db::new().await;
    let app = db.session().await;
    let id = app
        .subscribe_with("a,b,c", r#"headers => '{"x-a": "1", "x-b": "2"}', filter => '$.some.longer.path.to.something.that.is.not.short == 1'"#)
        .await;
    app.run("update outbox.subscription set url = url || repeat('x', 100)").await;
    for (name, value) in
        [("max_url_bytes", "64"), ("max_headers", "1"), ("max_event_types", "1"), ("max_filter_bytes", "64")]
    {
        app.run(&format!("select outbox.set('{name}', '{value}')")).await;
    }
    let set = |what: &str| format!("update outbox.subscription set {what} where subscription_id = {id}");
    app.run(&format!("select outbox.pause({id}); select outbox.resume({id})")).await;
    app.run(&set("timeout = '3 seconds'")).await;
    app.run(&set("url = 'https://hooks.example.com/other'")).await;
    for (what, sqlstate) in [
        ("url = url || repeat('y', 100)", "OB010"),
        ("event_types = '{a,b}'", "OB011"),
        (r#"headers = '{"x-a": "1", "x-c": "2"}'"#, "OB016"),
        ("filter = '$.some.longer.path.to.something.that.is.not.short.either == 1'", "OB012"),
    ] {
        app.refused(&set(what), sqlstate).await;
    }
}

#[tokio::test]
async fn what_is_unsubscribed_makes_room_and_what_is_paused_does_not() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('max_subscriptions_per_tenant', '2')").await;
    let first = app.subscribe("a").await;
    app.subscribe("b").await;
    app.refused(&subscribe("name => 'third'"), "OB070").await;
    app.run(&format!("select outbox.pause({first})")).await;
    app.refused(&subscribe("name => 'third'"), "OB070").await;
    app.run(&subscribe("tenant_id => 'another'")).await;
    app.run(&format!("select outbox.unsubscribe({first})")).await;
    app.run(&subscribe("name => 'third'")).await;
}

/// Two sessions that take the last place at once, in transactions of this kind: what becomes of the second.
async fn second_of_two(setting: &str, begin: &str, ends: &str, sqlstate: &str) {
    let db = Db::new().await;
    let (a, b, watch) = (db.session().await, db.session().await, db.session().await);
    watch.subscribe("*").await;
    watch.run(&format!("select outbox.set('{setting}', '2')")).await;
    for session in [&a, &b] {
        session.run(&format!("{begin}; select count(*) from outbox.subscription")).await;
    }
    a.subscribe("order.created").await;
    let waiting = b.start(&subscribe("name => 'second'").replace("{a}", "{order.created}"));
    watch.wait_until_blocked(&b).await;
    a.run(ends).await;
    let waited = waiting.await.expect("it ends");
    if sqlstate.is_empty() {
        waited.expect("there is room");
        b.run("commit").await;
    } else {
        expect_error(waited.map(|_| ()), sqlstate);
        b.run("rollback").await;
    }
    let living: i64 = watch.one("select count(*) from outbox.subscription").await;
    assert_eq!(living, 2, "{setting}, {begin}, {ends}");
}

#[tokio::test]
async fn two_that_subscribe_at_once_do_not_both_take_the_last_place() {
    for (setting, sqlstate) in [("max_subscriptions_per_tenant", "OB070"), ("max_fan_out", "OB071")] {
        second_of_two(setting, "begin", "commit", sqlstate).await;
        second_of_two(setting, "begin", "rollback", "").await;
        // A snapshot of before can not count the other: it has to be taken anew.
        second_of_two(setting, "begin isolation level repeatable read", "commit", "40001").await;
        second_of_two(setting, "begin isolation level serializable", "commit", "40001").await;
    }
}

#[tokio::test]
async fn fan_out_counts_who_would_want_the_worst_of_all_types() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('max_fan_out', '3')").await;
    // Nobody wants what another of these wants.
    for patterns in ["order.created", "order.line.*", "invoice.*", "a,b,c", "outbox.subscription.disabled", "outbox.*"]
    {
        app.subscribe(patterns).await;
    }
    let refused = |patterns: &str| format!("select outbox.subscribe('https://hooks.example.com/in', '{{{patterns}}}')");
    app.subscribe("*").await;
    let order = app.subscribe("order.*").await;
    // order.created: itself, order.*, *. The operational ones are not among *.
    let error = app.refused(&refused("*"), "OB071").await;
    assert!(error.message().contains("order.") && error.message().contains(" 4 "), "{}", error.message());
    app.refused(&refused("order.line.added"), "OB071").await;
    app.refused(&refused("invoice.paid,order.created"), "OB071").await;
    app.subscribe("invoice.paid").await;
    app.refused(&refused("invoice.paid"), "OB071").await;
    app.subscribe("order.shipped").await;
    app.subscribe("outbox.subscription.*").await;
    app.refused(&refused("outbox.*"), "OB071").await;
    // One that would want more is judged as a new one; what it wants already is not counted twice.
    app.run(&format!(
        "update outbox.subscription set event_types = '{{order.*,order.created,x}}' where subscription_id = {order}"
    ))
    .await;
    app.refused(
        &format!(
            "update outbox.subscription set event_types = '{{order.*,invoice.paid}}' where subscription_id = {order}"
        ),
        "OB071",
    )
    .await;
    // Who pauses makes room, and comes back only if there is some.
    app.run(&format!("select outbox.pause({order})")).await;
    let other = app.subscribe("order.*").await;
    app.refused(&format!("select outbox.resume({order})"), "OB071").await;
    app.run(&format!("select outbox.unsubscribe({other}); select outbox.resume({order})")).await;
}

#[tokio::test]
async fn no_event_is_refused_or_lost_when_more_want_it_than_may() {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    for _ in 0..5 {
        app.subscribe("*").await;
    }
    app.run("select outbox.set('max_fan_out', '2'); select outbox.set('max_subscriptions_per_tenant', '2')").await;
    app.insert("a", "{}").await;
    assert_eq!(relay.expand(&crate::support::Expand::default()).await.leases.len(), 5);
    app.assert_accounted().await;
}

#[tokio::test]
async fn through_http_a_limit_is_a_problem_of_the_client() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('max_headers', '1'); select outbox.set('max_fan_out', '1'); select outbox.set('max_subscriptions_per_tenant', '2')").await;
    let seat = Seat::new(&db).await;
    let make = |event_types: serde_json::Value, headers: serde_json::Value| {
        let body = json!({"url": "https://hooks.example.com/in", "event_types": event_types, "headers": headers});
        seat.call("POST", "/webhooks", Some(body))
    };
    assert_eq!(make(json!(["a"]), json!({})).await.status, 201);
    let problem = make(json!(["b"]), json!({"x-a": "1", "x-b": "2"})).await.problem(422);
    assert_eq!(problem["code"], "OB016");
    let problem = make(json!(["a"]), json!({})).await.problem(409);
    assert_eq!(problem["code"], "OB071");
    assert_eq!(make(json!(["b"]), json!({})).await.status, 201);
    let problem = make(json!(["c"]), json!({})).await.problem(409);
    assert_eq!(problem["code"], "OB070");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("max_subscriptions_per_tenant")));
    assert!(problem["hint"].is_string());
}

#[tokio::test]
async fn what_a_raised_limit_allows_passes_through_http_too() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set(name, maximum) from outbox.setting where name in ('max_event_types', 'max_headers', 'max_header_bytes', 'max_filter_bytes')").await;
    let seat = Seat::new(&db).await;
    let types: Vec<_> = (0..1000).map(|n| format!("a{n}")).collect();
    let headers: serde_json::Map<_, _> = (0..100).map(|n| (format!("x-h{n}"), json!("v".repeat(500)))).collect();
    let filter = format!("$.s == \"{}\"", "x".repeat(16384 - 13));
    let body =
        json!({"url": "https://hooks.example.com/in", "event_types": types, "headers": headers, "filter": filter});
    let made = seat.call("POST", "/webhooks", Some(body.clone())).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let path = format!("/webhooks/{}", made.json()["webhook"]["subscription_id"]);
    seat.call("PATCH", &path, Some(body)).await.ok();
}

/// What expand leases of what is new, with so many bytes for it.
async fn expand_bytes(relay: &Relay, bytes: i64) -> Vec<i32> {
    let sql = "select coalesce(cardinality(subscription_ids), 0), coalesce(queued, 0)
               from outbox_relay.expand($1, 1000, 1000, 1000, '{}', '{}', false, true, '{}', $2)";
    let rows = relay.session.query(sql, &[&relay.epoch, &bytes]).await.expect("expanded");
    let (summary, events) = rows.split_last().expect("a summary");
    let queued: i32 = summary.get(1);
    events.iter().map(|row| row.get(0)).chain([queued]).collect()
}

async fn insert_large(session: &Session, count: i32, length: i32) {
    session
        .run(&format!(
            "insert into outbox.event (type, payload) select 'a', to_jsonb(repeat('x', {length} - 2)) from generate_series(1, {count})"
        ))
        .await;
}

#[tokio::test]
async fn no_more_bytes_are_leased_than_there_is_room_for_and_what_is_beyond_waits_in_the_queue() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.subscribe("*").await;
    insert_large(&app, 3, 10_000).await;
    // 10 kB for each of two leases: two for the first event, one for the second.
    assert_eq!(expand_bytes(&relay, 39_999).await, [2, 1, 3]);
    // One is always taken, or what is larger than the room would never go.
    let claim = async |bytes: i64| -> i64 {
        let sql = format!(
            "select count(*) filter (where event_seq is not null)
             from outbox_relay.claim({}, 100, 100, '{{}}', '{{}}', true, {bytes})",
            relay.epoch
        );
        relay.session.one(&sql).await
    };
    assert_eq!((claim(1).await, claim(20_000).await, claim(20_000).await), (1, 2, 0));
    insert_large(&app, 2, 10_000).await;
    assert_eq!(expand_bytes(&relay, 1).await, [1, 3]);
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 3);
    app.assert_accounted().await;
}

#[tokio::test]
async fn large_payloads_are_all_delivered_by_a_relay_that_may_hold_few_of_them() {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = app.endpoint(&sink.url("/in"), "").await;
    let other = app.endpoint(&sink.url("/other"), "").await;
    insert_large(&app, 12, 700_000).await;
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_RELAY__MAX_PAYLOAD_BYTES_HELD", "1048576")
        .spawn()
        .registered()
        .await;
    app.wait_for_state(endpoint.id, "succeeded", 12).await;
    app.wait_for_state(other.id, "succeeded", 12).await;
    assert_eq!(sink.arrived().len(), 24, "each once");
    assert!(sink.most_waiting() <= 2, "{} were held at once", sink.most_waiting());
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_payload_from_before_its_limit_was_lowered_is_sent() {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = app.endpoint(&sink.url("/in"), "").await;
    // Escaped they are six times as long as stored, and far beyond eight times the new limit.
    app.run("insert into outbox.event (type, payload) select 'a', jsonb_build_object('k', repeat(E'\\x01', 100000)) from generate_series(1, 2)").await;
    app.run("select outbox.set('max_payload_bytes', '1024')").await;
    let _relay = Daemon::on(&db).await;
    app.wait_for_state(endpoint.id, "succeeded", 2).await;
    // Through the queue too.
    app.run("select outbox.replay(event_id) from outbox.event").await;
    app.wait_until("select count(*) = 4 from outbox.attempt where outcome = 'delivered'").await;
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_payload_that_is_vast_when_written_is_given_up_and_nothing_else_suffers() {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = app.endpoint(&sink.url("/in"), "").await;
    // Some ten kB in jsonb. Written out, every one of these numbers has 131072 digits: together more than a value may be.
    app.run(
        "insert into outbox.event (type, payload) values ('a', '1'), ('a', (select jsonb_agg(x) from generate_series(1, 9000), (select '1e131071'::numeric as x) n)), ('a', '2')",
    )
    .await;
    let _relay = Daemon::on(&db).await;
    app.wait_for_state(endpoint.id, "succeeded", 2).await;
    app.wait_for_state(endpoint.id, "dead_letter", 1).await;
    // Nor through the queue.
    app.run(&format!("select outbox.replay_failed({})", endpoint.id)).await;
    app.wait_for_state(endpoint.id, "dead_letter", 1).await;
    app.run("insert into outbox.event (type, payload) select 'a', jsonb_build_object('b', jsonb_build_array(jsonb_agg(-1e131071))) from generate_series(1, 9000)").await;
    app.wait_for_state(endpoint.id, "dead_letter", 2).await;
    app.insert("a", "3").await;
    app.wait_for_state(endpoint.id, "succeeded", 3).await;
    let errors: Vec<String> =
        app.all("select distinct last_error from outbox.delivery where state = 'dead_letter'").await;
    assert_eq!(errors, ["the payload as JSON text is over eight times max_payload_bytes"]);
    app.assert_accounted().await;
}
