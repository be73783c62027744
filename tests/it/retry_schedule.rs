//! The whole of each retry policy, on a clock that the test moves on: what waits is made due by hand.

use crate::support::{Claim, Daemon, Db, Expand, Relay, Session, Sink, sent};
use hyper::StatusCode;

/// One row of `outbox.retry_schedule`, in seconds.
struct Step {
    attempt: i32,
    wait_s: f64,
    longest_wait_s: f64,
}

async fn schedule(session: &Session, policy: &str) -> Vec<Step> {
    let sql = "select attempt, extract(epoch from wait)::float8, extract(epoch from longest_wait)::float8 from outbox.retry_schedule($1)";
    let rows = session.query(sql, &[&policy]).await.expect("the schedule");
    rows.iter().map(|row| Step { attempt: row.get(0), wait_s: row.get(1), longest_wait_s: row.get(2) }).collect()
}

/// `make retries` shows what this prints.
#[tokio::test]
async fn every_policy_is_followed_to_its_end_within_its_jitter() {
    let db = Db::new().await;
    let app = db.session().await;
    app.run(
        "insert into outbox.retry_policy (name, delays, jitter) values
             ('own-exact', '{0s,1s,1s,3s}', 0), ('own-doubled', '{10s,1h}', 1)",
    )
    .await;
    let relay = Relay::new(&db).await;
    println!("{:<12} {:>7} {:>12} {:>12} {:>12}  state", "policy", "attempt", "wait s", "at most s", "waited s");
    for policy in ["standard", "quadratic", "stepped", "short", "none", "own-exact", "own-doubled"] {
        let steps = schedule(&app, policy).await;
        let subscription = app.subscribe_with("*", &format!("name => '{policy}', retry_policy => '{policy}'")).await;
        let event_seq = app.insert("a", "{}").await;
        let mut leases = relay.expand_all(&Expand::default()).await.leases;
        for (n, step) in steps.iter().enumerate() {
            assert!(leases.contains(&(subscription, event_seq)), "{policy}: attempt {}", step.attempt);
            let recorded = relay.record_one(sent((subscription, event_seq), 500)).await.expect("told");
            let state = recorded.state.as_deref();
            let next = steps.get(n + 1);
            assert_eq!(
                (recorded.attempt, state),
                (step.attempt, Some(if next.is_some() { "failed" } else { "dead_letter" }))
            );
            let Some(next) = next else {
                println!("{policy:<12} {:>7} {:>12} {:>12} {:>12}  dead_letter", step.attempt, "", "", "");
                break;
            };
            // The due time, from the moment that the row was written; the statement itself takes a moment.
            let (waited_s, slack_s): (f64, f64) = {
                let sql = "select extract(epoch from next_attempt_at - updated_at)::float8, extract(epoch from clock_timestamp() - updated_at)::float8
                           from outbox_relay.queue where subscription_id = $1";
                let row = app.query_one(sql, &[&subscription]).await.expect("it waits");
                (row.get(0), row.get(1))
            };
            println!(
                "{policy:<12} {:>7} {:>12.0} {:>12.0} {waited_s:>12.1}  failed",
                step.attempt, next.wait_s, next.longest_wait_s
            );
            assert!(
                waited_s >= next.wait_s && waited_s <= next.longest_wait_s + slack_s,
                "{policy}: {waited_s} s after attempt {}",
                step.attempt
            );
            app.run("update outbox_relay.queue set next_attempt_at = now() where state = 'failed'").await;
            leases = relay.claim(&Claim::default()).await.leases;
        }
        let made: i64 =
            app.one_of("select count(*) from outbox.attempt where subscription_id = $1", &[&subscription]).await;
        assert_eq!(made, steps.len() as i64);
        app.run(&format!("select outbox.unsubscribe({subscription})")).await;
    }
}

#[tokio::test]
async fn the_presets_are_those_of_the_contract() {
    let db = Db::new().await;
    let app = db.session().await;
    for (policy, waits_s) in [
        ("standard", &[5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400][..]),
        ("quadratic", &[10, 40, 90, 160, 250]),
        ("stepped", &[60, 300, 1800, 7200, 86_400]),
        ("short", &[60, 300, 1800]),
        ("none", &[]),
    ] {
        let waits: Vec<i64> = schedule(&app, policy).await.iter().skip(1).map(|step| step.wait_s as i64).collect();
        assert_eq!(waits, waits_s, "{policy}");
    }
}

#[tokio::test]
async fn another_policy_takes_effect_with_the_next_result() {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    let subscription = app.subscribe_with("*", "retry_policy => 'standard'").await;
    let event_seq = app.insert("a", "{}").await;
    relay.expand_all(&Expand::default()).await;
    relay.record_one(sent((subscription, event_seq), 500)).await;
    app.run(
        "update outbox.subscription set retry_policy = 'short'; update outbox_relay.queue set next_attempt_at = now()",
    )
    .await;
    relay.claim(&Claim::default()).await;
    relay.record_one(sent((subscription, event_seq), 500)).await;
    // One failure is behind it, so this is the second wait of the new policy.
    let wait: f64 =
        app.one("select extract(epoch from next_attempt_at - updated_at)::float8 from outbox_relay.queue").await;
    assert!((300.0..331.0).contains(&wait), "{wait}");
    app.run(
        "update outbox.subscription set retry_policy = 'none'; update outbox_relay.queue set next_attempt_at = now()",
    )
    .await;
    relay.claim(&Claim::default()).await;
    assert_eq!(
        relay.record_one(sent((subscription, event_seq), 500)).await.expect("told").state.as_deref(),
        Some("dead_letter")
    );
}

#[tokio::test]
async fn the_real_program_keeps_to_the_due_times_in_the_database() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    session
        .run("insert into outbox.retry_policy (name, delays, jitter) values ('steps', '{40ms,80ms,160ms,320ms}', 0)")
        .await;
    let sink = Sink::new(|_, _| StatusCode::INTERNAL_SERVER_ERROR).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'steps'").await;
    session.insert("a", "{}").await;
    let _relay = Daemon::on(&db).await;
    session.wait_for_state(endpoint.id, "dead_letter", 1).await;
    let gaps: Vec<f64> = session
        .all("select extract(epoch from started_at - lag(started_at) over (order by attempt))::float8 from outbox.attempt order by attempt offset 1")
        .await;
    assert_eq!(gaps.len(), 4);
    for (gap, wait) in gaps.iter().zip([0.04, 0.08, 0.16, 0.32]) {
        assert!(*gap >= wait, "an attempt came {gap} s after the one before, not {wait}");
    }
    assert_eq!(sink.arrived().len(), 5);
}
