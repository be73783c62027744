//! The database's disk is full: first where its tables lie, then where everything lies, its write-ahead log too.

use super::{PAUSE, wait_for_reason, wait_until_ready};
use crate::support::{Daemon, Outage, Outboxd, PATIENCE, Seat, Session, Sink, Writer, left_out};
use outboxd::throwaway::{Options, Throwaway};
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Unmounts the disk when our end of the pipe is closed, however we die.
const REAPER: &str = r#"
trap '' HUP INT TERM PIPE
mount -t tmpfs -o "size=$2" outboxd-test "$1" && echo mounted || echo refused
read -r _
umount -l "$1"
rmdir "$1"
"#;

/// A disk of that size in memory.
struct Disk {
    dir: PathBuf,
    reaper: Child,
    pipe: Option<ChildStdin>,
}

impl Disk {
    /// `None` where nothing may be mounted.
    fn new(size: &str) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("outboxd-disk-{:08x}", fastrand::u32(..)));
        std::fs::create_dir(&dir).expect("a directory");
        let mut reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&dir)
            .arg(size)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let mut said = String::new();
        BufReader::new(reaper.stdout.take().expect("a pipe")).read_line(&mut said).expect("it says");
        let disk = Self { pipe: reaper.stdin.take(), reaper, dir };
        if said.trim() != "mounted" {
            left_out("a full disk", "only root may mount a small one");
            return None;
        }
        std::fs::set_permissions(&disk.dir, Permissions::from_mode(0o777)).expect("for the server's user");
        Some(disk)
    }

    /// Writes until there is no room left.
    fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.ballast()).expect("a file");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.reaper.wait();
    }
}

async fn prepare(url: &str) -> (Session, Sink) {
    let output = Outboxd::on(url, &["migrate"]).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let session = Session::at(url).await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "timeout => '60 seconds'").await;
    (session, sink)
}

/// Fills the disk until a producer is told.
async fn fill_until_refused(disk: &Disk, session: &Session) {
    let began = Instant::now();
    loop {
        disk.fill();
        let sql = "insert into outbox.event (type, payload) select 'nobody.wants', jsonb_build_object('pad', string_agg(md5(random()::text), ''))
            from generate_series(1, 60) having set_config('synchronous_commit', 'on', true) is not null";
        match session.batch_execute(&format!("begin; {sql}; rollback")).await {
            Ok(()) => assert!(began.elapsed() < PATIENCE, "the disk does not get full"),
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                let _ = session.batch_execute("rollback").await;
                println!("a producer is told {code:?}");
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_of_tables_is_waited_for_and_nothing_is_sent_twice() {
    let Some(disk) = Disk::new("64m") else { return };
    let server = Throwaway::start(Options::default().without_durability().set("autovacuum", "off")).expect("a server");
    let space = disk.dir.join("space");
    std::fs::create_dir(&space).expect("a directory");
    std::os::unix::fs::chown(&space, Some(owner(&server)), None).expect("for the server");
    let admin = Session::at(&server.url("postgres")).await;
    admin.run(&format!("create tablespace small location '{}'", space.display())).await;
    admin.run("create database shop tablespace small").await;
    let url = server.url("shop");
    let (session, sink) = prepare(&url).await;
    let mut seat = Seat::at(&url, &session, &[]).await;
    let writer = Writer::start(&url, PAUSE);
    sink.wait_for(50).await;

    // Answers come when their results can no longer be written: more of them than fit into pages that are there.
    sink.close_gate();
    sink.wait_for_waiting(60).await;
    fill_until_refused(&disk, &session).await;
    sink.open_gate();
    seat.daemon.wait_for_log("results could not be recorded; trying again").await;
    assert!(seat.daemon.log().contains("No space left on device"), "{}", seat.daemon.log());
    wait_for_reason(&seat, "results could not be recorded for").await;

    disk.make_room();
    let outage = Outage::is_over("disk-full");
    let before = sink.arrived().len();
    sink.wait_for(before + 10).await;
    let written = writer.stop().await;
    assert!(written.refused.contains("53100"), "{:?}", written.refused);
    assert_eq!(outage.recovered(&session, &sink, &written.committed).await, 0);
    wait_until_ready(&seat).await;
}

fn owner(server: &Throwaway) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(server.data_dir()).expect("its data"))
}

#[tokio::test]
async fn a_full_disk_of_everything_stops_the_server_and_not_the_promise() {
    let Some(disk) = Disk::new("300m") else { return };
    let options = Options { parent: Some(disk.dir.clone()), ..Options::default() };
    // Durable: what was committed must survive the server's end. Small, so that the next piece of its log is needed soon.
    let options = options.set("min_wal_size", "32MB").set("max_wal_size", "48MB").set("autovacuum", "off");
    let mut server = Throwaway::start(options).expect("a server");
    let url = server.url("postgres");
    let (session, sink) = prepare(&url).await;
    let mut relay = Daemon::relay(&url, "relay-1").spawn().registered().await;
    let writer = Writer::start(&url, PAUSE);
    sink.wait_for(50).await;
    let began = Instant::now();
    disk.fill();
    // The server ends when it cannot go on with its log; until then producers are refused, or are not.
    while session
        .batch_execute("select pg_switch_wal(); select pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
        .await
        .is_ok()
    {
        disk.fill();
        assert!(began.elapsed() < PATIENCE, "the write-ahead log has room");
    }
    relay.wait_for_log("the direct connection is lost").await;

    disk.make_room();
    let outage = Outage::is_over("disk-full-wal");
    // By itself if the postmaster still lives, else as whoever supervises it does.
    let came_back = comes_back(&url).await;
    if !came_back {
        server.crash_and_restart().expect("it starts");
    }
    println!("the server {}", if came_back { "came back by itself" } else { "had to be started" });
    let session = Session::at(&url).await;
    let before = sink.arrived().len();
    sink.wait_for(before + 10).await;
    let written = writer.stop().await;
    assert!(!written.refused.is_empty(), "{:?}", written.refused);
    outage.recovered(&session, &sink, &written.committed).await;
    drop((relay, server));
}

/// Whether the server takes connections again within a few seconds.
async fn comes_back(url: &str) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        if tokio_postgres::connect(url, tokio_postgres::NoTls).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
