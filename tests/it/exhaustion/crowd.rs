//! One event for a thousand subscriptions, beside somebody else's.

use crate::support::{Db, Outage, Seat, Sink};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// As many as a tenant may have (setting `max_subscriptions`).
const SUBSCRIPTIONS: i64 = 1000;
/// The other tenant's events, one after the other.
const OTHERS: i64 = 10;

/// Resident memory of a process, in MiB.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// A payload that large, in SQL.
fn payload(length: usize) -> String {
    format!("jsonb_build_object('pad', repeat('x', {length}))")
}

#[tokio::test]
async fn a_thousand_subscriptions_get_one_event_and_nobody_waits_for_them() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let (sink, other) = (Sink::accepting().await, Sink::accepting().await);
    session
        .run(&format!(
            "select outbox.subscribe('{}' || n, '{{*}}', tenant_id => 'crowd', name => n::text) from generate_series(1, {SUBSCRIPTIONS}) n",
            sink.url("/in/")
        ))
        .await;
    session.endpoint(&other.url("/in"), "tenant_id => 'other'").await;
    let seat = Seat::new(&db).await;
    let before_mib = resident_mib(seat.daemon.id());
    sink.dawdle(Duration::from_millis(50));

    let outage = Outage::is_over("subscriptions-1000");
    let mut committed = BTreeSet::new();
    let insert = |tenant: &str, payload: &str| {
        format!(
            "insert into outbox.event (tenant_id, type, payload) values ('{tenant}', 'order.created', {payload}) returning event_id::text"
        )
    };
    let crowd: String = session.one(&insert("crowd", &payload(1_000))).await;
    committed.insert(crowd.clone());
    let mut slowest = Duration::ZERO;
    for nth in 1..=OTHERS {
        let began = Instant::now();
        session.run(&insert("other", "'{}'")).await;
        other.wait_for(usize::try_from(nth).expect("few")).await;
        slowest = slowest.max(began.elapsed());
    }
    let are_delivered =
        |count: i64| format!("select count(*) = {count} from outbox.delivery where state = 'succeeded'");
    session.wait_until(&are_delivered(SUBSCRIPTIONS + OTHERS)).await;
    assert_eq!(outage.recovered(&session, &sink, &committed).await, 0);
    assert_eq!(sink.times()[&crowd], usize::try_from(SUBSCRIPTIONS).expect("few"));
    assert!(slowest < Duration::from_secs(2), "the other tenant waited {slowest:?}");

    // A large one: what is held of it is bounded, whoever waits for whom.
    session.run(&insert("crowd", &payload(100_000))).await;
    session.wait_until(&are_delivered(2 * SUBSCRIPTIONS + OTHERS)).await;
    let most = session.one::<i32>("select max(attempts) from outbox.delivery").await;
    assert_eq!(most, 1, "each was sent once");
    let grown_mib = resident_mib(seat.daemon.id()) - before_mib;
    println!("the other tenant waited {} ms at most; {grown_mib} MiB more", slowest.as_millis());
    assert!(grown_mib < 200, "{grown_mib} MiB for 1,000 deliveries of 100 kB");
}
