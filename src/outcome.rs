//! What came of one attempt: a name for it, and what is kept of the answer. Pure: no I/O, no clock.

use std::fmt;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};

use crate::egress::Refusal;

/// How one HTTP attempt ended. The names are those of `outbox.attempt.outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A 2xx answer was read to its end (or to the limit).
    Delivered,
    /// Any other answer, redirects included.
    Rejected,
    /// The deadline passed before the answer was complete.
    Timeout,
    /// The name has no address, or could not be resolved.
    DnsError,
    /// No address took the connection.
    ConnectError,
    /// The TLS handshake failed, or TLS broke afterwards.
    TlsError,
    /// The egress policy refuses an address of the host.
    EgressRefused,
    /// The connection worked and what came over it was not a whole HTTP answer.
    ProtocolError,
    /// The relay itself could not make the attempt.
    RelayError,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Rejected,
        Self::Timeout,
        Self::DnsError,
        Self::ConnectError,
        Self::TlsError,
        Self::EgressRefused,
        Self::ProtocolError,
        Self::RelayError,
    ];

    /// The name stored in the attempt log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::DnsError => "dns_error",
            Self::ConnectError => "connect_error",
            Self::TlsError => "tls_error",
            Self::EgressRefused => "egress_refused",
            Self::ProtocolError => "protocol_error",
            Self::RelayError => "relay_error",
        }
    }
}

/// One attempt as it goes into the attempt log.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// The status, as soon as one was read: a body that stalls or breaks leaves it set.
    pub status_code: Option<u16>,
    /// Why it is not `delivered`, for people; none when it is.
    pub error: Option<String>,
    /// The beginning of the answer's body as text PostgreSQL can hold; none if it is empty.
    pub response_excerpt: Option<String>,
    /// The answer's headers, as received; store them through [`headers_json`].
    pub response_headers: Option<HeaderMap>,
    /// The relay's host has run out of something: no request was made, and the receiver has no part in it.
    pub is_unmade: bool,
    /// How long the receiver asks to be left alone; read from 429 and 503 only.
    pub retry_after: Option<Duration>,
    /// When the attempt began.
    pub started_at: SystemTime,
    /// From its beginning to its outcome, on a clock that never jumps.
    pub latency: Duration,
    /// From its beginning to the first byte of the answer; none without one.
    pub first_byte: Option<Duration>,
}

/// Why there is no complete answer. The one list of failures that an attempt knows.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The deadline passed with nothing read of an answer: DNS, connecting, TLS and waiting count.
    #[error("no answer within {} ms", .0.as_millis())]
    NoAnswerInTime(Duration),
    /// The deadline passed in the middle of the answer's body.
    #[error("the answer's body was not complete within {} ms", .0.as_millis())]
    NoBodyInTime(Duration),
    /// The name could not be resolved.
    #[error("cannot resolve {host}: {reason}")]
    Dns {
        /// The name asked for.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The egress policy refuses.
    #[error("egress refused: {0}")]
    Egress(Refusal),
    /// No address took the connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// TLS failed.
    #[error("TLS failed, {fault}: {detail}")]
    Tls {
        /// In what, as stable words.
        fault: TlsFault,
        /// What the library says of it.
        detail: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// What came is not HTTP, is longer than its limits, or broke off.
    #[error("broken answer: {0}")]
    Protocol(String),
    /// The relay could not make the attempt.
    #[error("the relay could not send: {0}")]
    Relay(String),
    /// The relay's host has run out of what an attempt takes: files, sockets, memory. That is nobody's failure: the
    /// attempt counts as not made.
    #[error("the relay's host has run out: {0}")]
    Exhausted(String),
}

/// In what TLS failed. The words are stable: people search the attempt log for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not begun.
    NotYetValid,
    /// The certificate is for other names.
    WrongName,
    /// No authority that is trusted has issued it.
    UnknownIssuer,
    /// Anything else that is wrong with the certificate.
    Certificate,
    /// It is valid, and not the key that the subscription pins.
    Pin,
    /// The receiver wants a client certificate, or does not take the one shown.
    ClientCertificate,
    /// No common version or cipher, a broken record, a handshake cut short, something that is no TLS.
    Protocol,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "certificate expired",
            Self::NotYetValid => "certificate not yet valid",
            Self::WrongName => "certificate for another name",
            Self::UnknownIssuer => "unknown issuer",
            Self::Certificate => "bad certificate",
            Self::Pin => "pinned key missing",
            Self::ClientCertificate => "client certificate refused",
            Self::Protocol => "protocol",
        })
    }
}

impl Failure {
    /// The outcome this failure is recorded as.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::NoAnswerInTime(_) | Self::NoBodyInTime(_) => Outcome::Timeout,
            Self::Dns { .. } => Outcome::DnsError,
            Self::Egress(_) => Outcome::EgressRefused,
            Self::Connect(_) => Outcome::ConnectError,
            Self::Tls { .. } => Outcome::TlsError,
            Self::Closed | Self::Protocol(_) => Outcome::ProtocolError,
            Self::Relay(_) | Self::Exhausted(_) => Outcome::RelayError,
        }
    }

    /// What the system's error says of this host, if it has run out of something.
    pub fn exhausted(error: &std::io::Error) -> Option<Self> {
        use rustix::io::Errno;
        let errno = Errno::from_io_error(error)?;
        let is_exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno);
        is_exhausted.then(|| Self::Exhausted(error.to_string()))
    }

    /// The message for the attempt log: one line, bounded (a certificate's names, which the
    /// receiver chooses, can be long).
    pub fn message(&self) -> String {
        const MAX_MESSAGE_BYTES: usize = 300;
        let mut message = self.to_string().replace(char::is_control, " ");
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message
    }
}

/// What a complete answer of this status means. Redirects are never followed: they are refusals.
pub fn classify(status: StatusCode) -> Outcome {
    if status.is_success() { Outcome::Delivered } else { Outcome::Rejected }
}

/// The message for an answer that [`classify`] calls rejected, none for the others.
pub fn rejection(status: StatusCode) -> Option<String> {
    match classify(status) {
        Outcome::Delivered => None,
        _ if status.is_redirection() => Some(format!("answered {} (redirects are not followed)", status.as_u16())),
        _ => Some(format!("answered {}", status.as_u16())),
    }
}

/// Whether an answer of this status may ask for a pause with `retry-after`.
pub fn may_ask_for_pause(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The pause a `retry-after` header asks for (RFC 9110, section 10.2.3: seconds or an HTTP-date),
/// at most seven days; what lies in the past is zero, what is neither form is none.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let value = value.trim();
    let (negative, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let asked = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds is more than seven days.
        if negative { Duration::ZERO } else { digits.parse().map_or(LONGEST, Duration::from_secs) }
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(asked.min(LONGEST))
}

/// The first bytes of a body as text for PostgreSQL: bytes that are not UTF-8 become U+FFFD, NUL
/// (which `text` cannot hold) is left out, and a character cut in two at the end is dropped.
///
/// The result has at most `max_bytes` bytes. Hand in up to three bytes more than that, so that a
/// character at the cut can be told from an invalid one.
pub fn excerpt(body: Vec<u8>, max_bytes: usize) -> Option<String> {
    let mut text = match String::from_utf8(body) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    text.truncate(text.floor_char_boundary(max_bytes));
    if text.contains('\0') {
        text.retain(|character| character != '\0');
    }
    (!text.is_empty()).then_some(text)
}

/// Headers as the text of one JSON object, for `outbox.attempt.response_headers`.
///
/// Names are lower case, values of the same name are joined by `", "`, bytes that are not UTF-8
/// become U+FFFD. The value of a header that may hold a credential is replaced by `"(removed)"`.
/// Bounded: a value is cut at 1 KiB, and a header with which the text would pass 8 KiB is left out.
pub fn headers_json(headers: &HeaderMap) -> String {
    headers_json_without(headers, |_| false)
}

/// The same, but for the headers that `left_out` names.
pub fn headers_json_without(headers: &HeaderMap, left_out: impl Fn(&HeaderName) -> bool) -> String {
    const MAX_JSON_BYTES: usize = 8 * 1024;
    const MAX_VALUE_BYTES: usize = 1024;
    let mut json = String::with_capacity(256);
    json.push('{');
    let mut value = String::new();
    for name in headers.keys().filter(|name| !left_out(name)) {
        value.clear();
        if holds_credential(name) {
            value.push_str("(removed)");
        } else {
            join_values(headers, name, MAX_VALUE_BYTES, &mut value);
        }
        let before = json.len();
        if before > 1 {
            json.push(',');
        }
        push_json_string(&mut json, name.as_str());
        json.push(':');
        push_json_string(&mut json, &value);
        if json.len() >= MAX_JSON_BYTES {
            json.truncate(before);
        }
    }
    json.push('}');
    json
}

/// Whether a header's name says that its value may be a credential.
fn holds_credential(name: &HeaderName) -> bool {
    const EXACT: [&str; 5] = ["set-cookie", "set-cookie2", "cookie", "www-authenticate", "proxy-authenticate"];
    const PART: [&str; 9] = [
        "authorization",
        "authentication",
        "token",
        "secret",
        "password",
        "api-key",
        "apikey",
        "session",
        "credential",
    ];
    let name = name.as_str();
    EXACT.contains(&name) || PART.iter().any(|part| name.contains(part))
}

fn join_values(headers: &HeaderMap, name: &HeaderName, max_bytes: usize, joined: &mut String) {
    for (position, value) in headers.get_all(name).iter().enumerate() {
        if position > 0 {
            joined.push_str(", ");
        }
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        if joined.len() > max_bytes {
            joined.truncate(joined.floor_char_boundary(max_bytes));
            joined.push('…');
            break;
        }
    }
}

/// Appends a JSON string literal (RFC 8259, section 7).
fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            // A header value may hold a tab and no other control character; PostgreSQL's jsonb
            // would refuse U+0000.
            control if control < ' ' => json.push(' '),
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-02 03:04:05 UTC.
    const NOW: Duration = Duration::from_secs(1_767_323_045);

    fn pause(value: &str) -> Option<u64> {
        retry_after(value, SystemTime::UNIX_EPOCH + NOW).map(|pause| pause.as_secs())
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        const WEEK: u64 = 604_800;
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("  7 ", Some(7)),
            ("007", Some(7)),
            ("-5", Some(0)),
            ("604800", Some(WEEK)),
            ("604801", Some(WEEK)),
            ("99999999999999999999999999", Some(WEEK)),
            ("-99999999999999999999999999", Some(0)),
            ("Fri, 02 Jan 2026 03:05:05 GMT", Some(60)),
            ("Friday, 02-Jan-26 03:04:15 GMT", Some(10)),
            ("Fri Jan  2 03:04:06 2026", Some(1)),
            ("Fri, 02 Jan 2026 03:04:05 GMT", Some(0)),
            ("Thu, 01 Jan 2015 00:00:00 GMT", Some(0)),
            ("Fri, 02 Jan 2099 03:04:05 GMT", Some(WEEK)),
            ("", None),
            ("-", None),
            ("+5", None),
            ("1.5", None),
            ("5s", None),
            ("5, 6", None),
            ("soon", None),
            ("2026-01-02T03:04:05Z", None),
        ] {
            assert_eq!(pause(value), expected, "{value:?}");
        }
    }

    #[test]
    fn only_2xx_is_delivered() {
        for code in 100..1000 {
            let Ok(status) = StatusCode::from_u16(code) else { continue };
            let delivered = (200..300).contains(&code);
            assert_eq!(classify(status) == Outcome::Delivered, delivered, "{code}");
            assert_eq!(rejection(status).is_none(), delivered, "{code}");
        }
        assert_eq!(rejection(StatusCode::INTERNAL_SERVER_ERROR).as_deref(), Some("answered 500"));
    }

    #[test]
    fn an_excerpt_is_text_that_postgresql_holds() {
        assert_eq!(excerpt(b"".to_vec(), 10), None);
        assert_eq!(excerpt(b"\0\0".to_vec(), 10), None);
        assert_eq!(excerpt(b"a\0b".to_vec(), 10).as_deref(), Some("ab"));
        assert_eq!(excerpt(b"ab\xffcd".to_vec(), 10).as_deref(), Some("ab\u{fffd}cd"));
        // "é" has two bytes and the cut falls between them.
        assert_eq!(excerpt("abé".as_bytes().to_vec(), 3).as_deref(), Some("ab"));
        assert_eq!(excerpt("abé".as_bytes().to_vec(), 4).as_deref(), Some("abé"));
    }

    #[test]
    fn headers_become_one_object_without_credentials() {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("text/plain; a=\"b\\c\""));
        headers.append("via", HeaderValue::from_static("one"));
        headers.append("via", HeaderValue::from_static("two"));
        headers.append("set-cookie", HeaderValue::from_static("sid=hunter2"));
        headers.append("proxy-authorization", HeaderValue::from_static("Basic hunter2"));
        headers.append("x-csrf-token", HeaderValue::from_static("hunter2"));
        headers.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").expect("a header value"));
        let json: serde_json::Value = serde_json::from_str(&headers_json(&headers)).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "content-type": "text/plain; a=\"b\\c\"",
                "via": "one, two",
                "set-cookie": "(removed)",
                "proxy-authorization": "(removed)",
                "x-csrf-token": "(removed)",
                "x-latin": "caf\u{fffd}",
            })
        );
        assert_eq!(headers_json(&HeaderMap::new()), "{}");
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let detail = format!("bad\r\nname {}", "ä".repeat(1000));
        let message = Failure::Tls { fault: TlsFault::WrongName, detail }.message();
        assert!(message.starts_with("TLS failed, certificate for another name: bad  name "), "{message}");
        assert!(message.len() <= 300);
    }

    proptest! {
        #[test]
        fn any_body_gives_a_bounded_excerpt(body in proptest::collection::vec(any::<u8>(), 0..200), max in 0usize..64) {
            let kept: Vec<u8> = body.iter().copied().take(max + 3).collect();
            if let Some(text) = excerpt(kept, max) {
                prop_assert!(text.len() <= max && !text.contains('\0') && !text.is_empty());
            }
        }

        #[test]
        fn any_headers_give_bounded_json(
            values in proptest::collection::vec(("[a-z]{1,12}", proptest::collection::vec(9u8..=255, 0..3000)), 0..40)
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in values {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
                    headers.append(name, value);
                }
            }
            let json = headers_json(&headers);
            prop_assert!(json.len() <= 8 * 1024);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok_and(|json| json.is_object()));
        }

        #[test]
        fn any_retry_after_is_at_most_a_week(value in "\\PC{0,40}") {
            prop_assert!(pause(&value).is_none_or(|seconds| seconds <= 604_800));
        }
    }
}
