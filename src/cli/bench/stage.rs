//! What every scenario stands on: database, sink, relay, and their processor time.

use super::{Arguments, BenchError, Exit, fail};
use crate::config::Config;
use crate::receiver::{self, Reply};
use crate::throwaway::{Options, Throwaway};
use crate::{connect, schema};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// The database with its schema, and the sink.
pub(super) struct Stage {
    url: String,
    arguments: Arguments,
    /// Administrative connection.
    pub(super) client: Client,
    sink: Option<(u16, Process)>,
    _server: Option<Throwaway>,
}

/// A child that ends with us.
pub(super) struct Process(Child);

impl Process {
    /// Processor seconds it has used, from `/proc/PID/stat` (proc(5): utime and stime, in 1/100 s).
    pub(super) fn cpu_s(&self) -> f64 {
        cpu_s(self.0.id())
    }

    /// Greatest resident memory so far in MiB, from `/proc/PID/status`.
    pub(super) fn peak_rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces: count from behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

impl Stage {
    /// Starts a server, unless one is named, and makes the schema anew.
    pub(super) async fn set(arguments: &Arguments) -> Result<Self, BenchError> {
        let (url, server) = match &arguments.url {
            Some(url) => (url.clone(), None),
            None => {
                let options = Options::default().set("shared_buffers", "512MB").set("max_wal_size", "4GB");
                let server = Throwaway::start(options)?;
                (server.url("postgres"), Some(server))
            }
        };
        let mut client = connect::open_driven(&Config::for_database(&url)?.database.listen_settings()?).await?;
        client.batch_execute("drop schema if exists outbox, outbox_relay, bench cascade").await?;
        schema::migrate(&mut client).await?;
        client.batch_execute("create schema bench; select outbox.set('allow_insecure_http', 'true')").await?;
        Ok(Self { url, arguments: arguments.clone(), client, sink: None, _server: server })
    }

    pub(super) async fn environment(&self) -> Result<Value, BenchError> {
        let row = self
            .client
            .query_one(
                "select current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')",
                &[],
            )
            .await?;
        Ok(json!({
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "postgresql": row.get::<_, String>(0),
            "synchronous_commit": row.get::<_, String>(1),
            "fsync": row.get::<_, String>(2),
            "payload_bytes": self.arguments.payload,
        }))
    }

    /// A connection of a writer's own.
    pub(super) async fn connect(&self) -> Result<Client, BenchError> {
        Ok(connect::open_driven(&Config::for_database(&self.url)?.database.connect_settings()?).await?)
    }

    /// The sink's port; it is started when first asked for, in a process of its own.
    pub(super) async fn sink(&mut self) -> Result<u16, BenchError> {
        if let Some((port, _)) = &self.sink {
            return Ok(*port);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(std::env::current_exe()?)
            .args(["bench", "--sink", &port.to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        self.sink = Some((port, Process(child)));
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                return Err("the sink does not start".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(port)
    }

    /// A relay in a process of its own, registered when this returns.
    pub(super) async fn relay(&self) -> Result<Process, BenchError> {
        let before = self.relays().await?;
        let child = Command::new(std::env::current_exe()?)
            .arg("run")
            .env("DATABASE_URL", &self.url)
            .env("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#)
            .env("OUTBOXD_RELAY__LISTEN", if self.arguments.no_listen { "false" } else { "true" })
            .env("OUTBOXD_RELAY__MAX_IN_FLIGHT", "256")
            .env("OUTBOXD_ADMIN__LISTEN", "off")
            .env("OUTBOXD_LOG__LEVEL", "error")
            .stdin(Stdio::null())
            .spawn()?;
        let process = Process(child);
        let started = Instant::now();
        while self.relays().await? <= before {
            if started.elapsed() > Duration::from_secs(10) {
                return Err("the relay does not register".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    async fn relays(&self) -> Result<i64, BenchError> {
        Ok(self.client.query_one("select relays from outbox.status()", &[]).await?.get(0))
    }

    /// `count` subscriptions to every event, at the sink or at `port`.
    pub(super) async fn subscribe(&self, port: u16, count: u64) -> Result<(), BenchError> {
        self.client
            .batch_execute(
                "select outbox.unsubscribe(subscription_id) from outbox.subscription where unsubscribed_at is null",
            )
            .await?;
        for _ in 0..count {
            let url = format!("http://127.0.0.1:{port}/in");
            self.client.query_one("select outbox.subscribe($1, '{*}')::text", &[&url]).await?;
        }
        Ok(())
    }

    /// Writes `count` events of the payload size asked for, in one transaction.
    pub(super) async fn fill(&self, count: u64) -> Result<(), BenchError> {
        let pad = payload_pad(self.arguments.payload);
        self.client
            .execute(
                "insert into outbox.event (type, payload)
                 select 'bench.event', jsonb_build_object('n', i, 'pad', $2::text) from generate_series(1, $1::int8) i",
                &[&i64::try_from(count)?, &pad],
            )
            .await?;
        Ok(())
    }

    /// Deliveries that have come to an end, by what the append-only log holds.
    pub(super) async fn finished(&self) -> Result<i64, BenchError> {
        Ok(self
            .client
            .query_one("select count(*) from outbox_relay.finished where state = 'succeeded'", &[])
            .await?
            .get(0))
    }

    /// Waits until nothing is outstanding; how long it took.
    pub(super) async fn drained(&self, limit: Duration) -> Result<Duration, BenchError> {
        let started = Instant::now();
        loop {
            let row = self
                .client
                .query_one("select unexpanded_events + pending + leased + failed from outbox.status()", &[])
                .await?;
            let outstanding: i64 = row.get(0);
            if outstanding == 0 {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                return Err(
                    format!("{outstanding} deliveries are still outstanding after {} s", limit.as_secs()).into()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Processor seconds of all of the server's processes that are alive now.
    pub(super) async fn postgres_cpu_s(&self) -> Result<f64, BenchError> {
        let row = self
            .client
            .query_one("select pg_read_file('postmaster.pid', 0, 20)", &[])
            .await
            .map(|row| row.get::<_, String>(0))
            .unwrap_or_default();
        let Some(postmaster) = row.lines().next().and_then(|pid| pid.trim().parse::<u32>().ok()) else {
            return Ok(0.0);
        };
        let children =
            std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(cpu_s).sum::<f64>() + cpu_s(postmaster))
    }
}

/// What fills a payload up to `bytes`.
pub(super) fn payload_pad(bytes: usize) -> String {
    "x".repeat(bytes.saturating_sub(30))
}

/// Answers 200 to everything, at once.
pub(super) async fn be_the_sink(port: u16) -> Exit {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => {
            receiver::serve(listener, |_| std::future::ready(Reply::now(StatusCode::OK))).await;
            Exit::Done
        }
        Err(e) => fail(format_args!("the sink cannot listen on port {port}: {e}")),
    }
}
