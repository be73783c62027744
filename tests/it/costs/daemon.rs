//! The real program: what it sends, and what a delivery leaves in the WAL with all that is logged of it.

use super::check;
use super::count::Counter;
use super::stage::PAYLOAD;
use crate::support::{Daemon, Sink};

#[tokio::test]
async fn the_relay_sends_statements_by_the_batch() {
    const EVENTS: usize = 4096;
    let (counter, db) = Counter::with_database().await;
    let (app, sink) = (db.session().await, Sink::accepting().await);
    app.allow_http().await;
    app.endpoint(&sink.url("/in"), "max_in_flight => 1000").await; // more than the relay leases, so that none is queued
    app.run("select outbox.hold('the backlog is written')").await;
    let mut relay = Daemon::on(&db).await;
    app.run(&format!(
        "insert into outbox.event (type, payload) select 'order.created', {PAYLOAD} from generate_series(1, {EVENTS}) n"
    ))
    .await;
    counter.start().await;
    app.run("select outbox.release()").await;
    sink.wait_for(EVENTS).await;
    // It records what it knows before it ends.
    relay.terminate();
    relay.ended().await;
    let (taken, sent) = (counter.taken().await, counter.sent().await);
    assert_eq!(app.one::<i64>("select count(*) from outbox.delivery where state = 'succeeded'").await, EVENTS as i64);

    // How large a batch is, is a matter of speed. A statement for each delivery would be EVENTS of them.
    assert!(
        taken.statements <= (EVENTS / 8) as f64,
        "{} statements for {EVENTS} deliveries: {sent:#?}",
        taken.statements
    );
    for (statement, calls) in &sent {
        let is_by_the_batch =
            ["expand", "record", "claim"].iter().any(|call| statement.contains(&format!("outbox_relay.{call}(")));
        assert!(is_by_the_batch || *calls <= 64, "{calls} times in a few seconds: {statement}");
    }
    let [_, _, _, _, wal_records, wal_bytes] = taken.of_each(1, EVENTS);
    let unsteady = f64::NAN;
    check(&db, [("relay", [unsteady, unsteady, unsteady, unsteady, wal_records, wal_bytes])]).await;
}
