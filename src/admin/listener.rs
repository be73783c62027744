//! Listening: TLS, how long a connection may take, how many there may be.

use super::document::{Document, DocumentError};
use super::fleet::Fleet;
use super::limiter::Limiter;
use super::{Admin, Settings, answer};
use crate::config;
use crate::db::Seat;
use crate::metrics::Metrics;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// For the TLS handshake, and for the head of a request; a keep-alive connection may idle as long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may not take what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a request, at most.
const HEAD_BYTES: usize = 32 << 10;
/// Between two tries to bind, and after an accept that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Why the operator's seat cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate or its key cannot be used.
    #[error("{key}: {reason}")]
    Tls {
        /// The configuration key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The embedded document is broken; a test would have said so.
    #[error("openapi.json: {0}")]
    Document(#[from] DocumentError),
}

/// Serves the operator's seat in the background, as long as the process lives. `health` is for `/readyz` and
/// `/metrics`, which slow requests must not keep waiting. If the port is taken, as by the
/// daemon that this one follows, it is tried again: deliveries do not wait for a console.
///
/// # Errors
/// If the certificate or its key cannot be used.
pub fn serve(
    listen: SocketAddr,
    config: &config::Admin,
    seat: Seat,
    health: Seat,
    metrics: Metrics,
) -> Result<(), ServeError> {
    let acceptor = config.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
    let admin = Arc::new(Admin {
        document: Document::embedded()?,
        fleet: Fleet::new(health, config.metrics_by_subscription),
        limiter: Limiter::default(),
        settings: Settings {
            request_timeout: config.request_timeout,
            max_body_bytes: config.max_body_bytes,
            ready_lag: config.ready_lag,
            hosts: config.hosts.clone(),
            is_tls: acceptor.is_some(),
        },
        seat,
        metrics,
    });
    tokio::spawn(async move {
        if !listen.ip().is_loopback() {
            wait_for_token(&admin.seat).await;
        }
        let listener = bind(listen).await;
        accept(listener, acceptor, admin).await;
    });
    Ok(())
}

/// Beyond loopback nothing is served before there is a token that somebody could come with. Deliveries go on.
async fn wait_for_token(seat: &Seat) {
    let mut complained = false;
    loop {
        match seat.has_tokens().await {
            Ok(true) => return,
            Ok(false) if complained => {}
            Ok(false) => error!(
                "admin.listen is not a loopback address and there is no token: the operator's seat is not served until select outbox.create_token('operator')"
            ),
            Err(error) => warn!(%error, "whether there is a token could not be asked"),
        }
        complained = true;
        tokio::time::sleep(RETRY * 5).await;
    }
}

async fn bind(listen: SocketAddr) -> TcpListener {
    let mut complained = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) if complained => debug!(%error, %listen, "still cannot listen"),
            Err(error) => {
                complained = true;
                warn!(%error, %listen, "the operator's seat cannot listen yet; trying again (admin.listen)");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, admin: Arc<Admin>) {
    let scheme = if acceptor.is_some() { "https" } else { "http" };
    if let Ok(address) = listener.local_addr() {
        info!(url = format!("{scheme}://{address}/"), "the operator's seat");
    }
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection to the operator's seat could not be accepted");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let (acceptor, admin) = (acceptor.clone(), admin.clone());
        tokio::spawn(async move {
            serve_connection(stream, peer, acceptor, admin).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>, admin: Arc<Admin>) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => serve_http(stream, peer, admin).await,
        Some(acceptor) => match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve_http(stream, peer, admin).await,
            Ok(Err(error)) => debug!(%error, "TLS to the operator's seat failed"),
            Err(_) => debug!("TLS to the operator's seat took too long"),
        },
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, admin: Arc<Admin>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(answer(&admin, peer.ip(), request).await) }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the operator's seat broke");
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    const CERTIFICATE: &str = "admin.tls_certificate_file";
    const KEY: &str = "admin.tls_key_file";
    let bad = |key: &'static str, reason: String| ServeError::Tls { key, reason };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(CERTIFICATE, e.to_string()))?;
    if chain.is_empty() {
        return Err(bad(CERTIFICATE, "holds no certificate".into()));
    }
    // The reason of a key that cannot be read is its form; its content is in no message.
    let key = PrivateKeyDer::from_pem_file(key).map_err(|_| bad(KEY, "holds no private key in PEM form".into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| bad(CERTIFICATE, e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
