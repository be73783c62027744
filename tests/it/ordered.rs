//! Ordered subscriptions: of one ordering key, one delivery after the other.

use crate::support::{Claim, Daemon, Db, Expand, PATIENCE, Relay, Session, Sink, sent};
use hyper::StatusCode;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A relay without a daemon, and an ordered subscription to everything.
async fn stage() -> (Db, Session, Relay, i64) {
    let db = Db::new().await;
    let app = db.session().await;
    let relay = Relay::new(&db).await;
    let subscription = app.subscribe_with("*", "ordered => true").await;
    (db, app, relay, subscription)
}

async fn insert(session: &Session, key: Option<&str>) -> i64 {
    session
        .one_of(
            "insert into outbox.event (type, payload, ordering_key) values ('a', '{}', $1) returning event_seq",
            &[&key],
        )
        .await
}

impl Relay {
    /// The positions that an expand leases.
    async fn expands(&self) -> Vec<i64> {
        sorted(self.expand_all(&Expand::default()).await.leases)
    }

    /// The positions that a claim leases.
    async fn claims(&self) -> Vec<i64> {
        sorted(self.claim(&Claim::default()).await.leases)
    }

    /// Claims until something is leased.
    async fn claims_sooner_or_later(&self) -> Vec<i64> {
        let began = Instant::now();
        loop {
            let leases = self.claims().await;
            if !leases.is_empty() {
                return leases;
            }
            assert!(began.elapsed() < PATIENCE, "nothing to claim");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn sorted(leases: Vec<(i64, i64)>) -> Vec<i64> {
    let mut positions: Vec<i64> = leases.into_iter().map(|(_, event_seq)| event_seq).collect();
    positions.sort_unstable();
    positions
}

async fn is_parked(session: &Session, event_seq: i64) -> bool {
    session
        .one_of("select next_attempt_at = 'infinity' from outbox_relay.queue where event_seq = $1", &[&event_seq])
        .await
}

#[tokio::test]
async fn of_one_key_only_the_first_is_leased_and_the_others_flow() {
    let (_db, app, relay, subscription) = stage().await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    let [other, free, also_free] = [insert(&app, Some("j")).await, insert(&app, None).await, insert(&app, None).await];
    assert_eq!(relay.expands().await, [first, other, free, also_free]);
    assert!(is_parked(&app, second).await);
    assert!(relay.claims().await.is_empty());
    relay.record(&[sent((subscription, other), 200), sent((subscription, first), 200)]).await;
    assert_eq!(relay.claims().await, [second]);
}

#[tokio::test]
async fn what_comes_later_waits_for_what_is_under_way() {
    let (_db, app, relay, subscription) = stage().await;
    let first = insert(&app, Some("k")).await;
    assert_eq!(relay.expands().await, [first]);
    let [second, third] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    assert!(relay.expands().await.is_empty());
    assert!(relay.claims().await.is_empty());
    assert!(is_parked(&app, second).await && is_parked(&app, third).await);
    let detail: String = app
        .one_of("select x.detail from outbox.event e, outbox.explain(e.event_id) x where e.event_seq = $1", &[&second])
        .await;
    assert!(detail.contains("earlier event of its ordering key"), "{detail}");
    // A failed attempt changes nothing for those behind it.
    relay.record_one(sent((subscription, first), 500)).await;
    app.run("update outbox_relay.queue set next_attempt_at = now() where state = 'failed'").await;
    assert_eq!(relay.claims().await, [first]);
    for (now, next) in [(first, second), (second, third)] {
        relay.record_one(sent((subscription, now), 200)).await;
        assert_eq!(relay.claims().await, [next]);
    }
}

#[tokio::test]
async fn keys_of_two_subscriptions_do_not_meet() {
    let (_db, app, relay, ordered) = stage().await;
    let also = app.subscribe_with("*", "ordered => true, name => 'also'").await;
    let plain = app.subscribe_with("*", "name => 'plain'").await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    let mut leases = relay.expand_all(&Expand::default()).await.leases;
    leases.sort_unstable();
    assert_eq!(leases, [(ordered, first), (also, first), (plain, first), (plain, second)]);
    relay.record_one(sent((also, first), 200)).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(also, second)]);
}

#[tokio::test]
async fn a_dead_letter_stops_its_key_until_somebody_decides() {
    for (decide, next_is) in [("skip", "second"), ("park", "second"), ("replay", "first")] {
        let (_db, app, relay, subscription) = stage().await;
        app.run("update outbox.subscription set retry_policy = 'none'").await;
        let [first, second, other] =
            [insert(&app, Some("k")).await, insert(&app, Some("k")).await, insert(&app, Some("j")).await];
        relay.expands().await;
        relay.record(&[sent((subscription, first), 500), sent((subscription, other), 200)]).await;
        let third = insert(&app, Some("k")).await;
        assert!(relay.expands().await.is_empty());
        assert!(relay.claims().await.is_empty());
        let stopped: Vec<i64> = app.all("select event_seq from outbox.stopped_key where ordering_key = 'k'").await;
        assert_eq!(stopped, [first]);
        let detail: String = app
            .one_of("select x.detail from outbox.event e, outbox.explain(e.event_id) x where event_seq = $1", &[&third])
            .await;
        assert!(detail.contains("was given up"), "{detail}");

        app.run(&format!("select outbox.{decide}({subscription}, {first})")).await;
        assert_eq!(app.one::<i64>("select count(*) from outbox.stopped_key").await, 0);
        let state = app.state(subscription, first).await.expect("it is there");
        assert_eq!(
            state,
            match decide {
                "skip" => "cancelled",
                "park" => "dead_letter",
                _ => "failed",
            }
        );
        let mut expected = vec![first, second, third];
        if next_is == "second" {
            expected.remove(0);
        }
        for event_seq in expected {
            assert_eq!(relay.claims().await, [event_seq], "after {decide}");
            relay.record_one(sent((subscription, event_seq), 200)).await;
        }
        app.assert_accounted().await;
    }
}

#[tokio::test]
async fn with_continue_a_dead_letter_lets_its_key_go_on() {
    let (_db, app, relay, subscription) = stage().await;
    app.run(
        "update outbox.subscription set retry_policy = 'none'; select outbox.set('ordered_on_dead_letter', 'continue')",
    )
    .await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    relay.expands().await;
    relay.record_one(sent((subscription, first), 500)).await;
    assert_eq!(relay.claims().await, [second]);
    assert_eq!(app.one::<i64>("select count(*) from outbox.stopped_key").await, 0);
    app.refused("select outbox.set('ordered_on_dead_letter', 'perhaps')", "OB030").await;
}

#[tokio::test]
async fn an_outstanding_event_is_skipped_parked_or_cancelled_and_the_next_goes() {
    for call in ["skip", "park", "cancel"] {
        let (_db, app, relay, subscription) = stage().await;
        let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
        relay.expands().await;
        relay.record_one(sent((subscription, first), 500)).await;
        app.run(&format!("select outbox.{call}({subscription}, {first})")).await;
        assert_eq!(relay.claims().await, [second], "after {call}");
        assert_eq!(app.one::<i64>("select count(*) from outbox.stopped_key").await, 0, "after {call}");
        app.refused(&format!("select outbox.{call}({subscription}, 999)"), "OB021").await;
        app.refused(&format!("select outbox.{call}({subscription}, {second}, tenant_id => 'b')"), "OB022").await;
    }
}

#[tokio::test]
async fn nothing_is_parked_behind_what_an_open_transaction_removes() {
    let (db, app, relay, subscription) = stage().await;
    let first = insert(&app, Some("k")).await;
    assert_eq!(relay.expands().await, [first]);
    let operator = db.session().await;
    operator.run(&format!("begin; select outbox.cancel({subscription}, {first})")).await;
    // The one who cancels has looked for a successor and found none.
    let second = insert(&app, Some("k")).await;
    assert!(relay.expands().await.is_empty());
    assert!(relay.claims().await.is_empty());
    assert!(!is_parked(&app, second).await);
    operator.run("commit").await;
    assert_eq!(relay.claims_sooner_or_later().await, [second]);
}

#[tokio::test]
async fn nothing_is_parked_for_a_stop_that_an_open_transaction_lifts() {
    let (db, app, relay, subscription) = stage().await;
    app.run("update outbox.subscription set retry_policy = 'none'").await;
    let first = insert(&app, Some("k")).await;
    relay.expands().await;
    relay.record_one(sent((subscription, first), 500)).await;
    let operator = db.session().await;
    operator.run(&format!("begin; select outbox.skip({subscription}, {first})")).await;
    let second = insert(&app, Some("k")).await;
    assert!(relay.expands().await.is_empty());
    assert!(relay.claims().await.is_empty());
    assert!(!is_parked(&app, second).await);
    operator.run("commit").await;
    assert_eq!(relay.claims_sooner_or_later().await, [second]);
}

#[tokio::test]
async fn who_removes_a_delivery_waits_for_who_is_parking_behind_it() {
    let (db, app, relay, subscription) = stage().await;
    let first = insert(&app, Some("k")).await;
    assert_eq!(relay.expands().await, [first]);
    let second = insert(&app, Some("k")).await;
    assert!(relay.expands().await.is_empty());
    relay.session.run("begin").await;
    assert!(relay.claims().await.is_empty());
    let operator = db.session().await;
    let cancelled = operator.start(&format!("select outbox.cancel({subscription}, {first})"));
    app.wait_until_blocked(&operator).await;
    relay.session.run("commit").await;
    cancelled.await.expect("no panic").expect("it was cancelled");
    assert_eq!(relay.claims().await, [second]);
}

#[tokio::test]
async fn two_that_leave_the_queue_at_once_do_not_strand_the_third() {
    let (db, app, relay, subscription) = stage().await;
    let [first, second, third] =
        [insert(&app, Some("k")).await, insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    assert_eq!(relay.expands().await, [first]);
    let (one, other) = (db.session().await, db.session().await);
    one.run(&format!("begin; select outbox.cancel({subscription}, {second})")).await;
    let cancelled = other.start(&format!("select outbox.cancel({subscription}, {first})"));
    app.wait_until_blocked(&other).await;
    one.run("commit").await;
    cancelled.await.expect("no panic").expect("it was cancelled");
    assert_eq!(relay.claims().await, [third]);
}

#[tokio::test]
async fn a_claim_waits_for_no_operator() {
    let (db, app, relay, subscription) = stage().await;
    app.run(
        "select outbox.set('ordered_on_dead_letter', 'continue');
         insert into outbox.retry_policy (name, delays, max_age) values ('fresh', '{1m}', '10 minutes');
         update outbox.subscription set retry_policy = 'fresh'",
    )
    .await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    relay.expand_all(&Expand::queue_only(10)).await;
    app.run(&format!("update outbox_relay.queue set created_at = now() - interval '1 hour' where event_seq = {first}"))
        .await;
    let operator = db.session().await;
    operator.run(&format!("begin; select outbox.replay({subscription}, {second})")).await;
    // It would give the first up and release the second, which the operator holds.
    assert!(relay.claims().await.is_empty());
    assert_eq!(app.state(subscription, first).await.as_deref(), Some("pending"));
    operator.run("commit").await;
    app.run("update outbox_relay.queue set next_attempt_at = now() where isfinite(next_attempt_at)").await;
    assert_eq!(relay.claims_sooner_or_later().await, [second]);
    assert_eq!(app.state(subscription, first).await.as_deref(), Some("dead_letter"));
}

#[tokio::test]
async fn many_that_come_late_wait_too() {
    let (db, app, relay, subscription) = stage().await;
    let writer = db.session().await;
    writer.run("begin").await;
    for _ in 0..6 {
        insert(&writer, Some("k")).await;
    }
    let last = insert(&app, Some("k")).await;
    assert_eq!(relay.expands().await, [last]);
    writer.run("commit").await;
    assert!(relay.expands().await.is_empty());
    assert!(relay.claims().await.is_empty());
    relay.record_one(sent((subscription, last), 200)).await;
    assert_eq!(relay.claims_sooner_or_later().await, [last - 6]);
}

#[tokio::test]
async fn a_stop_can_be_lifted_though_its_event_is_gone() {
    for call in ["skip", "park"] {
        let (_db, app, relay, subscription) = stage().await;
        app.run("update outbox.subscription set retry_policy = 'none'").await;
        let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
        relay.expands().await;
        relay.record_one(sent((subscription, first), 500)).await;
        app.run(&format!("delete from outbox_relay.finished; delete from outbox.event where event_seq = {first}"))
            .await;
        app.run(&format!("select outbox.{call}({subscription}, {first})")).await;
        assert_eq!(relay.claims().await, [second], "{call}");
    }
}

#[tokio::test]
async fn a_dead_relay_hands_the_first_back_and_the_rest_still_waits() {
    let (db, app, relay, subscription) = stage().await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    assert_eq!(relay.expands().await, [first]);
    let heir = Relay::named(&db, "relay-2", "test").await;
    app.kill(&relay.session).await;
    assert_eq!(heir.tick().await.0, 1);
    assert_eq!(heir.claims().await, [first]);
    heir.record_one(sent((subscription, first), 200)).await;
    assert_eq!(heir.claims().await, [second]);
}

#[tokio::test]
async fn a_replay_of_something_earlier_goes_first() {
    let (_db, app, relay, subscription) = stage().await;
    let [first, second, third] =
        [insert(&app, Some("k")).await, insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    relay.expands().await;
    relay.record_one(sent((subscription, first), 200)).await;
    app.run(&format!("select outbox.replay({subscription}, {first})")).await;
    assert_eq!(relay.claims().await, [first]);
    relay.record_one(sent((subscription, first), 200)).await;
    for event_seq in [second, third] {
        assert_eq!(relay.claims().await, [event_seq]);
        relay.record_one(sent((subscription, event_seq), 200)).await;
    }
}

#[tokio::test]
async fn what_comes_late_waits_for_a_later_one_that_is_under_way() {
    let (db, app, relay, subscription) = stage().await;
    // Drawn first, committed last.
    let writer = db.session().await;
    writer.run("begin").await;
    let late = insert(&writer, Some("k")).await;
    let [second, third] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    assert_eq!(relay.expands().await, [second]);
    writer.run("commit").await;
    assert!(relay.expands().await.is_empty());
    assert!(relay.claims().await.is_empty());
    assert!(!is_parked(&app, late).await, "nobody would release it");
    relay.record_one(sent((subscription, second), 200)).await;
    assert_eq!(relay.claims_sooner_or_later().await, [late]);
    assert!(relay.claims().await.is_empty());
    relay.record_one(sent((subscription, late), 200)).await;
    assert_eq!(relay.claims_sooner_or_later().await, [third]);

    // The same with a replay, and with a lease that another relay is just taking.
    app.run(&format!("select outbox.replay({subscription}, {second})")).await;
    assert!(relay.claims().await.is_empty());
    relay.record_one(sent((subscription, third), 500)).await;
    app.run("update outbox_relay.queue set next_attempt_at = now()").await;
    let other = Relay::named(&db, "relay-2", "test").await;
    other.session.run("begin").await;
    assert_eq!(other.claims_sooner_or_later().await, [second]);
    app.run(&format!("select outbox.replay({subscription}, {late})")).await;
    assert!(relay.claims().await.is_empty());
    other.session.run("commit").await;
    assert!(relay.claims().await.is_empty());
    other.record_one(sent((subscription, second), 200)).await;
    assert_eq!(relay.claims_sooner_or_later().await, [late]);
}

#[tokio::test]
async fn one_that_is_to_wait_holds_back_its_key() {
    let (_db, app, relay, subscription) = stage().await;
    app.run("select outbox.publish('a', '{}', ordering_key => 'k', deliver_at => now() + interval '1 hour')").await;
    let second = insert(&app, Some("k")).await;
    assert!(relay.expands().await.is_empty());
    assert!(relay.claims().await.is_empty());
    app.run("update outbox_relay.queue set next_attempt_at = now() where isfinite(next_attempt_at)").await;
    assert_eq!(relay.claims().await, [second - 1]);
    relay.record_one(sent((subscription, second - 1), 200)).await;
    assert_eq!(relay.claims().await, [second]);
}

#[tokio::test]
async fn one_that_is_released_still_waits_for_its_time() {
    let (_db, app, relay, subscription) = stage().await;
    let first = insert(&app, Some("k")).await;
    app.run("select outbox.publish('a', '{}', ordering_key => 'k', deliver_at => now() + interval '1 hour')").await;
    assert_eq!(relay.expands().await, [first]);
    relay.record_one(sent((subscription, first), 200)).await;
    let waits: bool = app
        .one("select q.next_attempt_at = e.deliver_at from outbox_relay.queue q join outbox.event e using (event_seq)")
        .await;
    assert!(waits);
}

#[tokio::test]
async fn a_key_that_is_too_long_for_an_index_keeps_its_order_too() {
    let (_db, app, relay, subscription) = stage().await;
    // Random, so that it cannot be compressed.
    let long: String = (0..8000).map(|_| fastrand::alphanumeric()).collect();
    let [first, second] = [insert(&app, Some(&long)).await, insert(&app, Some(&long)).await];
    let other = insert(&app, Some(&long[1..])).await;
    assert_eq!(relay.expands().await, [first, other]);
    relay.record_one(sent((subscription, first), 200)).await;
    assert_eq!(relay.claims().await, [second]);
}

#[tokio::test]
async fn what_was_expanded_keeps_its_order_when_the_subscription_gives_it_up() {
    let (_db, app, relay, subscription) = stage().await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    relay.expands().await;
    app.run("update outbox.subscription set ordered = false").await;
    let [third, fourth] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    assert_eq!(relay.expands().await, [third, fourth]);
    assert!(relay.claims().await.is_empty());
    relay.record_one(sent((subscription, first), 200)).await;
    assert_eq!(relay.claims().await, [second]);
}

#[tokio::test]
async fn unsubscribing_leaves_no_stop_behind() {
    let (_db, app, relay, subscription) = stage().await;
    app.run("update outbox.subscription set retry_policy = 'none'").await;
    let [first, second] = [insert(&app, Some("k")).await, insert(&app, Some("k")).await];
    relay.expands().await;
    relay.record_one(sent((subscription, first), 500)).await;
    app.run(&format!("select outbox.unsubscribe({subscription})")).await;
    assert_eq!(app.one::<i64>("select count(*) from outbox.stopped_key").await, 0);
    assert_eq!(app.state(subscription, second).await.as_deref(), Some("cancelled"));
}

/// Ten thousand events of a hundred keys; one request in ten fails; relays are killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_of_a_hundred_keys_arrive_without_an_inversion() {
    const KEYS: usize = 100;
    const EACH: usize = 100;
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    session
        .run("insert into outbox.retry_policy (name, delays, jitter) values ('eager', array_fill(interval '10 ms', array[50]), 1)")
        .await;
    // What was accepted, in the order of the answers, and how many requests were not.
    let accepted = Arc::new(Mutex::new((Vec::<String>::new(), 0)));
    let seen = accepted.clone();
    let sink = Sink::new(move |arrived, _| {
        let mut seen = seen.lock().expect("no panic while noting");
        if fastrand::u8(..10) == 0 {
            seen.1 += 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        seen.0.push(arrived.event_id().to_owned());
        StatusCode::OK
    })
    .await;
    session.endpoint(&sink.url("/in"), "ordered => true, retry_policy => 'eager', max_in_flight => 100").await;

    let start = |name: &'static str| Daemon::relay(&db.url(), name).spawn().registered();
    let names = ["a", "b", "c"];
    let mut relays = Vec::new();
    for name in names {
        relays.push(start(name).await);
    }
    // Each key has one writer, as an application that locks what it writes about.
    let mut writers = Vec::new();
    for writer in 0..4 {
        let session = db.session().await;
        writers.push(tokio::spawn(async move {
            for n in 0..EACH {
                for key in (writer..KEYS).step_by(4) {
                    let sql =
                        "insert into outbox.event (type, payload, ordering_key) values ('a', to_jsonb($1::int8), $2)";
                    session.execute(sql, &[&(n as i64), &format!("key-{key}")]).await.expect("inserted");
                }
            }
        }));
    }
    let (began, mut kills) = (Instant::now(), 0);
    let open = "select (select count(*) from outbox_relay.queue) + (select unexpanded_events from outbox.status())";
    loop {
        sleep(Duration::from_millis(fastrand::u64(300..600))).await;
        let written = writers.iter().all(tokio::task::JoinHandle::is_finished);
        if written && session.one::<i64>(open).await == 0 {
            break;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{} are still open", session.one::<i64>(open).await);
        let victim = fastrand::usize(..relays.len());
        relays[victim].kill();
        kills += 1;
        relays[victim] = start(names[victim]).await;
    }
    let positions: HashMap<String, (String, i64)> = session
        .query("select event_id::text, ordering_key, event_seq from outbox.event", &[])
        .await
        .expect("the events")
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect();
    assert_eq!(positions.len(), KEYS * EACH);
    let (accepted, failed) = std::mem::take(&mut *accepted.lock().expect("no panic while noting"));
    let (mut first_time, mut last): (HashSet<&str>, HashMap<&str, i64>) = Default::default();
    let (mut inversions, mut again) = (0, 0);
    for id in &accepted {
        let (key, event_seq) = &positions[id];
        let latest = last.entry(key).or_default();
        if !first_time.insert(id) {
            again += 1; // the relay was killed before it could record that it had arrived
        } else if event_seq > latest {
            *latest = *event_seq;
        } else {
            inversions += 1;
        }
    }
    let distinct = first_time.len();
    println!(
        "{distinct} events of {KEYS} keys, {failed} requests failed, {kills} kills, {again} came again, {inversions} inversions"
    );
    assert_eq!((distinct, inversions), (KEYS * EACH, 0));
    assert!(kills >= 3 && failed > 500);
    let left: i64 = session.one("select count(*) from outbox.delivery where state <> 'succeeded'").await;
    assert_eq!(left, 0);
    session.assert_accounted().await;
}
