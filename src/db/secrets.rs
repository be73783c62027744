//! Secrets in the database: finding what is to be sealed, sealing it, and offering what arrives sealed.

use super::{DbError, Params};
use crate::config::Secret;
use crate::secrets::Stored;
use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use zeroize::Zeroizing;

/// A secret that is to be sealed.
#[derive(Debug)]
pub struct FoundSecret {
    /// Whose.
    pub subscription_id: i64,
    /// Which.
    pub key_id: String,
    /// As it stands.
    pub stored: Stored,
}

/// What a secret is sealed for before it is stored.
#[derive(Debug)]
pub struct OfferFor {
    /// The subscription, or the id that one will have.
    pub subscription_id: i64,
    /// The profile of one that exists.
    pub signature: Option<String>,
}

/// A sealed secret on its way into the database, with what is public of it.
#[derive(Debug)]
pub struct Offer<'a> {
    /// Whose.
    pub subscription_id: i64,
    /// Which.
    pub key_id: &'a str,
    /// Which profiles it can sign for.
    pub form: &'a str,
    /// Of an ed25519 key.
    pub public_key: Option<&'a str>,
    /// The secret.
    pub sealed: &'a [u8],
    /// The key that opens it.
    pub sealed_with: &'a str,
}

/// How many secrets stand in one form.
#[derive(Debug)]
pub struct SecretCount {
    /// `plain`, `sealed` or `reference`.
    pub form: String,
    /// The sealing key, or the reference.
    pub detail: Option<String>,
    /// How many.
    pub count: i64,
}

/// Secrets that are plain.
///
/// # Errors
/// If the database cannot be asked.
pub async fn unsealed(client: &Client, most: i32) -> Result<Vec<FoundSecret>, DbError> {
    let sql = "select subscription_id, key_id, secret from outbox_relay.unsealed($1)";
    let rows = client.query_typed(sql, &[(&most, Type::INT4)]).await?;
    Ok(rows.iter().map(|row| found(row, Stored::Plain(Secret::new(row.get("secret"))))).collect())
}

/// Secrets sealed with another key than this, in order, behind `after`.
///
/// # Errors
/// If the database cannot be asked.
pub async fn sealed_otherwise(
    client: &Client,
    current: &str,
    after: &(i64, String),
    most: i32,
) -> Result<Vec<FoundSecret>, DbError> {
    let sql = "select subscription_id, key_id, sealed, sealed_with from outbox_relay.sealed_otherwise($1, $2, $3, $4)";
    let parameters: &Params<'_> =
        &[(&current, Type::TEXT), (&after.0, Type::INT8), (&after.1, Type::TEXT), (&most, Type::INT4)];
    let rows = client.query_typed(sql, parameters).await?;
    let stored = |row: &Row| Stored::Sealed { with: row.get("sealed_with"), bytes: row.get("sealed") };
    Ok(rows.iter().map(|row| found(row, stored(row))).collect())
}

/// Replaces a secret by its sealed form; false if it is no longer as it was found.
///
/// # Errors
/// If the database cannot be asked.
pub async fn seal(
    client: &Client,
    found: &FoundSecret,
    sealed: &[u8],
    with: &str,
    form: &str,
) -> Result<bool, DbError> {
    // Its hash says what was found: the secret does not go back.
    let was = match &found.stored {
        Stored::Plain(secret) => Sha256::digest(secret.expose()),
        Stored::Sealed { bytes, .. } => Sha256::digest(bytes),
        Stored::Reference(_) => return Ok(false),
    };
    let parameters: &Params<'_> = &[
        (&found.subscription_id, Type::INT8),
        (&found.key_id, Type::TEXT),
        (&was.as_slice(), Type::BYTEA),
        (&sealed, Type::BYTEA),
        (&with, Type::TEXT),
        (&form, Type::TEXT),
    ];
    let rows = client.query_typed("select outbox_relay.seal($1, $2, $3, $4, $5, $6)", parameters).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// How many secrets stand in which form.
///
/// # Errors
/// If the database cannot be asked.
pub async fn secret_counts(client: &Client) -> Result<Vec<SecretCount>, DbError> {
    let rows = client.query_typed("select form, detail, count from outbox_relay.secret_counts()", &[]).await?;
    let count = |row: &Row| SecretCount { form: row.get("form"), detail: row.get("detail"), count: row.get("count") };
    Ok(rows.iter().map(count).collect())
}

/// The columns of `outbox_relay.load_subscriptions` that are about secrets.
pub(super) fn stored(row: &Row) -> Vec<Stored> {
    let plain = row.get::<_, Vec<Option<String>>>("secrets").into_iter().map(|secret| secret.map(Zeroizing::new));
    let sealed = row.get::<_, Vec<Option<Vec<u8>>>>("sealed").into_iter();
    let with = row.get::<_, Vec<Option<String>>>("sealed_with").into_iter();
    let references = row.get::<_, Vec<Option<String>>>("secret_refs").into_iter();
    let columns = plain.zip(sealed).zip(with).zip(references);
    let stored = columns.map(|(((plain, sealed), with), reference)| match (plain, sealed, with, reference) {
        (Some(mut plain), ..) => Stored::Plain(Secret::new(std::mem::take(&mut *plain))),
        (_, Some(bytes), Some(with), _) => Stored::Sealed { with, bytes },
        (.., reference) => Stored::Reference(reference.unwrap_or_default()),
    });
    stored.collect()
}

fn found(row: &Row, stored: Stored) -> FoundSecret {
    FoundSecret { subscription_id: row.get("subscription_id"), key_id: row.get("key_id"), stored }
}
