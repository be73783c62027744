//! Every profile, recomputed with ring from what a receiver sees.

use super::*;
use proptest::prelude::*;
use ring::signature::KeyPair as _;

const PROFILES: [Profile; 6] = [
    Profile::Standard,
    Profile::StandardEd25519,
    Profile::XSignature,
    Profile::XWebhook,
    Profile::Github,
    Profile::Stripe,
];

/// How ring signs with a secret.
type Signs = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A secret as its owner has it, and what signs with it.
fn secret(profile: Profile, bytes: &[u8; 32], text: &str) -> (String, Signs) {
    let hmac = |key: &[u8]| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
        Box::new(move |message: &[u8]| ring::hmac::sign(&key, message).as_ref().to_vec()) as Signs
    };
    match profile {
        Profile::Standard => (format!("whsec_{}", BASE64.encode(bytes)), hmac(bytes)),
        Profile::StandardEd25519 => {
            let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(bytes).expect("a seed");
            // Both forms of a private key sign alike.
            let whole =
                if bytes[0].is_multiple_of(2) { bytes.to_vec() } else { [bytes, pair.public_key().as_ref()].concat() };
            let sign = Box::new(move |message: &[u8]| pair.sign(message).as_ref().to_vec());
            (format!("whsk_{}", BASE64.encode(whole)), sign)
        }
        _ => (text.to_owned(), hmac(text.as_bytes())),
    }
}

proptest! {
    #[test]
    fn every_live_key_has_signed_what_the_receiver_gets(
        profile in proptest::sample::select(&PROFILES[..]),
        keys in proptest::collection::vec((any::<[u8; 32]>(), "[!-~]{16,64}"), 1..6),
        attempts_before in any::<i32>(),
        timestamp in any::<u64>(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        event_id in "[0-9a-f-]{36}",
        named in proptest::option::of("X-[A-Z][a-z]{1,8}-Sign"),
    ) {
        let secrets: Vec<_> = keys.iter().map(|(bytes, text)| secret(profile, bytes, text)).collect();
        let live: Vec<Key> = secrets.iter().enumerate()
            .map(|(n, (text, _))| Key::new(profile, format!("key {n}"), text, None).expect("it fits")).collect();
        let scheme = Scheme::new(profile, named.as_deref()).expect("a name");
        let in_turn = scheme.in_turn(live.iter().collect(), attempts_before);
        let mut headers = HeaderMap::new();
        let message = Message { event_id: &event_id, kind: "order.created", timestamp, body: &body };
        scheme.sign(&in_turn, &message, &mut headers);

        let seconds = timestamp.to_string();
        let signed: Vec<u8> = match profile {
            Profile::Standard | Profile::StandardEd25519 => [event_id.as_bytes(), b".", seconds.as_bytes(), b".", &body].concat(),
            Profile::Stripe => [seconds.as_bytes(), b".", &body].concat(),
            _ => body.clone(),
        };
        let macs: Vec<Vec<u8>> = secrets.iter().map(|(_, sign)| sign(&signed)).collect();
        let text = |mac: &Vec<u8>| {
            let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            match profile {
                Profile::Standard => format!("v1,{}", BASE64.encode(mac)),
                Profile::StandardEd25519 => format!("v1a,{}", BASE64.encode(mac)),
                Profile::XSignature => hex,
                Profile::XWebhook | Profile::Github => format!("sha256={hex}"),
                Profile::Stripe => format!("v1={hex}"),
            }
        };
        let usual = match profile {
            Profile::Standard | Profile::StandardEd25519 => "webhook-signature",
            Profile::XSignature => "x-signature",
            Profile::XWebhook => "x-webhook-signature",
            Profile::Github => "x-hub-signature-256",
            Profile::Stripe => "stripe-signature",
        };
        let header = named.as_deref().unwrap_or(usual).to_lowercase();
        let value = |name: &str| headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
        let all: Vec<String> = macs.iter().map(text).collect();
        match profile {
            Profile::Standard | Profile::StandardEd25519 => prop_assert_eq!(value(&header), Some(all.join(" "))),
            Profile::Stripe => prop_assert_eq!(value(&header), Some(format!("t={seconds},{}", all.join(",")))),
            _ => {
                // One key leads, another at each attempt; the rest follow in a header of their own.
                let first = attempts_before.unsigned_abs() as usize % all.len();
                prop_assert_eq!(value(&header), Some(all[first].clone()));
                let rest: Vec<String> = (1..all.len()).map(|n| all[(first + n) % all.len()].clone()).collect();
                prop_assert_eq!(value(&format!("{header}-also")), (!rest.is_empty()).then(|| rest.join(",")));
            }
        }
        for (name, value) in &headers {
            let value = value.to_str().expect("ASCII");
            prop_assert!(secrets.iter().all(|(secret, _)| !value.contains(secret.as_str())), "{name}");
            prop_assert_eq!(scheme.is_signature(name), name.as_str() == header || name.as_str() == format!("{header}-also"));
        }
    }

    #[test]
    fn any_text_is_a_secret_or_an_error_that_does_not_repeat_it(
        profile in proptest::sample::select(&PROFILES[..]),
        text in prop_oneof!["\\PC{0,40}", "whs(ec|k)_[A-Za-z0-9+/=]{0,96}"],
    ) {
        let told = match Key::new(profile, "id".into(), &text, None) {
            Ok(key) => format!("{key:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(text.len() < 8 || !told.contains(&text), "{}", told);
    }
}
