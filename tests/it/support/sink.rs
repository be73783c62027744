//! Receivers: one that verifies and answers as told, and one that answers any bytes.

use super::{PATIENCE, Session};
use hyper::StatusCode;
use outboxd::receiver::{self, Arrived, Reply};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A receiver on the loopback interface. Answers what its rule says, once its gate is open.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    gate: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    /// How often each event came to each path.
    times: Mutex<HashMap<(String, String), usize>>,
    /// The longest it thinks about an answer, in milliseconds.
    dawdles_ms: AtomicUsize,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
}

/// Counts a request as waiting until it is answered, or its sender is gone.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn new(shared: Arc<Shared>) -> Self {
        let now = shared.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_waiting.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sink {
    /// Answers 200 to everything.
    pub(crate) async fn accepting() -> Self {
        Self::new(|_, _| StatusCode::OK).await
    }

    /// Answers what `rule` says of a request and of how often its event came to its path, from 1.
    pub(crate) async fn new(rule: impl Fn(&Arrived, usize) -> StatusCode + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let (gate, opened) = watch::channel(true);
        let (kept, rule) = (shared.clone(), Arc::new(rule));
        let handle = move |arrived: Arrived| {
            let (shared, rule, mut opened) = (kept.clone(), rule.clone(), opened.clone());
            async move {
                let waiting = Waiting::new(shared.clone());
                let key = (arrived.path.clone(), arrived.event_id().to_owned());
                let nth = {
                    let mut times = shared.times.lock().expect("no panic while counting");
                    let nth = times.entry(key).or_default();
                    *nth += 1;
                    *nth
                };
                let status = rule(&arrived, nth);
                shared.arrived.lock().expect("no panic while keeping").push(arrived);
                let dawdles_ms = shared.dawdles_ms.load(Ordering::SeqCst);
                if dawdles_ms > 0 {
                    sleep(Duration::from_millis(fastrand::u64(..dawdles_ms as u64))).await;
                }
                // The sender lives as long as the sink.
                let _ = opened.wait_for(|open| *open).await;
                drop(waiting);
                Reply::now(status)
            }
        };
        Self { address, shared, gate, task: tokio::spawn(receiver::serve(listener, handle)) }
    }

    /// From now on it thinks about each answer, up to so long.
    pub(crate) fn dawdle(&self, most: Duration) {
        self.shared.dawdles_ms.store(usize::try_from(most.as_millis()).expect("not that long"), Ordering::SeqCst);
    }

    /// From now on requests arrive and are not answered.
    pub(crate) fn close_gate(&self) {
        self.gate.send_replace(false);
    }

    /// Kills who waits for an answer, and answers only those who come later.
    pub(crate) fn open_gate_after(&self, kill: impl FnOnce()) {
        kill();
        self.open_gate();
    }

    /// Answers what waits, and what comes.
    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What has arrived so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().expect("no panic while keeping").clone()
    }

    /// What has arrived at one path.
    pub(crate) fn arrived_at(&self, path: &str) -> Vec<Arrived> {
        self.arrived().into_iter().filter(|arrived| arrived.path == path).collect()
    }

    /// How often each event arrived, at whatever path.
    pub(crate) fn times(&self) -> HashMap<String, usize> {
        let mut times = HashMap::new();
        for ((_, event_id), count) in self.shared.times.lock().expect("no panic while counting").iter() {
            *times.entry(event_id.clone()).or_default() += count;
        }
        times
    }

    /// Requests that wait for their answer, now.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::SeqCst)
    }

    /// The most that ever waited at once.
    pub(crate) fn most_waiting(&self) -> usize {
        self.shared.most_waiting.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        self.wait_until(&format!("{count} requests"), || self.shared.arrived.lock().expect("kept").len() >= count)
            .await;
    }

    /// Waits until so many requests wait for their answer.
    pub(crate) async fn wait_for_waiting(&self, count: usize) {
        self.wait_until(&format!("{count} waiting requests"), || self.waiting() >= count).await;
    }

    async fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            let (arrived, waiting) = (self.arrived().len(), self.waiting());
            assert!(began.elapsed() < PATIENCE, "no {what}: {arrived} arrived, {waiting} are waiting");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A receiver that answers each request with these bytes and closes. Returns its address.
pub(crate) async fn raw_sink<F>(answer: impl Fn(usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = Vec<u8>> + Send,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut nth = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            nth += 1;
            let mut request = Vec::new();
            while !is_complete(&request) {
                match stream.read_buf(&mut request).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let _ = stream.write_all(&answer(nth).await).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// Whether the head and as many bytes as it announces are there.
pub(super) fn is_complete(request: &[u8]) -> bool {
    let Some(head_end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..head_end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    request.len() >= head_end + 4 + length
}

/// An answer of that status line with these header lines and this body.
pub(crate) fn raw_answer(status: &str, headers: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len()).into_bytes();
    for header in headers {
        answer.extend_from_slice(header);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(body);
    answer
}

/// A subscription with its secret.
pub(crate) struct Endpoint {
    pub(crate) id: i64,
    pub(crate) secret: String,
    pub(crate) key_id: String,
}

impl Session {
    /// Lets `http:` URLs in, and makes the retry policy `quick`: ten retries at once.
    pub(crate) async fn allow_http(&self) {
        self.run(
            "select outbox.set('allow_insecure_http', 'true');
             insert into outbox.retry_policy (name, delays, jitter) values ('quick', array_fill(interval '10ms', array[10]), 0)",
        )
        .await;
    }

    /// Makes an endpoint for all events; `arguments` as `envelope => 'event', timeout => '1s'`.
    pub(crate) async fn endpoint(&self, url: &str, arguments: &str) -> Endpoint {
        let comma = if arguments.is_empty() { "" } else { ", " };
        let sql = format!("select * from outbox.subscribe($1, '{{*}}'{comma}{arguments})");
        let row = self.query_one(&sql, &[&url]).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {}", outboxd::schema::describe(&error)));
        Endpoint { id: row.get("subscription_id"), secret: row.get("secret"), key_id: row.get("key_id") }
    }

    /// Waits until so many deliveries of the subscription are in that state.
    pub(crate) async fn wait_for_state(&self, subscription_id: i64, state: &str, count: i64) {
        self.wait_until(&format!(
            "select count(*) = {count} from outbox.delivery where subscription_id = {subscription_id} and state = '{state}'"
        ))
        .await;
    }
}
