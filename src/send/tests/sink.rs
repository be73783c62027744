//! Receivers for the tests: raw bytes, an echo, and a real HTTP server behind TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// The body of every request in these tests; a raw sink takes its last byte for the request's end.
pub(super) const BODY: &[u8] = br#"{"hello":"world"}"#;

/// What a raw sink does once it has written its answer.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// Answers the next request of the connection the same way.
    Keep,
    /// Closes the connection.
    Close,
    /// Keeps the connection open and says nothing more.
    Hang,
    /// Writes this text until the client closes the connection.
    Repeat(&'static str),
}

/// A listener on the loopback interface that lives as long as the test's runtime.
pub(super) struct Sink {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    closed_by_client: Arc<Notify>,
}

impl Sink {
    /// Writes the same bytes in answer to every request.
    pub(super) async fn raw(answer: impl Into<String>, then: Then) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::serve(move |mut stream, closed_by_client| {
            let answer = Arc::clone(&answer);
            async move {
                while read_request(&mut stream).await.is_some() {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    match then {
                        Then::Keep => {}
                        Then::Close => return,
                        Then::Hang => std::future::pending().await,
                        Then::Repeat(text) => {
                            let block = text.repeat(1000);
                            while stream.write_all(block.as_bytes()).await.is_ok() {}
                            closed_by_client.notify_one();
                        }
                    }
                }
            }
        })
        .await
    }

    /// Answers the first bytes of a connection, whatever they are, and closes it.
    pub(super) async fn raw_at_once(answer: &'static str) -> Self {
        Self::serve(move |mut stream, _| async move {
            let mut first = [0; 4096];
            // Failures show in the client, which is what the test looks at.
            let _ = stream.read(&mut first).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await
    }

    /// Answers with the request as it came.
    pub(super) async fn echo() -> Self {
        Self::serve(|mut stream, _| async move {
            while let Some(request) = read_request(&mut stream).await {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.len());
                if stream.write_all(&[head.as_bytes(), &request].concat()).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// A real server behind TLS that answers with the HTTP version of the request.
    pub(super) async fn tls(acceptor: TlsAcceptor) -> Self {
        Self::tls_saying(acceptor, 0).await
    }

    /// The same, and `more_bytes` behind it.
    pub(super) async fn tls_saying(acceptor: TlsAcceptor, more_bytes: usize) -> Self {
        let version = move |request: Request<Incoming>| async move {
            let text = format!("{:?}{}", request.version(), " ".repeat(more_bytes));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        };
        Self::serve(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let io = TokioIo::new(stream);
                // How the connection ends is the client's to judge.
                if http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(io, service_fn(version)).await;
                } else {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(io, service_fn(version)).await;
                }
            }
        })
        .await
    }

    async fn serve<F, Fut>(connection: F) -> Self
    where
        F: Fn(TcpStream, Arc<Notify>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("addr");
        let (accepted, closed_by_client) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let sink = Self { addr, accepted: Arc::clone(&accepted), closed_by_client: Arc::clone(&closed_by_client) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connection(stream, Arc::clone(&closed_by_client)));
            }
        });
        sink
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn http(&self) -> String {
        format!("http://{}/", self.addr)
    }

    pub(super) fn https(&self, host: &str) -> String {
        format!("https://{host}:{}/", self.addr.port())
    }

    /// The connections accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until a sink that repeats itself could write no more.
    pub(super) async fn closed_by_client(&self) {
        self.closed_by_client.notified().await;
    }
}

/// One request, or none if the client closed the connection. Bytes that never end in [`BODY`] (a TLS
/// handshake) are read for ever.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(BODY) {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}
