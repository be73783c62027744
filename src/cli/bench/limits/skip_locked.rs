//! The job loop that people write: a row at a time, `for update skip locked`, in a transaction that stays open while
//! the request is made. In Rust and with the same client and signature as outboxd, so that nothing else tells them
//! apart. It speaks the protocol of `benches/peers/README.md`.
//!
//! What it lacks besides speed: a log of attempts, policies, limits by endpoint; and it holds a snapshot open for as
//! long as a receiver takes to answer.

use super::super::BenchError;
use super::super::stage::connect;
use crate::db::Event;
use crate::envelope::Envelope;
use crate::sign::{Key, Message, Profile, Scheme};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io::BufRead;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};

const SCHEMA: &str = "
    create table job (
        job_id       bigint generated always as identity primary key,
        event_id     uuid not null default gen_random_uuid(),
        type         text not null,
        payload      jsonb not null,
        status       text not null default 'pending' check (status in ('pending', 'done', 'failed')),
        attempts     integer not null default 0,
        max_attempts integer not null default 10,
        last_error   text,
        run_at       timestamptz not null default now(),
        created_at   timestamptz not null default now(),
        updated_at   timestamptz not null default now()
    );
    create index job_pending on job (run_at, job_id) where status = 'pending';";
const ENQUEUE: &str = "
    insert into job (type, payload)
    select p->>'type', p->'data'
    from generate_series(0, $2::int4 - 1) n
    cross join lateral (select ($1::text[])[1 + n % cardinality($1)]::jsonb) _ (p)";
const TAKE: &str = "
    select job_id, event_id, type, payload::text, created_at
    from job where status = 'pending' and run_at <= now()
    order by run_at, job_id limit 1 for update skip locked";
const DONE: &str = "update job set status = 'done', attempts = attempts + 1, updated_at = now() where job_id = $1";
const FAILED: &str = "
    update job set status = case when attempts + 1 < max_attempts then 'pending' else 'failed' end,
        attempts = attempts + 1, last_error = $2, run_at = now() + interval '1 second' * 2 ^ attempts, updated_at = now()
    where job_id = $1";

/// One worker's own connection, with what it needs of it.
struct Worker {
    client: Client,
    take: Statement,
    done: Statement,
    failed: Statement,
    target: Arc<Target>,
}

/// Whom the requests go to, and how they are signed.
struct Target {
    http: PooledClient<HttpConnector, Full<Bytes>>,
    uri: Uri,
    scheme: Scheme,
    key: Key,
}

/// What the loop's process does: fills the table and works it off as its standard input says.
pub(in crate::cli::bench) async fn be_the_loop(workers: usize) -> Result<(), BenchError> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let target = Arc::new(Target {
        http: PooledClient::builder(TokioExecutor::new()).build(connector),
        uri: variable("SINK_URL")?.parse()?,
        scheme: Scheme::new(Profile::Standard, None)?,
        key: Key::new(Profile::Standard, "bench".into(), &variable("SECRET")?, None).map_err(|e| e.to_string())?,
    });
    let url = variable("DATABASE_URL")?;
    let admin = connect(&url).await?;
    admin.batch_execute(SCHEMA).await?;
    let mut idle = vec![];
    for _ in 0..workers {
        let client = connect(&url).await?;
        let take = client.prepare(TAKE).await?;
        let (done, failed) = (client.prepare(DONE).await?, client.prepare(FAILED).await?);
        idle.push(Worker { client, take, done, failed, target: target.clone() });
    }
    let events: Vec<String> = std::fs::read_to_string(variable("PAYLOADS")?)?.lines().map(str::to_owned).collect();

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line == "go" {
            let mut working = JoinSet::new();
            for mut worker in idle.drain(..) {
                working.spawn(async move { worker.work().await.map(|failed| (worker, failed)) });
            }
            let mut failed = 0;
            while let Some(ended) = working.join_next().await {
                let (worker, failures) = ended??;
                idle.push(worker);
                failed += failures;
            }
            println!("{}", serde_json::json!({ "failed": failed }));
        } else {
            admin.execute(ENQUEUE, &[&events, &line.parse::<i32>()?]).await?;
            println!("READY");
        }
    }
    Ok(())
}

impl Worker {
    /// Until it finds nothing: what is left then is in the hands of others. How many attempts have failed.
    async fn work(&mut self) -> Result<u64, BenchError> {
        let mut failures = 0;
        loop {
            let job = self.client.transaction().await?;
            let Some(row) = job.query_opt(&self.take, &[]).await? else { return Ok(failures) };
            let job_id: i64 = row.get("job_id");
            let event = Event {
                seq: job_id,
                id: row.get("event_id"),
                tenant_id: "default".into(),
                kind: row.get("type"),
                payload: row.get("payload"),
                occurred_at: row.get("created_at"),
                traceparent: None,
            };
            match self.target.post(&event).await {
                Ok(()) => job.execute(&self.done, &[&job_id]).await?,
                Err(e) => {
                    failures += 1;
                    job.execute(&self.failed, &[&job_id, &e.to_string()]).await?
                }
            };
            job.commit().await?;
        }
    }
}

impl Target {
    async fn post(&self, event: &Event) -> Result<(), BenchError> {
        let body = Envelope::Standard.body(event)?;
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let message = Message { event_id: &event.id.to_string(), kind: &event.kind, timestamp, body: &body };
        self.scheme.sign(&[&self.key], &message, &mut headers);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let answer = self.http.request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        if status.is_success() { Ok(()) } else { Err(format!("answered {status}").into()) }
    }
}
