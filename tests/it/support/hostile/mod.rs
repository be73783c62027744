//! Receivers that mean harm, each known by a name: a script of bytes and pauses over TCP or TLS.
//!
//! What the relay has to make of each is in `tests/hostile-responses.tsv`. Nothing here knows HTTP: what
//! is broken is written out, byte by byte. Used by the tests and by `make bench-hostile`.

mod certificates;
mod http1;
mod http2;
mod tls;

pub(crate) use certificates::Certificates;

use certificates::Certificate;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

/// A connection that neither side ends is given up after this long.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two writes of a flood: enough to flood, and little enough for dozens of them on one core.
const FLOOD_PACE: Duration = Duration::from_millis(2);
/// Bytes in one write of a flood, at least.
const FLOOD_BLOCK: usize = 16 * 1024;
/// Small buffers on this side, so that what was sent is what was read, nearly.
const BUFFER: u32 = 64 * 1024;

/// What a receiver does, in order; after the last step it closes the connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads a request (HTTP/1.1) to its end.
    Request,
    /// Reads no more than the head of a request.
    Head,
    /// Reads an HTTP/2 preface and all frames up to the one that ends a stream.
    Http2Request,
    /// Reads whatever comes, once.
    Something,
    /// Sends this.
    Send(Cow<'static, [u8]>),
    /// Sends this again and again, as fast as it is taken, until the other side has gone.
    Forever(Cow<'static, [u8]>),
    /// Sends this again and again, one byte at a time.
    Drip(&'static [u8]),
    /// Sends this again and again, with time in between to read it.
    Paced(Cow<'static, [u8]>),
    /// Reads on and says nothing, until the other side has gone.
    Hang,
    /// Reads nothing and says nothing.
    Deaf,
    /// Closes with RST, whatever is on the way.
    Reset,
    /// From the beginning, on the same connection.
    Again,
}

/// Sends this text.
pub(crate) fn send(bytes: impl Into<Cow<'static, [u8]>>) -> Step {
    Step::Send(bytes.into())
}

/// Where a script is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// `http:` on TCP.
    Http,
    /// `https:`, and whatever the script does is done on bare TCP.
    Https,
    /// `https:` behind a handshake with this certificate, and no ALPN.
    Tls(Certificate),
    /// `https:` behind a handshake that agrees on HTTP/2.
    Http2,
    /// `http:`, and TLS is expected.
    TlsOnHttp,
}

struct Part {
    over: Over,
    steps: Vec<Step>,
}

/// The names of all receivers there are.
pub(crate) fn names() -> Vec<&'static str> {
    let parts = [http1::NAMES, tls::NAMES, http2::NAMES];
    parts.concat()
}

fn part(name: &str, own: SocketAddr, trap: SocketAddr) -> Part {
    http1::part(name, own, trap)
        .or_else(|| tls::part(name))
        .or_else(|| http2::part(name))
        .unwrap_or_else(|| panic!("no receiver is called {name:?}"))
}

/// A receiver on the loopback interface, until it is dropped.
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    url: String,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    sent: AtomicU64,
}

impl Hostile {
    /// Starts the receiver of that name. Redirects lead to `trap`.
    pub(crate) async fn start(name: &'static str, certificates: &Certificates, trap: SocketAddr) -> Self {
        let listener = listen();
        let address = listener.local_addr().expect("an address");
        let part = part(name, address, trap);
        let scheme = if matches!(part.over, Over::Http | Over::TlsOnHttp) { "http" } else { "https" };
        let acceptor = match part.over {
            Over::Http | Over::Https => None,
            Over::Tls(certificate) => Some(certificates.acceptor(certificate, &[])),
            Over::TlsOnHttp => Some(certificates.acceptor(Certificate::Good, &[])),
            Over::Http2 => Some(certificates.acceptor(Certificate::Good, &["h2"])),
        };
        let counts = Arc::new(Counts::default());
        let (shared, steps) = (counts.clone(), Arc::new(part.steps));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        // Out of files: those that hold them end in time.
                        let Ok((tcp, _)) = accepted else { sleep(FLOOD_PACE).await; continue };
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        let (acceptor, steps, counts) = (acceptor.clone(), steps.clone(), shared.clone());
                        connections.spawn(timeout(LONGEST, async move {
                            let stream = match acceptor {
                                None => Stream::Tcp(tcp),
                                // Errors of a connection are what these receivers are for.
                                Some(acceptor) => Stream::Tls(Box::new(acceptor.accept(tcp).await?)),
                            };
                            Conversation { stream, counts }.play(&steps).await
                        }));
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Self { name, url: format!("{scheme}://{address}/in"), counts, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How many bytes it got rid of, over all connections, without TLS.
    pub(crate) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Connections inherit these.
    socket.set_send_buffer_size(BUFFER).expect("a buffer");
    socket.set_recv_buffer_size(BUFFER).expect("a buffer");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    socket.listen(1024).expect("listening")
}

struct Conversation {
    stream: Stream,
    counts: Arc<Counts>,
}

impl Conversation {
    async fn play(mut self, steps: &[Step]) -> io::Result<()> {
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            at += 1;
            match step {
                Step::Request => self.read_request(true).await?,
                Step::Head => self.read_request(false).await?,
                Step::Http2Request => self.read_http2_request().await?,
                Step::Something => {
                    let _however_much = self.stream.read(&mut [0; 16 * 1024]).await?;
                }
                Step::Send(bytes) => self.send(bytes).await?,
                Step::Forever(bytes) => {
                    let block = bytes.repeat(FLOOD_BLOCK / bytes.len() + 1);
                    loop {
                        self.send(&block).await?;
                        sleep(FLOOD_PACE).await;
                    }
                }
                Step::Drip(bytes) => {
                    for byte in bytes.iter().cycle() {
                        self.send(&[*byte]).await?;
                        sleep(Duration::from_millis(100)).await;
                    }
                }
                Step::Paced(bytes) => loop {
                    self.send(bytes).await?;
                    sleep(Duration::from_millis(50)).await;
                },
                Step::Hang => while self.stream.read(&mut [0; 16 * 1024]).await? > 0 {},
                Step::Deaf => sleep(LONGEST / 6).await,
                Step::Reset => {
                    self.stream.tcp().set_zero_linger()?;
                    return Ok(());
                }
                Step::Again => at = 0,
            }
        }
        self.stream.shutdown().await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.counts.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn read_request(&mut self, with_body: bool) -> io::Result<()> {
        let mut request = Vec::new();
        let head_end = loop {
            if let Some(at) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more(&mut request).await?;
        };
        let head = String::from_utf8_lossy(&request[..head_end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        while with_body && request.len() < head_end + length {
            self.read_more(&mut request).await?;
        }
        Ok(())
    }

    async fn read_http2_request(&mut self) -> io::Result<()> {
        const PREFACE: usize = 24;
        const END_STREAM: u8 = 1;
        let mut read = Vec::new();
        let mut at = PREFACE;
        loop {
            while read.len() < at + 9 {
                self.read_more(&mut read).await?;
            }
            let (length, kind, flags) =
                (u32::from_be_bytes([0, read[at], read[at + 1], read[at + 2]]), read[at + 3], read[at + 4]);
            at += 9 + length as usize;
            // Of DATA and HEADERS.
            if kind <= 1 && flags & END_STREAM != 0 {
                return Ok(());
            }
        }
    }

    async fn read_more(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match self.stream.read_buf(into).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
