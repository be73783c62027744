//! What the relay calls once a second, and when it ends.

use super::{Db, DbError, HealthDelta, Tick};
use crate::metrics::Sample;
use std::time::Duration;
use tokio_postgres::types::Type;

/// To make, begin and drop a segment, and to see that nothing is left to do.
const MAINTAIN_STEPS: usize = 4;

impl Db {
    /// Fences dead relays, and says how things stand.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn tick(&self, epoch: i32) -> Result<Tick, DbError> {
        let rows = self.query("tick", "select * from outbox_relay.tick($1)", &[(&epoch, Type::INT4)]).await?;
        let row = rows.first().ok_or_else(|| DbError::Pool("outbox_relay.tick returned no row".into()))?;
        Ok(Tick {
            fenced: row.get("fenced"),
            hold: row.get("hold"),
            handed_back: row.get("handed_back"),
            response_excerpt_bytes: row.get::<_, i32>("response_excerpt_bytes").unsigned_abs() as usize,
            allow_insecure_http: row.get("allow_insecure_http"),
            circuit_failures: row.get("circuit_failures"),
            unsealed: row.get("unsealed"),
        })
    }

    /// Adds counts to the health of subscriptions; returns those written.
    ///
    /// # Errors
    /// If the database cannot be asked; nothing was written then.
    pub async fn add_health(&self, deltas: &[(i64, HealthDelta)]) -> Result<Vec<i64>, DbError> {
        fn column<T>(deltas: &[(i64, HealthDelta)], of: impl Fn(&HealthDelta) -> T) -> Vec<T> {
            deltas.iter().map(|(_, d)| of(d)).collect()
        }
        let ids: Vec<i64> = deltas.iter().map(|(id, _)| *id).collect();
        let rows = self
            .query(
                "add_health",
                "select * from outbox_relay.add_health($1, $2, $3, $4, $5, $6)",
                &[
                    (&ids, Type::INT8_ARRAY),
                    (&column(deltas, |d| d.successes), Type::INT8_ARRAY),
                    (&column(deltas, |d| d.failures), Type::INT8_ARRAY),
                    (&column(deltas, |d| d.trailing_failures), Type::INT8_ARRAY),
                    (&column(deltas, |d| d.last_success_at), Type::TIMESTAMPTZ_ARRAY),
                    (&column(deltas, |d| d.last_failure_at), Type::TIMESTAMPTZ_ARRAY),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Keeps what this relay did in the last seconds, for `outbox.activity()`.
    ///
    /// # Errors
    /// If the database cannot be asked; nothing was written then.
    pub async fn add_sample(&self, epoch: i32, span: Duration, sample: &Sample) -> Result<(), DbError> {
        self.query(
            "sample",
            "select outbox_relay.add_sample($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &[
                (&epoch, Type::INT4),
                (&span.as_secs_f32(), Type::FLOAT4),
                (&sample.delivered, Type::INT8),
                (&sample.failed, Type::INT8),
                (&sample.first_delivered, Type::INT8),
                (&sample.first_failed, Type::INT8),
                (&sample.attempt_counts, Type::INT8_ARRAY),
                (&sample.commit_counts, Type::INT8_ARRAY),
                (&self.asynchronous, Type::BOOL),
            ],
        )
        .await
        .map(drop)
    }

    /// Housekeeping; returns what was done, a line each.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn maintain(&self) -> Result<Vec<String>, DbError> {
        let sql = "select action in ('made', 'begun', 'dropped') as is_step, concat_ws(' ', action, 'segment ' || segment, detail) as line
                   from outbox_relay.maintain()";
        let mut done = Vec::new();
        for _ in 0..MAINTAIN_STEPS {
            let rows = self.query("maintain", sql, &[]).await?;
            done.extend(rows.iter().map(|row| row.get::<_, String>("line")));
            if !rows.iter().any(|row| row.get("is_step")) {
                break;
            }
        }
        Ok(done)
    }

    /// Ends an epoch and hands its leases back; returns how many.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn fence(&self, epoch: i32) -> Result<i32, DbError> {
        let rows = self.query("fence", "select outbox_relay.fence($1)", &[(&epoch, Type::INT4)]).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// Which of these leases of this epoch, given by subscription and event, somebody's open transaction has locked.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn locked(&self, epoch: i32, leases: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, DbError> {
        let (ids, seqs): (Vec<i64>, Vec<i64>) = leases.iter().copied().unzip();
        let rows = self
            .query(
                "locked",
                "select subscription_id, event_seq from outbox_relay.locked($1, $2, $3)",
                &[(&epoch, Type::INT4), (&ids, Type::INT8_ARRAY), (&seqs, Type::INT8_ARRAY)],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Hands back leases of this epoch, given by subscription and event, that have not begun. To be called once for a
    /// lease. Returns those that somebody's open transaction has locked: they are to be handed back later.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn hand_back(&self, epoch: i32, leases: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, DbError> {
        let (ids, seqs): (Vec<i64>, Vec<i64>) = leases.iter().copied().unzip();
        let rows = self
            .query(
                "hand_back",
                "select subscription_id, event_seq from outbox_relay.hand_back($1, $2, $3) where is_left",
                &[(&epoch, Type::INT4), (&ids, Type::INT8_ARRAY), (&seqs, Type::INT8_ARRAY)],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
