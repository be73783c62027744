//! The relay killed, or its database crashed, between any two steps of expand, send and record.
//!
//! A relay is started with `OUTBOXD_CRASH_AT`, which kills it as it comes to a point (`src/crash_point.rs`). Then
//! another one takes over, and it is checked that every committed event has arrived, that nothing else has, that nothing
//! is stuck, that the log of attempts agrees with what the receiver saw, and that exactly those requests were made again
//! that were out and whose results were not committed.

#![cfg(debug_assertions)] // a release build has no points

use crate::support::{Daemon, Db, Outboxd, PATIENCE, Session, Sink, at_once, note_scenario};
use hyper::StatusCode;
use outboxd::crash_point::Point;
use outboxd::throwaway::{Options, Throwaway};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Committed and rolled back in each case, before and after the crash.
const EVENTS: usize = 5;
const SIGKILL: i32 = 9;

/// How a relay comes to the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing has happened: it goes to sleep.
    Idle,
    /// All events are there before it starts, for two endpoints.
    Backlog,
    /// One event is there, so that one attempt at most is under way; the others come later.
    One,
    /// The same, and every first attempt is refused.
    Refused,
    /// All deliveries are born and due; nobody has leased them.
    Queued,
    /// The relay before it was killed with all its requests out.
    Heir,
    /// The receiver does not answer, one more is leased than there are places, and it is told to stop.
    Full,
    /// All is delivered, and it is told to stop.
    Done,
    /// The log is to be cut into segments.
    Segments,
    /// Two secrets are plain, and it has a key.
    Plain,
}

use Way::{Backlog, Done, Full, Heir, Idle, One, Plain, Queued, Refused, Segments};

/// The point with its turn, the way there, and how many requests are made again if the relay is killed there.
const KILLED: [(&str, Way, usize); 36] = [
    ("seal:found", Plain, 0),
    ("seal:found#2", Plain, 0),
    ("seal:committed", Plain, 0),
    ("registered", Backlog, 0),
    ("door:taken", Idle, 0),
    ("expand:committed", Backlog, 0),
    ("expand:committed#2", Idle, 0),
    ("expand:answered", Backlog, 0),
    ("expand:resolved", Backlog, 0),
    ("claim:committed", Queued, 0),
    ("claim:answered", Queued, 0),
    ("claim:resolved", Queued, 0),
    ("lease:taken", Backlog, 0),
    ("lease:taken#7", Backlog, 0),
    ("attempt:begun", One, 0),
    ("attempt:begun#2", Refused, 0),
    // From here on the request is out, and until its result is committed.
    ("attempt:written", One, 1),
    ("attempt:answered", One, 1),
    ("attempt:answered#2", Refused, 1),
    ("result:noted", One, 1),
    ("result:noted#2", Refused, 1),
    ("record:committed", One, 0),
    ("record:committed", Refused, 0),
    ("record:committed#2", Refused, 0),
    ("record:answered", One, 0),
    ("record:settled", Refused, 0),
    ("tick:committed", Backlog, 0),
    // Those that were out when the relay before it was killed.
    ("tick:committed", Heir, EVENTS),
    ("tick:answered#4", Backlog, 0),
    ("health:committed", Backlog, 0),
    ("hand_back:committed", Full, PLACES),
    ("hand_back:answered", Full, PLACES),
    ("maintain:committed", Segments, 0),
    ("stop:told", Full, PLACES),
    ("sample:committed", Done, 0),
    ("drain:done", Done, 0),
];

/// As the table above, where a test of its own needs the last line.
const ENDED: (&str, Way, usize) = ("fence:committed", Done, 0);

/// Places for attempts where a lease is to wait; a quarter more is leased.
const PLACES: usize = EVENTS - 1;

/// What is in the database and at the receiver.
struct World {
    url: String,
    session: Session,
    sink: Sink,
    endpoints: Vec<i64>,
    way: Way,
    committed: Vec<String>,
    rolled_back: Vec<String>,
}

impl World {
    async fn new(url: &str, way: Way) -> Self {
        let session = Session::at(url).await;
        session.allow_http().await;
        session.without_circuits().await;
        let refuses = way == Refused;
        let sink =
            Sink::new(move |_, nth| if refuses && nth == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
                .await;
        let mut endpoints = Vec::new();
        for n in 0..if matches!(way, Backlog | Plain) { 2 } else { 1 } {
            endpoints.push(session.endpoint(&sink.url(&format!("/{n}")), "retry_policy => 'quick'").await.id);
        }
        if way == Segments {
            // Less than outbox.set lets in.
            session.run("update outbox.setting set value = '2' where name = 'segment_events'").await;
        }
        let (committed, rolled_back) = (Vec::new(), Vec::new());
        let mut world = Self { url: url.to_owned(), session, sink, endpoints, way, committed, rolled_back };
        world
            .write(match way {
                Idle => 0,
                One | Refused => 1,
                _ => EVENTS,
            })
            .await;
        if way == Queued {
            let before = Session::at(url).await;
            let epoch: i32 = before.one("select outbox_relay.register('relay-0', 'test', 'default')").await;
            before
                .run(&format!("select outbox_relay.expand({epoch}, 100, 0, 100, '{{}}', '{{}}', false, false)"))
                .await;
            before.run(&format!("select outbox_relay.fence({epoch})")).await;
        }
        world
    }

    /// So many events, each in a transaction of its own, among others that are rolled back.
    async fn write(&mut self, count: usize) {
        let publish = "select outbox.publish('order.created', '{\"total\": 12.50}')::text";
        for _ in 0..count {
            self.committed.push(self.session.one(publish).await);
            self.session.run("begin").await;
            self.rolled_back.push(self.session.one(publish).await);
            self.session.run("rollback").await;
        }
    }

    fn relay(&self, name: &str) -> Outboxd {
        let places = if self.way == Full { PLACES } else { 16 };
        let relay = Daemon::relay(&self.url, name)
            .set("OUTBOXD_RELAY__CONCURRENCY", &places.to_string())
            .set("OUTBOXD_RELAY__POLL_INTERVAL", "500ms")
            .set("OUTBOXD_RELAY__SYNCHRONOUS_COMMIT", "true");
        if self.way == Plain { relay.set("OUTBOXD_SECRETS__KEY", KEY) } else { relay }
    }

    /// Starts what is to die there, and brings it to the point.
    async fn start(&self, at: &str) -> Daemon {
        if self.way == Heir {
            self.sink.close_gate();
            let mut first = self.relay("relay-0").spawn();
            self.sink.wait_for_waiting(EVENTS).await;
            self.sink.open_gate_after(|| first.kill());
        }
        if self.way == Full {
            self.sink.close_gate();
        }
        let daemon = self.relay("relay-1").set("OUTBOXD_CRASH_AT", at).spawn();
        match self.way {
            Full => {
                self.sink.wait_for_waiting(PLACES).await;
                self.session.wait_for_state(self.endpoints[0], "leased", EVENTS as i64).await;
                daemon.terminate();
            }
            Done => {
                self.session.wait_for_state(self.endpoints[0], "succeeded", EVENTS as i64).await;
                daemon.terminate();
            }
            _ => {}
        }
        daemon
    }

    /// Waits until all that was committed has arrived and nothing is open any more.
    async fn settle(&self) {
        let began = Instant::now();
        let open = "select (select count(*) from outbox_relay.queue) + (select unexpanded_events from outbox.status())";
        while self.session.one::<i64>(open).await > 0 || self.sink.times().len() < self.committed.len() {
            assert!(began.elapsed() < PATIENCE, "something is stuck: {:?}", self.sink.times());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Checks that nothing is lost, nothing made up, and so many requests were made again.
    async fn check(&self, again: usize) {
        let arrived: BTreeSet<String> = self.sink.times().into_keys().collect();
        assert_eq!(arrived, self.committed.iter().cloned().collect(), "not what was committed");
        assert!(self.rolled_back.iter().all(|id| !arrived.contains(id)));
        self.session.assert_accounted().await;
        let deliveries = self.session.deliveries().await;
        assert_eq!(deliveries.len(), self.committed.len() * self.endpoints.len());
        let unfinished: i64 = self.session.one("select count(*) from outbox.delivery where state <> 'succeeded'").await;
        assert_eq!(unfinished, 0);

        // What the log of attempts has of each event at each endpoint, beside what the receiver has.
        let rows = self
            .session
            .query(
                "select array_position($1::bigint[], subscription_id)::int4 - 1, event_id::text, count(*)::int4,
                        count(*) filter (where outcome = 'delivered')::int4, max(attempt)
                 from outbox.attempt join outbox.event using (event_seq) group by 1, 2",
                &[&self.endpoints],
            )
            .await
            .expect("the attempts");
        let mut requests: HashMap<(String, String), i32> = HashMap::new();
        for request in self.sink.arrived() {
            *requests.entry((request.path.clone(), request.event_id().to_owned())).or_default() += 1;
        }
        assert_eq!(rows.len(), requests.len());
        let refused = i32::from(self.way == Refused);
        let mut unlogged = 0;
        for row in rows {
            let (endpoint, event_id): (i32, String) = (row.get(0), row.get(1));
            let (logged, delivered, last): (i32, i32, i32) = (row.get(2), row.get(3), row.get(4));
            let made = requests[&(format!("/{endpoint}"), event_id)];
            assert!(delivered == 1 && last == logged, "{delivered} times delivered, {logged} attempts up to {last}");
            // A refusal that was not recorded is answered well the second time.
            assert!(logged == 1 + refused || logged == 1 && made == 2, "{logged} attempts logged, {made} made");
            unlogged += made - logged;
        }
        assert_eq!(usize::try_from(unlogged).expect("no more logged than made"), again, "requests made again");
        if self.way == Plain {
            let plain: i64 =
                self.session.one("select count(*) from outbox_relay.signing_secret where sealed is null").await;
            assert_eq!(plain, 0);
        }
    }
}

/// A sealing key.
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn note(fault: &str, at: &str, took: Duration, world: &World, again: usize) {
    let (ms, events) = (took.as_millis(), world.committed.len());
    note_scenario(&format!("fault {fault} {at}: recovered in {ms} ms, {events} events, 0 lost, {again} sent twice"));
}

/// Kills a relay there, has another one take over, and checks everything.
async fn kill(at: &str, way: Way, again: usize) {
    let db = Db::new().await;
    let mut world = World::new(&db.url(), way).await;
    let (name, nth) = at.split_once('#').unwrap_or((at, "1"));
    if at == "attempt:written" {
        // What is written and not read yet the receiver may never see: this one stands still until it has, and dies then.
        let mut daemon = world.start(&format!("{at},stop")).await;
        daemon.stopped().await;
        world.sink.wait_for(1).await;
        daemon.kill();
    } else {
        let mut daemon = world.start(at).await;
        let status = daemon.ended().await;
        assert_eq!(status.signal(), Some(SIGKILL), "{at}: {status}\n{}", daemon.log());
        daemon.wait_for_log(&format!("crash point {name}#{nth}: killed\n")).await;
    }
    world.sink.open_gate();
    if ["expand:committed", "claim:committed"].contains(&at) {
        // The server ends what it has begun, whoever is gone.
        world.session.wait_until("select exists (select from outbox_relay.queue where state = 'leased')").await;
    }

    world.write(EVENTS + 1 - world.committed.len()).await;
    let began = Instant::now();
    let _heir = world.relay("relay-2").spawn();
    world.settle().await;
    let took = began.elapsed();
    world.check(again).await;
    note("crash-point", at, took, &world, again);
}

async fn each(cases: impl Iterator<Item = (&'static str, Way, usize)>) {
    at_once(cases.map(|(at, way, again)| (format!("{at} on the way {way:?}"), kill(at, way, again)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_before_its_requests_are_out_is_made_up_for_without_one_too_many() {
    each(KILLED[..16].iter().copied()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_with_requests_out_has_those_sent_again_and_no_others() {
    each(KILLED[16..].iter().copied().chain([ENDED])).await;
}

/// Where the relay stands still while PostgreSQL crashes, and then goes on: nothing is sent again, because it remembers.
/// Where one stands twice, the second time something was recorded before.
const CRASHED: [(&str, Way); 29] = [
    ("seal:found", Plain),
    ("seal:committed", Plain),
    ("registered", Backlog),
    ("door:taken", Idle),
    ("expand:committed", Backlog),
    ("expand:answered", Backlog),
    ("expand:resolved", Backlog),
    ("claim:committed", Queued),
    ("claim:answered", Queued),
    ("claim:resolved", Queued),
    ("lease:taken", Backlog),
    ("attempt:begun", Backlog),
    ("attempt:written", Backlog),
    ("attempt:answered", Refused),
    ("result:noted", Backlog),
    ("record:committed", Backlog),
    ("record:committed", Refused),
    ("record:answered", Refused),
    ("record:settled", Refused),
    ("tick:committed#2", Backlog),
    ("tick:answered#4", Backlog),
    ("health:committed", Backlog),
    ("sample:committed", Done),
    ("hand_back:committed", Full),
    ("hand_back:answered", Full),
    ("maintain:committed", Segments),
    ("stop:told", Full),
    ("drain:done", Done),
    ("fence:committed", Done),
];

/// Brings a relay to the point in a database of its own, where it stands still.
async fn bring_to(url: String, at: &'static str, way: Way) -> (World, Daemon) {
    let world = World::new(&url, way).await;
    let mut daemon = world.start(&format!("{at},stop")).await;
    daemon.stopped().await;
    (world, daemon)
}

/// Lets it go on after PostgreSQL's crash, and checks everything.
async fn go_on(mut world: World, mut daemon: Daemon, at: &'static str) {
    let began = Instant::now();
    world.session = Session::at(&world.url).await;
    daemon.go_on();
    world.sink.open_gate();
    world.write(EVENTS + 1 - world.committed.len()).await;
    // One that was told to stop does so, with what it had under way recorded.
    let _heir = if matches!(world.way, Full | Done) {
        assert!(daemon.ended().await.success(), "{}", daemon.log());
        Some(world.relay("relay-2").spawn())
    } else {
        None
    };
    world.settle().await;
    let took = began.elapsed();
    world.check(0).await;
    note("postgres-crash", at, took, &world, 0);
}

/// One crash for all of them, with durable settings on the server's side and on the relay's; but for fsync: the machine
/// goes on, so what was written is there.
async fn crash_at(points: &[(&'static str, Way)]) {
    let options = Options::default().set("fsync", "off");
    let started = tokio::task::spawn_blocking(|| Throwaway::start(options).expect("a server"));
    let mut server = started.await.expect("no panic");
    let admin = Session::at(&server.url("postgres")).await;
    admin.run("create database outbox_template").await;
    let migrated = Outboxd::on(&server.url("outbox_template"), &["migrate"]).output().await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    for nth in 0..points.len() {
        admin.run(&format!("create database c{nth} template outbox_template")).await;
    }
    // Without one a crash takes the sequences of a copied database back to where they were copied.
    admin.run("checkpoint").await;
    let (sender, mut stopped) = tokio::sync::mpsc::unbounded_channel();
    let mut cases = Vec::new();
    for (nth, (at, way)) in points.iter().copied().enumerate() {
        let (sender, url) = (sender.clone(), server.url(&format!("c{nth}")));
        let case = async move {
            let (world, daemon) = bring_to(url, at, way).await;
            sender.send((at, world, daemon)).expect("the test waits");
        };
        cases.push((format!("{at} on the way {way:?}"), case));
    }
    at_once(cases).await;
    drop(sender);
    let restarted = tokio::task::spawn_blocking(move || {
        server.crash_and_restart().expect("it recovers");
        server
    });
    let _server = restarted.await.expect("no panic");
    let mut cases = Vec::new();
    while let Some((at, world, daemon)) = stopped.recv().await {
        cases.push((format!("{at} on the way {:?}", world.way), go_on(world, daemon, at)));
    }
    assert_eq!(cases.len(), points.len());
    at_once(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_crashes_while_a_relay_gets_work_and_nothing_is_sent_twice() {
    crash_at(&CRASHED[..15]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_crashes_while_a_relay_records_and_keeps_house_and_nothing_is_sent_twice() {
    crash_at(&CRASHED[15..]).await;
}

/// The call, on the way to it, that waits in the server for a lock while its relay is killed; the lock; and whether the
/// other relay is there before the lock goes.
const UNDER_WAY: [(&str, Way, &str, bool); 7] = [
    ("expand", Backlog, FENCING, false),
    ("expand", Backlog, FENCING, true),
    ("claim", Queued, FENCING, false),
    ("claim", Queued, FENCING, true),
    ("record", One, "lock table outbox.attempt in exclusive mode", false),
    ("fence", Done, FENCING, false),
    ("fence", Done, FENCING, true),
];

/// Expand and claim hold this lock shared, a fence holds it alone.
const FENCING: &str = "select pg_advisory_xact_lock(1869968482, 4)";

/// Kills a relay whose call waits in the server; the call ends without it.
async fn kill_under_way(call: &'static str, way: Way, lock: &str, heir_first: bool) {
    let db = Db::new().await;
    let mut world = World::new(&db.url(), way).await;
    let holder = db.session().await;
    let start = || world.relay("relay-1").spawn();
    // Another call than the first is waited for with a lock that is taken when the first has been made.
    let started = match way {
        Backlog | Queued => None,
        Done => {
            let daemon = start();
            world.session.wait_for_state(world.endpoints[0], "succeeded", EVENTS as i64).await;
            Some(daemon)
        }
        _ => {
            world.sink.close_gate();
            let daemon = start();
            world.sink.wait_for_waiting(1).await;
            Some(daemon)
        }
    };
    holder.run("begin").await;
    holder.run(lock).await;
    let mut daemon = started.unwrap_or_else(start);
    if way == Done {
        daemon.terminate();
    }
    world.sink.open_gate();
    let waits = format!(
        "select exists (select from pg_stat_activity where datname = current_database() and query ~ 'outbox_relay.{call}\\(' and {} = any (pg_blocking_pids(pid)))",
        holder.pid
    );
    world.session.wait_until(&waits).await;
    daemon.kill();
    let began = Instant::now();
    let mut heir = heir_first.then(|| world.relay("relay-2").spawn());
    if heir_first {
        world.session.wait_until("select exists (select from outbox_relay.relay where name = 'relay-2')").await;
    }
    holder.run("commit").await;
    let ended = format!(
        "select not exists (select from pg_stat_activity where datname = current_database() and state = 'active' and query ~ 'outbox_relay.{call}\\(' and pid <> pg_backend_pid())"
    );
    // What is recorded without its relay is not sent again; if it came to its end in time, see record.sql.
    let again = if call == "record" {
        world.session.wait_until(&ended).await;
        1 - world.session.one::<i64>("select count(*) from outbox.attempt").await
    } else {
        0
    };
    world.write(EVENTS + 1 - world.committed.len()).await;
    heir.get_or_insert_with(|| world.relay("relay-2").spawn());
    world.settle().await;
    let (took, again) = (began.elapsed(), usize::try_from(again).expect("one at most"));
    world.check(again).await;
    let when = if heir_first { "fenced" } else { "committed" };
    note("crash-point", &format!("{call}:under-way-{when}"), took, &world, again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlives_its_relay_is_made_up_for() {
    let case = |(call, way, lock, heir_first)| {
        (format!("{call} on the way {way:?}"), kill_under_way(call, way, lock, heir_first))
    };
    at_once(UNDER_WAY.map(case)).await;
}

/// The sequence is moved without a transaction, so a call that breaks off may have moved it and undone all else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_whose_cut_broke_off_after_the_sequence_had_moved_is_cut_by_the_next() {
    let db = Db::new().await;
    let mut world = World::new(&db.url(), Segments).await;
    let holder = db.session().await;
    holder.run("select outbox_relay.make_segment(1)").await;
    holder.run("begin").await;
    holder.run("select from outbox_relay.segment where segment = 1 for update").await;
    let mut daemon = world.relay("relay-1").spawn();
    daemon.wait_for_log("maintenance failed").await;
    daemon.kill();
    assert_eq!(world.session.one::<i64>("select last_value / 10000000000 from outbox.event_event_seq_seq").await, 1);
    let open = "select segment from outbox_relay.segment where opened_at is not null and closed_at is null";
    assert_eq!(world.session.all::<i64>(open).await, [0]);
    holder.run("rollback").await;

    world.write(1).await;
    let began = Instant::now();
    let _heir = world.relay("relay-2").spawn();
    world.settle().await;
    let took = began.elapsed();
    world.session.wait_until("select closed_at is not null from outbox_relay.segment where segment = 0").await;
    assert_eq!(world.session.all::<i64>(open).await, [1]);
    world.check(0).await;
    note("crash-point", "maintain:sequence-moved", took, &world, 0);
}

#[test]
fn every_point_there_is_is_hit() {
    let name = |at: &'static str| at.split('#').next().unwrap_or(at);
    let there: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
    let migrated: BTreeSet<&str> = crate::upgrade::MIGRATED.map(name).into();
    let killed: BTreeSet<&str> = KILLED.iter().chain([&ENDED]).map(|(at, ..)| name(at)).collect();
    assert_eq!(&killed | &migrated, there);
    // A migration is a program of its own, for which its death and that of the server are the same.
    let crashed: BTreeSet<&str> = CRASHED.iter().map(|(at, _)| name(at)).collect();
    assert_eq!(crashed, &there - &migrated);
}

#[tokio::test]
async fn a_point_that_does_not_exist_is_refused() {
    let output = Outboxd::new(&["run"]).set("OUTBOXD_CRASH_AT", "record:aswered").output().await;
    assert!(output.code == Some(78) && output.complained.contains("record:answered"), "{output:?}");
}
