//! A private PostgreSQL server for the tests, the demo and the benchmark.
//!
//! It lives in a temporary directory, listens on the loopback interface alone, trusts whoever connects
//! there, and never outlives the process that started it. A small shell, the reaper, stands between
//! the two: it holds the read end of a pipe whose write end is ours. However we die, SIGKILL included,
//! the kernel closes our end; the reaper reads end of file, stops the server and removes the directory.
//! (Rejected: a parent-death signal, which needs unsafe code and follows the thread rather than the
//! process; an exit handler, which SIGKILL skips.)
//!
//! PostgreSQL refuses to run as root. When we are root, it runs as `postgres`, or as `nobody`.
//!
//! The API blocks: call it from a thread that may, or before the runtime starts.

mod host;

pub use host::free_port;

use host::{User, command, file_error, find_server, make_directory, user_to_run_as};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// A free port may be taken between being found and being used; so often another one is tried.
const PORT_ATTEMPTS: u32 = 5;

/// Reads commands from our pipe, one a line, and answers each; end of file is the order to clean up.
/// A throwaway server is always stopped the quick way: nobody will miss its data.
const REAPER: &str = r#"
trap '' HUP INT TERM PIPE
bin=$1 dir=$2
stop() { "$bin/pg_ctl" -s -w -m immediate -D "$dir/data" stop; }
start() { "$bin/pg_ctl" -s -w -D "$dir/data" -l "$dir/log" -o "-p $port" start; }
while read -r command port; do
    case $command in
        start) start ;;
        restart) stop; start ;;
        stop) stop ;;
        promote) "$bin/pg_ctl" -s -w -D "$dir/data" promote ;;
    esac
    if [ $? = 0 ]; then echo ready; else echo failed; fi
done
stop
rm -rf "$dir"
"#;

/// What a [`Throwaway`] server should be like. The default is a server with default durability.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The directory of `postgres`, `initdb` and `pg_ctl`; without it they are looked for, see
    /// [`Throwaway::start`].
    pub bin_dir: Option<PathBuf>,
    /// Lines of `postgresql.conf`, name and value, after (and so above) our own.
    pub settings: Vec<(String, String)>,
    /// Where its directory is made, instead of where temporary files go.
    pub parent: Option<PathBuf>,
    /// Variables of the server's environment besides those it inherits.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Adds one line of `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives up durability for speed: for tests, whose data nobody keeps. Not for measurements.
    #[must_use]
    pub fn without_durability(self) -> Self {
        self.set("fsync", "off").set("full_page_writes", "off").set("synchronous_commit", "off")
    }
}

/// What a physical copy is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A cluster of its own.
    Clone,
    /// Follows a primary, until it is promoted.
    Standby,
    /// Restores from an archive up to a target.
    Restore,
}

/// Why a throwaway server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ThrowawayError {
    /// No server is installed where we look.
    #[error(
        "no PostgreSQL server was found: apt-get install postgresql, or set OUTBOXD_PG_BIN to the directory of postgres and initdb"
    )]
    NoServer,
    /// The directory named by the caller or by `OUTBOXD_PG_BIN` lacks a program.
    #[error("{} has no {program}: name the directory of postgres, initdb and pg_ctl", dir.display())]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// What it lacks.
        program: &'static str,
    },
    /// We are root, and there is nobody to run the server as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither postgres nor nobody: run this as another user"
    )]
    NoUser,
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No loopback port could be had.
    #[error("no free port on 127.0.0.1: {0}")]
    NoPort(io::Error),
    /// `initdb` failed.
    #[error("initdb failed; is {} open to the user it runs as?\n{output}", dir.display())]
    Initdb {
        /// Where the cluster was to be.
        dir: PathBuf,
        /// What it said.
        output: String,
    },
    /// `pg_basebackup` failed.
    #[error("pg_basebackup failed\n{output}")]
    Copy {
        /// What it said.
        output: String,
    },
    /// The server did not come up, or went away.
    #[error("the server did not start; the end of its log:\n{log}")]
    Start {
        /// The end of its log.
        log: String,
    },
}

/// A running private server; stopped and removed when dropped.
#[derive(Debug)]
pub struct Throwaway {
    dir: PathBuf,
    bin_dir: PathBuf,
    port: u16,
    reaper: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Throwaway {
    /// Makes a cluster in a temporary directory and starts it.
    ///
    /// The server's programs are those in `options.bin_dir`, else in the environment variable
    /// `OUTBOXD_PG_BIN`, else of the highest version under `/usr/lib/postgresql`, else where
    /// `pg_config --bindir` points.
    ///
    /// # Errors
    /// No server is installed, or it does not start; the message holds the end of its log.
    pub fn start(options: Options) -> Result<Self, ThrowawayError> {
        let bin_dir = find_server(options.bin_dir.as_deref())?;
        let dir = make_directory(options.parent.as_deref())?;
        Self::start_in(&dir, bin_dir, &options).inspect_err(|_| {
            // Best effort: the error that is on its way says more than one about this would.
            let _ = fs::remove_dir_all(&dir);
        })
    }

    fn start_in(dir: &Path, bin_dir: PathBuf, options: &Options) -> Result<Self, ThrowawayError> {
        let user = user_to_run_as(dir)?;
        if let Some(user) = user {
            chown(dir, Some(user.uid), Some(user.gid)).map_err(file_error("give away", dir))?;
        }
        init_cluster(dir, &bin_dir, user)?;
        write_settings(dir, options)?;
        let mut server = Self::with_reaper(dir, bin_dir, user, &options.environment)?;
        server.start_anywhere()?;
        Ok(server)
    }

    /// What cleans up is there before there is something to clean up.
    fn with_reaper(
        dir: &Path,
        bin_dir: PathBuf,
        user: Option<User>,
        environment: &[(String, String)],
    ) -> Result<Self, ThrowawayError> {
        let mut reaper = command("sh", dir, user);
        let mut reaper = reaper
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .args([OsStr::new("-c"), OsStr::new(REAPER), OsStr::new("reaper"), bin_dir.as_os_str(), dir.as_os_str()])
            .process_group(0) // the terminal's ^C is for us, not for the server under a test that handles it
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(file_error("run", Path::new("sh")))?;
        let (Some(commands), Some(answers)) = (reaper.stdin.take(), reaper.stdout.take()) else {
            return Err(ThrowawayError::Start { log: "the reaper has no pipes".to_owned() });
        };
        Ok(Self {
            dir: dir.to_owned(),
            bin_dir,
            port: 0,
            reaper,
            commands: Some(commands),
            answers: BufReader::new(answers),
        })
    }

    fn start_anywhere(&mut self) -> Result<(), ThrowawayError> {
        for _ in 0..PORT_ATTEMPTS {
            self.port = free_port().map_err(ThrowawayError::NoPort)?;
            if self.order("start") {
                return Ok(());
            }
        }
        Err(self.start_error())
    }

    /// Takes a physical copy of this running server by that `pg_basebackup`, of its version or a later one. It is not
    /// started yet: see [`Throwaway::start_as`].
    ///
    /// # Errors
    /// The copy could not be made.
    pub fn copy(&self, pg_basebackup: &Path) -> Result<Self, ThrowawayError> {
        let dir = make_directory(None)?;
        self.copy_to(&dir, pg_basebackup).inspect_err(|_| {
            // Best effort, as above.
            let _ = fs::remove_dir_all(&dir);
        })
    }

    fn copy_to(&self, dir: &Path, program: &Path) -> Result<Self, ThrowawayError> {
        let user = user_to_run_as(dir)?;
        if let Some(user) = user {
            chown(dir, Some(user.uid), Some(user.gid)).map_err(file_error("give away", dir))?;
        }
        let copy = Self::with_reaper(dir, self.bin_dir.clone(), user, &[])?;
        let output = command(program, dir, user)
            .args(["--pgdata=data", "--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-password"])
            .arg(format!("--dbname=host=127.0.0.1 port={} user=postgres", self.port))
            .output()
            .map_err(file_error("run", program))?;
        if !output.status.success() {
            return Err(ThrowawayError::Copy { output: String::from_utf8_lossy(&output.stderr).into_owned() });
        }
        Ok(copy)
    }

    /// Starts a copy; `options.settings` say the rest, as `primary_conninfo` or `recovery_target_name`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_as(&mut self, role: Role, options: &Options) -> Result<(), ThrowawayError> {
        write_settings(&self.dir, options)?;
        let signal = match role {
            Role::Clone => None,
            Role::Standby => Some("standby.signal"),
            Role::Restore => Some("recovery.signal"),
        };
        if let Some(path) = signal.map(|name| self.data_dir().join(name)) {
            fs::write(&path, "").map_err(file_error("write", &path))?;
        }
        self.start_anywhere()
    }

    /// The connection URL of a database of this server, as its superuser.
    #[must_use]
    pub fn url(&self, dbname: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{dbname}", self.port)
    }

    /// The loopback port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory; the server's log lies beside it, in `log`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The directory of the server's programs, `psql` and `pg_dump` among them.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Crashes the server (an immediate shutdown: what was not flushed is lost) and starts it again on
    /// the same port. Returns once it has recovered and accepts connections.
    ///
    /// # Errors
    /// It did not come up again.
    pub fn crash_and_restart(&mut self) -> Result<(), ThrowawayError> {
        if self.order("restart") { Ok(()) } else { Err(self.start_error()) }
    }

    /// Crashes the server, as [`Throwaway::crash_and_restart`] does, and leaves it down.
    ///
    /// # Errors
    /// It was not up.
    pub fn crash(&mut self) -> Result<(), ThrowawayError> {
        if self.order("stop") { Ok(()) } else { Err(self.start_error()) }
    }

    /// Starts a server that was crashed, on the same port.
    ///
    /// # Errors
    /// It does not come up.
    pub fn come_back(&mut self) -> Result<(), ThrowawayError> {
        if self.order("start") { Ok(()) } else { Err(self.start_error()) }
    }

    /// Makes a standby the primary. Returns once it may be written to.
    ///
    /// # Errors
    /// It is no standby.
    pub fn promote(&mut self) -> Result<(), ThrowawayError> {
        if self.order("promote") { Ok(()) } else { Err(self.start_error()) }
    }

    /// Stops the server and removes its directory, as dropping it does.
    pub fn stop(self) {}

    /// Has the reaper do something with the server; whether it is up afterwards.
    fn order(&mut self, what: &str) -> bool {
        let Some(commands) = self.commands.as_mut() else { return false };
        let mut answer = String::new();
        writeln!(commands, "{what} {}", self.port).is_ok()
            && self.answers.read_line(&mut answer).is_ok()
            && answer.trim() == "ready"
    }

    fn start_error(&self) -> ThrowawayError {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        ThrowawayError::Start { log: lines[lines.len().saturating_sub(20)..].join("\n") }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        drop(self.commands.take()); // the reaper reads end of file
        // The reaper cannot fail in a way that we could mend here.
        let _ = self.reaper.wait();
    }
}

fn init_cluster(dir: &Path, bin_dir: &Path, user: Option<User>) -> Result<(), ThrowawayError> {
    let program = bin_dir.join("initdb");
    let output = command(&program, dir, user)
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata=data"])
        .output()
        .map_err(file_error("run", &program))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ThrowawayError::Initdb { dir: dir.to_owned(), output: String::from_utf8_lossy(&output.stderr).into_owned() })
}

fn write_settings(dir: &Path, options: &Options) -> Result<(), ThrowawayError> {
    let socket_dir = dir.to_string_lossy();
    let ours = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", &*socket_dir),
        ("max_connections", "200"),
        ("max_prepared_transactions", "20"),
    ];
    let theirs = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let lines: String = ours
        .into_iter()
        .chain(theirs)
        .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")))
        .collect();
    let path = dir.join("data/postgresql.conf");
    OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(lines.as_bytes()))
        .map_err(file_error("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn a_directory_without_a_server_is_named_in_the_error() {
        let options = Options { bin_dir: Some(PathBuf::from("/nonexistent")), ..Options::default() };
        let error = Throwaway::start(options).expect_err("there is no server there");
        assert!(error.to_string().starts_with("/nonexistent has no postgres"), "{error}");
    }

    #[test]
    fn a_bad_setting_is_reported_with_the_servers_own_words_and_nothing_is_left() {
        let error = Throwaway::start(Options::default().set("no_such_setting", "1")).expect_err("must not start");
        assert!(error.to_string().contains("no_such_setting"), "{error}");
    }

    #[test]
    fn a_server_comes_back_after_a_crash_and_leaves_nothing_when_stopped() {
        let mut server = Throwaway::start(Options::default().without_durability()).expect("a server");
        let (port, dir) = (server.port(), server.dir.clone());
        TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        server.crash_and_restart().expect("it starts again");
        TcpStream::connect(("127.0.0.1", port)).expect("it listens again");
        server.stop();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(!dir.exists());
    }

    /// The process that the next test kills. It prints where its server is and waits to be killed.
    #[test]
    #[ignore = "started by the_server_dies_with_a_killed_owner"]
    fn owner_to_be_killed() {
        let server = Throwaway::start(Options::default().without_durability()).expect("a server");
        println!("\nserver {} {}", server.port(), server.dir.display());
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn the_server_dies_with_a_killed_owner() {
        let mut owner = Command::new(std::env::current_exe().expect("this binary"))
            .args(["throwaway::tests::owner_to_be_killed", "--exact", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the owner runs");
        let output = BufReader::new(owner.stdout.take().expect("its output"));
        let line = output.lines().map_while(Result::ok).find(|line| line.starts_with("server ")).expect("a server");
        let (port, dir) = line["server ".len()..].split_once(' ').expect("port and directory");
        let (port, dir): (u16, _) = (port.parse().expect("a port"), Path::new(dir));
        TcpStream::connect(("127.0.0.1", port)).expect("it listens");

        owner.kill().expect("SIGKILL");
        owner.wait().expect("it is gone");

        let began = Instant::now();
        while dir.exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "{} is still there", dir.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
