//! What is counted is what happened; readiness turns when delivery stalls.

use crate::support::{Daemon, Db, Seat, Session, Sink};
use hyper::StatusCode;
use outboxd::metrics::LATENCY_BOUNDS_S;
use std::collections::HashMap;
use std::time::Duration;

async fn stage(environment: &[(&str, &str)]) -> (Db, Session, Seat) {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    app.without_circuits().await;
    let seat = Seat::with(&db, environment).await;
    (db, app, seat)
}

/// Every sample of the text format, by its name and labels.
async fn metrics(seat: &Seat) -> HashMap<String, f64> {
    let answered = seat.send("GET", "/metrics", &[], "").await;
    assert_eq!(answered.headers["content-type"], "text/plain; version=0.0.4");
    let lines = answered.text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.into(), value.parse().expect("a number")))
        .collect()
}

async fn not_ready(seat: &Seat, reason: &str) {
    let began = std::time::Instant::now();
    loop {
        let answered = seat.send("GET", "/readyz", &[], "").await;
        assert_eq!(seat.send("GET", "/healthz", &[], "").await.status, 200, "it lives all the same");
        if answered.status == 503 && answered.text.contains(reason) {
            return;
        }
        assert!(began.elapsed() < crate::support::PATIENCE, "{answered:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ready(seat: &Seat) {
    let began = std::time::Instant::now();
    while seat.send("GET", "/readyz", &[], "").await.status != 200 {
        assert!(began.elapsed() < crate::support::PATIENCE, "not ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn counters_and_the_attempt_log_agree() {
    let (_db, app, seat) = stage(&[]).await;
    let sink = Sink::new(|_, nth| if nth == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }).await;
    app.run("insert into outbox.retry_policy (name, delays, jitter) values ('at_once', '{10ms}', 0)").await;
    let flaky = app.endpoint(&sink.url("/flaky"), "retry_policy => 'at_once'").await;
    app.endpoint(&sink.url("/once"), "retry_policy => 'none'").await;
    app.insert_many("a", 20).await;
    app.wait_until("select count(*) = 40 from outbox.delivery where finished_at is not null").await;
    let found = metrics(&seat).await;
    assert_eq!(found["outboxd_attempts_total{outcome=\"delivered\"}"], 20.0);
    assert_eq!(found["outboxd_attempts_total{outcome=\"rejected\"}"], 40.0);
    assert_eq!(found["outboxd_first_attempts_total{result=\"failed\"}"], 40.0);
    assert_eq!(found["outboxd_first_attempts_total{result=\"delivered\"}"], 0.0);
    assert_eq!(found["outboxd_deliveries_total{state=\"succeeded\"}"], 20.0);
    assert_eq!(found["outboxd_deliveries_total{state=\"failed\"}"], 20.0);
    assert_eq!(found["outboxd_deliveries_total{state=\"dead_letter\"}"], 20.0);
    assert_eq!(found["outboxd_attempt_duration_seconds_count"], 60.0);
    assert_eq!(found["outboxd_commit_to_first_byte_seconds_count"], 40.0, "first attempts");
    assert_eq!(found["outboxd_expand_batch_events_sum"], 20.0);
    assert_eq!(found["outboxd_record_batch_results_sum"], 60.0);
    assert_eq!(found["outboxd_dead_letters"], 20.0);
    assert_eq!((found["outboxd_relays"], found["outboxd_database_connected"]), (1.0, 1.0));
    assert!(found["outboxd_segments"] >= 1.0, "three after the first maintenance");
    assert_eq!(found["outboxd_database_calls_total{call=\"expand\",result=\"failed\"}"], 0.0);
    assert!(!found.keys().any(|name| name.contains("subscription_id")), "only when asked for");
    drop(flaky);
}

#[tokio::test]
async fn subscriptions_are_named_when_asked_for_also_to_many_at_once() {
    let (_db, app, seat) = stage(&[("OUTBOXD_ADMIN__METRICS_BY_SUBSCRIPTION", "true")]).await;
    let id = app.subscribe("*").await;
    app.run(&format!("insert into outbox.subscription_health (subscription_id, success_count) values ({id}, 1000)"))
        .await;
    let name = format!(
        "outboxd_subscription_attempts_total{{result=\"delivered\",subscription_id=\"{id}\",tenant_id=\"default\"}}"
    );
    let four = tokio::join!(metrics(&seat), metrics(&seat), metrics(&seat), metrics(&seat));
    for found in [four.0, four.1, four.2, four.3] {
        assert_eq!(found[&name], 1000.0);
    }
}

/// The relay has taken the door and has looked once more.
async fn asleep(app: &Session, seat: &Seat) {
    app.wait_until(
        "select count(*) = 1 from pg_locks where locktype = 'advisory' and classid = 1869968482 and objid = 1 and mode = 'ExclusiveLock'
           and database = (select oid from pg_database where datname = current_database())",
    )
    .await;
    const POLLS: &str = "outboxd_wakeups_total{cause=\"poll\"}";
    let polls = metrics(seat).await[POLLS];
    while metrics(seat).await[POLLS] < polls + 2.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_poll_that_found_work_is_counted_and_a_wakeup_by_its_cause() {
    let (_db, app, seat) = stage(&[("OUTBOXD_RELAY__POLL_INTERVAL", "200ms")]).await;
    let sink = Sink::accepting().await;
    app.endpoint(&sink.url("/in"), "").await;
    asleep(&app, &seat).await;
    app.run("begin; set local outbox.quiet = on; insert into outbox.event (type, payload) values ('a', '{}'); commit")
        .await;
    sink.wait_for(1).await;
    let found = metrics(&seat).await;
    assert_eq!(found["outboxd_poll_found_work_total"], 1.0);
    assert!(found["outboxd_wakeups_total{cause=\"poll\"}"] >= 1.0);
    let bell = found["outboxd_wakeups_total{cause=\"bell\"}"];
    asleep(&app, &seat).await;
    app.insert("a", "{}").await;
    sink.wait_for(2).await;
    let after = metrics(&seat).await;
    assert!(after["outboxd_wakeups_total{cause=\"bell\"}"] > bell || after["outboxd_poll_found_work_total"] > 1.0);
}

#[tokio::test]
async fn what_relays_did_is_kept_in_steps_and_adds_up() {
    let (_db, app, seat) = stage(&[]).await;
    let sink =
        Sink::new(|arrived, _| if arrived.path == "/down" { StatusCode::BAD_GATEWAY } else { StatusCode::OK }).await;
    app.endpoint(&sink.url("/up"), "").await;
    app.endpoint(&sink.url("/down"), "retry_policy => 'none'").await;
    app.insert_many("a", 30).await;
    app.wait_until("select coalesce(sum(delivered) = 30 and sum(failed) = 30 and sum(first_failed) = 30, false) from outbox_relay.sample").await;
    // The newest step is shown once it is over.
    app.run("update outbox_relay.sample set taken_at = taken_at - interval '1 minute'").await;
    let steps: i64 = app.one("select count(*) from outbox.activity(10) where at is not null").await;
    let total: String = app.one("select concat_ws(' ', delivered, failed, first_delivered, first_failed) from outbox.activity(10) where at is null").await;
    let sum: String = app
        .one("select concat_ws(' ', sum(delivered), sum(failed)) from outbox.activity(10) where at is not null")
        .await;
    assert_eq!((steps, total.as_str(), sum.as_str()), (60, "30 30 30 30", "30 30"));
    assert!(app.one::<bool>("select attempt_p50_ms <= attempt_p99_ms and commit_p50_ms is not null from outbox.activity(10) where at is null").await);
    // Old samples become few, and say the same.
    app.run("update outbox_relay.sample set taken_at = taken_at - interval '2 hours'").await;
    let day = "select concat_ws(' ', delivered, failed, attempt_p99_ms) from outbox.activity(1440) where at is null";
    let before: String = app.one(day).await;
    app.run("insert into outbox_relay.sample select * from outbox_relay.sample; select outbox_relay.compact_samples(); select outbox_relay.compact_samples()").await;
    let rows: i64 =
        app.one("select count(*) from outbox_relay.sample where taken_at < now() - interval '70 minutes'").await;
    let after: String = app.one(day).await;
    assert!(
        rows <= 2 && after.starts_with("60 60 ") && before.starts_with("30 30 "),
        "{rows} rows: {before} and {after}"
    );
    drop(seat);
}

#[tokio::test]
async fn the_buckets_in_the_program_and_in_the_database_are_the_same() {
    let db = Db::new().await;
    let bounds: Vec<f64> = db.session().await.one("select outbox_relay.latency_bounds_ms()").await;
    let expected: Vec<f64> = LATENCY_BOUNDS_S.iter().map(|bound| (bound * 1e6).round() / 1e3).collect();
    assert_eq!(bounds, expected);
}

#[tokio::test]
async fn a_quantile_is_where_prometheus_would_have_it() {
    let db = Db::new().await;
    let app = db.session().await;
    // Ten within 1 to 2 ms, ten within 5 to 7.5 ms, one beyond all.
    let counts = "array[0,0,10,0,0,10] || array_fill(0::bigint, array[22]) || array[1::bigint]";
    let of = async |share: &str| {
        app.one::<Option<f64>>(&format!("select outbox_relay.quantile_ms(({counts})::bigint[], {share})")).await
    };
    assert_eq!(of("0.25").await, Some(1.525));
    assert!(of("0.75").await.is_some_and(|ms| (6.4..6.5).contains(&ms)));
    assert_eq!(of("1").await, Some(300_000.0));
    assert_eq!(
        app.one::<Option<f64>>("select outbox_relay.quantile_ms(array_fill(0::bigint, array[29]), 0.5)").await,
        None
    );
}

#[tokio::test]
async fn readiness_turns_false_when_delivery_stalls_and_liveness_does_not() {
    let (_db, app, seat) = stage(&[("OUTBOXD_ADMIN__READY_LAG", "300ms")]).await;
    ready(&seat).await;
    app.run("select outbox.hold('moving')").await;
    not_ready(&seat, "on hold").await;
    assert!(!seat.send("GET", "/readyz", &[], "").await.text.contains("moving"), "reasons are for all to read");
    app.run("select outbox.release()").await;
    ready(&seat).await;
    // Somebody holds what expanding needs: the relay tries and cannot.
    let (thief, sink) = (_db.session().await, Sink::accepting().await);
    app.endpoint(&sink.url("/in"), "").await;
    thief.run("select pg_advisory_lock(1869968482, 3)").await;
    app.insert("a", "{}").await;
    not_ready(&seat, "delivery stalls").await;
    thief.run("select pg_advisory_unlock(1869968482, 3)").await;
    sink.wait_for(1).await;
    ready(&seat).await;
}

#[tokio::test]
async fn a_slow_receiver_at_its_own_cap_is_no_stall_of_the_relay() {
    let (_db, app, seat) = stage(&[("OUTBOXD_ADMIN__READY_LAG", "300ms")]).await;
    let sink = Sink::accepting().await;
    sink.close_gate();
    let endpoint = app.endpoint(&sink.url("/in"), "max_in_flight => 1").await;
    app.insert_many("a", 5).await;
    app.wait_for_state(endpoint.id, "pending", 4).await;
    app.run("update outbox_relay.queue set next_attempt_at = now() - interval '1 hour' where state = 'pending'").await;
    tokio::time::sleep(Duration::from_millis(1200)).await; // past what the daemon remembers of its last look
    assert_eq!(seat.send("GET", "/readyz", &[], "").await.status, 200);
    assert!(metrics(&seat).await["outboxd_oldest_due_seconds"] > 3000.0, "it is seen, as what it is");
    sink.open_gate();
}

#[tokio::test]
async fn a_database_that_is_gone_makes_it_unready_and_leaves_it_alive() {
    let (_db, app, seat) = stage(&[]).await;
    ready(&seat).await;
    app.run("update pg_database set datallowconn = false where datname = current_database()").await;
    app.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .await;
    not_ready(&seat, "not registered with the database").await;
    let found = metrics(&seat).await;
    assert_eq!((found["outboxd_database_connected"], found["outboxd_reconnects_total"]), (0.0, 1.0));
    assert!(found["outboxd_loop_age_seconds"] < 5.0, "the loop goes on");
    app.run("update pg_database set datallowconn = true where datname = current_database()").await;
    ready(&seat).await;
}

#[tokio::test]
async fn systemd_hears_of_readiness_once_and_of_the_loop_also_while_the_database_is_gone() {
    let db = Db::new().await;
    let app = db.session().await;
    let path = std::env::temp_dir().join(format!("outboxd-notify-{}-{}", std::process::id(), app.pid));
    let socket = tokio::net::UnixDatagram::bind(&path).expect("a socket");
    let hear = async || {
        let mut text = [0; 256];
        let heard = tokio::time::timeout(crate::support::PATIENCE, socket.recv(&mut text)).await;
        String::from_utf8_lossy(&text[..heard.expect("in time").expect("a message")]).into_owned()
    };
    let daemon = Daemon::relay(&db.url(), "relay-1").set("NOTIFY_SOCKET", path.to_str().expect("UTF-8"));
    let mut daemon = daemon.spawn().registered().await;
    while !hear().await.contains("READY=1") {}
    app.run("update pg_database set datallowconn = false where datname = current_database()").await;
    app.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .await;
    daemon.wait_for_log("the database cannot be reached").await;
    for _ in 0..5 {
        assert!(hear().await.contains("WATCHDOG=1"), "the loop goes on, and says nothing else");
    }
    app.run("update pg_database set datallowconn = true where datname = current_database()").await;
    daemon.terminate();
    while !hear().await.contains("STOPPING=1") {}
    assert!(daemon.ended().await.success());
    std::fs::remove_file(&path).expect("it goes");
}
