//! Something runs out or breaks while events are written, and comes back: what was committed meanwhile, and what of it
//! arrived.

use super::{Session, Sink, note_scenario};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::NoTls;

/// What a writer knows of what it wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Ids of the events whose commit was answered.
    pub(crate) committed: BTreeSet<String>,
    /// SQLSTATEs of the inserts that were refused; `-` where the connection broke or could not be had.
    pub(crate) refused: BTreeSet<String>,
}

/// A producer in the background: one event a transaction, each after a pause, with a new connection where one broke.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

impl Writer {
    pub(crate) fn start(url: &str, pause: Duration) -> Self {
        let (stop, url) = (Arc::new(AtomicBool::new(false)), url.to_owned());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut written, mut client) = (Written::default(), None);
            while !stopped.load(Ordering::SeqCst) {
                if client.is_none() {
                    match tokio_postgres::connect(&url, NoTls).await {
                        Ok((connected, connection)) => {
                            tokio::spawn(connection);
                            client = Some(connected);
                        }
                        Err(error) => drop(written.refused.insert(code(&error))),
                    }
                }
                if let Some(connected) = &client {
                    // Of random text, which does not become smaller.
                    let sql = "insert into outbox.event (type, payload)
                        select 'order.created', jsonb_build_object('pad', string_agg(md5(random()::text), '')) from generate_series(1, 60)
                        returning event_id::text";
                    match connected.query_one(sql, &[]).await {
                        Ok(row) => drop(written.committed.insert(row.get(0))),
                        Err(error) => {
                            written.refused.insert(code(&error));
                            client = client.filter(|client| !client.is_closed());
                        }
                    }
                }
                sleep(pause).await;
            }
            written
        });
        Self { stop, task }
    }

    /// Stops it; what it wrote.
    pub(crate) async fn stop(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("the writer ends")
    }
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or("-", |code| code.code()).to_owned()
}

/// A fault, from the moment in which what had run out is there again.
pub(crate) struct Outage {
    fault: &'static str,
    back_at: Instant,
}

impl Outage {
    /// What had run out is back.
    pub(crate) fn is_over(fault: &'static str) -> Self {
        Self { fault, back_at: Instant::now() }
    }

    /// Waits until everything committed has arrived and is recorded; one line about it to standard output and to
    /// `target/faults/scenarios.txt`. Nothing is lost; returns how many arrived though they had been
    /// accepted before.
    pub(crate) async fn recovered(self, session: &Session, sink: &Sink, committed: &BTreeSet<String>) -> usize {
        let outstanding = "select unexpanded_events + pending + leased + failed from outbox.status()";
        session.wait_until(&format!("select ({outstanding}) = 0")).await;
        let took_ms = self.back_at.elapsed().as_millis();
        let arrived = sink.arrived();
        let times = sink.times();
        let lost: Vec<_> = committed.iter().filter(|id| !times.contains_key(*id)).collect();
        let once: BTreeSet<_> = arrived.iter().map(|a| (&a.path, a.event_id())).collect();
        // What the receiver refused had to come again.
        let refused: i64 = session.one("select count(*) from outbox.attempt where outcome = 'rejected'").await;
        let twice = (arrived.len() - once.len()).saturating_sub(usize::try_from(refused).expect("a count"));
        let fault = self.fault;
        note_scenario(&format!(
            "fault {fault}: recovered in {took_ms} ms, {} events, {} lost, {twice} sent twice",
            committed.len(),
            lost.len()
        ));
        assert!(lost.is_empty(), "{fault}: committed and not delivered: {lost:?}");
        session.assert_accounted().await;
        twice
    }
}
