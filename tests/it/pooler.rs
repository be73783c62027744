//! Behind PgBouncer in transaction mode: statements through the pool, the epoch and LISTEN on `listen_url`.

use crate::support::{Daemon, Db, Sink};
use hyper::StatusCode;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian installs it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// Server connections of the pool: fewer than the relays would open by themselves.
const POOL_SIZE: usize = 2;

/// Ends the pooler and removes its directory when our end of the pipe is closed, however we die.
const REAPER: &str = r#"
trap '' HUP INT TERM PIPE
dir=$1; shift
"$@" & pid=$!
read -r _
kill -KILL $pid
rm -rf "$dir"
"#;

/// A PgBouncer of one test's own.
struct Pooler {
    reaper: Child,
    pipe: Option<ChildStdin>,
    port: u16,
}

impl Pooler {
    /// `None` if it is not installed.
    fn start(server_port: u16) -> Option<Self> {
        if !PathBuf::from(PROGRAM).is_file() {
            return None;
        }
        let dir = std::env::temp_dir().join(format!("outboxd-pooler-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).expect("a directory");
        let port =
            TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a port").port();
        let configuration = dir.join("pgbouncer.ini");
        fs::write(
            &configuration,
            format!(
                "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 auth_type = any\npool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200\nunix_socket_dir =\n"
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
            .process_group_of_its_own()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let pipe = reaper.stdin.take();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "PgBouncer does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { reaper, pipe, port })
    }
}

/// The terminal's ^C is for the tests.
trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.process_group(0)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.flush();
        }
        let _ = self.reaper.wait();
    }
}

#[tokio::test]
async fn behind_a_pooler_deliveries_retries_and_kills_work() {
    let db = Db::new().await;
    let direct = db.url();
    let (server, name) = direct.rsplit_once('/').expect("a name");
    let server_port = server.rsplit_once(':').expect("a port").1.parse().expect("a number");
    let Some(pooler) = Pooler::start(server_port) else {
        println!("skipped: {PROGRAM} is not installed (apt-get install pgbouncer)");
        return;
    };
    let pooled = format!("postgres://postgres@127.0.0.1:{}/{name}", pooler.port);
    let session = db.session().await;
    session.allow_http().await;
    let sink =
        Sink::new(|_, nth| if nth == 1 && fastrand::bool() { StatusCode::BAD_GATEWAY } else { StatusCode::OK }).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    let start = |name: &'static str| {
        Daemon::relay(&pooled, name)
            .set("OUTBOXD_DATABASE__LISTEN_URL", &direct)
            .set("OUTBOXD_DATABASE__POOL_SIZE", "4")
            .spawn()
            .registered()
    };
    let mut first = start("first").await;
    let second = start("second").await;
    let mut total = 0;
    for round in 0..10 {
        for _ in 0..10 {
            session.insert_many("order.created", 5).await;
            total += 5;
        }
        if round % 3 == 1 {
            first.kill();
            session.insert_many("order.created", 5).await;
            total += 5;
            first = start("first").await;
        }
        let sent = usize::try_from(total).expect("a count") - 50;
        sink.wait_for(sent).await;
    }
    session.wait_for_state(endpoint.id, "succeeded", total).await;
    assert_eq!(sink.times().len(), usize::try_from(total).expect("a count"));
    session.assert_accounted().await;

    let sessions: i64 = session
        .one("select count(*) from pg_stat_activity where datname = current_database() and application_name like 'outboxd%'")
        .await;
    assert!(
        usize::try_from(sessions).expect("a count") <= POOL_SIZE + 2,
        "{sessions}: the statements went through the pool"
    );
    for log in [first.log(), second.log()] {
        assert!(!log.contains("prepared statement") && !log.contains("cannot start"), "{log}");
    }

    // A sleeping relay is rung through the pool, too.
    let began = Instant::now();
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", total + 1).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
