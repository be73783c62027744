//! What every scenario stands on: database, sink, relays, subscriptions, a backlog.

use super::payloads::Payloads;
use super::sink::Sink;
use super::{Arguments, BenchError, meter};
use crate::config::Config;
use crate::throwaway::{Options, Throwaway};
use crate::{connect, schema};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// What the relays are told besides where the database is: what differs from the defaults.
const RELAY_SETTINGS: [(&str, &str); 4] = [
    ("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#),
    // One subscription may have all there is.
    ("OUTBOXD_RELAY__MAX_IN_FLIGHT", "512"),
    ("OUTBOXD_ADMIN__LISTEN", "off"),
    ("OUTBOXD_LOG__LEVEL", "error"),
];

/// The configuration of the relays: ours, and above it the settings in our environment that change how fast a relay is.
/// None that names a database, an endpoint or a secret: what is measured stays on the stage.
pub(super) fn relay_environment() -> BTreeMap<String, String> {
    let ours = RELAY_SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let theirs = std::env::vars().filter(|(name, _)| {
        let of_these = ["OUTBOXD_RELAY__", "OUTBOXD_HTTP__", "OUTBOXD_DATABASE__POOL_SIZE"];
        of_these.iter().any(|prefix| name.starts_with(prefix)) && !name.contains("__PROXY")
    });
    ours.chain(theirs).collect()
}

const START_LIMIT: Duration = Duration::from_secs(10);

/// The database with its schema, and the sink.
pub(super) struct Stage {
    pub(super) url: String,
    listen: bool,
    /// Administrative connection.
    pub(super) client: Client,
    sink: Option<Sink>,
    /// The server's first process, if it is on this machine.
    pub(super) postmaster: Option<u32>,
    /// Where `pg_stat_statements` is, if it can be used.
    pub(super) statements_in: Option<String>,
    /// Nothing has been measured in it yet.
    fresh: bool,
    _server: Option<Throwaway>,
}

/// A relay in a process of its own, killed when it is dropped.
pub(super) struct Relay {
    process: Child,
    /// Whether its statements are counted.
    pub(super) counted: bool,
}

impl Relay {
    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Stage {
    /// Starts a server, unless one is named, and makes the schema anew.
    pub(super) async fn set(arguments: &Arguments) -> Result<Self, BenchError> {
        let (url, server) = match &arguments.url {
            Some(url) => (url.clone(), None),
            None => {
                let server = start_server()?;
                (server.url("postgres"), Some(server))
            }
        };
        let client = connect(&url).await?;
        let backend: i32 = client.query_one("select pg_backend_pid()", &[]).await?.get(0);
        let mut stage = Self {
            url,
            listen: !arguments.no_listen,
            client,
            sink: None,
            postmaster: meter::postmaster_of(u32::try_from(backend)?),
            statements_in: None,
            fresh: false,
            _server: server,
        };
        stage.anew().await?;
        stage.fresh = true;
        Ok(stage)
    }

    /// An empty outbox: no scenario inherits what another has left behind.
    pub(super) async fn anew(&mut self) -> Result<(), BenchError> {
        if std::mem::take(&mut self.fresh) {
            return Ok(());
        }
        self.alone().await?;
        self.client.batch_execute("drop schema if exists outbox, outbox_relay, bench cascade").await?;
        schema::migrate(&mut self.client).await?;
        self.client.batch_execute("create schema bench; select outbox.set('allow_insecure_http', 'true')").await?;
        self.statements_in = self.count_statements().await?;
        self.checkpoint().await
    }

    /// What was written so far is not to weigh on what is measured: it goes to the disk now, if we may say so.
    pub(super) async fn checkpoint(&self) -> Result<(), BenchError> {
        match self.client.batch_execute("checkpoint").await {
            Err(e) if e.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Another database on the same server, called by this one's name and that; with an empty outbox and no sink.
    pub(super) async fn beside(&self, name: &str) -> Result<Self, BenchError> {
        let own: String = self.client.query_one("select current_database()", &[]).await?.get(0);
        let database = format!("{own}_{name}");
        self.client.batch_execute(&format!("drop database if exists \"{database}\" with (force)")).await?;
        self.client.batch_execute(&format!("create database \"{database}\"")).await?;
        let url = with_database(&self.url, &database)?;
        let client = connect(&url).await?;
        let (listen, postmaster) = (self.listen, self.postmaster);
        let mut stage =
            Self { url, listen, client, sink: None, postmaster, statements_in: None, fresh: false, _server: None };
        stage.anew().await?;
        Ok(stage)
    }

    /// Drops a database that was made [`beside`](Self::beside) this one, unless the whole server goes away soon.
    pub(super) async fn drop_beside(&self, other: Self) -> Result<(), BenchError> {
        if self._server.is_some() {
            return Ok(());
        }
        let database: String = other.client.query_one("select current_database()", &[]).await?.get(0);
        drop(other);
        Ok(self.client.batch_execute(&format!("drop database \"{database}\" with (force)")).await?)
    }

    /// The schema of `pg_stat_statements`, if it is loaded and we may set it for a session.
    async fn count_statements(&self) -> Result<Option<String>, BenchError> {
        let loaded = "select current_setting('shared_preload_libraries') ~ 'pg_stat_statements'
             and (select rolsuper from pg_roles where rolname = current_user)";
        if !self.client.query_one(loaded, &[]).await?.get::<_, bool>(0) {
            return Ok(None);
        }
        self.client.batch_execute("create extension if not exists pg_stat_statements schema bench").await?;
        let schema = "select extnamespace::regnamespace::text from pg_extension where extname = 'pg_stat_statements'";
        Ok(Some(self.client.query_one(schema, &[]).await?.get(0)))
    }

    /// A connection of a writer's own.
    pub(super) async fn connect(&self) -> Result<Client, BenchError> {
        connect(&self.url).await
    }

    /// The sink; it is started when first asked for.
    pub(super) fn sink(&mut self) -> Result<&Sink, BenchError> {
        let sink = self.sink.take().map_or_else(Sink::start, Ok)?;
        Ok(self.sink.insert(sink))
    }

    /// Its process.
    pub(super) fn sink_id(&self) -> Option<u32> {
        self.sink.as_ref().map(Sink::id)
    }

    /// How many deliveries have arrived there so far.
    pub(super) fn received(&self) -> Result<u64, BenchError> {
        self.sink.as_ref().map_or(Ok(0), Sink::received)
    }

    /// So many relays, each in a process of its own, registered when this returns.
    pub(super) async fn relays(&self, count: usize) -> Result<Vec<Relay>, BenchError> {
        self.start_relays(count, false).await
    }

    /// The same, with their statements counted if they can be. That costs two to three hundredths of the throughput: for
    /// runs of which nothing else is told.
    pub(super) async fn counted_relays(&self, count: usize) -> Result<Vec<Relay>, BenchError> {
        self.start_relays(count, self.statements_in.is_some()).await
    }

    async fn start_relays(&self, count: usize, counted: bool) -> Result<Vec<Relay>, BenchError> {
        let newest = "select coalesce(max(epoch), 0) from outbox_relay.relay";
        let newest: i32 = self.client.query_one(newest, &[]).await?.get(0);
        let mut relays = vec![];
        for n in 1..=count {
            let mut command = Command::new(std::env::current_exe()?);
            let not_ours = |name: &String| name.starts_with("OUTBOXD_") || name.starts_with("WEBHOOK_");
            for (name, _) in std::env::vars().filter(|(name, _)| not_ours(name)) {
                command.env_remove(name);
            }
            command.arg("run").envs(relay_environment());
            command.env("DATABASE_URL", if counted { self.counting_url() } else { self.url.clone() });
            command.env("OUTBOXD_RELAY__NAME", format!("bench-{n}"));
            command.env("OUTBOXD_RELAY__LISTEN", self.listen.to_string());
            relays.push(Relay { process: command.stdin(Stdio::null()).spawn()?, counted });
        }
        let registered = "select count(*) >= $2 from outbox_relay.relay
             where epoch > $1 and epoch in (select outbox_relay.live_epochs())";
        let wanted = i64::try_from(count)?;
        self.wait_until(registered, &[&newest, &wanted], START_LIMIT, "the relay does not register").await?;
        Ok(relays)
    }

    /// In the sessions of this URL statements are counted, those within functions too.
    fn counting_url(&self) -> String {
        if self.url.contains("://") {
            let and = if self.url.contains('?') { '&' } else { '?' };
            format!("{}{and}options=-c%20pg_stat_statements.track%3Dall", self.url)
        } else {
            format!("{} options='-c pg_stat_statements.track=all'", self.url)
        }
    }

    /// One subscription to every event for each URL, instead of those there were; their ids.
    pub(super) async fn subscribe(&self, urls: &[String]) -> Result<Vec<i64>, BenchError> {
        self.client
            .batch_execute(
                "select outbox.unsubscribe(subscription_id) from outbox.subscription where unsubscribed_at is null",
            )
            .await?;
        let created = self
            .client
            .query(
                "select (outbox.subscribe(url, '{*}')).subscription_id from unnest($1::text[]) with ordinality u (url, n) order by n",
                &[&urls],
            )
            .await?;
        Ok(created.iter().map(|row| row.get(0)).collect())
    }

    /// Makes payloads available to [`fill`](Self::fill); their mean size as they are stored.
    pub(super) async fn load(&self, payloads: &Payloads) -> Result<f64, BenchError> {
        self.client
            .batch_execute(
                "drop table if exists bench.payload;
                 create table bench.payload (n bigint primary key, type text not null, payload jsonb not null)",
            )
            .await?;
        let (types, texts): (Vec<_>, Vec<_>) = payloads.texts.iter().map(|(a, b)| (a, b)).unzip();
        self.client
            .execute(
                "insert into bench.payload select n - 1, type, payload::jsonb
                 from unnest($1::text[], $2::text[]) with ordinality p (type, payload, n)",
                &[&types, &texts],
            )
            .await?;
        self.client.batch_execute("analyze bench.payload").await?;
        let size = "select avg(pg_column_size(payload))::float8 from bench.payload";
        Ok(self.client.query_one(size, &[]).await?.get(0))
    }

    /// Writes so many events with the payloads that were loaded, in one transaction.
    pub(super) async fn fill(&self, count: u64) -> Result<(), BenchError> {
        self.fill_for(&["default".to_owned()], count).await
    }

    /// The same, for these tenants in turn.
    pub(super) async fn fill_for(&self, tenants: &[String], count: u64) -> Result<(), BenchError> {
        self.client
            .execute(
                "insert into outbox.event (tenant_id, type, payload)
                 select ($1::text[])[1 + i % cardinality($1::text[])], p.type, p.payload
                 from generate_series(0, $2::int8 - 1) i
                 join bench.payload p on p.n = i % (select count(*) from bench.payload)",
                &[&tenants, &i64::try_from(count)?],
            )
            .await?;
        Ok(())
    }

    /// All relays stop sending, or go on.
    pub(super) async fn hold(&self, held: bool) -> Result<(), BenchError> {
        let sql = if held { "select outbox.hold('bench')" } else { "select outbox.release()" };
        Ok(self.client.batch_execute(sql).await?)
    }

    /// How many deliveries have succeeded so far. Counts history: not while something is measured.
    pub(super) async fn finished(&self) -> Result<u64, BenchError> {
        let count = "select count(*) from outbox_relay.finished where state = 'succeeded'";
        Ok(u64::try_from(self.client.query_one(count, &[]).await?.get::<_, i64>(0))?)
    }

    /// Waits until nothing is outstanding; how long it took. While the queue holds something, that is all that is
    /// looked at: with a backlog, `outbox.status()` costs more.
    pub(super) async fn drained(&self, limit: Duration) -> Result<Duration, BenchError> {
        let started = Instant::now();
        let queued = self.client.prepare("select exists (select from outbox_relay.queue)").await?;
        let outstanding =
            self.client.prepare("select unexpanded_events + pending + leased + failed from outbox.status()").await?;
        loop {
            if !self.client.query_one(&queued, &[]).await?.get::<_, bool>(0)
                && self.client.query_one(&outstanding, &[]).await?.get::<_, i64>(0) == 0
            {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                let left: i64 = self.client.query_one(&outstanding, &[]).await?.get(0);
                return Err(format!("{left} deliveries are still outstanding after {} s", limit.as_secs()).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until no session of ours but this one is left. One that ended has handed in its statistics.
    pub(super) async fn alone(&self) -> Result<(), BenchError> {
        let others = "select count(*) = 0 from pg_stat_activity
             where datname = current_database() and application_name = current_setting('application_name') and pid <> pg_backend_pid()";
        self.wait_until(others, &[], START_LIMIT, "sessions of an earlier run do not end").await
    }

    /// Waits until a query that returns a boolean says so; after `limit` that is an error in these words.
    pub(super) async fn wait_until(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        limit: Duration,
        otherwise: &'static str,
    ) -> Result<(), BenchError> {
        let (query, began) = (self.client.prepare(sql).await?, Instant::now());
        while !self.client.query_one(&query, parameters).await?.get::<_, bool>(0) {
            if began.elapsed() > limit {
                return Err(otherwise.into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// A connection of one's own.
pub(super) async fn connect(url: &str) -> Result<Client, BenchError> {
    Ok(connect::open_driven(&Config::for_database(url)?.database.connect_settings()?).await?)
}

/// The same server's other database.
pub(super) fn with_database(url: &str, database: &str) -> Result<String, BenchError> {
    if !url.contains("://") {
        return Ok(format!("{url} dbname='{database}'"));
    }
    let mut url = url::Url::parse(url)?;
    url.set_path(database);
    Ok(url.into())
}

/// A server with default durability. Where contrib is not installed, it counts no statements.
fn start_server() -> Result<Throwaway, BenchError> {
    let options = || Options::default().set("shared_buffers", "512MB").set("max_wal_size", "4GB");
    let counting =
        options().set("shared_preload_libraries", "pg_stat_statements").set("pg_stat_statements.track", "none");
    match Throwaway::start(counting) {
        Ok(server) => Ok(server),
        Err(_) => Ok(Throwaway::start(options())?),
    }
}
