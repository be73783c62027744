//! Which [`Failure`] an error of the client is. Errors are told apart by type, never by text.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;

use super::tls;
use crate::outcome::{Failure, TlsFault};

/// Why there is no answer.
pub(super) fn of_request(error: &legacy::Error) -> Failure {
    match known_cause(error) {
        Some(failure) => failure,
        // The connector's own errors are failures already; what else fails while connecting is the
        // handshake (cut short, or a host that no certificate can name).
        None if error.is_connect() => Failure::Tls { fault: TlsFault::Protocol, detail: innermost(error).to_string() },
        // The client found the request itself unfit.
        None => Failure::Relay(innermost(error).to_string()),
    }
}

/// Why an answer's body broke off.
pub(super) fn of_body(error: &hyper::Error) -> Failure {
    known_cause(error).unwrap_or_else(|| Failure::Protocol(innermost(error).to_string()))
}

/// The outermost error of the chain whose type says what happened. TLS is looked for first: hyper
/// wraps a broken session in an error of its own.
fn known_cause(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(failure) = carried(error) {
        return Some(failure);
    }
    if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return Some(tls::failure(tls));
    }
    causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>()).map(of_hyper)
}

/// The failure that a connector of ours has put into the error.
pub(super) fn carried(error: &(dyn Error + 'static)) -> Option<Failure> {
    causes(error).find_map(|cause| cause.downcast_ref::<Failure>()).cloned()
}

fn of_hyper(error: &hyper::Error) -> Failure {
    // Canceled: a fresh connection was closed before the request was written.
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Failure::Closed
    } else if error.is_user() {
        Failure::Relay(error.to_string())
    } else {
        let (outer, inner) = (error.to_string(), innermost(error).to_string());
        Failure::Protocol(if outer == inner { outer } else { format!("{outer}: {inner}") })
    }
}

/// The error and everything beneath it. `io::Error::source` skips the error it wraps, so that one
/// is fetched with `get_ref`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}
