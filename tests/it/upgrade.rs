//! Upgrades: from every released schema, and from every state a migration can leave behind, to the schema of this build.
//!
//! `tests/released/<version>` holds what a version left: `schema.sql` and `data.sql`, a database with a history, and
//! `calls.sql`, what its daemon asks for. `unreleased` is the present head, whose schema is `sql/schema.sql`;
//! `make released` writes it, and docs/operations.md says what is done with it at a release.

use crate::support::{Daemon, Db, Expand, Outboxd, PATIENCE, Relay, Session, Sink, at_once, calls, dump, dump_data};
use crate::support::{first_difference, left_out, note_scenario, sent};
use outboxd::schema;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// The entry that is no release yet.
const HEAD: &str = "unreleased";
/// A secret that nobody uses.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Functions are made before what they call.
const AS_DUMPED: &str = "set check_function_bodies = off;";

/// The schema as it is dumped after having been dumped and restored: views are then written a little differently.
async fn restored_dump(url: &str) -> Option<String> {
    let db = Db::empty().await;
    db.session().await.run(&format!("{AS_DUMPED} {}", dump(url)?)).await;
    dump(&db.url())
}

/// A version whose schema is kept.
struct Released {
    version: String,
    directory: PathBuf,
}

impl Released {
    fn named(version: &str) -> Self {
        Self { version: version.to_owned(), directory: repository().join("tests/released").join(version) }
    }

    fn all() -> Vec<Self> {
        let entries = std::fs::read_dir(repository().join("tests/released")).expect("tests/released");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let names: BTreeSet<String> = names.collect();
        assert!(names.contains(HEAD), "make released");
        names.iter().map(|name| Self::named(name)).collect()
    }

    fn read(&self, name: &str) -> String {
        let path = self.directory.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; make released", path.display()))
    }

    /// The head's is the one that is there to be read.
    fn schema(&self) -> String {
        let kept = repository().join("sql/schema.sql");
        if self.version == HEAD {
            std::fs::read_to_string(kept).expect("sql/schema.sql")
        } else {
            self.read("schema.sql")
        }
    }

    /// A database of that version with its history, and whether the server that dumped it had this one's major version;
    /// `None` if this one is older.
    async fn restore(&self) -> Option<(Db, bool)> {
        let db = Db::empty().await;
        let session = db.session().await;
        let (schema, data) = (self.schema(), self.read("data.sql"));
        let major: i32 = session.one("select current_setting('server_version_num')::int4 / 10000").await;
        let dumped_by = schema.split_once("as PostgreSQL ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let dumped_by: i32 = dumped_by.expect("its first line says which PostgreSQL has dumped it");
        if major < dumped_by {
            left_out("an upgrade", &format!("{} was dumped by a later PostgreSQL", self.version));
            return None;
        }
        session.run(&format!("{AS_DUMPED} {schema}")).await;
        // Its triggers have done their work already.
        session.run(&format!("set session_replication_role = replica; {data}")).await;
        Some((db, major == dumped_by))
    }
}

/// As the calls were written down, with what the server makes of them.
async fn record_calls(client: &Client) -> Vec<calls::Recorded> {
    let mut recorded = Vec::new();
    for call in calls::calls_of_source() {
        let (takes, gets) = prepare(client, &call).await.unwrap_or_else(|error| panic!("{}: {error}", call.sql));
        recorded.push(calls::Recorded { call, takes, gets });
    }
    recorded
}

/// What the server says that a call takes and gets.
async fn prepare(client: &Client, call: &calls::Call) -> Result<(Vec<String>, Vec<String>), String> {
    let mut types = Vec::new();
    for name in call.types.iter().flatten() {
        let oid = client.query_one("select $1::text::regtype::oid", &[name]).await.map_err(|e| schema::describe(&e))?;
        types.push(Type::from_oid(oid.get(0)).expect("a type of PostgreSQL's own"));
    }
    let statement = client.prepare_typed(&call.sql, &types).await.map_err(|e| schema::describe(&e))?;
    let takes = statement.params().iter().map(|kind| kind.name().to_owned()).collect();
    let gets = statement.columns().iter().map(|column| format!("{} {}", column.name(), column.type_().name()));
    Ok((takes, gets.collect()))
}

/// Something of everything that can be outstanding, and a history.
async fn make_history(db: &Db) {
    let session = db.session().await;
    session.allow_http().await;
    session
        .run(&format!(
            "select outbox.define_event_type('order.paid', schema => '{{\"type\": \"object\"}}', example => '{{}}');
             select outbox.define_event_type('order.created');
             select outbox.subscribe('http://127.0.0.1:9/all', '{{*}}', name => 'all', secret => '{SECRET}', retry_policy => 'quick');
             select outbox.subscribe('http://127.0.0.1:9/paid', '{{order.paid}}', name => 'paid', secret => '{SECRET}',
                 filter => '$.total > 3', headers => '{{\"x-key\": \"1\"}}', retry_policy => 'none');
             select outbox.subscribe('http://127.0.0.1:9/ordered', '{{order.*}}', name => 'ordered', secret => '{SECRET}', ordered => true);
             select outbox.subscribe('http://127.0.0.1:9/b', '{{*}}', tenant_id => 'b', secret => '{SECRET}');
             select outbox.subscribe('http://127.0.0.1:9/paused', '{{*}}', name => 'paused', secret => '{SECRET}');
             select outbox.create_token('operator', description => 'desk')"
        ))
        .await;
    let publish = |from: i32, to: i32| {
        format!(
            "select outbox.publish(case when n % 2 = 0 then 'order.paid' else 'order.created' end,
                 jsonb_build_object('total', n + 0.10, 'text', repeat('x', n)), ordering_key => 'k' || n % 3,
                 tenant_id => case when n % 5 = 0 then 'b' else 'default' end, idempotency_key => 'i' || n)
             from generate_series({from}, {to}) n"
        )
    };
    session.run(&publish(1, 20)).await;
    let relay = Relay::named(db, "relay-1", "default").await;
    let leases = relay.expand(&Expand { lease_limit: 18, ..Expand::default() }).await.leases;
    let result = |(n, key): (usize, &(i64, i64))| sent(*key, if n % 4 == 3 { 503 } else { 200 });
    let results: Vec<_> = leases.iter().take(14).enumerate().map(result).collect();
    relay.record(&results).await;
    session.run("select outbox.pause(subscription_id) from outbox.subscription where name = 'paused'").await;
    session.run(&publish(21, 25)).await;
}

/// Writes the files of this build, or compares the calls with those that were written.
#[tokio::test]
async fn released_files() {
    let db = Db::new().await;
    let now = calls::write(&record_calls(&db.client().await).await);
    let Some(version) = std::env::var("OUTBOXD_WRITE_RELEASED").ok() else {
        let kept = Released::named(HEAD).read("calls.sql");
        let difference = first_difference(&kept, &now);
        assert_eq!(difference, None, "tests/released/{HEAD}/calls.sql is not what the daemon asks for: make released");
        return;
    };
    make_history(&db).await;
    let released = Released::named(&version);
    std::fs::create_dir_all(&released.directory).expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(released.directory.join(name), text).expect("a file");
    write("calls.sql", &now);
    write(
        "data.sql",
        &format!(
            "-- A database with a history. Written by `make released`.\n\n{}",
            dump_data(&db.url()).expect("pg_dump")
        ),
    );
    if version != HEAD {
        write("schema.sql", &std::fs::read_to_string(repository().join("sql/schema.sql")).expect("sql/schema.sql"));
    }
}

/// A daemon goes on when the schema is upgraded under it: what it asks for is there, takes and gives the same.
#[tokio::test]
async fn what_an_earlier_daemon_asks_for_is_answered_as_before() {
    let db = Db::new().await;
    let client = db.client().await;
    for released in Released::all() {
        let recorded = calls::read(&released.read("calls.sql"));
        assert!(recorded.len() > 30, "{}: {} calls", released.version, recorded.len());
        for calls::Recorded { call, takes, gets } in recorded {
            let which = format!("{} of {}: {}", call.file, released.version, call.sql);
            let (now_takes, mut now_gets) =
                prepare(&client, &call).await.unwrap_or_else(|error| panic!("{which}: {error}"));
            // What is new comes behind.
            now_gets.truncate(gets.len());
            assert_eq!((now_takes, now_gets), (takes, gets), "{which}");
            for called in call.sql.split("outbox_relay.").skip(1).filter_map(|rest| rest.split_once('(')) {
                let may = "select coalesce(bool_or(has_function_privilege('outbox_relay', oid, 'execute')), false) from pg_proc
                           where pronamespace = 'outbox_relay'::regnamespace and proname = $1";
                let may = client.query_one(may, &[&called.0]).await.expect("a privilege");
                assert!(may.get::<_, bool>(0), "outbox_relay may not call {}: {which}", called.0);
            }
        }
    }
}

#[tokio::test]
async fn every_released_schema_becomes_that_of_a_fresh_database() {
    let fresh = restored_dump(&Db::new().await.url()).await;
    for released in Released::all() {
        let Some((db, is_comparable)) = released.restore().await else { continue };
        let session = db.session().await;
        let content = "select jsonb_build_object('events', (select count(*) from outbox.event), 'deliveries', (select jsonb_object_agg(state, n)
                           from (select state, count(*) as n from outbox.delivery group by 1) t), 'attempts', (select count(*) from outbox.attempt),
                           'subscriptions', (select count(*) from outbox.subscription), 'keys', (select count(*) from outbox.signing_key))::text";
        let before: String = session.one(content).await;
        let migrated = Outboxd::on(&db.url(), &["migrate"]).output().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        schema::verify(&db.client().await).await.expect("the right schema");
        // What an earlier PostgreSQL has dumped a later one writes differently.
        if let (true, Some(fresh), Some(upgraded)) = (is_comparable, &fresh, restored_dump(&db.url()).await) {
            assert_eq!(first_difference(fresh, &upgraded), None, "from {}", released.version);
        }
        assert_eq!(session.one::<String>(content).await, before, "from {}", released.version);
        session.run("select outbox.adopt('default')").await;
        session.assert_accounted().await;
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_before_anything_is_written() {
    let db = Db::new().await;
    let session = db.session().await;
    session.run("update outbox_relay.migration set version = 1000 where version = 1").await;
    // What would write is refused by the server, and would say so.
    session.run("do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$").await;
    for command in ["migrate", "run", "check"] {
        let refused = Outboxd::on(&db.url(), &[command]).output().await;
        let said = format!("{}{}", refused.printed, refused.complained);
        assert!(refused.code == Some(1) && said.contains("has version 1000"), "{command}: {refused:?}");
        assert!(!said.contains("read-only"), "{command}: {refused:?}");
    }
}

/// What writers wrote.
#[derive(Default)]
struct Written {
    committed: HashSet<String>,
    rolled_back: HashSet<String>,
    /// The longest that an insert waited.
    slowest: Duration,
}

impl Written {
    fn note(&mut self, ids: Vec<String>, commits: bool, took: Duration) {
        if commits {
            self.committed.extend(ids)
        } else {
            self.rolled_back.extend(ids)
        }
        self.slowest = self.slowest.max(took);
    }
}

/// Transactions, some of which are rolled back and some of which take their time, until told to stop.
async fn write(session: Session, stop: Arc<AtomicBool>, written: Arc<Mutex<Written>>) {
    while !stop.load(Ordering::SeqCst) {
        session.run("begin").await;
        let sql = "insert into outbox.event (type, payload) values ('order.created', '{\"total\": 1.10}') returning event_id::text";
        let began = Instant::now();
        let ids: Vec<String> = [session.one(sql).await, session.one(sql).await].into();
        let took = began.elapsed();
        if fastrand::u8(..6) == 0 {
            sleep(Duration::from_millis(fastrand::u64(..200))).await;
        }
        let commits = fastrand::u8(..4) > 0;
        session.run(if commits { "commit" } else { "rollback" }).await;
        written.lock().expect("no panic while noting").note(ids, commits, took);
        sleep(Duration::from_millis(fastrand::u64(..20))).await;
    }
}

/// Upgrades a database of that version while writers write and its daemons deliver; then both daemons, and then the new
/// one alone. Every event arrives once at each subscription that is to have it: nobody is killed.
async fn upgrade_under_load(released: Released) {
    let Some((db, _)) = released.restore().await else { return };
    let session = db.session().await;
    let sink = Sink::accepting().await;
    session
        .run(&format!(
            "select outbox.adopt('default');
             update outbox.subscription set url = replace(url, 'http://127.0.0.1:9', '{}')",
            sink.url("")
        ))
        .await;
    // Due now: what had failed, what was leased, what was parked behind it.
    session.run("update outbox_relay.queue set next_attempt_at = now() where next_attempt_at is not null").await;
    let delivered = "select s.url || ' ' || e.event_id from outbox.delivery d join outbox.event e using (event_seq) join outbox.subscription s using (subscription_id)
                     where d.state in ('succeeded', 'dead_letter', 'cancelled')";
    let before: HashSet<String> = session.all::<String>(delivered).await.into_iter().collect();

    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Written::default())));
    let mut writers = Vec::new();
    for _ in 0..4 {
        writers.push(tokio::spawn(write(db.session().await, stop.clone(), written.clone())));
    }
    // Its own daemon is kept nowhere. This build's stands for it where the functions are the same; they are applied anew.
    if released.version == HEAD {
        schema::migrate(&mut db.client().await).await.expect("what was applied, as it is now");
    }
    let is_ours = schema::verify(&db.client().await).await.is_ok();
    let mut old = Vec::new();
    if is_ours {
        old.push(Daemon::relay(&db.url(), "old-1").spawn().registered().await);
        old.push(Daemon::relay(&db.url(), "old-2").spawn().registered().await);
        sink.wait_for(60).await;
        session.run("update outbox_relay.applied_file set sha256 = 'another build'").await;
    } else {
        left_out("an old daemon during an upgrade", "of a release only its schema and its calls are kept");
    }
    let began = Instant::now();
    let migrations = [Outboxd::on(&db.url(), &["migrate"]), Outboxd::on(&db.url(), &["migrate"])];
    let (one, other) = tokio::join!(migrations[0].output(), migrations[1].output());
    let took = began.elapsed();
    assert!(one.code == Some(0) && other.code == Some(0), "{one:?} {other:?}");
    let arrived = sink.arrived().len();
    let new = Daemon::relay(&db.url(), "new-1").spawn().registered().await;
    sink.wait_for(arrived + 60).await;
    for mut old in old {
        assert!(!old.log().contains(" WARN ") && !old.log().contains(" ERROR "), "{}", old.log());
        old.terminate();
        assert!(old.ended().await.success());
    }
    let arrived = sink.arrived().len();
    sink.wait_for(arrived + 60).await;
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let began = Instant::now();
    let open = "select (select count(*) from outbox.delivery d join outbox.subscription s using (subscription_id) where s.active and d.state in ('pending', 'leased', 'failed'))
                     + (select unexpanded_events from outbox.status())";
    while session.one::<i64>(open).await > 0 {
        assert!(began.elapsed() < PATIENCE, "something is stuck:\n{}", new.log());
        sleep(Duration::from_millis(10)).await;
    }

    session.assert_accounted().await;
    let written = std::mem::take(&mut *written.lock().expect("no panic while noting"));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for request in sink.arrived() {
        *times.entry(format!("{} {}", sink.url(&request.path), request.event_id())).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    let after: HashSet<String> = session.all::<String>(delivered).await.into_iter().collect();
    let now: HashSet<String> = times.keys().cloned().collect();
    assert_eq!(now, after.difference(&before).cloned().collect(), "what arrived is what was delivered since");
    let all = sink.url("/all");
    let lost: Vec<_> = written.committed.iter().filter(|id| !times.contains_key(&format!("{all} {id}"))).collect();
    assert!(lost.is_empty(), "never arrived: {lost:?}");
    assert!(!written.rolled_back.is_empty());
    assert!(written.rolled_back.iter().all(|id| !times.keys().any(|key| key.ends_with(id.as_str()))));
    println!("{} rolled back, the longest insert took {:?}", written.rolled_back.len(), written.slowest);
    note_scenario(&format!(
        "fault upgrade from {}: recovered in {} ms, {} events, 0 lost, 0 sent twice",
        released.version,
        took.as_millis(),
        written.committed.len()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_upgraded_under_load_with_the_old_and_the_new_daemon_running() {
    for released in Released::all() {
        upgrade_under_load(released).await;
    }
}

/// Where `outboxd migrate` is killed; see `src/crash_point.rs`.
#[cfg(debug_assertions)]
pub(crate) const MIGRATED: [&str; 10] = [
    "migrate:migration",
    "migrate:migration#2",
    "migrate:migration#3",
    "migrate:migration#4",
    "migrate:migration#5",
    "migrate:migration#6",
    "migrate:migration#7",
    "migrate:file",
    "migrate:file#100",
    "migrate:files",
];

/// Has `outboxd migrate` killed there, and then run by two hosts at once.
#[cfg(debug_assertions)]
async fn migrate_and_die(at: &'static str, fresh: Arc<str>) {
    use std::os::unix::process::ExitStatusExt;
    let db = Db::empty().await;
    let mut killed = Outboxd::on(&db.url(), &["migrate"]).set("OUTBOXD_CRASH_AT", at).spawn();
    let status = killed.ended().await;
    assert_eq!(status.signal(), Some(9), "{status}\n{}", killed.log());
    // No daemon runs on half a schema.
    let half = Outboxd::on(&db.url(), &["run"]).output().await;
    assert!(half.code == Some(1) && half.complained.contains("run `outboxd migrate`"), "{half:?}");

    let began = Instant::now();
    let again = [Outboxd::on(&db.url(), &["migrate"]), Outboxd::on(&db.url(), &["migrate"])];
    let (one, other) = tokio::join!(again[0].output(), again[1].output());
    let took = began.elapsed().as_millis();
    assert!(one.code == Some(0) && other.code == Some(0), "{one:?} {other:?}");
    assert_eq!(first_difference(&fresh, &dump(&db.url()).unwrap_or_default()), None);
    schema::verify(&db.client().await).await.expect("the right schema");
    note_scenario(&format!("fault crash-point {at}: recovered in {took} ms, 0 events, 0 lost, 0 sent twice"));
}

/// Among them each version alone, without a function: the migrations by themselves lead to the head.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_killed_anywhere_is_taken_up_where_it_was() {
    let fresh: Arc<str> = dump(&Db::new().await.url()).unwrap_or_default().into();
    let versions = MIGRATED.iter().filter(|at| at.starts_with("migrate:migration")).count();
    assert_eq!(i32::try_from(versions), Ok(schema::known_version()), "each version is one that can be left behind");
    at_once(MIGRATED.map(|at| (at.to_owned(), migrate_and_die(at, fresh.clone())))).await;
}
