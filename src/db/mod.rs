//! One Rust function for each SQL function of `outbox_relay` that the loop calls.
//!
//! Every statement is sent unnamed and with its types (`query_typed`), in one round trip: nothing is
//! prepared on a connection that a transaction pooler may give to somebody else, and there is no
//! statement cache to outgrow or to go stale. What is planned once is planned inside the functions.

mod housekeeping;
mod offer;
mod rows;
mod seat;
mod secrets;
mod trial;
mod watch;

pub use rows::{
    Cause, Claimed, Event, Expand, Expanded, Failed, Finished, HealthDelta, Lease, Recorded, Room, StoredKey,
    SubscriptionRow, Tick, Trial, Tried,
};

pub use seat::{Answer, CatalogEntry, Credential, Gauges, Holder, Role, Seat, SubscriptionGauge};
pub use secrets::{FoundSecret, Offer, OfferFor, SecretCount, seal, sealed_otherwise, secret_counts, unsealed};
pub use watch::{
    Activity, FailedDelivery, LiveRelay, Standing, Step, Troubled, activity, newest_failures, relays, standing,
    troubled,
};

use crate::connect::{ConnectError, Object, Pool};
use crate::crash_point::unread;
use crate::metrics::Metrics;
use crate::reconcile::Change;
use crate::schema::describe;
use crate::secrets::{Keyring, SealingError};
use deadpool::managed::PoolError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// PostgreSQL refused it, or the connection broke.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A secret is refused before the database is asked.
    #[error("{0}")]
    Secret(#[from] crate::secrets::Refusal),
    /// No connection was to be had.
    #[error("no connection: {0}")]
    Pool(String),
    /// No answer in time; the connection is given up.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl DbError {
    /// Whether trying the same again is no use: PostgreSQL refused it, and not for a passing reason, which
    /// are those of SQLSTATE class 08 (connection), 40 (rollback), 42 (what an operator can grant or migrate),
    /// 53 (resources), 55 (locks), 57 (operator intervention), 58 (system) and XX; and 25006, a server that is
    /// read-only for now.
    pub fn is_refusal(&self) -> bool {
        const PASSING: [&str; 8] = ["08", "40", "42", "53", "55", "57", "58", "XX"];
        let passes = |c: &SqlState| *c == SqlState::READ_ONLY_SQL_TRANSACTION || PASSING.contains(&&c.code()[..2]);
        matches!(self, Self::Postgres(e) if e.code().is_some_and(|c| !passes(c)))
    }

    /// Whether the evaluation of a jsonpath may have been what was refused: bad data (22, of which its own errors and a
    /// regular expression's are), what it cannot do (0A), too much nesting (54).
    pub fn may_be_a_filters(&self) -> bool {
        matches!(self, Self::Postgres(e) if e.code().is_some_and(|c| ["22", "0A", "54"].contains(&&c.code()[..2])))
    }

    /// Whether it ran out of its time.
    pub fn was_too_slow(&self) -> bool {
        let cancelled = matches!(self, Self::Postgres(e) if e.code() == Some(&SqlState::QUERY_CANCELED));
        cancelled || matches!(self, Self::Timeout(_))
    }

    /// Whether somebody's open transaction holds a row that is needed.
    pub fn is_locked_row(&self) -> bool {
        matches!(self, Self::Postgres(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }

    /// Whether the statement may have been committed all the same: its answer was lost, or the session
    /// ended (FATAL, PANIC) before all of it came. An ERROR means that it was rolled back.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            Self::Postgres(e) => e.as_db_error().and_then(|e| e.parsed_severity()) != Some(Severity::Error),
            Self::Pool(_) | Self::Secret(_) => false,
            Self::Timeout(_) => true,
        }
    }
}

impl From<PoolError<ConnectError>> for DbError {
    /// Whatever a server says before there is a connection is about the connection, and not about the statement.
    fn from(error: PoolError<ConnectError>) -> Self {
        Self::Pool(match error {
            PoolError::Backend(e) => e.to_string(),
            other => other.to_string(),
        })
    }
}

type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// The relay's calls. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    /// After this the client gives a statement up, even if the server does not.
    timeout: Duration,
    asynchronous: bool,
    metrics: Metrics,
}

impl Db {
    /// `asynchronous`: whether the relay's own writes commit asynchronously.
    pub fn new(pool: Pool, timeout: Duration, asynchronous: bool, metrics: Metrics) -> Self {
        Self { pool, timeout, asynchronous, metrics }
    }

    /// Turns the next events of the log into deliveries. `None`: on hold, or fenced.
    ///
    /// # Errors
    /// If the database cannot be asked; nothing was expanded then.
    pub async fn expand(&self, epoch: i32, room: &Room, call: &Expand) -> Result<Option<Expanded>, DbError> {
        let events = i32::try_from(call.events).unwrap_or(i32::MAX);
        let keep_back_ms = i32::try_from(call.keep_back.as_millis()).unwrap_or(i32::MAX);
        let sql = "select event_seq, event_id, tenant_id, type, payload, occurred_at, traceparent, subscription_ids, versions,
                          expanded, queued, more, prioritised, kept_back
                   from outbox_relay.expand($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let rows = self
            .query_with_patience(
                "expand",
                call.patience,
                sql,
                &[
                    (&epoch, Type::INT4),
                    (&events, Type::INT4),
                    (&room.leases, Type::INT4),
                    (&room.max_in_flight, Type::INT4),
                    (&room.busy_ids, Type::INT8_ARRAY),
                    (&room.busy_counts, Type::INT4_ARRAY),
                    (&call.skip_filters, Type::BOOL),
                    (&self.asynchronous, Type::BOOL),
                    (&call.slow, Type::INT8_ARRAY),
                    (&room.bytes, Type::INT8),
                    (&keep_back_ms, Type::INT4),
                ],
            )
            .await?;
        let Some((summary, rows)) = rows.split_last() else { return Ok(None) };
        let mut leases = Vec::with_capacity(rows.len());
        for row in rows {
            let event = Arc::new(event(row));
            let (ids, versions): (Vec<i64>, Vec<i64>) = (row.get("subscription_ids"), row.get("versions"));
            leases.extend(ids.into_iter().zip(versions).map(|(subscription_id, version)| Lease {
                subscription_id,
                version,
                event_seq: event.seq,
                event: Some(event.clone()),
                attempts: 0,
                cause: Cause::Schedule,
                is_fresh: true,
            }));
        }
        Ok(Some(Expanded {
            leases,
            events: summary.get::<_, i32>("expanded").unsigned_abs() as usize,
            queued: summary.get::<_, i32>("queued").unsigned_abs() as usize,
            more: summary.get("more"),
            prioritised: summary.get("prioritised"),
            kept_back: summary.get::<_, i32>("kept_back").unsigned_abs() as usize,
        }))
    }

    /// Leases deliveries that wait and are due. `None`: on hold, or fenced.
    ///
    /// # Errors
    /// If the database cannot be asked; nothing was leased then.
    pub async fn claim(&self, epoch: i32, room: &Room) -> Result<Option<Claimed>, DbError> {
        let sql = "select *, (extract(epoch from next_due_at - clock_timestamp()) * 1000)::int8 as next_due_ms
                   from outbox_relay.claim($1, $2, $3, $4, $5, $6, $7)";
        let rows = self
            .query(
                "claim",
                sql,
                &[
                    (&epoch, Type::INT4),
                    (&room.leases, Type::INT4),
                    (&room.max_in_flight, Type::INT4),
                    (&room.busy_ids, Type::INT8_ARRAY),
                    (&room.busy_counts, Type::INT4_ARRAY),
                    (&self.asynchronous, Type::BOOL),
                    (&room.bytes, Type::INT8),
                ],
            )
            .await?;
        let Some((summary, rows)) = rows.split_last() else { return Ok(None) };
        // One payload for all deliveries of an event.
        let mut events: HashMap<i64, Arc<Event>> = HashMap::new();
        let mut lease = |row: &Row| Lease {
            subscription_id: row.get("subscription_id"),
            version: row.get("version"),
            event_seq: row.get("event_seq"),
            event: row
                .get::<_, Option<Uuid>>("event_id")
                .map(|_| events.entry(row.get("event_seq")).or_insert_with(|| Arc::new(event(row))).clone()),
            attempts: row.get("attempts"),
            cause: Cause::from_name(row.get("cause")),
            is_fresh: false,
        };
        Ok(Some(Claimed {
            leases: rows.iter().map(&mut lease).collect(),
            next_due: from_now(summary, "next_due_ms"),
            more: summary.get("more"),
        }))
    }

    /// Records results.
    ///
    /// # Errors
    /// If the database cannot be asked, or refuses one of the results; none was recorded then.
    pub async fn record(&self, epoch: i32, relay: &str, batch: &[Finished]) -> Result<Recorded, DbError> {
        fn column<T>(batch: &[Finished], of: impl Fn(&Finished) -> T) -> Vec<T> {
            batch.iter().map(of).collect()
        }
        let sql = "select *, (extract(epoch from next_attempt_at - clock_timestamp()) * 1000)::int8 as next_due_ms
                   from outbox_relay.record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
        let rows = self
            .query(
                "record",
                sql,
                &[
                    (&epoch, Type::INT4),
                    (&relay, Type::TEXT),
                    (&column(batch, |f| f.subscription_id), Type::INT8_ARRAY),
                    (&column(batch, |f| f.event_seq), Type::INT8_ARRAY),
                    (&column(batch, |f| f.started_at), Type::TIMESTAMPTZ_ARRAY),
                    (&column(batch, |f| i32::try_from(f.latency.as_millis()).unwrap_or(i32::MAX)), Type::INT4_ARRAY),
                    (&column(batch, |f| f.outcome.as_str()), Type::TEXT_ARRAY),
                    (&column(batch, |f| f.status_code), Type::INT2_ARRAY),
                    (&batch.iter().map(|f| f.error.as_deref()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                    (&batch.iter().map(|f| f.response_excerpt.as_deref()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                    (&batch.iter().map(|f| f.response_headers.as_deref()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                    (&batch.iter().map(|f| f.request_headers.as_deref()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                    (&batch.iter().map(|f| f.key_ids.as_deref()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                    (&column(batch, |f| f.retry_after_s), Type::INT4_ARRAY),
                    (&column(batch, |f| f.cause.as_str()), Type::TEXT_ARRAY),
                    (&self.asynchronous, Type::BOOL),
                    (&column(batch, |f| f.event_id), Type::UUID_ARRAY),
                ],
            )
            .await?;
        let next_due = rows.iter().filter_map(|row| from_now(row, "next_due_ms")).min();
        let failed = rows.iter().filter_map(|row| {
            Some(Failed {
                event_seq: row.get::<_, Option<i64>>("event_seq")?,
                subscription_id: row.get("subscription_id"),
                attempt: row.get("attempt"),
                state: row.get("state"),
                next_attempt_at: row.get("next_attempt_at"),
            })
        });
        Ok(Recorded { failed: failed.collect(), next_due })
    }

    /// Endpoints with their secrets.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn load_subscriptions(&self, ids: &[i64]) -> Result<Vec<SubscriptionRow>, DbError> {
        let rows = self
            .query(
                "load_subscriptions",
                "select * from outbox_relay.load_subscriptions($1)",
                &[(&ids, Type::INT8_ARRAY)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| {
                let key_ids = row.get::<_, Vec<String>>("key_ids").into_iter();
                let expire_ats = row.get::<_, Vec<Option<SystemTime>>>("expire_ats");
                let keys = key_ids.zip(secrets::stored(row)).zip(expire_ats);
                SubscriptionRow {
                    subscription_id: row.get("subscription_id"),
                    version: row.get("version"),
                    tenant_id: row.get("tenant_id"),
                    url: row.get("url"),
                    headers: row.get("headers"),
                    signature: row.get("signature"),
                    signature_header: row.get("signature_header"),
                    envelope: row.get("envelope"),
                    tls: row.get("tls"),
                    timeout: Duration::from_millis(u64::from(row.get::<_, i32>("timeout_ms").unsigned_abs())),
                    max_in_flight: row.get::<_, Option<i32>>("max_in_flight").map(|most| most.unsigned_abs() as usize),
                    keys: keys.map(|((key_id, stored), expires_at)| StoredKey { key_id, stored, expires_at }).collect(),
                }
            })
            .collect())
    }

    /// Gives a key that is kept by reference the id of the secret behind it; false if that was not to be done.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn name_key(
        &self,
        subscription_id: i64,
        key_id: &str,
        true_key_id: &str,
        form: &str,
        public_key: Option<&str>,
    ) -> Result<bool, DbError> {
        let parameters: &Params<'_> = &[
            (&subscription_id, Type::INT8),
            (&key_id, Type::TEXT),
            (&true_key_id, Type::TEXT),
            (&form, Type::TEXT),
            (&public_key, Type::TEXT),
        ];
        let rows = self.query("name_key", "select outbox_relay.name_key($1, $2, $3, $4, $5)", parameters).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Seals what is plain; returns how much was.
    ///
    /// # Errors
    /// Without a key, or if the database cannot be asked.
    pub async fn seal_found(&self, keyring: &Keyring) -> Result<u64, SealingError> {
        let client = self.pool.get().await.map_err(DbError::from)?;
        match tokio::time::timeout(self.timeout, crate::secrets::seal_found(&client, keyring)).await {
            Ok(result) => result,
            Err(_) => {
                drop(Object::take(client));
                Err(DbError::Timeout(self.timeout).into())
            }
        }
    }

    /// Wakes the other relays: there is more than this one has room for.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn call_for_help(&self) -> Result<(), DbError> {
        self.query("help", "select pg_notify('outbox_signal', 'help')", &[]).await.map(drop)
    }

    /// Connections of the pool: idle, busy, and calls that wait for one.
    pub fn note_pool(&self) {
        let status = self.pool.status();
        self.metrics.pool(status.available, status.size.saturating_sub(status.available), status.waiting);
    }

    async fn query(&self, call: &str, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, DbError> {
        let began = Instant::now();
        let result = self.try_query(call, sql, params).await;
        self.metrics.called(call, Self::how(&result), began.elapsed());
        result
    }

    fn how<T>(result: &Result<T, DbError>) -> &'static str {
        match result {
            Ok(_) => "ok",
            Err(e) if e.is_refusal() => "refused",
            Err(_) => "failed",
        }
    }

    async fn try_query(&self, call: &str, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, DbError> {
        let client = self.pool.get().await?;
        match tokio::time::timeout(self.timeout, unread(call, client.query_typed(sql, params))).await {
            Ok(result) => Ok(result?),
            Err(_) => {
                // The statement may still run: ask the server to stop it, and never reuse the connection.
                let client = Object::take(client);
                tokio::spawn(async move {
                    // A pooler passes that on only while the connection is there.
                    let _ = client.canceller().cancel().await;
                });
                Err(DbError::Timeout(self.timeout))
            }
        }
    }
}

/// `outbox.status()` as a JSON object, for people and scripts.
///
/// # Errors
/// If the database cannot be asked.
pub async fn status(client: &Client) -> Result<serde_json::Value, tokio_postgres::Error> {
    let row = client.query_typed("select to_jsonb(s)::text from outbox.status() s", &[]).await?;
    let text: Option<String> = row.first().map(|row| row.get(0));
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// Brings managed subscriptions into step with `wanted`, a JSON array; with `dry_run` only says what it would do.
///
/// # Errors
/// If the database cannot be asked, or refuses one of them; nothing was changed then.
pub async fn reconcile(
    client: &Client,
    environment: &str,
    wanted: &str,
    dry_run: bool,
) -> Result<Vec<Change>, DbError> {
    let sql =
        "select action, concat_ws('/', tenant_id, name), detail from outbox_relay.reconcile($1, $2::text::jsonb, $3)";
    let parameters: &Params = &[(&environment, Type::TEXT), (&wanted, Type::TEXT), (&dry_run, Type::BOOL)];
    let rows = client.query_typed(sql, parameters).await?;
    Ok(rows.iter().map(|row| Change { action: row.get(0), subscription: row.get(1), detail: row.get(2) }).collect())
}

fn event(row: &Row) -> Event {
    Event {
        seq: row.get("event_seq"),
        id: row.get("event_id"),
        tenant_id: row.get("tenant_id"),
        kind: row.get("type"),
        payload: row.get("payload"),
        occurred_at: row.get("occurred_at"),
        traceparent: row.get("traceparent"),
    }
}

/// A number of milliseconds from now; what is past is now.
fn from_now(row: &Row, column: &str) -> Option<Duration> {
    row.get::<_, Option<i64>>(column).map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}
