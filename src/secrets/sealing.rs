//! Sealing what stands in the database: what SQL made in plain, and what another key has sealed.

use super::{Form, Keyring, SealError, Stored};
use crate::config::Secret;
use crate::crash_point::{Point, reached};
use crate::db::{self, DbError, FoundSecret};
use std::collections::BTreeMap;
use tokio_postgres::Client;
use tracing::warn;

/// Secrets looked at in one call.
const BATCH: i32 = 100;

/// Why sealing stopped.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// Nothing can be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database cannot be asked.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<tokio_postgres::Error> for SealingError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What [`rekey`] did.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// Sealed anew, by the id of the key they were sealed with.
    pub resealed: BTreeMap<String, u64>,
    /// Subscription and key id of what was left, and why: no configured key opens it, or somebody holds it.
    pub unopened: Vec<(i64, String, String)>,
}

/// Seals whatever is plain, and returns how much was. Another who does the same at once is no harm: each secret is
/// sealed by one of the two.
///
/// # Errors
/// Without a key, or if the database cannot be asked; what was sealed stays sealed.
pub async fn seal_found(client: &Client, keyring: &Keyring) -> Result<u64, SealingError> {
    let mut sealed = 0;
    loop {
        let found = db::unsealed(client, BATCH).await?;
        let mut here = 0;
        for secret in &found {
            reached(Point::SealFound);
            here += u64::from(seal_one(client, keyring, secret).await?);
            reached(Point::SealCommitted);
        }
        sealed += here;
        // None of a full batch: all of them are being sealed by somebody else, or held by an open transaction.
        if here == 0 {
            return Ok(sealed);
        }
    }
}

/// Seals everything under the current key that is sealed under another; what is plain is left. It goes through the
/// secrets in order, a statement each, so it can be broken off and begun again, and relays work on meanwhile.
///
/// # Errors
/// As [`seal_found`].
pub async fn rekey(client: &Client, keyring: &Keyring) -> Result<Rekeyed, SealingError> {
    let current = keyring.current().ok_or(SealError::NoKey)?.id().to_owned();
    let mut done = Rekeyed::default();
    // A relay that has not got the new key yet may seal with the old one behind the place where this is.
    loop {
        done.unopened.clear();
        let mut after = (0, String::new());
        let mut changed = false;
        loop {
            let found = db::sealed_otherwise(client, &current, &after, BATCH).await?;
            let Some(last) = found.last() else { break };
            after = (last.subscription_id, last.key_id.clone());
            for secret in &found {
                let FoundSecret { subscription_id, key_id, stored, .. } = secret;
                let Stored::Sealed { with, bytes } = stored else { continue };
                match keyring.open(*subscription_id, key_id, with, bytes) {
                    Ok(opened) => match put(client, keyring, secret, &opened).await {
                        // False: somebody else was first, and it may be sealed otherwise still.
                        Ok(is_put) => {
                            if is_put {
                                *done.resealed.entry(with.clone()).or_default() += 1;
                            }
                            changed = true;
                        }
                        Err(SealingError::Database(error)) if error.is_locked_row() => {
                            let reason = "somebody's open transaction holds it: run this again".to_owned();
                            done.unopened.push((*subscription_id, key_id.clone(), reason));
                        }
                        Err(error) => return Err(error),
                    },
                    Err(error) => done.unopened.push((*subscription_id, key_id.clone(), error.to_string())),
                }
            }
        }
        if !changed {
            return Ok(done);
        }
    }
}

async fn seal_one(client: &Client, keyring: &Keyring, found: &FoundSecret) -> Result<bool, SealingError> {
    let Stored::Plain(secret) = &found.stored else { return Ok(false) };
    match put(client, keyring, found, secret).await {
        Err(SealingError::Database(error)) if error.is_locked_row() => {
            warn!(
                subscription_id = found.subscription_id,
                key_id = found.key_id,
                "somebody's open transaction holds a secret; it is sealed later"
            );
            Ok(false)
        }
        done => done,
    }
}

/// Replaces what was found by its sealed form, unless it has changed meanwhile.
async fn put(client: &Client, keyring: &Keyring, found: &FoundSecret, secret: &Secret) -> Result<bool, SealingError> {
    let (sealed, with) = keyring.seal(found.subscription_id, &found.key_id, secret)?;
    let form = Form::of(secret.expose());
    Ok(db::seal(client, found, &sealed, with, form.as_str()).await?)
}
