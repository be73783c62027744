//! Producers: what the plan draws, at the time it says, whether or not what came before is done.

use crate::ledger::{Fate, Ledger};
use crate::plan::{Drawn, Job, Jobs, TENANTS, TYPES};
use crate::stage::Stage;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

/// Connections, of which whichever is free takes the next transaction. Some are dawdled away.
const WRITERS: usize = 12;

/// An event that was entered in the ledger.
pub(crate) struct Entered {
    pub(crate) number: u32,
    id: Uuid,
}

/// Writes everything there is to write; returns when the last transaction has ended.
pub(crate) async fn write(stage: &Arc<Stage>, ledger: &Arc<Ledger>, jobs: Jobs) {
    let (sender, receiver) = unbounded_channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(go_on_writing(stage.clone(), ledger.clone(), receiver.clone()));
    }
    let began = Instant::from_std(ledger.start());
    for job in jobs {
        sleep_until(began + job.at).await;
        if sender.send(job).is_err() {
            break;
        }
    }
    drop(sender);
    while writers.join_next().await.is_some() {}
}

async fn go_on_writing(stage: Arc<Stage>, ledger: Arc<Ledger>, jobs: Arc<Mutex<UnboundedReceiver<Job>>>) {
    let mut writer: Option<Writer> = None;
    loop {
        let Some(job) = jobs.lock().await.recv().await else { return };
        if writer.is_none() {
            writer = Writer::new(&stage).await;
        }
        let Some(current) = &writer else { continue };
        let mut entered = vec![];
        if current.transaction(&job, &ledger, &mut entered).await.is_err() {
            writer = None;
            settle(&stage, &ledger, &entered).await;
        }
    }
}

/// The commit of these has not been answered: asks the log, which cannot change its mind once the session is gone.
pub(crate) async fn settle(stage: &Stage, ledger: &Ledger, entered: &[Entered]) {
    for event in entered {
        loop {
            let client = stage.connection().await;
            let found = client.query("select from outbox.event where event_id = $1", &[&event.id]).await;
            if let Ok(rows) = found {
                ledger.close(&[event.number], if rows.is_empty() { Fate::RolledBack } else { Fate::Committed });
                break;
            }
        }
    }
}

/// One connection.
pub(crate) struct Writer {
    client: Client,
    insert: Statement,
    publish: Statement,
}

impl Writer {
    /// None if the connection broke at once.
    pub(crate) async fn new(stage: &Stage) -> Option<Self> {
        let client = stage.connection().await;
        let insert = "insert into outbox.event (event_id, tenant_id, type, payload, ordering_key)
            values ($1, $2, $3, $4::text::jsonb, $5)";
        let publish = "select outbox.publish($3, $4::text::jsonb, tenant_id => $2, event_id => $1, ordering_key => $5,
            idempotency_key => $6)";
        let (insert, publish) = (client.prepare(insert).await.ok()?, client.prepare(publish).await.ok()?);
        Some(Self { client, insert, publish })
    }

    /// If this fails, those in `entered` are in doubt; all others of it are settled.
    async fn transaction(&self, job: &Job, ledger: &Ledger, entered: &mut Vec<Entered>) -> Result<(), Error> {
        let (mut kept, mut undone) = (vec![], vec![]);
        let written = self.write(job, ledger, &mut kept, &mut undone).await;
        let numbers = |events: &[Entered]| events.iter().map(|event| event.number).collect::<Vec<_>>();
        ledger.close(&numbers(&undone), Fate::RolledBack);
        if let Err(error) = written {
            ledger.close(&numbers(&kept), Fate::RolledBack);
            return Err(error);
        }
        sleep(job.dawdles).await;
        self.end(job.commits, ledger, kept, entered).await
    }

    /// Ends the transaction that is open.
    pub(crate) async fn end(
        &self,
        commits: bool,
        ledger: &Ledger,
        kept: Vec<Entered>,
        in_doubt: &mut Vec<Entered>,
    ) -> Result<(), Error> {
        let ended = self.client.batch_execute(if commits { "commit" } else { "rollback" }).await;
        let fate = match (&ended, commits) {
            (_, false) => Fate::RolledBack,
            (Ok(()), true) => Fate::Committed,
            (Err(_), true) => Fate::InDoubt,
        };
        ledger.close(&kept.iter().map(|event| event.number).collect::<Vec<_>>(), fate);
        if fate == Fate::InDoubt {
            in_doubt.extend(kept);
        }
        ended
    }

    pub(crate) async fn begin(&self) -> Result<(), Error> {
        self.client.batch_execute("begin").await
    }

    async fn write(
        &self,
        job: &Job,
        ledger: &Ledger,
        kept: &mut Vec<Entered>,
        undone: &mut Vec<Entered>,
    ) -> Result<(), Error> {
        self.begin().await?;
        for event in &job.events {
            self.insert(*event, ledger, kept).await?;
        }
        if let Some(event) = job.undone {
            self.client.batch_execute("savepoint s").await?;
            self.insert(event, ledger, undone).await?;
            self.client.batch_execute("rollback to savepoint s").await?;
        }
        Ok(())
    }

    /// Inserts an event, which is in the ledger by then.
    pub(crate) async fn insert(&self, event: Drawn, ledger: &Ledger, entered: &mut Vec<Entered>) -> Result<(), Error> {
        let number = ledger.open(event);
        let id = id_of(number);
        entered.push(Entered { number, id });
        let (tenant, kind) = (TENANTS[usize::from(event.tenant)], TYPES[usize::from(event.kind)]);
        let filler = "x".repeat(event.filler.into());
        let payload = json!({ "number": number, "amount": event.amount, "filler": filler }).to_string();
        let key = event.key.map(|key| format!("key-{key}"));
        if event.published {
            let once = format!("once-{number}");
            self.client.execute(&self.publish, &[&id, &tenant, &kind, &payload, &key, &once]).await?;
        } else {
            self.client.execute(&self.insert, &[&id, &tenant, &kind, &payload, &key]).await?;
        }
        Ok(())
    }
}

/// A version 7 UUID of now that ends with the event's number.
fn id_of(number: u32) -> Uuid {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut tail = fastrand::u128(..).to_be_bytes();
    tail[6..10].copy_from_slice(&number.to_be_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&tail[..10]);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(since.as_millis()).unwrap_or_default(), &random).into_uuid()
}

/// The number of an event, by its id as a receiver reads it.
pub(crate) fn number_of(id: &str) -> Option<u32> {
    u32::from_str_radix(id.get(28..36)?, 16).ok()
}
