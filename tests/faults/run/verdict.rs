//! The books compared: what was committed, what arrived, what the database says of it.

use super::injector::Happened;
use super::ledger::{Fate, Request, Written, paths};
use super::plan::{Kind, Plan};
use super::stage::Stage;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_postgres::{Client, Error};

/// A result that was received, and not recorded within so long, was lost to a fault that came then.
const UNRECORDED: Duration = Duration::from_secs(5);
/// What a lost connection brings about comes with the next ticks.
const NOTICED: Duration = Duration::from_secs(2);

/// So long after a fault what it undid is sent again.
const MADE_GOOD: Duration = Duration::from_secs(15);

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Committed events.
    pub(crate) events: usize,
    /// Of transactions that were rolled back, or never ended.
    pub(crate) rolled_back: usize,
    /// The answer to whose commit was lost: of those the log says what they became.
    pub(crate) unknown: usize,
    pub(crate) deliveries: usize,
    pub(crate) requests: usize,
    /// Deliveries that a committed event should have led to and that never were accepted.
    pub(crate) lost: usize,
    /// Accepted again after having been accepted.
    pub(crate) duplicates: usize,
    pub(crate) unexplained: usize,
    /// Of the others, how many each kind of fault explains; one may be explained by several.
    pub(crate) explained_by: BTreeMap<Kind, usize>,
    /// What should not be.
    pub(crate) problems: Vec<String>,
}

type Delivery = (String, String);

/// Waits until nothing is left to do, and compares.
pub(crate) async fn judge(stage: &Stage, happened: &[Happened], plan: &Plan) -> Verdict {
    let mut verdict = Verdict::default();
    let client = stage.session().await;
    for statement in ["", plan.sabotage.1] {
        client.batch_execute(statement).await.expect("the sabotage");
        if let Err(problem) = settle(&client, plan.patience).await {
            verdict.problems.push(problem);
        }
    }
    match compare(stage, &client, happened, &mut verdict).await {
        Ok(()) => verdict,
        Err(error) => {
            verdict.problems.push(format!("the database could not be asked: {error}"));
            verdict
        }
    }
}

async fn settle(client: &Client, patience: Duration) -> Result<(), String> {
    let open = "select (select count(*) from outbox_relay.queue) + (select unexpanded_events from outbox.status())";
    let began = Instant::now();
    loop {
        let open: i64 = client.query_one(open, &[]).await.map_err(|error| error.to_string())?.get(0);
        if open == 0 {
            return Ok(());
        }
        if began.elapsed() > patience {
            let stuck = "select string_agg(format('%s/%s %s %s', subscription_id, event_seq, state, last_error), ', ') from outbox.delivery where state not in ('succeeded', 'dead_letter')";
            let stuck: Option<String> = client.query_one(stuck, &[]).await.ok().and_then(|row| row.get(0));
            return Err(format!("{open} are stuck: {}", stuck.unwrap_or_default()));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn compare(stage: &Stage, client: &Client, happened: &[Happened], verdict: &mut Verdict) -> Result<(), Error> {
    let rows = client.query("select event_id::text, event_seq from outbox.event", &[]).await?;
    let log: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (written, requests) = (stage.ledger.written(), stage.ledger.requests());
    let mut accepted: HashMap<Delivery, Vec<&Request>> = HashMap::new();
    for request in requests.iter().filter(|request| request.accepted.is_some()) {
        accepted.entry((request.path.clone(), request.event_id.clone())).or_default().push(request);
    }
    for event in &written {
        let (is_there, id) = (log.contains_key(&event.id), &event.id);
        match event.fate {
            Fate::Committed(_) if !is_there => {
                let arrived = |path: &str| accepted.contains_key(&(path.to_owned(), id.clone()));
                verdict.lost += paths(event).filter(|path| !arrived(path)).count();
                verdict.problems.push(format!("{id} was committed and is not in the log"))
            }
            Fate::RolledBack if is_there => verdict.problems.push(format!("{id} was rolled back and is in the log")),
            Fate::Unknown => verdict.unknown += 1,
            Fate::Open => verdict.problems.push(format!("the writer of {id} did not say what became of it")),
            _ => {}
        }
    }
    let committed: Vec<&Written> = written.iter().filter(|event| log.contains_key(&event.id)).collect();
    let wanted: HashSet<Delivery> =
        committed.iter().flat_map(|event| paths(event).map(|path| (path.to_owned(), event.id.clone()))).collect();
    verdict.events = committed.len();
    verdict.rolled_back = written.len() - committed.len();
    verdict.deliveries = wanted.len();
    verdict.requests = requests.len();
    for delivery in wanted.iter().filter(|delivery| !accepted.contains_key(*delivery)) {
        verdict.lost += 1;
        verdict.problems.push(format!("{} was never accepted at {}", delivery.1, delivery.0));
    }
    for request in requests.iter().filter(|r| !wanted.contains(&(r.path.clone(), r.event_id.clone()))) {
        verdict.problems.push(format!("{} was sent to {}, which was not to have it", request.event_id, request.path));
    }
    for (delivery, requests) in &accepted {
        for (n, again) in requests.iter().enumerate().skip(1) {
            verdict.duplicates += 1;
            let explaining: BTreeSet<Kind> =
                requests[..n].iter().flat_map(|earlier| explaining(earlier, again, happened)).collect();
            for kind in &explaining {
                *verdict.explained_by.entry(*kind).or_default() += 1;
            }
            if explaining.is_empty() {
                verdict.unexplained += 1;
                verdict
                    .problems
                    .push(format!("{} was accepted twice at {}, and no fault explains it", delivery.1, delivery.0));
            }
        }
    }
    in_order(&committed, &accepted, verdict);
    let mut refused: HashMap<Delivery, usize> = HashMap::new();
    for request in requests.iter().filter(|request| request.accepted.is_none()) {
        *refused.entry((request.path.clone(), request.event_id.clone())).or_default() += 1;
    }
    in_the_database(client, &wanted, (&accepted, &refused), happened, verdict).await
}

/// Faults that may lead to a second request, befell the relay of the first one between its sending and its recording,
/// and were made good when the second came.
pub(crate) fn explaining(first: &Request, again: &Request, happened: &[Happened]) -> impl Iterator<Item = Kind> {
    let accepted = first.accepted.unwrap_or(first.at);
    happened
        .iter()
        .filter(move |fault| {
            fault.kind.may_send_twice()
                && fault.relay.is_none_or(|relay| relay == first.relay)
                && fault.began <= (accepted + UNRECORDED).min(again.at)
                && fault.over + NOTICED >= first.at
                && again.at <= fault.over.max(accepted) + MADE_GOOD
        })
        .map(|fault| fault.kind)
}

/// Of one key, what was written later is accepted first after what was written earlier.
fn in_order(committed: &[&Written], accepted: &HashMap<Delivery, Vec<&Request>>, verdict: &mut Verdict) {
    let mut last: HashMap<(&str, &str), Instant> = HashMap::new();
    for event in committed {
        let Some(key) = &event.key else { continue };
        let Some(requests) = accepted.get(&("/keys".to_owned(), event.id.clone())) else { continue };
        let at = requests[0].at;
        if last.insert((event.tenant, key), at).is_some_and(|before| at < before) {
            verdict.problems.push(format!("{} was sent before an earlier event of its key {key}", event.id));
        }
    }
}

/// The database's own books.
async fn in_the_database(
    client: &Client,
    wanted: &HashSet<Delivery>,
    (accepted, refused): (&HashMap<Delivery, Vec<&Request>>, &HashMap<Delivery, usize>),
    happened: &[Happened],
    verdict: &mut Verdict,
) -> Result<(), Error> {
    let unaccounted: i64 = client.query_one("select count(*) from outbox.unaccounted()", &[]).await?.get(0);
    if unaccounted > 0 {
        verdict.problems.push(format!("outbox.unaccounted() has {unaccounted} rows"));
    }
    let rows = client
        .query(
            "select '/' || split_part(s.url, '/', 4), e.event_id::text, d.state, count(a.attempt) filter (where a.outcome = 'delivered'),
                    count(a.attempt) filter (where a.outcome = 'rejected'), count(a.attempt)
             from outbox.delivery d join outbox.subscription s using (subscription_id) join outbox.event e using (event_seq)
             left join outbox.attempt a using (subscription_id, event_seq)
             group by d.subscription_id, d.event_seq, s.url, e.event_id, d.state",
            &[],
        )
        .await?;
    // Where nothing could make anybody send twice and nobody is told to stop, each request is in the log, and nothing else.
    let forgets = |kind: Kind| kind.may_send_twice() || kind == Kind::RelayTerminated;
    let is_whole = !happened.iter().any(|fault| forgets(fault.kind));
    let may_record_twice = happened.iter().any(|fault| fault.kind.may_record_twice());
    let mut seen = HashSet::new();
    for row in &rows {
        let (delivery, state, delivered): (Delivery, String, i64) = ((row.get(0), row.get(1)), row.get(2), row.get(3));
        let rejected = usize::try_from(row.get::<_, i64>(4)).unwrap_or_default();
        let name = format!("the delivery of {} to {}", delivery.1, delivery.0);
        if state != "succeeded" {
            verdict.problems.push(format!("{name} is {state}"));
        }
        if !wanted.contains(&delivery) {
            verdict.problems.push(format!("{name} should not be"));
        }
        // What was recorded has been received; what was received may not have been recorded.
        let received = accepted.get(&delivery).map_or(0, Vec::len);
        let delivered = usize::try_from(delivered).unwrap_or_default();
        if delivered == 0 || delivered > received {
            verdict
                .problems
                .push(format!("{name} was accepted {received} times and is recorded as delivered {delivered} times"));
        }
        let not_taken = refused.get(&delivery).copied().unwrap_or_default();
        if rejected > not_taken {
            verdict.problems.push(format!(
                "{name} was answered otherwise than with 200 {not_taken} times and is recorded as rejected {rejected} times"
            ));
        }
        if delivered > 1 && !may_record_twice {
            verdict.problems.push(format!("{name} is recorded as delivered {delivered} times, and nobody was fenced"));
        }
        let logged = usize::try_from(row.get::<_, i64>(5)).unwrap_or_default();
        if is_whole && logged != received + not_taken {
            verdict
                .problems
                .push(format!("{name} has {logged} attempts in the log for {} requests", received + not_taken));
        }
        if !seen.insert(delivery) {
            verdict.problems.push(format!("{name} is there twice"));
        }
    }
    if seen.len() < wanted.len() {
        verdict.problems.push(format!("{} deliveries are not in the database", wanted.len() - seen.len()));
    }
    Ok(())
}
