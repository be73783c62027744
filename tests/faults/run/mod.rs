//! One run: writers write, relays deliver, faults happen, and in the end the books are compared.

mod injector;
pub(crate) mod ledger;
pub(crate) mod plan;
mod stage;
pub(crate) mod verdict;
mod wire;
mod writers;

pub(crate) use injector::Happened;
pub(crate) use stage::Server;

use fastrand::Rng;
use plan::Plan;
use stage::Stage;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use verdict::Verdict;
use writers::Writer;

/// What came of a run, and what its relays logged.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) happened: Vec<Happened>,
    pub(crate) verdict: Verdict,
    pub(crate) logs: Vec<String>,
}

/// Plays the plan. Whatever is wrong in the end is in the verdict.
pub(crate) async fn play(server: Arc<Server>, plan: Plan) -> Outcome {
    let stage = Stage::set(server, &plan).await;
    stage.session().await.batch_execute(plan.sabotage.0).await.expect("the sabotage");
    let (stop, _) = watch::channel(false);
    let mut writers = JoinSet::new();
    for number in 0..plan.writers {
        let rng = Rng::with_seed(plan.seed ^ (number as u64 + 1) << 32);
        let writer = Writer { url: stage.url(), ledger: stage.ledger.clone(), number, rng };
        writers.spawn(writer.run(stop.subscribe()));
    }
    let supervisor = tokio::spawn({
        let stage = stage.clone();
        async move { stage.supervise().await }
    });
    let (happened, mut problems) = injector::inject(&stage, &plan).await;
    stop.send_replace(true);
    while let Some(ended) = writers.join_next().await {
        problems.extend(ended.err().map(|error| format!("a writer failed: {error}")));
    }
    let mut verdict = verdict::judge(&stage, &happened, &plan).await;
    verdict.problems.splice(0..0, problems);
    supervisor.abort();
    let mut logs = std::mem::take(&mut *stage.deserters.lock().expect("no panic"));
    verdict.problems.extend(logs.iter().map(|log| {
        let last = log.lines().last().unwrap_or_default();
        format!("a relay that had worked ended by itself: {last}")
    }));
    logs.extend(stage.strike().await);
    Outcome { plan, happened, verdict, logs }
}
