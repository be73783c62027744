//! Does what the plan says, and notes when.

use super::ledger::{Answers, Fate};
use super::plan::{Fault, Kind, Order, Plan};
use super::stage::Stage;
use super::writers::Writer;
use crate::support::signal;
use fastrand::Rng;
use outboxd::schema::describe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Error;

/// A fault that happened.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) kind: Kind,
    /// Whose it was, if it was one relay's.
    pub(crate) relay: Option<usize>,
    pub(crate) began: Instant,
    pub(crate) over: Instant,
    /// Whether there was somebody whom it befell.
    pub(crate) had_effect: bool,
    /// From its end until all had arrived that was committed by then; in turn only.
    pub(crate) recovered: Option<Duration>,
}

/// All faults of the plan, and everything mended afterwards. What happened, and what was wrong with it.
pub(crate) async fn inject(stage: &Arc<Stage>, plan: &Plan) -> (Vec<Happened>, Vec<String>) {
    let (mut happened, mut problems) = (Vec::new(), Vec::new());
    match plan.order {
        Order::InTurn => {
            for fault in &plan.faults {
                sleep(fault.after).await;
                let (mut one, failed) = happen(stage.clone(), fault.clone()).await;
                // Nothing else is under way that could have been in its way.
                problems.extend(failed.err().map(|error| format!("{}: {}", one.kind.name(), describe(&error))));
                let recovered = recovery(stage, &one, plan.patience).await;
                one.recovered = recovered.as_ref().ok().copied();
                happened.push(one);
                if let Err(stuck) = recovered {
                    problems.push(stuck);
                    break;
                }
            }
        }
        Order::AtOnce => {
            let mut under_way = JoinSet::new();
            for fault in &plan.faults {
                sleep(fault.after).await;
                under_way.spawn(happen(stage.clone(), fault.clone()));
            }
            while let Some(one) = under_way.join_next().await {
                match one {
                    Ok((one, _)) => happened.push(one),
                    Err(error) => problems.push(format!("the injector failed: {error}")),
                }
            }
        }
    }
    (happened, problems)
}

/// How long after its end it took until what was committed by then had arrived everywhere.
async fn recovery(stage: &Stage, fault: &Happened, patience: Duration) -> Result<Duration, String> {
    loop {
        let missing = stage.ledger.missing(fault.over);
        if missing == 0 {
            return Ok(fault.over.elapsed());
        }
        if fault.over.elapsed() > patience {
            return Err(format!("{missing} events have not arrived {patience:?} after {}", fault.kind.name()));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// The fault, and whether the statements that it consists of went well: the server may be away, or go away meanwhile.
async fn happen(stage: Arc<Stage>, fault: Fault) -> (Happened, Result<(), Error>) {
    let (place, lasts) = (&stage.places[fault.relay], fault.lasts);
    let (mut began, mut had_effect, mut went) = (Instant::now(), true, Ok(()));
    match fault.kind {
        Kind::RelayKilled => {
            let mut relay = place.relay.lock().await;
            (began, had_effect) = (Instant::now(), !relay.has_ended());
            relay.kill();
            sleep(lasts).await;
            *relay = stage.start(place);
        }
        Kind::RelayStopped => {
            let relay = place.relay.lock().await;
            began = Instant::now();
            let process = [relay.id().to_string()];
            had_effect = signal("-STOP", &process);
            sleep(lasts).await;
            signal("-CONT", &process);
        }
        Kind::RelayTerminated => {
            let mut relay = place.relay.lock().await;
            began = Instant::now();
            had_effect = signal("-TERM", &[relay.id().to_string()]);
            relay.ended().await;
            sleep(lasts).await;
            *relay = stage.start(place);
        }
        Kind::ServerKilled => (began, had_effect) = stage.server.kill(lasts).await,
        Kind::ServerRestarted => (began, had_effect) = stage.server.restart().await,
        Kind::ServerStopped => (began, had_effect) = stage.server.stop_for(lasts).await,
        Kind::DatabaseCut | Kind::ReceiverCut => {
            let wire = if fault.kind == Kind::DatabaseCut { &place.wire } else { &stage.wire };
            let _turn = wire.turn.lock().await;
            began = Instant::now();
            wire.cut();
        }
        Kind::DatabaseDelayed | Kind::ReceiverDelayed => {
            let wire = if fault.kind == Kind::DatabaseDelayed { &place.wire } else { &stage.wire };
            let _turn = wire.turn.lock().await;
            began = Instant::now();
            wire.delay(Duration::from_millis(fault.seed % 150));
            sleep(lasts).await;
            wire.mend();
        }
        Kind::DatabaseHalfOpen | Kind::ReceiverHalfOpen => {
            let wire = if fault.kind == Kind::DatabaseHalfOpen { &place.wire } else { &stage.wire };
            let _turn = wire.turn.lock().await;
            began = Instant::now();
            wire.swallow();
            sleep(lasts).await;
            wire.cut();
        }
        Kind::AnswersMove => {
            stage.ledger.answer(Answers::Moving);
            sleep(lasts).await;
            stage.ledger.answer(Answers::Good);
        }
        Kind::WriterOpen => had_effect = open_writer(&stage, &fault).await,
        Kind::BackendsTerminated | Kind::PoolFilled | Kind::SnapshotHeld | Kind::BystandersChanged => {
            let done = by_statements(&stage, &fault).await;
            had_effect = matches!(done, Ok(true));
            went = done.map(drop);
        }
    }
    let relay = fault.kind.is_one_relays().then_some(fault.relay);
    (Happened { kind: fault.kind, relay, began, over: Instant::now(), had_effect, recovered: None }, went)
}

/// One transaction that has written, and whose end takes its time. Whether it has.
async fn open_writer(stage: &Stage, fault: &Fault) -> bool {
    let (ledger, rng) = (stage.ledger.clone(), Rng::with_seed(fault.seed));
    let mut writer = Writer { url: stage.url(), ledger, number: 1000, rng };
    let client = stage.session().await;
    let mut entered = Vec::new();
    let mut fate = Fate::RolledBack;
    let has_written = client.batch_execute("begin").await.is_ok() && writer.insert(&client, &mut entered).await.is_ok();
    if has_written {
        sleep(fault.lasts).await;
        let commits = fault.seed.is_multiple_of(2);
        let ended = client.batch_execute(if commits { "commit" } else { "rollback" }).await;
        fate = Fate::of(&ended, commits);
    }
    stage.ledger.close(&entered, fate);
    has_written
}

/// Whether there was anything to do it to.
async fn by_statements(stage: &Stage, fault: &Fault) -> Result<bool, Error> {
    let session = stage.session().await;
    match fault.kind {
        Kind::BackendsTerminated => {
            let share = if fault.seed.is_multiple_of(3) { 1.0 } else { 0.5 };
            let terminate = "with relays as (
                    select pid, row_number() over (order by md5(pid::text || $2)) as n, count(*) over () as of from pg_stat_activity
                    where datname = current_database() and application_name like 'outboxd%')
                select pg_terminate_backend(pid) from relays where n <= ceil(of * $1::float8)";
            return Ok(!session.query(terminate, &[&share, &fault.seed.to_string()]).await?.is_empty());
        }
        Kind::PoolFilled => {
            // Expand, claim and record wait, each in a connection of its own.
            session.batch_execute("begin; lock table outbox_relay.queue in access exclusive mode").await?;
            sleep(fault.lasts).await;
            session.batch_execute("commit").await?;
        }
        Kind::SnapshotHeld => {
            session.batch_execute("begin isolation level repeatable read; select from outbox.event limit 1").await?;
            sleep(fault.lasts).await;
            session.batch_execute("commit").await?;
        }
        _ => {
            let table = format!("public.bystander_{}", fault.seed);
            session
                .batch_execute(&format!(
                    "create table {table} as select n, md5(n::text) as text from generate_series(1, 20000) n;
                     alter table {table} add column more integer default 1, alter column n type bigint;
                     delete from {table} where n % 3 = 0;
                     create index on {table} (text)"
                ))
                .await?;
            session.batch_execute(&format!("vacuum full {table}")).await?;
            sleep(fault.lasts).await;
            session.batch_execute(&format!("drop table {table}")).await?;
        }
    }
    Ok(true)
}
