//! The operator's seat of a real daemon, and somebody who calls it.

use super::{Daemon, Db, PATIENCE, Session};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A daemon with its seat at a port of its own, and tokens for each role.
pub(crate) struct Seat {
    /// Killed when this is dropped.
    pub(crate) daemon: Daemon,
    pub(crate) address: SocketAddr,
    pub(crate) operator: String,
}

/// How a request was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The answer, if it is a success.
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.json()
    }

    /// That it is a problem of this status; returns it.
    pub(crate) fn problem(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        problem
    }
}

impl Seat {
    pub(crate) async fn new(db: &Db) -> Self {
        Self::with(db, &[]).await
    }

    /// With these variables for the daemon besides.
    pub(crate) async fn with(db: &Db, environment: &[(&str, &str)]) -> Self {
        Self::at(&db.url(), &db.session().await, environment).await
    }

    /// On a database of another server.
    pub(crate) async fn at(url: &str, session: &Session, environment: &[(&str, &str)]) -> Self {
        let mut daemon = Daemon::relay(url, "relay-1").set("OUTBOXD_ADMIN__LISTEN", "127.0.0.1:0");
        for (name, value) in environment {
            daemon = daemon.set(name, value);
        }
        let seat = Self::of(daemon.spawn().registered().await).await;
        let operator = session.one("select outbox.create_token('operator', description => 'tests')").await;
        Self { operator, ..seat }
    }

    /// Of a daemon that listens, and without a token.
    pub(crate) async fn of(mut daemon: Daemon) -> Self {
        daemon.wait_for_log("url=\"http").await;
        let log = daemon.log();
        let (_, url) = log.split_once("url=\"http").expect("it says where");
        let address = url.trim_start_matches('s').trim_start_matches("://").split('/').next().expect("an address");
        Self { daemon, address: address.parse().expect("an address"), operator: String::new() }
    }

    /// As the operator.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answered {
        self.call_as(&self.operator, method, path, body, &[]).await
    }

    /// With that token and these headers.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answered {
        let authorization = format!("Bearer {token}");
        let mut all = vec![("authorization", authorization.as_str())];
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        all.extend(headers);
        self.send(method, path, &all, body.map(|body| body.to_string()).unwrap_or_default()).await
    }

    /// Exactly this.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answered {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let answer = answer.expect("it answers in time").expect("it answers");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        Answered { status: head.status, headers: head.headers, text }
    }
}
