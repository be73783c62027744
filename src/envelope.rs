//! Envelopes: the body of a request. Pure, and the same bytes for every attempt of a delivery.
//!
//! The payload is spliced in as PostgreSQL wrote it, never parsed: a parser would turn numbers into
//! floats and change what was stored.

use crate::db::Event;
use bytes::Bytes;
use jiff::Timestamp;

/// The shape of the body; a name in `outbox.subscription.envelope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// `{"id","type","timestamp","tenant_id","data"}`
    #[default]
    Standard,
    /// `{"id","type","tenant","occurred_at","payload"}`
    Event,
    /// `{"id":"evt_…","type","created_at","data":{"object"},"workspace_id"}`
    Resource,
    /// [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md), structured.
    CloudEvents,
    /// The payload alone.
    Payload,
}

impl Envelope {
    /// The envelope of that name, if this version speaks it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "standard" => Some(Self::Standard),
            "event" => Some(Self::Event),
            "resource" => Some(Self::Resource),
            "cloudevents" => Some(Self::CloudEvents),
            "payload" => Some(Self::Payload),
            _ => None,
        }
    }

    /// What the body is. CloudEvents' HTTP binding knows structured mode by its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json",
            Self::Standard | Self::Event | Self::Resource | Self::Payload => "application/json",
        }
    }

    /// The body for an event.
    ///
    /// # Errors
    /// If `occurred_at` cannot be written as RFC 3339 (the database refuses such events).
    pub fn body(self, event: &Event) -> Result<Bytes, BodyError> {
        let occurred_at = Timestamp::try_from(event.occurred_at).map_err(|_| BodyError)?;
        let (id, time) = (event.id, occurred_at);
        let (kind, tenant, payload) = (json(&event.kind), json(&event.tenant_id), &event.payload);
        Ok(Bytes::from(match self {
            Self::Standard => {
                format!(r#"{{"id":"{id}","type":{kind},"timestamp":"{time}","tenant_id":{tenant},"data":{payload}}}"#)
            }
            Self::Event => {
                format!(r#"{{"id":"{id}","type":{kind},"tenant":{tenant},"occurred_at":"{time}","payload":{payload}}}"#)
            }
            Self::Resource => format!(
                r#"{{"id":"evt_{}","type":{kind},"created_at":"{time}","data":{{"object":{payload}}},"workspace_id":{tenant}}}"#,
                id.simple()
            ),
            // source and id together are unique, as the specification demands; tenantid is an extension attribute.
            Self::CloudEvents => format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"/tenants/{}","type":{kind},"time":"{time}","datacontenttype":"application/json","tenantid":{tenant},"data":{payload}}}"#,
                percent_encoded(&event.tenant_id)
            ),
            Self::Payload => payload.clone(),
        }))
    }
}

/// The event's time is outside what RFC 3339 can say.
#[derive(Debug, thiserror::Error)]
#[error("occurred_at of the event is outside the years that RFC 3339 can write")]
pub struct BodyError;

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// For one segment of a path: all but the unreserved characters of RFC 3986, 2.3.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime};

    fn event(kind: &str, tenant_id: &str, payload: &str) -> Event {
        Event {
            seq: 1,
            id: uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
            tenant_id: tenant_id.into(),
            kind: kind.into(),
            payload: payload.into(),
            occurred_at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            traceparent: None,
        }
    }

    #[test]
    fn numbers_stay_digit_for_digit() {
        let body =
            Envelope::Standard.body(&event("a.b", "t", r#"{"n": 123456789012345678901234567890.10}"#)).expect("a body");
        assert_eq!(
            body,
            r#"{"id":"01900000-0000-7000-8000-000000000001","type":"a.b","timestamp":"2023-11-14T22:13:20.123456Z","tenant_id":"t","data":{"n": 123456789012345678901234567890.10}}"#
        );
    }

    proptest! {
        #[test]
        fn every_envelope_is_json_that_says_what_the_event_says(tenant in ".{0,40}", text in ".{0,80}") {
            let payload = serde_json::json!({ "text": text });
            let event = event("order.created", &tenant, &payload.to_string());
            let standard: serde_json::Value = serde_json::from_slice(&Envelope::Standard.body(&event).expect("a body")).expect("JSON");
            prop_assert_eq!(&standard["data"], &payload);
            prop_assert_eq!(&standard["tenant_id"], &tenant);
            let plain: serde_json::Value = serde_json::from_slice(&Envelope::Event.body(&event).expect("a body")).expect("JSON");
            prop_assert_eq!(&plain["payload"], &payload);
            prop_assert_eq!(&plain["tenant"], &tenant);
            let resource: serde_json::Value = serde_json::from_slice(&Envelope::Resource.body(&event).expect("a body")).expect("JSON");
            prop_assert_eq!(&resource["data"]["object"], &payload);
            prop_assert_eq!((&resource["workspace_id"], &resource["id"]), (&tenant.clone().into(), &"evt_01900000000070008000000000000001".into()));
            let cloud: serde_json::Value = serde_json::from_slice(&Envelope::CloudEvents.body(&event).expect("a body")).expect("JSON");
            prop_assert_eq!((&cloud["data"], &cloud["tenantid"]), (&payload, &tenant.clone().into()));
            let source = cloud["source"].as_str().expect("a string");
            prop_assert!(url::Url::parse("https://example.com").expect("a URL").join(source).is_ok(), "{}", source);
            let alone: serde_json::Value = serde_json::from_slice(&Envelope::Payload.body(&event).expect("a body")).expect("JSON");
            prop_assert_eq!(&alone, &payload);
        }
    }
}
