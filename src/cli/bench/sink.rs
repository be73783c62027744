//! The receiving end: one thread that reads each request to its end and answers it, as cheaply as HTTP/1.1 allows.
//!
//! It shares the cores with what is measured, so it does nothing else; `crate::receiver` is the one that verifies.
//! The path says what to answer, so that one sink serves good and bad endpoints:
//!
//! | path | answer |
//! |---|---|
//! | `/status/503` | that status |
//! | `/slow/250` | 200 after so many milliseconds |
//! | `/hang` | none |
//! | any other | 200 |
//!
//! `GET` is answered with how many requests were answered 2xx so far, by which a run is checked.

use super::BenchError;
use bytes::{Buf, BytesMut};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

const MAX_HEADERS: usize = 64;

/// A request that was read to its end.
pub(super) struct Arrived<'a> {
    method: &'a str,
    pub(super) path: &'a str,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Arrived<'a> {
    /// The first request and its length, headers and body; None while some of it is missing.
    fn parse(
        received: &'a [u8],
        headers: &'a mut [httparse::Header<'a>; MAX_HEADERS],
    ) -> std::io::Result<Option<(Self, usize)>> {
        let mut request = httparse::Request::new(headers);
        let httparse::Status::Complete(head) = request.parse(received).map_err(std::io::Error::other)? else {
            return Ok(None);
        };
        let mut body = 0;
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse::<usize>().ok());
                body = length.ok_or_else(|| std::io::Error::other("content-length is no number"))?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(std::io::Error::other("the sink reads bodies of a known length only"));
            }
        }
        let arrived = Self {
            method: request.method.unwrap_or_default(),
            path: request.path.unwrap_or_default(),
            headers: request.headers,
        };
        Ok((received.len() >= head + body).then_some((arrived, head + body)))
    }

    /// The public id of the event.
    pub(super) fn event_id(&self) -> &str {
        let header = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case("webhook-id"));
        header.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default()
    }
}

enum Answer {
    Status(u16),
    Slow(Duration),
    None,
}

impl Answer {
    fn of(path: &str) -> Self {
        let mut parts = path.split('/').skip(1);
        match (parts.next(), parts.next().and_then(|text| text.parse::<u16>().ok())) {
            (Some("status"), Some(code)) => Self::Status(code),
            (Some("slow"), Some(ms)) => Self::Slow(Duration::from_millis(ms.into())),
            (Some("hang"), _) => Self::None,
            _ => Self::Status(200),
        }
    }
}

/// Serves in a thread of this process until it is dropped, so that one clock measures both ends.
pub(super) struct Receiver {
    pub(super) port: u16,
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    /// `arrived` is called for every request, before it is answered.
    pub(super) fn start(arrived: impl Fn(&Arrived<'_>) + Send + 'static) -> Result<Self, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            // What goes wrong shows as deliveries that do not arrive.
            let _ = serve(listener, arrived, async { drop(stopped.await) });
        });
        Ok(Self { port, _stop: stop })
    }
}

/// Serves in a process of its own, which ends with this one.
pub(super) struct Sink {
    pub(super) port: u16,
    process: Child,
}

impl Sink {
    pub(super) fn start() -> Result<Self, BenchError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bench", "--sink"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let port = line.trim().parse().map_err(|_| "the sink does not start")?;
        Ok(Self { port, process })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in", self.port)
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// How many requests it has answered 2xx.
    pub(super) fn received(&self) -> Result<u64, BenchError> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let count = answer.rsplit("\r\n").next().unwrap_or_default();
        count.parse().map_err(|_| format!("the sink answers {answer:?}").into())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the sink's process does: says its port, and serves until whoever started it is gone.
pub(super) fn be_the_sink() -> Result<(), BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let (tell, gone) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is ever written: this returns when the other end is closed, however that came about.
        let _ = std::io::stdin().read(&mut [0]);
        let _ = tell.send(());
    });
    // Not within the runtime that the command line has set up.
    let served = std::thread::spawn(|| serve(listener, |_| (), async { drop(gone.await) })).join();
    Ok(served.map_err(|_| "the sink has panicked")??)
}

fn serve(
    listener: TcpListener,
    arrived: impl Fn(&Arrived<'_>) + 'static,
    until: impl Future<Output = ()>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (arrived, accepted) = (Rc::new(arrived), Rc::new(Cell::new(0_u64)));
    let serving = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let (arrived, accepted) = (arrived.clone(), accepted.clone());
            tokio::task::spawn_local(async move {
                // A peer that breaks off is that connection's end.
                let _ = converse(stream, &*arrived, &accepted).await;
            });
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::select! { done = serving => done, () = until => Ok(()) }
    })
}

async fn converse(
    mut stream: tokio::net::TcpStream,
    arrived: &impl Fn(&Arrived<'_>),
    accepted: &Cell<u64>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut received, mut answers) = (BytesMut::with_capacity(16 << 10), Vec::new());
    loop {
        // Whatever is complete is answered in one write: a client may pipeline.
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let Some((request, length)) = Arrived::parse(&received, &mut headers)? else { break };
            arrived(&request);
            let answer = (request.method == "GET", Answer::of(request.path));
            received.advance(length);
            match answer {
                (true, _) => {
                    let count = accepted.get().to_string();
                    answers.extend_from_slice(
                        format!(
                            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{count}",
                            count.len()
                        )
                        .as_bytes(),
                    );
                    stream.write_all(&answers).await?;
                    return Ok(());
                }
                (false, Answer::Status(code)) => {
                    accepted.set(accepted.get() + u64::from(code / 100 == 2));
                    answer_with(&mut answers, code);
                }
                (false, Answer::Slow(delay)) => {
                    tokio::time::sleep(delay).await;
                    accepted.set(accepted.get() + 1);
                    answer_with(&mut answers, 200);
                }
                (false, Answer::None) => {
                    // Until the client gives up.
                    while stream.read_buf(&mut received).await? > 0 {
                        received.clear();
                    }
                    return Ok(());
                }
            }
        }
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

fn answer_with(answers: &mut Vec<u8>, code: u16) {
    if code == 200 {
        answers.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    } else {
        answers.extend_from_slice(format!("HTTP/1.1 {code} -\r\ncontent-length: 0\r\n\r\n").as_bytes());
    }
}
