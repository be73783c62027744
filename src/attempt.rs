//! One attempt of one delivery: body, headers, signature, request, result. No database.

use crate::crash_point::{Point, reached};
use crate::db::{Event, Finished, Lease};
use crate::endpoint::{Endpoint, Known};
use crate::outcome::{Attempted, Outcome, headers_json, headers_json_without};
use crate::send::{Outgoing, Sender};
use crate::sign::{Key, Message};
use crate::trace::{TraceContext, Tracer};
use hyper::header::{HeaderName, HeaderValue};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, SystemTime};
use tracing::error;

/// Makes the attempt that `lease` stands for. Whatever goes wrong is in the result.
pub async fn make(sender: &Sender, tracer: &Tracer, lease: &Lease, known: &Known, excerpt_bytes: usize) -> Finished {
    let span = tracer.begin(lease);
    // Pinned here: a future that is passed on by value lies twice in the one that awaits it, and each attempt's is moved.
    let work = pin!(attempt(sender, span, lease, known, excerpt_bytes));
    let attempt = unpanicked(work).await;
    let finished = attempt.unwrap_or_else(|| {
        error!(subscription_id = lease.subscription_id, event_seq = lease.event_seq, "an attempt panicked");
        let reason = "the relay failed; its log says where".to_owned();
        finished(lease, not_sent(reason, SystemTime::now()), None, None)
    });
    let host = known.endpoint.as_ref().ok().and_then(|endpoint| endpoint.uri.host());
    tracer.end(span, lease, &finished, host);
    finished
}

async fn attempt(
    sender: &Sender,
    span: Option<TraceContext>,
    lease: &Lease,
    known: &Known,
    excerpt_bytes: usize,
) -> Finished {
    let started_at = SystemTime::now();
    let prepared = match (&known.endpoint, &lease.event) {
        (Ok(endpoint), Some(event)) => prepare(endpoint, event, span, lease.attempts, excerpt_bytes, started_at),
        (Err(reason), _) => Err(reason.clone()),
        (_, None) => Err("the event is no longer in the log".into()),
    };
    match prepared {
        Ok((outgoing, request_headers, key_ids)) => {
            reached(Point::AttemptBegun);
            let attempted = sender.send(outgoing).await;
            reached(Point::AttemptAnswered);
            finished(lease, attempted, Some(request_headers), Some(key_ids))
        }
        Err(reason) => finished(lease, not_sent(reason, started_at), None, None),
    }
}

/// What ends in a panic, which is a bug, gives nothing; without a result its delivery would stay leased, and its place
/// taken, for as long as the relay lives.
async fn unpanicked<T>(mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    // Nothing that it held is looked at again.
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

fn not_sent(reason: String, started_at: SystemTime) -> Attempted {
    Attempted {
        outcome: Outcome::RelayError,
        status_code: None,
        error: Some(reason),
        is_unmade: false,
        response_excerpt: None,
        response_headers: None,
        retry_after: None,
        started_at,
        latency: Duration::ZERO,
        first_byte: None,
    }
}

/// The request, its headers for the log (without signatures), and the ids of the keys that signed. Pure.
///
/// # Errors
/// With a reason for people: the body cannot be made, or no key is left to sign with.
pub fn prepare(
    endpoint: &Endpoint,
    event: &Event,
    span: Option<TraceContext>,
    attempts_before: i32,
    excerpt_bytes: usize,
    now: SystemTime,
) -> Result<(Outgoing, String, String), String> {
    let body = endpoint.envelope.body(event).map_err(|e| e.to_string())?;
    let keys: Vec<&Key> = endpoint.keys.iter().filter(|key| key.expires_at.is_none_or(|at| at > now)).collect();
    if keys.is_empty() {
        return Err("every secret of the subscription has expired: rotate it with outbox.rotate_secret".into());
    }
    let mut headers = endpoint.headers.clone();
    // Who takes part in the trace is the receiver's parent; who does not passes on what came.
    let traceparent = span.map(|span| span.to_string()).or_else(|| event.traceparent.clone());
    if let Some(Ok(traceparent)) = traceparent.as_deref().map(HeaderValue::from_str) {
        headers.insert(HeaderName::from_static("traceparent"), traceparent);
    }
    let timestamp = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let keys = endpoint.scheme.in_turn(keys, attempts_before);
    let message = Message { event_id: &event.id.to_string(), kind: &event.kind, timestamp, body: &body };
    endpoint.scheme.sign(&keys, &message, &mut headers);
    let logged = headers_json_without(&headers, |name| endpoint.scheme.is_signature(name));
    let key_ids = keys.iter().map(|key| key.key_id.as_str()).collect::<Vec<_>>().join(",");
    let outgoing = Outgoing {
        uri: endpoint.uri.clone(),
        headers,
        body,
        tls: endpoint.tls.clone(),
        timeout: endpoint.timeout,
        excerpt_bytes,
    };
    Ok((outgoing, logged, key_ids))
}

fn finished(lease: &Lease, attempted: Attempted, request_headers: Option<String>, key_ids: Option<String>) -> Finished {
    Finished {
        subscription_id: lease.subscription_id,
        event_seq: lease.event_seq,
        event_id: lease.event.as_ref().map(|event| event.id),
        started_at: attempted.started_at,
        latency: attempted.latency,
        since_commit: attempted.first_byte.filter(|_| lease.is_fresh).and_then(|first_byte| {
            let inserted_at = lease.event.as_ref()?.inserted_at();
            (attempted.started_at + first_byte).duration_since(inserted_at).ok()
        }),
        outcome: attempted.outcome,
        is_unmade: attempted.is_unmade,
        status_code: attempted.status_code.and_then(|status| i16::try_from(status).ok()),
        error: attempted.error,
        response_excerpt: attempted.response_excerpt,
        response_headers: attempted.response_headers.as_ref().map(headers_json),
        request_headers,
        key_ids,
        retry_after_s: attempted.retry_after.map(|wait| i32::try_from(wait.as_secs()).unwrap_or(i32::MAX)),
        cause: lease.cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_no_result_and_goes_no_further() {
        assert_eq!(unpanicked(pin!(async { 7 })).await, Some(7));
        let breaks = async {
            tokio::task::yield_now().await;
            std::hint::black_box(Vec::<i32>::new())[0]
        };
        assert_eq!(unpanicked(pin!(breaks)).await, None);
    }
}
