//! What a producer pays: commits a second of writers that insert one event a transaction.
//!
//! Each turn stands between two turns of `bare`, and its share is of their mean: a disk that others use
//! drifts by more than what is to be seen. Turns:
//!
//! - `bare`: the same table with the same indexes, without triggers, nobody reading
//! - `asleep`: the outbox, no relay running
//! - `relay`: a relay expands every event; nobody has subscribed
//! - `delivering`: a relay delivers every event to the sink, on the same cores
//! - `notify`: the bare table with a plain `notify` in a trigger, the usual way

use super::stage::{Process, Stage, payload_pad};
use super::{Arguments, BenchError, Report, spread, spread_json};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// A small event, so that what is compared is the overhead.
const PAYLOAD_BYTES: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Bare,
    Asleep,
    Relay,
    Delivering,
    Notify,
}

const TURNS: [(Turn, &str); 4] =
    [(Turn::Asleep, "asleep"), (Turn::Relay, "relay"), (Turn::Delivering, "delivering"), (Turn::Notify, "notify")];

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let sink = stage.sink().await?;
    for table in ["bare", "notify"] {
        stage
            .client
            .batch_execute(&format!(
                "create table bench.{table} (like outbox.event including defaults including indexes) partition by range (event_seq);
                 create table bench.{table}_s0 partition of bench.{table} for values from (0) to (10000000000);
                 create table bench.{table}_default partition of bench.{table} default"
            ))
            .await?;
    }
    stage
        .client
        .batch_execute(
            "create function bench.ring() returns trigger language plpgsql as $$ begin perform pg_notify('bench', ''); return null; end $$;
             create trigger ring after insert on bench.notify for each statement execute function bench.ring()",
        )
        .await?;
    let (mut bare_rates, mut rates, mut shares) = (vec![], vec![vec![]; TURNS.len()], vec![vec![]; TURNS.len()]);
    for _ in 0..arguments.runs {
        let mut before = measure(stage, arguments, Turn::Bare, sink).await?;
        for (i, (turn, _)) in TURNS.iter().enumerate() {
            let rate = measure(stage, arguments, *turn, sink).await?;
            let after = measure(stage, arguments, Turn::Bare, sink).await?;
            rates[i].push(rate);
            shares[i].push(rate / ((before + after) / 2.0));
            bare_rates.push(after);
            before = after;
        }
    }
    let bare = spread(&mut bare_rates);
    let (mut lines, mut value) = (vec![], Map::new());
    lines.push(format!(
        "{} writers, one event of {PAYLOAD_BYTES} bytes a transaction; medians of {} turns of {} s",
        arguments.clients, arguments.runs, arguments.seconds
    ));
    lines.push(format!("bare       {:>7.0} commits/s  ({:.0} to {:.0})", bare.1, bare.0, bare.2));
    value.insert("clients".into(), arguments.clients.into());
    value.insert("bare".into(), json!({ "commits_per_s": spread_json(bare) }));
    for (i, (_, name)) in TURNS.iter().enumerate() {
        let (rate, share) = (spread(&mut rates[i]), spread(&mut shares[i]));
        lines.push(format!(
            "{name:<11}{:>7.0} commits/s  {:.2} of bare  ({:.2} to {:.2})",
            rate.1, share.1, share.0, share.2
        ));
        value.insert((*name).into(), json!({ "commits_per_s": spread_json(rate), "of_bare": spread_json(share) }));
    }
    Ok((lines, Value::Object(value)))
}

async fn measure(stage: &Stage, arguments: &Arguments, turn: Turn, sink: u16) -> Result<f64, BenchError> {
    let table = match turn {
        Turn::Bare => "bench.bare",
        Turn::Notify => "bench.notify",
        Turn::Asleep | Turn::Relay | Turn::Delivering => "outbox.event",
    };
    stage.subscribe(sink, u64::from(turn == Turn::Delivering)).await?;
    let relay: Option<Process> = match turn {
        Turn::Relay | Turn::Delivering => Some(stage.relay().await?),
        Turn::Bare | Turn::Asleep | Turn::Notify => None,
    };
    let pad = payload_pad(PAYLOAD_BYTES);
    let mut writers = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        clients.push(stage.connect().await?);
    }
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    for client in clients {
        let (pad, sql) = (
            pad.clone(),
            format!("insert into {table} (type, payload) values ('bench.event', jsonb_build_object('pad', $1::text))"),
        );
        writers.spawn(async move {
            let insert = client.prepare(&sql).await?;
            let mut commits = 0_u64;
            while Instant::now() < until {
                client.execute(&insert, &[&pad]).await?;
                commits += 1;
            }
            Ok::<_, tokio_postgres::Error>(commits)
        });
    }
    let mut commits = 0;
    while let Some(done) = writers.join_next().await {
        commits += done??;
    }
    // What was left behind is not to weigh on the next turn.
    if relay.is_none() && table == "outbox.event" {
        let relay = stage.relay().await?;
        stage.drained(Duration::from_secs(300)).await?;
        drop(relay);
    } else if relay.is_some() {
        stage.drained(Duration::from_secs(300)).await?;
    }
    Ok(commits as f64 / arguments.seconds as f64)
}
