//! Keys and signatures: what is accepted, what is made, and who signs during a rotation.

use crate::support::{Daemon, Db, Sink};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::StatusCode;
use outboxd::receiver::{Verdict, verify};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::time::SystemTime;

/// RFC 8032, 7.1, test 2.
const SEED: &str = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
const PUBLIC: &str = "whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

/// The seed with its public key, a bit of which is changed.
fn pair(change: u8) -> String {
    let mut bytes = BASE64.decode(SEED).expect("base64");
    bytes.extend(BASE64.decode(&PUBLIC[5..]).expect("base64"));
    bytes[40] ^= change;
    format!("whsk_{}", BASE64.encode(bytes))
}

/// Profiles with secrets that are none, what is wrong and the mend: for the rules in SQL and those of the daemon.
pub(crate) fn refused_secrets() -> Vec<(&'static str, String, &'static str, &'static str)> {
    let whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    vec![
        // A private key where a secret belongs.
        ("standard", format!("whsk_{SEED}"), "private key of ed25519", "standard-ed25519"),
        ("github", format!("whsk_{SEED}"), "private key of ed25519", "standard-ed25519"),
        ("standard", PUBLIC.to_owned(), "public key", "Leave secret out"),
        ("standard-ed25519", PUBLIC.to_owned(), "public key", "whsk_"),
        // Pasted with what stood around it.
        ("standard", format!("v1,{whsec}"), "begins with a version", "behind the comma"),
        ("stripe", format!("v1,{whsec}"), "begins with a version", "behind the comma"),
        ("standard", format!(" {whsec}"), "white space or quotes", "alone"),
        ("standard", format!("\"{whsec}\""), "white space or quotes", "alone"),
        ("x-signature", "a secret with spaces".to_owned(), "printable ASCII", "16 to 512"),
        // Of the wrong form or length.
        ("standard", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), "does not begin with whsec_", "put whsec_"),
        ("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!".to_owned(), "else than base64", "Copy it whole"),
        ("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA".to_owned(), "else than base64", "padding"),
        ("standard", "whsec_c2hvcnRzaG9ydA==".to_owned(), "has 10 bytes", "24 to 64"),
        // Base64 that PostgreSQL reads, and a strict decoder does not.
        ("standard", format!("{whsec}AB=="), "strict decoders", "encode its bytes anew"),
        ("standard", format!("{whsec}AA==AAAA"), "strict decoders", "encode its bytes anew"),
        ("standard-ed25519", format!("whsk_{}t=", &SEED[..42]), "strict decoders", "encode its bytes anew"),
        ("standard-ed25519", format!("whsk_{} {}", &SEED[..20], &SEED[20..]), "printable ASCII", "Copy it whole"),
        ("standard-ed25519", format!("whsk_{}\n{}", &SEED[..20], &SEED[20..]), "printable ASCII", "Copy it whole"),
        ("github", "short".to_owned(), "5 characters", "16 to 512"),
        // A profile that does not fit the key.
        ("standard-ed25519", whsec.to_owned(), "not a private key", "another signature profile"),
        ("standard-ed25519", "whsk_AAAA".to_owned(), "32 bytes", "Copy it whole"),
        ("standard-ed25519", pair(1), "does not belong to its private half", "seed of 32 bytes"),
    ]
}

#[tokio::test]
async fn a_secret_that_is_none_is_refused_with_the_mend() {
    let table = refused_secrets();
    let db = Db::new().await;
    let app = db.session().await;
    for (profile, secret, wrong, mend) in &table {
        let subscribe = format!(
            "select outbox.subscribe('https://hooks.example.com/', '{{a}}', signature => '{profile}', secret => $${secret}$$)"
        );
        let error = app.refused(&subscribe, "OB015").await;
        let hint = error.hint().expect("a hint");
        assert!(error.message().contains(wrong) && hint.contains(mend), "{profile}: {} / {hint}", error.message());
        assert!(!format!("{error:?}").contains(secret.trim()), "the secret is repeated: {error:?}");
    }
    // The same rules at a rotation.
    let subscription = app.subscribe("a").await;
    for (profile, secret, _, _) in table.iter().filter(|(profile, ..)| *profile == "standard") {
        let rotate = format!("select outbox.rotate_secret({subscription}, secret => $${secret}$$)");
        app.refused(&rotate, "OB015").await;
        assert_eq!(*profile, "standard");
    }
    for good in [format!("whsk_{SEED}"), pair(0)] {
        let made: String = app
            .one(&format!(
                "select secret from outbox.subscribe('https://hooks.example.com/', '{{a}}', signature => 'standard-ed25519', secret => '{good}')"
            ))
            .await;
        assert_eq!(made, good);
    }
    let public: Vec<String> = app.all("select public_key from outbox.signing_key where algorithm = 'ed25519'").await;
    assert_eq!(public, [PUBLIC, PUBLIC]);
}

#[tokio::test]
async fn the_database_derives_the_public_keys_that_others_derive() {
    let db = Db::new().await;
    let app = db.session().await;
    for _ in 0..30 {
        let seed: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
        let derived: Vec<u8> = app.one_of("select outbox_relay.ed25519_public_key($1)", &[&seed.as_slice()]).await;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed");
        assert_eq!(derived, pair.public_key().as_ref(), "of seed {}", hex::encode(seed));
    }
}

#[tokio::test]
async fn a_generated_pair_is_one_and_its_public_half_is_for_everybody() {
    let db = Db::new().await;
    let app = db.session().await;
    let secret: String = app
        .one(
            "select secret from outbox.subscribe('https://hooks.example.com/', '{a}', signature => 'standard-ed25519')",
        )
        .await;
    let bytes = BASE64.decode(secret.strip_prefix("whsk_").expect("its prefix")).expect("base64");
    let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes[..32], &bytes[32..]).expect("a pair");
    let public = format!("whpk_{}", BASE64.encode(pair.public_key()));
    for role in ["outbox_viewer", "outbox_operator"] {
        let reader = db.session_as(role).await;
        assert_eq!(reader.one::<String>("select public_key from outbox.signing_key").await, public, "{role}");
    }
}

#[tokio::test]
async fn a_profile_that_the_live_secret_does_not_fit_is_refused() {
    let db = Db::new().await;
    let app = db.session().await;
    let github = app.subscribe_with("a", "signature => 'github', secret => 'a-secret-of-plain-text'").await;
    let update =
        |id: i64, to: &str| format!("update outbox.subscription set signature = '{to}' where subscription_id = {id}");
    app.run(&update(github, "x-webhook")).await;
    app.refused(&update(github, "standard"), "OB015").await;
    app.refused(&update(github, "standard-ed25519"), "OB015").await;
    let ed25519 = app.subscribe_with("a", "signature => 'standard-ed25519', name => 'b'").await;
    app.refused(&update(ed25519, "standard"), "OB015").await;
    let standard = app.subscribe_with("a", "name => 'c'").await;
    app.run(&update(standard, "stripe")).await;
    app.run(&update(standard, "standard")).await;
}

#[tokio::test]
async fn during_an_overlap_receivers_with_either_secret_accept() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    // Every event is refused once, as a receiver does that has the other secret.
    let sink = Sink::new(|_, nth| if nth == 1 { StatusCode::UNAUTHORIZED } else { StatusCode::OK }).await;
    let mut endpoints = Vec::new();
    for profile in ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"] {
        let path = format!("/{profile}");
        let arguments = format!("signature => '{profile}', retry_policy => 'quick'");
        let endpoint = session.endpoint(&sink.url(&path), &arguments).await;
        session.run(&format!("select outbox.rotate_secret({})", endpoint.id)).await;
        endpoints.push((profile, path, endpoint));
    }
    session.insert("a", "{}").await;
    let _relay = Daemon::on(&db).await;
    for (profile, path, endpoint) in &endpoints {
        session.wait_for_state(endpoint.id, "succeeded", 1).await;
        let secrets: Vec<String> = session
            .query(
                "select coalesce(k.public_key, s.secret) from outbox.signing_key k join outbox_relay.signing_secret s using (subscription_id, key_id)
                 where subscription_id = $1 order by k.created_at",
                &[&endpoint.id],
            )
            .await
            .expect("the keys")
            .iter()
            .map(|row| row.get(0))
            .collect();
        let arrived = sink.arrived_at(path);
        for (attempt, arrived) in arrived[..2].iter().enumerate() {
            assert!(arrived.headers.keys().all(|name| arrived.headers.get_all(name).iter().count() == 1), "{profile}");
            assert_eq!(
                arrived.body,
                sink.arrived_at(path)[0].body,
                "{profile}: the bytes of every attempt are the same"
            );
            for secret in &secrets {
                assert_eq!(
                    verify(arrived, std::slice::from_ref(secret), None, SystemTime::now()),
                    Verdict::Verified(0),
                    "{profile}"
                );
            }
            if let "x-signature" | "x-webhook" | "github" = *profile {
                // One who reads the profile's own header alone: the old secret first, then the new one.
                let mut plain = arrived.clone();
                plain.headers = plain
                    .headers
                    .into_iter()
                    .filter_map(|(name, value)| name.filter(|n| !n.as_str().ends_with("-also")).map(|n| (n, value)))
                    .collect();
                let verdict = verify(&plain, &secrets, None, SystemTime::now());
                assert_eq!(verdict, Verdict::Verified(attempt), "{profile}, attempt {}", attempt + 1);
            }
        }
        let mut key_ids: Vec<String> = session
            .one_of("select key_ids from outbox.attempt where subscription_id = $1 and attempt = 1", &[&endpoint.id])
            .await;
        assert_eq!(key_ids[0], endpoint.key_id, "{profile}");
        key_ids.sort();
        key_ids.dedup();
        assert_eq!(key_ids.len(), 2, "{profile}");
    }
}

/// Secrets that were kept before a rule came, or were not written by our functions.
#[tokio::test]
async fn a_key_that_cannot_sign_does_not_silence_the_others() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let new: String = session.one(&format!("select (outbox.rotate_secret({})).key_id", endpoint.id)).await;
    let spoil = "update outbox_relay.signing_secret set secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAB==' where key_id = $1";
    session.execute(spoil, &[&endpoint.key_id]).await.expect("spoilt");
    session.insert("a", "{}").await;
    let mut relay = Daemon::on(&db).await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    let signed: Vec<String> = session.one("select key_ids from outbox.attempt").await;
    assert_eq!(signed, [new.as_str()]);
    relay.wait_for_log(&endpoint.key_id).await;
    assert_eq!(relay.log().matches(&endpoint.key_id).count(), 1, "it is said once");
    assert!(!relay.log().contains("MfKQ9r8"), "{}", relay.log());

    // Without any other, the attempt says why there is none.
    session.execute(spoil, &[&new]).await.expect("spoilt");
    session.run("update outbox.subscription set description = 'another version'").await;
    session.insert("b", "{}").await;
    session.wait_until("select count(*) > 0 from outbox.attempt where outcome = 'relay_error'").await;
    let error: String = session.one("select error from outbox.attempt where outcome = 'relay_error' limit 1").await;
    assert!(error.contains("outbox.rotate_secret"), "{error}");
}

#[tokio::test]
async fn of_two_keys_made_in_one_transaction_the_old_one_signs_first() {
    let db = Db::new().await;
    let session = db.session().await;
    for n in 0..8 {
        session.run("begin").await;
        let id = session.subscribe_with("a", &format!("signature => 'github', name => 's{n}'")).await;
        let old: String =
            session.one_of("select key_id from outbox.signing_key where subscription_id = $1", &[&id]).await;
        session.run(&format!("select outbox.rotate_secret({id}); commit")).await;
        let first: String =
            session.one(&format!("select key_ids[1] from outbox_relay.load_subscriptions('{{{id}}}')")).await;
        assert_eq!(first, old);
    }
}

#[tokio::test]
async fn the_signature_stands_in_the_header_that_was_asked_for() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    let mut endpoints = Vec::new();
    for profile in ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"] {
        let arguments = format!("signature => '{profile}', signature_header => 'X-StormCom-Signature'");
        endpoints.push((profile, session.endpoint(&sink.url(&format!("/{profile}")), &arguments).await));
    }
    session.insert("a", "{}").await;
    let _relay = Daemon::on(&db).await;
    for (profile, endpoint) in &endpoints {
        session.wait_for_state(endpoint.id, "succeeded", 1).await;
        let arrived = &sink.arrived_at(&format!("/{profile}"))[0];
        let public: Option<String> = session
            .one_of("select public_key from outbox.signing_key where subscription_id = $1", &[&endpoint.id])
            .await;
        let secret = public.as_ref().unwrap_or(&endpoint.secret);
        assert_eq!(
            verify(arrived, &[secret], Some("x-stormcom-signature"), SystemTime::now()),
            Verdict::Verified(0),
            "{profile}"
        );
        assert_eq!(verify(arrived, &[secret], None, SystemTime::now()), Verdict::Unsigned, "{profile}");
        let logged: String = session
            .one_of("select request_headers::text from outbox.attempt where subscription_id = $1", &[&endpoint.id])
            .await;
        assert!(!logged.contains("stormcom"), "{logged}");
    }
}

#[tokio::test]
async fn a_header_is_refused_with_the_reason() {
    const TABLE: &[(&str, &str)] = &[
        ("Host", "frames the request"),
        ("Content-Length", "frames the request"),
        ("Transfer-Encoding", "frames the request"),
        ("Connection", "hop-by-hop"),
        ("Keep-Alive", "hop-by-hop"),
        ("Proxy-Authorization", "hop-by-hop"),
        ("Upgrade", "hop-by-hop"),
        ("X-Forwarded-For", "where a request comes from"),
        ("Forwarded", "where a request comes from"),
        ("X-Real-IP", "where a request comes from"),
        ("Metadata-Flavor", "metadata services"),
        ("Metadata", "metadata services"),
        ("X-aws-ec2-metadata-token-ttl-seconds", "metadata services"),
        ("Webhook-Id", "signature profiles"),
        ("webhook-signature", "signature profiles"),
        ("X-Signature-Key-Id", "signature profiles"),
        ("X-Hub-Signature-256", "signature profiles"),
        ("Stripe-Signature", "signature profiles"),
        ("User-Agent", "outboxd sets it"),
        ("traceparent", "outboxd sets it"),
        ("Authorization", "would carry a secret"),
        ("Cookie", "would carry a secret"),
        ("X-Api-Key", "would carry a secret"),
        ("X-Auth-Token", "would carry a secret"),
        ("My-Secret", "would carry a secret"),
        ("X-Password", "would carry a secret"),
        // Many servers hand X_A and X-A to an application as one.
        ("X_Forwarded_For", "where a request comes from"),
        ("webhook_id", "signature profiles"),
        ("X_Api_Key", "would carry a secret"),
        ("X-Cluster-Client-IP", "where a request comes from"),
        ("Fastly-Client-IP", "where a request comes from"),
        ("Client-IP", "where a request comes from"),
        ("X-Envoy-External-Address", "where a request comes from"),
        ("HTTP2-Settings", "hop-by-hop"),
        ("Max-Forwards", "hop-by-hop"),
        ("X-AuthToken", "would carry a secret"),
        ("X-Bearer", "would carry a secret"),
        ("X-Private-Key", "would carry a secret"),
        ("X-Signing-Key", "would carry a secret"),
        ("bad name", "no header name"),
        ("", "no header name"),
    ];
    let db = Db::new().await;
    let app = db.session().await;
    let subscribe = |headers: &str, more: &str| {
        format!("select outbox.subscribe('https://hooks.example.com/', '{{a}}', headers => $${headers}$$ {more})")
    };
    for (name, reason) in TABLE {
        let error = app.refused(&subscribe(&format!(r#"{{"{name}": "hunter2"}}"#), ""), "OB016").await;
        assert!(error.message().contains(reason), "{name}: {}", error.message());
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for (headers, reason) in [
        (r#"{"X-A": "1", "x-a": "2"}"#, "there twice"),
        (r#"{"X-A": 1}"#, "not a string"),
        (r#"{"X-A": "a\r\nX-B: b"}"#, "printable ASCII"),
        (r#"{"X-A": " a"}"#, "a space"),
        (r#"{"X-Acme": "a"}"#, "is the signature_header"),
        (r#"{"X-Acme-Also": "a"}"#, "is the signature_header"),
        (r#"{"X_Acme": "a"}"#, "is the signature_header"),
        (r#"{"X-A": "1", "X_A": "2"}"#, "there twice"),
    ] {
        let error = app.refused(&subscribe(headers, ", signature_header => 'x-acme'"), "OB016").await;
        assert!(error.message().contains(reason), "{headers}: {}", error.message());
    }
    let many: Vec<String> = (0..33).map(|n| format!(r#""X-{n}": "a""#)).collect();
    app.refused(&subscribe(&format!("{{{}}}", many.join(",")), ""), "OB016").await;
    const NO_PLACE: [&str; 12] = [
        "host",
        "no name",
        "webhook-id",
        "x-acme-also",
        "x-forwarded-for",
        "cookie2 ",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "webhook_id",
        "x_acme_also",
        "x_forwarded_for",
    ];
    for name in NO_PLACE {
        app.refused(&subscribe("{}", &format!(", signature_header => '{name}'")), "OB016").await;
    }
    let good = r#"{"X-Team": "blue, \"7\"", "X-Route": "", "Accept-Language": "de", "Idempotency-Key": "k", "X-Authority": "a", "X-Client": "a", "X-Key-Colour": "a"}"#;
    app.run(&subscribe(good, ", signature_header => 'X-Acme-Signature'")).await;
    app.run(&subscribe("{}", ", signature_header => 'X-Auth-Token'")).await;
}
