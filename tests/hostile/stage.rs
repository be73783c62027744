//! Database, relay, the healthy receiver in this process, the hostile ones in another.

use crate::BenchError;
use crate::hostile::{self, Certificates, Hostile};
use crate::measure::{self, Latencies};
use hyper::StatusCode;
use outboxd::receiver::{self, Reply};
use outboxd::throwaway::{self, Throwaway};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_postgres::{Client, NoTls};

/// What can be chosen.
pub(crate) struct Options {
    pub(crate) healthy: u64,
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
    pub(crate) copies: u64,
    pub(crate) apart: bool,
    pub(crate) json: bool,
}

impl Options {
    pub(crate) const USAGE: &str = "--healthy N   healthy subscriptions (200)
--rate N      events a second for them, in turns (100)
--seconds N   of each of the two phases (60)
--copies N    subscriptions at each hostile receiver (1)
--apart       the hostile are served by another relay with another PostgreSQL: what the machine alone does
--json        one JSON object";

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { healthy: 200, rate: 100, seconds: 60, copies: 1, apart: false, json: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let target = match argument.as_str() {
                "--apart" => {
                    options.apart = true;
                    continue;
                }
                "--json" => {
                    options.json = true;
                    continue;
                }
                "--healthy" => &mut options.healthy,
                "--rate" => &mut options.rate,
                "--seconds" => &mut options.seconds,
                "--copies" => &mut options.copies,
                other => return Err(format!("unknown: {other}")),
            };
            let value = arguments.next().ok_or(format!("{argument} wants a number"))?;
            *target = value.parse().map_err(|_| format!("{argument} wants a number, not {value}"))?;
        }
        Ok(options)
    }
}

type Received = Arc<Mutex<HashMap<String, Instant>>>;

pub(crate) struct Stage {
    client: Client,
    url: String,
    options: (u64, u64),
    received: Received,
    certificates: PathBuf,
    hostile: Mutex<Option<Process>>,
    relay: Process,
    postmaster: u32,
    _server: Throwaway,
}

/// A child that ends with us.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many were invited.
pub(crate) struct Invited {
    pub(crate) receivers: usize,
    copies: u64,
    pub(crate) subscriptions: u64,
}

async fn connect(url: &str) -> Result<Client, BenchError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Stage {
    pub(crate) async fn set(options: &Options) -> Result<Self, BenchError> {
        let server = Throwaway::start(
            throwaway::Options::default().set("shared_buffers", "256MB").set("track_functions", "pl"),
        )?;
        let url = server.url("postgres");
        let mut client = connect(&url).await?;
        outboxd::schema::migrate(&mut client).await?;
        client.batch_execute("select outbox.set('allow_insecure_http', 'true')").await?;

        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = listener.local_addr()?;
        let seen = received.clone();
        tokio::spawn(receiver::serve(listener, move |arrived| {
            let now = Instant::now();
            seen.lock().unwrap_or_else(PoisonError::into_inner).entry(arrived.event_id().to_owned()).or_insert(now);
            std::future::ready(Reply::now(StatusCode::OK))
        }));
        client
            .execute(
                "select outbox.subscribe($1, array['beat.n' || n], tenant_id => 'healthy-' || n)
                   from generate_series(1, $2::int8) n",
                &[&format!("http://{sink}/in"), &i64::try_from(options.healthy)?],
            )
            .await?;

        // The receivers' process makes the authority; the relay has to know it from the start.
        let certificates = std::env::temp_dir().join(format!("outboxd-bench-ca-{:x}.pem", fastrand::u64(..)));
        let hostile = start_receivers(&certificates)?;
        let child = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .arg("run")
            .env("DATABASE_URL", &url)
            .env("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#)
            .env("OUTBOXD_HTTP__CA_FILE", &certificates)
            .env("OUTBOXD_ADMIN__LISTEN", "off")
            .env("OUTBOXD_LOG__LEVEL", "error")
            .stdin(Stdio::null())
            .spawn()?;
        let relay = Process(child);
        while client.query_one("select relays from outbox.status()", &[]).await?.get::<_, i64>(0) == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        let backend: i32 = client.query_one("select pg_backend_pid()", &[]).await?.get(0);
        let postmaster = measure::parent(u32::try_from(backend)?).ok_or("no postmaster")?;
        let options = (options.healthy, options.rate);
        let hostile = Mutex::new(Some(hostile));
        Ok(Self { client, url, options, received, certificates, hostile, relay, postmaster, _server: server })
    }

    pub(crate) fn relay_id(&self) -> u32 {
        self.relay.0.id()
    }

    /// Processor seconds used so far by the relay, its PostgreSQL, and the hostile receivers.
    pub(crate) fn cpu_s(&self) -> [f64; 3] {
        let hostile = self.hostile.lock().unwrap_or_else(PoisonError::into_inner);
        let hostile = hostile.as_ref().map_or(0.0, |process| measure::cpu_s(process.0.id()));
        [measure::cpu_s(self.relay_id()), measure::family_cpu_s(self.postmaster), hostile]
    }

    /// Calls of the relay's functions so far, and the milliseconds they took.
    pub(crate) async fn calls(&self) -> Result<Vec<(String, i64, f64)>, BenchError> {
        let sql = "select funcname, calls, total_time from pg_stat_user_functions
                    where schemaname = 'outbox_relay' and funcname in ('expand', 'claim', 'record', 'add_health') order by 1";
        Ok(self.client.query(sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    /// Events for the healthy, one after the other in turns: how long each took from commit to receipt.
    pub(crate) async fn beat(&self, duration: Duration) -> Result<Latencies, BenchError> {
        let (healthy, rate) = self.options;
        let writer = connect(&self.url).await?;
        let sql = "insert into outbox.event (event_id, tenant_id, type, payload)
                   values ($1::text::uuid, 'healthy-' || $2::int8, 'beat.n' || $2::int8, '{\"n\": 1}')";
        let insert = writer.prepare(sql).await?;
        let mut tick = interval(Duration::from_secs_f64(1.0 / rate as f64));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut committed = Vec::new();
        for n in 0..rate * duration.as_secs() {
            tick.tick().await;
            let id = uuid::Uuid::from_u128(fastrand::u128(..)).to_string();
            writer.execute(&insert, &[&id, &i64::try_from(n % healthy + 1)?]).await?;
            committed.push((id, Instant::now()));
        }
        // What is late is waited for, and counted as late as it is.
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let missing = committed.iter().filter(|(id, _)| !received.contains_key(id)).count();
            if missing == 0 {
                let ms =
                    |(id, at): &(String, Instant)| received[id].saturating_duration_since(*at).as_secs_f64() * 1000.0;
                return Ok(Latencies::new(committed.iter().map(ms).collect()));
            }
            if Instant::now() > limit {
                return Err(format!("{missing} of {} events did not arrive within a minute", committed.len()).into());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Subscribes each hostile receiver so many times, each time for another tenant, with all the defaults.
    pub(crate) async fn invite_the_hostile(&self, copies: u64) -> Result<Invited, BenchError> {
        let mut hostile = self.hostile.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or("invited twice")?;
        let out = hostile.0.stdout.take().ok_or("no pipe")?;
        let mut urls = Vec::new();
        for line in BufReader::new(out).lines() {
            match line?.as_str() {
                "." => break,
                url => urls.push(url.to_owned()),
            }
        }
        *self.hostile.lock().unwrap_or_else(PoisonError::into_inner) = Some(hostile);
        self.client
            .execute(
                "select outbox.subscribe(url, array['strike.n' || nth], tenant_id => 'hostile-' || n, name => url)
                   from unnest($1::text[]) with ordinality r (url, nth), generate_series(1, $2::int8) n",
                &[&urls, &i64::try_from(copies)?],
            )
            .await?;
        let receivers = urls.len();
        let subscriptions = copies * u64::try_from(receivers)?;
        Ok(Invited { receivers, copies, subscriptions })
    }

    /// As many events for the hostile as for the healthy, one subscription after the other in turns.
    pub(crate) async fn provoke(&self, duration: Duration, invited: &Invited) -> Result<(), BenchError> {
        let (_, rate) = self.options;
        let writer = connect(&self.url).await?;
        let sql = "insert into outbox.event (tenant_id, type, payload) values ('hostile-' || $1::int8, 'strike.n' || $2::int8, '{}')";
        let insert = writer.prepare(sql).await?;
        let mut tick = interval(Duration::from_secs_f64(1.0 / rate as f64));
        let receivers = u64::try_from(invited.receivers)?;
        for n in 0..rate * duration.as_secs() {
            tick.tick().await;
            let (copy, receiver) = (n / receivers % invited.copies + 1, n % receivers + 1);
            writer.execute(&insert, &[&i64::try_from(copy)?, &i64::try_from(receiver)?]).await?;
        }
        Ok(())
    }

    /// What became of the attempts at the hostile.
    pub(crate) async fn outcomes(&self) -> Result<Vec<(String, i64)>, BenchError> {
        let sql = "select outcome, count(*) from outbox.attempt join outbox.subscription using (subscription_id)
                    where tenant_id like 'hostile%' group by 1 order by 2 desc";
        Ok(self.client.query(sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub(crate) async fn unaccounted(&self) -> Result<i64, BenchError> {
        Ok(self.client.query_one("select count(*) from outbox.unaccounted()", &[]).await?.get(0))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.certificates);
    }
}

fn start_receivers(certificates: &std::path::Path) -> Result<Process, BenchError> {
    // Nobody listens there: a redirect that is followed shows as an attempt that cannot connect.
    let child = Command::new(std::env::current_exe()?)
        .args(["--be-the-receivers", "127.0.0.1:9"])
        .arg(certificates)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let process = Process(child);
    let limit = Instant::now() + Duration::from_secs(10);
    while !certificates.exists() {
        if Instant::now() > limit {
            return Err("the receivers do not start".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

/// Starts every receiver there is, says where they are, and goes on until it is killed.
pub(crate) async fn be_the_receivers(trap: &str, ca: &str) -> ExitCode {
    let certificates = Certificates::new();
    let trap = trap.parse().expect("an address");
    let mut receivers = Vec::new();
    for name in hostile::names() {
        receivers.push(Hostile::start(name, &certificates, trap).await);
    }
    // Whole at once: the relay reads it as soon as it is there.
    let draft = format!("{ca}.new");
    std::fs::write(&draft, certificates.ca_pem()).expect("a file");
    std::fs::rename(&draft, ca).expect("a file");
    let mut out = std::io::stdout();
    for receiver in &receivers {
        writeln!(out, "{}", receiver.url()).expect("a reader");
    }
    writeln!(out, ".").expect("a reader");
    out.flush().expect("a reader");
    std::future::pending().await
}
