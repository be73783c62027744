//! What `outboxd status --watch` asks, for whoever may read it. Times are seconds since 1970 by the server's
//! clock: an age is then the difference of two numbers of one clock, and infinity is a number too.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

/// `outbox.status()`, and whose answer it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the columns of outbox.status()")]
pub struct Standing {
    /// The server's clock.
    pub at: f64,
    pub database: String,
    pub user: String,
    pub environment: Option<String>,
    pub hold: Option<String>,
    pub relays: i64,
    pub log_head: i64,
    pub unexpanded: i64,
    pub pending: i64,
    pub leased: i64,
    pub failed: i64,
    pub dead_letters: i64,
    pub oldest_due: Option<f64>,
    pub lag_s: f64,
}

/// `outbox.activity()`: 60 steps, and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Oldest first.
    pub steps: Vec<Step>,
    /// The whole span.
    pub whole: Step,
}

/// What the relays did in one step.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the columns of outbox.activity()")]
pub struct Step {
    pub seconds: f64,
    pub delivered: i64,
    pub failed: i64,
    pub first_delivered: i64,
    pub first_failed: i64,
    /// p50, p95 and p99 of one attempt.
    pub attempt_ms: [Option<f64>; 3],
    /// p50, p95 and p99 from an event's insert to the first byte of the first answer.
    pub commit_ms: [Option<f64>; 3],
}

/// A row of `outbox.relays()`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the columns of outbox.relays()")]
pub struct LiveRelay {
    pub name: String,
    pub version: String,
    pub hold: Option<String>,
    pub alive: bool,
    pub leased: i64,
    pub started_at: f64,
    pub ended_at: Option<f64>,
}

/// A subscription that is not sent to as usual, or whose last attempts failed.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the columns of outbox.subscription and outbox.subscription_health")]
pub struct Troubled {
    pub subscription_id: i64,
    pub tenant_id: String,
    pub name: String,
    pub active: bool,
    pub disabled_reason: Option<String>,
    pub circuit: String,
    pub circuit_until: Option<f64>,
    pub consecutive_failures: i64,
    pub failing_since: Option<f64>,
    /// How many there are, this one included.
    pub of: i64,
}

/// A delivery that waits for another attempt.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the columns of outbox.delivery")]
pub struct FailedDelivery {
    pub subscription_id: i64,
    pub event_seq: i64,
    pub attempts: i32,
    pub status_code: Option<i16>,
    pub error: Option<String>,
    pub failed_at: f64,
    pub next_attempt_at: Option<f64>,
}

/// How things stand.
///
/// # Errors
/// If the database cannot be asked, or refuses.
pub async fn standing(client: &Client) -> Result<Standing, Error> {
    let sql = "select extract(epoch from clock_timestamp())::float8 as at, current_database()::text as database,
                      current_user::text as \"user\", s.*, extract(epoch from s.oldest_due)::float8 as oldest_due_s,
                      extract(epoch from s.lag)::float8 as lag_s
               from outbox.status() s";
    let rows = client.query_typed(sql, &[]).await?;
    Ok(rows.first().map_or_else(Standing::default, |row| Standing {
        at: row.get("at"),
        database: row.get("database"),
        user: row.get("user"),
        environment: row.get("environment"),
        hold: row.get("hold"),
        relays: row.get("relays"),
        log_head: row.get("log_head"),
        unexpanded: row.get("unexpanded_events"),
        pending: row.get("pending"),
        leased: row.get("leased"),
        failed: row.get("failed"),
        dead_letters: row.get("dead_letters"),
        oldest_due: row.get("oldest_due_s"),
        lag_s: row.get::<_, Option<f64>>("lag_s").unwrap_or_default(),
    }))
}

/// What the relays did in the last minutes.
///
/// # Errors
/// If the database cannot be asked, or refuses.
pub async fn activity(client: &Client, minutes: i32) -> Result<Activity, Error> {
    let rows = client.query_typed("select * from outbox.activity($1)", &[(&minutes, Type::INT4)]).await?;
    let mut steps: Vec<Step> = rows.iter().map(step).collect();
    let whole = steps.pop().unwrap_or_default();
    Ok(Activity { steps, whole })
}

fn step(row: &Row) -> Step {
    Step {
        seconds: row.get("seconds"),
        delivered: row.get("delivered"),
        failed: row.get("failed"),
        first_delivered: row.get("first_delivered"),
        first_failed: row.get("first_failed"),
        attempt_ms: ["attempt_p50_ms", "attempt_p95_ms", "attempt_p99_ms"].map(|column| row.get(column)),
        commit_ms: ["commit_p50_ms", "commit_p95_ms", "commit_p99_ms"].map(|column| row.get(column)),
    }
}

/// The relays that live, and those that ended within a day; the living first.
///
/// # Errors
/// If the database cannot be asked, or refuses.
pub async fn relays(client: &Client) -> Result<Vec<LiveRelay>, Error> {
    let sql = "select r.*, extract(epoch from r.started_at)::float8 as started_s, extract(epoch from r.ended_at)::float8 as ended_s
               from outbox.relays() r order by r.alive desc, r.epoch desc";
    let rows = client.query_typed(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| LiveRelay {
            name: row.get("name"),
            version: row.get("version"),
            hold: row.get("hold"),
            alive: row.get("alive"),
            leased: row.get("leased"),
            started_at: row.get("started_s"),
            ended_at: row.get("ended_s"),
        })
        .collect())
}

/// The worst subscriptions: those with a circuit first, then what was disabled for its failures, then what
/// fails, and last what somebody has paused.
///
/// # Errors
/// If the database cannot be asked, or refuses.
pub async fn troubled(client: &Client, limit: i64) -> Result<Vec<Troubled>, Error> {
    let sql = "select s.subscription_id, s.tenant_id, s.name, s.active, s.disabled_reason,
                      coalesce(h.circuit, 'closed') as circuit, extract(epoch from h.circuit_until)::float8 as circuit_until,
                      coalesce(h.consecutive_failures, 0) as failures, extract(epoch from h.failing_since)::float8 as failing_since,
                      count(*) over () as of
               from outbox.subscription s left join outbox.subscription_health h using (subscription_id)
               where s.unsubscribed_at is null and (not s.active or h.circuit <> 'closed' or h.consecutive_failures > 0)
               order by s.active and h.circuit <> 'closed' desc nulls last, not s.active and h.to_recover desc nulls last,
                        s.active desc, h.consecutive_failures desc nulls last, s.subscription_id
               limit $1";
    let rows = client.query_typed(sql, &[(&limit, Type::INT8)]).await?;
    Ok(rows
        .iter()
        .map(|row| Troubled {
            subscription_id: row.get("subscription_id"),
            tenant_id: row.get("tenant_id"),
            name: row.get("name"),
            active: row.get("active"),
            disabled_reason: row.get("disabled_reason"),
            circuit: row.get("circuit"),
            circuit_until: row.get("circuit_until"),
            consecutive_failures: row.get("failures"),
            failing_since: row.get("failing_since"),
            of: row.get("of"),
        })
        .collect())
}

/// The deliveries that failed last and wait for another attempt. A constraint says that what is finished has
/// not this state, so the planner reads the queue alone, by its index of retries; outbox.attempt is never read.
///
/// # Errors
/// If the database cannot be asked, or refuses.
pub async fn newest_failures(client: &Client, limit: i64) -> Result<Vec<FailedDelivery>, Error> {
    let sql = "select d.subscription_id, d.event_seq, d.attempts, d.last_status_code, d.last_error,
                      extract(epoch from d.updated_at)::float8 as failed_at, extract(epoch from d.next_attempt_at)::float8 as next_attempt_at
               from outbox.delivery d where d.state = 'failed' order by d.updated_at desc limit $1";
    let rows = client.query_typed(sql, &[(&limit, Type::INT8)]).await?;
    Ok(rows
        .iter()
        .map(|row| FailedDelivery {
            subscription_id: row.get("subscription_id"),
            event_seq: row.get("event_seq"),
            attempts: row.get("attempts"),
            status_code: row.get("last_status_code"),
            error: row.get("last_error"),
            failed_at: row.get("failed_at"),
            next_attempt_at: row.get("next_attempt_at"),
        })
        .collect())
}
