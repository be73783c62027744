//! `outboxd status`: what `outbox.status()` says, for people or as JSON.

use super::{Exit, fail, watch};
use crate::config::Config;
use crate::{connect, db, schema};
use serde_json::Value;
use std::fmt::Write as _;

/// Flags of `outboxd status`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A screen to leave open, redrawn every second; a line a second where there is no terminal
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Prints how things stand.
pub async fn status(config: &Config, arguments: &Arguments) -> Exit {
    if arguments.watch {
        return watch::watch(config).await;
    }
    let target = match config.database.connect_settings() {
        Ok(target) => target,
        Err(e) => return fail(e),
    };
    let client = match connect::open_driven(&target).await {
        Ok(client) => client,
        Err(e) => return fail(format_args!("cannot reach the database: {e}")),
    };
    let status = match db::status(&client).await {
        Ok(status) => status,
        Err(e) => return fail(format_args!("outbox.status(): {}", schema::describe(&e))),
    };
    if arguments.json {
        println!("{status}");
    } else {
        print!("{}", for_people(&status));
    }
    Exit::Done
}

/// A line a figure, in the order in which one asks.
fn for_people(status: &Value) -> String {
    let mut text = String::new();
    let mut line = |label: &str, key: &str, note: &str| {
        let value = match &status[key] {
            Value::Null => "-".to_owned(),
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(text, "{label:<18}{value}{note}");
    };
    line("environment", "environment", "");
    line("hold", "hold", "");
    line("relays", "relays", if status["relays"] == 0 { "   nothing is sent: start outboxd run" } else { "" });
    line("log head", "log_head", "");
    line("unexpanded", "unexpanded_events", " events");
    line("pending", "pending", "");
    line("leased", "leased", "");
    line("failed", "failed", " waiting for another attempt");
    line("dead letters", "dead_letters", "");
    line("oldest due", "oldest_due", "");
    line("lag", "lag", "");
    text
}
