//! Payloads: real ones, and those that parsers and re-encoders damage.

use std::path::Path;

/// Python's json gives up at a depth of a thousand, PostgreSQL's somewhere above six thousand.
const DEPTH: usize = 900;

/// JSON texts as an application would insert them, named.
pub(crate) fn all(node_modules: &Path) -> Vec<(String, String)> {
    let mut bodies = vec![
        (
            "beyond 2^53".into(),
            r#"{"id": 9007199254740993, "negative": -9223372036854775809, "n": [9007199254740995, 1e400]}"#.into(),
        ),
        (
            "30 digits".into(),
            r#"{"amount": 123456789012345678901234567890.10, "small": 0.000000000000000000000000000001, "zero": 0.00}"#
                .into(),
        ),
        ("deep nesting".into(), format!("{}{{}}{}", r#"{"a":["#.repeat(DEPTH / 2), "]}".repeat(DEPTH / 2))),
        ("emoji".into(), r#"{"text": "👩‍👩‍👧‍👦 Grüße 日本語 \u2028 \u2029 </script>", "ключ": "ü"}"#.into()),
        ("escaped surrogate pair".into(), r#"{"text": "\ud83d\ude00 \uD83D\uDC69"}"#.into()),
        ("escapes".into(), r#"{"text": "\" \\ \/ \b \f \n \r \t \u0001 \u007f"}"#.into()),
        ("duplicate keys and spaces".into(), "{ \"b\" : 1 ,\n\t\"a\" : 2, \"b\": 3 }".into()),
        ("one megabyte".into(), format!(r#"{{"text": "{}"}}"#, "0123456789abcdef ".repeat(61_000))),
        ("empty object".into(), "{}".into()),
    ];
    // Real deliveries of GitHub, as its community collected them.
    let path = node_modules.join("@octokit/webhooks-examples/api.github.com/index.json");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let events: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    for event in &events {
        let name = event["name"].as_str().unwrap_or_default();
        for (n, example) in event["examples"].as_array().into_iter().flatten().enumerate() {
            bodies.push((format!("github {name} {n}"), example.to_string()));
        }
    }
    bodies
}

/// Texts that jsonb cannot hold: the producer hears of it, in its transaction.
pub(crate) const REFUSED: [&str; 3] = [r#"{"text": "\ud83d"}"#, r#"{"text": "\ude00\ud83d"}"#, r#"{"text": "\u0000"}"#];
