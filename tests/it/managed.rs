//! Subscriptions as code: what the configuration names is there, and nobody changes it unawares.

use crate::support::{Daemon, Db, Outboxd, Session, Sink};
use std::path::PathBuf;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDmXVTh7Rwvyk=";

/// A configuration file of one test, removed with it.
struct File(PathBuf);

impl File {
    fn new(db: &Db, text: &str) -> Self {
        let name = db.url().rsplit('/').next().expect("a name").replace(|c: char| !c.is_alphanumeric(), "-");
        let path = std::env::temp_dir().join(format!("outboxd-managed-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        Self(path)
    }

    fn rewrite(&self, text: &str) {
        std::fs::write(&self.0, text).expect("written");
    }

    fn outboxd(&self, db: &Db, command: &[&str]) -> Outboxd {
        let path = self.0.to_str().expect("UTF-8");
        Outboxd::on(&db.url(), &[&["--config", path], command].concat()).set("OUTBOXD_RELAY__NAME", "relay-1")
    }

    /// Starts, waits until it is registered, stops.
    async fn start_and_stop(&self, db: &Db) {
        let mut relay = self.outboxd(db, &["run"]).spawn().registered().await;
        relay.terminate();
        assert!(relay.ended().await.success());
        assert!(!relay.log().contains("whsec_"), "a secret is in the log:\n{}", relay.log());
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn block(name: &str, url: &str, secret: &str, more: &str) -> String {
    format!(
        "[[subscription]]\nname = \"{name}\"\nurl = \"{url}\"\nevent_types = [\"*\"]\nsecret = \"{secret}\"\n{more}\n"
    )
}

async fn stage() -> (Db, Session) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session)
}

/// Name, active, version.
async fn subscriptions(session: &Session) -> Vec<(String, bool, i64)> {
    session
        .query("select name, active, version from outbox.subscription order by name", &[])
        .await
        .expect("the subscriptions")
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

#[tokio::test]
async fn what_the_file_names_is_created_once_and_delivered_to() {
    let (db, session) = stage().await;
    let sink = Sink::accepting().await;
    let file = File::new(&db, &block("orders", &sink.url("/in"), SECRET, "timeout = \"2s\"\nrate_limit = 1000"));
    {
        let mut relay = file.outboxd(&db, &["run"]).spawn().registered().await;
        session.insert("order.created", "{}").await;
        sink.wait_for(1).await;
        session.wait_until("select count(*) = 1 from outbox.delivery where state = 'succeeded'").await;
        relay.terminate();
        relay.ended().await;
    }
    let before = subscriptions(&session).await;
    file.start_and_stop(&db).await;
    assert_eq!(subscriptions(&session).await, before, "a second start changes nothing, not even the version");
    let row: String = session
        .one("select concat_ws(' ', managed_by, timeout, rate_limit, created_by is not null) from outbox.subscription")
        .await;
    assert_eq!(row, "configuration 00:00:02 1000 t");
    let in_step = file.outboxd(&db, &["check", "--diff"]).output().await;
    assert!(in_step.printed.contains("1 in the configuration, in step"), "{}", in_step.printed);
}

#[tokio::test]
async fn the_diff_says_what_the_next_start_does_and_does_nothing() {
    let (db, session) = stage().await;
    let url = "https://hooks.example.com/in";
    let file = File::new(
        &db,
        &[block("a", url, SECRET, ""), block("b", url, SECRET, ""), block("c", url, SECRET, "")].concat(),
    );
    file.start_and_stop(&db).await;
    file.rewrite(
        &[
            block("a", "https://hooks.example.com/other?token=hunter2", OTHER, "envelope = \"event\""),
            block("c", url, SECRET, ""),
            block("d", url, SECRET, ""),
        ]
        .concat(),
    );
    let before = subscriptions(&session).await;
    let diff = file.outboxd(&db, &["check", "--diff"]).output().await;
    assert_eq!(diff.code, Some(0), "{diff:?}");
    let lines: Vec<&str> = diff.printed.lines().filter(|line| line.starts_with("  ")).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "~ default/a changed: secret, envelope, url",
            "+ default/d created",
            "- default/b paused: no longer in the configuration"
        ]
    );
    assert!(!format!("{diff:?}").contains("hunter2") && !format!("{diff:?}").contains(OTHER));
    assert_eq!(subscriptions(&session).await, before);

    file.start_and_stop(&db).await;
    let after: Vec<(String, bool)> =
        subscriptions(&session).await.into_iter().map(|(name, active, _)| (name, active)).collect();
    assert_eq!(
        after,
        [("a", true), ("b", false), ("c", true), ("d", true)].map(|(name, active)| (name.to_owned(), active))
    );
    let changed: String = session.one("select url || ' ' || envelope from outbox.subscription where name = 'a'").await;
    assert_eq!(changed, "https://hooks.example.com/other?token=hunter2 event");
    // Both secrets sign for a while.
    let live: i64 = session
        .one("select count(*) from outbox.signing_key join outbox.subscription using (subscription_id) where name = 'a' and coalesce(expires_at > now(), true)")
        .await;
    assert_eq!(live, 2);
    let none = file.outboxd(&db, &["check", "--diff"]).output().await;
    assert!(none.printed.contains("in step"), "{}", none.printed);
}

#[tokio::test]
async fn what_is_named_again_goes_on_and_what_somebody_paused_stays_paused() {
    let (db, session) = stage().await;
    let (a, b) = (block("a", "https://a.example.com/", SECRET, ""), block("b", "https://b.example.com/", SECRET, ""));
    let file = File::new(&db, &[a.clone(), b.clone()].concat());
    file.start_and_stop(&db).await;
    let id: i64 = session.one("select subscription_id from outbox.subscription where name = 'a'").await;
    session.run(&format!("select outbox.pause({id})")).await;
    file.rewrite(&a);
    file.start_and_stop(&db).await;
    file.rewrite(&[a, b].concat());
    file.start_and_stop(&db).await;
    let states: Vec<(String, bool)> =
        subscriptions(&session).await.into_iter().map(|(name, active, _)| (name, active)).collect();
    assert_eq!(states, [("a".to_owned(), false), ("b".to_owned(), true)]);
    // An empty file manages nothing.
    file.rewrite("");
    file.start_and_stop(&db).await;
    assert!(subscriptions(&session).await[1].1);
}

#[tokio::test]
async fn what_was_paused_by_hand_after_it_left_the_file_stays_paused() {
    let (db, session) = stage().await;
    let (a, b) = (block("a", "https://a.example.com/", SECRET, ""), block("b", "https://b.example.com/", SECRET, ""));
    let file = File::new(&db, &[a.clone(), b.clone()].concat());
    file.start_and_stop(&db).await;
    file.rewrite(&a);
    let mut relay = file.outboxd(&db, &["run"]).spawn().registered().await;
    let log = relay.log();
    let line = log.lines().find(|line| line.contains("default/b")).expect("it says so");
    assert!(line.contains("WARN") && line.contains("paused"), "{line}");
    relay.terminate();
    relay.ended().await;
    session
        .run("select outbox.pause(subscription_id, reason => 'broken') from outbox.subscription where name = 'b'")
        .await;
    file.rewrite(&[a, b].concat());
    file.start_and_stop(&db).await;
    let reason: Option<String> = session.one("select disabled_reason from outbox.subscription where name = 'b'").await;
    assert_eq!(reason.as_deref(), Some("broken"));
    assert!(!subscriptions(&session).await[1].1);
}

#[tokio::test]
async fn the_owner_of_the_schema_can_release_a_subscription() {
    let (db, session) = stage().await;
    let (a, b) = (block("a", "https://a.example.com/", SECRET, ""), block("b", "https://b.example.com/", SECRET, ""));
    let file = File::new(&db, &[a.clone(), b].concat());
    file.start_and_stop(&db).await;
    session.run("update outbox.subscription set managed_by = null where name = 'b'").await;
    file.rewrite(&a);
    file.start_and_stop(&db).await;
    assert!(subscriptions(&session).await[1].1, "it is nobody's to pause");
    let id: i64 = session.one("select subscription_id from outbox.subscription where name = 'b'").await;
    db.session_as("outbox_operator").await.run(&format!("select outbox.unsubscribe({id})")).await;
}

#[tokio::test]
async fn nobody_changes_by_hand_what_the_file_manages_without_saying_so() {
    let (db, session) = stage().await;
    let file = File::new(&db, &block("a", "https://a.example.com/", SECRET, ""));
    file.start_and_stop(&db).await;
    let id: i64 = session.one("select subscription_id from outbox.subscription").await;
    let operator = db.session_as("outbox_operator").await;
    let by_hand = [
        "update outbox.subscription set url = 'https://b.example.com/'".to_owned(),
        format!("select outbox.rotate_secret({id})"),
        format!("select outbox.unsubscribe({id})"),
    ];
    for statement in &by_hand {
        let error = operator.refused(statement, "OB024").await;
        assert!(error.hint().is_some_and(|hint| hint.contains("outbox.override_managed")), "{error:?}");
    }
    operator.refused("update outbox.subscription set managed_by = null", "42501").await;
    // Operating it is another matter.
    operator
        .run(&format!("select outbox.pause({id}); select outbox.resume({id}); select outbox.send_test({id})"))
        .await;
    operator.run("set outbox.override_managed = on").await;
    for statement in &by_hand {
        operator.run(statement).await;
    }
}

#[tokio::test]
async fn one_that_was_made_by_hand_is_taken_over_only_if_the_file_says_so() {
    let (db, session) = stage().await;
    session.subscribe_with("*", "name => 'a'").await;
    let file = File::new(&db, &block("a", "https://a.example.com/", SECRET, ""));
    let refused = file.outboxd(&db, &["run"]).output().await;
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.complained.contains("default/a") && refused.complained.contains("take_over = true"), "{refused:?}");
    file.rewrite(&block("a", "https://a.example.com/", SECRET, "take_over = true"));
    file.start_and_stop(&db).await;
    let row: String = session.one("select managed_by || ' ' || url from outbox.subscription").await;
    assert_eq!(row, "configuration https://a.example.com/");
}

#[tokio::test]
async fn a_bad_block_stops_the_start_and_changes_nothing() {
    let (db, session) = stage().await;
    let good = block("good", "https://a.example.com/", SECRET, "");
    let file = File::new(&db, "");
    for (bad, says) in [
        (block("bad", "https://a.example.com/", SECRET, "retry_policy = \"forever\""), "unknown retry policy"),
        (block("bad", "https://user@a.example.com/?token=hunter2", SECRET, ""), "user name or password"),
        (block("bad", "https://a.example.com/", "whsk_hunter2", ""), "private key of ed25519"),
        (block("bad", "https://a.example.com/", SECRET, "filter = \"$.total >\""), "jsonpath"),
    ] {
        file.rewrite(&[good.clone(), bad].concat());
        let refused = file.outboxd(&db, &["run"]).output().await;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.complained.contains("default/bad") && refused.complained.contains(says), "{says}: {refused:?}");
        assert!(!refused.complained.contains("hunter2"), "{refused:?}");
        let check = file.outboxd(&db, &["check"]).output().await;
        assert!(check.code == Some(1) && check.printed.contains(says), "{check:?}");
        assert!(subscriptions(&session).await.is_empty());
    }
}

#[tokio::test]
async fn a_change_of_profile_takes_the_new_secret_at_once() {
    let (db, session) = stage().await;
    let url = "https://a.example.com/";
    let file = File::new(&db, &block("a", url, "a-secret-of-plain-text", "signature = \"github\""));
    file.start_and_stop(&db).await;
    file.rewrite(&block("a", url, SECRET, ""));
    file.start_and_stop(&db).await;
    let live: Vec<String> = session
        .all("select key_id from outbox.signing_key where revoked_at is null and coalesce(expires_at > now(), true)")
        .await;
    assert_eq!(live.len(), 1);
    // And back to a secret that was used before.
    file.rewrite(&block("a", url, "a-secret-of-plain-text", "signature = \"github\""));
    file.start_and_stop(&db).await;
    let profile: String = session.one("select signature from outbox.subscription").await;
    assert_eq!(profile, "github");
}

#[tokio::test]
async fn a_change_of_profile_ends_the_overlap_of_secrets_of_another_form() {
    let (db, session) = stage().await;
    let url = "https://a.example.com/";
    let file = File::new(&db, &block("a", url, "a-secret-of-plain-text", "signature = \"github\""));
    file.start_and_stop(&db).await;
    file.rewrite(&block("a", url, SECRET, "signature = \"github\""));
    file.start_and_stop(&db).await;
    file.rewrite(&block("a", url, SECRET, ""));
    let diff = file.outboxd(&db, &["check", "--diff"]).output().await;
    assert!(diff.printed.contains("~ default/a changed: signature, old secrets revoked"), "{}", diff.printed);
    file.start_and_stop(&db).await;
    let live: Vec<String> = session.one("select secrets from outbox_relay.load_subscriptions(array(select subscription_id from outbox.subscription))").await;
    assert_eq!(live, [SECRET]);
}

#[tokio::test]
async fn a_file_that_rotates_often_makes_room_for_its_secret() {
    let (_db, session) = stage().await;
    let mut last = String::new();
    for n in 0..8 {
        let wanted = format!(
            r#"[{{"name": "a", "url": "https://a.example.com/", "event_types": ["*"], "signature": "github", "secret": "a-secret-of-plain-text-{n}"}}]"#
        );
        last = session
            .one_of(
                "select concat_ws(' ', action, detail) from outbox_relay.reconcile('production', $1::text::jsonb)",
                &[&wanted],
            )
            .await;
    }
    assert_eq!(last, "changed secret, old secrets revoked");
    let live: Vec<String> = session.one("select secrets from outbox_relay.load_subscriptions(array(select subscription_id from outbox.subscription))").await;
    assert_eq!(live, [3, 4, 5, 6, 7].map(|n| format!("a-secret-of-plain-text-{n}")));
}

#[tokio::test]
async fn a_start_waits_for_an_open_transaction_and_can_be_stopped_meanwhile() {
    let (db, session) = stage().await;
    let file = File::new(&db, &block("a", "https://a.example.com/", SECRET, ""));
    file.start_and_stop(&db).await;
    file.rewrite(&block("a", "https://b.example.com/", SECRET, ""));
    let operator = db.session().await;
    operator.run("begin; update outbox.subscription set description = 'for a while'").await;

    let mut stopped = file.outboxd(&db, &["run"]).spawn();
    session.wait_until("select exists (select from pg_locks where not granted)").await;
    stopped.terminate();
    assert!(stopped.ended().await.success());

    let mut waiting = file.outboxd(&db, &["run"]).spawn();
    waiting.wait_for_log("pg_stat_activity").await;
    assert!(waiting.log().contains("default/a") && waiting.log().contains("55P03"), "{}", waiting.log());
    let check = file.outboxd(&db, &["check"]).output().await;
    assert!(check.code == Some(1) && check.printed.contains("pg_stat_activity"), "{check:?}");
    operator.run("rollback").await;
    let _relay = waiting.registered().await;
    let url: String = session.one("select url from outbox.subscription").await;
    assert_eq!(url, "https://b.example.com/");
}

#[tokio::test]
async fn relays_that_start_together_do_it_once() {
    let (db, session) = stage().await;
    let file = File::new(
        &db,
        &(0..5).map(|n| block(&format!("s{n}"), "https://a.example.com/", SECRET, "")).collect::<String>(),
    );
    let relays: Vec<_> = (0..4).map(|_| file.outboxd(&db, &["run"]).spawn()).collect();
    for relay in relays {
        relay.registered().await;
    }
    assert_eq!(subscriptions(&session).await.len(), 5);
    assert_eq!(session.one::<i64>("select count(*) from outbox.signing_key").await, 5);
}

#[tokio::test]
async fn a_relay_of_another_environment_changes_nothing() {
    let (db, session) = stage().await;
    session.run("select outbox.adopt('production')").await;
    let file = File::new(&db, &block("a", "https://a.example.com/", SECRET, ""));
    let mut relay = file.outboxd(&db, &["run"]).set("OUTBOXD_RELAY__ENVIRONMENT", "staging").spawn();
    relay.wait_for_log("left alone").await;
    relay.wait_for_log("on hold").await;
    assert!(subscriptions(&session).await.is_empty());
}

#[tokio::test]
async fn a_few_variables_are_enough() {
    let (db, session) = stage().await;
    let (first, second) = (Sink::accepting().await, Sink::accepting().await);
    let urls = format!("{},{}", first.url("/a"), second.url("/b"));
    let outboxd = Daemon::relay(&db.url(), "relay-1")
        .set("WEBHOOK_URLS", &urls)
        .set("WEBHOOK_SECRET", SECRET)
        .set("WEBHOOK_TIMEOUT_MS", "2500")
        .set("WEBHOOK_MAX_RETRIES", "12");
    let _relay = outboxd.spawn().registered().await;
    session.insert("order.created", "{}").await;
    first.wait_for(1).await;
    second.wait_for(1).await;
    let policy: String = session.one("select delays::text from outbox.retry_policy where name = 'retries-12'").await;
    assert!(policy.starts_with("{00:00:05,00:05:00,") && policy.ends_with(",24:00:00,24:00:00,24:00:00}"), "{policy}");
    let row: String =
        session.one("select distinct concat_ws(' ', timeout, retry_policy, managed_by) from outbox.subscription").await;
    assert_eq!(row, "00:00:02.5 retries-12 configuration");
}
