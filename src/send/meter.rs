//! How much a connection may bring.
//!
//! The limits of an answer's headers and body do not see all that a receiver can send: interim answers
//! (1xx), the zeros before a chunk's size, frames of HTTP/2 that belong to no stream, or to one that was
//! reset. Such a flood needs little memory, but a processor for as long as the deadline lets it; over
//! HTTP/2 for as long as the connection is pooled, long after the answer. So every byte is counted where
//! it arrives, and a connection that brings far more than answers is ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::crash_point::{Point, reached};
use crate::outcome::Failure;

/// What a connection may bring besides answers: handshakes, frames, chunks of one byte.
const SMALL_CHANGE: i64 = 1 << 20;
/// The most a connection saves up, by answers smaller than they might have been: enough for all that are
/// under way over HTTP/2 at once.
const MOST_SAVED: i64 = 32 << 20;

/// What one connection may still bring. It is among the extensions of each of its answers.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    left: Arc<AtomicI64>,
    answer_bytes: i64,
}

impl Meter {
    /// For answers of so many bytes at most.
    pub(super) fn new(answer_bytes: usize) -> Self {
        let answer_bytes = i64::try_from(answer_bytes).unwrap_or(i64::MAX);
        Self { left: Arc::new(AtomicI64::new(SMALL_CHANGE.saturating_add(answer_bytes))), answer_bytes }
    }

    /// An answer has begun: what an answer may have is due to it.
    pub(super) fn answer_began(&self) {
        let most = MOST_SAVED.max(self.answer_bytes);
        let grown = |left: i64| Some(left.saturating_add(self.answer_bytes).min(most));
        // It fails only where the closure gives nothing.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.left.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            return Ok(());
        }
        Err(io::Error::other(Failure::Protocol("the receiver sends far more than an answer".to_owned())))
    }
}

/// How many connections are open, in use or not.
///
/// A subscription may have many attempts under way, each leaves a connection in the pool, and a tenant may have many
/// subscriptions: what is kept has to end somewhere before the files this process may open, and its memory, do.
#[derive(Clone, Debug)]
pub(super) struct Open {
    count: Arc<AtomicUsize>,
    most: usize,
}

impl Open {
    /// Beyond `most` a connection serves its request and is not kept.
    pub(super) fn at_most(most: usize) -> Self {
        Self { count: Arc::default(), most }
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.most
    }
}

/// A stream whose incoming bytes are counted, and which is counted itself.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    meter: Meter,
    open: Open,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, meter: Meter, open: Open) -> Self {
        open.count.fetch_add(1, Ordering::Relaxed);
        Self { stream, meter, open }
    }
}

impl<S> Drop for Metered<S> {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Connection for Metered<S> {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.meter.clone());
        // Poisoned from the start: it serves the request that it was made for and is not kept. Those that are kept
        // already go on, so that whoever crowds the pool does not take the connections of others.
        if self.open.is_crowded() {
            connected.poison();
        }
        connected
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.meter.take(buf.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        reached(Point::AttemptWritten);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        reached(Point::AttemptWritten);
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_begins_is_paid_for_and_savings_are_bounded() {
        let meter = Meter::new(1000);
        meter.take(1 << 20).expect("small change");
        meter.take(1000).expect("one answer");
        assert!(meter.take(1).is_err());
        for _ in 0..100_000 {
            meter.answer_began();
        }
        meter.take(32 << 20).expect("what was saved");
        assert!(meter.take(1).is_err());
        assert!(Meter::new(usize::MAX).take(usize::MAX).is_ok());
    }
}
