//! `outboxd demo`: a whole system on a throwaway PostgreSQL, on real input, narrated, and a check as
//! well: it fails if produced, delivered and accounted for do not agree.
//!
//! In the order of the story: `stage` (server, logins, relays), `people` and `season` over `desk` (the
//! application), `receivers` (the other side), `story` (what happens), `report` (whether it adds up).

mod desk;
mod narrator;
mod people;
mod receivers;
mod report;
mod season;
mod stage;
mod story;

use super::{Exit, fail};
use crate::config::ConfigError;
use crate::connect::ConnectError;
use crate::schema::{SchemaError, describe};
use crate::throwaway::ThrowawayError;
use narrator::Narrator;
use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

/// Flags of `outboxd demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave everything running at the end, to look around, until ^C
    #[arg(long)]
    keep: bool,
}

/// Why the story could not be told to its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Throwaway(#[from] ThrowawayError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("{}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("waited {seconds} s for {what}")]
    Waited { what: String, seconds: u64 },
    #[error("this should not have happened: {0}")]
    Unexpected(String),
}

/// Tells the story. Whatever happens, the server and the relay do not outlive it.
pub async fn demo(arguments: &Arguments) -> Exit {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return fail("cannot listen for signals") };

    let mut narrator = Narrator::new();
    story::introduce(&mut narrator);
    // Not under the signals below: half a server would leave its directory behind.
    let started = spawn_blocking(Stage::start_server).await;
    let server = match started.map_err(|e| DemoError::Unexpected(e.to_string())).and_then(|server| server) {
        Ok(server) => server,
        Err(e) => return fail(e),
    };
    let told = tokio::select! {
        told = story::tell(&mut narrator, server, arguments.keep) => told,
        _ = interrupt.recv() => { return fail("interrupted; everything is removed") }
        _ = terminate.recv() => { return fail("terminated; everything is removed") }
    };
    let mut ending = match told {
        Ok(ending) => ending,
        Err(e) => return fail(e),
    };
    if arguments.keep {
        tokio::select! { () = ending.keep_books() => {} _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        narrator.gap();
        narrator.say("Stopping.");
    }
    ending.clear_away().await;
    if ending.agrees { Exit::Done } else { Exit::Failed }
}
