//! The server, its schema and settings, and the relays: processes of their own, of the binary under test.

use crate::SoakError;
use crate::options::Options;
use crate::wishes::{POLICIES, WISHES};
use outboxd::throwaway::{self, Throwaway};
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(50);

pub(crate) struct Stage {
    pub(crate) url: String,
    pub(crate) data_dir: PathBuf,
    out: PathBuf,
    server: Arc<Mutex<Throwaway>>,
    /// None while it is down.
    relays: Mutex<Vec<Option<Relay>>>,
}

/// Killed when it is dropped.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    /// A server with default durability, and an empty outbox.
    pub(crate) async fn set(options: &Options) -> Result<Self, SoakError> {
        let server = Throwaway::start(throwaway::Options::default().set("log_line_prefix", "%m [%p] "))?;
        let url = server.url("postgres");
        let mut client = connect(&url).await?;
        outboxd::schema::migrate(&mut client).await?;
        client.batch_execute("select outbox.set('allow_insecure_http', 'true')").await?;
        // How long a dead endpoint keeps what has become too old: its queue is looked at when it is probed.
        client.batch_execute("select outbox.set('circuit_max_interval', '5 seconds')").await?;
        let spans = [
            ("segment_interval", options.segment),
            ("retention", options.retention),
            ("idempotency_retention", options.retention),
        ];
        for (name, seconds) in spans {
            // Below what outbox.set takes: a run is shorter than a month.
            let update = "update outbox.setting set value = make_interval(secs => $2)::text where name = $1";
            client.execute(update, &[&name, &seconds]).await?;
        }
        client.batch_execute(POLICIES).await?;
        for number in 1..=options.relays {
            File::create(log_path(&options.out, number))?;
        }
        let data_dir = server.data_dir();
        let relays = Mutex::new((0..options.relays).map(|_| None).collect());
        Ok(Self { url, data_dir, out: options.out.clone(), server: Arc::new(Mutex::new(server)), relays })
    }

    /// Makes the subscriptions; the secret of each.
    pub(crate) async fn subscribe(&self, live: &str, dead: &str) -> Result<Vec<String>, SoakError> {
        let client = connect(&self.url).await?;
        let mut secrets = vec![];
        for wish in &WISHES {
            let host = if wish.temper == crate::wishes::Temper::Dead { dead } else { live };
            let sql =
                format!("select secret from outbox.subscribe($1, {}, tenant_id => $2, name => $3)", wish.arguments);
            let (url, tenant) = (format!("http://{host}{}", wish.path), crate::plan::TENANTS[usize::from(wish.tenant)]);
            secrets.push(client.query_one(&sql, &[&url, &tenant, &wish.path]).await?.get(0));
        }
        Ok(secrets)
    }

    fn relays(&self) -> MutexGuard<'_, Vec<Option<Relay>>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relays are numbered from 1.
    pub(crate) fn start_relay(&self, number: usize) -> Result<(), SoakError> {
        let log = OpenOptions::new().append(true).open(log_path(&self.out, number))?;
        let child = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .arg("run")
            .env_clear()
            .env("DATABASE_URL", &self.url)
            .env("OUTBOXD_RELAY__NAME", format!("relay-{number}"))
            .env("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#)
            .env("OUTBOXD_ADMIN__LISTEN", "off")
            .env("OUTBOXD_LOG__LEVEL", "warn")
            .env("OUTBOXD_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.relays()[number - 1] = Some(Relay(child));
        Ok(())
    }

    /// SIGKILL; it is gone when this returns.
    pub(crate) fn kill_relay(&self, number: usize) {
        let relay = self.relays()[number - 1].take();
        drop(relay);
    }

    /// The processes of the relays that are up, by number.
    pub(crate) fn relay_ids(&self) -> Vec<(usize, u32)> {
        let relays = self.relays();
        relays.iter().enumerate().filter_map(|(n, relay)| Some((n + 1, relay.as_ref()?.0.id()))).collect()
    }

    /// Relays that have ended by themselves.
    pub(crate) fn ended(&self) -> Vec<usize> {
        let mut relays = self.relays();
        let ended = |relay: &mut Option<Relay>| relay.as_mut().is_some_and(|r| !matches!(r.0.try_wait(), Ok(None)));
        relays.iter_mut().enumerate().filter_map(|(n, relay)| ended(relay).then_some(n + 1)).collect()
    }

    pub(crate) fn stop_relays(&self) {
        self.relays().iter_mut().for_each(|relay| *relay = None);
    }

    /// An immediate shutdown and a start; returns when the server takes connections again.
    pub(crate) async fn crash_server(&self) -> Result<(), SoakError> {
        let server = self.server.clone();
        let crash = move || server.lock().unwrap_or_else(PoisonError::into_inner).crash_and_restart();
        Ok(tokio::task::spawn_blocking(crash).await??)
    }

    /// The server's log is kept with the relays'.
    pub(crate) fn keep_log(&self) -> Result<(), SoakError> {
        std::fs::copy(self.data_dir.with_file_name("log"), self.out.join("postgresql.log"))?;
        Ok(())
    }

    /// The server's first process.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        std::fs::read_to_string(self.data_dir.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
    }

    pub(crate) fn log(&self, number: usize) -> PathBuf {
        log_path(&self.out, number)
    }

    /// A connection, as soon as there is one to be had.
    pub(crate) async fn connection(&self) -> Client {
        loop {
            match connect(&self.url).await {
                Ok(client) => return client,
                Err(_) => sleep(RETRY).await,
            }
        }
    }
}

fn log_path(out: &std::path::Path, number: usize) -> PathBuf {
    out.join(format!("relay-{number}.log"))
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
