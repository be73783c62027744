//! Whatever is asked: judged by the document without a panic, handed on as it came, never repeated in a refusal.

use super::super::document::{Document, Found};
use super::*;
use hyper::Method;
use proptest::prelude::*;
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| Document::embedded().expect("a good document"));

/// Every operation that takes a body, and every path.
static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let paths = DOCUMENT.value["paths"].as_object().expect("paths");
    paths.keys().cloned().collect()
});

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Where one of these stands, a refusal must not show it.
const SECRET: &str = "hunter2";

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(|text| Value::from(format!("{text}{SECRET}"))),
        proptest::sample::select(
            &["https://hooks.example.com/", "*", "order.created", "standard", "{}", "1 day", "2026-01-01T00:00:00Z"][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let name = prop_oneof![
            3 => proptest::sample::select(&["url", "event_types", "secret", "headers", "filter", "type", "payload", "metadata", "token", "deliveries",
                "reason", "value", "schema", "since", "until", "timeout", "name", "tenant_id", "overlap"][..]).prop_map(str::to_owned),
            1 => "\\PC{0,6}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn filled(path: &str, segment: &str) -> String {
    let segments = path.split('/').map(|part| if part.starts_with('{') { segment } else { part });
    segments.collect::<Vec<_>>().join("/")
}

/// Everything that a refusal tells.
fn told(problem: Problem) -> String {
    format!("{problem:?}")
}

proptest! {
    #[test]
    fn a_body_is_handed_on_byte_for_byte_or_refused_unrepeated(
        path in any::<proptest::sample::Index>(), method in proptest::sample::select(&METHODS[..]),
        value in any_value(), is_pretty in any::<bool>(), blank in "[ \n]{0,2}", garbage in proptest::option::weighted(0.1, "\\PC{1,4}"),
    ) {
        let path = filled(&PATHS[path.index(PATHS.len())], "1");
        let found: Found<'_> = DOCUMENT.at(&path).expect("a path of the document");
        let Some(operation) = found.operation(&method) else { return Ok(()) };
        let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
        let text = format!("{blank}{text}{blank}{}", garbage.unwrap_or_default());
        match judged_body(operation, Bytes::from(text.clone()), true) {
            Ok(None) => prop_assert!(operation.body.is_none()),
            Ok(Some(raw)) => prop_assert_eq!(raw.get(), text.trim_matches([' ', '\n'])),
            Err(problem) => prop_assert!(!told(problem).contains(SECRET), "{} {}", path, text),
        }
    }

    #[test]
    fn any_bytes_are_a_body_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..64), depth in 0..2000usize) {
        let found = DOCUMENT.at("/events").expect("a path");
        let operation = found.operation(&Method::POST).expect("an operation");
        let nested = [vec![b'['; depth], bytes.clone(), vec![b']'; depth]].concat();
        for body in [bytes, nested] {
            let _ = judged_body(operation, Bytes::from(body), true);
        }
    }

    #[test]
    fn any_path_and_query_is_read_or_refused(
        path in any::<proptest::sample::Index>(), segment in prop_oneof!["[0-9]{1,22}", "[0-9]{1,19}-[0-9]{1,19}", "(%[0-9a-fA-F]{2}|[!-.0-~]){1,12}"],
        wild in proptest::option::weighted(0.2, "/(%[0-9a-f]{2}|[!-~]){0,20}"),
        query in prop_oneof!["((limit|cursor|state|type|since|until)=(%[0-9a-f]{2}|[!-~]){0,12}&?){0,4}", "[!-~]{0,30}"],
    ) {
        let path = wild.unwrap_or_else(|| filled(&PATHS[path.index(PATHS.len())], &segment));
        let Some(found) = DOCUMENT.at(&path) else { return Ok(()) };
        for (_, value) in &found.in_path {
            prop_assert!(percent_encoding::percent_decode_str(&path).decode_utf8_lossy().contains(value.as_str()), "{} in {}", value, path);
        }
        for operation in METHODS.iter().filter_map(|method| found.operation(method)) {
            // What fits is of the type that the document gives it; a cursor is judged by its list.
            if let Ok(given) = parameters(operation, &found.in_path, &query)
                && let Some(limit) = given.get("limit")
            {
                prop_assert!(limit.get().parse::<u16>().is_ok_and(|limit| limit > 0), "{}", limit.get());
            }
        }
    }
}
