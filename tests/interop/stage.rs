//! A private PostgreSQL, the real program, and a sink that keeps what arrives.

use bytes::Bytes;
use hyper::StatusCode;
use outboxd::receiver::{self, Arrived, Reply};
use outboxd::schema;
use outboxd::throwaway::{Options, Throwaway};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_postgres::{Client, NoTls, Row};

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Requests by path, in the order they came.
type Kept = HashMap<String, Vec<Arrived>>;

pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) sink: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    relay: Child,
    server: Throwaway,
}

pub(crate) struct Endpoint {
    pub(crate) id: i64,
    pub(crate) secret: String,
}

impl Stage {
    /// With these variables for the relay besides.
    pub(crate) async fn new(environment: &[(&str, &str)]) -> Self {
        let options = Options::default().without_durability();
        let server = tokio::task::spawn_blocking(|| Throwaway::start(options).expect("a PostgreSQL server"))
            .await
            .expect("no panic");
        let url = server.url("postgres");
        let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
        tokio::spawn(connection);
        schema::migrate(&mut client).await.expect("the schema");
        client
            .batch_execute(
                "select outbox.set('allow_insecure_http', 'true'), outbox.set('circuit_failures', '0');
                 insert into outbox.retry_policy (name, delays, jitter) values ('quick', array_fill(interval '50ms', array[20]), 0)",
            )
            .await
            .expect("the settings");
        let relay = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .arg("run")
            .env_clear()
            .env("DATABASE_URL", &url)
            .env("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#)
            .env("OUTBOXD_LOG__LEVEL", "error")
            .env("OUTBOXD_ADMIN__LISTEN", "off")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .expect("outboxd starts");
        let kept = Arc::new(Mutex::new(Kept::new()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let sink = listener.local_addr().expect("an address");
        let keeps = kept.clone();
        tokio::spawn(receiver::serve(listener, move |arrived| {
            let reply = Reply::now(keep(&keeps, arrived));
            async move { reply }
        }));
        Self { client, sink, kept, relay, server }
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        self.server.url("postgres")
    }

    /// Subscribes to events of that tenant; `arguments` as `signature => 'github'`.
    pub(crate) async fn subscribe(&self, url: &str, tenant: &str, arguments: &str) -> Endpoint {
        let sql = format!(
            "select subscription_id, secret from outbox.subscribe($1, '{{*}}', tenant_id => $2, retry_policy => 'quick', {arguments})"
        );
        let row = self.client.query_one(&sql, &[&url, &tenant]).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {}", schema::describe(&error)));
        Endpoint { id: row.get(0), secret: row.get(1) }
    }

    /// Publishes a payload; the error is the server's.
    pub(crate) async fn publish(&self, tenant: &str, payload: &str) -> Result<String, tokio_postgres::Error> {
        let sql = "select outbox.publish('order.created', $1::text::jsonb, tenant_id => $2)::text";
        self.client.query_one(sql, &[&payload, &tenant]).await.map(|row| row.get(0))
    }

    /// Asks until the answer is true.
    pub(crate) async fn wait_until(&self, what: &str, sql: &str) {
        let began = Instant::now();
        while !self.one(sql).await.get::<_, bool>(0) {
            assert!(began.elapsed() < PATIENCE, "{what} did not happen: {sql}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn one(&self, sql: &str) -> Row {
        let row = self.client.query_one(sql, &[]).await;
        row.unwrap_or_else(|error| panic!("{sql}: {}", schema::describe(&error)))
    }

    /// What arrived at a path since the last call.
    pub(crate) fn take(&self, path: &str) -> Vec<Arrived> {
        self.kept.lock().expect("no panic while keeping").remove(path).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

/// Of the bodies it has not seen, the sink refuses a part: there are retries to compare. Below /overlap it refuses
/// all.
fn keep(kept: &Mutex<Kept>, arrived: Arrived) -> StatusCode {
    let mut kept = kept.lock().expect("no panic while keeping");
    let at_path = kept.entry(arrived.path.clone()).or_default();
    let is_new = at_path.iter().all(|earlier: &Arrived| earlier.body != arrived.body);
    let refused = is_new && (arrived.path.starts_with("/overlap") || refuses(&arrived.body));
    at_path.push(arrived);
    if refused { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// One in four, the same at every run but for the ids in the bodies.
fn refuses(body: &Bytes) -> bool {
    body.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte))) % 4 == 0
}
