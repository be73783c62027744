//! What receivers get, from the catalog: the section `webhooks` of `/openapi.json`, for typed handlers.

use super::problem::Problem;
use super::{Admin, Reply, json};
use crate::db::{CatalogEntry, Event};
use crate::envelope::Envelope;
use crate::sign::Profile;
use hyper::StatusCode;
use serde_json::{Map, Value, json as object};
use std::time::{Duration, SystemTime};

/// GET /openapi.json: the document with what receivers get. `?signature=` and `?envelope=` choose how.
pub(crate) async fn openapi(admin: &Admin, query: &str) -> Result<Reply, Problem> {
    let (mut signature, mut envelope) = (Profile::default(), Envelope::default());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let bad = |what: &str| Problem::bad_request(&format!("query {name}: there is no such {what}"));
        match name.as_ref() {
            "signature" => signature = Profile::from_name(&value).ok_or_else(|| bad("signature profile"))?,
            "envelope" => envelope = Envelope::from_name(&value).ok_or_else(|| bad("envelope"))?,
            _ => return Err(bad("parameter")),
        }
    }
    let catalog = admin.seat.catalog().await?;
    let mut document = admin.document.value.clone();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    add_webhooks(&mut document, &catalog, signature, envelope);
    Ok(json(StatusCode::OK, document.to_string()))
}

/// Adds a webhook for each event type: its body in the envelope, its schema among the components, its headers.
fn add_webhooks(document: &mut Value, catalog: &[CatalogEntry], signature: Profile, envelope: Envelope) {
    let mut webhooks = Map::new();
    for entry in catalog {
        let component = format!("event.{}", entry.kind);
        document["components"]["schemas"][&component] = payload_schema(entry, &component);
        let data = object!({"$ref": format!("#/components/schemas/{component}")});
        let example = entry.example.as_deref().and_then(|example| serde_json::from_str::<Value>(example).ok());
        let mut media = object!({"schema": schema_of(envelope, &entry.kind, data)});
        if let Some(example) = example {
            media["example"] = example_of(envelope, &entry.kind, &example);
        }
        let mut content = Map::new();
        content.insert(envelope.content_type().to_owned(), media);
        let version = entry.version.as_ref().map(|version| format!(" (version {version})")).unwrap_or_default();
        webhooks.insert(
            entry.kind.clone(),
            object!({"post": {
                "operationId": format!("on.{}", entry.kind),
                "summary": format!("{}{version}", entry.kind),
                "description": entry.description.clone().unwrap_or_default(),
                "x-version": entry.version,
                "parameters": headers_of(signature).iter().map(|(name, description)| object!({
                    "name": name, "in": "header", "required": true, "description": description, "schema": {"type": "string"}
                })).collect::<Vec<_>>(),
                "requestBody": {"required": true, "content": content},
                "responses": {
                    "2XX": {"description": "Received: it will not be sent again."},
                    "410": {"description": "Gone: the subscription is disabled."},
                    "429": {"description": "Too many: Retry-After is honoured within the retry policy's bounds."},
                    "default": {"description": "Sent again on the schedule of the retry policy."}
                },
                "security": []
            }}),
        );
    }
    document["webhooks"] = Value::Object(webhooks);
}

/// The schema as it was defined, with its local references pointing to where it stands now. One that is no JSON
/// Schema would break every tool that reads the document: it is left out, and said so.
fn payload_schema(entry: &CatalogEntry, component: &str) -> Value {
    let anything = |description: &str| object!({"description": description});
    let Some(schema) = entry.schema.as_deref() else { return anything("Any JSON: the catalog has no schema for it.") };
    match serde_json::from_str::<Value>(schema) {
        Ok(mut schema) if is_schema(&schema) => {
            point_references(&mut schema, &format!("#/components/schemas/{component}"));
            if let Some(schema) = schema.as_object_mut() {
                // An identity of its own would make the references relative to it again.
                schema.remove("$schema");
                schema.remove("$id");
            }
            schema
        }
        Ok(Value::Bool(true)) => anything("Any JSON."),
        Ok(Value::Bool(false)) => object!({"not": {}}),
        _ => anything("Any JSON: the schema in the catalog is not valid JSON Schema."),
    }
}

/// Whether it is a JSON Schema of the dialect that OpenAPI 3.1 speaks, whatever dialect it names.
fn is_schema(schema: &Value) -> bool {
    let mut schema = schema.clone();
    let named = schema.as_object_mut().map(|members| members.remove("$schema"));
    named.is_some() && jsonschema::draft202012::meta::is_valid(&schema)
}

fn point_references(schema: &mut Value, here: &str) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "$ref").and_then(|reference| reference.strip_prefix('#')) {
                    Some(local) => *value = Value::from(format!("{here}{local}")),
                    None => point_references(value, here),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| point_references(element, here)),
        _ => {}
    }
}

/// The headers of a profile, besides content-type and user-agent.
fn headers_of(signature: Profile) -> &'static [(&'static str, &'static str)] {
    const ID: &str = "The event's id: the same in every attempt, so that a repetition is known.";
    const TIME: &str = "Seconds since 1970, of the attempt.";
    match signature {
        Profile::Standard => &[
            ("webhook-id", ID),
            ("webhook-timestamp", TIME),
            (
                "webhook-signature",
                "`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`; one for each live key, with spaces between.",
            ),
        ],
        Profile::StandardEd25519 => &[
            ("webhook-id", ID),
            ("webhook-timestamp", TIME),
            (
                "webhook-signature",
                "`v1a,` and the base64 of the ed25519 signature of `id.timestamp.body`; one for each live key, with spaces between.",
            ),
        ],
        Profile::XSignature => &[
            ("X-Webhook-Id", ID),
            ("X-Timestamp", TIME),
            ("X-Signature-Key-Id", "The key that signed."),
            ("X-Signature", "The HMAC-SHA256 of the body in hex."),
        ],
        Profile::XWebhook => &[
            ("X-Webhook-ID", ID),
            ("X-Webhook-Timestamp", TIME),
            ("X-Webhook-Signature", "`sha256=` and the HMAC-SHA256 of the body in hex."),
        ],
        Profile::Github => &[
            ("X-GitHub-Event", "The event's type."),
            ("X-GitHub-Delivery", ID),
            ("X-Hub-Signature-256", "`sha256=` and the HMAC-SHA256 of the body in hex."),
        ],
        Profile::Stripe => &[(
            "Stripe-Signature",
            "`t=` seconds since 1970 of the attempt, and `v1=` the HMAC-SHA256 of `t.body` in hex for each live key, with commas between.",
        )],
    }
}

/// The schema of a body in the envelope.
fn schema_of(envelope: Envelope, kind: &str, data: Value) -> Value {
    let id = object!({"type": "string", "format": "uuid"});
    let (kind, text) = (object!({"type": "string", "const": kind}), object!({"type": "string"}));
    let time = object!({"type": "string", "format": "date-time"});
    let properties = match envelope {
        Envelope::Standard => object!({"id": id, "type": kind, "timestamp": time, "tenant_id": text, "data": data}),
        Envelope::Event => object!({"id": id, "type": kind, "tenant": text, "occurred_at": time, "payload": data}),
        Envelope::Resource => object!({
            "id": {"type": "string", "pattern": "^evt_[0-9a-f]{32}$"}, "type": kind, "created_at": time,
            "data": {"type": "object", "required": ["object"], "properties": {"object": data}}, "workspace_id": text
        }),
        Envelope::CloudEvents => object!({
            "specversion": {"type": "string", "const": "1.0"}, "id": id, "source": {"type": "string", "format": "uri-reference"},
            "type": kind, "time": time, "datacontenttype": {"type": "string"}, "tenantid": text, "data": data
        }),
        Envelope::Payload => return data,
    };
    let required: Vec<&String> = properties.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    object!({"type": "object", "required": required, "properties": properties})
}

/// A body as it is sent, with this payload.
fn example_of(envelope: Envelope, kind: &str, payload: &Value) -> Value {
    let event = Event {
        seq: 1,
        id: uuid::Uuid::from_u128(0x019a_0b53_b6dd_754a_8427_1a88_eae6_ed6e),
        tenant_id: "default".into(),
        kind: kind.into(),
        payload: payload.to_string(),
        occurred_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045),
        traceparent: None,
    };
    envelope.body(&event).ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(schema: &str) -> CatalogEntry {
        CatalogEntry {
            kind: "order.paid".into(),
            description: None,
            version: Some("2".into()),
            schema: Some(schema.into()),
            example: Some(r#"{"a": 1}"#.into()),
        }
    }

    #[test]
    fn a_schema_keeps_its_references_where_it_stands() {
        let schema =
            r##"{"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}}"##;
        let mut document = object!({"components": {"schemas": {}}});
        add_webhooks(&mut document, &[entry(schema)], Profile::default(), Envelope::default());
        let payload = &document["components"]["schemas"]["event.order.paid"];
        assert_eq!(payload["properties"]["a"]["$ref"], "#/components/schemas/event.order.paid/$defs/A");
        let post = &document["webhooks"]["order.paid"]["post"];
        assert_eq!(post["requestBody"]["content"]["application/json"]["example"]["data"]["a"], 1);
        assert_eq!(post["parameters"][2]["name"], "webhook-signature");
    }

    #[test]
    fn a_schema_that_is_none_does_not_break_the_document() {
        for schema in [r#"{"type": 5}"#, "7", "true", r#"{"$schema": "https://example.com/none", "type": 5}"#] {
            let mut document = object!({"components": {"schemas": {}}});
            add_webhooks(&mut document, &[entry(schema)], Profile::default(), Envelope::default());
            assert!(document["components"]["schemas"]["event.order.paid"]["type"].is_null());
        }
    }

    #[test]
    fn every_envelope_and_profile_has_a_description_that_its_example_fits() {
        for name in ["standard", "event", "resource", "cloudevents", "payload"] {
            let envelope = Envelope::from_name(name).expect("an envelope");
            let schema = schema_of(envelope, "order.paid", object!({"type": "object", "required": ["a"]}));
            let example = example_of(envelope, "order.paid", &object!({"a": 1}));
            assert!(jsonschema::is_valid(&schema, &example), "{name}: {example}");
        }
        for name in ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"] {
            assert!(!headers_of(Profile::from_name(name).expect("a profile")).is_empty());
        }
    }
}
