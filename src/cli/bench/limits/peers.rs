//! Programs that deliver the same in other ways, each in a process and a database of its own. What they are told, and
//! what they answer, is in `benches/peers/README.md`.

use super::super::meter::{Meter, tree_cpu_s};
use super::super::payloads::Payloads;
use super::super::stage::{self, Stage};
use super::super::why;
use super::{BenchError, Measured};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Where `make bench-peers` installs them.
const INSTALLED: &str = "target/peers";
const DATABASE: &str = "outboxd_bench_peer";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Tasks that warm a peer up, of those that are measured one in so many: connections, plans, compilers.
const WARM_UP: u64 = 4;
/// Longer than any row takes on a machine that is worth measuring.
const LIMIT: Duration = Duration::from_secs(900);

/// What is the same for all: whom to deliver to, and what.
pub(super) struct Terms {
    sink_url: String,
    /// An event a line.
    payloads: PathBuf,
}

impl Terms {
    pub(super) fn new(sink_url: &str, payloads: &Payloads) -> Result<Self, BenchError> {
        let file = std::env::temp_dir().join(format!("outboxd-bench-{}.jsonl", std::process::id()));
        std::fs::write(&file, lines(payloads)?)?;
        Ok(Self { sink_url: sink_url.to_owned(), payloads: file })
    }
}

impl Drop for Terms {
    fn drop(&mut self) {
        // A file in the temporary directory; nobody is waiting for it to go.
        let _ = std::fs::remove_file(&self.payloads);
    }
}

/// A program, not running.
pub(super) struct Peer {
    pub(super) label: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, &'static str)>,
}

/// A program that runs, killed when it is dropped.
struct Running {
    process: Child,
    say: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// The loop in this binary.
    pub(super) fn hand_written(workers: usize) -> Result<Self, BenchError> {
        Ok(Self {
            label: format!("hand-written loop, {workers} {}", if workers == 1 { "worker" } else { "workers" }),
            program: std::env::current_exe()?,
            arguments: ["bench", "--skip-locked", &workers.to_string()].map(OsString::from).to_vec(),
            environment: vec![],
        })
    }

    /// Those of others, or why they cannot be measured.
    pub(super) fn of_others() -> Vec<(String, Result<Self, String>)> {
        let node = Path::new(INSTALLED).join("node");
        let of_node = |name: &str, http: &'static str| {
            let script = Path::new(INSTALLED).join(name).join("main.mjs");
            Self::installed(format!("{name}, {http}"), &node, &[&script], vec![("HTTP", http)])
        };
        let awa = Path::new(INSTALLED).join("awa/release/peer-awa");
        vec![
            of_node("graphile-worker", "undici"),
            of_node("graphile-worker", "fetch"),
            of_node("pg-boss", "undici"),
            of_node("pg-boss", "fetch"),
            Self::installed("awa".into(), &awa, &[], vec![]),
        ]
    }

    fn installed(
        label: String,
        program: &Path,
        arguments: &[&Path],
        environment: Vec<(&'static str, &'static str)>,
    ) -> (String, Result<Self, String>) {
        let missing = [&[program], arguments].concat().into_iter().find(|file| !file.exists());
        let peer = match missing {
            Some(file) => Err(format!("{} is not there; make bench-peers installs it", file.display())),
            None => Ok(Self {
                label: label.clone(),
                program: program.to_owned(),
                arguments: arguments.iter().map(OsString::from).collect(),
                environment,
            }),
        };
        (label, peer)
    }

    /// Installs it in a new database, warms it up, enqueues the tasks, and measures until they are done.
    pub(super) async fn measure(&self, stage: &Stage, terms: &Terms, tasks: u64) -> Result<Measured, BenchError> {
        let measured = tokio::time::timeout(LIMIT, self.try_measure(stage, terms, tasks));
        measured
            .await
            .unwrap_or_else(|_| Err("it does not end".into()))
            .map_err(|e| format!("{}: {}", self.label, why(&e)).into())
    }

    async fn try_measure(&self, stage: &Stage, terms: &Terms, tasks: u64) -> Result<Measured, BenchError> {
        let drop_database = format!("drop database if exists {DATABASE} with (force)");
        stage.client.batch_execute(&drop_database).await?;
        stage.client.batch_execute(&format!("create database {DATABASE}")).await?;
        let url = sibling(&stage.url, DATABASE)?;
        let mut peer = self.start(terms, &url)?;
        peer.round(stage, &url, (tasks / WARM_UP).max(1)).await?;
        let measured = peer.round(stage, &url, tasks).await?;
        peer.end().await?;
        stage.client.batch_execute(&drop_database).await?;
        Ok(measured)
    }

    fn start(&self, terms: &Terms, url: &str) -> Result<Running, BenchError> {
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().copied())
            .env("DATABASE_URL", url)
            .env("SINK_URL", &terms.sink_url)
            .env("PAYLOADS", &terms.payloads)
            .env("SECRET", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(say), Some(hear)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("it has no pipes".into());
        };
        Ok(Running { process, say, hear: BufReader::new(hear).lines() })
    }
}

impl Running {
    /// Enqueues so many tasks, and has them done.
    async fn round(&mut self, stage: &Stage, url: &str, tasks: u64) -> Result<Measured, BenchError> {
        self.say(&tasks.to_string()).await?;
        match self.hear().await?.as_str() {
            "READY" => {}
            other => return Err(format!("it says {other:?} instead of READY").into()),
        }
        // Nobody is to be measured with the statistics of an empty table.
        let database = stage::connect(url).await?;
        database.batch_execute("vacuum analyze").await?;
        database.batch_execute("checkpoint").await?;
        drop(database);

        let process = self.process.id().ok_or("it has ended")?;
        let (received, own_s) = (stage.received()?, tree_cpu_s(process));
        let meter = Meter::start(stage, &[]).await?;
        self.say("go").await?;
        let done: serde_json::Value = serde_json::from_str(&self.hear().await?)?;
        let used = meter.read(stage, &[]).await?;
        let own_s = tree_cpu_s(process) - own_s;
        let received = stage.received()? - received;
        if received != tasks || done["failed"] != 0 {
            return Err(format!("of {tasks} tasks {received} arrived; it says {done}").into());
        }
        Ok(Measured { used, own_s, count: tasks as f64 })
    }

    async fn say(&mut self, line: &str) -> Result<(), BenchError> {
        Ok(self.say.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn hear(&mut self) -> Result<String, BenchError> {
        self.hear.next_line().await?.ok_or_else(|| "it has ended".into())
    }

    /// Closes its standard input, at which it ends.
    async fn end(self) -> Result<(), BenchError> {
        let Self { mut process, say, hear } = self;
        drop((say, hear));
        process.wait().await?;
        Ok(())
    }
}

/// An event a line, as an object with type and data.
fn lines(payloads: &Payloads) -> Result<String, BenchError> {
    let mut lines = String::new();
    for (kind, payload) in &payloads.texts {
        let kind = serde_json::to_string(kind)?;
        lines.push_str(&format!("{{\"type\":{kind},\"data\":{payload}}}\n"));
    }
    Ok(lines)
}

/// The URL of another database of the same server.
fn sibling(url: &str, database: &str) -> Result<String, BenchError> {
    if !url.contains("://") {
        return Err("peers need --url as a URL (postgres://…)".into());
    }
    stage::with_database(url, database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_installed_is_named_with_what_is_missing() {
        let (program, script) = (Path::new("/proc/self/exe"), Path::new("/nonexistent/main.mjs"));
        let (label, peer) = Peer::installed("a queue".into(), program, &[script], vec![]);
        assert_eq!(label, "a queue");
        assert!(peer.is_err_and(|e| e.starts_with("/nonexistent/main.mjs is not there")));
        assert!(Peer::installed("a queue".into(), program, &[], vec![]).1.is_ok());
    }

    #[test]
    fn a_sibling_differs_in_the_database_alone() {
        let url = sibling("postgres://me@127.0.0.1:5433/postgres?sslmode=disable", "other").expect("a URL");
        assert_eq!(url, "postgres://me@127.0.0.1:5433/other?sslmode=disable");
        assert!(sibling("host=127.0.0.1 dbname=postgres", "other").is_err());
    }

    #[test]
    fn payloads_are_an_object_a_line() {
        let payloads = Payloads { name: String::new(), texts: vec![("a\"b".into(), r#"{"n": 1.50}"#.into()); 2] };
        let lines = lines(&payloads).expect("lines");
        assert_eq!(lines, "{\"type\":\"a\\\"b\",\"data\":{\"n\": 1.50}}\n".repeat(2));
    }
}
