//! Where figures were measured: without it they say nothing.

use super::BenchError;
use super::stage::{self, Stage};
use serde_json::{Map, Value, json};
use std::fs;

/// Machine, server, and configuration.
pub(super) async fn environment(on: &Stage) -> Result<Value, BenchError> {
    let client = &on.client;
    let version: String = client.query_one("select current_setting('server_version')", &[]).await?.get(0);
    // What decides how much a commit costs, and whatever is not as initdb leaves it. Where files lie is nobody's business.
    let settings = client
        .query(
            "select name, current_setting(name) from pg_settings
             where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'data_checksums', 'shared_buffers', 'max_wal_size')
                or source in ('configuration file', 'command line', 'environment variable', 'global', 'database', 'user', 'database user')
                    and setting is distinct from boot_val
                    and category !~ '^(File Locations|Reporting|Client Connection Defaults / Locale|Connections and Auth.* / Connection)'
             order by name",
            &[],
        )
        .await?;
    let settings: Map<String, Value> =
        settings.iter().map(|row| (row.get(0), row.get::<_, String>(1).into())).collect();
    Ok(json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": line_of("/proc/cpuinfo", "model name"),
        "memory_mib": line_of("/proc/meminfo", "MemTotal").split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib / 1024),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "postgresql": version,
        "postgresql_settings": settings,
        "outboxd": env!("CARGO_PKG_VERSION"),
        "debug_build": cfg!(debug_assertions),
        "relay_settings": stage::relay_environment(),
        "statements_counted": on.statements_in.is_some(),
    }))
}

/// The same for people.
pub(super) fn describe(environment: &Value) -> Vec<String> {
    let text = |key: &str| environment[key].as_str().unwrap_or("?").to_owned();
    let pairs = |key: &str| {
        let pairs = environment[key].as_object().into_iter().flatten();
        pairs
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines = vec![
        format!(
            "{} cores of {}, {} MiB, Linux {}",
            environment["cores"],
            text("cpu"),
            environment["memory_mib"],
            text("kernel")
        ),
        format!("PostgreSQL {}: {}", text("postgresql"), pairs("postgresql_settings")),
        format!("outboxd {}: {}", text("outboxd"), pairs("relay_settings")),
    ];
    if environment["debug_build"] == true {
        lines.push("A debug build: these figures mean nothing.".into());
    }
    if environment["statements_counted"] == false {
        lines.push("Statements are not counted: pg_stat_statements is not loaded, or not ours to set.".into());
    }
    lines
}

/// What stands behind the colon of the first such line of a file.
fn line_of(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    line.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}
