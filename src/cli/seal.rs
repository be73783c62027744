//! `outboxd seal`: secrets that stand in the database in plain, or under a key that is to go, sealed.

use super::{Exit, fail};
use crate::config::Config;
use crate::secrets::{self, SealingError, SealingKey};
use crate::{connect, db, schema};

/// Flags of `outboxd seal`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seal everything anew that is sealed with one of secrets.old_keys
    #[arg(long)]
    rekey: bool,
    /// Print a new key for secrets.key_file, and do nothing else
    #[arg(long, conflicts_with = "rekey")]
    pub generate_key: bool,
}

/// Prints a new sealing key; needs no configuration.
pub fn generate_key() -> Exit {
    match SealingKey::generate() {
        Ok(key) => {
            println!("{}", key.encode().expose());
            eprintln!("outboxd: the sealing key {}; keep a copy where the database is not", key.id());
            Exit::Done
        }
        Err(e) => fail(e),
    }
}

/// Seals what is plain; with `--rekey` also what is sealed with another key.
pub async fn seal(config: &Config, arguments: &Arguments) -> Exit {
    let keyring = &config.secrets.keyring;
    let Some(current) = keyring.current() else {
        eprintln!("outboxd: there is no sealing key: set secrets.key_file (outboxd seal --generate-key makes one)");
        return Exit::BadConfiguration;
    };
    let target = match config.database.listen_settings() {
        Ok(target) => target,
        Err(e) => return fail(e),
    };
    let client = match connect::open_driven(&target).await {
        Ok(client) => client,
        Err(e) => return fail(format_args!("cannot reach the database: {e}")),
    };
    if let Err(e) = schema::verify(&client).await {
        return fail(e);
    }
    match other_environment(config, &client).await {
        Ok(None) => {}
        Ok(Some(environment)) => {
            return fail(format_args!(
                "the database belongs to environment {environment}, whose relays may not have this key: set relay.environment"
            ));
        }
        Err(e) => return fail(schema::describe(&e)),
    }
    match secrets::seal_found(&client, keyring).await {
        Ok(count) => println!("sealed {count} that were plain, with the key {}", current.id()),
        Err(e) => return fail(e),
    }
    if arguments.rekey { rekey(&client, config).await } else { Exit::Done }
}

/// The environment the database belongs to, if it is another one: what is sealed there must open there.
pub(super) async fn other_environment(
    config: &Config,
    client: &tokio_postgres::Client,
) -> Result<Option<String>, tokio_postgres::Error> {
    let status = db::status(client).await?;
    let found = status["environment"].as_str().filter(|found| *found != config.relay.environment);
    Ok(found.map(str::to_owned))
}

async fn rekey(client: &tokio_postgres::Client, config: &Config) -> Exit {
    let done: Result<_, SealingError> = secrets::rekey(client, &config.secrets.keyring).await;
    let done = match done {
        Ok(done) => done,
        Err(e) => return fail(e),
    };
    if done.resealed.is_empty() {
        println!("sealed anew: none");
    }
    for (with, count) in &done.resealed {
        println!("sealed anew: {count} that were sealed with the key {with}");
    }
    for (subscription_id, key_id, reason) in &done.unopened {
        println!("NOT sealed anew: subscription {subscription_id}, key {key_id}: {reason}");
    }
    if done.unopened.is_empty() {
        Exit::Done
    } else {
        fail(format_args!("{} secrets are left as they were", done.unopened.len()))
    }
}
