//! A database whose statements are counted, and the calls of the relay in batches of one size.

use super::count::Counter;
use crate::support::{Claim, Db, Expand, Relay, Sent, Session, sent};

pub(super) const BATCH: usize = 128;

/// Batches of a measurement: pages fill up and are split, so that no batch is as the next.
pub(super) const BATCHES: usize = 8;

/// 0.3 KiB as text.
pub(super) const PAYLOAD: &str = "jsonb_build_object('order_id', n, 'pad', repeat('x', 270))";

/// What something took, in the order of the table's columns.
pub(super) type Counted = [f64; 6];

/// What the calls of a delivery's way took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) expand: Counted,
    pub(super) record_delivered: Counted,
    pub(super) record_failed: Counted,
    pub(super) claim: Counted,
}

/// A database with subscriptions to everything, and a relay that has made its plans.
pub(super) struct Stage {
    pub(super) db: Db,
    pub(super) app: Session,
    pub(super) relay: Relay,
    pub(super) counter: Counter,
    subscriptions: usize,
}

impl Stage {
    pub(super) async fn with_subscriptions(subscriptions: usize) -> Self {
        let (counter, db) = Counter::with_database().await;
        let (app, relay) = (db.session().await, Relay::new(&db).await);
        for _ in 0..subscriptions {
            app.subscribe("*").await;
        }
        let stage = Self { db, app, relay, counter, subscriptions };
        // Plans are made, and indexes have the two levels that they keep for the next hundred thousand rows.
        stage.fill(20 * BATCH / subscriptions.max(1)).await;
        if subscriptions > 0 {
            stage.course().await;
        }
        stage
    }

    /// So many events, in one transaction.
    pub(super) async fn insert(&self, count: usize) {
        let sql = format!(
            "insert into outbox.event (type, payload) select 'order.created', {PAYLOAD} from generate_series(1, {count}) n"
        );
        self.app.run(&sql).await;
    }

    /// So many events, delivered. What was read of so many is read once again by the next expand, if nothing else had
    /// got a transaction id meanwhile: not by a course that is compared.
    pub(super) async fn fill(&self, count: usize) {
        self.insert(count).await;
        loop {
            let leases = self.expand(1000).await;
            if leases.is_empty() {
                break;
            }
            self.record(&leases, 200).await;
        }
    }

    /// The deliveries of the next events, leased.
    pub(super) async fn expand(&self, events: usize) -> Vec<(i64, i64)> {
        let event_limit = i32::try_from(events).expect("not that many");
        let lease_limit = event_limit * i32::try_from(self.subscriptions.max(1)).expect("not that many");
        self.relay.expand(&Expand { event_limit, lease_limit, ..Expand::default() }).await.leases
    }

    /// Records that they were answered with this status.
    pub(super) async fn record(&self, leases: &[(i64, i64)], status: i16) {
        for batch in leases.chunks(BATCH) {
            let results: Vec<Sent> = batch.iter().map(|lease| sent(*lease, status)).collect();
            assert_eq!(self.relay.record(&results).await.len(), if status == 200 { 0 } else { batch.len() });
        }
    }

    /// Expands, records half as delivered and half as failed, and claims what failed when it is due. Leaves nothing
    /// outstanding.
    pub(super) async fn course(&self) -> Course {
        let deliveries = BATCHES * BATCH;
        self.insert(deliveries).await;
        self.counter.start().await;
        let mut leases = Vec::new();
        for _ in 0..BATCHES {
            leases.extend(self.expand(BATCH).await);
        }
        let expand = self.counter.taken().await.of_each(BATCHES, leases.len());
        assert_eq!(leases.len(), deliveries * self.subscriptions);
        assert!(self.expand(BATCH).await.is_empty(), "this snapshot is done with");
        let (delivered, failed) = leases.split_at(leases.len() / 2);
        let calls = delivered.len() / BATCH;

        self.counter.start().await;
        self.record(delivered, 200).await;
        let record_delivered = self.counter.taken().await.of_each(calls, delivered.len());

        self.counter.start().await;
        self.record(failed, 500).await;
        let record_failed = self.counter.taken().await.of_each(calls, failed.len());

        let due: Vec<String> = failed.iter().map(|(id, seq)| format!("({id}, {seq})")).collect();
        self.app
            .run(&format!(
                "update outbox_relay.queue set next_attempt_at = now() where (subscription_id, event_seq) in ({})",
                due.join(", ")
            ))
            .await;
        self.counter.start().await;
        let mut leases = Vec::new();
        for _ in 0..calls {
            leases.extend(self.claim().await);
        }
        let claim = self.counter.taken().await.of_each(calls, leases.len());
        self.record(&leases, 200).await;
        Course { expand, record_delivered, record_failed, claim }
    }

    /// A batch of what is due, leased.
    pub(super) async fn claim(&self) -> Vec<(i64, i64)> {
        let call = Claim { lease_limit: i32::try_from(BATCH).expect("not that many"), ..Claim::default() };
        let leases = self.relay.claim(&call).await.leases;
        assert_eq!(leases.len(), BATCH);
        leases
    }

    /// What so many transactions of one statement each take, of each.
    pub(super) async fn statements(&self, sql: &str, count: usize) -> Counted {
        let statement = self.app.prepare(sql).await.expect("a statement");
        let producer = async |count: usize| {
            for n in 0..count {
                let n = i64::try_from(n).expect("not that many");
                self.app.execute(&statement, &[&n]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        };
        // The plan is made.
        producer(BATCH).await;
        self.counter.start().await;
        producer(count).await;
        self.counter.taken().await.of_each(count, count)
    }
}
