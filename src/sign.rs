//! Signature profiles: which headers carry a signature, and which bytes it covers. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// How a subscription wants its requests signed; a name in `outbox.subscription.signature`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks): `id.timestamp.body`
    /// under the decoded part of `whsec_…`, one `v1,` signature for each live key.
    Standard,
    /// `X-Signature: <hex>` of the body under the secret's text.
    XSignature,
}

impl Profile {
    /// The profile of that name, if this version speaks it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "standard" => Some(Self::Standard),
            "x-signature" => Some(Self::XSignature),
            _ => None,
        }
    }
}

/// A secret ready to sign with. The bytes are wiped when it is dropped.
pub struct Key {
    /// The first 16 hex digits of the SHA-256 of the secret's text.
    pub key_id: String,
    /// Signs until then; `None` is without end.
    pub expires_at: Option<SystemTime>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Key {
    /// Makes a key from the secret as it was shown to its owner.
    ///
    /// # Errors
    /// If the profile signs with the decoded part of `whsec_…` and the secret is not of that form.
    pub fn new(
        profile: Profile,
        key_id: String,
        secret: &str,
        expires_at: Option<SystemTime>,
    ) -> Result<Self, KeyError> {
        let bytes = match profile {
            Profile::Standard => {
                let encoded = secret.strip_prefix("whsec_").ok_or(KeyError)?;
                BASE64.decode(encoded).map_err(|_| KeyError)?
            }
            Profile::XSignature => secret.as_bytes().to_vec(),
        };
        Ok(Self { key_id, expires_at, bytes: Zeroizing::new(bytes) })
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.bytes)
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The secret does not fit the profile. Says nothing of the secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "the secret is not whsec_ with base64 behind it, as the standard profile needs; rotate it with outbox.rotate_secret"
)]
pub struct KeyError;

/// Adds the profile's headers for one attempt to `headers`.
///
/// `keys` are the live ones, oldest first. A profile with a header for one signature only uses the
/// newest. `timestamp` is in seconds since 1970 and is of this attempt, the body of every attempt.
pub fn sign(profile: Profile, keys: &[&Key], event_id: &str, timestamp: u64, body: &[u8], headers: &mut HeaderMap) {
    let timestamp = timestamp.to_string();
    match profile {
        Profile::Standard => {
            let mut signatures = String::with_capacity(keys.len() * 48);
            for key in keys {
                let mac = key.mac(&[event_id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
                if !signatures.is_empty() {
                    signatures.push(' ');
                }
                signatures.push_str("v1,");
                BASE64.encode_string(mac, &mut signatures);
            }
            headers.insert(HeaderName::from_static("webhook-id"), value(event_id));
            headers.insert(HeaderName::from_static("webhook-timestamp"), value(&timestamp));
            headers.insert(HeaderName::from_static("webhook-signature"), value(&signatures));
        }
        Profile::XSignature => {
            headers.insert(HeaderName::from_static("x-webhook-id"), value(event_id));
            headers.insert(HeaderName::from_static("x-timestamp"), value(&timestamp));
            // One header for each live key, the newest first: a receiver that reads one reads the newest.
            for key in keys.iter().rev() {
                headers.append(HeaderName::from_static("x-signature"), value(&hex::encode(key.mac(&[body]))));
                headers.append(HeaderName::from_static("x-signature-key-id"), value(&key.key_id));
            }
        }
    }
}

/// Whether a header carries a signature and so has no place in the attempt log.
pub fn is_signature(name: &HeaderName) -> bool {
    matches!(name.as_str(), "webhook-signature" | "x-signature")
}

/// Ids, digits, hex and base64 are always valid header values.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_webhooks_specification_verifies() {
        // https://github.com/standard-webhooks/standard-webhooks, libraries' common test vector.
        let key = Key::new(Profile::Standard, "k".into(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None)
            .expect("a good secret");
        let mut headers = HeaderMap::new();
        sign(
            Profile::Standard,
            &[&key],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
            &mut headers,
        );
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn two_live_keys_sign_side_by_side() {
        let old = Key::new(Profile::Standard, "old".into(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None)
            .expect("a good secret");
        let new = Key::new(Profile::Standard, "new".into(), "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", None)
            .expect("a good secret");
        let mut headers = HeaderMap::new();
        sign(Profile::Standard, &[&old, &new], "id", 1, b"{}", &mut headers);
        let value = headers["webhook-signature"].to_str().expect("ASCII");
        assert_eq!(value.split(' ').filter(|s| s.starts_with("v1,")).count(), 2);
    }

    #[test]
    fn x_signature_covers_the_body_under_the_text_of_the_secret() {
        // RFC 4231, test case 2.
        let key = Key::new(Profile::XSignature, "0123456789abcdef".into(), "Jefe", None).expect("any text");
        let mut headers = HeaderMap::new();
        sign(Profile::XSignature, &[&key], "id", 1, b"what do ya want for nothing?", &mut headers);
        assert_eq!(headers["x-signature"], "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(headers["x-signature-key-id"], "0123456789abcdef");
    }

    #[test]
    fn a_secret_of_another_form_is_refused_without_being_repeated() {
        let error = Key::new(Profile::Standard, "k".into(), "hunter2hunter2", None).expect_err("no whsec_");
        assert!(!error.to_string().contains("hunter2"));
    }
}
