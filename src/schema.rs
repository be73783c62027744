//! The schema: once-only migrations for tables, re-applied files for functions and grants.
//!
//! A migration runs once and is never edited afterwards; [refinery](https://docs.rs/refinery) keeps
//! the list of those applied in `outbox_relay.migration`. A function file is applied whole whenever
//! its hash differs from the one in `outbox_relay.applied_file`. See `sql/README.md`.

use crate::crash_point::{Point, reached};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tokio_postgres::{Client, error::SqlState};

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

const MIGRATION_TABLE: &str = "outbox_relay.migration";
/// Serialises migrations of one database: refinery takes no lock between processes.
const MIGRATION_LOCK: &str = "select pg_advisory_lock(1869968482, 6)";
const ROLES: &str = include_str!("../sql/roles.sql");

macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("../sql/", $path)))),*] };
}

/// The re-applied files in the order they are applied: a function before what names it in DDL.
const FILES: [(&str, &str); 196] = files![
    "functions/05_limit/limit_of.sql",
    "functions/10_produce/refuse_event.sql",
    "functions/10_produce/is_unacceptable.sql",
    "functions/10_produce/guard_event.sql",
    "functions/10_produce/ring.sql",
    "functions/10_produce/refuse_type.sql",
    "functions/10_produce/publish.sql",
    "functions/20_expand/expanded_before.sql",
    "functions/20_expand/made_at.sql",
    "functions/20_expand/patterns_of.sql",
    "functions/20_expand/matches.sql",
    "functions/10_produce/published.sql",
    "functions/10_produce/assert_published.sql",
    "functions/20_expand/payload_text.sql",
    "functions/20_expand/late_seqs.sql",
    "functions/20_expand/begin_trial.sql",
    "functions/20_expand/try_filters.sql",
    "functions/20_expand/take_out.sql",
    "functions/20_expand/expand.sql",
    "functions/30_deliver/load_subscriptions.sql",
    "functions/30_deliver/claim.sql",
    "functions/30_deliver/free_leases.sql",
    "functions/30_deliver/hand_back.sql",
    "functions/30_deliver/locked.sql",
    "functions/30_deliver/is_recorded.sql",
    "functions/30_deliver/record.sql",
    "functions/30_deliver/give_up.sql",
    "functions/30_deliver/give_up_old.sql",
    "functions/30_deliver/dead_lettered.sql",
    "functions/32_order/queue_key.sql",
    "functions/32_order/first_of_key.sql",
    "functions/32_order/park_behind.sql",
    "functions/32_order/release_next.sql",
    "functions/32_order/lift_stop.sql",
    "functions/34_health/burst.sql",
    "functions/34_health/admit.sql",
    "functions/34_health/charge.sql",
    "functions/34_health/uncharge.sql",
    "functions/34_health/mend_clock.sql",
    "functions/34_health/add_health.sql",
    "functions/34_health/tell.sql",
    "functions/34_health/disable.sql",
    "functions/34_health/reset_circuit.sql",
    "functions/40_relay/require_read_committed.sql",
    "functions/40_relay/timeline.sql",
    "functions/40_relay/was_moved.sql",
    "functions/40_relay/judge_environment.sql",
    "functions/40_relay/register.sql",
    "functions/40_relay/resume_epoch.sql",
    "functions/40_relay/fence.sql",
    "functions/40_relay/fence_dead.sql",
    "functions/40_relay/live_epochs.sql",
    "functions/40_relay/tick.sql",
    "functions/40_relay/latency_bounds_ms.sql",
    "functions/40_relay/add_sample.sql",
    "functions/50_subscription/normal_patterns.sql",
    "functions/50_subscription/require_unmanaged.sql",
    "functions/50_subscription/ed25519_public_key.sql",
    "functions/50_subscription/key_id.sql",
    "functions/50_subscription/check_secret.sql",
    "functions/50_subscription/check_tls.sql",
    "functions/50_subscription/check_stored.sql",
    "functions/50_subscription/check_reference.sql",
    "functions/50_subscription/header_refusal.sql",
    "functions/50_subscription/check_headers.sql",
    "functions/50_subscription/url_refusal.sql",
    "functions/05_limit/check_limits.sql",
    "functions/05_limit/check_room.sql",
    "functions/50_subscription/check_subscription.sql",
    "functions/50_subscription/version_subscription.sql",
    "functions/50_subscription/require_subscription.sql",
    "functions/50_subscription/add_key.sql",
    "functions/50_subscription/subscribe.sql",
    "functions/50_subscription/pause.sql",
    "functions/50_subscription/resume.sql",
    "functions/50_subscription/unsubscribe.sql",
    "functions/50_subscription/rotate_secret.sql",
    "functions/50_subscription/retries_policy.sql",
    "functions/50_subscription/reconcile.sql",
    "functions/52_secret/unsealed.sql",
    "functions/52_secret/sealed_otherwise.sql",
    "functions/52_secret/seal.sql",
    "functions/52_secret/secret_counts.sql",
    "functions/52_secret/offer_for.sql",
    "functions/52_secret/offer_key.sql",
    "functions/52_secret/name_key.sql",
    "functions/60_operate/define_event_type.sql",
    "functions/60_operate/archive_event_type.sql",
    "functions/60_operate/send_test.sql",
    "functions/60_operate/replay_one.sql",
    "functions/60_operate/replay.sql",
    "functions/60_operate/check_window.sql",
    "functions/60_operate/replay_failed.sql",
    "functions/60_operate/replay_missing.sql",
    "functions/60_operate/cancel_outstanding.sql",
    "functions/60_operate/cancel.sql",
    "functions/60_operate/skip.sql",
    "functions/60_operate/park.sql",
    "functions/60_operate/hold.sql",
    "functions/60_operate/release.sql",
    "functions/60_operate/set.sql",
    "functions/60_operate/adopt.sql",
    "functions/62_audit/actor.sql",
    "functions/62_audit/audit.sql",
    "functions/62_audit/auditable.sql",
    "functions/62_audit/audit_subscription.sql",
    "functions/62_audit/audit_retry_policy.sql",
    "functions/64_token/create_token.sql",
    "functions/64_token/revoke_token.sql",
    "functions/64_token/has_tokens.sql",
    "functions/64_token/enter.sql",
    "functions/64_token/open_session.sql",
    "functions/64_token/close_session.sql",
    "functions/64_token/begin_request.sql",
    "functions/64_token/end_request.sql",
    "functions/66_tenant/bound_tenants.sql",
    "functions/66_tenant/bound_subscriptions.sql",
    "functions/66_tenant/require_tenant.sql",
    "functions/66_tenant/require_all_tenants.sql",
    "functions/66_tenant/refuse_bound.sql",
    "functions/66_tenant/refuse_reference.sql",
    "functions/66_tenant/confine.sql",
    "functions/66_tenant/bind_role.sql",
    "functions/66_tenant/unbind_role.sql",
    "functions/70_account/regime_of.sql",
    "functions/70_account/explain.sql",
    "functions/70_account/unaccounted.sql",
    "functions/70_account/status.sql",
    "functions/70_account/retry_schedule.sql",
    "functions/70_account/gauges.sql",
    "functions/70_account/subscription_gauges.sql",
    "functions/70_account/catalog.sql",
    "functions/70_account/add_up.sql",
    "functions/70_account/quantile_ms.sql",
    "functions/70_account/activity.sql",
    "functions/70_account/relays.sql",
    "functions/70_account/next_attempts.sql",
    "functions/80_maintain/make_segment.sql",
    "functions/80_maintain/compact_samples.sql",
    "functions/80_maintain/maintain.sql",
    "functions/90_http/tenant_of.sql",
    "functions/90_http/require_unbound.sql",
    "functions/90_http/refuse_reference.sql",
    "functions/90_http/position_of.sql",
    "functions/90_http/live_keys.sql",
    "functions/90_http/webhook.sql",
    "functions/90_http/find_webhook.sql",
    "functions/90_http/delivery.sql",
    "functions/90_http/find_delivery.sql",
    "functions/90_http/fits.sql",
    "functions/90_http/deliveries.sql",
    "functions/90_http/deliveries_of_event.sql",
    "functions/90_http/find_event.sql",
    "functions/90_http/event_type.sql",
    "functions/90_http/setting.sql",
    "functions/90_http/token.sql",
    "functions/90_http/get_event_type.sql",
    "functions/90_http/get_status.sql",
    "functions/90_http/archive_event_type.sql",
    "functions/90_http/cancel_delivery.sql",
    "functions/90_http/change_setting.sql",
    "functions/90_http/create_webhook.sql",
    "functions/90_http/define_event_type.sql",
    "functions/90_http/delete_webhook.sql",
    "functions/90_http/explain_event.sql",
    "functions/90_http/get_activity.sql",
    "functions/90_http/get_delivery.sql",
    "functions/90_http/get_event.sql",
    "functions/90_http/get_webhook.sql",
    "functions/90_http/hold.sql",
    "functions/90_http/list_audit.sql",
    "functions/90_http/list_deliveries.sql",
    "functions/90_http/list_event_types.sql",
    "functions/90_http/list_relays.sql",
    "functions/90_http/list_retry_policies.sql",
    "functions/90_http/list_settings.sql",
    "functions/90_http/list_tokens.sql",
    "functions/90_http/list_webhook_deliveries.sql",
    "functions/90_http/list_webhooks.sql",
    "functions/90_http/park_delivery.sql",
    "functions/90_http/pause_webhook.sql",
    "functions/90_http/publish_event.sql",
    "functions/90_http/release.sql",
    "functions/90_http/replay_deliveries.sql",
    "functions/90_http/replay_delivery.sql",
    "functions/90_http/replay_failed.sql",
    "functions/90_http/replay_missing.sql",
    "functions/90_http/resume_webhook.sql",
    "functions/90_http/revoke_token.sql",
    "functions/90_http/rotate_secret.sql",
    "functions/90_http/send_test.sql",
    "functions/90_http/skip_delivery.sql",
    "functions/90_http/update_webhook.sql",
    "revokes.sql",
    "roles.sql",
    "grants.sql",
];

/// What [`migrate`] did.
#[derive(Debug, Default)]
pub struct Report {
    /// Names of the migrations applied.
    pub migrations: Vec<String>,
    /// Paths of the files applied.
    pub files: Vec<&'static str>,
    /// SQL that somebody who may create roles has to run before the grants can be made; `None` if they were.
    pub roles_to_create: Option<&'static str>,
}

/// Why the schema is not, or cannot be made, what this program needs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There is no schema, or an older one.
    #[error("the schema is {found}, this program needs version {needed}: run `outboxd migrate`")]
    Older {
        /// What is there, in words.
        found: String,
        /// The version this program needs.
        needed: i32,
    },
    /// A later program has migrated the database.
    #[error(
        "the schema has version {found}, this program knows {known}: run the outboxd that migrated it, or a later one"
    )]
    Newer {
        /// The version in the database.
        found: i32,
        /// The last version this program knows.
        known: i32,
    },
    /// The tables fit, the functions are of another build.
    #[error(
        "{count} SQL functions are of another build of outboxd: run `outboxd migrate` with the one that is to stay"
    )]
    OtherFunctions {
        /// How many files differ.
        count: usize,
    },
    /// A file could not be applied.
    #[error("applying sql/{path}: {}", describe(.source))]
    Apply {
        /// The file.
        path: &'static str,
        /// What PostgreSQL said.
        source: tokio_postgres::Error,
    },
    /// A migration could not be applied.
    #[error("migrating: {0}")]
    Migrate(#[from] refinery::Error),
    /// The database could not be asked.
    #[error("{}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// What PostgreSQL said, with its SQLSTATE and hint; tokio-postgres alone prints "db error".
pub fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match error.as_db_error() {
        Some(e) => match e.hint() {
            Some(hint) => format!("{} ({}). {hint}", e.message(), e.code().code()),
            None => format!("{} ({})", e.message(), e.code().code()),
        },
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Creates or upgrades the schema. Safe to run from many hosts at once: they take turns, and all but
/// the first find nothing to do. `client` must be a direct connection, not one through a pooler.
///
/// # Errors
/// [`SchemaError::Newer`] before anything is written if a later program has migrated the database;
/// otherwise what PostgreSQL refused.
pub async fn migrate(client: &mut Client) -> Result<Report, SchemaError> {
    client.batch_execute("set lock_timeout = 0; set statement_timeout = 0; set client_min_messages = warning").await?;
    client.batch_execute(MIGRATION_LOCK).await?;
    let result = migrate_locked(client).await;
    client.batch_execute("select pg_advisory_unlock(1869968482, 6)").await?;
    result
}

async fn migrate_locked(client: &mut Client) -> Result<Report, SchemaError> {
    let state = state(client).await?;
    if let Some(found) = state.version.filter(|found| *found > known_version()) {
        return Err(SchemaError::Newer { found, known: known_version() });
    }
    if state.version.is_none() {
        client.batch_execute("create schema if not exists outbox; create schema if not exists outbox_relay").await?;
    }
    let mut report = Report { migrations: apply_migrations(client, known_version()).await?, ..Report::default() };

    let transaction = client.transaction().await?;
    for (path, sql) in FILES {
        let hash = hash(sql);
        if state.files.get(path) == Some(&hash) {
            continue;
        }
        let is_role_file = matches!(path, "roles.sql" | "grants.sql");
        transaction.batch_execute("savepoint file").await?;
        match transaction.batch_execute(sql).await {
            Ok(()) => {}
            // Roles belong to the cluster; who migrates a database may not be let near them.
            Err(e)
                if is_role_file
                    && matches!(e.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::UNDEFINED_OBJECT)) =>
            {
                transaction.batch_execute("rollback to savepoint file").await?;
                report.roles_to_create = Some(ROLES);
                continue;
            }
            Err(source) => return Err(SchemaError::Apply { path, source }),
        }
        transaction
            .execute(
                "insert into outbox_relay.applied_file (path, sha256) values ($1, $2)
                 on conflict (path) do update set sha256 = excluded.sha256, applied_at = now()",
                &[&path, &hash],
            )
            .await?;
        report.files.push(path);
        reached(Point::FileApplied);
    }
    // A function made anew is everybody's until it is revoked, and nobody's until it is granted.
    for path in ["revokes.sql", "grants.sql"] {
        let can_be = path == "revokes.sql" || report.roles_to_create.is_none();
        if can_be && !report.files.is_empty() && !report.files.contains(&path) {
            let sql = FILES.iter().find(|(file, _)| *file == path).map_or("", |(_, sql)| sql);
            transaction.batch_execute(sql).await.map_err(|source| SchemaError::Apply { path, source })?;
        }
    }
    reached(Point::FilesApplied);
    transaction.commit().await?;
    Ok(report)
}

/// Applies the migrations up to that version, each in a transaction of its own, and names them.
async fn apply_migrations(client: &mut Client, last: i32) -> Result<Vec<String>, SchemaError> {
    let mut names = Vec::new();
    for version in 1..=last {
        let mut runner = embedded::migrations::runner().set_target(refinery::Target::Version(version));
        runner.set_migration_table_name(MIGRATION_TABLE);
        let applied = runner.run_async(client).await?;
        for migration in applied.applied_migrations() {
            names.push(migration.to_string());
            reached(Point::MigrationApplied);
        }
    }
    Ok(names)
}

/// Whether the schema is the one this program was built with.
///
/// # Errors
/// Says which command mends it, if it is not.
pub async fn verify(client: &Client) -> Result<(), SchemaError> {
    let state = state(client).await?;
    match state.version {
        None => Err(SchemaError::Older { found: "missing".into(), needed: known_version() }),
        Some(found) if found < known_version() => {
            Err(SchemaError::Older { found: format!("version {found}"), needed: known_version() })
        }
        Some(found) if found > known_version() => Err(SchemaError::Newer { found, known: known_version() }),
        Some(_) => {
            let functions = FILES.iter().filter(|(path, _)| path.starts_with("functions/"));
            match functions.filter(|(path, sql)| state.files.get(*path) != Some(&hash(sql))).count() {
                0 => Ok(()),
                count => Err(SchemaError::OtherFunctions { count }),
            }
        }
    }
}

/// The last version this program knows.
pub fn known_version() -> i32 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}

/// The re-applied files of this build, for the test that compares them with the repository.
pub fn file_paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}

struct State {
    version: Option<i32>,
    files: HashMap<String, String>,
}

async fn state(client: &Client) -> Result<State, tokio_postgres::Error> {
    let exists = client.query_one("select to_regclass('outbox_relay.migration') is not null and to_regclass('outbox_relay.applied_file') is not null", &[]);
    if !exists.await?.get::<_, bool>(0) {
        return Ok(State { version: None, files: HashMap::new() });
    }
    let version = client.query_one("select max(version) from outbox_relay.migration", &[]).await?.get(0);
    let rows = client.query("select path, sha256 from outbox_relay.applied_file", &[]).await?;
    Ok(State { version, files: rows.iter().map(|row| (row.get(0), row.get(1))).collect() })
}

fn hash(sql: &str) -> String {
    hex::encode(Sha256::digest(sql))
}
