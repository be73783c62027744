//! The other side: three receivers that verify every request with their own means and keep their own
//! books. They share nothing with the relay but their secret.

use super::DemoError;
use super::narrator::write_line;
use crate::receiver::{self, Arrived, Reply, Verdict};
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What a receiver has written down.
#[derive(Debug, Default, Clone)]
pub(super) struct Book {
    /// How often each event was verified and accepted, by its id.
    pub(super) accepted: BTreeMap<String, u32>,
    /// Requests answered 503.
    pub(super) unavailable: u32,
    /// Requests whose signature did not hold; answered 401.
    pub(super) refused: u32,
    /// Requests that each secret this receiver ever had would have verified, oldest secret first.
    pub(super) verified_with: Vec<u32>,
    /// Requests that two secrets would have verified.
    pub(super) verified_with_both: u32,
}

/// One receiver.
pub(super) struct Receiver {
    /// Also the name of its subscription.
    pub(super) name: &'static str,
    /// Where it listens, or will.
    pub(super) address: SocketAddr,
    state: Arc<State>,
    /// Bound and not listening: the port is taken, and whoever connects is refused.
    dead: Option<TcpSocket>,
}

#[derive(Default)]
struct State {
    /// Every secret it was ever given; those before `oldest` are forgotten.
    secrets: Mutex<Vec<String>>,
    oldest: AtomicUsize,
    book: Mutex<Book>,
    unavailable_for: AtomicU32,
    answer_after_ms: AtomicU64,
    in_hand: AtomicUsize,
    announce: AtomicBool,
}

impl Receiver {
    /// Takes a port, and does not listen at it.
    pub(super) fn dead(name: &'static str) -> Result<Self, DemoError> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok(Self { name, address, state: Arc::default(), dead: Some(socket) })
    }

    /// Takes a port and serves.
    pub(super) fn alive(name: &'static str) -> Result<Self, DemoError> {
        let mut receiver = Self::dead(name)?;
        receiver.come_alive()?;
        Ok(receiver)
    }

    /// Begins to listen, if it does not yet.
    pub(super) fn come_alive(&mut self) -> Result<(), DemoError> {
        if let Some(socket) = self.dead.take() {
            let listener: TcpListener = socket.listen(1024)?;
            let (name, state) = (self.name, self.state.clone());
            tokio::spawn(receiver::serve(listener, move |arrived| answer(name, state.clone(), arrived)));
        }
        Ok(())
    }

    /// Its address, as a subscription has it.
    pub(super) fn url(&self) -> String {
        format!("http://{}/webhooks", self.address)
    }

    /// Answers 503 to that many requests from now on.
    pub(super) fn be_unavailable_for(&self, requests: u32) {
        self.state.unavailable_for.store(requests, Relaxed);
    }

    /// Takes its time before it answers.
    pub(super) fn answer_after(&self, delay: Duration) {
        self.state.answer_after_ms.store(delay.as_millis() as u64, Relaxed);
    }

    /// Requests written into the book whose answer is not out yet.
    pub(super) fn in_hand(&self) -> usize {
        self.state.in_hand.load(Relaxed)
    }

    /// Is told a secret, and verifies with it besides those it has.
    pub(super) fn learn(&self, secret: String) {
        lock(&self.state.secrets).push(secret);
    }

    /// Verifies with the newest secret alone from now on.
    pub(super) fn forget_old_secrets(&self) {
        let newest = lock(&self.state.secrets).len().saturating_sub(1);
        self.state.oldest.store(newest, Relaxed);
    }

    /// Prints a line for everything that arrives from now on.
    pub(super) fn announce(&self) {
        self.state.announce.store(true, Relaxed);
    }

    /// A copy of its book.
    pub(super) fn book(&self) -> Book {
        lock(&self.state.book).clone()
    }

    /// Posts what somebody without the secret might; returns the status of the answer.
    pub(super) async fn post_forgery(&self) -> Result<u16, DemoError> {
        let body = r#"{"id":"0","type":"result.published","data":{"score":[13,0]}}"#;
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = format!(
            "POST /webhooks HTTP/1.1\r\nhost: {}\r\nwebhook-id: 0\r\nwebhook-timestamp: {now_s}\r\n\
             webhook-signature: v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| DemoError::Unexpected(format!("{} did not answer the forged request", self.name)))
    }
}

/// Counted as in hand until dropped, also when the sender goes away and the answer with it.
struct InHand(Arc<State>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Relaxed);
    }
}

async fn answer(name: &'static str, state: Arc<State>, arrived: Arrived) -> Reply {
    let status = judge(&state, &arrived);
    if state.announce.load(Relaxed) {
        let body: serde_json::Value = serde_json::from_slice(&arrived.body).unwrap_or_default();
        let kind: String = body["type"].as_str().unwrap_or("?").chars().filter(|c| !c.is_control()).take(60).collect();
        write_line(format_args!("    {name} received {kind} and answered {}", status.as_u16()));
    }
    if status == StatusCode::OK {
        state.in_hand.fetch_add(1, Relaxed);
        let _in_hand = InHand(state.clone());
        tokio::time::sleep(Duration::from_millis(state.answer_after_ms.load(Relaxed))).await;
    }
    Reply::now(status)
}

/// Verify first, then answer for oneself, then write it down.
fn judge(state: &State, arrived: &Arrived) -> StatusCode {
    let secrets = lock(&state.secrets).clone();
    let now = SystemTime::now();
    let holds: Vec<bool> = secrets
        .iter()
        .map(|secret| matches!(receiver::verify(arrived, &[secret], None, now), Verdict::Verified(_)))
        .collect();
    let mut book = lock(&state.book);
    if !holds.iter().skip(state.oldest.load(Relaxed)).any(|holds| *holds) {
        book.refused += 1;
        return StatusCode::UNAUTHORIZED;
    }
    if state.unavailable_for.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
        book.unavailable += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    book.verified_with.resize(holds.len(), 0);
    for (count, holds) in book.verified_with.iter_mut().zip(&holds) {
        *count += u32::from(*holds);
    }
    book.verified_with_both += u32::from(holds.iter().filter(|holds| **holds).count() > 1);
    *book.accepted.entry(arrived.event_id().to_owned()).or_default() += 1;
    StatusCode::OK
}

/// A panic elsewhere leaves a count that is one short, which the account will show.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
