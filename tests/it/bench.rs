//! The benchmark, small: every figure is there and agrees with the others. What it measures here means nothing.

use crate::support::{Db, Outboxd, bin_dir, left_out, major};
use serde_json::Value;

/// Runs scenarios; what was printed.
async fn bench(arguments: &[&str]) -> Value {
    let arguments = [&["bench", "--quick", "--json"], arguments].concat();
    let mut outboxd = Outboxd::new(&arguments);
    if let Ok(servers) = std::env::var("OUTBOXD_PG_BIN") {
        outboxd = outboxd.set("OUTBOXD_PG_BIN", &servers);
    }
    let output = outboxd.output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    serde_json::from_str(&output.printed).expect("one JSON object")
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().expect("rows")
}

/// Median of a figure, which has a spread around it.
fn figure(row: &Value, key: &str) -> f64 {
    let [min, median, max] = ["min", "median", "max"].map(|which| row[key][which].as_f64());
    let median = median.unwrap_or_else(|| panic!("no {key} in {row}"));
    assert!(min <= Some(median) && Some(median) <= max, "{key}: {}", row[key]);
    median
}

fn assert_positive(row: &Value, keys: &[&str]) {
    for key in keys {
        assert!(figure(row, key) > 0.0, "{key} in {row}");
    }
}

/// What every row of the throughput scenario tells.
fn assert_costs(row: &Value, deliveries: f64) {
    assert_eq!((figure(row, "deliveries"), figure(row, "received")), (deliveries, deliveries));
    assert_positive(row, &["deliveries_per_s", "wal_bytes", "relay_peak_rss_mib", "cpu_ms", "postgres_cpu_ms"]);
    assert!(figure(row, "wal_with_event_bytes") > figure(row, "wal_bytes"));
    for history in ["dead_event_rows", "dead_finished_rows", "dead_attempt_rows"] {
        assert_eq!(figure(row, history), 0.0, "{history} in {row}");
    }
    // In PostgreSQL 14 a session tells what it did when it next does something, half a second later at the earliest.
    if major(&bin_dir().join("postgres")) == Some(14) {
        return left_out("dead rows of a short benchmark", "PostgreSQL 14 tells them late");
    }
    assert!(figure(row, "dead_queue_rows") >= 1.0, "what is finished leaves the queue: {row}");
}

#[tokio::test]
async fn throughput_tells_every_cost_of_deliveries_that_the_sink_has_counted() {
    let db = Db::new().await;
    let payloads = std::env::temp_dir().join(format!("outboxd-{}-payloads.json", std::process::id()));
    let examples = r#"[{"name": "push", "examples": [{"ref": "refs/heads/main"}, {"ref": null, "n": 1.50}]}]"#;
    std::fs::write(&payloads, examples).expect("a file");
    let (url, path) = (db.url(), payloads.to_str().expect("UTF-8"));
    let sizes = ["--deliveries", "120", "--subscriptions", "3", "--relays", "1,2", "--backlog", "200"];
    let report = bench(&[&["--url", &url, "--scenario", "throughput", "--payloads", path], &sizes[..]].concat()).await;
    std::fs::remove_file(&payloads).expect("it was there");

    assert_eq!(report["environment"]["debug_build"], cfg!(debug_assertions));
    assert!(report["environment"]["cores"].as_u64() > Some(0));
    assert_eq!(report["environment"]["postgresql_settings"]["fsync"], "off", "the tests' server is told as it is");
    let expected = [("0.3 KiB", 1, 120.0), (path, 1, 120.0), ("0.3 KiB", 2, 120.0), ("0.3 KiB", 1, 200.0)];
    let rows = rows(&report["throughput"]);
    assert_eq!(rows.len(), expected.len(), "{report}");
    for (row, (payload, relays, deliveries)) in rows.iter().zip(expected) {
        assert_eq!((row["payload"].as_str(), row["relays"].as_u64()), (Some(payload), Some(relays)));
        assert_costs(row, deliveries);
    }
}

#[tokio::test]
async fn on_a_server_of_its_own_it_counts_statements_and_leaves_out_what_it_has_no_payloads_for() {
    let sizes = ["--deliveries", "60", "--subscriptions", "1", "--relays", "1", "--backlog", "0", "--runs", "2"];
    let report = bench(&[&["--scenario", "throughput", "--payloads", "/nonexistent"], &sizes[..]].concat()).await;
    let [row] = &rows(&report["throughput"])[..] else { panic!("one row: {report}") };
    assert_costs(row, 60.0);
    // One call of expand or record is many statements.
    if report["environment"]["statements_counted"] == true {
        assert_positive(row, &["round_trips"]);
        assert!(figure(row, "statements") > figure(row, "round_trips"));
    }
    assert!(report["throughput"]["notes"].to_string().contains("/nonexistent"), "{report}");
}

#[tokio::test]
async fn a_scenario_that_fails_says_why_and_the_others_keep_their_figures() {
    let db = Db::new().await;
    let url = db.url();
    let sizes = ["--rates", "100", "--latency-seconds", "0.2", "--storm-subscriptions", "1001"];
    let arguments = ["bench", "--quick", "--json", "--url", &url, "--scenario", "latency,catch-up"];
    let output = Outboxd::new(&[&arguments[..], &sizes[..]].concat()).output().await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.complained.contains("catch-up: tenant 'default' has 1000 subscriptions"), "{output:?}");
    let report: Value = serde_json::from_str(&output.printed).expect("one JSON object");
    assert!(report["catch-up"]["error"].as_str().is_some_and(|why| why.contains("max_subscriptions_per_tenant")));
    assert_eq!(figure(&rows(&report["latency"])[0], "events"), 20.0);

    let configuration = &report["configuration"];
    assert_eq!(configuration["runs"], 1);
    assert_eq!(configuration["latency"]["latency_seconds"], 0.2);
    assert!(!output.printed.contains(&url), "it may hold a password");
}

#[tokio::test]
async fn live_and_latency_account_for_every_event_that_was_committed() {
    let db = Db::new().await;
    let sizes = ["--live-writers", "3", "--rates", "100", "--latency-seconds", "0.3"];
    let report = bench(&[&["--url", &db.url(), "--scenario", "live,latency"], &sizes[..]].concat()).await;

    let [live] = &rows(&report["live"])[..] else { panic!("one row: {report}") };
    assert_eq!(figure(live, "deliveries"), figure(live, "received"));
    assert_positive(live, &["deliveries_per_s", "commits_per_s", "commit_p50_ms", "drain_s", "bench_cpu_ms"]);
    assert!(figure(live, "commit_p99_ms") >= figure(live, "commit_p50_ms"));
    assert!(figure(live, "lag_max_s") >= figure(live, "lag_last_s"));
    assert!(figure(live, "behind_max_events") >= figure(live, "behind_last_events"));
    assert_eq!(figure(live, "dead_history_rows"), 0.0);

    let [latency] = &rows(&report["latency"])[..] else { panic!("one row: {report}") };
    assert_eq!(figure(latency, "events"), 30.0);
    assert!(figure(latency, "achieved_per_s") <= 100.0);
    assert!(figure(latency, "p50_ms") <= figure(latency, "p99_ms"));
    assert!(figure(latency, "p99_ms") <= figure(latency, "p999_ms"));
    assert!(figure(latency, "from_schedule_p99_ms") >= figure(latency, "p50_ms"), "an insert takes time: {latency}");
}

#[tokio::test]
async fn tax_has_every_turn_between_two_of_the_bare_table() {
    let db = Db::new().await;
    let report = bench(&["--url", &db.url(), "--scenario", "tax", "--clients", "1,3", "--tax-seconds", "0.1"]).await;
    let turns = ["bare", "no_relay", "asleep", "expanding", "delivering", "notify"];
    let expected: Vec<_> = [1, 3].into_iter().flat_map(|clients| turns.map(|turn| (clients, turn))).collect();
    let rows = rows(&report["tax"]);
    assert_eq!(rows.len(), expected.len(), "{report}");
    for (row, (clients, turn)) in rows.iter().zip(expected) {
        assert_eq!((row["clients"].as_u64(), row["turn"].as_str()), (Some(clients), Some(turn)));
        assert_positive(row, &["commits_per_s", "commit_p50_ms", "commit_p99_ms"]);
        if turn != "bare" {
            assert_positive(row, &["of_bare"]);
        }
        if turn == "delivering" {
            assert_eq!(figure(row, "received"), figure(row, "commits"));
        }
    }
}

#[tokio::test]
async fn limits_are_put_together_from_http_and_sql_and_the_hand_written_loop_does_the_same_work() {
    let sizes = ["--tasks", "200", "--loop-workers", "1,3"];
    let report = bench(&[&["--scenario", "limits"], &sizes[..]].concat()).await;
    let limits = report["limits"]["limits"].as_array().expect("rows");
    let [http, attempt, sql, limit, outboxd] = &limits[..] else { panic!("five rows: {report}") };
    let per_s = |row| figure(row, "per_s");
    assert_positive(attempt, &["per_s"]);
    let combined = 1.0 / (1.0 / per_s(http) + 1.0 / per_s(sql));
    assert!((per_s(limit) / combined - 1.0).abs() < 0.01, "{report}");
    assert!((figure(outboxd, "share_of_limit") / (per_s(outboxd) / per_s(limit)) - 1.0).abs() < 0.01, "{report}");
    assert!(figure(sql, "wal_bytes") > 0.0 && figure(http, "wal_bytes") < figure(sql, "wal_bytes"), "{report}");

    let peers = report["limits"]["peers"].as_array().expect("rows");
    let [_, one, three] = &peers[..] else { panic!("three rows: {report}") };
    assert_eq!(
        (&one["what"], &three["what"]),
        (&"hand-written loop, 1 worker".into(), &"hand-written loop, 3 workers".into())
    );
    for row in [one, three] {
        assert_positive(row, &["per_s", "wal_bytes", "outboxd_times"]);
    }
}
