//! Sealing: XChaCha20-Poly1305 under a key of 32 bytes, bound to the row it stands in. Pure but for the nonce.
//!
//! A sealed secret is `1 | nonce (24) | ciphertext | tag (16)`. Beside it stands the id of the key that opens it.
//! The associated data hold the format, the subscription, the id of the secret and that of the key: a sealed value
//! that somebody copies to another row does not open there.

use crate::config::Secret;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

const FORMAT: u8 = 1;
const NONCE: usize = 24;
const KEY: usize = 32;
/// Of the hash that is a key's id: nothing else that is hashed anywhere begins so.
const ID_DOMAIN: &[u8] = b"outboxd sealing key id\0";
const DATA_DOMAIN: &[u8] = b"outboxd signing secret\0";

/// A key that seals and opens. Its bytes are wiped when it is dropped; it shows its id alone.
#[derive(Clone)]
pub struct SealingKey {
    id: String,
    bytes: Zeroizing<[u8; KEY]>,
}

impl SealingKey {
    /// From 64 hex digits, or the base64 of 32 bytes.
    ///
    /// # Errors
    /// What was expected; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected 32 bytes as 64 hex digits or base64 (outboxd seal --generate-key makes one)";
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let base64 = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
        let text = text.trim();
        let decoded = if text.len() == 2 * KEY { hex::decode(text).ok() } else { base64.decode(text).ok() };
        let decoded = Zeroizing::new(decoded.ok_or(EXPECTED)?);
        let bytes: [u8; KEY] = decoded.as_slice().try_into().map_err(|_| EXPECTED.to_owned())?;
        let key = Self::new(bytes);
        if key.bytes.iter().all(|byte| *byte == key.bytes[0]) {
            return Err(format!("is no key: all its bytes are the same; {EXPECTED}"));
        }
        Ok(key)
    }

    /// A new key, from the operating system's randomness.
    ///
    /// # Errors
    /// If the operating system gives none.
    pub fn generate() -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY]);
        random(bytes.as_mut())?;
        Ok(Self::new(*bytes))
    }

    fn new(mut bytes: [u8; KEY]) -> Self {
        let digest = Sha256::new().chain_update(ID_DOMAIN).chain_update(bytes).finalize();
        let key = Self { id: hex::encode(&digest[..8]), bytes: Zeroizing::new(bytes) };
        bytes.zeroize();
        key
    }

    /// What sealed values name it by: the first 16 hex digits of a hash of it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself in base64, to be shown to whoever made it.
    pub fn encode(&self) -> Secret {
        Secret::new(STANDARD.encode(self.bytes.as_ref()))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

/// The key that seals, and those that only open.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    current: Option<SealingKey>,
    old: Vec<SealingKey>,
}

/// A sealed secret does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No key is configured that would.
    #[error("this relay has not the sealing key {0}; set it in secrets.key or secrets.old_keys")]
    UnknownKey(String),
    /// It was changed, or made for another row.
    #[error("it does not open with the sealing key {0}: it was changed, or belongs to another subscription")]
    Forged(String),
    /// By a version of outboxd that this one does not know.
    #[error("it has a format that this outboxd does not know")]
    UnknownFormat,
}

/// Nothing can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key.
    #[error("there is no sealing key; set secrets.key_file")]
    NoKey,
    /// The operating system gave no random bytes, or the secret is larger than any can be.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl Keyring {
    /// Seals with `current`; opens with all.
    pub fn new(current: Option<SealingKey>, old: Vec<SealingKey>) -> Self {
        Self { current, old }
    }

    /// The key that seals.
    pub fn current(&self) -> Option<&SealingKey> {
        self.current.as_ref()
    }

    /// Whether a key of that id is there.
    pub fn has(&self, id: &str) -> bool {
        self.key(id).is_some()
    }

    /// Seals a secret for its row; returns the sealed bytes and the id of the key.
    ///
    /// # Errors
    /// Without a key, or without randomness.
    pub fn seal(&self, subscription_id: i64, key_id: &str, secret: &Secret) -> Result<(Vec<u8>, &str), SealError> {
        let key = self.current.as_ref().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let data = associated_data(subscription_id, key_id, &key.id);
        let payload = Payload { msg: secret.expose().as_bytes(), aad: &data };
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::NoRandomness)?;
        let mut bytes = Vec::with_capacity(1 + NONCE + sealed.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok((bytes, &key.id))
    }

    /// Opens what was sealed for this row with the key `with`.
    ///
    /// # Errors
    /// If that key is not here, or the bytes are not what it sealed for this row.
    pub fn open(&self, subscription_id: i64, key_id: &str, with: &str, sealed: &[u8]) -> Result<Secret, OpenError> {
        let key = self.key(with).ok_or_else(|| OpenError::UnknownKey(with.to_owned()))?;
        let forged = || OpenError::Forged(with.to_owned());
        let (format, rest) = sealed.split_first().ok_or_else(forged)?;
        if *format != FORMAT {
            return Err(OpenError::UnknownFormat);
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or_else(forged)?;
        let data = associated_data(subscription_id, key_id, with);
        let payload = Payload { msg: ciphertext, aad: &data };
        let text = key.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| forged())?;
        match String::from_utf8(text) {
            Ok(text) => Ok(Secret::new(text)),
            Err(error) => {
                error.into_bytes().zeroize();
                Err(forged())
            }
        }
    }

    fn key(&self, id: &str) -> Option<&SealingKey> {
        self.current.iter().chain(&self.old).find(|key| key.id == id)
    }
}

fn associated_data(subscription_id: i64, key_id: &str, with: &str) -> Vec<u8> {
    // Of the two ids the last has a fixed length, so that no two rows share their data.
    [DATA_DOMAIN, &[FORMAT], &subscription_id.to_be_bytes(), with.as_bytes(), b"\0", key_id.as_bytes()].concat()
}

fn random(bytes: &mut [u8]) -> Result<(), SealError> {
    SystemRandom::new().fill(bytes).map_err(|_| SealError::NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> SealingKey {
        let mut bytes = [byte; KEY];
        bytes[0] = !byte;
        SealingKey::parse(&hex::encode(bytes)).expect("a key")
    }

    #[test]
    fn what_is_sealed_opens_in_its_row_alone() {
        let keyring = Keyring::new(Some(key(1)), vec![key(2)]);
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let (sealed, with) = keyring.seal(7, "0123456789abcdef", &secret).expect("sealed");
        assert_eq!(with, key(1).id());
        assert_eq!(keyring.open(7, "0123456789abcdef", with, &sealed), Ok(secret.clone()));
        let forged = Err(OpenError::Forged(with.to_owned()));
        assert_eq!(keyring.open(8, "0123456789abcdef", with, &sealed), forged);
        assert_eq!(keyring.open(7, "0123456789abcdee", with, &sealed), forged);
        let renamed = keyring.open(7, "0123456789abcdef", key(2).id(), &sealed);
        assert_eq!(renamed, Err(OpenError::Forged(key(2).id().to_owned())));
        // Once more it is other bytes.
        assert_ne!(keyring.seal(7, "0123456789abcdef", &secret).expect("sealed").0, sealed);
    }

    #[test]
    fn an_old_key_opens_and_does_not_seal() {
        let secret = Secret::new("a-secret-of-length".into());
        let before = Keyring::new(Some(key(1)), vec![]);
        let (sealed, with) = before.seal(1, "k", &secret).expect("sealed");
        let after = Keyring::new(Some(key(2)), vec![key(1)]);
        assert_eq!(after.open(1, "k", with, &sealed), Ok(secret.clone()));
        assert_eq!(after.seal(1, "k", &secret).expect("sealed").1, key(2).id());
        let gone = Keyring::new(Some(key(2)), vec![]);
        assert_eq!(gone.open(1, "k", with, &sealed), Err(OpenError::UnknownKey(with.to_owned())));
        assert_eq!(Keyring::default().seal(1, "k", &secret), Err(SealError::NoKey));
    }

    #[test]
    fn a_key_is_hex_or_base64_and_is_never_repeated() {
        let bytes: Vec<u8> = (0..32).collect();
        let of_hex = SealingKey::parse(&hex::encode(&bytes)).expect("hex");
        for text in [STANDARD.encode(&bytes), STANDARD.encode(&bytes).replace('=', ""), hex::encode_upper(&bytes)] {
            assert_eq!(SealingKey::parse(&text).expect("the same key").id(), of_hex.id());
        }
        assert_eq!(of_hex.id().len(), 16);
        assert!(!hex::encode(Sha256::digest(&bytes)).starts_with(of_hex.id()), "not the hash of the key alone");
        let zeros = "00".repeat(32);
        for bad in ["", "hunter2", &hex::encode(&bytes)[..62], &STANDARD.encode(&bytes[..31]), &zeros] {
            let error = SealingKey::parse(bad).expect_err("no key");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
        let made = SealingKey::generate().expect("random");
        assert_eq!(SealingKey::parse(made.encode().expose()).expect("as shown").id(), made.id());
        assert_ne!(SealingKey::generate().expect("random").id(), made.id());
    }

    #[test]
    fn debug_shows_the_id_alone() {
        let made = SealingKey::generate().expect("random");
        let shown = format!("{:?}", Keyring::new(Some(made.clone()), vec![]));
        assert!(shown.contains(made.id()) && !shown.contains(made.encode().expose()), "{shown}");
        assert!(!shown.contains(&hex::encode(made.bytes.as_ref())));
    }

    proptest! {
        #[test]
        fn any_change_of_a_sealed_value_is_noticed(text in "[ -~]{1,80}", at in 0_usize..1000, bit in 0_u8..8) {
            let keyring = Keyring::new(Some(key(3)), vec![]);
            let (mut sealed, with) = keyring.seal(1, "k", &Secret::new(text)).expect("sealed");
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert!(keyring.open(1, "k", with, &sealed).is_err());
            sealed.truncate(at);
            prop_assert!(keyring.open(1, "k", with, &sealed).is_err());
        }
    }
}
