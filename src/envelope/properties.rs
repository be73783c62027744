//! Every envelope, byte for byte, against a builder that is slow and plain.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

/// A JSON string, one character after the other (RFC 8259, 7).
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => json += "\\\"",
            '\\' => json += "\\\\",
            '\u{8}' => json += "\\b",
            '\u{c}' => json += "\\f",
            '\n' => json += "\\n",
            '\r' => json += "\\r",
            '\t' => json += "\\t",
            control if control < ' ' => json += &format!("\\u{:04x}", u32::from(control)),
            other => json.push(other),
        }
    }
    json + "\""
}

/// RFC 3339, counted day by day from the calendar's 400 years of 146,097 days.
fn written(micros: i64) -> String {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (mut year, mut day) = (1970 + 400 * days.div_euclid(146_097), days.rem_euclid(146_097));
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    while day >= if is_leap(year) { 366 } else { 365 } {
        day -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    let mut month = 1;
    for length in [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let fraction = format!(".{micros:06}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z", day + 1)
}

const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn reference(envelope: Envelope, event: &Event, micros: i64) -> String {
    let hex: String = event.id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    let (kind, tenant, payload, time) =
        (quoted(&event.kind), quoted(&event.tenant_id), &event.payload, quoted(&written(micros)));
    let members: Vec<(&str, String)> = match envelope {
        Envelope::Payload => return payload.clone(),
        Envelope::Standard => vec![
            ("id", quoted(&id)),
            ("type", kind),
            ("timestamp", time),
            ("tenant_id", tenant),
            ("data", payload.clone()),
        ],
        Envelope::Event => vec![
            ("id", quoted(&id)),
            ("type", kind),
            ("tenant", tenant),
            ("occurred_at", time),
            ("payload", payload.clone()),
        ],
        Envelope::Resource => vec![
            ("id", quoted(&format!("evt_{hex}"))),
            ("type", kind),
            ("created_at", time),
            ("data", format!("{{\"object\":{payload}}}")),
            ("workspace_id", tenant),
        ],
        Envelope::CloudEvents => {
            let segment = percent_encoding::utf8_percent_encode(&event.tenant_id, UNRESERVED);
            vec![
                ("specversion", quoted("1.0")),
                ("id", quoted(&id)),
                ("source", quoted(&format!("/tenants/{segment}"))),
                ("type", kind),
                ("time", time),
                ("datacontenttype", quoted("application/json")),
                ("tenantid", tenant),
                ("data", payload.clone()),
            ]
        }
    };
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// JSON as people and PostgreSQL write it: numbers that no float holds, blanks, escapes, nulls, nesting.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "null|true|false",
        "-?(0|[1-9][0-9]{0,60})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|text| quoted(&text)),
        "(\\\\u[0-9a-f]{4}|\\\\n|\\\\/|[ -!#-\\[\\]-~]){0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    let nested = (leaf.clone(), 0..400usize).prop_map(|(leaf, depth)| {
        let (open, close) = if depth % 2 == 0 { ("[", "]") } else { ("{\"a\": ", "}") };
        format!("{}{leaf}{}", open.repeat(depth), close.repeat(depth))
    });
    let tree = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::vec(("\\PC{0,6}", inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(name, value)| format!("{}: {value}", quoted(name))).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    });
    prop_oneof![3 => tree, 1 => nested]
}

const ENVELOPES: [Envelope; 5] =
    [Envelope::Standard, Envelope::Event, Envelope::Resource, Envelope::CloudEvents, Envelope::Payload];

proptest! {
    #[test]
    fn every_envelope_is_the_plain_builders_byte_for_byte(
        payload in any_json(),
        kind in "[A-Za-z0-9_-]{1,12}(\\.[A-Za-z0-9_-]{1,12}){0,3}",
        tenant_id in any::<String>(),
        id in any::<u128>(),
        // The years that the database takes: 0001-01-01 to 9999-12-30 22:00.
        micros in -62_135_596_800_000_000i64..253_402_207_200_000_000,
    ) {
        let since = Duration::from_micros(micros.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let occurred_at = if micros < 0 { epoch - since } else { epoch + since };
        let event = Event { seq: 1, id: uuid::Uuid::from_u128(id), tenant_id, kind, payload, occurred_at, traceparent: None };
        for envelope in ENVELOPES {
            let body = envelope.body(&event).expect("a body");
            prop_assert_eq!(String::from_utf8_lossy(&body), reference(envelope, &event, micros), "{:?}", envelope);
            prop_assert_eq!(&body, &envelope.body(&event).expect("a body"), "the same in every attempt");
        }
    }

    #[test]
    fn any_time_is_a_body_or_an_error(seconds in any::<i64>(), nanos in 0..1_000_000_000u32) {
        let since = Duration::new(seconds.unsigned_abs(), nanos);
        let epoch = SystemTime::UNIX_EPOCH;
        let Some(occurred_at) = (if seconds < 0 { epoch.checked_sub(since) } else { epoch.checked_add(since) }) else { return Ok(()) };
        let event = Event { seq: 1, id: uuid::Uuid::nil(), tenant_id: "t".into(), kind: "a".into(), payload: "1".into(), occurred_at, traceparent: None };
        let is_writable = Envelope::Standard.body(&event).is_ok();
        prop_assert_eq!(is_writable, Envelope::CloudEvents.body(&event).is_ok());
    }
}
