//! What the story is played on: a private PostgreSQL, three logins, and relays as real processes.

use super::DemoError;
use crate::config::Config;
use crate::throwaway::{Options, Throwaway};
use crate::{connect, schema};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio_postgres::Client;

/// The database of the demo.
pub(super) const DATABASE: &str = "petanque";
/// The federation's application: outbox_producer, and its own schema.
pub(super) const APPLICATION: &str = "petanque_app";
/// Whoever operates it: outbox_operator.
pub(super) const OPERATOR: &str = "petanque_ops";
/// The daemon: outbox_relay.
pub(super) const RELAY: &str = "petanque_relay";
const SUPERUSER: &str = "postgres";

/// The longest anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stands between us and a relay: a relay must not outlive the demo, however that ends. Prints the
/// relay's process id; a line it reads is the signal to send, end of file is SIGKILL.
const GUARD: &str = r#"
"$1" --config /dev/null run </dev/null >&2 &
relay=$!
echo "$relay"
read -r signal
kill -s "${signal:-KILL}" "$relay"
wait "$relay"
"#;

/// The server and what runs against it.
pub(super) struct Stage {
    // Dropped before the server.
    relay: Option<Relay>,
    relays: u32,
    server: Throwaway,
    /// The administrator's connection: sets things up, and reads everything for the final account.
    pub(super) admin: Client,
    /// The operator's connection.
    pub(super) operator: Client,
}

struct Relay {
    guard: Child,
    orders: ChildStdin,
}

impl Stage {
    /// Starts the server. Blocks, and should not be interrupted half way.
    pub(super) fn start_server() -> Result<Throwaway, DemoError> {
        Ok(Throwaway::start(Options::default())?)
    }

    /// Migrates, and creates the logins. Returns what `migrate` reports too.
    pub(super) async fn set_up(server: Throwaway) -> Result<(Self, schema::Report), DemoError> {
        let template = open(&server, SUPERUSER, "postgres").await?;
        template.batch_execute(&format!("create database {DATABASE}")).await?;
        let mut admin = open(&server, SUPERUSER, DATABASE).await?;
        let report = schema::migrate(&mut admin).await?;
        admin
            .batch_execute(&format!(
                "create role {APPLICATION} login in role outbox_producer;
                 create role {OPERATOR} login in role outbox_operator;
                 create role {RELAY} login in role outbox_relay;
                 create schema petanque authorization {APPLICATION};"
            ))
            .await?;
        let operator = open(&server, OPERATOR, DATABASE).await?;
        Ok((Self { relay: None, relays: 0, server, admin, operator }, report))
    }

    /// A connection of one of the logins.
    pub(super) async fn connect(&self, user: &str) -> Result<Client, DemoError> {
        open(&self.server, user, DATABASE).await
    }

    /// The URL with which to look around.
    pub(super) fn url(&self) -> String {
        url(&self.server, SUPERUSER, DATABASE)
    }

    /// The loopback port of the server.
    pub(super) fn port(&self) -> u16 {
        self.server.port()
    }

    /// Where the relays log; it goes when the server goes.
    pub(super) fn relay_log(&self) -> PathBuf {
        let data_dir = self.server.data_dir();
        data_dir.parent().unwrap_or(Path::new("/")).join("relay.log")
    }

    /// The last lines of the relays' log.
    pub(super) fn relay_log_end(&self) -> String {
        let log = std::fs::read_to_string(self.relay_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Starts `outboxd run` and waits until the database sees it alive. Returns name and process id.
    pub(super) async fn start_relay(&mut self) -> Result<(String, String), DemoError> {
        self.relays += 1;
        let name = format!("relay-{}", self.relays);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.relay_log())?;
        let mut command = Command::new("sh");
        // The configuration is what is written here: nothing of the surroundings, no file of this host.
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("OUTBOXD_") || text.starts_with("WEBHOOK_") || text == "NOTIFY_SOCKET" {
                command.env_remove(&variable);
            }
        }
        let mut guard = command
            .args(["-c", GUARD, "guard"])
            .arg(std::env::current_exe()?)
            .env("DATABASE_URL", url(&self.server, RELAY, DATABASE))
            .env("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#)
            .env("OUTBOXD_ADMIN__LISTEN", "off")
            .env("OUTBOXD_RELAY__NAME", &name)
            .env("OUTBOXD_RELAY__ENVIRONMENT", "demo")
            .env("OUTBOXD_RELAY__DRAIN_DEADLINE", "2s")
            .process_group(0) // the terminal's ^C is for us; what becomes of the relay is our business
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let (Some(orders), Some(answers)) = (guard.stdin.take(), guard.stdout.take()) else {
            return Err(DemoError::Unexpected("the relay's guard has no pipes".into()));
        };
        let mut pid = String::new();
        BufReader::new(answers).read_line(&mut pid).await?;
        self.relay = Some(Relay { guard, orders });
        self.wait_for("the relay to register", async |stage| Ok(stage.status("relays").await? == 1)).await?;
        Ok((name, pid.trim().to_owned()))
    }

    /// Sends SIGKILL to the relay and waits until the database knows that it is gone.
    pub(super) async fn kill_relay(&mut self) -> Result<(), DemoError> {
        if let Some(Relay { mut guard, orders }) = self.relay.take() {
            drop(orders);
            guard.wait().await?;
        }
        self.wait_for("the database to notice that the relay is gone", async |stage| {
            Ok(stage.status("relays").await? == 0)
        })
        .await
    }

    /// Asks the relay to stop and waits until it has.
    pub(super) async fn stop_relay(&mut self) -> Result<(), DemoError> {
        if let Some(Relay { mut guard, mut orders }) = self.relay.take() {
            orders.write_all(b"TERM\n").await?;
            // Longer than its drain deadline; then the end of file is the SIGKILL.
            let _ = tokio::time::timeout(Duration::from_secs(5), guard.wait()).await;
        }
        Ok(())
    }

    /// One number of `outbox.status()`.
    pub(super) async fn status(&self, column: &str) -> Result<i64, DemoError> {
        let row =
            self.operator.query_one("select (to_jsonb(s) ->> $1)::bigint from outbox.status() s", &[&column]).await?;
        Ok(row.get::<_, Option<i64>>(0).unwrap_or(0))
    }

    /// Waits until nothing is outstanding: all expanded, all sent or given up.
    pub(super) async fn wait_until_idle(&self) -> Result<(), DemoError> {
        self.wait_for("everything to be delivered or given up", async |stage| {
            let idle = "select unexpanded_events + pending + leased + failed = 0 from outbox.status()";
            Ok(stage.operator.query_one(idle, &[]).await?.get(0))
        })
        .await
    }

    /// Waits for a condition, as long as that may take.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        mut condition: impl AsyncFnMut(&Self) -> Result<bool, DemoError>,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self).await? {
            if Instant::now() > deadline {
                return Err(DemoError::Waited { what: what.to_owned(), seconds: PATIENCE.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn url(server: &Throwaway, user: &str, database: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{}/{database}", server.port())
}

async fn open(server: &Throwaway, user: &str, database: &str) -> Result<Client, DemoError> {
    let config = Config::for_database(&url(server, user, database))?;
    let target = config.database.connect_settings().map_err(|e| DemoError::Unexpected(e.to_string()))?;
    Ok(connect::open_driven(&target).await?)
}
