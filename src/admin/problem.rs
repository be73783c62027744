//! `application/problem+json` (RFC 9457): what was refused, why, and what to do.

use super::{Reply, typed};
use crate::db::DbError;
use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tokio_postgres::error::DbError as PostgresError;
use tracing::error;

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// With a title that is the same for all of its kind.
    pub(crate) fn new(status: StatusCode, title: &str) -> Self {
        let mut members = Map::new();
        members.insert("type".into(), json!("about:blank"));
        members.insert("title".into(), json!(title));
        members.insert("status".into(), json!(status.as_u16()));
        Self { status, members, headers: Vec::new() }
    }

    /// What it is this time.
    pub(crate) fn detail(self, detail: &str) -> Self {
        self.with("detail", json!(detail))
    }

    /// What to do.
    pub(crate) fn hint(self, hint: &str) -> Self {
        self.with("hint", json!(hint))
    }

    /// Another member.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.into(), value);
        self
    }

    /// A header of the answer.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// No token or session, or none that is good.
    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Not signed in")
            .detail(detail)
            .hint("Pass a token of outbox.create_token(role) as Authorization: Bearer …")
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outboxd\""))
    }

    /// Too many tries without a good token.
    pub(crate) fn too_many(retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests without a good token")
            .header(header::RETRY_AFTER, HeaderValue::from(retry_after_s))
    }

    /// The path is there, the method is not.
    pub(crate) fn method_not_allowed(allow: &str) -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed").detail(&format!("use {allow}"));
        match HeaderValue::from_str(allow) {
            Ok(allow) => problem.header(header::ALLOW, allow),
            Err(_) => problem,
        }
    }

    /// The request does not fit the document.
    pub(crate) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The request does not fit").detail(detail)
    }

    /// As it goes out.
    pub(crate) fn reply(self) -> Reply {
        let mut reply = typed(self.status, "application/problem+json", Value::Object(self.members).to_string());
        reply.headers_mut().extend(self.headers);
        reply
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        if let DbError::Postgres(e) = &error
            && let Some(refused) = e.as_db_error()
        {
            return of_refusal(refused);
        }
        if let DbError::Secret(refusal) = &error
            && let Some((status, title)) = of_outbox("OB015")
        {
            return coded(status, title, "OB015").detail(&refusal.to_string()).hint(refusal.hint);
        }
        error!(%error, "the operator's seat cannot reach the database");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "The database cannot be asked").header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }
}

/// What PostgreSQL, or one of our functions, refused. Our messages are made to be shown; of PostgreSQL's own only
/// those about the caller's values are.
fn of_refusal(refused: &PostgresError) -> Problem {
    let code = refused.code().code();
    if let Some((status, title)) = of_outbox(code) {
        let problem = coded(status, title, code).detail(refused.message());
        return match refused.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        };
    }
    match code {
        "42501" => coded(StatusCode::FORBIDDEN, "The token's role may not do this", code)
            .detail("the database role that the token stands for has no right to it")
            .hint("Use a token of another role: select outbox.create_token('operator')."),
        "55P03" => coded(StatusCode::CONFLICT, "Somebody else is at it", code)
            .detail("another transaction holds what is needed")
            .hint("Try again."),
        "57014" => coded(StatusCode::SERVICE_UNAVAILABLE, "Out of time", code)
            .detail("the statement took too long")
            .hint("Ask for less, or raise admin.request_timeout."),
        "40001" | "40P01" => coded(StatusCode::CONFLICT, "Two changes collided", code).hint("Try again."),
        _ if code.starts_with("22") || code.starts_with("23") => {
            coded(StatusCode::BAD_REQUEST, "A value is not acceptable", code).detail(refused.message())
        }
        _ if ["08", "53", "57", "58"].contains(&&code[..2.min(code.len())]) => {
            error!(code, message = refused.message(), "the database refused the operator's seat");
            coded(StatusCode::SERVICE_UNAVAILABLE, "The database cannot be asked", code)
        }
        _ => {
            error!(code, message = refused.message(), "an operation of the operator's seat failed");
            coded(StatusCode::INTERNAL_SERVER_ERROR, "An operation failed", code).detail("the log of outboxd has more")
        }
    }
}

fn coded(status: StatusCode, title: &str, code: &str) -> Problem {
    Problem::new(status, title).with("type", json!(format!("urn:outboxd:error:{code}"))).with("code", json!(code))
}

/// The meanings of class OB, as docs/errors.md has them.
fn of_outbox(code: &str) -> Option<(StatusCode, &'static str)> {
    const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
    Some(match code {
        "OB001" => (UNPROCESSABLE, "The event type is not acceptable"),
        "OB002" => (UNPROCESSABLE, "The tenant is not acceptable"),
        "OB003" => (StatusCode::PAYLOAD_TOO_LARGE, "The payload is too large"),
        "OB004" => (UNPROCESSABLE, "The event type is not in the catalog"),
        "OB005" => (UNPROCESSABLE, "The event is not acceptable"),
        "OB006" => (UNPROCESSABLE, "The idempotency key is not acceptable"),
        "OB010" => (UNPROCESSABLE, "The URL is not acceptable"),
        "OB011" => (UNPROCESSABLE, "The event types are not acceptable"),
        "OB012" => (UNPROCESSABLE, "The filter is not acceptable"),
        "OB013" => (UNPROCESSABLE, "There is no such signature profile or envelope"),
        "OB014" => (UNPROCESSABLE, "There is no such retry policy"),
        "OB015" => (UNPROCESSABLE, "The secret is not acceptable"),
        "OB016" => (UNPROCESSABLE, "A header is not acceptable"),
        "OB017" => (StatusCode::CONFLICT, "The name is taken"),
        "OB018" => (UNPROCESSABLE, "A value is out of its range"),
        "OB020" => (StatusCode::NOT_FOUND, "There is no such thing"),
        "OB021" => (StatusCode::NOT_FOUND, "There is no such event, delivery or event type"),
        "OB022" => (StatusCode::FORBIDDEN, "Another tenant's"),
        "OB023" => (StatusCode::CONFLICT, "Not in this state"),
        "OB024" => (StatusCode::CONFLICT, "The configuration manages it"),
        "OB030" => (UNPROCESSABLE, "The setting or its value is not acceptable"),
        "OB031" => (UNPROCESSABLE, "The environment's name is not acceptable"),
        "OB040" => (StatusCode::CONFLICT, "A lock could not be had in time"),
        "OB060" => (StatusCode::BAD_REQUEST, "The cursor is of another list"),
        "OB061" => (UNPROCESSABLE, "The Idempotency-Key was used for another request"),
        "OB070" => (StatusCode::CONFLICT, "The tenant has as many subscriptions as it may"),
        "OB071" => (StatusCode::CONFLICT, "An event would be for too many subscriptions"),
        "OB072" => (StatusCode::TOO_MANY_REQUESTS, "Too many filters of the tenant did not end in time"),
        "OB080" => (StatusCode::FORBIDDEN, "About all tenants"),
        _ if code.starts_with("OB") => (UNPROCESSABLE, "Refused"),
        _ => return None,
    })
}
