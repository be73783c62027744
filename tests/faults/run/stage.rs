//! What a run is played on: a server that can be killed, a database of the run's own, relays behind wires.

use super::ledger::{Ledger, Receivers, WISHES, agent};
use super::plan::{PATIENCE, Plan, RELAYS};
use super::wire::Wire;
use super::writers::connect;
use crate::support::{Daemon, postgres_processes, signal};
use outboxd::schema;
use outboxd::throwaway::{Options, Throwaway, ThrowawayError};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_postgres::Client;

const TEMPLATE: &str = "outbox_template";
static NEXT_DATABASE: AtomicU32 = AtomicU32::new(1);

/// A PostgreSQL of one worker's own, with default durability.
pub(crate) struct Server {
    throwaway: Mutex<Throwaway>,
    port: u16,
    pub(crate) data_dir: PathBuf,
}

impl Server {
    pub(crate) async fn start() -> Arc<Self> {
        let throwaway = tokio::task::spawn_blocking(|| Throwaway::start(Options::default()));
        let throwaway = throwaway.await.expect("no panic").expect("a PostgreSQL server");
        let (port, data_dir) = (throwaway.port(), throwaway.data_dir());
        let server = Arc::new(Self { throwaway: Mutex::new(throwaway), port, data_dir });
        connect(&server.url("postgres"))
            .await
            .batch_execute(&format!("create database {TEMPLATE}"))
            .await
            .expect("the template");
        let mut client = connect(&server.url(TEMPLATE)).await;
        schema::migrate(&mut client).await.expect("the schema");
        server
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    async fn database(&self) -> String {
        let name = format!("run{}", NEXT_DATABASE.fetch_add(1, Ordering::Relaxed));
        let began = Instant::now();
        let admin = connect(&self.url("postgres")).await;
        // The template's last session may not be gone yet.
        while let Err(error) = admin.batch_execute(&format!("create database {name} template {TEMPLATE}")).await {
            assert!(began.elapsed() < PATIENCE, "no database: {}", schema::describe(&error));
            sleep(Duration::from_millis(50)).await;
        }
        // The clone's sequences are as in the template, with values that they may give out without a word to the WAL
        // (log_cnt, commands/sequence.c): a crash before the next checkpoint would have them give those out again.
        admin.batch_execute("checkpoint").await.expect("a checkpoint");
        name
    }

    /// SIGKILL of the postmaster alone: its children find themselves orphaned.
    /// Returns when it began, as the next two do, because one waits for the other; and whether there was anything to do
    /// it to.
    pub(crate) async fn kill(&self, for_: Duration) -> (Instant, bool) {
        let mut throwaway = self.throwaway.lock().await;
        let began = Instant::now();
        let had_effect = signal("-KILL", postgres_processes(&self.data_dir).get(..1).unwrap_or_default());
        sleep(for_).await;
        Self::start_again(&mut throwaway);
        (began, had_effect)
    }

    /// What was not flushed is lost.
    pub(crate) async fn restart(&self) -> (Instant, bool) {
        let mut throwaway = self.throwaway.lock().await;
        let (began, had_effect) = (Instant::now(), !postgres_processes(&self.data_dir).is_empty());
        Self::start_again(&mut throwaway);
        (began, had_effect)
    }

    /// Nothing of it moves.
    pub(crate) async fn stop_for(&self, for_: Duration) -> (Instant, bool) {
        let _one_at_a_time = self.throwaway.lock().await;
        let (began, processes) = (Instant::now(), postgres_processes(&self.data_dir));
        let had_effect = signal("-STOP", &processes[..processes.len().min(1)]);
        // Some of the others may have ended meanwhile.
        signal("-STOP", &processes);
        sleep(for_).await;
        signal("-CONT", &processes);
        (began, had_effect)
    }

    fn start_again(throwaway: &mut Throwaway) {
        let began = Instant::now();
        // While an orphan of the old one holds its memory, a new one does not start.
        let again = |throwaway: &mut Throwaway| -> Result<(), ThrowawayError> { throwaway.crash_and_restart() };
        tokio::task::block_in_place(|| {
            while let Err(error) = again(throwaway) {
                assert!(began.elapsed() < PATIENCE, "{error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }
}

/// A place for a relay: whoever has its lock may do something to it.
pub(crate) struct Place {
    pub(crate) relay: Mutex<Daemon>,
    pub(crate) wire: Wire,
    number: usize,
}

/// Everything of one run.
pub(crate) struct Stage {
    pub(crate) server: Arc<Server>,
    pub(crate) database: String,
    pub(crate) ledger: Arc<Ledger>,
    _receivers: Receivers,
    /// Between the relays and the receivers.
    pub(crate) wire: Wire,
    pub(crate) places: Vec<Place>,
    /// What those had logged that ended by themselves after they had worked.
    pub(crate) deserters: std::sync::Mutex<Vec<String>>,
    listen: bool,
}

impl Stage {
    pub(crate) async fn set(server: Arc<Server>, plan: &Plan) -> Arc<Self> {
        let (database, ledger) = (server.database().await, Ledger::new());
        let receivers = ledger.receive(plan).await;
        let wire = Wire::to(receivers.address).await;
        let client = connect(&server.url(&database)).await;
        client
            .batch_execute(
                "select outbox.set('allow_insecure_http', 'true'), outbox.set('circuit_failures', '0');
                 insert into outbox.retry_policy (name, delays, jitter) values ('patient', array_fill(interval '300 milliseconds', array[100]), 0.5)",
            )
            .await
            .expect("the settings");
        for wish in &WISHES {
            let subscribe = format!(
                "select outbox.subscribe('http://{}{}', {}, tenant_id => '{}', retry_policy => 'patient', timeout => '2 seconds')",
                wire.address(),
                wish.path,
                wish.arguments,
                wish.tenant
            );
            client.batch_execute(&subscribe).await.unwrap_or_else(|error| panic!("{}", schema::describe(&error)));
        }
        let mut places = Vec::new();
        for number in 0..RELAYS {
            let wire = Wire::to(server.address()).await;
            let relay = start(&wire, &database, number, plan.listen).registered().await;
            places.push(Place { relay: Mutex::new(relay), wire, number });
        }
        let deserters = std::sync::Mutex::default();
        Arc::new(Self { server, database, ledger, _receivers: receivers, wire, places, deserters, listen: plan.listen })
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(&self.database)
    }

    /// A relay in this place, as one that has just been started; it need not find a database.
    pub(crate) fn start(&self, place: &Place) -> Daemon {
        start(&place.wire, &self.database, place.number, self.listen)
    }

    /// Starts a relay again that has ended by itself, as a service manager would. Only one that has never found the
    /// database may do that; one that has worked is to come back by itself. Never ends.
    pub(crate) async fn supervise(&self) {
        loop {
            for place in &self.places {
                if let Ok(mut relay) = place.relay.try_lock()
                    && relay.has_ended()
                {
                    let log = relay.log();
                    if log.contains("registered") {
                        self.deserters.lock().expect("no panic").push(log);
                    }
                    *relay = self.start(place);
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A session that sees to something, past all wires.
    pub(crate) async fn session(&self) -> Client {
        connect(&self.url()).await
    }

    /// Ends the relays and drops the database. Returns what the relays had to say.
    pub(crate) async fn strike(&self) -> Vec<String> {
        let mut logs = Vec::new();
        for place in &self.places {
            let mut relay = place.relay.lock().await;
            relay.kill();
            logs.push(relay.log());
        }
        let drop = format!("drop database {} with (force)", self.database);
        // It would go with the server anyhow.
        let _ = connect(&self.server.url("postgres")).await.batch_execute(&drop).await;
        logs
    }
}

fn start(wire: &Wire, database: &str, place: usize, listen: bool) -> Daemon {
    Daemon::relay(&format!("postgres://postgres@{}/{database}", wire.address()), &format!("relay-{place}"))
        .set("OUTBOXD_HTTP__USER_AGENT", &agent(place))
        .set("OUTBOXD_RELAY__CONCURRENCY", "32")
        .set("OUTBOXD_RELAY__LISTEN", if listen { "true" } else { "false" })
        .set("OUTBOXD_RELAY__POLL_INTERVAL", if listen { "5s" } else { "100ms" })
        .set("OUTBOXD_RELAY__DRAIN_DEADLINE", "3s")
        .set("OUTBOXD_DATABASE__CONNECT_TIMEOUT", "2s")
        .spawn()
}
