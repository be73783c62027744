//! Profile by verifier by envelope.

use crate::stage::{Endpoint, Stage};
use crate::verifiers::{self, Verifiers};
use crate::{Verdict, bodies};
use outboxd::receiver::Arrived;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PROFILES: [&str; 6] = ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"];
const ENVELOPES: [&str; 5] = ["standard", "event", "resource", "cloudevents", "payload"];

/// Delivers everything, asks everybody, prints the table.
pub(crate) async fn run(stage: &Stage, verdict: &mut Verdict) {
    let mut verifiers = Verifiers::default();
    let payloads = publish(stage, verdict).await;
    println!("\n{:<18}{:<26}{}", "profile", "verifier", ENVELOPES.map(|e| format!("{e:<13}")).concat());
    for profile in PROFILES {
        let endpoints = deliver(stage, profile, &payloads).await;
        let mut arrived = BTreeMap::new();
        for (envelope, endpoint) in &endpoints {
            let requests = stage.take(&format!("/{profile}/{envelope}"));
            check_bytes(envelope, &requests, &payloads, verdict);
            arrived.insert(*envelope, (requests, verifies_with(stage, endpoint).await));
        }
        for &verifier in verifiers::of(profile) {
            let mut cells = String::new();
            for envelope in ENVELOPES {
                let (requests, secret) = &arrived[envelope];
                cells += &format!("{:<13}", cell(&mut verifiers, verifier, requests, secret, verdict));
            }
            println!("{profile:<18}{:<26}{cells}", format!("{} {}", verifier.0, verifier.1));
        }
        if let Some((requests, _)) = arrived.get("cloudevents") {
            check_cloud_events(&mut verifiers, profile, requests, verdict);
        }
        overlap(stage, &mut verifiers, profile, verdict).await;
    }
}

/// Publishes every payload once, for one tenant; returns them by event id, as PostgreSQL writes them.
async fn publish(stage: &Stage, verdict: &mut Verdict) -> BTreeMap<String, String> {
    let all = bodies::all(Path::new("target/interop/node/node_modules"));
    let real = all.iter().filter(|(name, _)| name.starts_with("github")).count();
    println!("{} payloads, {real} of them real deliveries of GitHub", all.len());
    if real < 300 {
        verdict.fail("the payloads of @octokit/webhooks-examples are missing: run tests/interop/setup.sh");
    }
    for text in bodies::REFUSED {
        match stage.publish("matrix", text).await {
            Ok(_) => verdict.fail(format!("{text} was accepted")),
            Err(error) => {
                let error = error.as_db_error().expect("an answer of the server").clone();
                println!("  refused at the insert, {}: {}", error.code().code(), error.message());
                if !matches!(error.code().code(), "22P02" | "22P05") {
                    verdict.fail(format!("{text}: {error}"));
                }
            }
        }
    }
    for (name, text) in &all {
        if let Err(error) = stage.publish("matrix", text).await {
            verdict.fail(format!("{name} was refused: {}", outboxd::schema::describe(&error)));
        }
    }
    stage.wait_until("expanding", "select unexpanded_events = 0 from outbox.status()").await;
    let rows =
        stage.client.query("select event_id::text, payload::text from outbox.event where tenant_id = 'matrix'", &[]);
    rows.await.expect("the events").iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Subscribes one endpoint for each envelope and has it sent everything.
async fn deliver(stage: &Stage, profile: &str, payloads: &BTreeMap<String, String>) -> Vec<(&'static str, Endpoint)> {
    let mut endpoints = Vec::new();
    for envelope in ENVELOPES {
        let url = format!("http://{}/{profile}/{envelope}", stage.sink);
        let arguments = format!("signature => '{profile}', envelope => '{envelope}'");
        let endpoint = stage.subscribe(&url, "matrix", &arguments).await;
        stage.one(&format!("select outbox.replay_missing({})", endpoint.id)).await;
        endpoints.push((envelope, endpoint));
    }
    let ids = endpoints.iter().map(|(_, endpoint)| endpoint.id.to_string()).collect::<Vec<_>>().join(", ");
    let count = payloads.len() * ENVELOPES.len();
    let done = format!(
        "select count(*) = {count} from outbox.delivery where subscription_id in ({ids}) and state = 'succeeded'"
    );
    stage.wait_until("delivering", &done).await;
    endpoints
}

/// Every payload is there, digit for digit, and a retry brought no other bytes.
fn check_bytes(envelope: &str, requests: &[Arrived], payloads: &BTreeMap<String, String>, verdict: &mut Verdict) {
    let distinct: BTreeSet<&[u8]> = requests.iter().map(|arrived| arrived.body.as_ref()).collect();
    let expected: BTreeSet<&String> = payloads.values().collect();
    let wanted = if envelope == "payload" { expected.len() } else { payloads.len() };
    if distinct.len() != wanted {
        verdict.fail(format!("{envelope}: {} different bodies of {wanted}: a retry had other bytes", distinct.len()));
    }
    if requests.len() <= payloads.len() {
        verdict.fail(format!("{envelope}: nothing was retried"));
    }
    for body in distinct {
        let body = String::from_utf8_lossy(body);
        let whole = |payload: &String| match envelope {
            "payload" => body == payload.as_str(),
            "standard" => body.ends_with(&format!(r#","data":{payload}}}"#)),
            "event" => body.ends_with(&format!(r#","payload":{payload}}}"#)),
            "resource" => body.contains(&format!(r#","data":{{"object":{payload}}},"workspace_id""#)),
            _ => body.ends_with(&format!(r#","data":{payload}}}"#)),
        };
        if !expected.iter().any(|payload| whole(payload)) {
            verdict.fail(format!("{envelope}: a body holds no payload as PostgreSQL writes it: {:.200}", body));
        }
    }
}

/// The verifier accepts each request, and none of the forgeries.
fn cell(
    verifiers: &mut Verifiers,
    verifier: verifiers::Name,
    requests: &[Arrived],
    secret: &str,
    verdict: &mut Verdict,
) -> String {
    let other = match secret.get(..5) {
        Some("whsec") => "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDmXVTh7Rwvyk=",
        _ => "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    };
    let mut accepted = 0;
    for arrived in requests {
        let Some(answer) = verifiers.ask(verifier, arrived, &arrived.body, secret) else {
            verdict.skip(format!("{} is missing", verifier.0));
            return "SKIPPED".into();
        };
        match answer {
            Ok(_) => accepted += 1,
            Err(error) => {
                verdict.fail(format!("{verifier:?} refused {:.80}: {error}", String::from_utf8_lossy(&arrived.body)))
            }
        }
        // A digit for a digit, a letter for a letter: still JSON where it was.
        let mut forged = arrived.body.to_vec();
        let middle = forged.iter().rposition(u8::is_ascii_alphanumeric).unwrap_or_default();
        forged[middle] ^= 1;
        for (body, secret, what) in
            [(&forged[..], secret, "another body"), (&arrived.body[..], other, "another secret")]
        {
            // A refusal for any other reason would prove nothing.
            match verifiers.ask(verifier, arrived, body, secret) {
                Some(Err(error)) if error.to_lowercase().contains("signature") => {}
                Some(Err(error)) => verdict.fail(format!("{verifier:?} refused {what} for another reason: {error}")),
                Some(Ok(_)) => verdict.fail(format!("{verifier:?} accepted {what}")),
                None => {}
            }
        }
    }
    format!("ok {accepted}")
}

/// The SDK reads what we call a CloudEvent as one.
fn check_cloud_events(verifiers: &mut Verifiers, profile: &str, requests: &[Arrived], verdict: &mut Verdict) {
    let mut read = 0;
    for arrived in requests {
        match verifiers.ask(("node", "cloudevents"), arrived, &arrived.body, "") {
            None => return,
            Some(Err(error)) => verdict.fail(format!("cloudevents refused {profile}: {error}")),
            Some(Ok(seen)) => {
                // The attributes alone: a payload may be deeper, or its numbers larger, than serde_json reads.
                let text = String::from_utf8_lossy(&arrived.body);
                let attributes = text.split_once(r#","data":"#).map_or("", |(attributes, _)| attributes);
                let body: serde_json::Value = serde_json::from_str(&format!("{attributes}}}")).unwrap_or_default();
                let same = ["id", "type", "source", "tenantid", "datacontenttype"]
                    .iter()
                    .all(|name| seen[*name] == body[*name]);
                let time =
                    body["time"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok()).map(|t| t.as_millisecond());
                if !same
                    || seen["source"] != "/tenants/matrix"
                    || seen["time"].as_i64() != time
                    || seen["hasData"] != true
                {
                    verdict.fail(format!("cloudevents read something else: {seen:.300}"));
                }
                read += 1;
            }
        }
    }
    println!("{profile:<18}{:<26}{:<39}ok {read}", "node cloudevents SDK", "");
}

/// During an overlap a receiver with the old secret and one with the new secret accept, within two attempts.
async fn overlap(stage: &Stage, verifiers: &mut Verifiers, profile: &str, verdict: &mut Verdict) {
    let path = format!("/overlap/{profile}");
    let tenant = format!("overlap-{profile}");
    let endpoint =
        stage.subscribe(&format!("http://{}{path}", stage.sink), &tenant, &format!("signature => '{profile}'")).await;
    let old = verifies_with(stage, &endpoint).await;
    stage.one(&format!("select outbox.rotate_secret({})", endpoint.id)).await;
    let new = stage
        .one(&format!(
            "select coalesce(k.public_key, s.secret) from outbox.signing_key k join outbox_relay.signing_secret s using (subscription_id, key_id)
             where subscription_id = {} and expires_at is null",
            endpoint.id
        ))
        .await
        .get::<_, String>(0);
    stage.publish(&tenant, r#"{"n": 1}"#).await.expect("published");
    let done = format!(
        "select count(*) = 1 from outbox.delivery where subscription_id = {} and state = 'succeeded'",
        endpoint.id
    );
    stage.wait_until("delivering", &done).await;
    let attempts = stage.take(&path);
    let mut cells = Vec::new();
    for &verifier in verifiers::of(profile) {
        for (which, secret) in [("old", &old), ("new", &new)] {
            let accepts: Vec<Option<bool>> = attempts
                .iter()
                .map(|a| verifiers.ask(verifier, a, &a.body, secret).map(|answer| answer.is_ok()))
                .collect();
            if accepts.contains(&Some(true)) {
                cells.push(format!(
                    "{which} {}",
                    if accepts.iter().all(|a| *a == Some(true)) { "every" } else { "one of two" }
                ));
            } else if accepts.iter().any(Option::is_some) {
                verdict
                    .fail(format!("{profile}: {verifier:?} accepts no attempt under the {which} secret of an overlap"));
            }
        }
    }
    cells.dedup();
    cells.sort();
    cells.dedup();
    println!("{profile:<18}{:<26}{}", "two live secrets", cells.join(", "));
}

/// What a receiver verifies with: the secret, or the public key.
async fn verifies_with(stage: &Stage, endpoint: &Endpoint) -> String {
    let row = stage
        .one(&format!(
            "select public_key from outbox.signing_key where subscription_id = {} order by created_at limit 1",
            endpoint.id
        ))
        .await;
    row.get::<_, Option<String>>(0).unwrap_or_else(|| endpoint.secret.clone())
}
