//! Secrets at rest: sealed under a key that the database never sees, or kept by reference.

use crate::signatures::refused_secrets;
use crate::support::{Daemon, Db, Outboxd, Seat, Session, Sink};
use outboxd::receiver::{Arrived, Verdict, verify};
use outboxd::secrets::{self, SealingKey};
use serde_json::json;
use std::path::PathBuf;
use std::time::SystemTime;

const PROFILES: [&str; 6] = ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn key() -> String {
    SealingKey::generate().expect("random").encode().expose().to_owned()
}

fn id_of(key: &str) -> String {
    SealingKey::parse(key).expect("a key").id().to_owned()
}

async fn stage() -> (Db, Session, Sink) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    (db, session, Sink::accepting().await)
}

/// A relay that seals.
fn sealing(db: &Db, name: &str, key: &str) -> Outboxd {
    Daemon::relay(&db.url(), name).set("OUTBOXD_SECRETS__KEY", key)
}

/// From here on a secret that reaches the database in plain is refused.
async fn refuse_plain(session: &Session) {
    session
        .run(
            "create function public.refuse_plain() returns trigger language plpgsql as $$ begin raise exception 'plain'; end $$;
             create trigger refuse_plain before insert or update on outbox_relay.signing_secret for each row
             when (new.secret is not null) execute function public.refuse_plain()",
        )
        .await;
}

const ALL_SEALED: &str =
    "select not exists (select from outbox_relay.signing_secret where sealed is null and secret_ref is null)";

fn verifies(arrived: &Arrived, secret: &str) -> bool {
    matches!(verify(arrived, &[secret], None, SystemTime::now()), Verdict::Verified(_))
}

async fn key_ids(session: &Session, event: &str) -> Vec<String> {
    let sql = format!(
        "select unnest(a.key_ids) from outbox.attempt a join outbox.event e using (event_seq) where e.type = '{event}' order by 1"
    );
    session.all(&sql).await
}

/// An endpoint whose secret is not shown, because the database has not got it.
async fn by_reference(session: &Session, url: &str, arguments: &str) -> i64 {
    let sql = format!("select subscription_id from outbox.subscribe($1, '{{*}}', {arguments}) where secret is null");
    session.one_of(&sql, &[&url]).await
}

/// A directory of one test's own, removed with it.
struct Place(PathBuf);

impl Place {
    fn new(db: &Db) -> Self {
        let name = db.url().rsplit('/').next().expect("a name").to_owned();
        let path = std::env::temp_dir().join(format!("outboxd-secrets-it-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the two sides that judge secrets say of one; the same, or they have drifted apart.
#[tokio::test]
async fn the_daemon_and_the_database_have_the_same_rules() {
    let db = Db::new().await;
    let session = db.session().await;
    session
        .run(
            "create function public.verdict(profile text, secret text) returns text language plpgsql as $$
             declare mend text;
             begin
                 perform outbox_relay.check_secret(profile, secret);
                 return 'good';
             exception when sqlstate 'OB015' then
                 get stacked diagnostics mend = pg_exception_hint;
                 return sqlerrm || ' / ' || mend;
             end $$",
        )
        .await;
    let mut secrets: Vec<String> = refused_secrets().into_iter().map(|(_, secret, ..)| secret).collect();
    for profile in PROFILES {
        secrets.push(outboxd::secrets::make(profile).expect("random").expose().to_owned());
    }
    for length in [15, 16, 512, 513] {
        secrets.push("x".repeat(length));
    }
    // Each with a character changed, put in or left out, anywhere.
    let mut random = fastrand::Rng::with_seed(7);
    for text in secrets.clone() {
        for _ in 0..12 {
            let mut characters: Vec<char> = text.chars().collect();
            let at = random.usize(..=characters.len());
            let new = *random.choice(&['=', 'A', '/', '-', ' ', '\n', 'é', '"', 'w']).expect("one");
            match random.u8(..3) {
                0 => characters.insert(at, new),
                1 if at < characters.len() => characters[at] = new,
                _ => characters.truncate(at),
            }
            secrets.push(characters.into_iter().collect());
        }
    }
    let (mut good, mut bad) = (0, 0);
    for profile in PROFILES {
        let sql = "select array_agg(public.verdict($1, s) order by n) from unnest($2::text[]) with ordinality u (s, n)";
        let theirs: Vec<String> = session.one_of(sql, &[&profile, &secrets]).await;
        for (secret, theirs) in secrets.iter().zip(theirs) {
            let ours = match secrets::check(profile, secret) {
                Ok(()) => "good".to_owned(),
                Err(refusal) => format!("{refusal} / {}", refusal.hint),
            };
            // Of padding inside, decode() makes its own; what is refused is the same, not always why.
            let is_odd = secret.trim_end_matches('=').contains('=') && ours != "good" && theirs != "good";
            assert!(ours == theirs || is_odd, "{profile} {secret:?}: {ours} or {theirs}");
            if ours == "good" { good += 1 } else { bad += 1 }
        }
    }
    assert!(good > 50 && bad > 500, "{good} {bad}");
    let ids: Vec<String> = session
        .one_of(
            "select array_agg(outbox_relay.key_id(s) order by n) from unnest($1::text[]) with ordinality u (s, n)",
            &[&secrets],
        )
        .await;
    let ours: Vec<String> = secrets.iter().map(|secret| outboxd::secrets::key_id(secret)).collect();
    assert_eq!(ids, ours);
}

#[tokio::test]
async fn what_is_made_in_sql_is_sealed_by_the_relays_that_run_and_goes_on_signing() {
    let (db, session, sink) = stage().await;
    let key = key();
    let before = session.endpoint(&sink.url("/before"), "").await;
    let _relays = [
        sealing(&db, "relay-1", &key).spawn().registered().await,
        sealing(&db, "relay-2", &key).spawn().registered().await,
    ];
    session.wait_until(ALL_SEALED).await;
    let mut made = vec![before];
    for profile in PROFILES {
        made.push(session.endpoint(&sink.url(&format!("/{profile}")), &format!("signature => '{profile}'")).await);
    }
    session.wait_until(ALL_SEALED).await;
    let with: Vec<String> = session.all("select distinct sealed_with from outbox_relay.signing_secret").await;
    assert_eq!(with, [id_of(&key)]);
    let event = session.insert("a", "{}").await;
    for endpoint in &made {
        session.wait_for_state(endpoint.id, "succeeded", 1).await;
    }
    let attempts: i64 = session.one_of("select count(*) from outbox.attempt where event_seq = $1", &[&event]).await;
    assert_eq!(attempts, 7);
    for (endpoint, arrived) in [
        (&made[0], sink.arrived_at("/before")),
        (&made[5], sink.arrived_at("/github")),
        (&made[6], sink.arrived_at("/stripe")),
    ] {
        assert!(verifies(&arrived[0], &endpoint.secret));
    }
}

#[tokio::test]
async fn what_is_made_over_http_arrives_sealed() {
    let (db, session, sink) = stage().await;
    let key = key();
    refuse_plain(&session).await;
    let seat = Seat::with(&db, &[("OUTBOXD_SECRETS__KEY", &key)]).await;
    let body = |path: &str, more: serde_json::Value| {
        let mut body = json!({"url": sink.url(path), "event_types": ["*"]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Some(body)
    };
    let made = seat.call("POST", "/webhooks", body("/made", json!({}))).await.ok();
    let secret = made["secret"].as_str().expect("shown this once").to_owned();
    assert_eq!(made["key_id"], outboxd::secrets::key_id(&secret));
    let given = seat
        .call(
            "POST",
            "/webhooks",
            body("/given", json!({"secret": SECRET, "signature": "github", "name": "n", "rate_limit": 5})),
        )
        .await
        .ok();
    assert_eq!(given["secret"], SECRET);
    let pair = seat.call("POST", "/webhooks", body("/pair", json!({"signature": "standard-ed25519"}))).await.ok();
    assert!(pair["secret"].as_str().is_some_and(|secret| secret.starts_with("whsk_")));
    let public = pair["webhook"]["keys"][0]["public_key"].as_str().expect("for receivers").to_owned();
    assert_eq!(outboxd::secrets::public_key(pair["secret"].as_str().expect("a text")), Some(public));

    let id = made["webhook"]["subscription_id"].as_i64().expect("an id");
    let path = format!("/webhooks/{id}/rotate-secret");
    let rotated = seat.call("POST", &path, Some(json!({"overlap": "1 hour"}))).await.ok();
    let new = rotated["secret"].as_str().expect("shown this once").to_owned();
    assert_eq!(rotated["keys"].as_array().map(Vec::len), Some(2));

    // A repetition shows none, and what is refused leaves nothing.
    let again = |n| seat.call_as(&seat.operator, "POST", "/webhooks", body("/again", json!({"name": "again"})), n);
    let once: &[(&str, &str)] = &[("idempotency-key", "k1")];
    let (first, second) = (again(once).await.ok(), again(once).await.ok());
    assert!(first["secret"].is_string() && second["secret"].is_null());
    assert_eq!(first["webhook"]["subscription_id"], second["webhook"]["subscription_id"]);
    for (profile, secret, wrong, mend) in refused_secrets() {
        let refused = seat
            .call("POST", "/webhooks", body("/no", json!({"signature": profile, "secret": secret})))
            .await
            .problem(422);
        assert_eq!(refused["code"], "OB015");
        let says = |member: &str, part: &str| refused[member].as_str().is_some_and(|text| text.contains(part));
        assert!(says("detail", wrong) && says("hint", mend), "{refused}");
    }
    let both = json!({"secret": SECRET, "secret_ref": "env:OUTBOXD_SECRET_A"});
    assert_eq!(seat.call("POST", "/webhooks", body("/no", both)).await.problem(422)["code"], "OB015");
    assert_eq!(
        seat.call("POST", "/webhooks/999999/rotate-secret", Some(json!({}))).await.problem(404)["code"],
        "OB020"
    );
    let used = seat.call("POST", &path, Some(json!({"secret": secret}))).await.problem(422);
    assert_eq!(used["code"], "OB015");

    // A profile that the sealed secret does not fit is refused, by its form.
    let change = |signature: &str| Some(json!({"signature": signature}));
    let webhook = format!("/webhooks/{id}");
    assert_eq!(seat.call("PATCH", &webhook, change("standard-ed25519")).await.problem(422)["code"], "OB015");
    seat.call("PATCH", &webhook, change("github")).await.ok();
    seat.call("PATCH", &webhook, change("standard")).await.ok();

    // Two of one name at once, for a token that is bound to a tenant, which has nothing to rotate elsewhere.
    let bound: String = session.one("select outbox.create_token('operator', tenant_id => 'acme')").await;
    let same = || {
        let body = body("/same", json!({"name": "same", "filter": "$.never == 1"}));
        seat.call_as(&bound, "POST", "/webhooks", body, &[])
    };
    let (one, two) = tokio::join!(same(), same());
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "{one:?} {two:?}");
    seat.call_as(&bound, "POST", &path, Some(json!({})), &[]).await.problem(404);
    assert_eq!(session.one::<i64>("select count(*) from outbox_relay.signing_secret").await, 6);
    assert!(session.one::<bool>(ALL_SEALED).await);
    assert_eq!(session.one::<i64>("select count(*) from outbox_relay.offered_key").await, 0);
    session.insert("a", "{}").await;
    session.wait_for_state(id, "succeeded", 1).await;
    let arrived = sink.arrived_at("/made").remove(0);
    for secret in [&secret, &new] {
        assert!(verifies(&arrived, secret));
    }
}

#[tokio::test]
async fn without_a_key_secrets_are_as_they_were() {
    let (db, session, sink) = stage().await;
    let seat = Seat::new(&db).await;
    let body = json!({"url": sink.url("/in"), "event_types": ["*"]});
    let made = seat.call("POST", "/webhooks", Some(body)).await.ok();
    let stored: String = session.one("select secret from outbox_relay.signing_secret").await;
    assert_eq!(made["secret"], stored);
    session.insert("a", "{}").await;
    session.wait_until("select count(*) = 1 from outbox.delivery where state = 'succeeded'").await;
}

#[tokio::test]
async fn a_secret_by_reference_never_reaches_the_database() {
    let (db, session, sink) = stage().await;
    refuse_plain(&session).await;
    let place = Place::new(&db);
    place.put("orders", &format!("{SECRET}\n"));
    let pair = outboxd::secrets::make("standard-ed25519").expect("random");
    let by_file = by_reference(&session, &sink.url("/file"), "secret_ref => 'file:orders'").await;
    let sql = "select (outbox.subscribe($1, '{*}', secret_ref => 'env:OUTBOXD_SECRET_PAIR', signature => 'standard-ed25519', name => 'pair')).key_id";
    let provisional: String = session.one_of(sql, &[&sink.url("/pair")]).await;
    assert_eq!(provisional, outboxd::secrets::key_id("env:OUTBOXD_SECRET_PAIR"));
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_SECRETS__DIRECTORY", place.path())
        .set("OUTBOXD_SECRET_PAIR", pair.expose())
        .spawn()
        .registered()
        .await;
    session.insert("a", "{}").await;
    session.wait_until("select count(*) = 2 from outbox.delivery where state = 'succeeded'").await;
    assert!(verifies(&sink.arrived_at("/file")[0], SECRET));
    // The true ids, in the log of attempts and as the keys' own.
    let mut expected = [outboxd::secrets::key_id(SECRET), outboxd::secrets::key_id(pair.expose())];
    expected.sort();
    assert_eq!(key_ids(&session, "a").await, expected);
    let audited =
        "select detail ->> 'key_id' from outbox.audit where action = 'name_key' and actor = 'relay' order by 1";
    assert_eq!(session.all::<String>(audited).await, expected);
    session
        .wait_until(&format!(
            "select array_agg(key_id order by key_id) = '{{{}}}' from outbox.signing_key",
            expected.join(",")
        ))
        .await;
    let public: String = session.one("select public_key from outbox.signing_key where algorithm = 'ed25519'").await;
    assert_eq!(Some(public), outboxd::secrets::public_key(pair.expose()));
    // What a relay has read it knows the form of.
    session
        .refused(
            &format!("update outbox.subscription set signature = 'standard-ed25519' where subscription_id = {by_file}"),
            "OB015",
        )
        .await;

    // Rotated to another name: both sign.
    place.put("orders-2", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDmXVTh7Rwvyk=");
    session.run(&format!("select outbox.rotate_secret({by_file}, secret_ref => 'file:orders-2')")).await;
    session.refused(&format!("select outbox.rotate_secret({by_file}, secret_ref => 'file:orders-2')"), "OB015").await;
    session.insert("b", "{}").await;
    session.wait_until("select count(*) = 4 from outbox.delivery where state = 'succeeded'").await;
    assert_eq!(key_ids(&session, "b").await.len(), 3);
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_named_and_works_once_it_is_there() {
    let (db, session, sink) = stage().await;
    let place = Place::new(&db);
    session.run("insert into outbox.retry_policy (name, delays, jitter) values ('late', array_fill(interval '200ms', array[100]), 0)").await;
    let id = by_reference(&session, &sink.url("/in"), "secret_ref => 'file:late', retry_policy => 'late'").await;
    session.run("select outbox.set('circuit_failures', '0')").await;
    let mut relay =
        Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_SECRETS__DIRECTORY", place.path()).spawn().registered().await;
    session.insert("a", "{}").await;
    session.wait_until("select count(*) > 1 from outbox.attempt where outcome = 'relay_error'").await;
    let error: String = session.one("select error from outbox.attempt limit 1").await;
    assert_eq!(error, "file:late: there is no such file");
    relay.wait_for_log("file:late").await;
    place.put("late", SECRET);
    session.wait_for_state(id, "succeeded", 1).await;
    // Neither what may not be read, nor what is no secret.
    for (reference, expected) in
        [("env:PATH", "only variables whose names begin with"), ("file:short", "the secret has 5 characters")]
    {
        place.put("short", "short");
        let id =
            by_reference(&session, &sink.url("/in"), &format!("secret_ref => '{reference}', retry_policy => 'none'"))
                .await;
        session.insert("b", "{}").await;
        session.wait_for_state(id, "dead_letter", 1).await;
        let error: String = session.one_of("select error from outbox.attempt where subscription_id = $1", &[&id]).await;
        assert!(error.contains(expected), "{error}");
        session.run(&format!("select outbox.unsubscribe({id})")).await;
    }
    for bad in ["hunter2hunter2hunter2", "file:../x", "file:.hidden", "file:a/b", "env:A B", "env:", "file:"] {
        let error = session
            .refused(
                &format!("select outbox.subscribe('https://a.example.com/', '{{a}}', secret_ref => '{bad}')"),
                "OB015",
            )
            .await;
        assert!(bad.len() < 6 || !format!("{error:?}").contains(bad), "{error:?}");
    }
}

#[tokio::test]
async fn a_key_is_replaced_while_relays_run() {
    let (db, session, sink) = stage().await;
    let (old, new, stray) = (key(), key(), key());
    for n in 0..250 {
        session.run(&format!("select outbox.subscribe('{}', '{{never.{n}}}')", sink.url("/in"))).await;
    }
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let seal = |current: &str, olds: &[&str], arguments: &[&str]| {
        let olds = serde_json::to_string(olds).expect("JSON");
        Outboxd::on(&db.url(), arguments).set("OUTBOXD_SECRETS__KEY", current).set("OUTBOXD_SECRETS__OLD_KEYS", &olds)
    };
    let done = seal(&old, &[], &["seal"]).output().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.printed.contains("sealed 251 that were plain"), "{done:?}");
    let again = seal(&old, &[], &["seal", "--rekey"]).output().await;
    assert!(again.printed.contains("sealed 0") && again.printed.contains("sealed anew: none"), "{again:?}");

    let check = seal(&new, &[&old], &["check"]).output().await;
    assert!(
        check.printed.contains(&format!("251 sealed with the old key {}: run outboxd seal --rekey", id_of(&old))),
        "{check:?}"
    );
    let unkeyed = seal(&new, &[], &["check"]).output().await;
    assert_eq!(unkeyed.code, Some(1));
    assert!(unkeyed.printed.contains("neither secrets.key nor among secrets.old_keys"), "{unkeyed:?}");

    let _relay = sealing(&db, "relay-1", &new)
        .set("OUTBOXD_SECRETS__OLD_KEYS", &format!("[\"{old}\"]"))
        .spawn()
        .registered()
        .await;
    // One that nobody here can open.
    session.run(&format!("update outbox_relay.signing_secret set sealed_with = '{}' where subscription_id = (select min(subscription_id) from outbox_relay.signing_secret)", id_of(&stray))).await;
    let done = seal(&new, &[&old], &["seal", "--rekey"]).output().await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.printed.contains(&format!("sealed anew: 250 that were sealed with the key {}", id_of(&old))),
        "{done:?}"
    );
    let lost: String = session.one("select format('subscription %s, key %s', subscription_id, key_id) from outbox_relay.signing_secret order by 1 limit 1").await;
    assert!(done.printed.contains("NOT sealed anew: ") && done.printed.contains(&lost), "{done:?}");
    let withs: Vec<String> =
        session.all("select distinct sealed_with from outbox_relay.signing_secret order by sealed_with").await;
    let mut expected = vec![id_of(&new), id_of(&stray)];
    expected.sort();
    assert_eq!(withs, expected);
    // A relay that has the new key alone delivers.
    drop(_relay);
    let _relay = sealing(&db, "relay-2", &new).spawn().registered().await;
    session.insert("a", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    assert!(verifies(&sink.arrived()[0], &endpoint.secret));
}

#[tokio::test]
async fn a_secret_that_does_not_open_is_named_and_silences_no_other() {
    let (db, session, sink) = stage().await;
    let (key, other) = (key(), key());
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'none'").await;
    let sealed = Outboxd::on(&db.url(), &["seal"]).set("OUTBOXD_SECRETS__KEY", &other).output().await;
    assert_eq!(sealed.code, Some(0), "{sealed:?}");
    let relay = sealing(&db, "relay-1", &key).spawn().registered().await;
    session.insert("a", "{}").await;
    session.wait_for_state(endpoint.id, "dead_letter", 1).await;
    let error: String = session.one("select error from outbox.attempt").await;
    assert!(error.contains(&id_of(&other)) && error.contains("secrets.old_keys"), "{error}");
    // Its neighbour's sealed value opens nothing here.
    let neighbour = session.endpoint(&sink.url("/neighbour"), "").await;
    session
        .wait_until(&format!(
            "select sealed is not null from outbox_relay.signing_secret where subscription_id = {}",
            neighbour.id
        ))
        .await;
    session.run(&format!(
        "update outbox_relay.signing_secret x set sealed = n.sealed, sealed_with = n.sealed_with from outbox_relay.signing_secret n where n.subscription_id = {} and x.subscription_id = {};
         update outbox.subscription set description = 'another version'", neighbour.id, endpoint.id)).await;
    session.insert("b", "{}").await;
    session.wait_for_state(endpoint.id, "dead_letter", 2).await;
    let errors: i64 =
        session.one("select count(*) from outbox.attempt where error like '%belongs to another subscription%'").await;
    assert_eq!(errors, 1);
    // With a second secret that opens, it delivers.
    session.run(&format!("select outbox.rotate_secret({})", endpoint.id)).await;
    session.insert("c", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;
    drop(relay);
}

#[tokio::test]
async fn the_command_says_what_it_needs_and_makes_keys() {
    let db = Db::new().await;
    let without = Outboxd::on(&db.url(), &["seal"]).output().await;
    assert_eq!(without.code, Some(78));
    assert!(without.complained.contains("--generate-key"), "{without:?}");
    let (one, two) = (
        Outboxd::new(&["seal", "--generate-key"]).output().await,
        Outboxd::new(&["seal", "--generate-key"]).output().await,
    );
    assert_eq!((one.code, one.printed.lines().count()), (Some(0), 1));
    assert_ne!(one.printed, two.printed);
    assert!(one.complained.contains(&id_of(one.printed.trim())), "{one:?}");
    let bad = Outboxd::on(&db.url(), &["seal"]).set("OUTBOXD_SECRETS__KEY", "hunter2").output().await;
    assert_eq!(bad.code, Some(78));
    assert!(!format!("{bad:?}").contains("hunter2"), "{bad:?}");
    let session = db.session().await;
    session.subscribe("a").await;
    let check = Outboxd::on(&db.url(), &["check"]).output().await;
    assert!(check.printed.contains("warning  secrets") && check.printed.contains("1 are plain"), "{check:?}");
    session
        .run("select outbox.subscribe('https://a.example.com/', '{a}', secret_ref => 'env:OUTBOXD_SECRET_NOT_HERE')")
        .await;
    let check = Outboxd::on(&db.url(), &["check"]).output().await;
    assert_eq!(check.code, Some(1));
    assert!(check.printed.contains("env:OUTBOXD_SECRET_NOT_HERE: the variable is not set"), "{check:?}");
}

#[tokio::test]
async fn a_secret_is_sealed_only_if_it_is_still_the_one_that_was_read() {
    let db = Db::new().await;
    let id = db.session().await.subscribe("a").await;
    let relay = db.session_as("outbox_relay").await;
    let seal = |was: &str| {
        format!(
            "select outbox_relay.seal({id}, (select key_id from outbox_relay.unsealed(1)), sha256({was}), 'x', 'k', 'whsec')"
        )
    };
    assert!(!relay.one::<bool>(&seal("'another'")).await);
    assert!(relay.one::<bool>(&seal("convert_to((select secret from outbox_relay.unsealed(1)), 'UTF8')")).await);
    assert_eq!(relay.one::<i64>("select count(*) from outbox_relay.unsealed(10)").await, 0);
}

#[tokio::test]
async fn nothing_is_sealed_in_a_database_of_another_environment() {
    let (db, session, sink) = stage().await;
    session.run("select outbox.adopt('production')").await;
    session.endpoint(&sink.url("/in"), "").await;
    let staging = key();
    let mut relay = sealing(&db, "relay-1", &staging).set("OUTBOXD_RELAY__ENVIRONMENT", "staging").spawn();
    relay.wait_for_log("on hold: nothing is sent").await;
    let output = Outboxd::on(&db.url(), &["seal"])
        .set("OUTBOXD_SECRETS__KEY", &staging)
        .set("OUTBOXD_RELAY__ENVIRONMENT", "staging")
        .output()
        .await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.complained.contains("belongs to environment production"), "{output:?}");
    relay.kill();
    assert!(!session.one::<bool>(ALL_SEALED).await, "it has a key that production has not");
    let _ours = sealing(&db, "relay-2", &key()).set("OUTBOXD_RELAY__ENVIRONMENT", "production").spawn();
    session.wait_until(ALL_SEALED).await;
}

#[tokio::test]
async fn what_somebody_holds_is_left_by_rekey_and_said_and_all_else_is_sealed_anew() {
    let db = Db::new().await;
    let (session, other) = (db.session().await, db.session().await);
    let (old, new) = (key(), key());
    let first = session.subscribe("a").await;
    session.subscribe("b").await;
    assert_eq!(Outboxd::on(&db.url(), &["seal"]).set("OUTBOXD_SECRETS__KEY", &old).output().await.code, Some(0));
    let rekey = || {
        Outboxd::on(&db.url(), &["seal", "--rekey"])
            .set("OUTBOXD_SECRETS__KEY", &new)
            .set("OUTBOXD_SECRETS__OLD_KEYS", &format!("[\"{old}\"]"))
    };
    other
        .run(&format!("begin; select from outbox_relay.signing_secret where subscription_id = {first} for update"))
        .await;
    let done = rekey().output().await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.printed.contains(&format!("NOT sealed anew: subscription {first}, key")), "{done:?}");
    assert!(done.printed.contains("sealed anew: 1 that were"), "{done:?}");
    other.run("rollback").await;
    // Two at once: each secret is sealed by one of them.
    let (one, two) = (rekey(), rekey());
    let (one, two) = tokio::join!(one.output(), two.output());
    assert_eq!((one.code, two.code), (Some(0), Some(0)), "{one:?} {two:?}");
    let with: Vec<String> = session.all("select distinct sealed_with from outbox_relay.signing_secret").await;
    assert_eq!(with, [id_of(&new)]);
}

#[tokio::test]
async fn a_secret_is_offered_for_an_id_that_was_given_and_no_other() {
    let db = Db::new().await;
    let id = db.session().await.subscribe("a").await;
    let relay = db.session_as("outbox_relay").await;
    let offer = |id: i64| format!("select outbox_relay.offer_key({id}, 'k', 'whsec', null, 'x', 'k')");
    for never_given in [id + 1, i64::MAX, 0, -1] {
        relay.refused(&offer(never_given), "OB020").await;
    }
    relay.run(&offer(id)).await;
    let next: i64 = relay.one("select id from outbox_relay.offer_for(null, null)").await;
    relay.run(&offer(next)).await;
}
