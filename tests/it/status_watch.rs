//! `outboxd status --watch`: a screen where there is a terminal, a line a second where there is none.

use crate::support::{Db, Outboxd, PATIENCE, Session};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

const BINARY: &str = env!("CARGO_BIN_EXE_outboxd");

/// A login of this test's own with one of the groups; roles belong to the whole server.
async fn login(db: &Db, session: &Session, group: &str) -> String {
    let role = format!("watch_{}", session.one::<String>("select current_database()::text").await);
    session.run(&format!("create role {role} login in role {group}")).await;
    db.url().replace("postgres@", &format!("{role}@"))
}

#[tokio::test]
async fn piped_it_is_a_line_a_second_until_it_is_asked_to_stop() {
    let db = Db::new().await;
    let session = db.session().await;
    let id = session.subscribe("*").await;
    session.run(&format!("select outbox.pause({id})")).await;
    session.insert_many("order.created", 3).await;
    let url = login(&db, &session, "outbox_viewer").await;
    let mut watch = Outboxd::on(&url, &["status", "--watch"]).spawn();
    watch.wait_for_log("unexpanded=3 pending=0 ").await;
    watch.wait_for_log("delivered_per_s=0.0 failed_per_s=0.0 troubled=1\n").await;
    // What an operator wrote cannot command a terminal, nor forge a line.
    session.run(r"select outbox.hold(E'noon\x1b[2J\n2026 \x07relays=9')").await;
    watch.wait_for_log("hold=\"noon[2J 2026 relays=9\"\n").await;
    assert!(!watch.log().contains(['\x1b', '\x07']), "{:?}", watch.log());
    watch.terminate();
    assert_eq!(watch.ended().await.code(), Some(0), "{}", watch.log());
    assert!(!watch.log().contains("outboxd:"), "quietly: {}", watch.log());
}

#[tokio::test]
async fn a_connection_that_is_lost_is_told_and_made_anew() {
    let db = Db::new().await;
    let session = db.session().await;
    let url = login(&db, &session, "outbox_operator").await;
    let mut watch = Outboxd::on(&url, &["status", "--watch"]).spawn();
    watch.wait_for_log("unexpanded=0").await;
    session
        .run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .await;
    watch.wait_for_log("no_answer_since=").await;
    session.insert_many("order.created", 4).await;
    watch.wait_for_log("unexpanded=4").await;
}

#[tokio::test]
async fn nobody_who_reads_on_is_no_error() {
    let db = Db::new().await;
    let (url, began) = (db.url(), Instant::now());
    let ended = tokio::task::spawn_blocking(move || {
        let mut watch = Command::new(BINARY)
            .args(["status", "--watch"])
            .env_clear()
            .env("DATABASE_URL", url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("outboxd starts");
        let mut line = String::new();
        // The pipe is closed after that line, as `head -n 1` does.
        BufReader::new(watch.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert!(line.contains("relays=0"), "{line}");
        while watch.try_wait().expect("its state").is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // An error means that it has ended.
        let _ = watch.kill();
        watch.wait_with_output().expect("its end")
    });
    let ended = ended.await.expect("no panic");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

#[tokio::test]
async fn without_the_database_it_does_not_begin() {
    let output = Outboxd::on("postgres://app:hunter2@127.0.0.1:1/shop", &["status", "--watch"]).output().await;
    assert!(output.code == Some(1) && output.complained.contains("Connection refused"), "{output:?}");
    assert!(output.printed.is_empty() && !output.complained.contains("hunter2"), "{output:?}");
}

/// What a program shows on a terminal, and its keys.
struct Pty {
    script: std::process::Child,
    pieces: Receiver<Vec<u8>>,
    shown: String,
}

impl Pty {
    /// `None` where `script` of util-linux is not there to make the terminal.
    fn run(url: &str, command: &str) -> Option<Self> {
        let found = Command::new("script").arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("left out: there is no script of util-linux here");
            return None;
        }
        let mut script = Command::new("script")
            .args(["-qfec", command, "/dev/null"])
            .env("DATABASE_URL", url)
            .env("OUTBOXD", BINARY)
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script starts");
        let mut pipe = script.stdout.take().expect("a pipe");
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(Self { script, pieces, shown: String::new() })
    }

    /// Waits until it has shown this.
    fn wait_for(&mut self, text: &str) {
        let began = Instant::now();
        while !self.shown.contains(text) {
            let piece = self.pieces.recv_timeout(PATIENCE.saturating_sub(began.elapsed()));
            let piece = piece.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    fn press(&mut self, keys: &str) {
        let pipe = self.script.stdin.as_mut().expect("a pipe");
        pipe.write_all(keys.as_bytes()).and_then(|()| pipe.flush()).expect("a key");
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Takes the other screen, and gives all of it back.
const TAKEN: &str = "\x1b[?1049h\x1b[?25l";
const GIVEN_BACK: &str = "\x1b[?25h\x1b[?1049l";
/// Says how the keyboard was before and is afterwards.
const COMMAND: &str = r#"echo "before $(stty -g)."; sh -c 'echo "pid $$."; exec "$OUTBOXD" status --watch'; echo "code $?."; echo "after $(stty -g).""#;

fn between<'a>(shown: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = shown.split_once(from).expect("its begin");
    rest.split_once(to).expect("its end").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_it_is_a_screen_with_keys_that_leaves_no_trace() {
    let db = Db::new().await;
    let session = db.session().await;
    session.run("select outbox.hold('the database moves at noon')").await;
    session.insert_many("order.created", 5).await;
    let url = login(&db, &session, "outbox_viewer").await;
    let Some(mut pty) = Pty::run(&url, COMMAND) else { return };
    tokio::task::block_in_place(|| {
        pty.wait_for(TAKEN);
        pty.wait_for("HOLD, nothing is sent: the database moves at noon");
        pty.wait_for("unexpanded");
        pty.wait_for("── ");
        pty.press("2");
        pty.wait_for("last hour, every 1 s");
        pty.press("+");
        pty.wait_for("last hour, every 2 s");
        pty.press("p");
        pty.wait_for("PAUSED");
        // An arrow is not Escape.
        pty.press("\x1b[A?");
        pty.wait_for("this page, and back");
        pty.press("q");
        pty.wait_for(GIVEN_BACK);
        pty.wait_for("after ");
        pty.wait_for("code 0.");
    });
    let modes = between(&pty.shown, "before ", ".").to_owned();
    tokio::task::block_in_place(|| pty.wait_for(&format!("after {modes}.")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relays_login_sees_what_it_may_and_sigterm_gives_the_terminal_back() {
    let db = Db::new().await;
    let session = db.session().await;
    let url = login(&db, &session, "outbox_relay").await;
    let Some(mut pty) = Pty::run(&url, COMMAND) else { return };
    tokio::task::block_in_place(|| {
        pty.wait_for("NO RELAY IS LIVE");
        pty.wait_for("may not read outbox.activity()");
        pty.wait_for("may not read outbox.delivery");
        let pid = between(&pty.shown, "pid ", ".").to_owned();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        pty.wait_for(GIVEN_BACK);
        pty.wait_for("code 0.");
        let modes = between(&pty.shown, "before ", ".").to_owned();
        pty.wait_for(&format!("after {modes}."));
    });
}
