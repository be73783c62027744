//! PostgreSQL's own upgrade to a later major version, by `pg_upgrade`, with outboxd's data in the cluster.

use crate::support::{Daemon, Outboxd, PATIENCE, Session, Sink, note_scenario};
use outboxd::throwaway::{Options, Throwaway, free_port};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tokio::time::{Duration, sleep};

/// Delivered before, under way when the relay is killed, and written while none lives.
const DELIVERED: usize = 40;
const UNDER_WAY: usize = 6;
const WAITING: usize = 20;

/// Runs a program of PostgreSQL's as whom the cluster belongs to; what it printed.
fn run(program: PathBuf, owned: &Path, arguments: &[&str]) -> String {
    let owner = std::fs::metadata(owned).expect("the directory");
    let output = Command::new(&program)
        .args(arguments)
        .current_dir(owned.parent().expect("a directory above"))
        .env("LC_ALL", "C")
        .uid(owner.uid())
        .gid(owner.gid())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {printed}{complained}", program.display());
    printed
}

/// The upgraded server; stopped when dropped, before its directory goes with that of the old one.
struct Upgraded {
    _old: Throwaway,
    bin_dir: PathBuf,
    data: PathBuf,
    port: u16,
}

impl Upgraded {
    /// Stops the old server and upgrades its cluster.
    fn from(old: Throwaway, bin_dir: PathBuf) -> Self {
        let before = old.data_dir();
        let directory = before.parent().expect("its directory").to_owned();
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        run(old.bin_dir().join("pg_ctl"), &before, &["-s", "-w", "-m", "fast", "-D", &text(&before), "stop"]);
        let data = directory.join("upgraded");
        let initdb =
            ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D", &text(&data)];
        run(bin_dir.join("initdb"), &before, &initdb);
        let (port, other_port) = (free_port().expect("a port"), free_port().expect("a port"));
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={}", text(&directory));
        let (old_bin, new_bin, was, is) = (text(old.bin_dir()), text(&bin_dir), text(&before), text(&data));
        let (port_text, other_text, sockets) = (port.to_string(), other_port.to_string(), text(&directory));
        let upgrade = [
            "--old-bindir",
            &old_bin,
            "--new-bindir",
            &new_bin,
            "--old-datadir",
            &was,
            "--new-datadir",
            &is,
            "--username",
            "postgres",
            "--old-port",
            &other_text,
            "--new-port",
            &port_text,
            "--socketdir",
            &sockets,
        ];
        println!("{}", run(bin_dir.join("pg_upgrade"), &before, &upgrade));
        let log = text(&directory.join("upgraded.log"));
        run(bin_dir.join("pg_ctl"), &before, &["-s", "-w", "-D", &is, "-l", &log, "-o", &options, "start"]);
        Self { _old: old, bin_dir, data, port }
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/shop", self.port)
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        let data = self.data.to_str().expect("UTF-8");
        run(self.bin_dir.join("pg_ctl"), &self.data, &["-s", "-w", "-m", "immediate", "-D", data, "stop"]);
    }
}

async fn publish(session: &Session, count: usize) -> Vec<String> {
    let sql = "select outbox.publish('order.created', jsonb_build_object('n', n))::text from generate_series(1, $1) n";
    let count = i32::try_from(count).expect("a few");
    session.query(sql, &[&count]).await.expect("events").iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a later PostgreSQL with all its programs: make test-pg-upgrade"]
async fn what_a_cluster_holds_survives_pg_upgrade_and_nothing_is_sent_again_wholesale() {
    let newer = PathBuf::from(std::env::var_os("OUTBOXD_PG_NEWER").expect("OUTBOXD_PG_NEWER; make test-pg-upgrade"));
    let old = tokio::task::spawn_blocking(|| Throwaway::start(Options::default()).expect("a server")).await;
    let old = old.expect("no panic");
    let admin = Session::at(&old.url("postgres")).await;
    admin.run("create database shop").await;
    let migrated = Outboxd::on(&old.url("shop"), &["migrate"]).output().await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let session = Session::at(&old.url("shop")).await;
    session.allow_http().await;
    session.without_circuits().await;
    let sink = Sink::accepting().await;
    let busy = Sink::new(|_, _| hyper::StatusCode::SERVICE_UNAVAILABLE).await;
    let good = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await.id;
    let bad = session.endpoint(&busy.url("/in"), "retry_policy => 'stepped'").await.id;

    // A history, and what failed and is due another time.
    let mut relay = Daemon::relay(&old.url("shop"), "relay-1").spawn().registered().await;
    let delivered = publish(&session, DELIVERED).await;
    session.wait_for_state(good, "succeeded", DELIVERED as i64).await;
    session.wait_for_state(bad, "failed", DELIVERED as i64).await;
    // Leases: the relay is killed with requests out. A backlog: nobody expands it.
    sink.close_gate();
    let under_way = publish(&session, UNDER_WAY).await;
    sink.wait_for_waiting(UNDER_WAY).await;
    session.wait_for_state(bad, "failed", (DELIVERED + UNDER_WAY) as i64).await;
    sink.open_gate_after(|| relay.kill());
    let waiting = publish(&session, WAITING).await;
    let facts = "select jsonb_build_object('events', (select count(*) from outbox.event), 'unexpanded', (select unexpanded_events from outbox.status()),
                     'states', (select jsonb_object_agg(state, n) from (select state, count(*) as n from outbox.delivery group by 1) t),
                     'attempts', (select count(*) from outbox.attempt))::text";
    let before: String = session.one(facts).await;
    let identity = "select (select system_identifier from pg_control_system())::text, pg_current_xact_id()::text::bigint, current_setting('server_version')";
    let was = session.query_one(identity, &[]).await.expect("the cluster");
    assert!(!session.one::<bool>("select outbox_relay.was_moved()").await);
    println!("before: {before}");

    let upgraded = tokio::task::spawn_blocking(move || Upgraded::from(old, newer)).await.expect("no panic");
    let began = Instant::now();
    let session = Session::at(&upgraded.url()).await;
    let is = session.query_one(identity, &[]).await.expect("the cluster");
    for (row, what) in [(&was, "was"), (&is, "is")] {
        let (system, xact, version): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
        println!("{what}: PostgreSQL {version}, system_identifier {system}, transaction {xact}");
    }
    assert!(is.get::<_, i64>(1) > was.get::<_, i64>(1), "transaction ids go on");
    assert_ne!(is.get::<_, String>(0), was.get::<_, String>(0), "and the cluster has another name");
    assert_eq!(session.one::<String>(facts).await, before);

    // The relay holds, whatever is inserted, and says what is to be done.
    let arrived = sink.arrived().len() + busy.arrived().len();
    let mut relay = Daemon::relay(&upgraded.url(), "relay-2").spawn().registered().await;
    relay.wait_for_log("on hold").await;
    assert!(relay.log().contains("outbox.adopt('default')"), "{}", relay.log());
    let held = publish(&session, WAITING).await;
    let check = Outboxd::on(&upgraded.url(), &["check"]).output().await;
    assert!(check.printed.contains("warning  hold") && check.printed.contains("outbox.adopt"), "{check:?}");
    assert_eq!(sink.arrived().len() + busy.arrived().len(), arrived, "nothing is sent before it is adopted");
    let adopted: String = session.one("select outbox.adopt('default')").await;
    println!("{adopted}");

    let began_again = Instant::now();
    while sink.times().len() < DELIVERED + UNDER_WAY + 2 * WAITING
        || session.one::<i64>(&format!("select count(*) from outbox_relay.queue where subscription_id = {good}")).await
            > 0
    {
        assert!(began_again.elapsed() < PATIENCE, "something is stuck:\n{}", relay.log());
        sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    // Once each; again only what was out when the relay was killed.
    let times = sink.times();
    let again: HashSet<&String> = times.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect();
    assert!(delivered.iter().chain(&waiting).chain(&held).all(|id| times[id] == 1), "sent again: {again:?}");
    assert!(under_way.iter().all(|id| times[id] == 2), "{times:?}");
    // What had failed keeps its due time, and is sent when that comes.
    session.wait_for_state(bad, "failed", (DELIVERED + UNDER_WAY + 2 * WAITING) as i64).await;
    assert!(busy.times().values().all(|count| *count == 1));
    session.run("update outbox_relay.queue set next_attempt_at = now() where next_attempt_at is not null").await;
    session.run("select pg_notify('outbox_signal', 'due')").await;
    busy.wait_for(2 * (DELIVERED + UNDER_WAY + 2 * WAITING)).await;
    session.assert_accounted().await;
    let check = Outboxd::on(&upgraded.url(), &["check"]).output().await;
    assert!(check.code == Some(0) && !check.printed.contains("warning  hold"), "{check:?}");
    note_scenario(&format!(
        "fault pg-upgrade {} to {}: recovered in {} ms, {} events, 0 lost, {} sent twice",
        was.get::<_, String>(2).split(' ').next().unwrap_or_default(),
        is.get::<_, String>(2).split(' ').next().unwrap_or_default(),
        took.as_millis(),
        times.len(),
        again.len()
    ));
    relay.terminate();
    assert!(relay.ended().await.success(), "{}", relay.log());
}
