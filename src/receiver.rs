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

    /// The event's public id: what a receiver deduplicates by.
    pub fn event_id(&self) -> &str {
        match self.header("webhook-id") {
            "" => self.header("x-webhook-id"),
            id => id,
        }
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

/// Verifies a request against any of the secrets, each in the form its owner was shown.
pub fn verify(arrived: &Arrived, secrets: &[impl AsRef<str>], now: SystemTime) -> Verdict {
    if !arrived.header("webhook-signature").is_empty() {
        verify_standard(arrived, secrets, now)
    } else if arrived.headers.contains_key("x-signature") {
        let signatures: Vec<Vec<u8>> =
            arrived.headers.get_all("x-signature").iter().filter_map(|value| hex::decode(value).ok()).collect();
        let key = |secret: &str| Some(secret.as_bytes().to_vec());
        find(secrets, key, &arrived.body, &signatures)
            .map_or(Verdict::Refused("no signature matches"), Verdict::Verified)
    } else {
        Verdict::Unsigned
    }
}

/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
fn verify_standard(arrived: &Arrived, secrets: &[impl AsRef<str>], now: SystemTime) -> Verdict {
    let (id, timestamp) = (arrived.header("webhook-id"), arrived.header("webhook-timestamp"));
    let Ok(seconds) = timestamp.parse() else { return Verdict::Refused("no timestamp") };
    let sent_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let apart = now.duration_since(sent_at).or_else(|_| sent_at.duration_since(now)).unwrap_or(Duration::MAX);
    if apart > TOLERANCE {
        return Verdict::Refused("the timestamp is too far from now");
    }
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(&arrived.body);
    let signatures: Vec<Vec<u8>> = arrived
        .header("webhook-signature")
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|signature| BASE64.decode(signature).ok())
        .collect();
    let key = |secret: &str| BASE64.decode(secret.strip_prefix("whsec_")?).ok();
    find(secrets, key, &signed, &signatures).map_or(Verdict::Refused("no signature matches"), Verdict::Verified)
}

fn find(
    secrets: &[impl AsRef<str>],
    key: impl Fn(&str) -> Option<Vec<u8>>,
    signed: &[u8],
    signatures: &[Vec<u8>],
) -> Option<usize> {
    secrets.iter().position(|secret| {
        key(secret.as_ref()).is_some_and(|key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            signatures.iter().any(|signature| hmac::verify(&key, signed, signature).is_ok())
        })
    })
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
