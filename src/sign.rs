//! Signature profiles: which headers carry a signature, and which bytes it covers. Pure.
//! The table of them, with examples: `docs/signatures.md`.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// How a subscription wants its requests signed; a name in `outbox.subscription.signature`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks): `id.timestamp.body`
    /// under the decoded part of `whsec_…`, a `v1,` signature for each live key.
    #[default]
    Standard,
    /// The same with ed25519, `v1a,`, under the private key `whsk_…`.
    StandardEd25519,
    /// `X-Signature: <hex>` of the body under the secret's text, as all that follow.
    XSignature,
    /// `X-Webhook-Signature: sha256=<hex>` of the body.
    XWebhook,
    /// [GitHub's](https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries)
    /// `X-Hub-Signature-256: sha256=<hex>` of the body.
    Github,
    /// [Stripe's](https://docs.stripe.com/webhooks#verify-manually) `Stripe-Signature: t=…,v1=<hex>` of
    /// `timestamp.body`.
    Stripe,
}

impl Profile {
    /// The profile of that name, if this version speaks it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "standard" => Self::Standard,
            "standard-ed25519" => Self::StandardEd25519,
            "x-signature" => Self::XSignature,
            "x-webhook" => Self::XWebhook,
            "github" => Self::Github,
            "stripe" => Self::Stripe,
            _ => return None,
        })
    }

    fn signature_header(self) -> &'static str {
        match self {
            Self::Standard | Self::StandardEd25519 => "webhook-signature",
            Self::XSignature => "x-signature",
            Self::XWebhook => "x-webhook-signature",
            Self::Github => "x-hub-signature-256",
            Self::Stripe => "stripe-signature",
        }
    }

    /// Whether receivers expect one signature in the header, rather than a list.
    fn has_room_for_one(self) -> bool {
        matches!(self, Self::XSignature | Self::XWebhook | Self::Github)
    }
}

/// A profile with the names of the headers that carry its signatures.
#[derive(Clone, Debug)]
pub struct Scheme {
    profile: Profile,
    header: HeaderName,
    /// For the signatures that the header has no room for.
    also: HeaderName,
}

impl Scheme {
    /// The profile, its signature in the header `signature_header` if one is named.
    ///
    /// # Errors
    /// If that is not a header name.
    pub fn new(profile: Profile, signature_header: Option<&str>) -> Result<Self, String> {
        let name = signature_header.unwrap_or(profile.signature_header());
        let parse =
            |name: &str| HeaderName::try_from(name).map_err(|_| format!("signature_header {name:?} is not valid"));
        Ok(Self { profile, header: parse(name)?, also: parse(&format!("{name}-also"))? })
    }

    /// The live keys in the order in which they sign this attempt.
    ///
    /// Where a header has room for one signature, the live keys take turns from attempt to attempt, the oldest
    /// first. So nothing changes for a receiver at the moment of a rotation, and one that has changed over
    /// gets the event with the next attempt. Two header lines would be read as one value with a comma, which
    /// no verifier accepts, for the whole of the overlap.
    pub fn in_turn<'a>(&self, mut keys: Vec<&'a Key>, attempts_before: i32) -> Vec<&'a Key> {
        if self.profile.has_room_for_one() && !keys.is_empty() {
            let turn = attempts_before.unsigned_abs() as usize % keys.len();
            keys.rotate_left(turn);
        }
        keys
    }

    /// Adds the profile's headers for one attempt to `headers`.
    ///
    /// `keys` are those of [`Scheme::in_turn`]. `timestamp` is in seconds since 1970 and is of this attempt; the
    /// body is that of every attempt.
    pub fn sign(&self, keys: &[&Key], message: &Message<'_>, headers: &mut HeaderMap) {
        let Message { event_id, kind, timestamp, body } = message;
        let timestamp = timestamp.to_string();
        let mut set = |name: &'static str, text: &str| headers.insert(HeaderName::from_static(name), value(text));
        let (signatures, separator) = match self.profile {
            Profile::Standard | Profile::StandardEd25519 => {
                set("webhook-id", event_id);
                set("webhook-timestamp", &timestamp);
                let parts = [event_id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
                (all(keys, |key| key.standard(&parts)), " ")
            }
            Profile::XSignature => {
                set("x-webhook-id", event_id);
                set("x-timestamp", &timestamp);
                set("x-signature-key-id", keys.first().map_or("", |key| &key.key_id));
                (all(keys, |key| key.hex(&[body])), ",")
            }
            Profile::XWebhook => {
                set("x-webhook-id", event_id);
                set("x-webhook-timestamp", &timestamp);
                (all(keys, |key| format!("sha256={}", key.hex(&[body]))), ",")
            }
            Profile::Github => {
                set("x-github-event", kind);
                set("x-github-delivery", event_id);
                (all(keys, |key| format!("sha256={}", key.hex(&[body]))), ",")
            }
            Profile::Stripe => {
                let parts = [timestamp.as_bytes(), b".", body];
                let mut list = vec![format!("t={timestamp}")];
                list.extend(all(keys, |key| format!("v1={}", key.hex(&parts))));
                (list, ",")
            }
        };
        if self.profile.has_room_for_one() && signatures.len() > 1 {
            headers.insert(self.header.clone(), value(&signatures[0]));
            headers.insert(self.also.clone(), value(&signatures[1..].join(separator)));
        } else {
            headers.insert(self.header.clone(), value(&signatures.join(separator)));
        }
    }

    /// Whether a header carries a signature and so has no place in the attempt log.
    pub fn is_signature(&self, name: &HeaderName) -> bool {
        *name == self.header || *name == self.also
    }
}

/// What is signed.
pub struct Message<'a> {
    /// The event's public id.
    pub event_id: &'a str,
    /// The event's type.
    pub kind: &'a str,
    /// Seconds since 1970, of this attempt.
    pub timestamp: u64,
    /// As it is sent.
    pub body: &'a [u8],
}

/// A secret ready to sign with. Its bytes are wiped when it is dropped.
pub struct Key {
    /// The first 16 hex digits of the SHA-256 of the secret's text.
    pub key_id: String,
    /// Signs until then; `None` is without end.
    pub expires_at: Option<SystemTime>,
    material: Material,
}

enum Material {
    Hmac(Zeroizing<Vec<u8>>),
    Ed25519(Box<SigningKey>),
}

impl Key {
    /// Makes a key from the secret as it was shown to its owner.
    ///
    /// # Errors
    /// If the secret is not of the form that the profile signs with.
    pub fn new(
        profile: Profile,
        key_id: String,
        secret: &str,
        expires_at: Option<SystemTime>,
    ) -> Result<Self, KeyError> {
        let decoded = |prefix: &str| -> Result<Zeroizing<Vec<u8>>, KeyError> {
            let encoded = secret.strip_prefix(prefix).ok_or(KeyError)?;
            BASE64.decode(encoded).map(Zeroizing::new).map_err(|_| KeyError)
        };
        let material = match profile {
            Profile::Standard => Material::Hmac(decoded("whsec_")?),
            Profile::StandardEd25519 => Material::Ed25519(Box::new(ed25519(&decoded("whsk_")?)?)),
            Profile::XSignature | Profile::XWebhook | Profile::Github | Profile::Stripe => {
                Material::Hmac(Zeroizing::new(secret.as_bytes().to_vec()))
            }
        };
        Ok(Self { key_id, expires_at, material })
    }

    /// As a Standard Webhooks signature, with its version.
    fn standard(&self, parts: &[&[u8]]) -> String {
        match &self.material {
            Material::Hmac(bytes) => format!("v1,{}", BASE64.encode(mac(bytes, parts))),
            Material::Ed25519(key) => format!("v1a,{}", BASE64.encode(key.sign(&parts.concat()).to_bytes())),
        }
    }

    fn hex(&self, parts: &[&[u8]]) -> String {
        match &self.material {
            Material::Hmac(bytes) => hex::encode(mac(bytes, parts)),
            Material::Ed25519(key) => hex::encode(key.sign(&parts.concat()).to_bytes()),
        }
    }
}

/// The seed alone, or libsodium's form: the seed and the public key that belongs to it.
fn ed25519(bytes: &[u8]) -> Result<SigningKey, KeyError> {
    if let Ok(seed) = <&[u8; 32]>::try_from(bytes) {
        return Ok(SigningKey::from_bytes(seed));
    }
    let pair = <&[u8; 64]>::try_from(bytes).map_err(|_| KeyError)?;
    SigningKey::from_keypair_bytes(pair).map_err(|_| KeyError)
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn all(keys: &[&Key], signature: impl Fn(&Key) -> String) -> Vec<String> {
    keys.iter().map(|key| signature(key)).collect()
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The secret does not fit the profile. Says nothing of the secret.
#[derive(Debug, thiserror::Error)]
#[error("the secret is not of the form that the signature profile needs; rotate it with outbox.rotate_secret")]
pub struct KeyError;

/// Ids, types, digits, hex and base64 are always valid header values.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";

    fn signed(profile: Profile, secrets: &[&str], attempts_before: i32, message: &Message<'_>) -> HeaderMap {
        let keys: Vec<Key> = secrets
            .iter()
            .map(|secret| Key::new(profile, format!("id of {secret}"), secret, None).expect("it fits"))
            .collect();
        let scheme = Scheme::new(profile, None).expect("a name");
        let mut headers = HeaderMap::new();
        scheme.sign(&scheme.in_turn(keys.iter().collect(), attempts_before), message, &mut headers);
        headers
    }

    fn message<'a>(event_id: &'a str, timestamp: u64, body: &'a str) -> Message<'a> {
        Message { event_id, kind: "order.created", timestamp, body: body.as_bytes() }
    }

    /// The example of the Standard Webhooks libraries' own tests.
    #[test]
    fn standard_signs_as_the_published_vector() {
        let message = message("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        let headers = signed(Profile::Standard, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], 0, &message);
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn every_live_key_of_standard_signs() {
        let secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
        let headers = signed(Profile::Standard, &secrets, 1, &message("id", 1, "{}"));
        let value = headers["webhook-signature"].to_str().expect("ASCII");
        assert_eq!(value.split(' ').filter(|s| s.starts_with("v1,")).count(), 2);
    }

    /// RFC 8032, 7.1, test 2: the key pair in both forms; verified by ring.
    #[test]
    fn ed25519_signs_so_that_the_public_key_verifies() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").expect("hex");
        let public = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c").expect("hex");
        for bytes in [seed.clone(), [seed.clone(), public.clone()].concat()] {
            let secret = format!("whsk_{}", BASE64.encode(bytes));
            let headers = signed(Profile::StandardEd25519, &[&secret], 0, &message("id", 7, "{}"));
            let value = headers["webhook-signature"].to_str().expect("ASCII");
            let signature = BASE64.decode(value.strip_prefix("v1a,").expect("its version")).expect("base64");
            let verifier = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public);
            verifier.verify(b"id.7.{}", &signature).expect("a good signature");
        }
        let mut foreign = [seed.clone(), public].concat();
        foreign[40] ^= 1;
        for bad in [foreign, seed[1..].to_vec()] {
            let secret = format!("whsk_{}", BASE64.encode(bad));
            assert!(Key::new(Profile::StandardEd25519, String::new(), &secret, None).is_err());
        }
    }

    /// The example of GitHub's documentation.
    #[test]
    fn github_signs_as_the_published_vector() {
        let headers = signed(Profile::Github, &[SECRET], 0, &message("id", 1, "Hello, World!"));
        assert_eq!(
            headers["x-hub-signature-256"],
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
        assert_eq!(
            (&headers["x-github-event"], &headers["x-github-delivery"]),
            (&value("order.created"), &value("id"))
        );
    }

    /// RFC 4231, test case 2.
    #[test]
    fn x_signature_covers_the_body_under_the_text_of_the_secret() {
        let headers = signed(Profile::XSignature, &["Jefe"], 0, &message("id", 1, "what do ya want for nothing?"));
        assert_eq!(headers["x-signature"], "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(headers["x-signature-key-id"], "id of Jefe");
        let headers = signed(Profile::XWebhook, &["Jefe"], 0, &message("id", 5, "what do ya want for nothing?"));
        assert_eq!(
            headers["x-webhook-signature"],
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!((&headers["x-webhook-id"], &headers["x-webhook-timestamp"]), (&value("id"), &value("5")));
    }

    #[test]
    fn stripe_covers_the_timestamp_and_lists_all_signatures() {
        let headers = signed(Profile::Stripe, &["whsec_old", "whsec_new"], 0, &message("id", 1_492_774_577, "{}"));
        let expected = |secret: &str| {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
            hex::encode(ring::hmac::sign(&key, b"1492774577.{}"))
        };
        let value = format!("t=1492774577,v1={},v1={}", expected("whsec_old"), expected("whsec_new"));
        assert_eq!(headers["stripe-signature"], value.as_str());
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn where_there_is_room_for_one_signature_live_keys_take_turns() {
        for profile in [Profile::XSignature, Profile::XWebhook, Profile::Github] {
            let header = profile.signature_header();
            let alone = |secret| signed(profile, &[secret], 0, &message("id", 1, "{}"))[header].clone();
            for (attempts_before, first, other) in [(0, "old", "new"), (1, "new", "old"), (2, "old", "new")] {
                let headers = signed(profile, &["old", "new"], attempts_before, &message("id", 1, "{}"));
                assert_eq!(headers.get_all(header).iter().count(), 1);
                assert_eq!(headers[header], alone(first));
                assert_eq!(headers[&format!("{header}-also")], alone(other));
                if profile == Profile::XSignature {
                    assert_eq!(headers["x-signature-key-id"], format!("id of {first}").as_str());
                }
            }
        }
    }

    #[test]
    fn a_header_of_another_name_takes_the_signature_and_is_known_as_one() {
        let scheme = Scheme::new(Profile::Github, Some("X-StormCom-Signature")).expect("a name");
        let key = Key::new(Profile::Github, "k".into(), SECRET, None).expect("any text");
        let mut headers = HeaderMap::new();
        scheme.sign(&[&key], &message("id", 1, "Hello, World!"), &mut headers);
        assert!(headers["x-stormcom-signature"].to_str().expect("ASCII").starts_with("sha256=757107ea"));
        assert!(!headers.contains_key("x-hub-signature-256"));
        for (name, is) in
            [("x-stormcom-signature", true), ("x-stormcom-signature-also", true), ("x-github-event", false)]
        {
            assert_eq!(scheme.is_signature(&HeaderName::from_static(name)), is, "{name}");
        }
        assert!(Scheme::new(Profile::Github, Some("no header")).is_err());
    }

    #[test]
    fn a_secret_of_another_form_is_refused_without_being_repeated() {
        for profile in [Profile::Standard, Profile::StandardEd25519] {
            let error = Key::new(profile, "k".into(), "hunter2hunter2", None).expect_err("no prefix");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
