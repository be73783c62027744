//! Secrets of subscriptions: their rules, sealed at rest, or kept out of the database.
//!
//! A secret stands in the database in one of three forms, see [`Stored`]: plain, as SQL made it; sealed, under a
//! key that the database never sees ([`seal`]); or as a reference to a variable or a file of the relay's host
//! ([`reference`]). [`rules`] says what a secret may be; `outbox_relay.check_secret` says the same.

mod reference;
mod rules;
mod seal;
mod sealing;

pub(crate) use reference::is_reserved_prefix;
pub use reference::{DEFAULT_PREFIX, ReferenceError, References};
pub use rules::{Form, Refusal, check, key_id, make, public_key};
pub use seal::{Keyring, OpenError, SealError, SealingKey};
pub use sealing::{Rekeyed, SealingError, rekey, seal_found};

use crate::config::Secret;

/// A secret as the database has it.
#[derive(Clone)]
pub enum Stored {
    /// Made in SQL, and not sealed yet.
    Plain(Secret),
    /// Sealed under the key of that id.
    Sealed {
        /// Which key opens it.
        with: String,
        /// What [`Keyring::seal`] returned.
        bytes: Vec<u8>,
    },
    /// `env:NAME` or `file:NAME`.
    Reference(String),
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Sealed { .. } => "Sealed",
            Self::Reference(_) => "Reference",
        })
    }
}

/// Why a secret cannot be had; says nothing of the secret.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is sealed, and does not open.
    #[error("the secret is sealed: {0}")]
    Sealed(#[from] OpenError),
    /// It is not where the reference says.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// What is needed to have the secrets of subscriptions.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Opens and seals.
    pub keyring: Keyring,
    /// Reads what is not in the database.
    pub references: References,
}

impl Secrets {
    /// The text behind a reference: `env:NAME` or `file:NAME`, as [`References::read`] reads it. Blocks for a file.
    ///
    /// # Errors
    /// If there is nothing of that name that may be read.
    pub fn read(&self, reference: &str) -> Result<Secret, ReferenceError> {
        self.references.read(reference)
    }

    /// The secret that is stored under this id. Blocks if it is in a file.
    ///
    /// # Errors
    /// If it is sealed under a key that is not configured, was changed, or is not where the reference says.
    pub fn open(&self, subscription_id: i64, key_id: &str, stored: &Stored) -> Result<Secret, Unusable> {
        match stored {
            Stored::Plain(secret) => Ok(secret.clone()),
            Stored::Sealed { with, bytes } => Ok(self.keyring.open(subscription_id, key_id, with, bytes)?),
            Stored::Reference(reference) => Ok(self.read(reference)?),
        }
    }
}
