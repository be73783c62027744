//! One HTTP attempt under one deadline.
//!
//! A pooled client sits on a connector of our own ([`connect`]), which dials nothing that the egress
//! policy has not judged. No redirect is followed, no proxy variable read, nothing decompressed;
//! time, headers and body of an answer are bounded. Whatever goes wrong is a
//! [`Failure`], and so an [`Outcome`](crate::outcome::Outcome): an attempt returns no error.

mod connect;
mod failure;
mod meter;
mod resolve;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
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
use rustix::process::{Resource, getrlimit};
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;

pub use self::connect::Proxy;
use self::connect::Way;
use self::meter::{Meter, Open};
use self::resolve::Resolver;
pub use self::tls::TlsOptions;
use crate::egress::Policy;
use crate::outcome::{self, Attempted, Failure};

/// Headers that say how a message is framed or routed are hyper's alone: taken from a subscription
/// they would let a tenant smuggle requests or reach another virtual host than the one judged.
const FRAMING_HEADERS: [HeaderName; 7] = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE];

/// hyper accepts no smaller limit for what it buffers of an HTTP/1.1 head.
const MIN_HEADER_BYTES: usize = 8192;

/// Connections open at once before none is kept; fewer if this process may not open twice as many files. One over TLS
/// takes some 40 KiB.
const MOST_OPEN: usize = 4096;

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
    /// Name servers to ask instead of the system's; none is the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Who dials instead of the relay; none is the relay itself.
    pub proxy: Option<Proxy>,
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
    /// Names cannot be resolved at all.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(String),
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
    /// What the subscription says of TLS; none is what holds for all.
    pub tls: Option<Arc<OwnTls>>,
    /// For everything: DNS, connecting, TLS, sending, and the whole answer.
    pub timeout: Duration,
    /// How much of the answer's body to keep, in bytes.
    pub excerpt_bytes: usize,
}

type HttpClient = Client<connect::Connector, Full<Bytes>>;

/// Sends requests over pools of connections. Cheap to clone; clones share the pools.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    trusted_roots: usize,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    common_tls: ClientConfig,
    open: Open,
    exit: RwLock<Arc<Exit>>,
}

/// The way out under one policy, with the connections that were made under it.
struct Exit {
    policy: Arc<Policy>,
    resolver: Resolver,
    client: HttpClient,
}

/// What one subscription says of TLS with its receiver, with connections of its own: one that was made without
/// its pins or with another's client certificate must not serve it.
pub struct OwnTls {
    config: ClientConfig,
    /// The client, and the way out it was made for.
    client: Mutex<Option<(Arc<Exit>, HttpClient)>>,
}

impl fmt::Debug for OwnTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnTls").finish_non_exhaustive()
    }
}

impl Sender {
    /// Loads the root certificates and makes an empty pool.
    ///
    /// # Errors
    /// If the extra root certificates are unreadable. System roots that cannot be loaded are only
    /// counted out: see [`Sender::trusted_roots`].
    pub fn new(settings: Settings, policy: Arc<Policy>) -> Result<Self, SendError> {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        Self::keeping(files.map_or(MOST_OPEN, |files| MOST_OPEN.min(files / 2)), settings, policy)
    }

    fn keeping(most_open: usize, settings: Settings, policy: Arc<Policy>) -> Result<Self, SendError> {
        let open = Open::at_most(most_open);
        let roots = Arc::new(tls::roots(settings.extra_roots_pem.as_deref())?);
        let common_tls = tls::common(Arc::clone(&roots))?;
        let exit = exit(&settings, &common_tls, policy, &open)?;
        Ok(Self {
            shared: Arc::new(Shared {
                settings,
                trusted_roots: roots.len(),
                verifier: tls::verifier(roots),
                common_tls,
                open,
                exit: RwLock::new(Arc::new(exit)),
            }),
        })
    }

    /// From now on this policy holds, and names are resolved as the system says now. A connection that was
    /// made under another policy is not used for a new request; what is under way on it may end.
    ///
    /// # Errors
    /// If names cannot be resolved at all; everything stays as it was then.
    pub fn replace_policy(&self, policy: Arc<Policy>) -> Result<(), SendError> {
        let renewed = exit(&self.shared.settings, &self.shared.common_tls, policy, &self.shared.open)?;
        *self.shared.exit.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(())
    }

    /// The policy that holds now.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.exit().policy)
    }

    /// What a subscription says of TLS, ready to be used.
    ///
    /// # Errors
    /// Which of the options cannot be used.
    pub fn own_tls(&self, options: TlsOptions<'_>) -> Result<OwnTls, String> {
        Ok(OwnTls { config: tls::own(self.shared.verifier.as_ref(), options)?, client: Mutex::default() })
    }

    fn exit(&self) -> Arc<Exit> {
        Arc::clone(&self.shared.exit.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client that speaks to a receiver under the policy of now.
    fn client(&self, tls: Option<&OwnTls>) -> HttpClient {
        let exit = self.exit();
        let Some(tls) = tls else { return exit.client.clone() };
        let mut kept = tls.client.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((made_for, client)) if Arc::ptr_eq(made_for, &exit) => client.clone(),
            _ => {
                let shared = &self.shared;
                let made = client(&shared.settings, &exit.policy, &exit.resolver, tls.config.clone(), &shared.open);
                kept.insert((exit, made)).1.clone()
            }
        }
    }

    /// How many root certificates TLS trusts. With none every `https:` attempt is a `tls_error`.
    pub fn trusted_roots(&self) -> usize {
        self.shared.trusted_roots
    }

    /// Makes one attempt. It ends at the deadline at the latest, and whatever goes wrong is in the
    /// result. The connection goes back to the pool once an answer was read to its end.
    pub async fn send(&self, outgoing: Outgoing) -> Attempted {
        let started_at = SystemTime::now();
        let started = Instant::now();
        let Outgoing { uri, headers, body, tls, timeout, excerpt_bytes } = outgoing;
        let mut received = Received::default();
        let client = self.client(tls.as_deref());
        let result = {
            // Pinned here, so that it does not lie twice in what awaits it.
            let exchange =
                pin!(self.exchange(client, request(uri, headers, body), excerpt_bytes, started, &mut received));
            tokio::time::timeout(timeout, exchange).await
        };
        let result = match result {
            Ok(result) => result,
            Err(_) if received.head.is_some() => Err(Failure::NoBodyInTime(timeout)),
            Err(_) => Err(Failure::NoAnswerInTime(timeout)),
        };
        received.attempted(result, excerpt_bytes, started_at, started.elapsed())
    }

    async fn exchange(
        &self,
        client: HttpClient,
        request: Request<Full<Bytes>>,
        excerpt_bytes: usize,
        started: Instant,
        received: &mut Received,
    ) -> Result<StatusCode, Failure> {
        let answer = client.request(request).await.map_err(|error| failure::of_request(&error))?;
        let (head, body) = answer.into_parts();
        if let Some(meter) = head.extensions.get::<Meter>() {
            meter.answer_began();
        }
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
            if read_bytes > self.shared.settings.max_response_bytes {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("policy", &self.policy()).finish_non_exhaustive()
    }
}

fn exit(settings: &Settings, common_tls: &ClientConfig, policy: Arc<Policy>, open: &Open) -> Result<Exit, SendError> {
    let resolver = Resolver::new(&settings.name_servers)?;
    let client = client(settings, &policy, &resolver, common_tls.clone(), open);
    Ok(Exit { policy, resolver, client })
}

/// An empty pool over connections that the policy has judged.
fn client(
    settings: &Settings,
    policy: &Arc<Policy>,
    resolver: &Resolver,
    tls: ClientConfig,
    open: &Open,
) -> HttpClient {
    let max_header_bytes = settings.max_response_header_bytes.max(MIN_HEADER_BYTES);
    // What may lie unread: of one answer no more than is wanted of it, of a connection that of sixteen.
    let stream_window = u32::try_from(settings.max_response_bytes).unwrap_or(u32::MAX).clamp(64 << 10, 2 << 20);
    // Of an answer that is given up for its length as much as its window allows is on the way by then, and with what
    // was read of it the window has moved once.
    let on_the_way = 2 * stream_window as usize;
    let answer_bytes = settings.max_response_bytes.saturating_add(max_header_bytes).saturating_add(on_the_way);
    let way = Way::new(Arc::clone(policy), resolver.clone(), settings.proxy.as_ref(), answer_bytes, open.clone());
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        // Without a timer of its own the pool would close idle connections only when asked for one.
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.pool_idle_timeout)
        // The number of headers is left at hyper's 100: another number costs an allocation an answer.
        .http1_max_buf_size(max_header_bytes)
        .http2_max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .http2_initial_stream_window_size(stream_window)
        .http2_initial_connection_window_size(stream_window.saturating_mul(16).min(5 << 20))
        .http2_keep_alive_interval(settings.http2_keep_alive_interval)
        .http2_keep_alive_while_idle(true)
        .build(connect::connector(way, tls, settings.http2))
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
        let is_unmade = matches!(result, Err(Failure::Exhausted(_)));
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
            is_unmade,
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
