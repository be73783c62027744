//! HTTP without a database: requests as fast as they are answered, a constant number of them under way.

use super::super::meter::Meter;
use super::super::payloads::Payloads;
use super::super::stage::Stage;
use super::{BenchError, IN_FLIGHT, Measured, Parts};
use crate::outcome::Outcome;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Requests of each kind that open the connections, before the clock starts.
const WARM_UP: u64 = 4 * IN_FLIGHT as u64;

/// hyper's pooled client: the payload as it is, one header, nothing signed and nothing kept.
pub(super) async fn bare(stage: &Stage, url: &str, payloads: &Payloads, requests: u64) -> Result<Measured, BenchError> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: HttpClient = Client::builder(TokioExecutor::new()).build(connector);
    let uri: Uri = url.parse()?;
    let bodies: Arc<Vec<Bytes>> = Arc::new(payloads.texts.iter().map(|(_, text)| Bytes::from(text.clone())).collect());
    let all = async |requests| {
        let next = Arc::new(AtomicU64::new(0));
        let mut workers: JoinSet<Result<(), BenchError>> = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (client, uri, bodies, next) = (client.clone(), uri.clone(), bodies.clone(), next.clone());
            workers.spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return Ok(());
                    }
                    post(&client, &uri, bodies[n as usize % bodies.len()].clone()).await?;
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        Ok(())
    };
    measured(stage, requests, all).await
}

async fn post(client: &HttpClient, uri: &Uri, body: Bytes) -> Result<(), BenchError> {
    let request = Request::post(uri.clone()).header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
    let answer = client.request(request).await?;
    if !answer.status().is_success() {
        return Err(format!("the sink answers {}", answer.status()).into());
    }
    answer.into_body().collect().await?;
    Ok(())
}

/// Attempts as the relay makes them, each a task: envelope, signature, policy, and the headers for the attempt log.
pub(super) async fn as_the_relay(stage: &Stage, parts: &Arc<Parts>, requests: u64) -> Result<Measured, BenchError> {
    let all = async |requests| {
        let mut attempts = JoinSet::new();
        let mut begun = 0;
        loop {
            while begun < requests && attempts.len() < IN_FLIGHT {
                let (parts, n) = (parts.clone(), begun);
                attempts.spawn(async move { parts.attempt(n).await });
                begun += 1;
            }
            let Some(finished) = attempts.join_next().await else { return Ok(()) };
            let finished = finished?;
            if finished.outcome != Outcome::Delivered {
                return Err(finished.error.unwrap_or_default().into());
            }
        }
    };
    measured(stage, requests, all).await
}

/// Warms up, then measures. The client is this process, which does nothing else meanwhile.
async fn measured(
    stage: &Stage,
    requests: u64,
    all: impl AsyncFn(u64) -> Result<(), BenchError>,
) -> Result<Measured, BenchError> {
    all(WARM_UP).await?;
    let received = stage.received()?;
    let meter = Meter::start(stage, &[]).await?;
    all(requests).await?;
    let used = meter.read(stage, &[]).await?;
    match stage.received()? - received {
        answered if answered == requests => Ok(Measured { own_s: used.bench_s, count: requests as f64, used }),
        answered => Err(format!("of {requests} requests {answered} were answered").into()),
    }
}
