//! Copies of a database that was sending: whoever starts one holds until it is adopted, and then sends what was
//! outstanding when the copy was made, and nothing else again.

use crate::support::pair::{DATABASE, Fate, Ledger, Writers, copy, durable, install, settled};
use crate::support::{Daemon, Outboxd, Session, Sink, client_program, left_out, note_scenario};
use outboxd::throwaway::{Options, Role, Throwaway};
use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use tokio::task::block_in_place;

/// Everything here goes to one receiver; who sent it is told by this.
fn relay(url: &str, agent: &str, environment: &str) -> Outboxd {
    Daemon::relay(url, agent)
        .set("OUTBOXD_HTTP__USER_AGENT", agent)
        .set("OUTBOXD_RELAY__ENVIRONMENT", environment)
        .set("OUTBOXD_RELAY__DRAIN_DEADLINE", "100ms")
}

/// Ids that this sender sent, each as often as it did.
fn sent_by(sink: &Sink, agent: &str) -> Vec<String> {
    let arrived = sink.arrived();
    arrived.iter().filter(|a| a.header("user-agent") == agent).map(|a| a.event_id().to_owned()).collect()
}

/// Events whose delivery had not ended when the copy was made, as the copy has it: expanded or not.
async fn outstanding(copy: &Session) -> HashSet<String> {
    let ids: Vec<String> = copy
        .all(
            "select e.event_id::text from outbox.event e
             where not exists (select from outbox_relay.finished f where f.event_seq = e.event_seq)",
        )
        .await;
    ids.into_iter().collect()
}

/// That these events, and no others, were sent by that sender, once each.
fn assert_sent_once(sink: &Sink, agent: &str, expected: &HashSet<String>) {
    let sent = sent_by(sink, agent);
    let distinct: HashSet<String> = sent.iter().cloned().collect();
    assert_eq!(sent.len(), distinct.len(), "nothing is sent twice");
    let (missed, again) = (expected.difference(&distinct).count(), distinct.difference(expected).count());
    assert_eq!((missed, again), (0, 0), "missed, and sent again though it was done");
}

/// Runs a client program of PostgreSQL's to its end.
fn run(program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_taken_while_everything_runs_sends_only_what_was_outstanding_and_only_when_adopted() {
    let home = durable(Options::default());
    let session = install(&home).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let production = relay(&home.url(DATABASE), "production", "production").spawn().registered().await;
    let writers = Writers::start(2, &home.url(DATABASE));
    sink.wait_for(50).await;
    sink.close_gate();
    sink.wait_for_waiting(5).await;
    let mut clone = copy(&home);
    sink.open_gate();
    block_in_place(|| clone.start_as(Role::Clone, &Options::default())).expect("a clone");
    let ledger = writers.stop().await;
    settled(&session).await;
    drop(production);

    let copy = Session::at(&clone.url(DATABASE)).await;
    let expected = outstanding(&copy).await;
    let leased: i64 = copy.one("select count(*) from outbox_relay.queue where state = 'leased'").await;
    assert!(leased > 0, "something was under way");
    let mut staging = relay(&clone.url(DATABASE), "staging", "staging").spawn().registered().await;
    staging.wait_for_log("on hold").await;
    staging.wait_for_log("outbox.adopt('staging')").await;
    assert!(sent_by(&sink, "staging").is_empty(), "it holds");
    let adopted_at = Instant::now();
    copy.run("select outbox.adopt('staging')").await;
    settled(&copy).await;
    let recovered = adopted_at.elapsed();
    assert_sent_once(&sink, "staging", &expected);
    copy.assert_accounted().await;
    // What production recorded is what it sent, whatever the clone did.
    assert!(ledger.of(Fate::Acknowledged).iter().all(|id| sink.times().contains_key(id)));
    let all: i64 = copy.one("select count(*) from outbox.event").await;
    note_scenario(&format!(
        "fault clone: recovered in {} ms, {all} events, 0 lost, {} sent twice, all outstanding when it was copied",
        recovered.as_millis(),
        expected.len()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_database_made_of_the_first_holds_too_and_neither_is_in_the_others_way() {
    let home = durable(Options::default());
    let session = install(&home).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let mut production = relay(&home.url(DATABASE), "production", "production").spawn().registered().await;
    let ledger = Ledger::default();
    for _ in 0..5 {
        ledger.order(&session, true).await.expect("it commits");
    }
    settled(&session).await;
    sink.close_gate();
    for _ in 0..3 {
        ledger.order(&session, true).await.expect("it commits");
    }
    sink.wait_for_waiting(3).await;
    production.kill();
    drop(session);
    // A template is in nobody's use.
    let admin = Session::at(&home.url("postgres")).await;
    let others = format!("select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{DATABASE}'");
    admin.run(&others).await;
    admin.run(&format!("create database copy template {DATABASE}")).await;
    admin.run("checkpoint").await;
    sink.open_gate();

    let copy = Session::at(&home.url("copy")).await;
    let expected = outstanding(&copy).await;
    assert_eq!(expected.len(), 3);
    let mut staging = relay(&home.url("copy"), "staging", "staging").spawn().registered().await;
    staging.wait_for_log("outbox.adopt('staging')").await;
    let _heir = relay(&home.url(DATABASE), "heir", "production").spawn().registered().await;
    let session = Session::at(&home.url(DATABASE)).await;
    settled(&session).await;
    assert_sent_once(&sink, "heir", &expected);
    assert!(sent_by(&sink, "staging").is_empty(), "it holds");
    copy.run("select outbox.adopt('staging')").await;
    settled(&copy).await;
    assert_sent_once(&sink, "staging", &expected);
    for (database, agent) in [(&session, "heir"), (&copy, "staging")] {
        let id = ledger.order(database, true).await.expect("it commits");
        settled(database).await;
        assert_eq!(sent_by(&sink, agent).last(), Some(&id), "each sends its own");
        database.assert_accounted().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_in_time_restore_sends_again_only_what_was_outstanding_at_that_point() {
    let archive = "mkdir -p ../archive && cp %p ../archive/%f";
    let home = durable(Options::default().set("archive_mode", "on").set("archive_command", archive));
    let session = install(&home).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let mut restored = copy(&home);
    let production = relay(&home.url(DATABASE), "production", "production").spawn().registered().await;
    let ledger = Ledger::default();
    let order = async |count: usize| {
        for _ in 0..count {
            ledger.order(&session, true).await.expect("it commits");
        }
    };
    order(40).await;
    settled(&session).await;
    // Sent and not answered at the point, answered afterwards; some wait in the log.
    sink.close_gate();
    order(10).await;
    sink.wait_for(50).await;
    session.run("select outbox.hold('before the mistake')").await;
    order(5).await;
    let before = ledger.of(Fate::Acknowledged);
    session.run("select pg_create_restore_point('before_the_mistake')").await;
    session.run("select outbox.release()").await;
    sink.open_gate();
    order(45).await;
    settled(&session).await;
    drop(production);
    let segment: String = session.one("select pg_walfile_name(pg_switch_wal())").await;
    session.wait_until(&format!("select last_archived_wal >= '{segment}' from pg_stat_archiver")).await;

    let fetch = format!("cp {}/../archive/%f %p", home.data_dir().display());
    let options = Options::default()
        .set("archive_mode", "off")
        .set("restore_command", &fetch)
        .set("recovery_target_name", "before_the_mistake")
        .set("recovery_target_action", "promote");
    block_in_place(|| restored.start_as(Role::Restore, &options)).expect("it restores");
    let copy = Session::at(&restored.url(DATABASE)).await;
    copy.wait_until("select not pg_is_in_recovery()").await;
    assert_eq!(copy.one::<i64>("select count(*) from shop.orders").await, 55, "the mistake is undone");
    let expected = outstanding(&copy).await;
    assert_eq!(expected.len(), 15, "ten were under way and five in the log");
    assert!(expected.is_subset(&before));

    // The hold of that moment is restored with the rest; another environment holds besides.
    let mut elsewhere = relay(&restored.url(DATABASE), "restored", "drill").spawn().registered().await;
    elsewhere.wait_for_log("before the mistake").await;
    copy.run("select outbox.release()").await;
    elsewhere.wait_for_log("outbox.adopt('drill')").await;
    assert!(sent_by(&sink, "restored").is_empty());
    let adopted_at = Instant::now();
    copy.run("select outbox.adopt('drill')").await;
    settled(&copy).await;
    let recovered = adopted_at.elapsed();
    assert_sent_once(&sink, "restored", &expected);
    // Life goes on, at positions that the other history had given to others.
    let later = Ledger::default();
    later.next_from(1000);
    for _ in 0..60 {
        later.order(&copy, true).await.expect("it commits");
    }
    settled(&copy).await;
    let all: HashSet<String> = expected.union(&later.of(Fate::Acknowledged)).cloned().collect();
    assert_sent_once(&sink, "restored", &all);
    copy.assert_accounted().await;
    note_scenario(&format!(
        "fault point-in-time: recovered in {} ms, 115 events, 45 undone with their orders, {} sent twice, all outstanding at the point",
        recovered.as_millis(),
        expected.len()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_taken_while_everything_runs_is_rebased_in_a_cluster_of_lower_transaction_ids() {
    let home = durable(Options::default());
    let Some(pg_dump) = client_program("pg_dump") else { return left_out("a restored dump", "there is no pg_dump") };
    let session = install(&home).await;
    // The restore itself takes a transaction for each statement.
    session
        .run("do $$ begin for n in 1..20000 loop perform pg_current_xact_id(); perform set_config('synchronous_commit', 'off', true); commit; end loop; end $$")
        .await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let production = relay(&home.url(DATABASE), "production", "production").spawn().registered().await;
    let writers = Writers::start(2, &home.url(DATABASE));
    // One that is open all along, and drew its position early.
    let open = Session::at(&home.url(DATABASE)).await;
    open.run("begin").await;
    let never_dumped = open.insert("order.created", r#"{"order": -1}"#).await;
    sink.wait_for(100).await;
    sink.close_gate();
    sink.wait_for_waiting(5).await;
    let file = home.data_dir().with_file_name("dump");
    let (file, source) = (file.to_str().expect("UTF-8"), home.url(DATABASE));
    block_in_place(|| run(&pg_dump, &["--format=custom", "--file", file, "--dbname", &source]));
    sink.open_gate();
    open.run("commit").await;
    let ledger = writers.stop().await;
    settled(&session).await;
    drop(production);
    let sent_before = sink.times();

    let fresh = durable(Options::default());
    let admin = Session::at(&fresh.url("postgres")).await;
    admin.run(&format!("create database {DATABASE}")).await;
    restore(&home, &fresh, file);
    let copy = Session::at(&fresh.url(DATABASE)).await;
    let lower: bool = copy
        .one(
            "select pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmin(seen)
             from outbox_relay.cursor order by cursor_id desc limit 1",
        )
        .await;
    assert!(lower, "the cursor speaks of transactions that this cluster has not had yet");
    let expected = outstanding(&copy).await;
    assert!(!expected.is_empty(), "something was under way");

    let mut restored = relay(&fresh.url(DATABASE), "restored", "production").spawn().registered().await;
    restored.wait_for_log("restored into another cluster").await;
    assert!(sent_by(&sink, "restored").is_empty(), "it holds");
    // The application does not wait for the operator.
    let later = Ledger::default();
    later.next_from(1_000_000);
    for _ in 0..5 {
        later.order(&copy, true).await.expect("it commits");
    }
    let adopted_at = Instant::now();
    let said: String = copy.one("select outbox.adopt('production')").await;
    assert!(said.contains("the log was rebased"), "{said}");
    settled(&copy).await;
    let recovered = adopted_at.elapsed();
    for _ in 0..5 {
        later.order(&copy, true).await.expect("it commits");
    }
    settled(&copy).await;
    let all: HashSet<String> = expected.union(&later.of(Fate::Acknowledged)).cloned().collect();
    assert_sent_once(&sink, "restored", &all);
    copy.assert_accounted().await;
    assert!(copy.all::<i64>("select event_seq from outbox.event").await.iter().all(|seq| *seq != never_dumped));
    // Nothing of the dump is missed, by one sender or the other; and nothing that was finished in it came again.
    let ids: Vec<String> = copy.all("select event_id::text from outbox.event").await;
    assert!(ids.iter().all(|id| sink.times().contains_key(id)));
    assert!(ledger.of(Fate::Acknowledged).iter().all(|id| sent_before.contains_key(id)));
    note_scenario(&format!(
        "fault logical-restore: recovered in {} ms, {} events, 0 lost, {} sent twice, all outstanding when it was dumped",
        recovered.as_millis(),
        ids.len(),
        expected.len()
    ));
}

/// Roles first, which belong to the cluster and are in no dump of a database.
fn restore(from: &Throwaway, to: &Throwaway, file: &str) {
    block_in_place(|| {
        let roles = format!("{file}.roles");
        let program = |name| client_program(name).expect("as pg_dump");
        run(&program("pg_dumpall"), &["--roles-only", "--file", &roles, "--dbname", &from.url("postgres")]);
        // The superuser is there already: that one statement fails.
        run(&program("psql"), &["--quiet", "--no-psqlrc", "--file", &roles, &to.url("postgres")]);
        let script = format!("{file}.sql");
        run(&program("pg_restore"), &["--file", &script, file]);
        // A later pg_dump than the server sets what this one does not know.
        let text = std::fs::read_to_string(&script).expect("the script");
        let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("SET transaction_timeout ")).collect();
        std::fs::write(&script, text.join("\n") + "\n").expect("a file");
        let strict = ["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", &script];
        run(&program("psql"), &[&strict[..], &[&to.url(DATABASE)]].concat());
    });
}
