//! What scenarios of several turns share: how two of them are compared, and whether everything was delivered.
//!
//! Two shared cores drift by more than what is to be seen, so a turn is told as its ratio to the mean of the turns
//! before and after it that lack what it has ([`Turn::add_beside`]).

use super::BenchError;
use super::report::Row;
use super::stage::Stage;
use super::writers::Latency;
use std::time::Duration;

/// Connections, plans and endpoints are warm then.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// What is compared of two turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) per_s: f64,
    pub(super) latency: Latency,
}

impl Turn {
    pub(super) fn add_to(self, row: &mut Row) {
        row.add("deliveries_per_s", self.per_s);
        self.latency.add_to(row);
    }

    /// The same, with its ratios to the mean of its neighbours.
    pub(super) fn add_beside(self, neighbours: &[Turn], row: &mut Row) {
        self.add_to(row);
        let of = |figure: fn(&Turn) -> f64| {
            figure(&self) * neighbours.len() as f64 / neighbours.iter().map(figure).sum::<f64>()
        };
        row.add("deliveries_ratio", of(|turn| turn.per_s));
        row.add("p50_ratio", of(|turn| turn.latency.p50));
        row.add("p99_ratio", of(|turn| turn.latency.p99));
        row.add("p999_ratio", of(|turn| turn.latency.p999));
        row.add("from_schedule_p99_ratio", of(|turn| turn.latency.from_schedule_p99));
    }
}

/// Where the log ends now.
pub(super) async fn log_end(stage: &Stage) -> Result<i64, BenchError> {
    let end = "select last_value - (not is_called)::integer from outbox.event_event_seq_seq";
    Ok(stage.client.query_one(end, &[]).await?.get(0))
}

/// How many deliveries of events beyond that position have succeeded. Fails if one has not, or is missing. Tenants whose
/// names begin so may have deliveries that have not.
///
/// `outbox.unaccounted()` is asked with its own text, not by its name, so that the planner takes the condition into the
/// look at the log: the whole of it would be read otherwise.
pub(super) async fn delivered(stage: &Stage, beyond: i64, but_for: Option<&str>) -> Result<u64, BenchError> {
    let text = "select prosrc from pg_proc where oid = 'outbox.unaccounted'::regproc";
    let text: String = stage.client.query_one(text, &[]).await?.get(0);
    let count = format!("select count(*) from ({text}) u where u.event_seq > $1");
    let lost: i64 = stage.client.query_one(&count, &[&beyond]).await?.get(0);
    let count = "select count(*) filter (where state = 'succeeded'), count(*) filter (where state <> 'succeeded')
         from outbox.delivery where event_seq > $1 and starts_with(tenant_id, $2) is not true";
    let row = stage.client.query_one(count, &[&beyond, &but_for]).await?;
    let (succeeded, not): (i64, i64) = (row.get(0), row.get(1));
    if lost + not > 0 {
        return Err(format!("{not} deliveries have not succeeded, and {lost} are unaccounted for").into());
    }
    Ok(u64::try_from(succeeded)?)
}
