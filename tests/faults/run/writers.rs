//! The application: transactions of a few events, some with savepoints that are rolled back alone, some that dawdle.

use super::ledger::{Fate, Ledger, Written};
use fastrand::Rng;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::{Client, Error, NoTls};

/// Ends with its session.
pub(crate) async fn connect(url: &str) -> Client {
    loop {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            tokio::spawn(connection);
            return client;
        }
        // The server is away.
        sleep(Duration::from_millis(20)).await;
    }
}

/// One writer: what it writes, it has entered before.
pub(crate) struct Writer {
    pub(crate) url: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) number: usize,
    pub(crate) rng: Rng,
}

impl Writer {
    /// Writes until it is told to stop.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut client = connect(&self.url).await;
        while !*stop.borrow_and_update() {
            if self.transaction(&client).await.is_err() {
                client = connect(&self.url).await;
            }
            sleep(Duration::from_millis(self.rng.u64(..30))).await;
        }
    }

    async fn transaction(&mut self, client: &Client) -> Result<(), Error> {
        let (mut kept, mut undone) = (Vec::new(), Vec::new());
        let commits = self.rng.u8(..5) > 0;
        let written = self.write(client, &mut kept, &mut undone).await;
        let ended = match written {
            // Most are quick; some dawdle with their events written and not committed.
            Ok(()) => {
                if self.rng.u8(..8) == 0 {
                    sleep(Duration::from_millis(self.rng.u64(..700))).await;
                }
                client.batch_execute(if commits { "commit" } else { "rollback" }).await
            }
            Err(error) => {
                self.ledger.close(&kept, Fate::RolledBack);
                self.ledger.close(&undone, Fate::RolledBack);
                return Err(error);
            }
        };
        self.ledger.close(&undone, Fate::RolledBack);
        self.ledger.close(&kept, Fate::of(&ended, commits));
        ended
    }

    async fn write(&mut self, client: &Client, kept: &mut Vec<usize>, undone: &mut Vec<usize>) -> Result<(), Error> {
        client.batch_execute("begin").await?;
        for _ in 0..self.rng.usize(1..=4) {
            self.insert(client, kept).await?;
            if self.rng.u8(..6) == 0 {
                client.batch_execute("savepoint s").await?;
                self.insert(client, undone).await?;
                client.batch_execute("rollback to savepoint s").await?;
            }
        }
        Ok(())
    }

    /// Inserts an event that is in the ledger by then.
    pub(crate) async fn insert(&mut self, client: &Client, entered: &mut Vec<usize>) -> Result<(), Error> {
        let kinds = ["order.created", "order.paid", "invoice.sent"];
        let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
        let random = self.rng.u128(..).to_be_bytes();
        let (millis, random) = (u64::try_from(since.as_millis()).expect("not that late"), &random[..10]);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, random.try_into().expect("ten bytes")).into_uuid();
        let key = (self.rng.u8(..3) == 0).then(|| format!("{}-{}", self.number, self.rng.u8(..3)));
        let event = Written {
            id: id.to_string(),
            tenant: if self.rng.u8(..4) == 0 { "b" } else { "a" },
            kind: kinds[self.rng.usize(..kinds.len())],
            n: self.rng.i32(..100),
            key,
            fate: Fate::Open,
        };
        // What has a key keeps its order: neither hurried nor held back.
        let is_free = event.key.is_none();
        let (priority, waits): (i16, bool) =
            (if is_free && self.rng.u8(..10) == 0 { 5 } else { 0 }, is_free && self.rng.u8(..20) == 0);
        let sql = format!(
            "insert into outbox.event (event_id, tenant_id, type, payload, ordering_key, priority, deliver_at)
             values ($1, $2, $3, jsonb_build_object('n', $4::int4), $5, $6, {})",
            if waits { "now() + interval '200 milliseconds'" } else { "null" }
        );
        entered.push(self.ledger.open(event.clone()));
        client.execute(&sql, &[&id, &event.tenant, &event.kind, &event.n, &event.key, &priority]).await.map(drop)
    }
}
