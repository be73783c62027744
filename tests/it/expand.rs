//! Expanding: every committed event becomes one delivery for each subscription that wants it, exactly
//! once, in whatever order transactions end.

use crate::support::{Db, Expand, Expanded, Relay, Session};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Expands all there is; the positions of the deliveries that came of it.
async fn expanded_now(relay: &Relay) -> Vec<i64> {
    let leases = relay.expand_all(&Expand::default()).await.leases;
    leases.into_iter().map(|(_, event_seq)| event_seq).collect()
}

#[tokio::test]
async fn what_commits_late_is_expanded_late_and_once() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    a.run("begin").await;
    let first = a.insert("a", "{}").await;
    let second = b.insert("b", "{}").await;
    assert!(first < second);
    assert_eq!(expanded_now(&relay).await, [second]);
    a.run("commit").await;
    assert_eq!(expanded_now(&relay).await, [first]);
    assert!(expanded_now(&relay).await.is_empty());
    b.assert_accounted().await;
}

#[tokio::test]
async fn a_transaction_that_stays_open_stalls_nobody_else() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    a.run("begin").await;
    let mut held = vec![a.insert("a", "{}").await];
    for _ in 0..30 {
        let other = b.insert("b", "{}").await;
        assert_eq!(expanded_now(&relay).await, [other]);
        held.push(a.insert("a", "{}").await);
    }
    let cursors: i64 = b.one("select count(*) from outbox_relay.cursor").await;
    assert!(cursors <= 17, "the cursor's history is pruned: {cursors}");
    a.run("commit").await;
    assert_eq!(expanded_now(&relay).await, held);
    b.assert_accounted().await;
}

/// The upper end of a snapshot is the highest id that has *completed*: transactions under way beyond it
/// are not on its list, though they may have drawn their positions long ago.
#[tokio::test]
async fn a_transaction_younger_than_all_that_completed_is_not_passed_over() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    let mut passed_over = 0;
    for _ in 0..5 {
        b.run("begin").await;
        let older = b.insert("b", "{}").await;
        a.run("begin").await;
        let younger = a.insert("a", "{}").await;
        b.run("commit").await;
        assert_eq!(expanded_now(&relay).await, [older]);
        a.run("commit").await;
        passed_over += usize::from(expanded_now(&relay).await != [younger]);
    }
    assert_eq!(passed_over, 0);
}

#[tokio::test]
async fn what_rolls_back_is_never_expanded() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    a.run("begin").await;
    a.insert("a", "{}").await;
    let other = b.insert("b", "{}").await;
    assert_eq!(expanded_now(&relay).await, [other]);
    a.run("rollback").await;
    let next = b.insert("b", "{}").await;
    assert_eq!(expanded_now(&relay).await, [next]);
    b.assert_accounted().await;
}

#[tokio::test]
async fn what_is_rolled_back_to_a_savepoint_is_never_expanded() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    a.run("begin").await;
    let first = a.insert("a", "1").await;
    a.run("savepoint s").await;
    a.insert("a", "2").await;
    b.insert("b", "{}").await;
    expanded_now(&relay).await;
    a.run("rollback to s").await;
    let third = a.insert("a", "3").await;
    a.run("savepoint t").await;
    let fourth = a.insert("a", "4").await;
    a.run("release t; commit").await;
    assert_eq!(expanded_now(&relay).await, [first, third, fourth]);
    b.assert_accounted().await;
}

#[tokio::test]
async fn a_prepared_transaction_is_expanded_when_it_commits() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    let mut prepared = Vec::new();
    for name in ["kept", "dropped"] {
        a.run("begin").await;
        prepared.push(a.insert("a", "{}").await);
        a.run(&format!("prepare transaction '{name}-{}'", a.pid)).await;
    }
    let other = b.insert("b", "{}").await;
    assert_eq!(expanded_now(&relay).await, [other]);
    b.run(&format!("commit prepared 'kept-{}'", a.pid)).await;
    assert_eq!(expanded_now(&relay).await, prepared[..1]);
    b.run(&format!("rollback prepared 'dropped-{}'", a.pid)).await;
    assert!(expanded_now(&relay).await.is_empty());
    b.assert_accounted().await;
}

#[tokio::test]
async fn batches_of_any_size_lose_and_double_nothing_when_transactions_overlap() {
    let db = Db::new().await;
    let (a, b, c, relay) = (db.session().await, db.session().await, db.session().await, Relay::new(&db).await);
    let subscription = b.subscribe("*").await;
    for event_limit in 1..=12 {
        let batch = Expand { event_limit, ..Expand::default() };
        a.run("begin").await;
        a.insert_many("a", 3).await;
        b.insert_many("b", 5).await;
        relay.expand(&batch).await;
        a.insert_many("a", 4).await;
        c.run("begin").await;
        c.insert_many("c", 3).await;
        a.run("commit").await;
        b.insert_many("b", 4).await;
        relay.expand(&batch).await;
        c.run("commit").await; // while a target is being walked
        relay.expand(&batch).await;
        b.insert_many("b", 2).await;
        relay.expand_all(&batch).await;
        relay.expand_all(&batch).await;
        let events: Vec<i64> = b.all("select event_seq from outbox.event").await;
        let wanted: HashSet<_> = events.iter().map(|event_seq| (subscription, *event_seq)).collect();
        assert_eq!(b.deliveries().await, wanted, "in batches of {event_limit}");
    }
    b.assert_accounted().await;
}

#[tokio::test]
async fn causal_order_is_kept() {
    let db = Db::new().await;
    let (a, b, relay) = (db.session().await, db.session().await, Relay::new(&db).await);
    b.subscribe("*").await;
    a.run("begin").await;
    a.insert("a", "{}").await;
    let cause = b.insert("b", "{}").await;
    a.run("commit").await;
    let effect = b.insert("b", "{}").await;
    let order = expanded_now(&relay).await;
    assert!(order.iter().position(|s| *s == cause) < order.iter().position(|s| *s == effect), "{order:?}");
    assert!(order.is_sorted());
}

#[tokio::test]
async fn an_expand_that_does_not_commit_never_was() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let other = relay.pooled(&db).await;
    app.subscribe("*").await;
    app.insert_many("a", 5).await;
    relay.session.run("begin").await;
    assert_eq!(relay.expand(&Expand::default()).await.leases.len(), 5);

    // A second one waits, because the first may still fail.
    let second = other.session.start(&format!(
        "select expanded from outbox_relay.expand({}, 10, 0, 10, '{{}}', '{{}}', false, true) where event_seq is null",
        other.epoch
    ));
    app.wait_until_blocked(&other.session).await;
    relay.session.run("rollback").await;
    assert_eq!(second.await.expect("no panic").expect("expanded").get::<_, i32>(0), 5);
    assert_eq!(app.one::<i64>("select count(*) from outbox_relay.queue").await, 5);
    app.assert_accounted().await;
}

#[tokio::test]
async fn who_finishes_what_another_began_is_told_to_look_again() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.insert_many("a", 3).await;
    assert!(relay.expand(&Expand { event_limit: 2, ..Expand::default() }).await.more);
    app.insert("b", "{}").await; // after the target was taken
    let finished = relay.expand(&Expand::default()).await;
    assert_eq!((finished.expanded, finished.more), (1, true), "b is not in it");
    let fresh = relay.expand(&Expand::default()).await;
    assert_eq!((fresh.expanded, fresh.more), (1, false));
}

/// Eight writers commit, roll back, use savepoints and stay open; eight relays' sessions expand with
/// small limits all the while.
#[tokio::test]
async fn concurrent_expanders_and_writers_lose_and_double_nothing() {
    const WRITERS: u64 = 8;
    const TRANSACTIONS: u64 = 30;
    let db = Db::new().await;
    let observer = db.session().await;
    let all = observer.subscribe("*").await;
    let some = observer.subscribe("kept.odd").await;

    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let app = db.session().await;
        writers.push(tokio::spawn(async move { write_at_random(&app, writer, TRANSACTIONS).await }));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut expanders = Vec::new();
    for nth in 0..4 {
        let relay = Relay::named(&db, &format!("relay-{nth}"), "test").await;
        for relay in [relay.pooled(&db).await, relay] {
            let is_over = Arc::clone(&is_over);
            expanders.push(tokio::spawn(async move {
                let call = Expand { event_limit: 3 + nth, lease_limit: 2 + nth, ..Expand::default() };
                let mut leases = Vec::new();
                loop {
                    let is_last = is_over.load(Ordering::SeqCst);
                    let batch = relay.expand(&call).await;
                    leases.extend(batch.leases);
                    if is_last && !batch.more {
                        return leases;
                    }
                }
            }));
        }
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    is_over.store(true, Ordering::SeqCst);
    let mut leases = Vec::new();
    for expander in expanders {
        leases.extend(expander.await.expect("an expander"));
    }

    let events: Vec<i64> = observer.all("select event_seq from outbox.event").await;
    let odd: Vec<i64> = observer.all("select event_seq from outbox.event where type = 'kept.odd'").await;
    let mut wanted: HashSet<_> = events.iter().map(|event_seq| (all, *event_seq)).collect();
    wanted.extend(odd.iter().map(|event_seq| (some, *event_seq)));
    let found = observer.deliveries().await;
    let (lost, extra): (Vec<_>, Vec<_>) = (wanted.difference(&found).collect(), found.difference(&wanted).collect());
    assert!(lost.is_empty() && extra.is_empty(), "lost {lost:?}, extra {extra:?}");
    assert_eq!(observer.one::<i64>("select count(*) from outbox.event where type like 'lost.%'").await, 0);
    let distinct: HashSet<_> = leases.iter().copied().collect();
    assert_eq!(distinct.len(), leases.len(), "a lease was returned twice");
    assert_eq!(
        observer.one::<i64>("select count(*) from outbox_relay.queue where state = 'leased'").await as usize,
        leases.len()
    );
    observer.assert_accounted().await;
}

async fn write_at_random(app: &Session, seed: u64, transactions: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut roll = move |sides: u64| {
        // xorshift: the same choices in every run
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % sides
    };
    for _ in 0..transactions {
        let is_kept = roll(4) > 0;
        let event_type = match (is_kept, roll(2)) {
            (false, _) => "lost.a",
            (true, 0) => "kept.even",
            (true, _) => "kept.odd",
        };
        app.run("begin").await;
        for _ in 0..=roll(3) {
            app.insert_many(event_type, 1 + roll(3) as i64).await;
            if roll(3) == 0 {
                app.run("savepoint s").await;
                app.insert("lost.b", "{}").await;
                app.run("rollback to s").await;
            }
        }
        app.run(if is_kept { "commit" } else { "rollback" }).await;
    }
}

#[tokio::test]
async fn patterns_match_as_documented() {
    const TABLE: [(&str, &str, bool); 16] = [
        ("*", "order.created", true),
        ("*", "a", true),
        ("order.created", "order.created", true),
        ("order.created", "order.create", false),
        ("order.created", "order.created.v2", false),
        ("order.created", "Order.created", false),
        ("order.*", "order.created", true),
        ("order.*", "order.line.created", true),
        ("order.*", "order", false),
        ("order.*", "orders.created", false),
        ("order.*", "border.created", false),
        ("order.line.*", "order.line.created", true),
        ("order.line.*", "order.created", false),
        ("o_der.*", "order.created", false),
        ("a-b.c_d.*", "a-b.c_d.e", true),
        ("order.created,order.*,*", "order.created", true), // once, not three times
    ];
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let mut wanted = HashSet::new();
    for (nth, (patterns, event_type, is_match)) in TABLE.iter().enumerate() {
        let tenant = format!("tenant_id => 't{nth}'");
        let subscription = app.subscribe_with(patterns, &tenant).await;
        let event_seq: i64 = app
            .one(&format!("insert into outbox.event (tenant_id, type, payload) values ('t{nth}', '{event_type}', '{{}}') returning event_seq"))
            .await;
        if *is_match {
            wanted.insert((subscription, event_seq));
        }
    }
    relay.expand_all(&Expand { event_limit: 5, ..Expand::default() }).await;
    assert_eq!(app.deliveries().await, wanted);
    app.assert_accounted().await;
}

#[tokio::test]
async fn filters_match_as_documented() {
    const TABLE: [(&str, &str, bool); 17] = [
        ("$.total > 100", r#"{"total": 101}"#, true),
        ("$.total > 100", r#"{"total": 100}"#, false),
        ("$.total > 100", r#"{"total": "many"}"#, false), // a type mismatch is no match and no error
        ("$.total > 100", "{}", false),
        ("$.total > 100", "[]", false),
        ("strict $.total > 100", "{}", false),
        ("$.items[*] ? (@.qty > 5)", r#"{"items": [{"qty": 1}, {"qty": 6}]}"#, true),
        ("$.items[*] ? (@.qty > 5)", r#"{"items": [{"qty": 1}]}"#, false),
        ("$.paid", r#"{"paid": true}"#, true),
        ("$.paid", r#"{"paid": false}"#, false),
        ("$.paid", r#"{"paid": null}"#, false),
        ("$.paid", r#"{"paid": 0}"#, true), // it exists and is neither false nor null
        ("$.name like_regex \"^A\" flag \"i\"", r#"{"name": "ada"}"#, true),
        ("$.name like_regex \"^A\"", r#"{"name": "ada"}"#, false),
        ("$.a == 1 && $.b == 2", r#"{"a": 1, "b": 2}"#, true),
        ("$.a == 1 && $.b == 2", r#"{"a": 1, "b": 3}"#, false),
        ("exists($.a)", r#"{"a": null}"#, true),
    ];
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let mut wanted = HashSet::new();
    for (nth, (filter, payload, is_match)) in TABLE.iter().enumerate() {
        let subscription = app.subscribe_with("*", &format!("tenant_id => 't{nth}', filter => '{filter}'")).await;
        let event_seq: i64 = app
            .one(&format!("insert into outbox.event (tenant_id, type, payload) values ('t{nth}', 'a', '{payload}') returning event_seq"))
            .await;
        if *is_match {
            wanted.insert((subscription, event_seq));
        }
    }
    relay.expand_all(&Expand::default()).await;
    assert_eq!(app.deliveries().await, wanted);
    app.assert_accounted().await;
}

#[tokio::test]
async fn an_event_goes_to_every_subscription_of_its_tenant_and_to_no_other() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let a = app.subscribe_with("*", "tenant_id => 'acme'").await;
    let b = app.subscribe_with("a", "tenant_id => 'acme'").await;
    app.subscribe_with("*", "tenant_id => 'globex'").await;
    let event_seq: i64 = app
        .one("insert into outbox.event (tenant_id, type, payload) values ('acme', 'a', '{}') returning event_seq")
        .await;
    let leases: HashSet<_> = relay.expand(&Expand::default()).await.leases.into_iter().collect();
    assert_eq!(leases, HashSet::from([(a, event_seq), (b, event_seq)]));
}

#[tokio::test]
async fn an_addressed_event_expands_to_nothing() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let tested = app.subscribe("*").await;
    app.subscribe("*").await;
    app.run(&format!("select outbox.send_test({tested})")).await;
    let batch = relay.expand(&Expand::default()).await;
    assert_eq!((batch.expanded, batch.queued, batch.leases.len()), (1, 0, 0));
    assert_eq!(app.deliveries().await.len(), 1, "the one that send_test queued");
    app.assert_accounted().await;
}

#[tokio::test]
async fn an_event_for_later_is_queued_until_its_time() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.run("select outbox.publish('later', '{}', deliver_at => now() + interval '1 hour')").await;
    app.run("select outbox.publish('now', '{}', deliver_at => now() - interval '1 hour')").await;
    let batch = relay.expand(&Expand::default()).await;
    assert_eq!((batch.leases, batch.queued), (vec![(subscription, 2)], 1));
    let is_due_then: bool = app
        .one("select q.next_attempt_at = e.deliver_at and q.state = 'pending' from outbox_relay.queue q join outbox.event e using (event_seq) where event_seq = 1")
        .await;
    assert!(is_due_then);
}

#[tokio::test]
async fn no_more_is_leased_than_the_relay_and_each_subscription_have_room_for() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let small = app.subscribe_with("*", "max_in_flight => 3").await;
    let large = app.subscribe("*").await;
    let count = |leases: &[(i64, i64)], id| leases.iter().filter(|(subscription, _)| *subscription == id).count();

    app.insert_many("a", 10).await;
    let batch = relay.expand(&Expand { max_in_flight: 5, ..Expand::default() }).await;
    assert_eq!(
        (count(&batch.leases, small), count(&batch.leases, large)),
        (3, 5),
        "its own limit, the relay's default"
    );
    assert_eq!(batch.queued, 12);

    app.insert_many("a", 10).await;
    let busy = vec![(small, 2), (large, 5)];
    let batch = relay.expand(&Expand { max_in_flight: 5, busy, ..Expand::default() }).await;
    assert_eq!((count(&batch.leases, small), count(&batch.leases, large)), (1, 0), "less what is in flight");

    app.insert_many("a", 10).await;
    let batch = relay.expand(&Expand { lease_limit: 4, ..Expand::default() }).await;
    assert_eq!(batch.leases.len(), 4, "of all subscriptions together");
    let first: i64 = app.one("select min(event_seq) from outbox.event where event_seq > 20").await;
    assert!(batch.leases.iter().any(|(_, event_seq)| *event_seq == first), "the oldest first");

    app.insert_many("a", 10).await;
    assert_eq!(relay.expand(&Expand::queue_only(100)).await.leases, []);
    app.assert_accounted().await;
}

const HOUR_MS: i32 = 3_600_000;

#[tokio::test]
async fn what_has_no_room_of_its_own_stays_in_the_log_until_it_has() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe_with("*", "max_in_flight => 3").await;
    app.insert_many("a", 10).await;
    let call = |in_flight| Expand { keep_back_ms: HOUR_MS, busy: vec![(subscription, in_flight)], ..Expand::default() };
    let seqs = |batch: &Expanded| batch.leases.iter().map(|(_, seq)| *seq).collect::<Vec<_>>();

    let first = relay.expand(&call(0)).await;
    assert_eq!((seqs(&first), first.expanded, first.queued, first.kept_back), (vec![1, 2, 3], 3, 0, 7));
    assert!(first.more, "it is to be read again");
    relay.session.run("begin").await;
    let full = relay.expand(&call(3)).await;
    let has_written: bool = relay.session.one("select pg_current_xact_id_if_assigned() is not null").await;
    relay.session.run("commit").await;
    assert_eq!((full.leases.len(), full.expanded, full.kept_back, full.more, has_written), (0, 0, 7, true, false));
    let with_limit = relay.expand(&Expand { event_limit: 4, ..call(1) }).await;
    assert_eq!((seqs(&with_limit), with_limit.kept_back, with_limit.more), (vec![4, 5], 2, true));

    // What others want behind it takes it along, and all that may not be born leased is no reason to wait either.
    let other = app.subscribe("a").await;
    let mixed = relay.expand(&Expand { event_limit: 2, ..call(3) }).await;
    assert_eq!((mixed.leases.len(), mixed.queued, mixed.kept_back), (2, 2, 0));
    app.run(&format!("select outbox.pause({other})")).await;
    assert_eq!(relay.expand(&call(3)).await.kept_back, 3);
    let old = relay.expand(&Expand { keep_back_ms: 1, ..call(3) }).await;
    assert_eq!((old.expanded, old.queued, old.kept_back), (3, 3, 0), "what is old keeps nobody waiting");
    app.insert("a", "{}").await;
    app.run("select outbox.publish('later', '{}', deliver_at => now() + interval '1 hour')").await;
    let rest = relay.expand_all(&call(3)).await;
    assert_eq!((rest.expanded, rest.queued, rest.kept_back), (2, 2, 0), "up to the last one, which has to be queued");
    app.assert_accounted().await;
}

#[tokio::test]
async fn an_event_dated_in_the_future_keeps_nobody_waiting() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe_with("*", "max_in_flight => 1").await;
    let call = Expand { keep_back_ms: HOUR_MS, busy: vec![(subscription, 1)], ..Expand::default() };
    app.insert("a", "{}").await;
    assert_eq!(relay.expand(&call).await.kept_back, 1);
    app.run("truncate outbox.event").await;
    // As a version 7 UUID of a producer whose clock runs a minute ahead.
    app.run(
        "insert into outbox.event (event_id, type, payload) select
            (lpad(to_hex((extract(epoch from now() + interval '1 minute') * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid, 'a', '{}'",
    )
    .await;
    let ahead = relay.expand(&call).await;
    assert_eq!((ahead.expanded, ahead.queued, ahead.kept_back), (1, 1, 0));
}

#[tokio::test]
async fn who_is_to_be_given_nothing_is_queued_for_and_keeps_nobody_waiting() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let slow = app.subscribe("*").await;
    app.insert_many("a", 3).await;
    let call = Expand { keep_back_ms: HOUR_MS, busy: vec![(slow, i32::MAX)], ..Expand::default() };
    let batch = relay.expand(&call).await;
    assert_eq!((batch.leases.len(), batch.expanded, batch.queued, batch.kept_back), (0, 3, 3, 0));
    app.assert_accounted().await;
}

#[tokio::test]
async fn what_is_kept_back_and_not_to_wait_its_turn_is_told() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe_with("*", "max_in_flight => 1").await;
    app.insert("a", "{}").await;
    let call = Expand { keep_back_ms: HOUR_MS, busy: vec![(subscription, 1)], ..Expand::default() };
    assert_eq!(relay.expand(&call).await, Expanded { more: true, kept_back: 1, ..Expanded::default() });
    app.run("select outbox.publish('b', '{}', priority => 5::smallint)").await;
    let both = relay.expand(&call).await;
    assert_eq!((both.kept_back, both.prioritised), (2, true));
    assert_eq!(relay.expand(&Expand { busy: Vec::new(), ..call }).await.leases, [(subscription, 2)], "it goes first");
    app.assert_accounted().await;
}

#[tokio::test]
async fn when_nothing_is_new_nothing_is_written() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.insert("a", "{}").await;
    relay.expand_all(&Expand::default()).await;
    relay.expand_all(&Expand::default()).await;
    relay.session.run("begin").await;
    relay.expand(&Expand::default()).await;
    let has_written: bool = relay.session.one("select pg_current_xact_id_if_assigned() is not null").await;
    relay.session.run("commit").await;
    assert!(!has_written);
}

#[tokio::test]
async fn an_event_nobody_wants_costs_no_delivery() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("order.*").await;
    app.insert_many("a", 100).await;
    let batch = relay.expand(&Expand::default()).await;
    assert_eq!((batch.expanded, batch.queued, batch.leases.len()), (100, 0, 0));
    app.assert_accounted().await;
}

#[tokio::test]
async fn while_held_or_fenced_it_returns_no_row() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe("*").await;
    app.insert("a", "{}").await;
    app.run("select outbox.hold('moving house')").await;
    assert_eq!(relay.try_expand(&Expand::default()).await, None);
    app.run("select outbox.release()").await;

    let stranger = Relay::named(&db, "relay-2", "staging").await;
    assert_eq!(stranger.try_expand(&Expand::default()).await, None, "this database is the environment test's");

    let late = Relay::named(&db, "relay-3", "test").await;
    app.run(&format!("select outbox_relay.fence({})", late.epoch)).await;
    assert_eq!(late.try_expand(&Expand::default()).await, None);

    assert_eq!(relay.expand(&Expand::default()).await.leases.len(), 1, "nothing was lost meanwhile");
}
