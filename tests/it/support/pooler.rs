//! A PgBouncer of one test's own, that can be killed and started again.

use outboxd::throwaway::free_port;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian installs it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// Server connections of the pool: fewer than the relays would open by themselves.
pub(crate) const POOL_SIZE: usize = 2;

/// Ends the pooler and removes its directory when our end of the pipe is closed, however we die.
const REAPER: &str = r#"
trap '' HUP INT TERM PIPE
dir=$1; shift
"$@" & pid=$!
while read -r command; do
    case $command in
    kill) kill -KILL $pid; wait $pid 2>/dev/null ;;
    start) "$@" & pid=$! ;;
    esac
    echo done
done
kill -KILL $pid
rm -rf "$dir"
"#;

pub(crate) struct Pooler {
    reaper: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Pooler {
    /// In front of the server of that URL, in that mode and with these lines of configuration besides. `None` if it is
    /// not installed.
    pub(crate) fn start(direct: &str, mode: &str, lines: &str) -> Option<Self> {
        if !Path::new(PROGRAM).is_file() {
            super::left_out("PgBouncer", "it is not installed (apt-get install pgbouncer)");
            return None;
        }
        let server = direct.rsplit_once('/').expect("a name").0;
        let server_port = server.rsplit_once(':').expect("a port").1;
        let dir = std::env::temp_dir().join(format!("outboxd-pooler-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).expect("a directory");
        let port = free_port().expect("a port");
        let configuration = dir.join("pgbouncer.ini");
        fs::write(
            &configuration,
            format!(
                "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 auth_type = any\npool_mode = {mode}\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200\nunix_socket_dir =\n\
                 admin_users = postgres\n{lines}\n"
            ),
        )
        .expect("its configuration");
        let mut command = Command::new("sh");
        command.args(["-c", REAPER, "reaper"]).arg(&dir).arg(PROGRAM).arg("-q");
        if fs::metadata(&dir).expect("its directory").uid() == 0 {
            // It refuses to run as root.
            for (path, mode) in [(&dir, 0o755), (&configuration, 0o644)] {
                fs::set_permissions(path, Permissions::from_mode(mode)).expect("readable");
            }
            command.args(["-u", "postgres"]);
        }
        let mut reaper = command
            .arg(&configuration)
            .process_group(0) // the terminal's ^C is for the tests
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let commands = reaper.stdin.take();
        let answers = BufReader::new(reaper.stdout.take().expect("a pipe"));
        let pooler = Self { reaper, commands, answers, port };
        pooler.wait_until_it_listens();
        Some(pooler)
    }

    /// That database through it.
    pub(crate) fn url(&self, direct: &str) -> String {
        let name = direct.rsplit_once('/').expect("a name").1;
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Its own console.
    pub(crate) fn console(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/pgbouncer", self.port)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.order("kill");
    }

    /// After [`Pooler::kill`].
    pub(crate) fn start_again(&mut self) {
        self.order("start");
        self.wait_until_it_listens();
    }

    fn order(&mut self, what: &str) {
        let mut answer = String::new();
        writeln!(self.commands.as_mut().expect("a pipe"), "{what}").expect("the reaper lives");
        self.answers.read_line(&mut answer).expect("the reaper answers");
    }

    fn wait_until_it_listens(&self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "PgBouncer does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.reaper.wait();
    }
}
