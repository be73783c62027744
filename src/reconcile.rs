//! Subscriptions as code: the database is brought into step with the configuration before the relay begins.

use crate::config::{Config, Given};
use crate::db::{self, DbError};
use tokio_postgres::Client;

/// One thing that was done, or would be.
#[derive(Debug)]
pub struct Change {
    /// created, taken over, changed, resumed or paused; left alone, in a database of another environment.
    pub action: String,
    /// Tenant and name of the subscription, with a slash between; empty if it is about all of them.
    pub subscription: String,
    /// Which columns, or why.
    pub detail: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self.action.as_str() {
            "created" => '+',
            "paused" => '-',
            "left alone" => '!',
            _ => '~',
        };
        write!(f, "{sign} {} {}", self.subscription, self.action)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

/// The configuration could not be brought about.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A subscription is refused; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The database could not be asked.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl ReconcileError {
    /// Whether somebody's open transaction was in the way, and the same may go well once it has ended.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_locked_row())
    }
}

/// Brings managed subscriptions into step with the configuration; with `dry_run` only says what it would do.
///
/// # Errors
/// If one of them is refused, or the database cannot be asked. Nothing was changed then. An open transaction of
/// somebody else's that is in the way for some seconds is an error of the database, see
/// [`ReconcileError::is_passing`].
pub async fn reconcile(client: &Client, config: &Config, dry_run: bool) -> Result<Vec<Change>, ReconcileError> {
    if config.subscriptions.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<serde_json::Value> = config
        .subscriptions
        .iter()
        .map(|subscription| {
            let mut wanted = subscription.definition.clone();
            wanted.insert("tenant_id".into(), subscription.tenant_id.as_str().into());
            wanted.insert("name".into(), subscription.name.as_str().into());
            match &subscription.secret {
                Given::Secret(secret) => wanted.insert("secret".into(), secret.expose().into()),
                Given::Reference(reference) => wanted.insert("secret_ref".into(), reference.as_str().into()),
            };
            wanted.into()
        })
        .collect();
    let wanted = zeroize::Zeroizing::new(serde_json::Value::from(wanted).to_string());
    db::reconcile(client, &config.relay.environment, &wanted, dry_run).await.map_err(|error| match error {
        // What PostgreSQL says of a value, it says of the configuration.
        error if error.is_refusal() => ReconcileError::Refused(error.to_string()),
        error => ReconcileError::Database(error),
    })
}
