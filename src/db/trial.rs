//! Calls that are cut short: expand under a patience of its own, and the search for the filter that made it slow.

use super::{Db, DbError, Params, Trial, Tried};
use crate::connect::Object;
use crate::crash_point::unread;
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use tracing::warn;

/// What outbox_relay.begin_trial allows at most, twice the largest filter_timeout, and time to be told. A shorter
/// database.statement_timeout, which is for all other calls, must not keep a filter from being found.
const LONGEST_TRIAL: Duration = Duration::from_secs(25);

impl Db {
    /// Tries the filters of the next events, one at a time, for as long as the setting `filter_timeout` allows.
    ///
    /// # Errors
    /// If the database cannot be asked, or if it was not a filter that took the time.
    pub async fn try_filters(&self, epoch: i32, events: i32, trial: &Trial) -> Result<Tried, DbError> {
        let began = Instant::now();
        let timeout = self.timeout.max(LONGEST_TRIAL);
        let result = match self.pool.get().await {
            Ok(mut client) => match tokio::time::timeout(timeout, try_filters(&mut client, epoch, events, trial)).await
            {
                Ok(result) => result,
                Err(_) => {
                    // What it still does, nobody else is to wait for.
                    drop(Object::take(client));
                    Err(DbError::Timeout(timeout))
                }
            },
            Err(error) => Err(error.into()),
        };
        self.metrics.called("try_filters", if result.is_ok() { "ok" } else { "failed" }, began.elapsed());
        result
    }

    /// Like any other call, but asks the server after `patience` to stop. What comes then is waited for, so that there
    /// is no doubt about it: PostgreSQL's word that it was cancelled, or the result after all.
    pub(super) async fn query_with_patience(
        &self,
        call: &str,
        patience: Duration,
        sql: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, DbError> {
        if patience >= self.timeout {
            return self.query(call, sql, params).await;
        }
        let began = Instant::now();
        let result = self.try_with_patience(call, patience, sql, params).await;
        self.metrics.called(call, Self::how(&result), began.elapsed());
        result
    }

    async fn try_with_patience(
        &self,
        call: &str,
        patience: Duration,
        sql: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, DbError> {
        let client = self.pool.get().await?;
        let canceller = client.canceller();
        let mut query = Box::pin(unread(call, client.query_typed(sql, params)));
        if let Ok(result) = tokio::time::timeout(patience, &mut query).await {
            return Ok(result?);
        }
        // It may reach the server late: nothing else is to run on this connection, or that would be cancelled.
        let cancel = tokio::spawn(async move {
            if let Err(error) = canceller.cancel().await {
                warn!(%error, "the server could not be asked to stop; statement_timeout is waited for");
            }
        });
        let result = tokio::time::timeout(self.timeout, &mut query).await;
        drop(query);
        let client = Object::take(client);
        // Seen to its end: PgBouncer 1.18 ends itself if who cancels hangs up before it does (bad client state).
        tokio::spawn(async move {
            let _ = cancel.await;
            drop(client);
        });
        match result {
            Ok(result) => Ok(result?),
            Err(_) => Err(DbError::Timeout(self.timeout)),
        }
    }
}

async fn try_filters(client: &mut Client, epoch: i32, events: i32, trial: &Trial) -> Result<Tried, DbError> {
    // Dropped halfway, it rolls back.
    let transaction = client.transaction().await?;
    transaction.query_typed("select outbox_relay.begin_trial()", &[]).await?;
    let sql = "select * from outbox_relay.try_filters($1, $2, $3, $4, $5, $6, $7)";
    let params: &Params<'_> = &[
        (&epoch, Type::INT4),
        (&events, Type::INT4),
        (&trial.after.0, Type::INT8),
        (&trial.after.1, Type::INT8),
        (&trial.slow, Type::INT8_ARRAY),
        (&trial.versions, Type::INT8_ARRAY),
        (&trial.ms, Type::FLOAT4_ARRAY),
    ];
    let rows = transaction.query_typed(sql, params).await?;
    transaction.commit().await?;
    let row = rows.first().ok_or_else(|| DbError::Pool("outbox_relay.try_filters returned no row".into()))?;
    let reached = |column, before| row.get::<_, Option<i64>>(column).unwrap_or(before);
    Ok(Tried {
        suspect: row.get("suspect"),
        is_sure: row.get("is_sure"),
        events_before: usize::try_from(row.get::<_, i32>("events_before")).unwrap_or(0),
        next: Trial {
            after: (reached("reached_seq", trial.after.0), reached("reached_id", trial.after.1)),
            slow: trial.slow.clone(),
            versions: row.get("versions"),
            ms: row.get("ms"),
        },
        is_done: row.get("done"),
    })
}
