//! The real binary, as a process of its own: configured by its environment, heard by its log.

use super::{Db, PATIENCE};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const BINARY: &str = env!("CARGO_BIN_EXE_outboxd");

/// A command line of `outboxd` that sees no environment but what is set here.
pub(crate) struct Outboxd {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Outboxd {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(ToString::to_string).collect(), environment: BTreeMap::new() }
    }

    /// Against that database, sending to the loopback interface.
    pub(crate) fn on(url: &str, arguments: &[&str]) -> Self {
        Self::new(arguments).set("DATABASE_URL", url).set("OUTBOXD_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#)
    }

    /// One variable of its environment.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.args(&self.arguments).env_clear().envs(&self.environment).stdin(Stdio::null());
        command
    }

    /// Runs it to its end: exit code, what it printed, what it complained of.
    pub(crate) async fn output(&self) -> Output {
        // Killed when the wait is given up: a program that should have ended must not keep the tests.
        let mut command = tokio::process::Command::from(self.command());
        let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output());
        let output = output.await.expect("outboxd ends").expect("outboxd runs");
        Output {
            code: output.status.code(),
            printed: String::from_utf8(output.stdout).expect("UTF-8"),
            complained: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Starts it and lets it run.
    pub(crate) fn spawn(&self) -> Daemon {
        let mut child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("outboxd starts");
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("a pipe"), log.clone());
        collect(child.stderr.take().expect("a pipe"), log.clone());
        Daemon { child, log }
    }
}

/// What a command that ended left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) printed: String,
    pub(crate) complained: String,
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("no panic while logging");
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// `outboxd run`, killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// A relay of that name with few connections.
    pub(crate) fn relay(url: &str, name: &str) -> Outboxd {
        Outboxd::on(url, &["run"])
            .set("OUTBOXD_RELAY__NAME", name)
            .set("OUTBOXD_DATABASE__POOL_SIZE", "2")
            .set("OUTBOXD_ADMIN__LISTEN", "off")
    }

    /// A relay with the defaults, registered.
    pub(crate) async fn on(db: &Db) -> Self {
        Self::relay(&db.url(), "relay-1").spawn().registered().await
    }

    /// Waits until it has registered with the database.
    pub(crate) async fn registered(mut self) -> Self {
        self.wait_for_log("registered").await;
        self
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic while logging").clone()
    }

    /// Waits until a line of its log says this.
    pub(crate) async fn wait_for_log(&mut self, text: &str) {
        self.wait_for_log_times(text, 1).await;
    }

    /// Waits until its log has said this so often.
    pub(crate) async fn wait_for_log_times(&mut self, text: &str, times: usize) {
        let began = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(began.elapsed() < PATIENCE, "no {text:?} in:\n{}", self.log());
            if let Some(status) = self.child.try_wait().expect("its state") {
                // What it wrote last is on its way.
                sleep(Duration::from_millis(50)).await;
                assert!(self.log().contains(text), "{status} without {text:?}:\n{}", self.log());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL: it cannot do anything about it. Returns once it is gone.
    pub(crate) fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it stands still (SIGSTOP).
    pub(crate) async fn stopped(&mut self) {
        let began = Instant::now();
        let path = format!("/proc/{}/stat", self.child.id());
        // The state follows the name, which stands in parentheses.
        let state = || std::fs::read_to_string(&path).ok()?.rsplit(") ").next()?.chars().next();
        while state() != Some('T') {
            assert!(began.elapsed() < PATIENCE, "it is not stopped:\n{}", self.log());
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// SIGCONT: it goes on where it was stopped.
    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    /// SIGTERM: it is asked to stop.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// SIGHUP: it is asked to read its configuration again.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, which: &str) {
        let sent = Command::new("kill").args([which, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "there is no such process");
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "still running:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- end of the relay's log\n{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
