//! One operation of the API: found in the document, judged by it, done by the SQL function it is named after.

use super::document::Operation;
use super::problem::Problem;
use super::{Admin, Reply, credentials, json};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json as object};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Answers a request to the API.
pub(crate) async fn call(admin: &Admin, peer: IpAddr, request: Request<Incoming>) -> Result<Reply, Problem> {
    let path = request.uri().path().to_owned();
    let Some(found) = admin.document.at(&path) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "There is no such path").hint("GET /openapi.json lists them."));
    };
    let Some(operation) = found.operation(request.method()) else {
        return Err(Problem::method_not_allowed(&found.allow()));
    };
    // Who asks comes first: what the API is like is told to those alone who may use it.
    let (credential, _) = credentials::who(admin, peer, &request).await?;

    let query = request.uri().query().unwrap_or_default().to_owned();
    let key = idempotency_key(operation, &request)?;
    let takes_json = content_type_is_json(&request);
    let body =
        if operation.body.is_some() { read_body(request, admin.settings.max_body_bytes).await? } else { Bytes::new() };
    let mut given = parameters(operation, &found.in_path, &query)?;
    if let (Some(key), true) = (&key, operation.keeps_its_own_key) {
        given.insert(IDEMPOTENCY_KEY.into(), raw(&object!(key)));
    }
    if let Some(body) = judged_body(operation, body, takes_json)? {
        given.insert("body".into(), body);
    }
    let asked = serde_json::to_string(&given).map_err(|_| Problem::bad_request("the request cannot be read"))?;

    let once = key.as_deref().filter(|_| !operation.keeps_its_own_key).map(|key| (key, fingerprint(operation, &asked)));
    let answer = admin.seat.call(credential, &operation.id, &asked, once, operation.status.as_u16()).await?;
    let answer = answer.ok_or_else(|| credentials::ended(credential))?;
    let status = answer.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(operation.status);
    let mut reply = json(status, answer.body);
    if answer.is_repetition {
        reply.headers_mut().insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
    Ok(reply)
}

/// The whole body, if it is within the limit. No connection to the database is held meanwhile.
pub(crate) async fn read_body(request: Request<Incoming>, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large")
            .detail(&format!("more than {limit} bytes"))
            .hint("Raise admin.max_body_bytes where payloads may be larger.")
    };
    // Whoever announces too much is not waited for.
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::bad_request("the body broke off")),
    }
}

/// The parameters of path and query as JSON, each of the type that the document gives it.
fn parameters(
    operation: &Operation,
    in_path: &[(String, String)],
    query: &str,
) -> Result<BTreeMap<String, Box<RawValue>>, Problem> {
    let mut given = BTreeMap::new();
    let mut errors = Vec::new();
    let in_query =
        url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()));
    let pairs = in_path.iter().cloned().map(|(n, v)| (n, v, "path")).chain(in_query.map(|(n, v)| (n, v, "query")));
    for (name, value, place) in pairs {
        let Some(parameter) = operation.parameter(&name, place) else {
            errors.push((format!("{place} {name}"), "there is no such parameter".to_owned()));
            continue;
        };
        let value = parameter.typed(&value);
        if given.contains_key(&name) {
            errors.push((format!("{place} {name}"), "is given twice".to_owned()));
        }
        errors.extend(parameter.errors(&value).into_iter().map(|e| (format!("{place} {name}"), e)));
        given.insert(name, raw(&value));
    }
    if errors.is_empty() { Ok(given) } else { Err(unfit(errors)) }
}

/// The body as it came, byte for byte (numbers keep their digits), if it fits the document.
fn judged_body(operation: &Operation, body: Bytes, takes_json: bool) -> Result<Option<Box<RawValue>>, Problem> {
    let Some(expected) = &operation.body else { return Ok(None) };
    if body.is_empty() {
        return if expected.is_required { Err(Problem::bad_request("the body is missing")) } else { Ok(None) };
    }
    if !takes_json {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON")
            .hint("Send content-type: application/json."));
    }
    let parsed: Value =
        serde_json::from_slice(&body).map_err(|e| Problem::bad_request(&format!("the body is not JSON: {e}")))?;
    if has_nul(&parsed) {
        // PostgreSQL would refuse it, and its log would repeat what stands around it.
        return Err(Problem::bad_request(
            "the body has a NUL character (\\u0000), which PostgreSQL's text and jsonb cannot hold",
        ));
    }
    let errors = expected.errors(&parsed);
    if !errors.is_empty() {
        return Err(unfit(errors));
    }
    let raw =
        serde_json::from_slice::<Box<RawValue>>(&body).map_err(|_| Problem::bad_request("the body is not JSON"))?;
    Ok(Some(raw))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(entries) => entries.iter().any(has_nul),
        Value::Object(entries) => entries.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn unfit(errors: Vec<(String, String)>) -> Problem {
    let errors: Vec<Value> =
        errors.into_iter().take(20).map(|(at, message)| object!({"at": at, "message": message})).collect();
    let first =
        errors.first().map(|e| format!("{}: {}", e["at"].as_str().unwrap_or(""), e["message"].as_str().unwrap_or("")));
    Problem::bad_request(&first.unwrap_or_default())
        .hint("GET /openapi.json says what fits.")
        .with("errors", Value::Array(errors))
}

fn idempotency_key<B>(operation: &Operation, request: &Request<B>) -> Result<Option<String>, Problem> {
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let Some(parameter) = operation.parameter(IDEMPOTENCY_KEY, "header") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().to_owned();
    let errors = parameter.errors(&Value::String(key.clone()));
    match errors.into_iter().next() {
        None => Ok(Some(key)),
        Some(error) => Err(unfit(vec![(format!("header {IDEMPOTENCY_KEY}"), error)])),
    }
}

fn content_type_is_json<B>(request: &Request<B>) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

/// What makes two requests under one Idempotency-Key the same.
fn fingerprint(operation: &Operation, asked: &str) -> [u8; 32] {
    Sha256::new().chain_update(&operation.id).chain_update([0]).chain_update(asked).finalize().into()
}

#[allow(clippy::expect_used, reason = "a JSON value can be written as JSON")]
fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("a JSON value is JSON")
}

#[cfg(test)]
mod properties;
