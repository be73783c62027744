//! A receiver of webhooks with axum.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use standardwebhooks::Webhook;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

struct Receiver {
    webhook: Webhook,
    /// In real life: a table with the id as its primary key.
    seen: Mutex<HashSet<String>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("WEBHOOK_SECRET").unwrap_or_default();
    // Anything shorter or cut off would let others sign too.
    let key = secret.strip_prefix("whsec_").and_then(|encoded| BASE64.decode(encoded).ok());
    if key.is_none_or(|key| key.len() < 24) {
        return Err("WEBHOOK_SECRET is not whsec_ and the base64 of at least 24 bytes".into());
    }
    let webhook = Webhook::new(&secret)?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "8000".into());
    let receiver = Arc::new(Receiver { webhook, seen: Mutex::default() });
    let app = Router::new().route("/webhooks", post(receive)).with_state(receiver);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// The signature covers the bytes as they came: `Bytes`, not `Json`.
async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    // At least once means that an event may come again: its id tells.
    let id = headers["webhook-id"].to_str().unwrap_or_default().to_owned();
    let is_new = receiver.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    if is_new {
        tokio::spawn(handle(body)); // after the answer
    }
    StatusCode::NO_CONTENT
}

async fn handle(body: Bytes) {
    let event: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    println!("processed {} {}", event["id"].as_str().unwrap_or_default(), event["type"].as_str().unwrap_or_default());
}
