//! Commit to receipt: from the moment a writer's COMMIT returned to the moment the request is in the
//! receiver's hands, at a steady rate. The receiver is in this process, so one clock measures both.

use super::stage::{Stage, payload_pad};
use super::{Arguments, BenchError, Report, round};
use crate::receiver::{self, Reply};
use hyper::StatusCode;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval};

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let received: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let seen = received.clone();
    let sink = tokio::spawn(receiver::serve(listener, move |arrived| {
        let now = Instant::now();
        seen.lock().unwrap_or_else(PoisonError::into_inner).entry(arrived.event_id().to_owned()).or_insert(now);
        std::future::ready(Reply::now(StatusCode::OK))
    }));
    stage.subscribe(port, 1).await?;
    let relay = stage.relay().await?;
    let writer = stage.connect().await?;
    let insert = writer
        .prepare("insert into outbox.event (event_id, type, payload) values ($1::text::uuid, 'bench.event', jsonb_build_object('pad', $2::text))")
        .await?;
    let pad = payload_pad(arguments.payload);
    let mut tick = interval(Duration::from_secs_f64(1.0 / arguments.rate as f64));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut committed = Vec::new();
    // The first second warms connections and plans and is not counted.
    for n in 0..arguments.rate * (arguments.seconds + 1) {
        tick.tick().await;
        let id = uuid::Uuid::from_u128(0xbe7c_0000_0000_7000_8000_0000_0000_0000 | u128::from(n)).to_string();
        writer.execute(&insert, &[&id, &pad]).await?;
        if n >= arguments.rate {
            committed.push((id, Instant::now()));
        }
    }
    stage.drained(Duration::from_secs(60)).await?;
    drop(relay);
    sink.abort();
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    let mut latencies_ms = Vec::with_capacity(committed.len());
    for (id, at) in &committed {
        let received_at = received.get(id).ok_or("a committed event did not arrive")?;
        latencies_ms.push(received_at.saturating_duration_since(*at).as_secs_f64() * 1000.0);
    }
    latencies_ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        latencies_ms
            .get(((latencies_ms.len() as f64 * share) as usize).min(latencies_ms.len() - 1))
            .copied()
            .unwrap_or(0.0)
    };
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    let how = if arguments.no_listen { "polling" } else { "doorbell" };
    let lines = vec![format!(
        "commit to receipt at {}/s ({how}): p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms",
        arguments.rate
    )];
    let value = json!({ "rate_per_s": arguments.rate, "listen": !arguments.no_listen, "events": committed.len(),
        "p50_ms": round(p50), "p99_ms": round(p99), "p999_ms": round(p999) });
    Ok((lines, value))
}
