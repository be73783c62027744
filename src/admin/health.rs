//! `/healthz`, `/readyz`, `/metrics`.

use super::problem::Problem;
use super::{Admin, Reply, json, typed};
use hyper::StatusCode;
use prometheus::{Encoder, TextEncoder};
use serde_json::json as object;
use std::time::Duration;

/// The loop goes round at least once a second; a round trip that hangs is given up after five.
const LOOP_STALL: Duration = Duration::from_secs(10);

/// A call that records takes milliseconds; one that the database refuses is tried again for ever.
const RECORD_STALL: Duration = Duration::from_secs(3);

/// The process lives and answers. It does not ask for the database: restarting outboxd would not mend that.
pub(crate) fn healthz() -> Reply {
    json(StatusCode::OK, r#"{"alive":true}"#)
}

/// Whether this relay delivers; if not, why, in words that tell nothing of tenants.
pub(crate) async fn readyz(admin: &Admin) -> Reply {
    let pulse = admin.metrics.pulse();
    let mut reasons = Vec::new();
    if pulse.is_stopping {
        reasons.push("stopping".to_owned());
    }
    if pulse.turned_at.elapsed() > LOOP_STALL {
        reasons.push("the loop stands still".to_owned());
    }
    if !pulse.is_connected {
        reasons.push("not registered with the database".to_owned());
    }
    if pulse.is_exhausted {
        reasons.push("attempts cannot be made: this host has run out of files, sockets or memory".to_owned());
    }
    if let Some(waited) = pulse.unrecorded_since.map(|since| since.elapsed()).filter(|waited| *waited > RECORD_STALL) {
        reasons.push(format!("results could not be recorded for {} s", waited.as_secs()));
    }
    match admin.fleet.gauges().await {
        Err(_) => reasons.push("the database cannot be asked".to_owned()),
        Ok(gauges) => {
            if gauges.on_hold {
                reasons.push("on hold".to_owned());
            }
            if gauges.lag_s > admin.settings.ready_lag.as_secs_f64() {
                reasons.push(format!("delivery stalls: the oldest work has waited for {:.0} s", gauges.lag_s));
            }
        }
    }
    let is_ready = reasons.is_empty();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, object!({"ready": is_ready, "reasons": reasons}).to_string())
}

/// Prometheus' text format 0.0.4.
pub(crate) async fn metrics(admin: &Admin) -> Result<Reply, Problem> {
    let mut families = admin.metrics.gather();
    families.extend(admin.fleet.gather().await);
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&families, &mut text)
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written"))?;
    Ok(typed(StatusCode::OK, prometheus::TEXT_FORMAT, text))
}
