//! The HTTP API: the SQL functions with the rights of a token, and what is refused.

use crate::support::{Db, Seat, Session, Sink};
use hyper::StatusCode;
use outboxd::admin::Document;
use serde_json::json;
use std::collections::BTreeSet;

async fn stage() -> (Db, Session, Seat) {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('allow_insecure_http', 'true')").await;
    let seat = Seat::new(&db).await;
    (db, app, seat)
}

fn webhook(url: &str) -> serde_json::Value {
    json!({"url": url, "event_types": ["order.*"], "retry_policy": "none"})
}

#[tokio::test]
async fn every_operation_of_the_document_is_a_function_and_every_function_an_operation() {
    let db = Db::new().await;
    let functions: Vec<String> = db
        .session()
        .await
        .all(
            "select proname::text from pg_proc where pronamespace = 'outbox_http'::regnamespace
               and pg_get_function_identity_arguments(oid) = 'tenant text, request jsonb'
               and proname not in ('deliveries', 'deliveries_of_event')",
        )
        .await;
    let document = Document::embedded().expect("a good document");
    let operations: BTreeSet<&str> = document.operation_ids().collect();
    assert_eq!(functions.iter().map(String::as_str).collect::<BTreeSet<_>>(), operations);
}

#[tokio::test]
async fn an_endpoint_is_made_tested_changed_rotated_paused_and_ended() {
    let (_db, app, seat) = stage().await;
    let sink = Sink::accepting().await;
    let made = seat.call("POST", "/webhooks", Some(webhook(&sink.url("/in")))).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    let at = format!("/webhooks/{}", made["webhook"]["subscription_id"]);

    let test = seat.call("POST", &format!("{at}/test"), Some(json!({"payload": {"n": 1}}))).await;
    assert_eq!(test.status, 202);
    let delivery = format!("/deliveries/{}", test.json()["delivery_id"].as_str().expect("an id"));
    app.wait_until("select exists (select from outbox.delivery where state = 'succeeded')").await;
    let delivery = seat.call("GET", &delivery, None).await.ok();
    assert_eq!((&delivery["attempt_log"][0]["outcome"], &delivery["schedule"]), (&json!("delivered"), &json!([])));

    let changed = seat.call("PATCH", &at, Some(json!({"rate_limit": 2.5, "description": "the warehouse"}))).await.ok();
    assert_eq!((&changed["rate_limit"], &changed["event_types"]), (&json!(2.5), &json!(["order.*"])));
    let changed = seat.call("PATCH", &at, Some(json!({"rate_limit": null}))).await.ok();
    assert_eq!((&changed["rate_limit"], &changed["description"]), (&json!(null), &json!("the warehouse")));

    let rotated = seat.call("POST", &format!("{at}/rotate-secret"), Some(json!({"overlap": "2 hours"}))).await.ok();
    assert_eq!(rotated["keys"].as_array().map(Vec::len), Some(2));
    assert_ne!(rotated["key_id"], made["key_id"]);

    let paused = seat.call("POST", &format!("{at}/pause"), Some(json!({"reason": "inventory"}))).await.ok();
    assert_eq!((&paused["active"], &paused["disabled_reason"]), (&json!(false), &json!("inventory")));
    assert_eq!(seat.call("POST", &format!("{at}/resume"), None).await.ok()["active"], json!(true));
    assert_eq!(seat.call("DELETE", &at, None).await.ok()["cancelled"], json!(0));
    assert_eq!(seat.call("POST", &format!("{at}/resume"), None).await.problem(409)["code"], "OB023");
    assert_eq!(seat.call("GET", "/webhooks", None).await.ok()["data"], json!([]));
}

#[tokio::test]
async fn numbers_pass_digit_for_digit_in_both_directions() {
    let (db, app, seat) = stage().await;
    let producer: String = app.one("select outbox.create_token('producer')").await;
    let body = r#"{"type": "order.paid", "payload": {"n": 123456789012345678901234567890.10, "huge": 1e400}}"#;
    let authorization = format!("Bearer {producer}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let answered = seat.send("POST", "/events", &headers, body).await;
    // What is no double is refused as JSON by no one but us: say so rather than round it.
    let body = if answered.status == 201 {
        answered.text
    } else {
        let body = body.replace(", \"huge\": 1e400", "");
        seat.send("POST", "/events", &headers, body).await.ok().to_string()
    };
    let id =
        serde_json::from_str::<serde_json::Value>(&body).expect("JSON")["event_id"].as_str().expect("an id").to_owned();
    let event = seat.call("GET", &format!("/events/{id}"), None).await;
    assert!(event.text.contains("123456789012345678901234567890.10"), "{}", event.text);
    drop(db);
}

#[tokio::test]
async fn a_repeated_post_is_done_once_and_shows_no_secret_again() {
    let (_db, app, seat) = stage().await;
    let once = |key: &'static str, name: &'static str| {
        let mut body = webhook("https://hooks.example.com/in");
        body["name"] = name.into();
        let seat = &seat;
        async move { seat.call_as(&seat.operator, "POST", "/webhooks", Some(body), &[("Idempotency-Key", key)]).await }
    };
    let (first, second, third) = tokio::join!(once("k1", "a"), once("k1", "a"), once("k1", "a"));
    let ids: BTreeSet<String> = [&first, &second, &third]
        .iter()
        .map(|answer| answer.json()["webhook"]["subscription_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1);
    let answers = [first, second, third];
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(answers.iter().filter(|answer| answer.json()["secret"].is_string()).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count(), 2);
    assert_eq!(once("k1", "b").await.problem(422)["code"], "OB061");
    assert_eq!(once("k2", "b").await.status, 201);
    assert_eq!(app.one::<i64>("select count(*) from outbox.subscription").await, 2);
    let kept: i64 = app.one("select count(*) from outbox_relay.idempotent_request where answer like '%whsec_%'").await;
    assert_eq!(kept, 0);
    // A refusal is not kept: mended, the same key works.
    let key = &[("Idempotency-Key", "k3")];
    let bad = json!({"url": "https://localhost/", "event_types": ["*"]});
    assert_eq!(seat.call_as(&seat.operator, "POST", "/webhooks", Some(bad), key).await.problem(422)["code"], "OB010");
    let good = webhook("https://hooks.example.com/in");
    assert_eq!(seat.call_as(&seat.operator, "POST", "/webhooks", Some(good), key).await.status, 201);
}

#[tokio::test]
async fn the_key_of_an_event_is_the_tenants_whichever_token_is_used() {
    let (_db, app, seat) = stage().await;
    let tokens: [String; 2] = [
        app.one("select outbox.create_token('producer')").await,
        app.one("select outbox.create_token('producer')").await,
    ];
    let mut ids = BTreeSet::new();
    for token in &tokens {
        let body = json!({"type": "order.paid", "payload": {}});
        let answer = seat.call_as(token, "POST", "/events", Some(body), &[("Idempotency-Key", "4711")]).await;
        ids.insert(answer.ok()["event_id"].to_string());
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_request_that_does_not_fit_says_where_and_repeats_no_value() {
    let (_db, _app, seat) = stage().await;
    let wrong = json!({"url": "https://hooks.example.com/in", "event_types": "order.*", "secret": 1234567890, "colour": "blue"});
    let problem = seat.call("POST", "/webhooks", Some(wrong)).await.problem(400);
    let at: BTreeSet<&str> =
        problem["errors"].as_array().expect("a list").iter().filter_map(|e| e["at"].as_str()).collect();
    assert!(at.contains("body /event_types") && at.contains("body /secret"), "{problem}");
    assert!(!problem.to_string().contains("1234567890"), "{problem}");
    for (method, path, status) in [
        ("GET", "/webhooks?limit=0", 400),
        ("GET", "/webhooks?limit=1&limit=2", 400),
        ("GET", "/webhooks?colour=blue", 400),
        ("GET", "/webhooks/abc", 400),
        ("GET", "/webhooks/99", 404),
        ("GET", "/webhooks?cursor=1-2", 400),
        ("GET", "/nowhere", 404),
        ("PUT", "/webhooks", 405),
        ("GET", "/deliveries/1-99", 404),
        ("GET", "/deliveries?event_id=nonsense", 400),
        ("GET", "/event-types/none&x", 400),
        ("POST", "/metrics", 405),
        ("GET", "/openapi.json?signature=none", 400),
    ] {
        let answered = seat.call(method, path, None).await;
        assert_eq!(answered.status.as_u16(), status, "{method} {path}: {answered:?}");
    }
    let authorization = format!("Bearer {}", seat.operator);
    let plain = [("authorization", authorization.as_str()), ("content-type", "text/plain")];
    assert_eq!(seat.send("POST", "/webhooks", &plain, "{}").await.status, 415);
    let typed = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    assert_eq!(seat.send("POST", "/webhooks", &typed, "{").await.status, 400);
    assert_eq!(seat.send("POST", "/webhooks", &typed, "").await.status, 400);
    assert_eq!(seat.send("POST", "/webhooks", &typed, "[".repeat(100_000)).await.status, 400);
    assert_eq!(seat.send("POST", "/webhooks", &typed, vec![b' '; 3 << 20]).await.status, 413);
}

#[tokio::test]
async fn a_tenants_token_sees_and_does_what_is_its_own() {
    let (_db, app, seat) = stage().await;
    let acme: String = app.one("select outbox.create_token('operator', tenant_id => 'acme')").await;
    let other = app.subscribe("*").await;
    let call = async |method: &str, path: &str, body| seat.call_as(&acme, method, path, body, &[]).await;
    let made = call("POST", "/webhooks", Some(webhook("https://hooks.example.com/in"))).await.ok();
    assert_eq!(made["webhook"]["tenant_id"], "acme");
    let listed = call("GET", "/webhooks", None).await.ok();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    for (method, path) in [
        ("GET", format!("/webhooks/{other}")),
        ("DELETE", format!("/webhooks/{other}")),
        ("POST", format!("/webhooks/{other}/pause")),
        ("POST", format!("/webhooks/{other}/rotate-secret")),
        ("POST", format!("/webhooks/{other}/test")),
        ("GET", format!("/webhooks/{other}/deliveries")),
        ("GET", format!("/deliveries/{other}-1")),
        ("DELETE", "/tokens/1".to_owned()),
    ] {
        assert_eq!(call(method, &path, None).await.status, 404, "{method} {path}");
    }
    let mut foreign = webhook("https://hooks.example.com/in");
    foreign["tenant_id"] = "globex".into();
    assert_eq!(call("POST", "/webhooks", Some(foreign)).await.problem(403)["code"], "OB022");
    for (method, path, body) in [
        ("PUT", "/hold", Some(json!({"reason": "mine"}))),
        ("DELETE", "/hold", None),
        ("GET", "/activity", None),
        ("GET", "/relays", None),
        ("PUT", "/settings/retention", Some(json!({"value": "1 day"}))),
        ("PUT", "/event-types/a.b", Some(json!({}))),
        ("GET", "/webhooks?tenant_id=globex", None),
    ] {
        assert_eq!(call(method, path, body).await.problem(403)["code"], "OB022", "{method} {path}");
    }
    let status = call("GET", "/status", None).await.ok();
    assert_eq!((&status["log_head"], &status["unexpanded_events"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn a_role_does_over_http_what_it_may_in_sql() {
    let (_db, app, seat) = stage().await;
    let (viewer, producer): (String, String) = (
        app.one("select outbox.create_token('viewer')").await,
        app.one("select outbox.create_token('producer')").await,
    );
    let event = json!({"type": "order.paid", "payload": {"card": "4111"}});
    let published = seat.call_as(&producer, "POST", "/events", Some(event.clone()), &[]).await.ok();
    let at = format!("/events/{}", published["event_id"].as_str().expect("an id"));
    for (token, method, path, body, status) in [
        (&viewer, "GET", "/webhooks", None, 200),
        (&viewer, "GET", at.as_str(), None, 403),
        (&viewer, "POST", "/webhooks", Some(webhook("https://hooks.example.com/in")), 403),
        (&viewer, "DELETE", "/hold", None, 403),
        (&producer, "GET", "/webhooks", None, 403),
        (&producer, "GET", "/status", None, 403),
        (&seat.operator, "POST", "/events", Some(event), 403),
        (&seat.operator, "GET", at.as_str(), None, 200),
    ] {
        let answered = seat.call_as(token, method, path, body, &[]).await;
        assert_eq!(answered.status.as_u16(), status, "{method} {path}: {answered:?}");
    }
}

#[tokio::test]
async fn pages_join_into_the_whole_list_while_it_grows() {
    let (_db, app, seat) = stage().await;
    app.without_circuits().await;
    let sink =
        Sink::new(|arrived, _| if arrived.path == "/down" { StatusCode::BAD_GATEWAY } else { StatusCode::OK }).await;
    for path in ["/up", "/down", "/up"] {
        app.endpoint(&sink.url(path), "retry_policy => 'none'").await;
    }
    app.insert_many("a", 40).await;
    app.wait_until("select count(*) = 120 from outbox.delivery where finished_at is not null").await;
    for (query, filter) in [
        ("", "true"),
        ("&state=dead_letter", "state = 'dead_letter'"),
        ("&type=a", "true"),
        ("&subscription_id=2", "subscription_id = 2"),
    ] {
        app.wait_until("select unexpanded_events + pending + leased + failed = 0 from outbox.status()").await;
        let expected: Vec<String> =
            app.all(&format!("select subscription_id || '-' || event_seq from outbox.delivery where {filter}")).await;
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = seat.call("GET", &format!("/deliveries?limit=7{query}{cursor}"), None).await.ok();
            let data = page["data"].as_array().expect("a list");
            seen.extend(data.iter().map(|d| d["delivery_id"].as_str().expect("an id").to_owned()));
            app.insert("a", "{}").await; // newer than the first page: in none of the next
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "{query}: none twice");
        assert!(expected.iter().all(|id| distinct.contains(id)), "{query}: none missed");
    }
}

#[tokio::test]
async fn a_selection_is_counted_and_replayed_as_a_whole_or_not_at_all() {
    let (_db, app, seat) = stage().await;
    let sink = Sink::accepting().await;
    app.run("select outbox.set('circuit_failures', '0')").await;
    let id = app.endpoint(&sink.url("/in"), "retry_policy => 'none'").await.id;
    for _ in 0..3 {
        app.insert("a", "{}").await;
    }
    app.wait_until("select count(*) = 3 from outbox.delivery where state = 'succeeded'").await;
    let ids = json!([format!("{id}-1"), format!("{id}-2")]);
    let counted =
        seat.call("POST", "/deliveries/replay", Some(json!({"delivery_ids": ids, "dry_run": true}))).await.ok();
    assert_eq!((&counted["count"], sink.arrived().len()), (&json!(2), 3));
    let with_a_stranger = json!({"delivery_ids": [format!("{id}-1"), format!("{id}-99")]});
    assert_eq!(seat.call("POST", "/deliveries/replay", Some(with_a_stranger)).await.problem(404)["code"], "OB021");
    seat.call("POST", "/deliveries/replay", Some(json!({"delivery_ids": ids}))).await.ok();
    app.wait_until("select count(*) = 2 from outbox.attempt where cause = 'replay'").await;
    assert_eq!(sink.arrived().len(), 5);
}

#[tokio::test]
async fn a_connection_of_the_pool_carries_nothing_into_the_next_request() {
    let (_db, app, seat) = stage().await;
    let viewer: String = app.one("select outbox.create_token('viewer')").await;
    for _ in 0..8 {
        seat.call_as(&viewer, "POST", "/webhooks", Some(webhook("https://hooks.example.com/in")), &[])
            .await
            .problem(403);
        seat.call("GET", "/webhooks/99", None).await.problem(404);
        seat.call("POST", "/webhooks", Some(webhook("https://hooks.example.com/in"))).await.ok();
    }
    let actors: Vec<String> = app.all("select distinct actor from outbox.audit where action = 'subscribe'").await;
    assert_eq!(actors, ["token 1 (tests)"]);
    let left: i64 = app
        .one("select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'")
        .await;
    assert_eq!(left, 0);
}
