//! What a secret may be: the rules of `outbox_relay.check_secret`, for secrets that the database never sees.
//!
//! The tests hold the two against each other, over one table and over generated secrets.

use crate::config::Secret;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};
use ed25519_dalek::SigningKey;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::SealError;

const ED25519: &str = "standard-ed25519";

/// What a secret is not, and what to do. Says nothing of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret {problem}")]
pub struct Refusal {
    problem: String,
    /// How to mend it.
    pub hint: &'static str,
}

impl Refusal {
    /// A secret, and a reference to one.
    pub(crate) fn given_twice() -> Self {
        let hint = "Pass the secret, or a reference to where the relay finds it.";
        Self { problem: "and secret_ref are both given".to_owned(), hint }
    }
}

/// What is known in public of a secret that nobody may read: which profiles it can sign for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `whsec_…`: fits every profile but that of ed25519.
    Whsec,
    /// `whsk_…`: fits that of ed25519 alone.
    Whsk,
    /// Any other text: fits those that sign with a secret's text.
    Text,
}

impl Form {
    /// The form of a secret.
    pub fn of(secret: &str) -> Self {
        if check(ED25519, secret).is_ok() {
            Self::Whsk
        } else if check("standard", secret).is_ok() {
            Self::Whsec
        } else {
            Self::Text
        }
    }

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whsec => "whsec",
            Self::Whsk => "whsk",
            Self::Text => "text",
        }
    }
}

/// The id of a secret: the first 16 hex digits of the SHA-256 of its text, as `outbox_relay.key_id` has it.
pub fn key_id(secret: &str) -> String {
    hex::encode(&Sha256::digest(secret)[..8])
}

/// A new secret of 256 random bits for the profile, in the form in which SQL makes them.
///
/// # Errors
/// If the operating system gives no randomness.
pub fn make(profile: &str) -> Result<Secret, SealError> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(seed.as_mut()).map_err(|_| SealError::NoRandomness)?;
    if profile != ED25519 {
        return Ok(Secret::new(encoded("whsec_", seed.as_ref())));
    }
    // libsodium's form of a private key, which the tools of others read: the seed, then the public key.
    let pair = Zeroizing::new(SigningKey::from_bytes(&seed).to_keypair_bytes());
    Ok(Secret::new(encoded("whsk_", pair.as_ref())))
}

/// In one buffer that does not grow: what is moved to a larger one stays behind unwiped.
fn encoded(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + bytes.len() * 2 + 4);
    text.push_str(prefix);
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// `whpk_…` of a private key that [`check`] accepts; none of any other secret.
pub fn public_key(secret: &str) -> Option<String> {
    let decoded = decode(secret.strip_prefix("whsk_")?)?;
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(decoded.get(..32)?.try_into().ok()?);
    Some(format!("whpk_{}", STANDARD.encode(SigningKey::from_bytes(&seed).verifying_key().as_bytes())))
}

/// Refuses a secret that a profile cannot sign with, or that is something else than a secret.
///
/// # Errors
/// What is wrong with it, and the mend.
pub fn check(profile: &str, secret: &str) -> Result<(), Refusal> {
    match wrong(profile, secret) {
        None => Ok(()),
        Some((problem, hint)) => Err(Refusal { problem, hint }),
    }
}

/// In the order of `outbox_relay.check_secret`, with its words.
fn wrong(profile: &str, secret: &str) -> Option<(String, &'static str)> {
    let is_ed25519 = profile == ED25519;
    let encoded = secret.strip_prefix("whsk_").or_else(|| secret.strip_prefix("whsec_"));
    let decoded = encoded.and_then(decode);
    let length = decoded.as_ref().map(|bytes| bytes.len());
    let printable = !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
    let characters = secret.chars().count();
    let bad = |problem: &str, hint: &'static str| Some((problem.to_owned(), hint));
    if secret.trim_matches([' ', '\t', '\r', '\n', '"', '\'']) != secret {
        return bad("has white space or quotes around it", "Pass the secret alone.");
    }
    if secret.starts_with("v1,") || secret.starts_with("v1a,") {
        return bad(
            "begins with a version and a comma, which some consoles put before it",
            "Pass what stands behind the comma.",
        );
    }
    if secret.starts_with("whpk_") {
        let hint = if is_ed25519 {
            "Pass the private key, whsk_…, or leave secret out and a pair is made."
        } else {
            "Leave secret out and one is made."
        };
        return bad("is a public key: it verifies and cannot sign", hint);
    }
    if is_ed25519 {
        if !secret.starts_with("whsk_") {
            return bad(
                "is not a private key of ed25519",
                "standard-ed25519 signs with whsk_…; leave secret out and a pair is made, or use another signature profile.",
            );
        }
        if !printable {
            return bad(
                "has a character that is not printable ASCII, or white space inside",
                "Copy it whole and in one line, or leave secret out and a pair is made.",
            );
        }
        let Some(bytes) = decoded.as_ref().filter(|bytes| matches!(bytes.len(), 32 | 64)) else {
            return bad(
                "is not whsk_ with the base64 of 32 bytes (a seed) or 64 (a seed and its public key)",
                "Copy it whole, or leave secret out and a pair is made.",
            );
        };
        if <&[u8; 64]>::try_from(bytes.as_slice()).is_ok_and(|pair| SigningKey::from_keypair_bytes(pair).is_err()) {
            return bad(
                "has a public half that does not belong to its private half",
                "Copy it whole, or pass the seed of 32 bytes alone.",
            );
        }
    } else if secret.starts_with("whsk_") {
        return bad(
            "is a private key of ed25519, where a shared secret belongs",
            "Use signature => 'standard-ed25519', or leave secret out and one is made. A private key is not to be given to receivers.",
        );
    } else if !printable || !(16..=512).contains(&characters) {
        return Some((
            format!("has {characters} characters, or one that is not printable ASCII"),
            "Use 16 to 512 printable ASCII characters without spaces, or leave secret out and one is made.",
        ));
    } else if profile == "standard" {
        if !secret.starts_with("whsec_") {
            return bad(
                "does not begin with whsec_",
                "The standard profile signs with the decoded part of whsec_…: put whsec_ before the base64 of 24 to 64 bytes, or leave secret out and one is made.",
            );
        }
        let Some(length) = length else {
            return bad(
                "has something else than base64 behind whsec_",
                "Copy it whole, padding (=) included, or leave secret out and one is made.",
            );
        };
        if !(24..=64).contains(&length) {
            return Some((
                format!("has {length} bytes behind whsec_"),
                "Standard Webhooks takes 24 to 64 bytes; leave secret out and one is made.",
            ));
        }
    }
    if (is_ed25519 || profile == "standard") && encoded.is_some_and(|encoded| STANDARD.decode(encoded).is_err()) {
        return bad(
            "has base64 that strict decoders refuse: padding (=) inside, or a last character with bits that belong to no byte",
            "Copy it whole, or encode its bytes anew, which leaves the receiver's key as it is; or leave secret out and one is made.",
        );
    }
    None
}

/// As PostgreSQL's decode() reads base64: stray last bits and padding inside are read over.
fn decode(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    let lenient = GeneralPurpose::new(&alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));
    if encoded.len() % 4 != 0 {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    for group in encoded.as_bytes().chunks(4) {
        let digits = group.iter().position(|b| *b == b'=').unwrap_or(4);
        if group[digits..].iter().any(|b| *b != b'=') {
            return None;
        }
        lenient.decode_vec(&group[..digits], &mut bytes).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_accepted_and_signs() {
        for (profile, form) in
            [("standard", Form::Whsec), (ED25519, Form::Whsk), ("github", Form::Whsec), ("stripe", Form::Whsec)]
        {
            let secret = make(profile).expect("random");
            assert_eq!(check(profile, secret.expose()), Ok(()));
            assert_eq!(Form::of(secret.expose()), form);
            assert_eq!(public_key(secret.expose()).is_some(), profile == ED25519);
            assert_ne!(make(profile).expect("random"), secret);
        }
        assert_eq!(Form::of("It's a Secret, to Everybody"), Form::Text);
    }

    /// RFC 8032, 7.1, test 2.
    #[test]
    fn a_public_key_is_that_of_the_vector() {
        let secret = "whsk_TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
        assert_eq!(public_key(secret).as_deref(), Some("whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="));
        assert_eq!(public_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), None);
    }

    #[test]
    fn a_key_id_is_the_start_of_the_hash() {
        assert_eq!(key_id("abc"), "ba7816bf8f01cfea");
    }
}
