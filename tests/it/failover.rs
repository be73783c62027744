//! A standby takes over: relays follow by themselves, and what is lost is lost with the application's own rows.

use crate::support::pair::{DATABASE, Fate, Ledger, Pair, Writers, delivering_again, recorded, settled};
use crate::support::{
    Authority, Daemon, Db, Outboxd, PATIENCE, Seat, Session, Sink, expect_error, note_scenario, postgres_processes,
    signal, tls_database,
};
use outboxd::config::{ConnectSettings, TlsMode};
use outboxd::connect::Opened;
use outboxd::throwaway::Throwaway;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::block_in_place;

/// A relay that follows a failover within moments.
fn relay(url: &str, name: &str) -> Outboxd {
    Daemon::relay(url, name).set("OUTBOXD_DATABASE__CONNECT_TIMEOUT", "2s")
}

/// Events by their ids, as the new primary has them.
async fn events(session: &Session) -> HashMap<String, i64> {
    let rows = session.query("select event_id::text, event_seq from outbox.event", &[]).await.expect("the log");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// An order and its event are there both or not at all.
async fn assert_whole(session: &Session) {
    let halves: i64 = session
        .one(
            "select count(*) from shop.orders o full join outbox.event e on (e.payload ->> 'order')::bigint = o.order_id
             where o.order_id is null or e.event_id is null",
        )
        .await;
    assert_eq!(halves, 0, "of some transaction the business row or the event is missing");
}

/// Two relays and four writers, who all follow a failover by themselves.
struct Load {
    relays: [Daemon; 2],
    writers: Writers,
    sink: Sink,
}

impl Load {
    /// Under way: so many have arrived.
    async fn start(pair: &Pair, session: &Session, arrived: usize) -> Self {
        let sink = Sink::accepting().await;
        // So that something is under way when the primary dies.
        sink.dawdle(Duration::from_millis(20));
        session.endpoint(&sink.url("/in"), "").await;
        // By both ways: one list for all, and one for the statements and one for the direct connection.
        let one = relay(&pair.url(), "one").spawn().registered().await;
        let other = relay(&pair.url(), "other").set("OUTBOXD_DATABASE__LISTEN_URL", &pair.url());
        let other = other.set("OUTBOXD_DATABASE__POOL_SIZE", "3").spawn().registered().await;
        let writers = Writers::start(4, &pair.url());
        sink.wait_for(arrived).await;
        Self { relays: [one, other], writers, sink }
    }

    /// Waits until the server has acknowledged so many more than `before`.
    async fn acknowledged(&self, before: usize, more: usize) {
        let began = Instant::now();
        while self.writers.ledger.of(Fate::Acknowledged).len() < before + more {
            assert!(began.elapsed() < PATIENCE, "the writers are stuck");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The primary dies, the standby takes over, and the load goes on until the new primary has delivered all of it.
    /// Judges everything but what may be lost.
    async fn fail_over(self, pair: &mut Pair) -> After {
        let arrived_before = self.sink.times();
        let died_at = pair.fail_over();
        let before = self.writers.ledger.of(Fate::Acknowledged);
        let again_at = delivering_again(&self.sink, &self.writers.ledger, &before).await;
        self.acknowledged(before.len(), 150).await;
        let Self { relays, writers, sink } = self;
        let ledger = writers.stop().await;
        let session = Session::at(&pair.standby.url(DATABASE)).await;
        settled(&session).await;

        let (times, events, recorded) = (sink.times(), events(&session).await, recorded(&session).await);
        assert!(events.keys().all(|id| times.contains_key(id)), "everything that there is has been sent");
        assert!(ledger.of(Fate::RolledBack).iter().all(|id| !times.contains_key(id)));
        assert_whole(&session).await;
        session.assert_accounted().await;
        // What came twice had been sent before, and the crash undid its lease or its record, or it was under way.
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id).collect();
        let late = twice.iter().filter(|id| !arrived_before.contains_key(**id) && !before.contains(**id)).count();
        assert_eq!(late, 0, "of what was written after the failover nothing came twice");
        let unsent: Vec<_> =
            recorded.iter().filter(|(id, sent)| times[*id] < usize::try_from(**sent).expect("a count")).collect();
        assert!(unsent.is_empty(), "the attempt log has more than was received: {unsent:?}");
        for mut daemon in relays {
            assert!(!daemon.log().contains("could not be recorded at all"), "{}", daemon.log());
            daemon.terminate();
            assert!(daemon.ended().await.success(), "it is the same process, and stops well");
        }
        let acknowledged = ledger.of(Fate::Acknowledged);
        After {
            ms: (again_at - died_at).as_millis(),
            lost: acknowledged.iter().filter(|id| !events.contains_key(*id)).cloned().collect(),
            foreign: times.keys().filter(|id| !events.contains_key(*id)).cloned().collect(),
            twice: twice.len(),
            acknowledged,
            unknown: ledger.of(Fate::Unknown),
            before,
            events,
        }
    }
}

/// How a failover under load ended.
struct After {
    /// Until something of the new primary arrived.
    ms: u128,
    /// Acknowledged by either primary.
    acknowledged: HashSet<String>,
    /// Neither acknowledged nor refused.
    unknown: HashSet<String>,
    /// Acknowledged when the standby had just been promoted.
    before: HashSet<String>,
    /// Acknowledged, and the new primary does not have them.
    lost: HashSet<String>,
    /// Sent, and the new primary does not have them.
    foreign: HashSet<String>,
    twice: usize,
    events: HashMap<String, i64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_synchronous_standby_nothing_acknowledged_is_lost() {
    let (mut pair, session) = Pair::new(true).await;
    let load = Load::start(&pair, &session, 150).await;
    let after = load.fail_over(&mut pair).await;
    assert!(after.lost.is_empty(), "acknowledged, and lost: {:?}", after.lost);
    assert!(after.foreign.is_empty(), "sent, though the new primary does not have them: {:?}", after.foreign);
    let (ms, events) = (after.ms, after.acknowledged.len());
    note_scenario(&format!(
        "fault promotion-sync: recovered in {ms} ms, {events} events, 0 lost, {} sent twice, explained",
        after.twice
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_asynchronous_standby_under_load_only_what_it_had_not_received_is_lost() {
    let (mut pair, session) = Pair::new(false).await;
    let load = Load::start(&pair, &session, 150).await;
    // The stream breaks while everybody goes on; what is acknowledged from now on is on one server alone.
    let kept = load.writers.ledger.of(Fate::Acknowledged);
    pair.caught_up(&session).await;
    pair.part(&session).await;
    let (acknowledged, arrived) = (load.writers.ledger.of(Fate::Acknowledged), load.sink.arrived().len());
    load.acknowledged(acknowledged.len(), 150).await;
    load.sink.wait_for(arrived + 100).await;
    let old: HashMap<i64, String> = events(&session).await.into_iter().map(|(id, seq)| (seq, id)).collect();

    let after = load.fail_over(&mut pair).await;
    assert!(after.lost.len() >= 100, "what is tried here: {} lost", after.lost.len());
    assert!(after.lost.is_disjoint(&kept), "what the standby had is not lost");
    assert!(after.lost.is_subset(&after.before), "what the new primary acknowledged is not lost");
    let strange: Vec<_> =
        after.foreign.iter().filter(|id| !after.lost.contains(*id) && !after.unknown.contains(*id)).collect();
    assert!(strange.is_empty(), "sent, and never committed anywhere: {strange:?}");
    let reused = after.events.iter().filter(|(id, seq)| old.get(*seq).is_some_and(|before| before != *id)).count();
    assert!(reused > 0, "positions of lost events are given out again");
    note_scenario(&format!(
        "fault promotion-async-load: recovered in {} ms, {} events, {} lost with their orders, {} of them after they were sent, {} sent twice, explained, {reused} positions reused",
        after.ms,
        after.acknowledged.len(),
        after.lost.len(),
        after.foreign.len(),
        after.twice
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_asynchronous_standby_what_is_lost_is_lost_whole_and_never_mixed_up() {
    let (mut pair, session) = Pair::new(false).await;
    let (quick, slow) = (Sink::accepting().await, Sink::accepting().await);
    let (quick_one, slow_one) =
        (session.endpoint(&quick.url("/quick"), "").await, session.endpoint(&slow.url("/slow"), "").await);
    let daemon = relay(&pair.url(), "one").spawn().registered().await;
    let ledger = Ledger::default();
    for _ in 0..40 {
        ledger.order(&session, true).await.expect("it commits");
    }
    settled(&session).await;
    pair.caught_up(&session).await;
    pair.part(&session).await;

    // Acknowledged and sent, and never on the standby: more than the positions that a sequence logs ahead.
    slow.close_gate();
    let kept = ledger.of(Fate::Acknowledged);
    for _ in 0..60 {
        ledger.order(&session, true).await.expect("it commits");
    }
    quick.wait_for(100).await;
    slow.wait_for(100).await;
    let lost: HashSet<String> = ledger.of(Fate::Acknowledged).difference(&kept).cloned().collect();
    let old: HashMap<i64, String> = events(&session).await.into_iter().map(|(id, seq)| (seq, id)).collect();

    let died_at = pair.fail_over();
    let session = Session::at(&pair.standby.url(DATABASE)).await;
    for _ in 0..80 {
        ledger.order(&session, true).await.expect("it commits");
    }
    let mut before = kept.clone();
    before.extend(lost.iter().cloned());
    let again_at = delivering_again(&quick, &ledger, &before).await;
    session.wait_for_state(quick_one.id, "succeeded", 120).await;
    // Now the slow ones of both histories end, and their results come to the new primary at the same positions.
    slow.open_gate();
    settled(&session).await;

    let events = events(&session).await;
    assert!(lost.iter().all(|id| !events.contains_key(id)), "what never reached the standby is gone");
    assert_whole(&session).await;
    let reused = events.iter().filter(|(id, seq)| old.get(*seq).is_some_and(|before| before != *id)).count();
    assert!(reused > 0, "the positions of lost events are given out again: that is what is tried here");
    session.assert_accounted().await;
    for (sink, endpoint) in [(&quick, &quick_one), (&slow, &slow_one)] {
        let times = sink.times();
        assert!(events.keys().all(|id| times.contains_key(id)), "everything that there is has been sent");
        assert!(lost.iter().all(|id| times.get(id) == Some(&1)), "what was lost had been sent, and is not sent again");
        let fresh: Vec<_> = events.keys().filter(|id| !kept.contains(*id)).collect();
        assert!(fresh.iter().all(|id| times[*id] == 1), "what was written after the failover is sent once");
        // The log knows nothing of requests for events that are gone, least of all under the names of others.
        let odd: i64 = session
            .one(&format!(
                "select count(*) from outbox.event e
                 left join outbox.attempt a on a.event_seq = e.event_seq and a.subscription_id = {0}
                 left join outbox.delivery d on d.event_seq = e.event_seq and d.subscription_id = {0}
                 where a.attempt is distinct from 1 or d.attempts is distinct from 1 or d.state is distinct from 'succeeded'",
                endpoint.id
            ))
            .await;
        assert_eq!(odd, 0, "one attempt for each event");
    }
    let twice = quick.times().values().filter(|times| **times > 1).count();
    note_scenario(&format!(
        "fault promotion-async: recovered in {} ms, {} events, {} lost with their orders after they were sent, {twice} sent twice, {reused} positions reused",
        (again_at - died_at).as_millis(),
        ledger.of(Fate::Acknowledged).len(),
        lost.len(),
    ));
    drop(daemon);
}

/// All processes of a server stand still until this is dropped: its host takes what is sent, and says nothing.
struct Frozen(Vec<String>);

impl Frozen {
    fn new(server: &Throwaway) -> Self {
        let postmaster = postgres_processes(&server.data_dir())[..1].to_vec();
        let mut frozen = Self(postmaster);
        assert!(signal("-STOP", &frozen.0), "{:?}", frozen.0);
        // It begets no more; of these some may be ending.
        frozen.0 = postgres_processes(&server.data_dir());
        signal("-STOP", &frozen.0);
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_freezes_is_left_for_the_standby_that_is_promoted() {
    let (mut pair, session) = Pair::new(true).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let daemon = relay(&pair.url(), "one").set("OUTBOXD_DATABASE__STATEMENT_TIMEOUT", "1s");
    let mut daemon = daemon.spawn().registered().await;
    let ledger = Ledger::default();
    sink.close_gate();
    for _ in 0..3 {
        ledger.order(&session, true).await.expect("it commits");
    }
    sink.wait_for_waiting(3).await;

    let frozen_at = Instant::now();
    let frozen = Frozen::new(&pair.primary);
    block_in_place(|| pair.standby.promote()).expect("it is promoted");
    let session = Session::at(&pair.standby.url(DATABASE)).await;
    session.run("alter system reset synchronous_standby_names").await;
    session.run("select pg_reload_conf()").await;
    let before = ledger.of(Fate::Acknowledged);
    ledger.order(&session, true).await.expect("it commits");
    // Answered, and their results are for a server that takes them and does not say so.
    sink.open_gate();
    let again_at = delivering_again(&sink, &ledger, &before).await;
    settled(&session).await;
    let times = sink.times();
    let acknowledged = ledger.of(Fate::Acknowledged);
    assert!(acknowledged.iter().all(|id| times.contains_key(id)), "{times:?}");
    assert!(acknowledged.difference(&before).all(|id| times[id] == 1), "{times:?}");
    session.assert_accounted().await;
    let twice = times.values().filter(|times| **times > 1).count();
    daemon.terminate();
    assert!(daemon.ended().await.success(), "it is the same process, and stops well");
    drop(frozen);
    note_scenario(&format!(
        "fault primary-frozen: recovered in {} ms, {} events, 0 lost, {twice} sent twice, from when it froze",
        (again_at - frozen_at).as_millis(),
        acknowledged.len()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_comes_back_is_left_alone() {
    let (mut pair, session) = Pair::new(false).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let ledger = Ledger::default();
    let mut daemon = relay(&pair.url(), "one").spawn().registered().await;
    ledger.order(&session, true).await.expect("it commits");
    settled(&session).await;
    pair.caught_up(&session).await;
    pair.fail_over();
    let session = Session::at(&pair.standby.url(DATABASE)).await;
    ledger.order(&session, true).await.expect("it commits");
    sink.wait_for(2).await;
    settled(&session).await;

    // Nobody fenced it: it starts as the primary it was, first in the list, and somebody writes to it.
    block_in_place(|| pair.primary.come_back()).expect("it starts");
    let old = Session::at(&pair.primary.url(DATABASE)).await;
    let stray = Ledger::default();
    stray.next_from(1000);
    let stray = stray.order(&old, true).await.expect("it commits");
    let relays: i64 = old.one("select count(*) from outbox_relay.relay").await;
    block_in_place(|| pair.standby.crash()).expect("it was up");
    daemon.wait_for_log("an old primary that came back").await;
    block_in_place(|| pair.standby.come_back()).expect("it starts");
    let session = Session::at(&pair.standby.url(DATABASE)).await;
    ledger.order(&session, true).await.expect("it commits");
    session.wait_for_state(1, "succeeded", 3).await;
    assert!(!sink.times().contains_key(&stray), "an event of the old primary alone was sent");
    assert_eq!(old.one::<i64>("select count(*) from outbox_relay.relay").await, relays, "no relay registered there");
    session.assert_accounted().await;
}

/// An epoch of the old primary may be taken up for its results, and leases nothing; those of the new one leave a gap for
/// what the old one may have given out unseen.
async fn assert_epochs_end_with_their_timeline(session: &Session, old: i32, url: &str) {
    let newest: i32 = session.one("select max(epoch) from outbox_relay.relay").await;
    assert!(newest >= old + 1000, "{newest} after {old}");
    let revenant = Session::at(url).await;
    // Who comes with an epoch that was fenced meanwhile is refused in any case: here it is not.
    session.run(&format!("update outbox_relay.relay set fenced_at = null where epoch = {old}")).await;
    let resumed: bool = revenant.one(&format!("select outbox_relay.resume_epoch({old})")).await;
    if resumed {
        let fenced = format!("select fenced from outbox_relay.tick({old})");
        assert!(revenant.one::<bool>(&fenced).await, "it is told to begin anew");
        for call in [
            format!("select count(*) from outbox_relay.expand({old}, 10, 10, 10, '{{}}', '{{}}', false, true)"),
            format!("select count(*) from outbox_relay.claim({old}, 10, 10, '{{}}', '{{}}', true)"),
        ] {
            assert_eq!(revenant.one::<i64>(&call).await, 0, "{call}");
        }
    }
    assert!(resumed, "nobody else has that epoch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_standby_a_relay_says_so_and_works_once_it_is_promoted() {
    let (mut pair, session) = Pair::new(false).await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "").await;
    let waiting = session.insert("order.created", "{}").await;
    let ghost: i32 = session.one("select outbox_relay.register('ghost', 'test', 'default')").await;
    pair.caught_up(&session).await;
    let url = pair.standby.url(DATABASE);
    let mut daemon = Daemon::relay(&url, "one").set("OUTBOXD_ADMIN__LISTEN", "127.0.0.1:0").spawn();
    daemon.wait_for_log("the server is read-only").await;
    daemon.wait_for_log("target_session_attrs=read-write").await;
    let seat = Seat::of(daemon).await;
    let answered = seat.send("GET", "/readyz", &[], "").await;
    assert!(answered.status == 503 && answered.text.contains("not registered"), "{answered:?}");
    assert_eq!(seat.send("GET", "/healthz", &[], "").await.status, 200, "it lives all the same");
    let standby = Session::at(&url).await;
    assert_eq!(standby.one::<i64>("select unexpanded_events from outbox.status()").await, 1, "it may be looked at");

    let died_at = pair.fail_over();
    sink.wait_for(1).await;
    let recovered = died_at.elapsed();
    assert_epochs_end_with_their_timeline(&standby, ghost, &url).await;
    standby.wait_until(&format!("select state = 'succeeded' from outbox.delivery where event_seq = {waiting}")).await;
    let began = Instant::now();
    while seat.send("GET", "/readyz", &[], "").await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "not ready:\n{}", seat.daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    note_scenario(&format!(
        "fault standby-promoted: recovered in {} ms, 1 events, 0 lost, 0 sent twice",
        recovered.as_millis()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_accepts_and_says_nothing_costs_its_time_limit_and_no_more() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    let url = db.url().replacen("@", &format!("@{},", silent.local_addr().expect("an address")), 1);
    let set = |outboxd: Outboxd| outboxd.set("OUTBOXD_DATABASE__CONNECT_TIMEOUT", "300ms");
    let _relay = set(Daemon::relay(&url, "one")).spawn().registered().await;
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;

    // What is to be stopped is stopped where it runs.
    let settings = ConnectSettings::new(format!("{url}?connect_timeout=1").parse().expect("a URL"), TlsMode::Disable);
    let Opened { client, driver, canceller } = outboxd::connect::open(&settings).await.expect("a connection");
    tokio::spawn(driver);
    let sleep = tokio::spawn(async move { client.batch_execute("select pg_sleep(60)").await });
    session.wait_until("select exists (select from pg_stat_activity where query = 'select pg_sleep(60)')").await;
    canceller.cancel().await.expect("the request is sent");
    expect_error(sleep.await.expect("no panic"), "57014");

    // Alone it is an error that says what happened.
    let alone = format!("postgres://postgres@{}/shop", silent.local_addr().expect("an address"));
    let said = set(Outboxd::on(&alone, &["status"])).output().await;
    assert_eq!(said.code, Some(1));
    assert!(said.complained.contains("no answer within 300 ms"), "{said:?}");
}

#[tokio::test]
async fn each_hosts_certificate_is_checked_against_its_own_name() {
    let db = Db::new().await;
    let url = db.url();
    let (server, name) = url.rsplit_once('/').expect("a database");
    let (_, server) = server.split_once('@').expect("a user");
    let ca = Authority::new();
    let mut ports = Vec::new();
    for certified in ["localhost", "db2.example.com"] {
        ports.push(tls_database(server, &ca.identity(certified, |_| {})).await);
    }
    let ca_file = std::env::temp_dir().join(format!("outboxd-ca-{:08x}.pem", fastrand::u64(..)));
    std::fs::write(&ca_file, ca.pem()).expect("the authority's file");
    let at = |hosts: &str, ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        format!(
            "host={hosts} hostaddr={} port={} user=postgres dbname={name} sslmode=verify-full sslrootcert={}",
            vec!["127.0.0.1"; ports.len()].join(","),
            ports.join(","),
            ca_file.display()
        )
    };
    // The first has another's name; the second, whose turn it is then, its own.
    let right = Outboxd::on(&at("db1.example.com,db2.example.com", &ports), &["status"]).output().await;
    let wrong = Outboxd::on(&at("db2.example.com,localhost", &ports), &["status"]).output().await;
    std::fs::remove_file(&ca_file).expect("it was there");
    assert_eq!(right.code, Some(0), "{right:?}");
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.complained.contains("db2.example.com:") && wrong.complained.contains("; localhost:"), "{wrong:?}");
}
