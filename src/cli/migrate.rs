//! `outboxd migrate`: create or upgrade the schema.

use super::{Exit, fail};
use crate::config::Config;
use crate::{connect, schema};

/// Migrates the database of the configuration.
pub async fn migrate(config: &Config) -> Exit {
    let target = match config.database.listen_settings() {
        Ok(target) => target,
        Err(e) => return fail(e),
    };
    let mut client = match connect::open_driven(&target).await {
        Ok(client) => client,
        Err(e) => return fail(format_args!("cannot reach the database: {e}")),
    };
    let report = match schema::migrate(&mut client).await {
        Ok(report) => report,
        Err(e) => return fail(e),
    };
    for migration in &report.migrations {
        println!("migrated {migration}");
    }
    match (report.migrations.is_empty(), report.files.len()) {
        (true, 0) => println!("the schema is up to date, version {}", schema::known_version()),
        (_, files) => println!("{files} files applied; the schema has version {}", schema::known_version()),
    }
    if let Some(sql) = report.roles_to_create {
        println!(
            "\nThis user may not create roles. Have somebody who may run this, then run outboxd migrate again:\n\n{sql}"
        );
    }
    Exit::Done
}
