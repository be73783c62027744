//! What every test stands on: one private server a process, one database a test.
//!
//! Two sessions are interleaved by explicit steps. Where a test must know that a session waits, it asks
//! `pg_blocking_pids` until it does ([`Session::wait_until_blocked`]); no test sleeps and hopes.

mod cable;
pub(crate) mod calls;
mod daemon;
pub(crate) mod dns;
mod dump;
pub(crate) mod hostile;
mod outage;
pub(crate) mod pair;
mod pooler;
mod programs;
mod relay;
mod scenarios;
mod seat;
pub(crate) mod sheet;
mod sink;
mod tls;

pub(crate) use cable::Cable;
pub(crate) use daemon::{Daemon, Outboxd};
pub(crate) use dump::{dump, dump_data, first_difference};
pub(crate) use outage::{Outage, Writer};
pub(crate) use pooler::{POOL_SIZE, Pooler};
pub(crate) use programs::{client_program, left_out, major, postgres_processes, signal};
pub(crate) use relay::{Claim, Expand, Expanded, Relay, Sent, sent};
pub(crate) use scenarios::{at_once, note_scenario};
pub(crate) use seat::Seat;
pub(crate) use sink::{Endpoint, Sink, raw_answer, raw_sink};
pub(crate) use tls::{Authority, tls_database, tls_receiver};

use outboxd::schema;
use outboxd::throwaway::{Options, Throwaway};
use std::collections::HashSet;
use std::future::Future;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{AsyncMessage, Client, Error, NoTls, Notification, Row};

const TEMPLATE: &str = "outbox_template";

/// How long a test waits for what must happen; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server of this process. It is never dropped: its reaper cleans up when the process is gone.
struct Server {
    throwaway: Throwaway,
    /// Names of databases to drop, in the background; or they go when the server goes.
    cleaner: Option<Sender<String>>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static COUNTING_SERVER: OnceLock<Server> = OnceLock::new();
static NEXT_DATABASE: AtomicU32 = AtomicU32::new(1);

/// Nobody keeps these data. Without autovacuum, statistics are gathered when a test says so.
fn options() -> Options {
    Options::default().without_durability().set("autovacuum", "off").set("max_wal_size", "4GB")
}

fn server() -> &'static Server {
    SERVER.get_or_init(|| Server::start(options(), ""))
}

/// One that counts what statements take. Not the other: statements of all tests would crowd out those that are counted.
/// Its databases go when it goes: to drop one makes a checkpoint, which is counted with whatever another test does.
fn counting_server() -> &'static Server {
    COUNTING_SERVER.get_or_init(|| {
        let options = options()
            .set("shared_preload_libraries", "pg_stat_statements")
            .set("pg_stat_statements.track", "all")
            .set("track_functions", "all")
            .set("checkpoint_timeout", "1h");
        Server { cleaner: None, ..Server::start(options, "create extension pg_stat_statements") }
    })
}

impl Server {
    /// With the template of the tests' databases; `sql` is run in the database `postgres`.
    fn start(options: Options, sql: &'static str) -> Self {
        let throwaway = Throwaway::start(options).expect("a PostgreSQL server for the tests");
        let (admin, template) = (throwaway.url("postgres"), throwaway.url(TEMPLATE));
        in_own_runtime(async move {
            let (admin, _connection) = connect(&admin).await;
            admin.batch_execute(sql).await.expect("the set-up of the server");
            admin.batch_execute(&format!("create database {TEMPLATE}")).await.expect("the template database");
            let (mut client, connection) = connect(&template).await;
            schema::migrate(&mut client).await.expect("the schema");
            drop(client);
            connection.await.expect("the connection ends");
            // A database with sessions cannot be cloned, and the server notices the end a little later.
            admin.batch_execute(&format!("alter database {TEMPLATE} is_template true")).await.expect("a template");
            let sessions = format!("select count(*) from pg_stat_activity where datname = '{TEMPLATE}'");
            let began = Instant::now();
            while admin.query_one(&sessions, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
                assert!(began.elapsed() < PATIENCE, "the template is still in use");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let (cleaner, names) = channel::<String>();
        let admin = throwaway.url("postgres");
        std::thread::spawn(move || {
            for name in names {
                let admin = admin.clone();
                in_own_runtime(async move {
                    if let Ok((client, connection)) = tokio_postgres::connect(&admin, NoTls).await {
                        tokio::spawn(connection);
                        // Best effort: the whole server goes away soon.
                        let _ = client.batch_execute(&format!("drop database if exists {name} with (force)")).await;
                    }
                });
            }
        });
        Self { throwaway, cleaner: Some(cleaner) }
    }
}

/// Where the server's programs are; `client_program` knows those that it may lack.
pub(crate) fn bin_dir() -> &'static Path {
    server().throwaway.bin_dir()
}

/// Runs a future to its end on a thread that no test's runtime occupies.
fn in_own_runtime(future: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future);
    })
    .join()
    .expect("the set-up succeeds");
}

async fn connect(url: &str) -> (Client, JoinHandle<()>) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    let connection = tokio::spawn(async move {
        // An error here is one of the statements' too, or the end of a session that a test killed.
        let _ = connection.await;
    });
    (client, connection)
}

/// A migrated database of one test's own; dropped when the test ends.
pub(crate) struct Db {
    name: String,
    server: &'static Server,
}

impl Db {
    pub(crate) async fn new() -> Self {
        Self::from_template(server(), TEMPLATE).await
    }

    /// One without the schema.
    pub(crate) async fn empty() -> Self {
        Self::from_template(server(), "template0").await
    }

    /// One on the server that counts.
    pub(crate) async fn counted() -> Self {
        Self::from_template(counting_server(), TEMPLATE).await
    }

    async fn from_template(server: &'static Server, template: &str) -> Self {
        let name = format!("t{}", NEXT_DATABASE.fetch_add(1, Ordering::Relaxed));
        let (admin, _connection) = connect(&server.throwaway.url("postgres")).await;
        admin.batch_execute(&format!("create database {name} template {template}")).await.expect("a database");
        Self { name, server }
    }

    pub(crate) fn url(&self) -> String {
        self.server.throwaway.url(&self.name)
    }

    /// The same over the server's socket in a directory.
    pub(crate) fn socket(&self) -> String {
        let (data, port) = (self.server.throwaway.data_dir(), self.server.throwaway.port());
        let directory = data.parent().expect("a directory above").display();
        format!("host={directory} port={port} user=postgres dbname={}", self.name)
    }

    /// A session in the database `postgres` of the same server.
    pub(crate) async fn beside(&self) -> Session {
        Session::at(&self.server.throwaway.url("postgres")).await
    }

    /// A plain client, as its owner: superuser.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url()).await.0
    }

    /// A client with the shorthands of the tests.
    pub(crate) async fn session(&self) -> Session {
        Session::at(&self.url()).await
    }

    /// A session that has one of the outbox roles, and nothing more.
    pub(crate) async fn session_as(&self, role: &str) -> Session {
        let session = self.session().await;
        session.run(&format!("set session authorization {role}")).await;
        session
    }

    /// A session of a login of its own, who can go back to nobody else's.
    pub(crate) async fn login(&self, role: &str) -> Session {
        let (client, _) = connect(&self.url().replacen("postgres@", &format!("{role}@"), 1)).await;
        let pid = client.query_one("select pg_backend_pid()", &[]).await.expect("a process id").get(0);
        Session { client: Arc::new(client), pid }
    }

    /// A session and what it is notified of.
    pub(crate) async fn listener(&self, notification_channel: &str) -> Listener {
        let (client, mut connection) = tokio_postgres::connect(&self.url(), NoTls).await.expect("a connection");
        let (sender, notifications) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = sender.send(notification);
                }
            }
        });
        client.batch_execute(&format!("listen {notification_channel}")).await.expect("listening");
        Listener { client, notifications }
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Some(cleaner) = &self.server.cleaner {
            let _ = cleaner.send(self.name.clone());
        }
    }
}

/// A session that listens.
pub(crate) struct Listener {
    client: Client,
    notifications: UnboundedReceiver<Notification>,
}

impl Listener {
    /// How many notifications arrived since the last call. The server sends them before it answers a
    /// statement, so one round trip later there are no more on the way.
    pub(crate) async fn count(&mut self) -> usize {
        self.client.batch_execute("select 1").await.expect("a round trip");
        std::iter::from_fn(|| self.notifications.try_recv().ok()).count()
    }
}

/// One session, with shorthands. Clones share the session.
#[derive(Clone)]
pub(crate) struct Session {
    client: Arc<Client>,
    pub(crate) pid: i32,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Session {
    /// On any server, as its superuser.
    pub(crate) async fn at(url: &str) -> Self {
        let client = connect(url).await.0;
        let pid = client.query_one("select pg_backend_pid()", &[]).await.expect("a process id").get(0);
        Self { client: Arc::new(client), pid }
    }

    /// Runs statements that must succeed.
    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", schema::describe(&error)));
    }

    /// The first column of the one row.
    pub(crate) async fn one<T: FromSqlOwned>(&self, sql: &str) -> T {
        self.one_of(sql, &[]).await
    }

    /// The first column of the one row, with parameters.
    pub(crate) async fn one_of<T: FromSqlOwned>(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> T {
        let row = self.client.query_one(sql, parameters).await;
        row.unwrap_or_else(|error| panic!("{sql}: {}", schema::describe(&error))).get(0)
    }

    /// The first column of all rows.
    pub(crate) async fn all<T: FromSqlOwned>(&self, sql: &str) -> Vec<T> {
        let rows = self.client.query(sql, &[]).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {}", schema::describe(&error)))
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Runs a statement that must be refused with this SQLSTATE and, if it is one of ours, a hint.
    pub(crate) async fn refused(&self, sql: &str, sqlstate: &str) -> DbError {
        expect_error(self.client.batch_execute(sql).await.map(|()| sql.to_owned()), sqlstate)
    }

    /// Begins a query and lets the test go on; for statements that are to wait for another session.
    pub(crate) fn start(&self, sql: &str) -> JoinHandle<Result<Row, Error>> {
        let (client, sql) = (Arc::clone(&self.client), sql.to_owned());
        tokio::spawn(async move { client.query_one(&sql, &[]).await })
    }

    /// Waits until that other session waits for a lock.
    pub(crate) async fn wait_until_blocked(&self, waiter: &Session) {
        self.wait_until(&format!("select cardinality(pg_blocking_pids({})) > 0", waiter.pid)).await;
    }

    /// Asks until the answer is true.
    pub(crate) async fn wait_until(&self, sql: &str) {
        let began = Instant::now();
        while !self.one::<bool>(sql).await {
            assert!(began.elapsed() < PATIENCE, "still false: {sql}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends another session as a crash would, and waits until the server has noticed.
    pub(crate) async fn kill(&self, other: &Session) {
        self.run(&format!("select pg_terminate_backend({})", other.pid)).await;
        self.wait_until(&format!("select not exists (select from pg_stat_activity where pid = {})", other.pid)).await;
    }

    /// For tests that let attempts fail in a row and are about something else.
    pub(crate) async fn without_circuits(&self) {
        self.run("select outbox.set('circuit_failures', '0')").await;
    }

    /// Makes an endpoint of the default tenant and returns its id.
    pub(crate) async fn subscribe(&self, patterns: &str) -> i64 {
        self.subscribe_with(patterns, "").await
    }

    /// The same, with more arguments, as `tenant_id => 'a', max_in_flight => 2`.
    pub(crate) async fn subscribe_with(&self, patterns: &str, arguments: &str) -> i64 {
        let comma = if arguments.is_empty() { "" } else { ", " };
        self.one(&format!(
            "select (outbox.subscribe('https://hooks.example.com/in', '{{{patterns}}}'{comma}{arguments})).subscription_id"
        ))
        .await
    }

    /// Inserts one event the plain way and returns its position.
    pub(crate) async fn insert(&self, event_type: &str, payload: &str) -> i64 {
        self.one_of(
            "insert into outbox.event (type, payload) values ($1, $2::text::jsonb) returning event_seq",
            &[&event_type, &payload],
        )
        .await
    }

    /// Inserts that many events of one type in one statement.
    pub(crate) async fn insert_many(&self, event_type: &str, count: i64) {
        self.run(&format!(
            "insert into outbox.event (type, payload) select '{event_type}', jsonb_build_object('n', n) from generate_series(1, {count}) n"
        ))
        .await;
    }

    /// The state of a delivery, as `outbox.delivery` shows it.
    pub(crate) async fn state(&self, subscription_id: i64, event_seq: i64) -> Option<String> {
        let sql = "select state from outbox.delivery where subscription_id = $1 and event_seq = $2";
        let rows = self.client.query(sql, &[&subscription_id, &event_seq]).await.expect("the delivery");
        assert!(rows.len() <= 1, "a delivery is in the queue and among the finished");
        rows.first().map(|row| row.get(0))
    }

    /// The no-loss invariant.
    pub(crate) async fn assert_accounted(&self) {
        let lost: Vec<i64> = self.all("select event_seq from outbox.unaccounted()").await;
        assert!(lost.is_empty(), "events without the deliveries they should have: {lost:?}");
    }

    /// Every delivery there is, subscription first. Fails if one is both outstanding and finished.
    pub(crate) async fn deliveries(&self) -> HashSet<(i64, i64)> {
        let rows = self.client.query("select subscription_id, event_seq from outbox.delivery", &[]).await;
        let rows = rows.expect("the deliveries");
        let deliveries: HashSet<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(deliveries.len(), rows.len(), "a delivery is there twice");
        deliveries
    }
}

/// The error of a statement that was to be refused: with this SQLSTATE, and with a hint if it is of our class.
pub(crate) fn expect_error<T: std::fmt::Debug>(result: Result<T, Error>, sqlstate: &str) -> DbError {
    let error = match result {
        Ok(value) => panic!("accepted, though {sqlstate} was expected: {value:?}"),
        Err(error) => error,
    };
    let error = error.as_db_error().unwrap_or_else(|| panic!("not an answer of the server: {error}")).clone();
    assert_eq!(error.code().code(), sqlstate, "{error:?}");
    if sqlstate.starts_with("OB") {
        assert!(error.hint().is_some_and(|hint| hint.len() > 10), "no hint: {error:?}");
    }
    error
}
