//! The benchmark's scenarios of many turns, with sizes that take seconds: what they write by themselves is taken by the
//! relay for its own, everything arrives, and every ratio is told. No time is judged.

use crate::support::{Db, Outboxd};
use serde_json::Value;

/// What the scenario found. It fails by itself if a delivery is missing.
async fn bench(scenario: &str, sizes: &[&str]) -> Value {
    let db = Db::empty().await;
    let url = db.url();
    let arguments = [&["bench", "--quick", "--json", "--url", &url, "--scenario", scenario][..], sizes].concat();
    let output = Outboxd::new(&arguments).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let mut found: Value = serde_json::from_str(&output.printed).expect("one JSON object");
    found[scenario].take()
}

fn rows<'a>(found: &'a Value, table: &str) -> &'a Vec<Value> {
    found[table].as_array().expect("rows")
}

fn median(row: &Value, key: &str) -> f64 {
    row[key]["median"].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

#[tokio::test]
async fn a_past_a_snapshot_a_writer_and_an_outage_are_each_compared_with_fresh_turns() {
    let sizes = ["--history", "0.002", "--history-segments", "3", "--outage-events", "700", "--flatness-events", "300"];
    let found =
        bench("flatness", &[&sizes[..], &["--flatness-seconds", "0.2", "--held", "snapshot,writer"]].concat()).await;
    let rows = rows(&found, "rows");
    assert_eq!(rows.len(), 5, "{found}");
    for row in &rows[1..] {
        assert!(median(row, "deliveries_ratio") > 0.0 && median(row, "p99_ratio") > 0.0, "{row}");
    }
    for row in rows {
        assert!(row["dead_history_rows"]["max"] == 0.0, "{row}");
        assert!(median(row, "delivered") > 300.0, "{row}");
    }
    assert!(median(&rows[4], "delivered") > 700.0, "{found}");
}

#[tokio::test]
async fn healthy_subscriptions_are_compared_with_themselves_beside_bad_ones_of_each_kind() {
    let sizes = ["--bad-kinds", "mixed,hanging", "--isolation-seconds", "0.3", "--isolation-events", "300"];
    let found = bench("isolation", &sizes).await;
    let rows = rows(&found, "rows");
    assert_eq!(rows.len(), 3, "{found}");
    for row in &rows[1..] {
        assert!(median(row, "deliveries_ratio") > 0.0 && median(row, "p99_ratio") > 0.0, "{row}");
        assert!(median(row, "delivered") > 300.0, "{row}");
    }
}

#[tokio::test]
async fn one_event_reaches_many_many_tenants_get_theirs_and_filters_are_looked_at_in_vain() {
    let sizes = [
        "--fan-out",
        "1,300",
        "--tenants",
        "50",
        "--tenant-events",
        "100",
        "--tenant-seconds",
        "0.2",
        "--matching",
        "200",
    ];
    let found = bench("fan-out", &sizes).await;
    let one_event = rows(&found, "one_event");
    // One that is cold, and one that is measured.
    assert_eq!(one_event.iter().map(|row| median(row, "delivered")).collect::<Vec<_>>(), [2.0, 600.0]);
    let tenants = rows(&found, "tenants");
    assert!(median(&tenants[1], "deliveries_ratio") > 0.0 && median(&tenants[1], "p99_ratio") > 0.0, "{found}");
    // Three turns of 50 and 100 events, to three subscriptions.
    assert!(median(&tenants[1], "delivered_to_all") > 1350.0, "{found}");
    let matching = rows(&found, "matching");
    assert_eq!(matching.iter().filter(|row| median(row, "event_us") > 0.0).count(), 2, "{found}");
}

#[tokio::test]
async fn a_storm_of_retries_is_caught_up_with_while_others_get_theirs() {
    let found = bench("catch-up", &["--storm", "600", "--storm-fresh", "300", "--storm-quiet-seconds", "0.2"]).await;
    let rows = rows(&found, "rows");
    assert_eq!(rows.len(), 3, "{found}");
    let storm = &rows[2];
    assert!(median(storm, "deliveries_ratio") > 0.0 && median(storm, "p99_ratio") > 0.0, "{storm}");
    assert!(storm["dead_history_rows"]["max"] == 0.0, "{storm}");
    assert!(median(storm, "delivered_to_all") > 1200.0, "{storm}");
}
