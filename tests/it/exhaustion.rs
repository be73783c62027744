//! Something runs out: nothing is lost, the relay says what is wrong, and goes on by itself when it is back.
//!
//! Each scenario leaves a line in `target/faults/scenarios.txt`: how long the recovery took, how many events were
//! committed, how many were lost (none) and sent more than once.

mod clock;
mod crowd;
mod disk;
mod files;
mod positions;
mod sessions;

use crate::support::{PATIENCE, Seat};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Between two events of a producer that goes on throughout.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `/readyz` gives a reason with this text.
async fn wait_for_reason(seat: &Seat, text: &str) {
    let began = Instant::now();
    loop {
        let answer = seat.send("GET", "/readyz", &[], "").await;
        let reasons = answer.json()["reasons"].clone();
        let is_said =
            reasons.as_array().is_some_and(|all| all.iter().any(|one| one.as_str().unwrap_or("").contains(text)));
        if is_said {
            assert_eq!(answer.status.as_u16(), 503);
            return;
        }
        assert!(began.elapsed() < PATIENCE, "no reason {text:?} but {reasons}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `/readyz` has nothing to say.
async fn wait_until_ready(seat: &Seat) {
    let began = Instant::now();
    loop {
        let answer = seat.send("GET", "/readyz", &[], "").await;
        if answer.json()["ready"] == Value::Bool(true) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "still not ready: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
