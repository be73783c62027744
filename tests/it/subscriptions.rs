//! Subscriptions: making, changing and ending them, and their secrets.

use crate::support::{Claim, Db, Expand, Relay};
use std::collections::HashSet;

#[tokio::test]
async fn subscribe_shows_the_secret_this_once() {
    let db = Db::new().await;
    let app = db.session().await;
    let row = app
        .query_one(
            "select (s).* from outbox.subscribe('https://hooks.example.com/in', '{order.*}', tenant_id => 'acme') s",
            &[],
        )
        .await
        .expect("subscribed");
    let (id, secret, key_id): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "the base64 of 32 bytes");
    let is_right: bool =
        app.one_of("select $1 = left(encode(sha256(convert_to($2, 'UTF8')), 'hex'), 16)", &[&key_id, &secret]).await;
    assert!(is_right, "the key id is the hash of the secret's text");
    let known: bool = app
        .one_of("select exists (select from outbox.signing_key where subscription_id = $1 and key_id = $2 and algorithm = 'hmac-sha256')", &[&id, &key_id])
        .await;
    assert!(known);
    let text: String = app.one("select string_agg(k::text, '') || (select string_agg(s::text, '') from outbox.subscription s) from outbox.signing_key k").await;
    assert!(!text.contains(&secret));
}

#[tokio::test]
async fn two_made_secrets_differ() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.subscribe('https://hooks.example.com/in', '{a}') from generate_series(1, 20)").await;
    assert_eq!(app.one::<i64>("select count(distinct key_id) from outbox.signing_key").await, 20);
}

#[tokio::test]
async fn a_bad_subscription_is_refused_with_a_code_and_a_hint() {
    // url, event types, further arguments, SQLSTATE
    const TABLE: [(&str, &str, &str, &str); 49] = [
        ("null", "'{a}'", "", "OB010"),
        ("''", "'{a}'", "", "OB010"),
        ("'http://hooks.example.com/'", "'{a}'", "", "OB010"),
        ("'ftp://hooks.example.com/'", "'{a}'", "", "OB010"),
        ("'https://'", "'{a}'", "", "OB010"),
        ("'https:///in'", "'{a}'", "", "OB010"),
        ("'https://user:pass@hooks.example.com/'", "'{a}'", "", "OB010"),
        ("'https://user@hooks.example.com/'", "'{a}'", "", "OB010"),
        ("'https://hooks.example.com/#part'", "'{a}'", "", "OB010"),
        ("'https://hooks.example.com/a b'", "'{a}'", "", "OB010"),
        ("E'https://hooks.example.com/a\\nb'", "'{a}'", "", "OB010"),
        (r"E'https://hooks.example.com\\@evil.example.com/'", "'{a}'", "", "OB010"),
        ("'https://localhost/in'", "'{a}'", "", "OB010"),
        ("'https://hooks.example.com:port/'", "'{a}'", "", "OB010"),
        ("'https://hooks.example.com/' || repeat('x', 2048)", "'{a}'", "", "OB010"),
        ("'https://hooks.example.com/'", "null", "", "OB011"),
        ("'https://hooks.example.com/'", "'{}'", "", "OB011"),
        ("'https://hooks.example.com/'", "'{{a},{b}}'", "", "OB011"),
        ("'https://hooks.example.com/'", "'{a,null}'", "", "OB011"),
        ("'https://hooks.example.com/'", "'{order*}'", "", "OB011"),
        ("'https://hooks.example.com/'", "'{*.created}'", "", "OB011"),
        ("'https://hooks.example.com/'", "'{order..created}'", "", "OB011"),
        ("'https://hooks.example.com/'", "'{\"\"}'", "", "OB011"),
        ("'https://hooks.example.com/'", "array_fill('a'::text, '{201}')", "", "OB011"),
        ("'https://hooks.example.com/'", "'{a}'", "filter => '$.total >'", "OB012"),
        ("'https://hooks.example.com/'", "'{a}'", "filter => ''", "OB012"),
        ("'https://hooks.example.com/'", "'{a}'", "filter => '$.name like_regex \"(\"'", "OB012"),
        ("'https://hooks.example.com/'", "'{a}'", "signature => 'md5'", "OB013"),
        ("'https://hooks.example.com/'", "'{a}'", "envelope => 'soap'", "OB013"),
        ("'https://hooks.example.com/'", "'{a}'", "retry_policy => 'forever'", "OB014"),
        ("'https://hooks.example.com/'", "'{a}'", "secret => 'too short'", "OB015"),
        ("'https://hooks.example.com/'", "'{a}'", "secret => 'long-enough-but-not-whsec'", "OB015"),
        ("'https://hooks.example.com/'", "'{a}'", "secret => 'whsec_!!!!!!!!!!!!!!!!!!!!!!!!'", "OB015"),
        ("'https://hooks.example.com/'", "'{a}'", "secret => 'whsec_c2hvcnRzaG9ydA=='", "OB015"),
        (
            "'https://hooks.example.com/'",
            "'{a}'",
            "signature => 'x-signature', secret => 'with a space inside'",
            "OB015",
        ),
        ("'https://hooks.example.com/'", "'{a}'", "headers => '[]'", "OB016"),
        ("'https://hooks.example.com/'", "'{a}'", "headers => '{\"x-n\": 1}'", "OB016"),
        ("'https://hooks.example.com/'", "'{a}'", "headers => '{\"x n\": \"1\"}'", "OB016"),
        ("'https://hooks.example.com/'", "'{a}'", "headers => '{\"Host\": \"evil\"}'", "OB016"),
        ("'https://hooks.example.com/'", "'{a}'", "headers => '{\"Webhook-Id\": \"1\"}'", "OB016"),
        ("'https://hooks.example.com/'", "'{a}'", r#"headers => '{"x-n": "a\r\nx-m: b"}'"#, "OB016"),
        ("'https://hooks.example.com/'", "'{a}'", "tenant_id => ''", "OB002"),
        ("'https://hooks.example.com/'", "'{a}'", "name => ''", "OB018"),
        ("'https://hooks.example.com/'", "'{a}'", "timeout => '10 ms'", "OB018"),
        ("'https://hooks.example.com/'", "'{a}'", "timeout => '1 hour'", "OB018"),
        ("'https://hooks.example.com/'", "'{a}'", "max_in_flight => 0", "OB018"),
        ("'https://hooks.example.com/'", "'{a}'", "max_in_flight => 10001", "OB018"),
        ("'https://hooks.example.com/'", "'{a}'", "rate_limit => 0", "OB018"),
        ("'https://hooks.example.com/'", "'{a}'", "rate_limit => 'NaN'", "OB018"),
    ];
    let db = Db::new().await;
    let app = db.session().await;
    for (url, event_types, arguments, sqlstate) in TABLE {
        let comma = if arguments.is_empty() { "" } else { ", " };
        app.refused(&format!("select outbox.subscribe({url}, {event_types}{comma}{arguments})"), sqlstate).await;
    }
    let left: i64 = app.one("select count(*) from outbox.subscription").await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn good_urls_are_accepted() {
    let db = Db::new().await;
    let app = db.session().await;
    for url in [
        "https://hooks.example.com",
        "https://hooks.example.com:8443/in?token=abc&x=%20",
        "https://203.0.113.7/in",
        "https://[2001:db8::1]:8443/in",
        "https://xn--bcher-kva.example/in",
    ] {
        app.run(&format!("select outbox.subscribe('{url}', '{{a}}')")).await;
    }
}

#[tokio::test]
async fn the_query_of_a_refused_url_is_not_repeated() {
    let db = Db::new().await;
    let app = db.session().await;
    let error =
        app.refused("select outbox.subscribe('http://hooks.example.com/in?token=hunter2', '{a}')", "OB010").await;
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn http_is_accepted_once_the_setting_says_so() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('allow_insecure_http', 'true'); select outbox.subscribe('http://hooks.example.com/in', '{a}')").await;
}

#[tokio::test]
async fn a_name_is_unique_among_the_tenants_living_subscriptions() {
    let db = Db::new().await;
    let app = db.session().await;
    let first = app.subscribe_with("a", "name => 'erp', tenant_id => 'acme'").await;
    app.subscribe_with("a", "name => 'erp', tenant_id => 'globex'").await;
    let again = "select outbox.subscribe('https://hooks.example.com/in', '{a}', name => 'erp', tenant_id => 'acme')";
    app.refused(again, "OB017").await;
    app.run(&format!("select outbox.unsubscribe({first})")).await;
    app.run(again).await;
}

#[tokio::test]
async fn what_is_left_out_follows_the_settings() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run("select outbox.set('default_retry_policy', 'short')").await;
    app.subscribe("a").await;
    let as_set: bool = app
        .one("select retry_policy = 'short' and timeout is null and signature = 'standard' and envelope = 'standard' and active and not ordered from outbox.subscription")
        .await;
    assert!(as_set);
}

#[tokio::test]
async fn whoever_changes_a_subscription_the_same_rules_hold() {
    let db = Db::new().await;
    let app = db.session().await;
    app.subscribe("a").await;
    app.refused("update outbox.subscription set url = 'https://localhost/'", "OB010").await;
    app.refused("update outbox.subscription set event_types = '{}'", "OB011").await;
    app.refused("update outbox.subscription set tenant_id = 'globex'", "OB022").await;
    app.refused("update outbox.subscription set headers = '{\"host\": \"x\"}'", "OB016").await;
}

#[tokio::test]
async fn each_change_gives_a_new_version_and_takes_effect_with_the_next_batch() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("a").await;
    let version: i64 = app.one("select version from outbox.subscription").await;
    app.run("update outbox.subscription set event_types = '{b}', filter = '$.n > 1'").await;
    assert!(app.one::<i64>("select version from outbox.subscription").await > version);
    app.insert("a", "{\"n\": 2}").await;
    app.insert("b", "{\"n\": 1}").await;
    let wanted = app.insert("b", "{\"n\": 2}").await;
    assert_eq!(relay.expand(&Expand::default()).await.leases, [(subscription, wanted)]);
    app.assert_accounted().await;
}

#[tokio::test]
async fn paused_nothing_new_is_made_and_what_is_outstanding_waits() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    let before = app.insert("a", "{}").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    app.run(&format!("select outbox.pause({subscription}, reason => 'maintenance'); select outbox.pause({subscription}, reason => 'again')")).await;
    let reason: String = app.one("select disabled_reason from outbox.subscription where disabled_at is not null").await;
    assert_eq!(reason, "maintenance", "pausing twice changes nothing");
    app.insert("a", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, []);
    assert_eq!(relay.claim(&Claim::default()).await.leases, []);
    assert_eq!(app.state(subscription, before).await.as_deref(), Some("pending"));

    app.run(&format!("select outbox.resume({subscription})")).await;
    let after = app.insert("a", "{}").await;
    assert_eq!(relay.expand_all(&Expand::default()).await.leases, [(subscription, after)]);
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, before)]);
    let clear: bool =
        app.one("select active and disabled_at is null and disabled_reason is null from outbox.subscription").await;
    assert!(clear);
    app.assert_accounted().await;
}

#[tokio::test]
async fn resuming_wakes_the_relay() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    app.run(&format!("select outbox.pause({subscription})")).await;
    let mut signal = db.listener("outbox_signal").await;
    app.run(&format!("select outbox.resume({subscription})")).await;
    assert_eq!(signal.count().await, 1);
}

#[tokio::test]
async fn unsubscribing_cancels_what_is_outstanding_and_keeps_history() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.insert_many("a", 3).await;
    let leases = relay.expand_all(&Expand { lease_limit: 1, ..Expand::default() }).await.leases;
    relay.record(&[crate::support::sent(leases[0], 200)]).await;
    assert_eq!(app.one::<i64>(&format!("select outbox.unsubscribe({subscription})")).await, 2);
    let states: Vec<String> = app.all("select state from outbox.delivery order by event_seq").await;
    assert_eq!(states, ["succeeded", "cancelled", "cancelled"]);
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::default()).await;
    assert_eq!(app.deliveries().await.len(), 3);
    let loaded: i64 = relay
        .session
        .one(&format!(
            "select coalesce(sum(cardinality(secrets)), 0) from outbox_relay.load_subscriptions(array[{subscription}])"
        ))
        .await;
    assert_eq!(loaded, 0, "its keys are revoked");
    app.assert_accounted().await;
}

#[tokio::test]
async fn what_was_unsubscribed_takes_part_in_nothing_any_more() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    app.insert("a", "{}").await;
    app.run(&format!("select outbox.unsubscribe({subscription})")).await;
    for call in ["unsubscribe", "resume", "pause", "rotate_secret", "send_test"] {
        app.refused(&format!("select outbox.{call}({subscription})"), "OB023").await;
    }
    app.refused(&format!("select outbox.replay({subscription}, 1)"), "OB023").await;
    app.refused("update outbox.subscription set description = 'x'", "OB023").await;
}

#[tokio::test]
async fn what_a_batch_under_way_makes_for_the_unsubscribed_is_cancelled_later() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.insert("a", "{}").await;
    relay.session.run("begin").await;
    relay.expand(&Expand::queue_only(10)).await;
    app.run("set lock_timeout = '1s'").await;
    app.run(&format!("select outbox.unsubscribe({subscription})")).await; // does not wait for the batch
    relay.session.run("commit").await;
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("pending"));
    assert_eq!(relay.claim(&Claim::default()).await.leases, [], "never sent");
    app.run("select outbox_relay.maintain()").await;
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("cancelled"));
    app.assert_accounted().await;
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_until_the_overlap_is_over() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    let version: i64 = app.one("select version from outbox.subscription").await;
    let old: String = app.one("select key_id from outbox.signing_key").await;
    let row = app
        .query_one(&format!("select (k).* from outbox.rotate_secret({subscription}, overlap => '1 hour') k"), &[])
        .await
        .expect("rotated");
    let (secret, key_id): (String, String) = (row.get(0), row.get(1));
    assert!(secret.starts_with("whsec_") && key_id != old);
    let overlaps: bool = app
        .one_of("select expires_at = created_at + interval '1 hour' or expires_at > now() + interval '59 minutes' from outbox.signing_key where key_id = $1", &[&old])
        .await;
    assert!(overlaps);
    assert!(
        app.one_of::<bool>("select expires_at is null from outbox.signing_key where key_id = $1", &[&key_id]).await
    );
    assert!(app.one::<i64>("select version from outbox.subscription").await > version, "relays load the keys anew");

    app.run(&format!("select outbox.rotate_secret({subscription})")).await;
    let as_set: bool = app
        .one_of("select expires_at between now() + interval '23 hours' and now() + interval '24 hours' from outbox.signing_key where key_id = $1", &[&key_id])
        .await;
    assert!(as_set, "the setting secret_overlap");
    let kept: bool = app
        .one_of("select expires_at < now() + interval '61 minutes' from outbox.signing_key where key_id = $1", &[&old])
        .await;
    assert!(kept, "a later rotation lengthens nothing");
}

#[tokio::test]
async fn bad_rotations_are_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe_with("*", "signature => 'x-signature', secret => 'first-secret-0001'").await;
    app.refused(&format!("select outbox.rotate_secret({subscription}, overlap => '-1 hour')"), "OB018").await;
    app.refused(&format!("select outbox.rotate_secret({subscription}, overlap => '31 days')"), "OB018").await;
    let error = app
        .refused(&format!("select outbox.rotate_secret({subscription}, secret => 'first-secret-0001')"), "OB015")
        .await;
    assert!(!format!("{error:?}").contains("first-secret"), "{error:?}");
    app.refused(&format!("select outbox.rotate_secret({subscription}, secret => 'short')"), "OB015").await;
    assert_eq!(
        app.one::<i64>("select count(*) from outbox.signing_key where expires_at is null").await,
        1,
        "nothing changed"
    );
}

#[tokio::test]
async fn at_most_five_secrets_sign_at_a_time() {
    let db = Db::new().await;
    let app = db.session().await;
    let subscription = app.subscribe("*").await;
    let rotate = |overlap: &str| format!("select outbox.rotate_secret({subscription}, overlap => '{overlap}')");
    for _ in 0..4 {
        app.run(&rotate("1 day")).await;
    }
    let live = format!("select cardinality(key_ids) from outbox_relay.load_subscriptions('{{{subscription}}}')");
    assert_eq!(app.one::<i32>(&live).await, 5);
    let error = app.refused(&rotate("1 day"), "OB018").await;
    assert!(error.hint().is_some_and(|hint| hint.contains("overlap => '0'")), "{error:?}");
    assert_eq!(app.one::<i32>(&live).await, 5, "nothing changed");
    app.run(&rotate("0")).await;
    assert_eq!(app.one::<i32>(&live).await, 1);
}

#[tokio::test]
async fn every_function_refuses_a_subscription_that_is_not_there_or_not_the_tenants() {
    const CALLS: [&str; 10] = [
        "pause(%, tenant_id => 'globex')",
        "resume(%, tenant_id => 'globex')",
        "unsubscribe(%, tenant_id => 'globex')",
        "rotate_secret(%, tenant_id => 'globex')",
        "send_test(%, tenant_id => 'globex')",
        "replay(%, 1, tenant_id => 'globex')",
        "replay_failed(%, tenant_id => 'globex')",
        "replay_missing(%, tenant_id => 'globex')",
        "cancel(%, 1, tenant_id => 'globex')",
        "replay((select event_id from outbox.event), %, tenant_id => 'globex')",
    ];
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe_with("*", "tenant_id => 'acme'").await;
    app.run("select outbox.publish('a', '{}', tenant_id => 'acme')").await;
    relay.expand_all(&Expand::default()).await;
    let before: HashSet<_> = app.deliveries().await;
    for call in CALLS {
        let error =
            app.refused(&format!("select outbox.{}", call.replace('%', &subscription.to_string())), "OB022").await;
        assert_eq!(error.message(), "tenant mismatch");
        app.run(&format!(
            "begin; select outbox.{}; rollback",
            call.replace('%', &subscription.to_string()).replace("globex", "acme")
        ))
        .await;
    }
    for call in &CALLS[..9] {
        for missing in ["999", "null::bigint"] {
            app.refused(&format!("select outbox.{}", call.replace('%', missing)), "OB020").await;
        }
    }
    let event = "select outbox.explain(event_id, tenant_id => 'globex') from outbox.event";
    app.refused(event, "OB022").await;
    assert_eq!(app.deliveries().await, before);
}
