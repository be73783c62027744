//! awa with a signed HTTP task, for `outboxd bench --scenario limits --peers`. README.md beside this folder says what
//! for, and has the protocol with the bench.

use async_trait::async_trait;
use awa::model::insert::params_with;
use awa::{Client, InsertOpts, JobArgs, JobContext, JobError, JobResult, QueueConfig, QueueStorage, QueueStorageConfig, Worker};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::watch;

const QUEUE: &str = "deliver";
/// Events added in one call.
const BATCH: u64 = 1000;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What outboxd's envelope `standard` makes of an event; here the arguments of a job.
#[derive(Serialize, Deserialize, JobArgs)]
struct Deliver {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    timestamp: String,
    tenant_id: String,
    data: serde_json::Value,
}

/// A line of the file of payloads.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    data: serde_json::Value,
}

/// Signs and posts. Nothing is sent while the gate is closed.
struct Deliverer {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    uri: Uri,
    key: Hmac<sha2::Sha256>,
    gate: watch::Receiver<bool>,
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

#[async_trait]
impl Worker for Deliverer {
    fn kind(&self) -> &'static str {
        Deliver::kind()
    }

    async fn perform(&self, context: &JobContext) -> Result<JobResult, JobError> {
        let mut gate = self.gate.clone();
        gate.wait_for(|open| *open).await.map_err(|e| JobError::retryable_msg(e.to_string()))?;
        match self.post(&context.job.args).await {
            Ok(()) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                Ok(JobResult::Completed)
            }
            Err(e) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Err(JobError::retryable_msg(e.to_string()))
            }
        }
    }
}

impl Deliverer {
    async fn post(&self, event: &serde_json::Value) -> Result<(), Error> {
        let id = event["id"].as_str().ok_or("the event has no id")?;
        let body = serde_json::to_vec(event)?;
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs().to_string();
        let mut mac = self.key.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body] {
            mac.update(part);
        }
        let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
        let request = Request::post(self.uri.clone())
            .header("content-type", "application/json")
            .header("user-agent", "peer")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(Full::from(body))?;
        let answer = self.http.request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        if status.is_success() { Ok(()) } else { Err(format!("answered {status}").into()) }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let workers: u32 = number("MAX_WORKERS", 256)?;
    let pool = PgPoolOptions::new().max_connections(number("POOL", 16)?).connect(&variable("DATABASE_URL")?).await?;
    awa::migrations::run(&pool).await?;
    let storage = QueueStorageConfig::default();
    let store = QueueStorage::new(storage)?;

    let (gate, opened) = watch::channel(true);
    let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let secret = variable("SECRET")?;
    let key = BASE64.decode(secret.strip_prefix("whsec_").ok_or("SECRET does not begin with whsec_")?)?;
    let deliverer = Deliverer {
        http: HttpClient::builder(TokioExecutor::new()).build_http(),
        uri: variable("SINK_URL")?.parse()?,
        key: Hmac::new_from_slice(&key)?,
        gate: opened,
        sent: sent.clone(),
        failed: failed.clone(),
    };
    let config = QueueConfig {
        max_workers: workers,
        // Without a deadline a claim takes the short path; the task has its own timeout in practice.
        deadline_duration: Duration::ZERO,
        claimers: number("CLAIMERS", 1)?,
        ..QueueConfig::default()
    };
    let client = Client::builder(pool.clone()).queue(QUEUE, config).register_worker(deliverer).build()?;
    client.start().await?;

    let text = std::fs::read_to_string(variable("PAYLOADS")?)?;
    let payloads: Vec<Payload> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut lines = BufReader::new(stdin()).lines();
    let mut wanted = 0;
    while let Some(line) = lines.next_line().await? {
        if line != "go" {
            wanted = line.parse()?;
            sent.store(0, Ordering::Relaxed);
            failed.store(0, Ordering::Relaxed);
            gate.send(false)?;
            enqueue(&store, &pool, wanted, &payloads).await?;
            println!("READY");
        } else {
            gate.send(true)?;
            while sent.load(Ordering::Relaxed) < wanted || !is_settled(&store, &pool).await? {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (sent, failed) = (sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
            println!("{}", serde_json::json!({ "sent": sent, "failed": failed }));
        }
    }
    std::process::exit(0)
}

async fn enqueue(store: &QueueStorage, pool: &PgPool, wanted: u64, payloads: &[Payload]) -> Result<(), Error> {
    for first in (0..wanted).step_by(BATCH as usize) {
        let mut jobs = Vec::new();
        for n in first..wanted.min(first + BATCH) {
            let payload = &payloads[n as usize % payloads.len()];
            let event = Deliver {
                id: uuid::Uuid::new_v4().to_string(),
                kind: payload.kind.clone(),
                timestamp: jiff::Timestamp::now().to_string(),
                tenant_id: "default".into(),
                data: payload.data.clone(),
            };
            jobs.push(params_with(&event, InsertOpts { queue: QUEUE.into(), ..InsertOpts::default() })?);
        }
        store.enqueue_params_copy(pool, &jobs).await?;
    }
    Ok(())
}

/// Whether the database knows all of it done.
async fn is_settled(store: &QueueStorage, pool: &PgPool) -> Result<bool, Error> {
    let counts = store.queue_counts(pool, QUEUE).await?;
    Ok(counts.available == 0 && counts.running == 0)
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| format!("{name} is not set").into())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T, Error> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} is not a number").into()),
        Err(_) => Ok(default),
    }
}
