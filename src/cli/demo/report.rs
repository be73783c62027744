//! The books are closed: what was produced, what was delivered, and whether the two agree.
//!
//! The figures come from the queries in this directory, which are printed before and can be run again
//! with `--keep`. The receivers' books are put into a table of the demo's own for that.

use super::DemoError;
use super::desk::Tally;
use super::narrator::Narrator;
use super::receivers::Receiver;
use super::stage::Stage;

const PRODUCED: &str = include_str!("produced.sql");
const DELIVERED: &str = include_str!("delivered.sql");
const UNDONE: &str = include_str!("undone.sql");
const UNACCOUNTED: &str = include_str!("unaccounted.sql");

/// What the story knows and the books must show.
pub(super) struct Known {
    /// Transactions of the application.
    pub(super) tally: Tally,
    /// What `outbox.replay_failed` said it replayed.
    pub(super) replayed: i64,
    /// Requests that were taken by a receiver when the relay was killed, at least.
    pub(super) in_hand_at_kill: usize,
    /// Requests forged by the demo.
    pub(super) forged: u32,
}

/// Prints the books; returns what does not agree.
pub(super) async fn close_the_books(
    stage: &Stage,
    narrator: &Narrator,
    receivers: &[Receiver],
    known: &Known,
) -> Result<Vec<String>, DemoError> {
    copy_books(stage, receivers).await?;
    for query in [PRODUCED, DELIVERED, UNDONE, UNACCOUNTED] {
        narrator.gap();
        narrator.typed(query);
    }
    narrator.gap();
    let mut wrong = Vec::new();
    let events = produced(stage, narrator, &mut wrong).await?;
    delivered(stage, narrator, known, &mut wrong).await?;
    totals(stage, narrator, receivers, known, events, &mut wrong).await?;
    Ok(wrong)
}

/// Brings the table `demo.received` up to what each receiver has verified and accepted.
pub(super) async fn copy_books(stage: &Stage, receivers: &[Receiver]) -> Result<(), DemoError> {
    stage
        .admin
        .batch_execute(
            "set client_min_messages = warning;
             create schema if not exists demo;
             create table if not exists demo.received (receiver text, event_id uuid, times integer, primary key (receiver, event_id))",
        )
        .await?;
    for receiver in receivers {
        let book = receiver.book();
        let (ids, times): (Vec<String>, Vec<i32>) =
            book.accepted.into_iter().map(|(id, times)| (id, times as i32)).unzip();
        let copy = "insert into demo.received as r select $1, * from unnest($2::text[]::uuid[], $3::integer[])
                    on conflict (receiver, event_id) do update set times = excluded.times where r.times <> excluded.times";
        stage.admin.execute(copy, &[&receiver.name, &ids, &times]).await?;
    }
    Ok(())
}

async fn produced(stage: &Stage, narrator: &Narrator, wrong: &mut Vec<String>) -> Result<i64, DemoError> {
    narrator.row(format_args!("{:<24}{:>22}{:>18}", "type", "rows in petanque", "events in the log"));
    let mut total = 0;
    for row in stage.admin.query(PRODUCED, &[]).await? {
        let (kind, facts, events): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        narrator.row(format_args!("{kind:<24}{facts:>22}{events:>18}"));
        if facts != events {
            wrong.push(format!("{kind}: {facts} rows in the application's tables, {events} events"));
        }
        total += events;
    }
    narrator.gap();
    Ok(total)
}

async fn delivered(
    stage: &Stage,
    narrator: &Narrator,
    known: &Known,
    wrong: &mut Vec<String>,
) -> Result<(), DemoError> {
    narrator.row(format_args!(
        "{:<18}{:>10}{:>11}{:>12}{:>10}{:>13}",
        "receiver", "matching", "delivered", "duplicates", "replayed", "unaccounted"
    ));
    let (mut duplicates, mut replayed) = (0, 0);
    for row in stage.admin.query(DELIVERED, &[]).await? {
        let receiver: String = row.get("receiver");
        let count = |column: &str| row.get::<_, i64>(column);
        narrator.row(format_args!(
            "{receiver:<18}{:>10}{:>11}{:>12}{:>10}{:>13}",
            count("matching"),
            count("delivered"),
            count("duplicates"),
            count("replayed"),
            count("unaccounted")
        ));
        if count("matching") != count("delivered") || count("unaccounted") != 0 {
            wrong.push(format!(
                "{receiver}: {} events match, {} were delivered, {} are unaccounted for",
                count("matching"),
                count("delivered"),
                count("unaccounted")
            ));
        }
        duplicates += count("duplicates");
        replayed += count("replayed");
    }
    if replayed != known.replayed {
        wrong.push(format!("{} dead letters were replayed, {replayed} of them delivered", known.replayed));
    }
    // Each delivery was logged as delivered once; what receivers accepted beyond that, the killed relay
    // had sent and not recorded.
    let logged = "select count(*) from outbox.attempt where outcome = 'delivered'";
    let logged: i64 = stage.admin.query_one(logged, &[]).await?.get(0);
    let accepted: i64 = stage.admin.query_one("select sum(times)::bigint from demo.received", &[]).await?.get(0);
    if accepted - logged != duplicates {
        wrong.push(format!("receivers accepted {accepted} requests, the log has {logged}: that explains not all of {duplicates} duplicates"));
    }
    let own_faults = "select count(*) from outbox.attempt where outcome = 'relay_error'";
    let own_faults: i64 = stage.admin.query_one(own_faults, &[]).await?.get(0);
    if own_faults != 0 {
        wrong.push(format!("{own_faults} attempts failed by the relay's own fault"));
    }
    if duplicates < known.in_hand_at_kill as i64 {
        wrong.push(format!(
            "{} requests were under way at the kill, only {duplicates} came again",
            known.in_hand_at_kill
        ));
    }
    narrator.gap();
    narrator.say(format_args!(
        "Matching are events, delivered those of them that the receiver verified and accepted. Replayed are the \
         dead letters that arrived after outbox.replay_failed. The {duplicates} duplicates were sent by the relay \
         that was killed and not yet recorded by it, so they were sent again; a receiver knows them by the event \
         id, which stays the same."
    ));
    narrator.gap();
    Ok(())
}

async fn totals(
    stage: &Stage,
    narrator: &Narrator,
    receivers: &[Receiver],
    known: &Known,
    events: i64,
    wrong: &mut Vec<String>,
) -> Result<(), DemoError> {
    let row = stage.admin.query_one(UNDONE, &[]).await?;
    let (undone, in_the_log, at_receivers): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let unaccounted: i64 = stage.admin.query_one(UNACCOUNTED, &[]).await?.get(0);
    let refused: u32 = receivers.iter().map(|receiver| receiver.book().refused).sum();
    let tally = &known.tally;

    let line = |label: &str, figure: &dyn std::fmt::Display| narrator.row(format_args!("{label:<52}{figure:>8}"));
    let publishing = "select count(distinct xact::text) from outbox.event";
    let publishing: i64 = stage.admin.query_one(publishing, &[]).await?.get(0);
    line("transactions committed, by the application's count", &tally.committed);
    line("   of these with events, by the log", &publishing);
    line("   of these without: forms that had come before", &tally.repeated);
    line("transactions rolled back", &tally.rolled_back_total());
    for (reason, count) in &tally.rolled_back {
        line(&format!("   {reason}"), count);
    }
    line("events produced", &events);
    line("events undone by rollbacks", &undone);
    line("   of these in the log", &in_the_log);
    line("   of these at receivers", &at_receivers);
    line("requests refused for their signature (we forged one)", &refused);
    line("outbox.unaccounted()", &unaccounted);

    if i64::from(tally.committed - tally.repeated) != publishing {
        wrong
            .push(format!("{} transactions should have published, {publishing} did", tally.committed - tally.repeated));
    }
    if undone != i64::from(tally.rolled_back_total() + tally.savepoints) {
        wrong.push(format!("{} rollbacks undid {undone} events", tally.rolled_back_total() + tally.savepoints));
    }
    if (in_the_log, at_receivers) != (0, 0) {
        wrong.push(format!(
            "of the events undone by rollbacks {in_the_log} are in the log and {at_receivers} at receivers"
        ));
    }
    if refused != known.forged {
        wrong.push(format!("{refused} requests were refused for their signature, {} were forged", known.forged));
    }
    if unaccounted != 0 {
        wrong.push(format!("outbox.unaccounted() has {unaccounted} rows"));
    }
    Ok(())
}
