//! The operator's seat's way to the database: who comes, in which role, one transaction a request.
//!
//! [`Seat::call`] is the whole of the API: it takes the role of the token and calls the one function of
//! `outbox_http` that the operation is named after. What the role may not do, PostgreSQL refuses.

use super::{DbError, Params, offer};
use crate::connect::{Object, Pool};
use crate::secrets::Secrets;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Calls of the HTTP API, the console and `/metrics`, over a small pool of their own. Cheap to clone.
#[derive(Clone)]
pub struct Seat {
    pool: Pool,
    request_timeout: Duration,
    session_idle: Duration,
    secrets: Arc<Secrets>,
}

/// What somebody comes with, as its SHA-256.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// A token of `outbox.create_token`.
    Token([u8; 32]),
    /// The cookie of a console.
    Session([u8; 32]),
}

/// The database role of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `outbox_operator`
    Operator,
    /// `outbox_viewer`
    Viewer,
    /// `outbox_producer`
    Producer,
}

/// Who holds a credential.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The token, or the one the session began with.
    pub token_id: i64,
    /// What it may do.
    pub role: Role,
    /// The tenant it is bound to.
    pub tenant_id: Option<String>,
    /// What its maker said of it.
    pub description: Option<String>,
}

/// How a request was answered. Not for `Debug`: it may hold a secret that is shown this once.
pub struct Answer {
    /// The status, if the first request under its key had another than the operation says.
    pub status: Option<u16>,
    /// A JSON document, as PostgreSQL wrote it.
    pub body: String,
    /// It was answered before: nothing was done now.
    pub is_repetition: bool,
}

/// What is known of the whole fleet.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named after the columns of outbox_relay.gauges")]
pub struct Gauges {
    pub log_head: i64,
    pub unexpanded_events: i64,
    pub pending: i64,
    pub leased: i64,
    pub failed: i64,
    pub dead_letters: i64,
    pub relays: i64,
    pub on_hold: bool,
    pub lag_s: f64,
    pub oldest_due_s: f64,
    pub segments: i64,
    pub closed_segments: i64,
    pub stopped_keys: i64,
    pub circuits_open: i64,
    pub circuits_half_open: i64,
    pub disabled: i64,
}

/// What is known of one subscription.
#[derive(Debug)]
#[allow(missing_docs, reason = "named after the columns of outbox_relay.subscription_gauges")]
pub struct SubscriptionGauge {
    pub tenant_id: String,
    pub subscription_id: i64,
    pub delivered: i64,
    pub failed: i64,
    pub outstanding: i64,
}

/// An event type of the catalog.
#[derive(Debug)]
#[allow(missing_docs, reason = "named after the columns of outbox.event_type")]
pub struct CatalogEntry {
    pub kind: String,
    pub description: Option<String>,
    pub version: Option<String>,
    pub schema: Option<String>,
    pub example: Option<String>,
}

impl Credential {
    /// What it is known by.
    pub fn sha256(&self) -> [u8; 32] {
        match self {
            Self::Token(hash) | Self::Session(hash) => *hash,
        }
    }
}

impl Role {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Producer => "producer",
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "operator" => Self::Operator,
            "viewer" => Self::Viewer,
            _ => Self::Producer,
        }
    }

    /// The statement that takes the role until the transaction ends.
    fn set(self) -> &'static str {
        match self {
            Self::Operator => "set local role outbox_operator",
            Self::Viewer => "set local role outbox_viewer",
            Self::Producer => "set local role outbox_producer",
        }
    }
}

impl Seat {
    /// `session_idle`: a session ends after so long without anything done. `secrets`: what arrives is sealed with.
    pub fn new(pool: Pool, request_timeout: Duration, session_idle: Duration, secrets: Arc<Secrets>) -> Self {
        Self { pool, request_timeout, session_idle, secrets }
    }

    /// How long a session may idle.
    pub fn session_idle(&self) -> Duration {
        self.session_idle
    }

    /// Who holds the credential; `None` if nobody does. `touch`: whether it counts as something done, by which a
    /// session stays alive. A transaction of its own: what follows may be slow, or be refused.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn who(&self, credential: Credential, touch: bool) -> Result<Option<Holder>, DbError> {
        let mut transaction = self.begin().await?;
        let holder = self.enter(&transaction, credential, touch).await?;
        transaction.end("commit").await?;
        Ok(holder)
    }

    /// Calls `outbox_http.<operation>` with the request, a JSON object, in the name and role of whoever holds the
    /// credential, in one transaction; `None` if nobody does any more. `once`: an Idempotency-Key with the
    /// fingerprint of what is asked; `status`: what the answer is remembered with.
    ///
    /// # Errors
    /// What the function refuses, or a database that cannot be asked; nothing was done then.
    pub async fn call(
        &self,
        credential: Credential,
        operation: &str,
        request: &str,
        once: Option<(&str, [u8; 32])>,
        status: u16,
    ) -> Result<Option<Answer>, DbError> {
        let mut transaction = self.begin().await?;
        let answer = match self.enter(&transaction, credential, false).await {
            Ok(Some(holder)) => {
                transaction.answer(&holder, operation, request, once, status, &self.secrets).await.map(Some)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        // After a refusal the connection is as good as before.
        let ended = transaction.end(if answer.is_ok() { "commit" } else { "rollback" }).await;
        answer.and_then(|answer| ended.map(|()| answer))
    }

    /// Begins a session of the token for the cookie with this SHA-256; `None` if the token is not good.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn open_session(&self, token: Credential, sha256: &[u8; 32]) -> Result<Option<Holder>, DbError> {
        let mut transaction = self.begin().await?;
        let mut holder = self.enter(&transaction, token, true).await?;
        if holder.is_some() {
            let hash = token.sha256();
            let params: &Params<'_> = &[(&&hash[..], Type::BYTEA), (&&sha256[..], Type::BYTEA)];
            let rows = transaction.query("select outbox_relay.open_session($1, $2)", params).await?;
            // A session does not open another one.
            holder = holder.filter(|_| rows.first().is_some_and(|row| row.get(0)));
        }
        transaction.end("commit").await?;
        Ok(holder)
    }

    async fn begin(&self) -> Result<Transaction, DbError> {
        // From here on the transaction ends with this value, also if it is dropped halfway.
        let transaction = Transaction { client: Some(self.pool.get().await?) };
        let timeout_ms = self.request_timeout.as_millis();
        // On the transaction, not the session: a pooler may be between.
        transaction
            .execute(&format!(
                "begin isolation level read committed; set local timezone = 'UTC'; set local statement_timeout = {timeout_ms}; set local lock_timeout = '5s'"
            ))
            .await?;
        Ok(transaction)
    }

    async fn enter(
        &self,
        transaction: &Transaction,
        credential: Credential,
        touch: bool,
    ) -> Result<Option<Holder>, DbError> {
        let (kind, hash) = match &credential {
            Credential::Token(hash) => ("token", hash),
            Credential::Session(hash) => ("session", hash),
        };
        let idle = format!("{} milliseconds", self.session_idle.as_millis());
        let rows = transaction
            .query(
                "select * from outbox_relay.enter($1, $2, $3::text::interval, $4)",
                &[(&kind, Type::TEXT), (&&hash[..], Type::BYTEA), (&idle, Type::TEXT), (&touch, Type::BOOL)],
            )
            .await?;
        Ok(rows.first().map(|row| Holder {
            token_id: row.get("token_id"),
            role: Role::from_name(row.get("role")),
            tenant_id: row.get("tenant_id"),
            description: row.get("description"),
        }))
    }

    /// Whether there is a token that somebody could come with.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn has_tokens(&self) -> Result<bool, DbError> {
        Ok(self.query("select outbox_relay.has_tokens()").await?.first().is_some_and(|row| row.get(0)))
    }

    /// Ends a session; false if there was none.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn close_session(&self, sha256: &[u8; 32]) -> Result<bool, DbError> {
        let client = self.pool.get().await?;
        let rows = client.query_typed("select outbox_relay.close_session($1)", &[(&&sha256[..], Type::BYTEA)]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// What is known of the whole fleet.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn gauges(&self) -> Result<Gauges, DbError> {
        let rows = self.query("select * from outbox_relay.gauges()").await?;
        let row = rows.first().ok_or_else(|| DbError::Pool("outbox_relay.gauges returned no row".into()))?;
        Ok(Gauges {
            log_head: row.get("log_head"),
            unexpanded_events: row.get("unexpanded_events"),
            pending: row.get("pending"),
            leased: row.get("leased"),
            failed: row.get("failed"),
            dead_letters: row.get("dead_letters"),
            relays: row.get("relays"),
            on_hold: row.get("on_hold"),
            lag_s: row.get::<_, Option<f64>>("lag_s").unwrap_or(0.0),
            oldest_due_s: row.get("oldest_due_s"),
            segments: row.get("segments"),
            closed_segments: row.get("closed_segments"),
            stopped_keys: row.get("stopped_keys"),
            circuits_open: row.get("circuits_open"),
            circuits_half_open: row.get("circuits_half_open"),
            disabled: row.get("disabled"),
        })
    }

    /// What is known of each subscription.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn subscription_gauges(&self) -> Result<Vec<SubscriptionGauge>, DbError> {
        let rows = self.query("select * from outbox_relay.subscription_gauges()").await?;
        Ok(rows
            .iter()
            .map(|row| SubscriptionGauge {
                tenant_id: row.get("tenant_id"),
                subscription_id: row.get("subscription_id"),
                delivered: row.get("delivered"),
                failed: row.get("failed"),
                outstanding: row.get("outstanding"),
            })
            .collect())
    }

    /// The event types that are not archived, by name.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn catalog(&self) -> Result<Vec<CatalogEntry>, DbError> {
        let rows = self.query("select * from outbox_relay.catalog()").await?;
        Ok(rows
            .iter()
            .map(|row| CatalogEntry {
                kind: row.get("type"),
                description: row.get("description"),
                version: row.get("version"),
                schema: row.get("schema"),
                example: row.get("example"),
            })
            .collect())
    }

    async fn query(&self, sql: &str) -> Result<Vec<Row>, DbError> {
        let client = self.pool.get().await?;
        match tokio::time::timeout(self.request_timeout, client.query_typed(sql, &[])).await {
            Ok(result) => Ok(result?),
            Err(_) => {
                drop(Object::take(client));
                Err(DbError::Timeout(self.request_timeout))
            }
        }
    }
}

/// One transaction. Dropped unfinished, its connection is given up.
pub(super) struct Transaction {
    client: Option<Object>,
}

impl Transaction {
    async fn answer(
        &self,
        holder: &Holder,
        operation: &str,
        request: &str,
        once: Option<(&str, [u8; 32])>,
        status: u16,
        secrets: &Secrets,
    ) -> Result<Answer, DbError> {
        let Holder { token_id, role, tenant_id, .. } = holder;
        if let Some((key, fingerprint)) = once {
            let begun = "select * from outbox_relay.begin_request($1, $2, $3)";
            let params: &Params<'_> = &[(token_id, Type::INT8), (&key, Type::TEXT), (&&fingerprint[..], Type::BYTEA)];
            if let Some(row) = self.query(begun, params).await?.first() {
                let before = row.get::<_, Option<i16>>("status").and_then(|status| u16::try_from(status).ok());
                let body = row.get::<_, Option<String>>("answer").unwrap_or_default();
                return Ok(Answer { status: before, body, is_repetition: true });
            }
        }
        let arriving = self.offer(holder, operation, request, secrets).await?;
        let request = arriving.as_ref().map_or(request, |arriving| &arriving.request);
        self.execute(role.set()).await.map_err(|error| match error {
            DbError::Postgres(e) if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => DbError::Pool(format!(
                "outbox_relay may not take the role outbox_{}: run outboxd migrate as somebody who may grant it",
                role.as_str()
            )),
            error => error,
        })?;
        // The name is one of the embedded document's, never the caller's.
        let sql = format!("select outbox_http.{operation}($1, $2::text::jsonb)::text");
        let rows = self.query(&sql, &[(tenant_id, Type::TEXT), (&request, Type::TEXT)]).await?;
        let body = rows.first().and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default();
        if let Some((key, _)) = once {
            self.execute("set local role none").await?;
            let status = i16::try_from(status).unwrap_or(i16::MAX);
            let params: &Params<'_> =
                &[(token_id, Type::INT8), (&key, Type::TEXT), (&status, Type::INT2), (&body, Type::TEXT)];
            self.query("select outbox_relay.end_request($1, $2, $3, $4)", params).await?;
        }
        // Only now: what is kept for repetitions has not got it.
        let body = match &arriving {
            Some(arriving) => offer::shown(body, &arriving.secret),
            None => body,
        };
        Ok(Answer { status: None, body, is_repetition: false })
    }

    pub(super) async fn query(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, DbError> {
        match &self.client {
            Some(client) => Ok(client.query_typed(sql, params).await?),
            None => Err(DbError::Pool("the transaction has ended".into())),
        }
    }

    async fn execute(&self, sql: &str) -> Result<(), DbError> {
        match &self.client {
            Some(client) => Ok(client.batch_execute(sql).await?),
            None => Err(DbError::Pool("the transaction has ended".into())),
        }
    }

    /// Ends the transaction; only then may the connection serve somebody else.
    async fn end(&mut self, how: &str) -> Result<(), DbError> {
        self.execute(how).await?;
        drop(self.client.take());
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A transaction with a role and a holder is not for the next request: the server rolls it back
        // when the connection ends.
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}
