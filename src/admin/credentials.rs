//! Who asks: a bearer token, or a console's cookie that no other page can use.

use super::problem::Problem;
use super::{Admin, Settings};
use crate::db::{Credential, DbError, Holder};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// A page of another origin cannot send this header without asking first, and it is never told yes.
const CONSOLE: &str = "x-outboxd-console";
/// What the console asks by itself, as time goes by.
const BACKGROUND: &str = "x-outboxd-background";
/// A token, `outboxd_` and 64 hex digits, and room for others to come.
const MAX_TOKEN_BYTES: usize = 256;

/// Who asks, and with what.
pub(crate) async fn who<B>(admin: &Admin, peer: IpAddr, request: &Request<B>) -> Result<(Credential, Holder), Problem> {
    let headers = request.headers();
    let credential = match (bearer(headers)?, cookie(&admin.settings, headers)) {
        (Some(token), _) => Credential::Token(sha256(token)),
        (None, Some(session)) => {
            let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
            check_origin(headers, is_safe)?;
            Credential::Session(sha256(session))
        }
        (None, None) => {
            admin.metrics.admin_refused();
            return Err(Problem::unauthorized("the request carries no token"));
        }
    };
    let touch = !headers.contains_key(BACKGROUND) || matches!(credential, Credential::Token(_));
    limited(admin, peer, credential, admin.seat.who(credential, touch)).await.map(|holder| (credential, holder))
}

/// Asks who holds the credential, unless too many came from there without a good one.
pub(crate) async fn limited(
    admin: &Admin,
    peer: IpAddr,
    credential: Credential,
    asked: impl Future<Output = Result<Option<Holder>, DbError>>,
) -> Result<Holder, Problem> {
    let hash = credential.sha256();
    let charged = admin.limiter.charge(peer, &hash).map_err(|wait_s| {
        admin.metrics.admin_refused();
        Problem::too_many(wait_s)
    })?;
    match asked.await? {
        Some(holder) => {
            admin.limiter.succeeded(peer, hash, charged);
            Ok(holder)
        }
        None => {
            admin.metrics.admin_refused();
            admin.limiter.failed(&hash);
            Err(ended(credential))
        }
    }
}

/// The credential is not good, or not any more.
pub(crate) fn ended(credential: Credential) -> Problem {
    Problem::unauthorized(match credential {
        Credential::Token(_) => "the token is unknown, expired or revoked",
        Credential::Session(_) => "the session has ended",
    })
}

/// The token of the header Authorization.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) if !token.is_empty() && token.len() <= MAX_TOKEN_BYTES => Ok(Some(token)),
        _ => Err(Problem::unauthorized("the header Authorization is not Bearer and a token")),
    }
}

/// The name of the console's cookie. The prefix `__Host-` makes browsers refuse one that another host, or plain
/// HTTP, has set; it needs TLS.
pub(crate) fn cookie_name(settings: &Settings) -> &'static str {
    if settings.is_tls { "__Host-outboxd" } else { "outboxd" }
}

/// The value of the console's cookie.
pub(crate) fn cookie<'a>(settings: &Settings, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(settings);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .find_map(|line| line.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('=')))
}

/// A request that rides on a cookie must come from the console itself: SameSite=Strict keeps the cookie at home,
/// the browser says where the request comes from, and a change needs a header that no form can send.
pub(crate) fn check_origin(headers: &HeaderMap, is_safe: bool) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    if is_foreign || (!is_safe && !headers.contains_key(CONSOLE)) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Not from the console")
            .detail("a request with the console's cookie came from another page"));
    }
    Ok(())
}

/// Over plain HTTP on loopback a foreign page could have its own name point here and read what it is told (DNS
/// rebinding): such names are refused. With TLS the certificate says who is called.
pub(crate) fn check_host<B>(settings: &Settings, request: &Request<B>) -> Result<(), Problem> {
    if settings.is_tls {
        return Ok(());
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
    if is_local || settings.hosts.contains(&name) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "Called by a name it does not know")
        .hint("Call it by its address or as localhost, or name it in admin.hosts."))
}

/// What stands for a token or a cookie in the database and in memory.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
