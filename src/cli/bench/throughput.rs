//! Deliveries a second from a backlog: what the loop, the database and the client carry together.

use super::stage::Stage;
use super::{Arguments, BenchError, Report, round, spread, spread_json};
use serde_json::json;
use std::time::Duration;

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let sink = stage.sink().await?;
    stage.subscribe(sink, arguments.subscriptions).await?;
    let deliveries = (arguments.events * arguments.subscriptions) as f64;
    let (mut rates, mut relay_ms, mut postgres_ms, mut wal, mut rss) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..arguments.runs {
        // The relay is up and on hold while the backlog is written, so that only delivering is measured.
        let relay = stage.relay().await?;
        stage.client.batch_execute("select outbox.hold('bench')").await?;
        stage.fill(arguments.events).await?;
        stage.client.batch_execute("checkpoint").await?;
        let finished_before = stage.finished().await?;
        let (relay_cpu, postgres_cpu) = (relay.cpu_s(), stage.postgres_cpu_s().await?);
        let lsn: String = stage.client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?.get(0);
        stage.client.batch_execute("select outbox.release()").await?;
        let took = stage.drained(Duration::from_secs(600)).await?;
        if (stage.finished().await? - finished_before) as f64 != deliveries {
            return Err("not every delivery succeeded".into());
        }
        let bytes: f64 = stage
            .client
            .query_one("select (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::float8", &[&lsn])
            .await?
            .get(0);
        rates.push(deliveries / took.as_secs_f64());
        relay_ms.push((relay.cpu_s() - relay_cpu) * 1000.0 / deliveries);
        postgres_ms.push((stage.postgres_cpu_s().await? - postgres_cpu) * 1000.0 / deliveries);
        wal.push(bytes / deliveries);
        rss.push(relay.peak_rss_mib());
    }
    let dead = stage
        .client
        .query_one(
            "select coalesce(sum(n_dead_tup), 0)::int8 from pg_stat_user_tables
             where schemaname in ('outbox', 'outbox_relay') and relname ~ '^(event|finished|attempt)_'",
            &[],
        )
        .await?
        .get::<_, i64>(0);
    let rates = spread(&mut rates);
    let (relay_ms, postgres_ms, wal, rss) =
        (spread(&mut relay_ms).1, spread(&mut postgres_ms).1, spread(&mut wal).1, spread(&mut rss).2);
    let lines = vec![
        format!(
            "{:.0} deliveries/s (median of {}; {:.0} to {:.0}), {} events to {} subscription(s)",
            rates.1, arguments.runs, rates.0, rates.2, arguments.events, arguments.subscriptions
        ),
        format!(
            "{relay_ms:.3} ms of CPU a delivery in the relay, {postgres_ms:.3} in PostgreSQL; {wal:.0} bytes of WAL"
        ),
        format!("{rss:.0} MiB peak memory of the relay; {dead} dead rows in event, finished and attempt"),
    ];
    let value = json!({
        "events": arguments.events, "subscriptions": arguments.subscriptions, "deliveries_per_s": spread_json(rates),
        "relay_cpu_ms": round(relay_ms), "postgres_cpu_ms": round(postgres_ms), "wal_bytes": round(wal),
        "relay_peak_rss_mib": round(rss), "dead_rows": dead,
    });
    Ok((lines, value))
}
