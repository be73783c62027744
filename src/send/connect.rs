//! From a URI to a connection: resolve, judge every address, dial what was judged, TLS.
//!
//! The addresses dialled are the very ones judged, so a name that resolves to something else a moment
//! later (DNS rebinding) gains nothing. hyper's own connector asks its resolver only for names; this
//! one takes literal addresses the same way.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;

use super::SendError;
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
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The connector over this policy, and the number of root certificates it trusts.
pub(super) fn connector(
    policy: Arc<Policy>,
    extra_roots_pem: Option<&[u8]>,
    http2: bool,
) -> Result<(Connector, usize), SendError> {
    let roots = roots(extra_roots_pem)?;
    let trusted_roots = roots.len();
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let judged = JudgedTcp { policy };
    let https = if http2 {
        builder.enable_all_versions().wrap_connector(judged)
    } else {
        builder.enable_http1().wrap_connector(judged)
    };
    Ok((Connector { https }, trusted_roots))
}

fn roots(extra_pem: Option<&[u8]>) -> Result<RootCertStore, SendError> {
    let mut roots = RootCertStore::empty();
    // Every system's store holds some certificate that some library rejects: take what can be read.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = extra_pem {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| SendError::ExtraRoots(error.to_string()))?;
            roots.add(certificate).map_err(|error| SendError::ExtraRoots(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(SendError::ExtraRoots("no certificate in it".to_owned()));
        }
    }
    Ok(roots)
}

/// TCP to a judged address, TLS for `https:`, both within [`LONGEST_CONNECT`].
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<JudgedTcp>,
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

/// TCP to an address the policy has judged. Its errors are [`Failure`]s, found again in the client's
/// error by their type.
#[derive(Clone, Debug)]
struct JudgedTcp {
    policy: Arc<Policy>,
}

impl Service<Uri> for JudgedTcp {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<TokioIo<TcpStream>, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let addrs = resolve(&uri).await?;
            judge_all(&policy, &addrs)?;
            dial(&addrs).await.map(TokioIo::new)
        })
    }
}

/// Every address of the URI's host, at its port. A literal address is its own answer.
async fn resolve(uri: &Uri) -> Result<Vec<SocketAddr>, Failure> {
    let host = uri.host().ok_or_else(|| Failure::Relay("the URL has no host".to_owned()))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let default_port = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let port = uri.port_u16().unwrap_or(default_port);
    let failed = |reason: String| Failure::Dns { host: host.to_owned(), reason };
    let addrs: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(|error| failed(error.to_string()))?.collect();
    if addrs.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addrs) }
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
            Err(error) => failed = Failure::Connect(format!("{addr}: {error}")),
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
            let addrs = resolve(&uri.parse().expect("a URI")).await.expect("a literal resolves to itself");
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

    #[test]
    fn extra_roots_must_be_certificates() {
        for pem in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(roots(Some(pem)), Err(SendError::ExtraRoots(_))));
        }
        assert!(roots(None).is_ok());
    }
}
