//! Delivering: who leases what, what becomes of a result, and what becomes of a dead relay's leases.

use crate::support::{Claim, Db, Expand, Relay, Sent, Session, sent};
use std::collections::HashSet;

/// A database with one subscription to everything and that many events, queued and due.
async fn queued(arguments: &str, count: i64) -> (Db, Session, Relay, i64) {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe_with("*", arguments).await;
    app.insert_many("a", count).await;
    relay.expand_all(&Expand::queue_only(1000)).await;
    (db, app, relay, subscription)
}

/// Makes what is outstanding due, as time would.
async fn make_due(app: &Session) {
    app.run("update outbox_relay.queue set next_attempt_at = now() where next_attempt_at is not null").await;
}

/// How long from now, in seconds, until the next attempt.
async fn wait_s(app: &Session, event_seq: i64) -> f64 {
    app.one(&format!(
        "select extract(epoch from next_attempt_at - updated_at)::float8 from outbox_relay.queue where event_seq = {event_seq}"
    ))
    .await
}

#[tokio::test]
async fn the_longest_due_goes_first() {
    let (_db, app, relay, subscription) = queued("", 5).await;
    app.run("update outbox_relay.queue set next_attempt_at = now() - make_interval(mins => case event_seq when 3 then 9 when 5 then 8 else 1 end)").await;
    let claimed = relay.claim(&Claim { lease_limit: 2, ..Claim::default() }).await;
    let leases: HashSet<_> = claimed.leases.into_iter().collect();
    assert_eq!(leases, HashSet::from([(subscription, 3), (subscription, 5)]));
    assert!(claimed.more);
}

#[tokio::test]
async fn what_is_not_due_waits_and_its_time_is_told() {
    let (_db, app, relay, _) = queued("", 2).await;
    app.run("update outbox_relay.queue set next_attempt_at = now() + interval '1 hour'").await;
    let claimed = relay.claim(&Claim::default()).await;
    assert_eq!((claimed.leases.len(), claimed.has_next_due, claimed.more), (0, true, false));
}

#[tokio::test]
async fn a_claim_brings_the_event_with_it() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.subscribe_with("*", "tenant_id => 'acme'").await;
    app.run("select outbox.publish('order.created', '{\"n\": 1.10}', tenant_id => 'acme', metadata => '{\"traceparent\": \"00-ab-cd-01\"}')").await;
    relay.expand_all(&Expand::queue_only(10)).await;
    let complete: bool = relay
        .session
        .one(&format!(
            "select (c.type, c.tenant_id, c.payload, c.traceparent, c.attempts, c.cause) =
                    ('order.created', 'acme', '{{\"n\": 1.10}}', '00-ab-cd-01', 0, 'schedule')
                    and c.event_id = e.event_id and c.occurred_at = e.occurred_at and c.version = s.version
             from outbox_relay.claim({}, 10, 10, '{{}}', '{{}}', true) c
             join outbox.event e using (event_seq) join outbox.subscription s using (subscription_id)",
            relay.epoch
        ))
        .await;
    assert!(complete);
}

#[tokio::test]
async fn two_relays_never_lease_the_same_delivery() {
    let (db, app, relay, _) = queued("", 300).await;
    let other = Relay::named(&db, "relay-2", "test").await;
    let third = relay.pooled(&db).await;
    let call = Claim { lease_limit: 20, ..Claim::default() };
    let drain = async |relay: &Relay| {
        let mut leases = Vec::new();
        loop {
            let claimed = relay.claim(&call).await;
            if claimed.leases.is_empty() && !claimed.more {
                return leases;
            }
            leases.extend(claimed.leases);
        }
    };
    let (a, b, c) = tokio::join!(drain(&relay), drain(&other), drain(&third));
    let all: Vec<_> = [a, b, c].concat();
    assert_eq!(all.len(), 300);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 300);
    assert_eq!(app.one::<i64>("select count(*) from outbox_relay.queue where state = 'leased'").await, 300);
}

#[tokio::test]
async fn a_claim_under_way_is_stepped_around() {
    let (db, _app, relay, _) = queued("", 10).await;
    let other = Relay::named(&db, "relay-2", "test").await;
    other.session.run("set lock_timeout = '1ms'").await;
    relay.session.run("begin").await;
    let first = relay.claim(&Claim { lease_limit: 4, ..Claim::default() }).await;
    let second = other.claim(&Claim::default()).await;
    relay.session.run("commit").await;
    assert_eq!((first.leases.len(), second.leases.len()), (4, 6));
}

#[tokio::test]
async fn a_saturated_subscription_stands_in_nobodys_way() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let slow = app.subscribe_with("*", "max_in_flight => 2").await;
    app.insert_many("a", 20).await;
    relay.expand_all(&Expand::queue_only(100)).await;
    let quick = app.subscribe("*").await;
    app.insert_many("a", 3).await;
    relay.expand_all(&Expand::queue_only(100)).await;

    let claimed = relay.claim(&Claim { lease_limit: 10, ..Claim::default() }).await;
    let count = |leases: &[(i64, i64)], id| leases.iter().filter(|(subscription, _)| *subscription == id).count();
    assert_eq!((count(&claimed.leases, slow), count(&claimed.leases, quick)), (2, 3));
    assert!(claimed.more, "left for lack of room");

    app.insert_many("a", 1).await;
    relay.expand_all(&Expand::queue_only(100)).await;
    let claimed = relay.claim(&Claim { busy: vec![(slow, 2), (quick, 3)], ..Claim::default() }).await;
    assert_eq!((count(&claimed.leases, slow), count(&claimed.leases, quick)), (0, 1), "what is in flight counts");
}

#[tokio::test]
async fn a_paused_subscription_is_passed_over_and_goes_on_where_it_stood() {
    let (_db, app, relay, subscription) = queued("", 3).await;
    app.run(&format!("select outbox.pause({subscription})")).await;
    let claimed = relay.claim(&Claim::default()).await;
    assert_eq!((claimed.leases.len(), claimed.has_next_due, claimed.more), (0, false, false));
    app.run(&format!("select outbox.resume({subscription})")).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 3);
}

#[tokio::test]
async fn while_held_or_fenced_nothing_is_claimed() {
    let (_db, app, relay, _) = queued("", 1).await;
    app.run("select outbox.hold('moving house')").await;
    assert_eq!(relay.try_claim(&Claim::default()).await, None);
    app.run("select outbox.release()").await;
    app.run(&format!("select outbox_relay.fence({})", relay.epoch)).await;
    assert_eq!(relay.try_claim(&Claim::default()).await, None);
}

#[tokio::test]
async fn a_success_moves_from_queue_to_history_with_its_attempt() {
    let (_db, app, relay, subscription) = queued("", 1).await;
    let lease = relay.claim(&Claim::default()).await.leases[0];
    assert!(relay.record(&[sent(lease, 204)]).await.is_empty(), "only what was no success is told");
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("succeeded"));
    assert_eq!(app.one::<i64>("select count(*) from outbox_relay.queue").await, 0);
    let logged: bool = app
        .one(
            "select (attempt, outcome, status_code, cause, relay, latency_ms, key_ids) = (1, 'delivered', 204::smallint, 'schedule', 'relay-1', 7, '{k1,k2}')
             from outbox.attempt",
        )
        .await;
    assert!(logged);
}

#[tokio::test]
async fn one_call_records_successes_and_failures_alike() {
    let (_db, app, relay, subscription) = queued("", 50).await;
    let leases = relay.claim(&Claim::default()).await.leases;
    let results: Vec<Sent> =
        leases.iter().map(|lease| sent(*lease, if lease.1 % 5 == 0 { 500 } else { 200 })).collect();
    let told = relay.record(&results).await;
    assert_eq!(told.len(), 10);
    assert!(told.values().all(|r| r.state.as_deref() == Some("failed") && r.is_scheduled && r.attempt == 1));
    assert_eq!(app.one::<i64>("select count(*) from outbox.delivery where state = 'succeeded'").await, 40);
    assert_eq!(app.one::<i64>("select count(*) from outbox.attempt").await, 50);
    assert_eq!(app.state(subscription, 5).await.as_deref(), Some("failed"));
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_failure_waits_as_its_policy_says_and_is_a_dead_letter_after_the_last_delay() {
    let (_db, app, relay, subscription) = queued("retry_policy => 'short'", 1).await;
    for (attempt, delay_s) in [(1, 60.0), (2, 300.0), (3, 1800.0)] {
        let lease = relay.claim(&Claim::default()).await.leases[0];
        let told = relay.record_one(sent(lease, 500)).await.expect("a failure is told");
        assert_eq!((told.attempt, told.state.as_deref(), told.is_scheduled), (attempt, Some("failed"), true));
        let wait = wait_s(&app, 1).await;
        assert!(
            (delay_s..=delay_s * 1.1 + 1.0).contains(&wait),
            "attempt {attempt} waits {wait} s, not {delay_s} to a tenth more"
        );
        make_due(&app).await;
    }
    let lease = relay.claim(&Claim::default()).await.leases[0];
    let told = relay.record_one(sent(lease, 500)).await.expect("a failure is told");
    assert_eq!((told.attempt, told.state.as_deref(), told.is_scheduled), (4, Some("dead_letter"), false));
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("dead_letter"));
    let last: (i16, String) = {
        let row =
            app.query_one("select last_status_code, last_error from outbox.delivery", &[]).await.expect("the delivery");
        (row.get(0), row.get(1))
    };
    assert_eq!(last, (500, "test rejected".to_owned()));
}

#[tokio::test]
async fn jitter_spreads_within_its_bounds() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.run(
        "insert into outbox.retry_policy (name, delays, jitter) values ('wide', '{100s}', 1), ('exact', '{100s}', 0)",
    )
    .await;
    let wide = app.subscribe_with("*", "retry_policy => 'wide'").await;
    let exact = app.subscribe_with("*", "retry_policy => 'exact'").await;
    app.insert_many("a", 100).await;
    let leases = relay.expand(&Expand::default()).await.leases;
    relay.record(&leases.iter().map(|lease| sent(*lease, 503)).collect::<Vec<_>>()).await;
    let spread = |id| {
        format!(
            "select array[min(s), max(s)] from (select extract(epoch from next_attempt_at - updated_at)::float8 as s from outbox_relay.queue where subscription_id = {id}) w"
        )
    };
    let (low, high) = low_high(app.one(&spread(wide)).await);
    assert!(low >= 100.0 && high <= 201.0 && high - low > 50.0, "from {low} to {high}");
    let (low, high) = low_high(app.one(&spread(exact)).await);
    assert!(low >= 100.0 && high <= 101.0, "from {low} to {high}");
}

fn low_high(bounds: Vec<f64>) -> (f64, f64) {
    (bounds[0], bounds[1])
}

#[tokio::test]
async fn the_receivers_wish_is_kept_within_the_policys_bounds() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    app.run("insert into outbox.retry_policy (name, delays, jitter) values ('exact', '{10s,100s,1000s}', 0)").await;
    app.subscribe_with("*", "retry_policy => 'exact'").await;
    for (retry_after_s, wanted_s) in [(1, 10.0), (50, 50.0), (999_999, 1000.0)] {
        let event_seq = app.insert("a", "{}").await;
        let lease = relay.expand(&Expand::default()).await.leases[0];
        relay.record_one(Sent { retry_after_s: Some(retry_after_s), ..sent(lease, 429) }).await;
        let wait = wait_s(&app, event_seq).await;
        assert!((wanted_s..wanted_s + 1.0).contains(&wait), "{retry_after_s} s became {wait} s");
    }
}

#[tokio::test]
async fn the_receivers_wish_does_not_lengthen_the_schedule() {
    let (_db, app, relay, subscription) = queued("retry_policy => 'none'", 1).await;
    let lease = relay.claim(&Claim::default()).await.leases[0];
    relay.record_one(Sent { retry_after_s: Some(5), ..sent(lease, 429) }).await;
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("dead_letter"));
}

#[tokio::test]
async fn gone_ends_the_delivery_and_disables_the_subscription() {
    let (_db, app, relay, subscription) = queued("", 2).await;
    let leases = relay.claim(&Claim { lease_limit: 1, ..Claim::default() }).await.leases;
    let told = relay.record_one(sent(leases[0], 410)).await.expect("told");
    assert_eq!(told.state.as_deref(), Some("dead_letter"));
    let disabled: bool = app
        .one("select not active and disabled_at is not null and disabled_reason like '%410%' and unsubscribed_at is null from outbox.subscription")
        .await;
    assert!(disabled);
    assert_eq!(relay.claim(&Claim::default()).await.leases, [], "the rest waits");
    app.insert("a", "{}").await;
    assert_eq!(relay.expand(&Expand::default()).await.leases, [], "and nothing new is made");
    app.run(&format!("select outbox.resume({subscription})")).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 1);
    app.assert_accounted().await;
}

#[tokio::test]
async fn an_operators_open_transaction_does_not_stop_a_recording_of_gone() {
    let (db, app, relay, subscription) = queued("", 1).await;
    let operator = db.session().await;
    let lease = relay.claim(&Claim::default()).await.leases[0];
    operator
        .run(&format!("begin; update outbox.subscription set description = 'x' where subscription_id = {subscription}"))
        .await;
    relay.session.run("set lock_timeout = '100ms'").await;
    relay.record_one(sent(lease, 410)).await;
    operator.run("commit").await;
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("dead_letter"));
}

#[tokio::test]
async fn a_test_is_sent_even_while_paused_and_is_not_retried() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app.subscribe("*").await;
    app.run(&format!(
        "select outbox.pause({subscription}); select outbox.send_test({subscription}, payload => '{{\"hello\": 1}}')"
    ))
    .await;
    let leases = relay.claim(&Claim::default()).await.leases;
    assert_eq!(leases, [(subscription, 1)]);
    let told = relay.record_one(sent(leases[0], 500)).await.expect("told");
    assert_eq!((told.state.as_deref(), told.is_scheduled), (Some("dead_letter"), false));
    assert_eq!(app.one::<String>("select cause from outbox.attempt").await, "test");
    relay.expand_all(&Expand::default()).await;
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_replay_begins_the_schedule_anew_and_the_log_counts_on() {
    let (_db, app, relay, subscription) = queued("retry_policy => 'short'", 1).await;
    for _ in 0..4 {
        let lease = relay.claim(&Claim::default()).await.leases[0];
        relay.record_one(sent(lease, 500)).await;
        make_due(&app).await;
    }
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("dead_letter"));
    app.run(&format!("select outbox.replay({subscription}, 1)")).await;
    let lease = relay.claim(&Claim::default()).await.leases[0];
    let told = relay.record_one(sent(lease, 500)).await.expect("told");
    assert_eq!((told.attempt, told.state.as_deref()), (5, Some("failed")));
    let wait = wait_s(&app, 1).await;
    assert!((60.0..=67.0).contains(&wait), "the first delay again: {wait}");
    make_due(&app).await;
    let lease = relay.claim(&Claim::default()).await.leases[0];
    relay.record_one(sent(lease, 200)).await;
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("succeeded"));
    let causes: Vec<String> = app.all("select cause from outbox.attempt order by attempt").await;
    assert_eq!(causes, ["schedule", "schedule", "schedule", "schedule", "replay", "replay"]);
}

#[tokio::test]
async fn a_dead_relays_leases_are_handed_back_and_its_late_results_only_logged() {
    let (db, app, relay, subscription) = queued("", 3).await;
    let leases = relay.claim(&Claim::default()).await.leases;
    assert_eq!(leases.len(), 3);
    let other = Relay::named(&db, "relay-2", "test").await;
    let survivor = relay.pooled(&db).await; // its pool outlives the session that held the epoch
    assert_eq!(other.tick().await, (0, None), "alive as long as its session lives");

    app.kill(&relay.session).await;
    assert_eq!(other.tick().await, (3, None));
    assert_eq!(other.tick().await, (0, None), "once");
    let again = other.claim(&Claim { lease_limit: 2, ..Claim::default() }).await.leases;
    assert_eq!(again.len(), 2);

    let told = survivor.record(&leases.iter().map(|lease| sent(*lease, 200)).collect::<Vec<_>>()).await;
    assert_eq!(told.len(), 3);
    assert!(told.values().all(|r| r.state.is_none() && r.attempt == 1), "{told:?}");
    assert_eq!(app.one::<i64>("select count(*) from outbox.delivery where state = 'succeeded'").await, 0);
    assert_eq!(app.one::<i64>("select count(*) from outbox.attempt").await, 3, "what was sent is on record");

    other.record(&again.iter().map(|lease| sent(*lease, 200)).collect::<Vec<_>>()).await;
    let attempts: Vec<i32> = app.all("select attempt from outbox.attempt order by event_seq, attempt").await;
    assert_eq!(attempts.len(), 5);
    assert_eq!(app.one::<i64>(&format!("select count(*) from outbox.delivery where subscription_id = {subscription} and state = 'succeeded' and attempts = 2")).await, 2);
}

#[tokio::test]
async fn a_result_after_a_cancel_or_an_unsubscribe_changes_nothing_but_the_log() {
    let (_db, app, relay, subscription) = queued("", 2).await;
    let leases = relay.claim(&Claim::default()).await.leases;
    app.run(&format!("select outbox.cancel({subscription}, 1)")).await;
    assert_eq!(relay.record_one(sent((subscription, 1), 200)).await.expect("told").state, None);
    app.run(&format!("select outbox.unsubscribe({subscription})")).await;
    assert_eq!(relay.record_one(sent((subscription, 2), 500)).await.expect("told").state, None);
    assert_eq!(leases.len(), 2);
    assert_eq!(
        app.one::<i64>("select count(*) from outbox.delivery where state = 'cancelled' and attempts = 1").await,
        2
    );
    assert_eq!(app.one::<i64>("select count(*) from outbox.attempt").await, 2);
}

#[tokio::test]
async fn a_result_recorded_again_because_the_answer_was_lost_is_one_attempt() {
    let (_db, app, relay, subscription) = queued("", 1).await;
    relay.claim(&Claim::default()).await;
    let record = format!(
        "select count(*) from outbox_relay.record({}, 'relay-1', array[{subscription}], array[1], array[timestamptz '2026-01-01'],
            array[5], array['delivered'], array[200::smallint], array[null::text], array[null::text], array[null::text],
            array[null::text], array['k'], array[null::int], array['schedule'], true)",
        relay.epoch
    );
    for _ in 0..2 {
        assert_eq!(app.one::<i64>(&record).await, 0, "nothing to tell of a success");
    }
    assert_eq!(app.one::<i64>("select count(*) from outbox.attempt").await, 1);
    assert_eq!(app.one::<i32>("select attempts from outbox.delivery where state = 'succeeded'").await, 1);
}

/// The model's counterexample: the answer of a record is lost, the delivery is due again before the relay tries again, and
/// the same relay leases it, under the same epoch.
#[tokio::test]
async fn a_result_recorded_again_is_not_taken_for_that_of_the_next_lease() {
    let (_db, app, relay, subscription) = queued("", 1).await;
    let record = |attempt: i32, outcome: &str, status_code: i32| {
        format!(
            "select count(*) from outbox_relay.record({}, 'relay-1', array[{subscription}], array[1],
                array[timestamptz '2026-01-01' + {attempt} * interval '1 minute'], array[5], array['{outcome}'],
                array[{status_code}::smallint], array[null::text], array[null::text], array[null::text],
                array[null::text], array['k'], array[null::int], array['schedule'], true)",
            relay.epoch
        )
    };
    let standing = "select format('%s %s', state, attempts) from outbox.delivery";
    relay.claim(&Claim::default()).await;
    assert_eq!(app.one::<i64>(&record(1, "rejected", 500)).await, 1);
    make_due(&app).await;
    assert_eq!(relay.claim(&Claim::default()).await.leases, [(subscription, 1)]);

    assert_eq!(app.one::<i64>(&record(1, "rejected", 500)).await, 0, "nothing to tell of what is known");
    assert_eq!(app.one::<String>(standing).await, "leased 1");
    assert_eq!(app.one::<i64>(&record(2, "delivered", 200)).await, 0);
    assert_eq!(app.one::<String>(standing).await, "succeeded 2");

    // A success is repeated as well: here after a replay.
    app.run(&format!("select outbox.replay({subscription}, 1)")).await;
    relay.claim(&Claim::default()).await;
    assert_eq!(app.one::<i64>(&record(2, "delivered", 200)).await, 0);
    assert_eq!(app.one::<String>(standing).await, "leased 2");
    assert_eq!(app.one::<i64>("select count(*) from outbox.attempt").await, 2);
}

#[tokio::test]
async fn the_same_result_twice_counts_once() {
    let (_db, app, relay, subscription) = queued("", 1).await;
    let lease = relay.claim(&Claim::default()).await.leases[0];
    relay.record_one(sent(lease, 200)).await;
    let told = relay.record_one(sent(lease, 200)).await.expect("late");
    assert_eq!((told.state, told.attempt), (None, 2));
    assert_eq!(app.state(subscription, 1).await.as_deref(), Some("succeeded"));
}

#[tokio::test]
async fn a_relay_whose_connection_broke_takes_its_epoch_up_again_unless_it_was_fenced() {
    let (db, app, relay, _) = queued("", 2).await;
    relay.claim(&Claim::default()).await;
    let other = Relay::named(&db, "relay-2", "test").await;
    let back = relay.pooled(&db).await;
    let resume = format!("select outbox_relay.resume_epoch({})", relay.epoch);
    assert!(!back.session.one::<bool>(&resume).await, "the old session still holds it");
    app.kill(&relay.session).await;
    assert!(back.session.one::<bool>(&resume).await);
    assert_eq!(other.tick().await, (0, None), "it lives, with its leases");
    app.kill(&back.session).await;
    assert_eq!(other.tick().await.0, 2);
    let too_late = relay.pooled(&db).await;
    assert!(!too_late.session.one::<bool>(&resume).await);
    let locks: i64 = app.one("select count(*) from pg_locks where locktype = 'advisory' and classid = 1869968483 and database = (select oid from pg_database where datname = current_database())").await;
    assert_eq!(locks, 1, "and keeps no lock");
}

#[tokio::test]
async fn leases_that_did_not_begin_are_handed_back_one_by_one() {
    let (db, app, relay, subscription) = queued("", 4).await;
    relay.claim(&Claim::default()).await;
    relay.record_one(sent((subscription, 4), 503)).await;
    make_due(&app).await;
    relay.claim(&Claim::default()).await;
    let hand_back = async |epoch: i32, seqs: &str| -> Vec<String> {
        let ids = format!("array_fill({subscription}::bigint, array[cardinality('{seqs}'::bigint[])])");
        relay
            .session
            .all(&format!("select format('%s %s', event_seq, is_left) from outbox_relay.hand_back({epoch}, {ids}, '{seqs}') order by event_seq"))
            .await
    };
    let operator = db.session().await;
    operator.run("begin; select from outbox_relay.queue where event_seq = 2 for update").await;
    assert_eq!(hand_back(relay.epoch + 1, "{1}").await, [""; 0], "of another epoch");
    assert_eq!(hand_back(relay.epoch, "{1,2,4,9}").await, ["1 f", "2 t", "4 f"]);
    operator.run("commit").await;
    let states =
        "select string_agg(state || coalesce(epoch::text, ' is due'), ', ' order by event_seq) from outbox_relay.queue
                  where next_attempt_at <= now() or epoch is not null";
    assert_eq!(app.one::<String>(states).await, "pending is due, leased1, leased1, failed is due");
    assert_eq!(hand_back(relay.epoch, "{2}").await, ["2 f"]);
    let again: HashSet<_> = relay.claim(&Claim::default()).await.leases.into_iter().map(|(_, seq)| seq).collect();
    assert_eq!(again, HashSet::from([1, 2, 4]));
    app.assert_accounted().await;
}

#[tokio::test]
async fn a_fence_waits_for_a_claim_under_way_and_takes_its_leases() {
    let (db, app, relay, _) = queued("", 2).await;
    let other = db.session().await;
    relay.session.run("begin").await;
    assert_eq!(relay.claim(&Claim::default()).await.leases.len(), 2);
    let fence = other.start(&format!("select outbox_relay.fence({})", relay.epoch));
    app.wait_until_blocked(&other).await;
    relay.session.run("commit").await;
    assert_eq!(fence.await.expect("no panic").expect("fenced").get::<_, i32>(0), 2);
    assert_eq!(app.one::<i64>("select count(*) from outbox_relay.queue where state = 'pending'").await, 2);
}

#[tokio::test]
async fn health_is_added_up_and_a_locked_row_is_left_for_the_next_time() {
    let db = Db::new().await;
    let (app, operator) = (db.session().await, db.session().await);
    let (a, b) = (app.subscribe("*").await, app.subscribe("*").await);
    let add = |successes: i64, failures: i64, tail: i64| {
        format!(
            "select coalesce(array_agg(h order by h), '{{}}') from outbox_relay.add_health(array[{a}, {b}]::bigint[], array[{successes}, 0]::bigint[],
                array[{failures}, 1]::bigint[], array[{tail}, 1]::bigint[], array[now(), null], array[now(), now()]) h"
        )
    };
    assert_eq!(app.one::<Vec<i64>>(&add(3, 2, 1)).await, [a, b]);
    assert_eq!(app.one::<Vec<i64>>(&add(0, 2, 2)).await, [a, b]);
    operator
        .run(&format!("begin; select from outbox.subscription_health where subscription_id = {b} for update"))
        .await;
    assert_eq!(app.one::<Vec<i64>>(&add(1, 0, 0)).await, [a]);
    operator.run("commit").await;
    let counts: Vec<i64> = app
        .one(&format!("select array[success_count, failure_count, consecutive_failures] from outbox.subscription_health where subscription_id = {a}"))
        .await;
    assert_eq!(counts, [4, 4, 0]);
    let counts: Vec<i64> = app
        .one(&format!("select array[success_count, failure_count, consecutive_failures] from outbox.subscription_health where subscription_id = {b}"))
        .await;
    assert_eq!(counts, [0, 2, 2]);
}

#[tokio::test]
async fn a_relay_loads_an_endpoint_with_its_living_secrets_only() {
    let db = Db::new().await;
    let (app, relay) = (db.session().await, Relay::new(&db).await);
    let subscription = app
        .subscribe_with("*", "signature => 'x-signature', secret => 'first-secret-0001', timeout => '2 seconds'")
        .await;
    let load = format!("select secrets from outbox_relay.load_subscriptions(array[{subscription}])");
    assert_eq!(relay.session.one::<Vec<String>>(&load).await, ["first-secret-0001"]);
    app.run(&format!("select outbox.rotate_secret({subscription}, secret => 'second-secret-002')")).await;
    assert_eq!(
        relay.session.one::<Vec<String>>(&load).await,
        ["first-secret-0001", "second-secret-002"],
        "oldest first"
    );
    app.run(&format!("select outbox.rotate_secret({subscription}, overlap => '0', secret => 'third-secret-0003')"))
        .await;
    assert_eq!(relay.session.one::<Vec<String>>(&load).await, ["third-secret-0003"]);
    let timeout: i32 = relay
        .session
        .one(&format!("select timeout_ms from outbox_relay.load_subscriptions(array[{subscription}])"))
        .await;
    assert_eq!(timeout, 2000);
}
