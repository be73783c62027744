//! SQL without HTTP: a backlog is expanded and recorded by a loop like the relay's, with one call of each under way.
//! A delivery's result is that of an attempt which was really made, so that the rows are as long as real ones.

use super::super::meter::Meter;
use super::super::stage::Stage;
use super::{BenchError, Measured, Parts};
use crate::cli::run::database;
use crate::db::{Db, DbError, Expand, Expanded, Finished, Recorded, Room};
use crate::metrics::Metrics;
use crate::wake::{Direct, Identity};
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;

/// Results of one record at most: what is ready meanwhile, as in the relay.
const RECORD: usize = 512;
const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "bench-sql";

/// Deliveries without a request each.
pub(super) async fn run(stage: &Stage, parts: &Parts, deliveries: u64, batch: i32) -> Result<Measured, BenchError> {
    let target = parts.config.database.listen_settings()?;
    let environment = &parts.config.relay.environment;
    let direct = Direct::open(&target, &Identity { name: NAME, environment }, false, None).await?;
    let sample = parts.attempt(0).await;
    // Its connections are not to outlive this: a relay is measured alone.
    let db = database(&parts.config, &Metrics::default())?;
    stage.fill(deliveries).await?;
    stage.checkpoint().await?;
    let finished = stage.finished().await?;
    let meter = Meter::start(stage, &[]).await?;
    drain(&db, direct.epoch, &sample, batch).await?;
    let used = meter.read(stage, &[]).await?;
    db.fence(direct.epoch).await?;
    match stage.finished().await? - finished {
        recorded if recorded == deliveries => Ok(Measured { own_s: used.bench_s, count: deliveries as f64, used }),
        recorded => Err(format!("of {deliveries} deliveries {recorded} were recorded").into()),
    }
}

/// A call that has come back.
enum Done {
    Expanded(Result<Option<Expanded>, DbError>),
    Recorded(Result<Recorded, DbError>),
}

/// Expands and records until nothing is left.
async fn drain(db: &Db, epoch: i32, sample: &Finished, events: i32) -> Result<(), BenchError> {
    let mut results: Vec<Finished> = vec![];
    let mut calls = JoinSet::new();
    let (mut more, mut expanding, mut under_record) = (true, false, 0);
    let call = Expand {
        events: events.unsigned_abs() as usize,
        skip_filters: false,
        slow: Vec::new(),
        patience: PATIENCE,
        keep_back: Duration::ZERO,
    };
    loop {
        if under_record == 0 && !results.is_empty() {
            let batch: Vec<_> = results.drain(..results.len().min(RECORD)).collect();
            under_record = batch.len();
            let db = db.clone();
            calls.spawn(async move { Done::Recorded(db.record(epoch, NAME, &batch).await) });
        }
        if !expanding && more && results.len() < RECORD {
            expanding = true;
            let room = room(sample.subscription_id, events, results.len() + under_record);
            let (db, call) = (db.clone(), call.clone());
            calls.spawn(async move { Done::Expanded(db.expand(epoch, &room, &call).await) });
        }
        let Some(done) = calls.join_next().await else { return Ok(()) };
        match done? {
            Done::Recorded(recorded) => {
                under_record = 0;
                if !recorded?.failed.is_empty() {
                    return Err("a result was not accepted".into());
                }
            }
            Done::Expanded(expanded) => {
                expanding = false;
                let expanded = expanded?.ok_or("nothing is handed out")?;
                more = expanded.more || expanded.events > 0;
                let started_at = SystemTime::now();
                results.extend(expanded.leases.iter().map(|lease| Finished {
                    event_seq: lease.event_seq,
                    event_id: lease.event.as_ref().map(|event| event.id),
                    started_at,
                    ..sample.clone()
                }));
            }
        }
    }
}

/// Room for one more batch.
fn room(subscription_id: i64, leases: i32, busy: usize) -> Room {
    let busy = i32::try_from(busy).unwrap_or(i32::MAX);
    Room { leases, max_in_flight: i32::MAX, busy_ids: vec![subscription_id], busy_counts: vec![busy], bytes: i64::MAX }
}
