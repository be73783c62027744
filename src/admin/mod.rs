//! The operator's seat: HTTP API, console, metrics, health.
//!
//! A thin face of the SQL functions. [`document`] (`openapi.json`) says which operations there are and what they
//! take; [`api`] judges a request by it and calls the function of schema `outbox_http` that the operation is named
//! after, in the database role of the token. So a new operation is an entry in the document and a file in
//! `sql/functions/90_http`, and nothing here.
//!
//! [`webhooks`] adds to the document what receivers get.
//!
//! A request on its way: [`listener`] (TLS, time limits) → [`answer`] (what needs no token, or [`session`] and
//! [`api`]) → `crate::db::Seat` (one transaction). It has connections of its own, so that it never takes one from
//! a delivery, and a limit on what it serves at once.

mod api;
mod console;
mod credentials;
mod document;
mod fleet;
mod health;
mod limiter;
mod listener;
mod problem;
mod session;
mod webhooks;

pub use document::{Document, DocumentError};
pub use listener::{ServeError, serve};

use crate::db::Seat;
use crate::metrics::Metrics;
use bytes::Bytes;
use fleet::Fleet;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use limiter::Limiter;
use problem::Problem;
use std::net::IpAddr;
use std::time::Duration;

/// An answer, complete in memory.
pub(crate) type Reply = Response<Full<Bytes>>;

/// What every request is answered with.
pub(crate) struct Admin {
    pub(crate) seat: Seat,
    pub(crate) metrics: Metrics,
    pub(crate) document: Document,
    pub(crate) fleet: Fleet,
    pub(crate) limiter: Limiter,
    pub(crate) settings: Settings,
}

/// What the configuration says.
pub(crate) struct Settings {
    pub(crate) request_timeout: Duration,
    pub(crate) max_body_bytes: usize,
    pub(crate) ready_lag: Duration,
    pub(crate) hosts: Vec<String>,
    pub(crate) is_tls: bool,
}

/// Answers one request, whatever happens.
pub(crate) async fn answer(admin: &Admin, peer: IpAddr, request: Request<Incoming>) -> Reply {
    let is_head = request.method() == Method::HEAD;
    let mut reply = match tokio::time::timeout(admin.settings.request_timeout, route(admin, peer, request)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(problem)) => problem.reply(),
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Out of time")
            .detail("the request took longer than admin.request_timeout")
            .reply(),
    };
    harden(admin, &mut reply);
    admin.metrics.admin_answered(reply.status().as_u16());
    if is_head {
        let length = hyper::body::Body::size_hint(reply.body()).lower();
        reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        *reply.body_mut() = Full::default();
    }
    reply
}

async fn route(admin: &Admin, peer: IpAddr, request: Request<Incoming>) -> Result<Reply, Problem> {
    credentials::check_host(&admin.settings, &request)?;
    let path = request.uri().path().to_owned();
    let fixed = match path.as_str() {
        "/healthz" => Some(health::healthz()),
        "/readyz" => Some(health::readyz(admin).await),
        "/metrics" => Some(health::metrics(admin).await?),
        "/openapi.json" => Some(webhooks::openapi(admin, request.uri().query().unwrap_or_default()).await?),
        "/session" => return session::session(admin, peer, request).await,
        path => console::file(path),
    };
    let Some(fixed) = fixed else { return api::call(admin, peer, request).await };
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    Ok(fixed)
}

/// What every answer carries: nothing is cached, sniffed, framed or told to others.
fn harden(admin: &Admin, reply: &mut Reply) {
    let headers = reply.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    // What is not the console is data: nothing in it may run.
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    if admin.settings.is_tls {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    typed(status, "application/json", body)
}

/// An answer of that content type.
pub(crate) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
