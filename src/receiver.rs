//! A receiver for development: what the other side does with a request. Used by `outboxd listen`, the
//! demo, the benchmark's sink and the tests.
//!
//! It verifies with [ring], not with the code that signed, and reads nothing but the request: what a
//! receiver that never heard of outboxd would do.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

/// How far a timestamp may be from now: the tolerance Standard Webhooks recommends.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Path and query.
    pub path: String,
    /// As received.
    pub headers: HeaderMap,
    /// As received; what the signature covers.
    pub body: Bytes,
}

impl Arrived {
    /// A header as text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The event's public id, as the headers have it: what a receiver deduplicates by.
    pub fn event_id(&self) -> &str {
        let ids = ["webhook-id", "x-webhook-id", "x-github-delivery"].map(|name| self.header(name));
        ids.into_iter().find(|id| !id.is_empty()).unwrap_or_default()
    }
}

/// What to answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// How long to wait before.
    pub delay: Duration,
}

impl Reply {
    /// At once.
    pub fn now(status: StatusCode) -> Self {
        Self { status, delay: Duration::ZERO }
    }
}

/// Whether a request is what it claims to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Signed with the secret of this index.
    Verified(usize),
    /// It carries no signature of a known profile.
    Unsigned,
    /// It does, and it is wrong.
    Refused(&'static str),
}

/// Verifies a request against any of the secrets, each in the form its owner was shown (of ed25519 the public
/// key, `whpk_…`). Which profile it is, its headers tell; `signature_header` is the one that carries the
/// signature if it is not the profile's own.
pub fn verify(
    arrived: &Arrived,
    secrets: &[impl AsRef<str>],
    signature_header: Option<&str>,
    now: SystemTime,
) -> Verdict {
    let Some((own, profile)) = PROFILES.iter().find(|(own, profile)| {
        let carries = |name: &str| arrived.headers.contains_key(name);
        signature_header.map_or_else(|| carries(own), |name| carries(name) && profile.is_recognised(arrived, name))
    }) else {
        return Verdict::Unsigned;
    };
    let name = signature_header.unwrap_or(own);
    let body = arrived.body.as_ref();
    match profile {
        Shape::Standard => {
            let (id, timestamp) = (arrived.header("webhook-id"), arrived.header("webhook-timestamp"));
            if let Some(refused) = is_stale(timestamp, now) {
                return refused;
            }
            let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
            verify_standard(arrived.header(name), secrets, &signed)
        }
        Shape::Stripe => {
            let fields: Vec<(&str, &str)> =
                arrived.header(name).split(',').filter_map(|field| field.split_once('=')).collect();
            let timestamp = fields.iter().find(|(key, _)| *key == "t").map_or("", |(_, value)| value);
            if let Some(refused) = is_stale(timestamp, now) {
                return refused;
            }
            let signatures = fields.iter().filter(|(key, _)| *key == "v1").map(|(_, value)| *value);
            verify_hex(signatures, secrets, &[timestamp.as_bytes(), b".", body].concat())
        }
        Shape::Body => {
            // The signature of the key whose turn it is, and those the header has no room for.
            let also = format!("{name}-also");
            let signatures = arrived.header(name).split(',').chain(arrived.header(&also).split(','));
            verify_hex(signatures.map(|text| text.strip_prefix("sha256=").unwrap_or(text)), secrets, body)
        }
    }
}

/// What a signature looks like, and covers.
enum Shape {
    Standard,
    Stripe,
    Body,
}

impl Shape {
    fn is_recognised(&self, arrived: &Arrived, name: &str) -> bool {
        match self {
            Self::Standard => arrived.headers.contains_key("webhook-id"),
            Self::Stripe => arrived.header(name).starts_with("t="),
            Self::Body => true,
        }
    }
}

const PROFILES: [(&str, Shape); 5] = [
    ("webhook-signature", Shape::Standard),
    ("stripe-signature", Shape::Stripe),
    ("x-signature", Shape::Body),
    ("x-webhook-signature", Shape::Body),
    ("x-hub-signature-256", Shape::Body),
];

fn is_stale(timestamp: &str, now: SystemTime) -> Option<Verdict> {
    let seconds = timestamp.parse().ok().map(Duration::from_secs);
    let Some(sent_at) = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(seconds)) else {
        return Some(Verdict::Refused("no timestamp"));
    };
    let apart = now.duration_since(sent_at).or_else(|_| sent_at.duration_since(now)).unwrap_or(Duration::MAX);
    (apart > TOLERANCE).then_some(Verdict::Refused("the timestamp is too far from now"))
}

/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
fn verify_standard(header: &str, secrets: &[impl AsRef<str>], signed: &[u8]) -> Verdict {
    let decoded = |prefix: &str| -> Vec<Vec<u8>> {
        header.split(' ').filter_map(|s| s.strip_prefix(prefix)).filter_map(|s| BASE64.decode(s).ok()).collect()
    };
    let (symmetric, asymmetric) = (decoded("v1,"), decoded("v1a,"));
    let is_good = |secret: &str| {
        if let Some(key) = secret.strip_prefix("whpk_").and_then(|key| BASE64.decode(key).ok()) {
            let key = UnparsedPublicKey::new(&ED25519, key);
            return asymmetric.iter().any(|signature| key.verify(signed, signature).is_ok());
        }
        let key = secret.strip_prefix("whsec_").and_then(|key| BASE64.decode(key).ok());
        key.is_some_and(|key| is_mac_among(&symmetric, &key, signed))
    };
    found(secrets.iter().position(|secret| is_good(secret.as_ref())))
}

fn verify_hex<'a>(signatures: impl Iterator<Item = &'a str>, secrets: &[impl AsRef<str>], signed: &[u8]) -> Verdict {
    let signatures: Vec<Vec<u8>> = signatures.filter_map(|signature| hex::decode(signature.trim()).ok()).collect();
    found(secrets.iter().position(|secret| is_mac_among(&signatures, secret.as_ref().as_bytes(), signed)))
}

fn is_mac_among(signatures: &[Vec<u8>], key: &[u8], signed: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    signatures.iter().any(|signature| hmac::verify(&key, signed, signature).is_ok())
}

fn found(secret: Option<usize>) -> Verdict {
    secret.map_or(Verdict::Refused("no signature matches"), Verdict::Verified)
}

/// Serves HTTP/1.1 and HTTP/2 (prior knowledge) on `listener` until it is dropped or aborted; `handle`
/// decides every answer.
pub async fn serve<H, F>(listener: TcpListener, handle: H)
where
    H: Fn(Arrived) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let handle = Arc::new(handle);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: let some connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let handle = handle.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(handle.clone(), request));
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer<H, F>(
    handle: Arc<H>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    H: Fn(Arrived) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    let Ok(body) = body.collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let reply = handle(Arrived { path, headers: parts.headers, body: body.to_bytes() }).await;
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    *response.status_mut() = reply.status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    *response.body_mut() = Full::from(reply.status.canonical_reason().unwrap_or_default());
    Ok(response)
}
