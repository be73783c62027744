//! From a URI to a connection: resolve, judge every address, dial what was judged, TLS.
//!
//! The addresses dialled are the very ones judged, so a name that resolves to something else a moment
//! later (DNS rebinding) gains nothing. hyper's own connector asks its resolver only for names; this
//! one takes literal addresses the same way.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::failure;
use super::meter::{Meter, Metered, Open};
use super::resolve::Resolver;
use crate::egress::Policy;
use crate::outcome::Failure;

/// An address that does not answer yields to the next one after this long: one SYN and its first
/// repetition. The last address has until the deadline.
const PATIENCE_BEFORE_NEXT: Duration = Duration::from_secs(2);

/// The client lets a connection that its request no longer needs finish in the background. Nobody's
/// deadline watches it there: without this one a receiver that never completes a handshake would
/// collect sockets.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type Stream = MaybeHttpsStream<TokioIo<Metered<TcpStream>>>;

/// A forward proxy that dials for the relay (CONNECT). What names resolve to is the proxy's to judge then.
#[derive(Clone)]
pub struct Proxy {
    /// `http://host:port`.
    pub uri: Uri,
    /// What it is shown as `proxy-authorization`.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// The connector over this way out, with TLS as `tls` says.
pub(super) fn connector(way: Way, tls: ClientConfig, http2: bool) -> Connector {
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let https = if http2 {
        builder.enable_all_versions().wrap_connector(way)
    } else {
        builder.enable_http1().wrap_connector(way)
    };
    Connector { https }
}

/// TCP to a judged address, TLS for `https:`, both within [`LONGEST_CONNECT`].
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<Way>,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream, BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if uri.scheme() != Some(&Scheme::HTTPS) && uri.scheme() != Some(&Scheme::HTTP) {
            return Box::pin(async { Err(Failure::Relay("the URL is neither https: nor http:".to_owned()).into()) });
        }
        let connecting = self.https.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(LONGEST_CONNECT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(Failure::NoAnswerInTime(LONGEST_CONNECT).into()),
            }
        })
    }
}

/// TCP to an address the policy has judged, or through the proxy. Its errors are [`Failure`]s, found again in
/// the client's error by their type.
#[derive(Clone, Debug)]
pub(super) struct Way {
    policy: Arc<Policy>,
    resolver: Resolver,
    proxy: Option<Tunnel<ToProxy>>,
    answer_bytes: usize,
    open: Open,
}

impl Way {
    /// Answers have so many bytes at most.
    pub(super) fn new(
        policy: Arc<Policy>,
        resolver: Resolver,
        proxy: Option<&Proxy>,
        answer_bytes: usize,
        open: Open,
    ) -> Self {
        let proxy = proxy.map(|proxy| {
            let tunnel = Tunnel::new(proxy.uri.clone(), ToProxy { resolver: resolver.clone() });
            match &proxy.authorization {
                Some(authorization) => tunnel.with_auth(authorization.clone()),
                None => tunnel,
            }
        });
        Self { policy, resolver, proxy, answer_bytes, open }
    }
}

impl Service<Uri> for Way {
    type Response = TokioIo<Metered<TcpStream>>;
    type Error = Failure;
    type Future = Connecting<TokioIo<Metered<TcpStream>>, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { policy, resolver, proxy, answer_bytes, open } = self.clone();
        Box::pin(async move {
            let metered = |tcp| TokioIo::new(Metered::new(tcp, Meter::new(answer_bytes), open));
            let Some(tunnel) = proxy else {
                let addrs = resolve(&resolver, &uri).await?;
                judge_all(&policy, &addrs)?;
                return dial(&addrs).await.map(metered);
            };
            // A literal address needs nobody to resolve it: it is judged here all the same.
            let (host, port) = host_and_port(&uri)?;
            if let Ok(addr) = host.parse::<IpAddr>() {
                judge_all(&policy, &[SocketAddr::new(addr, port)])?;
            }
            Ok(metered(through(tunnel, &uri, port).await?.into_inner()))
        })
    }
}

/// TCP to the proxy, which the operator has chosen: it is not judged.
#[derive(Clone, Debug)]
struct ToProxy {
    resolver: Resolver,
}

impl Service<Uri> for ToProxy {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<TokioIo<TcpStream>, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        let resolver = self.resolver.clone();
        Box::pin(async move {
            // What fails here is no fault of the receiver's name or address.
            let to_proxy = |failure: Failure| match failure {
                Failure::Exhausted(_) => failure,
                failure => Failure::Connect(format!("the proxy: {failure}")),
            };
            let addrs = resolve(&resolver, &proxy).await.map_err(to_proxy)?;
            dial(&addrs).await.map(TokioIo::new).map_err(to_proxy)
        })
    }
}

/// A connection that the proxy has made.
async fn through(mut tunnel: Tunnel<ToProxy>, uri: &Uri, port: u16) -> Result<TokioIo<TcpStream>, Failure> {
    // The tunnel takes 443 for a URL without a port, even one of http:.
    let authority = format!("{}:{port}", uri.host().unwrap_or_default());
    let target = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query("/").build();
    let target = target.map_err(|error| Failure::Relay(error.to_string()))?;
    tunnel.call(target).await.map_err(|error| {
        failure::carried(&error).unwrap_or_else(|| Failure::Connect(format!("the proxy refuses: {error}")))
    })
}

/// Every address of the URI's host, at its port. A literal address is its own answer.
async fn resolve(resolver: &Resolver, uri: &Uri) -> Result<Vec<SocketAddr>, Failure> {
    let (host, port) = host_and_port(uri)?;
    let addrs = match host.parse::<IpAddr>() {
        Ok(literal) => vec![literal],
        Err(_) => resolver.addresses(host).await?,
    };
    Ok(addrs.into_iter().map(|addr| SocketAddr::new(addr, port)).collect())
}

/// The host without the brackets of an IPv6 address, and the port that is meant if none is named.
fn host_and_port(uri: &Uri) -> Result<(&str, u16), Failure> {
    let host = uri.host().ok_or_else(|| Failure::Relay("the URL has no host".to_owned()))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let default_port = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    Ok((host, uri.port_u16().unwrap_or(default_port)))
}

/// One refused address refuses all: a name that mixes public and private addresses is an attack or a
/// mistake, and which of them gets dialled must not be left to the order of the answer.
fn judge_all(policy: &Policy, addrs: &[SocketAddr]) -> Result<(), Failure> {
    addrs.iter().try_for_each(|addr| policy.judge(*addr)).map_err(Failure::Egress)
}

/// The first of these addresses, in their order, that takes the connection.
async fn dial(addrs: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut failed = Failure::Connect("there is no address to dial".to_owned());
    for (position, addr) in addrs.iter().enumerate() {
        let connecting = TcpStream::connect(addr);
        let connected = if position + 1 < addrs.len() {
            tokio::time::timeout(PATIENCE_BEFORE_NEXT, connecting).await.unwrap_or_else(|elapsed| Err(elapsed.into()))
        } else {
            connecting.await
        };
        // A request is written whole: waiting for more to send with it only delays it.
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => match Failure::exhausted(&error) {
                Some(exhausted) => return Err(exhausted),
                None => failed = Failure::Connect(format!("{addr}: {error}")),
            },
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        let allow: Vec<_> = allow.iter().map(|rule| rule.parse().expect("a rule")).collect();
        Policy::new(&allow, &[], &[]).expect("a policy")
    }

    #[test]
    fn one_refused_address_refuses_all() {
        let addrs: Vec<SocketAddr> = ["1.1.1.1:443", "1.0.0.1:443", "169.254.169.254:443"]
            .iter()
            .map(|addr| addr.parse().expect("addr"))
            .collect();
        assert!(judge_all(&policy(&[]), &addrs[..2]).is_ok());
        let failure = judge_all(&policy(&[]), &addrs).expect_err("the third is link-local");
        assert!(failure.to_string().contains("169.254.169.254 is in 169.254.0.0/16"), "{failure}");
    }

    #[tokio::test]
    async fn the_port_follows_the_scheme_and_brackets_are_syntax() {
        for (uri, expected) in [
            ("https://127.0.0.1/", "127.0.0.1:443"),
            ("http://127.0.0.1/", "127.0.0.1:80"),
            ("https://127.0.0.1:8443/", "127.0.0.1:8443"),
            ("https://[::1]/", "[::1]:443"),
            ("http://[::ffff:127.0.0.1]:81/", "[::ffff:127.0.0.1]:81"),
        ] {
            let resolver = Resolver::new(&[]).expect("a resolver");
            let addrs = resolve(&resolver, &uri.parse().expect("a URI")).await.expect("a literal resolves to itself");
            assert_eq!(addrs.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{uri}");
        }
    }

    #[tokio::test]
    async fn the_next_address_is_dialled_when_one_refuses() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addrs = [closed.local_addr().expect("addr"), open.local_addr().expect("addr")];
        drop(closed);
        let stream = dial(&addrs).await.expect("the second address is open");
        assert_eq!(stream.peer_addr().expect("peer"), addrs[1]);
        assert!(stream.nodelay().expect("nodelay"));
    }
}
