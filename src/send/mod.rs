//! One HTTP attempt under one deadline.
//!
//! A pooled client sits on a connector of our own ([`connect`]), which dials nothing that the egress
//! policy has not judged. No redirect is followed, no proxy variable read, nothing decompressed;
//! time, headers and body of an answer are bounded. Whatever goes wrong is a
//! [`Failure`], and so an [`Outcome`](crate::outcome::Outcome): an attempt returns no error.

mod connect;
mod failure;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, RETRY_AFTER, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::egress::Policy;
use crate::outcome::{self, Attempted, Failure};

/// Headers that say how a message is framed or routed are hyper's alone: taken from a subscription
/// they would let a tenant smuggle requests or reach another virtual host than the one judged.
const FRAMING_HEADERS: [HeaderName; 7] = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE];

/// hyper accepts no smaller limit for what it buffers of an HTTP/1.1 head.
const MIN_HEADER_BYTES: usize = 8192;

/// What is the same for all attempts of a relay.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An idle connection is closed after this long. Less than what receivers' proxies use (60 s is
    /// common), or requests meet connections that are just being closed.
    pub pool_idle_timeout: Duration,
    /// Of an answer's body no more than this is read; the rest costs the connection.
    pub max_response_bytes: usize,
    /// An answer whose headers are larger is a protocol error. At least 8192.
    pub max_response_header_bytes: usize,
    /// Root certificates trusted besides the system's, as PEM.
    pub extra_roots_pem: Option<Vec<u8>>,
    /// Offer HTTP/2 to receivers (ALPN); plain `http:` stays HTTP/1.1.
    pub http2: bool,
    /// How often an HTTP/2 connection is pinged, so that a dead one is noticed.
    pub http2_keep_alive_interval: Duration,
}

/// The sender cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The extra root certificates are no PEM, or hold no certificate.
    #[error("the extra root certificates cannot be read ({0}); give PEM with one CERTIFICATE block or more")]
    ExtraRoots(String),
    /// The TLS provider supports none of the protocol versions wanted: a broken build.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// One request, ready to go: the body is sent byte for byte.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// An absolute URI that [`check_url`](crate::egress::check_url) has passed.
    pub uri: Uri,
    /// All headers but those of framing (`host`, `content-length`, `connection`, …), which are
    /// hyper's and are dropped here.
    pub headers: HeaderMap,
    /// The signed body.
    pub body: Bytes,
    /// For everything: DNS, connecting, TLS, sending, and the whole answer.
    pub timeout: Duration,
    /// How much of the answer's body to keep, in bytes.
    pub excerpt_bytes: usize,
}

/// Sends requests over a pool of connections. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client<connect::Connector, Full<Bytes>>,
    max_response_bytes: usize,
    trusted_roots: usize,
}

impl Sender {
    /// Loads the root certificates and makes an empty pool.
    ///
    /// # Errors
    /// If the extra root certificates are unreadable. System roots that cannot be loaded are only
    /// counted out: see [`Sender::trusted_roots`].
    pub fn new(settings: Settings, policy: Arc<Policy>) -> Result<Self, SendError> {
        let (connector, trusted_roots) =
            connect::connector(policy, settings.extra_roots_pem.as_deref(), settings.http2)?;
        let max_header_bytes = settings.max_response_header_bytes.max(MIN_HEADER_BYTES);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Without a timer of its own the pool would close idle connections only when asked for one.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle_timeout)
            // The number of headers is left at hyper's 100: another number costs an allocation an answer.
            .http1_max_buf_size(max_header_bytes)
            .http2_max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
            .http2_keep_alive_interval(settings.http2_keep_alive_interval)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        Ok(Self { client, max_response_bytes: settings.max_response_bytes, trusted_roots })
    }

    /// How many root certificates TLS trusts. With none every `https:` attempt is a `tls_error`.
    pub fn trusted_roots(&self) -> usize {
        self.trusted_roots
    }

    /// Makes one attempt. It ends at the deadline at the latest, and whatever goes wrong is in the
    /// result. The connection goes back to the pool once an answer was read to its end.
    pub async fn send(&self, outgoing: Outgoing) -> Attempted {
        let started_at = SystemTime::now();
        let started = Instant::now();
        let Outgoing { uri, headers, body, timeout, excerpt_bytes } = outgoing;
        let mut received = Received::default();
        let exchange = self.exchange(request(uri, headers, body), excerpt_bytes, started, &mut received);
        let result = match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) if received.head.is_some() => Err(Failure::NoBodyInTime(timeout)),
            Err(_) => Err(Failure::NoAnswerInTime(timeout)),
        };
        received.attempted(result, excerpt_bytes, started_at, started.elapsed())
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        excerpt_bytes: usize,
        started: Instant,
        received: &mut Received,
    ) -> Result<StatusCode, Failure> {
        let answer = self.client.request(request).await.map_err(|error| failure::of_request(&error))?;
        let (head, body) = answer.into_parts();
        let status = head.status;
        received.head = Some(head);
        received.first_byte = Some(started.elapsed());
        if !body.is_end_stream() {
            // Three bytes more tell a character at the cut from an invalid one.
            self.read_body(body, excerpt_bytes.saturating_add(3), &mut received.body).await?;
        }
        Ok(status)
    }

    /// Reads to the end or to the limit, and keeps the first `keep_bytes`. A body over the limit is
    /// dropped unread, which closes an HTTP/1.1 connection and resets an HTTP/2 stream.
    async fn read_body(&self, mut body: Incoming, keep_bytes: usize, kept: &mut Vec<u8>) -> Result<(), Failure> {
        let mut read_bytes = 0;
        while let Some(frame) = body.frame().await {
            // What is not data is trailers.
            let Ok(data) = frame.map_err(|error| failure::of_body(&error))?.into_data() else { continue };
            let room = keep_bytes.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
            read_bytes += data.len();
            if read_bytes > self.max_response_bytes {
                break;
            }
        }
        Ok(())
    }
}

fn request(uri: Uri, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    for name in &FRAMING_HEADERS {
        headers.remove(name);
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// What has been read of an answer so far; outlives the exchange that a deadline cuts off.
#[derive(Default)]
struct Received {
    head: Option<Parts>,
    first_byte: Option<Duration>,
    body: Vec<u8>,
}

impl Received {
    fn attempted(
        self,
        result: Result<StatusCode, Failure>,
        excerpt_bytes: usize,
        started_at: SystemTime,
        latency: Duration,
    ) -> Attempted {
        let (outcome, error) = match result {
            Ok(status) => (outcome::classify(status), outcome::rejection(status)),
            Err(failure) => (failure.outcome(), Some(failure.message())),
        };
        let retry_after = self.head.as_ref().filter(|head| outcome::may_ask_for_pause(head.status)).and_then(|head| {
            let value = head.headers.get(RETRY_AFTER)?.to_str().ok()?;
            outcome::retry_after(value, started_at + latency)
        });
        Attempted {
            outcome,
            status_code: self.head.as_ref().map(|head| head.status.as_u16()),
            error,
            response_excerpt: outcome::excerpt(self.body, excerpt_bytes),
            response_headers: self.head.map(|head| head.headers),
            retry_after,
            started_at,
            latency,
            first_byte: self.first_byte,
        }
    }
}

#[cfg(test)]
mod tests;
