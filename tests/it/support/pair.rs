//! A primary with a streaming standby, writers who keep a ledger outside of both, and what a scenario reports.

use super::{PATIENCE, Session, Sink, client_program};
use outboxd::schema;
use outboxd::throwaway::{Options, Role, Throwaway};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, block_in_place};
use tokio_postgres::NoTls;

pub(crate) const DATABASE: &str = "shop";

/// Everything that has to be: the outbox, and a table of the application's.
pub(crate) async fn install(server: &Throwaway) -> Session {
    let admin = Session::at(&server.url("postgres")).await;
    admin.run(&format!("create database {DATABASE}")).await;
    let (mut client, connection) = tokio_postgres::connect(&server.url(DATABASE), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    schema::migrate(&mut client).await.expect("the schema");
    let session = Session::at(&server.url(DATABASE)).await;
    session.allow_http().await;
    session.run("create schema shop; create table shop.orders (order_id bigint primary key)").await;
    session
}

/// With default durability: what a failover may lose is what it is about.
pub(crate) fn durable(options: Options) -> Throwaway {
    block_in_place(|| Throwaway::start(options)).expect("a server")
}

/// A physical copy.
pub(crate) fn copy(server: &Throwaway) -> Throwaway {
    let program = client_program("pg_basebackup").expect("pg_basebackup, from `bash tests/postgres/setup.sh client`");
    block_in_place(|| server.copy(&program)).expect("a copy")
}

/// A primary and its standby, which follows until one of them is told otherwise.
pub(crate) struct Pair {
    pub(crate) primary: Throwaway,
    pub(crate) standby: Throwaway,
}

impl Pair {
    /// Both up, the schema installed. A commit on the primary waits for the standby if `synchronous`.
    pub(crate) async fn new(synchronous: bool) -> (Self, Session) {
        let primary = durable(Options::default());
        let session = install(&primary).await;
        let mut standby = copy(&primary);
        let conninfo = format!("host=127.0.0.1 port={} user=postgres application_name=standby", primary.port());
        let options = Options::default().set("primary_conninfo", &conninfo).set("wal_retrieve_retry_interval", "100ms");
        block_in_place(|| standby.start_as(Role::Standby, &options)).expect("a standby");
        if synchronous {
            session.run("alter system set synchronous_standby_names = 'standby'").await;
            session.run("select pg_reload_conf()").await;
        }
        let state = if synchronous { "sync" } else { "async" };
        session
            .wait_until(&format!(
                "select exists (select from pg_stat_replication where state = 'streaming' and sync_state = '{state}')"
            ))
            .await;
        (Self { primary, standby }, session)
    }

    /// Both hosts, as an application or a relay that is to follow a failover names them.
    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{DATABASE}?target_session_attrs=read-write",
            self.primary.port(),
            self.standby.port()
        )
    }

    /// Waits until the standby has everything that is on the primary now.
    pub(crate) async fn caught_up(&self, primary: &Session) {
        let written: String = primary.one("select pg_current_wal_insert_lsn()::text").await;
        let standby = Session::at(&self.standby.url(DATABASE)).await;
        standby.wait_until(&format!("select pg_last_wal_replay_lsn() >= '{written}'")).await;
    }

    /// From now on nothing more reaches the standby.
    pub(crate) async fn part(&self, primary: &Session) {
        let standby = Session::at(&self.standby.url("postgres")).await;
        standby.run("alter system set primary_conninfo = ''").await;
        standby.run("select pg_reload_conf()").await;
        primary.wait_until("select not exists (select from pg_stat_replication)").await;
    }

    /// The primary dies at once, and the standby takes over. Returns when it died.
    pub(crate) fn fail_over(&mut self) -> Instant {
        let died_at = Instant::now();
        block_in_place(|| {
            self.primary.crash().expect("it was up");
            self.standby.promote().expect("it is promoted");
        });
        died_at
    }
}

/// What writers know of their own transactions, by order.
#[derive(Default)]
pub(crate) struct Ledger {
    next: AtomicI64,
    orders: Mutex<BTreeMap<i64, (Fate, String)>>,
}

/// What the server said of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acknowledged,
    RolledBack,
    /// The connection broke before it said.
    Unknown,
}

impl Ledger {
    /// Orders from that number on.
    pub(crate) fn next_from(&self, order: i64) {
        self.next.store(order, Ordering::SeqCst);
    }

    /// Event ids of one fate.
    pub(crate) fn of(&self, fate: Fate) -> HashSet<String> {
        let orders = self.orders.lock().expect("no panic while noting");
        orders.values().filter(|(f, _)| *f == fate).map(|(_, id)| id.clone()).collect()
    }

    /// Inserts an order and its event in one transaction. `None`: the connection is gone.
    pub(crate) async fn order(&self, client: &tokio_postgres::Client, commits: bool) -> Option<String> {
        let order = self.next.fetch_add(1, Ordering::SeqCst);
        let insert = "with o as (insert into shop.orders values ($1) returning order_id)
                      insert into outbox.event (type, payload) select 'order.created', jsonb_build_object('order', order_id) from o
                      returning event_id::text";
        client.batch_execute("begin").await.ok()?;
        let id: String = client.query_one(insert, &[&order]).await.ok()?.get(0);
        let ended = client.batch_execute(if commits { "commit" } else { "rollback" }).await;
        let fate = match (ended.is_ok(), commits) {
            (true, true) => Fate::Acknowledged,
            (false, true) => Fate::Unknown,
            (_, false) => Fate::RolledBack,
        };
        self.orders.lock().expect("no panic while noting").insert(order, (fate, id.clone()));
        ended.is_ok().then_some(id)
    }
}

/// Writers that go on through a failover, by the same list of hosts as the relays.
pub(crate) struct Writers {
    pub(crate) ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn start(count: usize, url: &str) -> Self {
        let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let tasks = (0..count).map(|_| tokio::spawn(write(url.to_owned(), ledger.clone(), stop.clone()))).collect();
        Self { ledger, stop, tasks }
    }

    pub(crate) async fn stop(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a writer");
        }
        self.ledger
    }
}

async fn write(url: String, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
            tokio::spawn(connection);
            while !stop.load(Ordering::SeqCst) && ledger.order(&client, fastrand::u8(..8) != 0).await.is_some() {}
        }
        // Where nobody is to be written to, not more often than this.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something that was acknowledged after `before` has arrived; when it had.
pub(crate) async fn delivering_again(sink: &Sink, ledger: &Ledger, before: &HashSet<String>) -> Instant {
    let began = Instant::now();
    loop {
        let times = sink.times();
        if ledger.of(Fate::Acknowledged).iter().any(|id| !before.contains(id) && times.contains_key(id)) {
            return Instant::now();
        }
        assert!(began.elapsed() < PATIENCE, "nothing is delivered");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the log is expanded and nothing is outstanding.
pub(crate) async fn settled(session: &Session) {
    let open = "select (select count(*) from outbox_relay.queue) + (select unexpanded_events from outbox.status()) = 0";
    session.wait_until(open).await;
}

/// How often each event was recorded as delivered.
pub(crate) async fn recorded(session: &Session) -> HashMap<String, i64> {
    let sql = "select e.event_id::text, count(*) from outbox.attempt a join outbox.event e using (event_seq)
               where a.outcome = 'delivered' group by 1";
    let rows = session.query(sql, &[]).await.expect("the attempts");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
