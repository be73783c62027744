//! `/session`: a browser signs in with a token and gets a cookie that scripts cannot read.

use super::credentials::{self, cookie, cookie_name, sha256};
use super::limiter::Charged;
use super::problem::Problem;
use super::{Admin, Reply, api, json};
use crate::db::{Credential, Holder};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use ring::rand::SecureRandom;
use serde::Deserialize;
use std::net::IpAddr;

/// A token in JSON; whoever signs in is not known yet.
const MAX_BODY_BYTES: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    token: zeroize::Zeroizing<String>,
}

/// GET: who is signed in. POST {token}: sign in. DELETE: sign out.
pub(crate) async fn session(admin: &Admin, peer: IpAddr, request: Request<Incoming>) -> Result<Reply, Problem> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let (_, holder) = credentials::who(admin, peer, &request).await?;
            Ok(about(admin, &holder))
        }
        Method::POST => sign_in(admin, peer, request).await,
        Method::DELETE => {
            credentials::check_origin(request.headers(), false)?;
            sign_out(admin, peer, &request).await?;
            let mut reply = json(StatusCode::NO_CONTENT, "");
            reply.headers_mut().remove(header::CONTENT_TYPE);
            set_cookie(admin, &mut reply, "", 0);
            Ok(reply)
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD, POST, DELETE")),
    }
}

async fn sign_in(admin: &Admin, peer: IpAddr, request: Request<Incoming>) -> Result<Reply, Problem> {
    credentials::check_origin(request.headers(), false)?;
    let body = api::read_body(request, MAX_BODY_BYTES).await?;
    let Ok(SignIn { token }) = serde_json::from_slice(&body) else {
        return Err(Problem::bad_request("expected {\"token\": \"…\"}"));
    };
    let hash = sha256(token.trim());
    let mut random = [0; 32];
    if ring::rand::SystemRandom::new().fill(&mut random).is_err() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "No randomness to be had"));
    }
    let session = hex::encode(random);
    let (token, hash) = (Credential::Token(hash), sha256(&session));
    let holder = credentials::limited(admin, peer, token, admin.seat.open_session(token, &hash)).await?;
    // The page that opens now asks for many things at once.
    admin.limiter.succeeded(peer, hash, Charged::NOTHING);
    let mut reply = about(admin, &holder);
    // The server ends the session; the browser forgets it with its window.
    set_cookie(admin, &mut reply, &session, 12 * 3600);
    Ok(reply)
}

/// Ends the session of the request's cookie, if it has one.
async fn sign_out(admin: &Admin, peer: IpAddr, request: &Request<Incoming>) -> Result<(), Problem> {
    let Some(session) = cookie(&admin.settings, request.headers()) else { return Ok(()) };
    let hash = sha256(session);
    let charged = admin.limiter.charge(peer, &hash).map_err(Problem::too_many)?;
    if admin.seat.close_session(&hash).await? {
        admin.limiter.succeeded(peer, hash, charged);
    }
    admin.limiter.failed(&hash);
    Ok(())
}

fn about(admin: &Admin, holder: &Holder) -> Reply {
    let body = serde_json::json!({
        "role": holder.role.as_str(),
        "tenant_id": holder.tenant_id,
        "description": holder.description,
        "idle_seconds": admin.seat.session_idle().as_secs(),
    });
    json(StatusCode::OK, body.to_string())
}

fn set_cookie(admin: &Admin, reply: &mut Reply, value: &str, max_age_s: u32) {
    let secure = if admin.settings.is_tls { "; Secure" } else { "" };
    let name = cookie_name(&admin.settings);
    let cookie = format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        reply.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}
