//! What the relay leaves behind, written by the million: events with their finished deliveries and attempts, or a storm
//! of deliveries that have failed once and are due.
//!
//! Each row is a copy of one that the relay has written in this database just before, with another event in it: what a
//! past looks like is not told here a second time. What is set-based about it is only the writing.

use super::BenchError;
use super::scene::log_end;
use super::stage::Stage;
use tokio::task::JoinSet;

/// Written in one transaction, as of twenty seconds.
const CHUNK: u64 = 20_000;
/// Positions of a segment; see `sql/migrations/V2__log.sql`.
const SEGMENT_WIDTH: i64 = 10_000_000_000;
/// As many days back as there are closed segments: `retention` drops what is older than thirty days.
pub(super) const MOST_SEGMENTS: u64 = 29;

/// What a past event carries: nobody reads it again, so it is small enough for ten million to fit on a disk.
const PAYLOAD: &str = r#"jsonb_build_object('order', e.n, 'state', 'paid', 'pad', repeat(md5(e.n::text), 8))"#;

/// The newest success of the relay in this database: looked for once, with nothing analyzed among millions that is slow.
const MODEL: &str =
    "select subscription_id, event_seq from outbox.attempt where outcome = 'delivered' order by event_seq desc limit 1";

/// That one, THIS, is the model.
const SUCCEEDED: &str = "
with model as materialized (
    select a.*, f.finished_at - f.created_at as took
    from outbox.attempt a join outbox_relay.finished f using (subscription_id, event_seq)
    where a.outcome = 'delivered' and (a.subscription_id, a.event_seq) = THIS),
made as (
    insert into outbox.event (tenant_id, type, payload, occurred_at)
    select m.tenant_id, m.type, PAYLOAD, now() - make_interval(days => DAYS, secs => 20 - e.n::float8 / 1000)
    from outbox.event m join model using (event_seq), generate_series(1, $1::int8) e (n)
    returning event_seq, event_id, occurred_at),
kept as (
    insert into outbox_relay.finished select FINISHED from made e, model m join outbox_relay.finished f using (subscription_id, event_seq))
insert into outbox.attempt select ATTEMPT from made e, model m join outbox.attempt a using (subscription_id, event_seq, attempt)";

/// Of each subscription with one failed delivery, that is the model; an event is for all of them.
const STORM: &str = "
with model as materialized (
    select q.subscription_id, q.event_seq from outbox_relay.queue q where q.state = 'failed' and q.attempts = 1),
made as (
    insert into outbox.event (tenant_id, type, payload, occurred_at)
    select m.tenant_id, m.type, PAYLOAD, now() - interval '10 seconds'
    from (select e.* from outbox.event e where e.event_seq = (select min(event_seq) from model)) m, generate_series(1, $1::int8) e (n)
    returning event_seq, event_id, occurred_at),
queued as (
    insert into outbox_relay.queue select QUEUE from made e, outbox_relay.queue q join model using (subscription_id, event_seq))
insert into outbox.attempt select ATTEMPT from made e, outbox.attempt a join model using (subscription_id, event_seq)";

/// The name that stands for a copy's columns, the table and its alias, and columns with values of their own.
type Copied = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What is another in a copy than in its model: all other columns are the model's.
const COPIES: [Copied; 3] = [
    (
        "FINISHED",
        "outbox_relay.finished f",
        &[("event_seq", "e.event_seq"), ("created_at", "e.occurred_at"), ("finished_at", "e.occurred_at + m.took")],
    ),
    (
        "QUEUE",
        "outbox_relay.queue q",
        &[
            ("event_seq", "e.event_seq"),
            ("created_at", "e.occurred_at"),
            ("updated_at", "e.occurred_at"),
            ("next_attempt_at", "e.occurred_at + make_interval(secs => 5 + 5 * random())"),
        ],
    ),
    (
        "ATTEMPT",
        "outbox.attempt a",
        &[
            ("event_seq", "e.event_seq"),
            ("started_at", "e.occurred_at"),
            ("request_headers", "a.request_headers || jsonb_build_object('webhook-id', e.event_id)"),
        ],
    ),
];

/// The cursor beyond all that is committed, as expand would have left it. Nobody writes meanwhile.
const CURSOR: &str = "
insert into outbox_relay.cursor (seen, seen_seq, floor_xact, floor_seq, next_xact, next_seq, head_xact, head_seq)
select s, e, pg_snapshot_xmin(s), e, pg_snapshot_xmin(s), e, pg_snapshot_xmin(s), e
from pg_current_snapshot() s, (select last_value - (not is_called)::integer as e from outbox.event_event_seq_seq) l";

/// Writes so many successful deliveries: half of them into closed segments, one for each of the last days, and half into
/// the current one. No relay runs, and one has delivered something before.
pub(super) async fn succeeded(stage: &Stage, count: u64, closed_segments: u64) -> Result<(), BenchError> {
    let closed = if closed_segments == 0 { 0 } else { count / 2 };
    let model = stage.client.query_one(MODEL, &[]).await?;
    let model = format!("({}, {})", model.get::<_, i64>(0), model.get::<_, i64>(1));
    let days_ago = |days: u64| SUCCEEDED.replace("THIS", &model).replace("DAYS", &days.to_string());
    for n in 0..closed_segments {
        let days = closed_segments - n;
        write(stage, &days_ago(days), closed / closed_segments).await?;
        // Of a past that is too small for that there is no segment to leave.
        if closed >= closed_segments {
            begin_segment(stage, i32::try_from(days)?).await?;
        }
    }
    write(stage, &days_ago(0), count - closed).await?;
    settle(stage).await
}

/// Writes so many events, each with a delivery that has failed once and is due for each subscription that has one such
/// delivery already. No relay leases anything meanwhile.
pub(super) async fn storm(stage: &Stage, events: u64) -> Result<(), BenchError> {
    write(stage, STORM, events).await?;
    settle(stage).await
}

async fn write(stage: &Stage, sql: &str, count: u64) -> Result<(), BenchError> {
    let mut sql = sql.replace("PAYLOAD", PAYLOAD);
    for (name, table, other) in COPIES {
        sql = sql.replace(&format!("select {name} "), &format!("select {} ", copied(stage, table, other).await?));
    }
    let (mut writers, mut left) = (JoinSet::new(), count);
    while left > 0 || !writers.is_empty() {
        // Two at a time: one waits for the disk while the other computes.
        if left > 0 && writers.len() < 2 {
            let (client, sql, chunk) = (stage.connect().await?, sql.clone(), left.min(CHUNK));
            left -= chunk;
            writers.spawn(async move {
                client.batch_execute("set synchronous_commit = off; set jit = off").await?;
                let chunk = i64::try_from(chunk).unwrap_or(i64::MAX);
                client.execute(&sql, &[&chunk]).await
            });
        } else if let Some(written) = writers.join_next().await {
            written??;
        }
    }
    Ok(())
}

/// The columns of a copy of a row, `table` being its name and alias.
async fn copied(stage: &Stage, table: &str, other: &[(&str, &str)]) -> Result<String, BenchError> {
    let (name, alias) = table.split_once(' ').unwrap_or((table, table));
    let columns = stage
        .client
        .query(
            "select attname::text from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum",
            &[&name],
        )
        .await?;
    let value = |column: String| match other.iter().find(|(name, _)| *name == column) {
        Some((_, value)) => (*value).to_owned(),
        None => format!("{alias}.{column}"),
    };
    Ok(columns.iter().map(|row| value(row.get(0))).collect::<Vec<_>>().join(", "))
}

/// As `outbox_relay.maintain` does it, with the times of a past.
async fn begin_segment(stage: &Stage, days_ago: i32) -> Result<(), BenchError> {
    let current = log_end(stage).await? / SEGMENT_WIDTH;
    stage
        .client
        .execute(
            "select outbox_relay.make_segment($1::int8 + 1)
             where not exists (select from outbox_relay.segment where segment = $1::int8 + 1)",
            &[&current],
        )
        .await?;
    stage
        .client
        .execute(
            "select setval('outbox.event_event_seq_seq', ($1::int8 + 1) * $2::int8, false)",
            &[&current, &SEGMENT_WIDTH],
        )
        .await?;
    stage
        .client
        .execute(
            "update outbox_relay.segment
             set opened_at = now() - make_interval(days => $2::int4 - (segment - $1::int8)::int4),
                 closed_at = case when segment = $1::int8 then now() - make_interval(days => $2::int4 - 1) end
             where segment in ($1::int8, $1::int8 + 1)",
            &[&current, &days_ago],
        )
        .await?;
    Ok(())
}

/// What autovacuum would have done by now, and no dirty pages that weigh on what is measured.
async fn settle(stage: &Stage) -> Result<(), BenchError> {
    stage.client.batch_execute(CURSOR).await?;
    stage.client.batch_execute("vacuum (analyze)").await?;
    stage.checkpoint().await
}
