//! What is read of an answer, against slow readings of the same.

use super::*;
use hyper::header::HeaderValue;
use proptest::prelude::*;

const WEEK_S: u64 = 604_800;

proptest! {
    #[test]
    fn seconds_are_compared_as_text(blank in "[ \t]{0,2}", minus in "-?", digits in "[0-9]{1,40}") {
        let value = format!("{blank}{minus}{digits}{blank}");
        let significant = digits.trim_start_matches('0');
        let expected = match (minus.as_str(), significant.len()) {
            ("-", _) | (_, 0) => 0,
            // As many digits: compared digit by digit.
            (_, 6) if significant <= "604800" => significant.parse().expect("six digits"),
            (_, 1..=5) => significant.parse().expect("few digits"),
            _ => WEEK_S,
        };
        prop_assert_eq!(retry_after(&value, SystemTime::UNIX_EPOCH), Some(Duration::from_secs(expected)), "{:?}", value);
    }

    #[test]
    fn a_date_is_so_far_away(now in 0..4_000_000_000u64, ahead in -2_000_000i64..2_000_000, nanos in 0..1_000_000_000u32) {
        let Some(due) = now.checked_add_signed(ahead) else { return Ok(()) };
        let value = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(due));
        let now = SystemTime::UNIX_EPOCH + Duration::new(now, nanos);
        let pause = retry_after(&value, now).expect("a date");
        // The clock is finer than a date.
        let expected = Duration::from_secs(due).saturating_sub(now.duration_since(SystemTime::UNIX_EPOCH).expect("later"));
        prop_assert_eq!(pause, expected.min(Duration::from_secs(WEEK_S)));
    }

    #[test]
    fn any_value_is_a_bounded_pause_or_none(value in prop_oneof!["\\PC{0,40}", "[-+0-9.eE ,]{0,30}", "[A-Za-z]{3},? [0-9]{1,2}[ -][A-Za-z]{3}[ -][0-9]{2,5} [0-9:]{5,9} GMT"]) {
        prop_assert!(retry_after(&value, SystemTime::UNIX_EPOCH).is_none_or(|pause| pause.as_secs() <= WEEK_S));
    }

    #[test]
    fn headers_are_kept_as_a_plain_reader_has_them(
        lines in proptest::collection::vec(
            (
                prop_oneof!["[a-z][a-z0-9-]{0,12}", "x-(token|secret|session|api-key|apikey|password|credential)(-[a-z]{1,3})?",
                    "set-cookie2?|cookie|authorization|www-authenticate|proxy-authenticate|x-authentication-info"],
                proptest::collection::vec(prop_oneof![Just(9u8), 0x20u8..=0x7e, 0x80u8..=0xff], 0..40),
            ),
            0..12,
        )
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &lines {
            headers.append(HeaderName::try_from(name).expect("a name"), HeaderValue::from_bytes(value).expect("a value"));
        }
        let mut expected = serde_json::Map::new();
        for (name, _) in &lines {
            let values: Vec<String> = lines.iter().filter(|(other, _)| other == name)
                .map(|(_, value)| String::from_utf8_lossy(value).replace('\t', " ")).collect();
            let is_secret = ["auth", "cookie", "token", "secret", "session", "api-key", "apikey", "password", "credential"]
                .iter().any(|word| name.contains(word));
            // As far as the random names go, "auth" alone is in none but those of credentials.
            let kept = if is_secret { "(removed)".to_owned() } else { values.join(", ") };
            expected.insert(name.clone(), kept.into());
        }
        prop_assume!(!lines.iter().any(|(name, _)| name.contains("auth") && !name.contains("authorization") && !name.contains("authentica")));
        let json: serde_json::Value = serde_json::from_str(&headers_json(&headers)).expect("JSON");
        prop_assert_eq!(json, serde_json::Value::from(expected));
    }

    #[test]
    fn a_message_of_anything_is_one_bounded_line(text in any::<String>()) {
        let repeated = text.repeat(20);
        for failure in [Failure::Tls { fault: TlsFault::Protocol, detail: repeated.clone() }, Failure::Dns { host: repeated.clone(), reason: repeated }] {
            let message = failure.message();
            prop_assert!(message.len() <= 300 && !message.contains(char::is_control));
        }
    }

    #[test]
    fn an_excerpt_is_what_the_body_began_with(body in proptest::collection::vec(prop_oneof![Just(0u8), 0x20u8..0x7f, any::<u8>()], 0..120), max in 0usize..64) {
        let kept: Vec<u8> = body.iter().copied().take(max + 3).collect();
        let text = excerpt(kept, max).unwrap_or_default();
        // All of it is there, but for NUL and what was cut.
        let whole: String = String::from_utf8_lossy(&body).chars().filter(|character| *character != '\0').collect();
        prop_assert!(whole.starts_with(text.trim_end_matches('\u{fffd}')), "{:?} of {:?}", text, whole);
        prop_assert!(text.len() <= max);
    }
}
