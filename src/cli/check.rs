//! `outboxd check`: one line for each thing that must be right, exit 1 if one is not.

use super::Exit;
use crate::config::{Config, ConnectSettings};
use crate::reconcile::reconcile;
use crate::{connect, db, schema};
use tokio_postgres::{Client, SimpleQueryMessage};

/// What the daemon's user must be allowed to call.
const NEEDED: [&str; 32] = [
    "register",
    "resume_epoch",
    "fence",
    "tick",
    "expand",
    "begin_trial",
    "try_filters",
    "claim",
    "hand_back",
    "locked",
    "record",
    "add_health",
    "load_subscriptions",
    "maintain",
    "reconcile",
    "add_sample",
    "enter",
    "open_session",
    "close_session",
    "begin_request",
    "end_request",
    "gauges",
    "subscription_gauges",
    "has_tokens",
    "catalog",
    "unsealed",
    "sealed_otherwise",
    "seal",
    "secret_counts",
    "offer_for",
    "offer_key",
    "name_key",
];

struct Findings {
    problems: usize,
}

impl Findings {
    fn ok(&self, what: &str, detail: impl std::fmt::Display) {
        println!("ok       {what:<15}{detail}");
    }

    fn warn(&self, what: &str, detail: impl std::fmt::Display) {
        println!("warning  {what:<15}{detail}");
    }

    fn problem(&mut self, what: &str, detail: impl std::fmt::Display) {
        self.problems += 1;
        println!("PROBLEM  {what:<15}{detail}");
    }
}

/// Flags of `outboxd check`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Show what starting with this configuration would change about subscriptions, and change nothing
    #[arg(long)]
    diff: bool,
}

/// Checks configuration (it could be read, or we would not be here), connection, schema, privileges,
/// settings and egress policy.
pub async fn check(config: &Config, arguments: &Arguments) -> Exit {
    let mut findings = Findings { problems: 0 };
    findings.ok("configuration", format_args!("relay {}, environment {}", config.relay.name, config.relay.environment));
    check_egress(config, &mut findings);
    if let Some(client) = check_connections(config, &mut findings).await {
        match schema::verify(&client).await {
            Ok(()) => {
                findings.ok("schema", format_args!("version {}", schema::known_version()));
                for result in [
                    check_privileges(&client, &mut findings).await,
                    check_admin(config, &client, &mut findings).await,
                    check_settings(config, &client, &mut findings).await,
                ] {
                    if let Err(e) = result {
                        findings.problem("database", schema::describe(&e));
                    }
                }
                if let Err(e) = check_secrets(config, &client, &mut findings).await {
                    findings.problem("secrets", e);
                }
                check_subscriptions(config, &client, arguments.diff, &mut findings).await;
            }
            Err(e) => findings.problem("schema", e),
        }
    }
    if findings.problems == 0 { Exit::Done } else { Exit::Failed }
}

/// How secrets are kept, and whether this host has what opens them.
async fn check_secrets(config: &Config, client: &Client, findings: &mut Findings) -> Result<(), db::DbError> {
    let secrets = &config.secrets;
    let counts = db::secret_counts(client).await?;
    let of = |form: &'static str| counts.iter().filter(move |count| count.form == form);
    let plain: i64 = of("plain").map(|count| count.count).sum();
    match secrets.keyring.current() {
        Some(key) => findings.ok("secrets", format_args!("sealed with the key {}", key.id())),
        None => findings.warn(
            "secrets",
            format_args!(
                "{plain} are plain in the database: set secrets.key_file (outboxd seal --generate-key makes a key)"
            ),
        ),
    }
    if plain > 0 && secrets.keyring.current().is_some() {
        findings.warn("secrets", format_args!("{plain} are plain: a relay seals them while it runs, or outboxd seal"));
    }
    for count in of("sealed") {
        let with = count.detail.as_deref().unwrap_or_default();
        let is_current = secrets.keyring.current().is_some_and(|key| key.id() == with);
        match (secrets.keyring.has(with), is_current) {
            (_, true) => findings.ok("secrets", format_args!("{} sealed with the key {with}", count.count)),
            (true, false) => findings.warn(
                "secrets",
                format_args!("{} sealed with the old key {with}: run outboxd seal --rekey", count.count),
            ),
            (false, _) => findings.problem(
                "secrets",
                format_args!(
                    "{} sealed with the key {with}, which is neither secrets.key nor among secrets.old_keys",
                    count.count
                ),
            ),
        }
    }
    let (mut found, mut missing) = (0, Vec::new());
    for reference in of("reference").filter_map(|count| count.detail.as_deref()) {
        match secrets.read(reference) {
            Ok(_) => found += 1,
            Err(error) => missing.push(error),
        }
    }
    if found > 0 {
        findings.ok("secrets", format_args!("{found} references can be read here"));
    }
    missing.iter().for_each(|error| findings.problem("secrets", error));
    Ok(())
}

/// What starting would change about subscriptions. A difference is no problem; a refusal is.
async fn check_subscriptions(config: &Config, client: &Client, diff: bool, findings: &mut Findings) {
    let count = config.subscriptions.len();
    match reconcile(client, config, true).await {
        Ok(_) if count == 0 => findings.ok("subscriptions", "none in the configuration; none are managed by it"),
        Ok(changes) if changes.is_empty() => {
            findings.ok("subscriptions", format_args!("{count} in the configuration, in step"))
        }
        Ok(changes) => {
            let hint = if diff { "" } else { "; --diff shows them" };
            findings.ok(
                "subscriptions",
                format_args!("{count} in the configuration, {} changes at the next start{hint}", changes.len()),
            );
            changes.iter().filter(|_| diff).for_each(|change| println!("  {change}"));
        }
        Err(e) => findings.problem("subscriptions", e),
    }
}

fn check_egress(config: &Config, findings: &mut Findings) {
    let list = |rules: &[crate::egress::NetRule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let (allow, deny) = (&config.egress.allow, &config.egress.deny);
    findings.ok(
        "egress",
        format_args!(
            "public addresses at ports {:?}; allowed besides: {}; denied: {}",
            config.egress.ports,
            or_none(&list(allow)),
            or_none(&list(deny))
        ),
    );
    if let Some(proxy) = &config.http.proxy {
        findings.warn(
            "egress",
            format_args!("{} dials and resolves names: it has to refuse private addresses, outboxd cannot", proxy.uri),
        );
    }
    for rule in allow.iter().filter(|rule| rule.net.prefix_len() == 0) {
        findings.warn("egress", format_args!("{rule} allows every address, private networks included"));
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Both ways to the database; returns the direct one.
async fn check_connections(config: &Config, findings: &mut Findings) -> Option<Client> {
    match config.database.connect_settings() {
        Ok(target) if config.database.listen_url.is_some() => match connect::open_driven(&target).await {
            Ok(client) => match keeps_transactions(&client).await {
                Ok(()) => findings.ok("database.url", "through a pooler, as listen_url says"),
                Err(e) => findings.problem(
                    "database.url",
                    format_args!(
                        "no transaction can be begun (a pooler in statement mode? transaction mode works): {}",
                        schema::describe(&e)
                    ),
                ),
            },
            Err(e) => findings.problem("database.url", e),
        },
        Ok(_) => {}
        Err(e) => findings.problem("database.url", e),
    }
    let target = match config.database.listen_settings() {
        Ok(target) => target,
        Err(e) => {
            findings.problem("connection", e);
            return None;
        }
    };
    let client = match connect::open_driven(&target).await {
        Ok(client) => client,
        Err(e) => {
            findings.problem("connection", e);
            return None;
        }
    };
    if config.database.listen_url.is_some() {
        match keeps_sessions(&client, &target).await {
            Ok(true) => {}
            Ok(false) => findings.problem(
                "listen_url",
                "what answers keeps no session for a connection (a pooler in transaction mode): LISTEN and the lock that says a relay lives need one; name the server itself",
            ),
            Err(e) => findings.problem("listen_url", e),
        }
    }
    let about = "select current_user::text, current_database()::text, current_setting('server_version'), current_setting('server_version_num')::int4, pg_is_in_recovery()";
    match client.query_one(about, &[]).await {
        Ok(row) => {
            let (user, database, version): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            match (row.get::<_, i32>(3) >= 140_000, row.get::<_, bool>(4)) {
                (false, _) => findings.problem("connection", format_args!("PostgreSQL {version} is older than 14")),
                (_, true) => findings.problem(
                    "connection",
                    "the server is a standby: name the primary, or several hosts with target_session_attrs=read-write",
                ),
                _ => findings.ok("connection", format_args!("{user} at {database}, PostgreSQL {version}")),
            }
        }
        Err(e) => findings.problem("connection", schema::describe(&e)),
    }
    Some(client)
}

/// Whether a transaction may be more than one statement.
async fn keeps_transactions(client: &Client) -> Result<(), tokio_postgres::Error> {
    for step in ["begin", "select", "commit"] {
        client.batch_execute(step).await?;
    }
    Ok(())
}

/// Whether two connections are two sessions. A pooler that lends its own by the transaction gives both the same one, or
/// one of them another after a while. Without prepared statements, which such a pooler may look for in the wrong one.
async fn keeps_sessions(client: &Client, target: &ConnectSettings) -> Result<bool, connect::ConnectError> {
    let own = backend(client).await?;
    let other = connect::open_driven(target).await?;
    // Other clients of the pooler may take what would have told.
    for _ in 0..3 {
        other.batch_execute("begin").await?;
        if backend(&other).await? == own || backend(client).await? != own {
            return Ok(false);
        }
        other.batch_execute("rollback").await?;
        if backend(client).await? != own {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The process id of the server that serves a connection now.
async fn backend(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let answers = client.simple_query("select pg_backend_pid()").await?;
    Ok(answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

async fn check_privileges(client: &Client, findings: &mut Findings) -> Result<(), tokio_postgres::Error> {
    let missing = client
        .query(
            "select p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where n.nspname = 'outbox_relay' and p.proname::text = any ($1) and not (has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute'))
             order by 1",
            &[&NEEDED.as_slice()],
        )
        .await?;
    if missing.is_empty() {
        findings.ok("privileges", "may call every function of the daemon");
    } else {
        let names: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
        findings.problem(
            "privileges",
            format_args!("may not call outbox_relay.{}: grant outbox_relay to this user", names.join(", ")),
        );
    }
    Ok(())
}

/// Whether the operator's seat can be served: the roles of its tokens, and somebody to come with one.
async fn check_admin(config: &Config, client: &Client, findings: &mut Findings) -> Result<(), tokio_postgres::Error> {
    let Some(listen) = config.admin.listen else {
        findings.ok("admin", "off");
        return Ok(());
    };
    let roles = client
        .query(
            "select r.rolname::text, pg_has_role('outbox_relay', r.oid, 'member'), pg_has_role('outbox_relay', r.oid, 'usage')
             from pg_roles r where r.rolname in ('outbox_producer', 'outbox_operator', 'outbox_viewer')
               and exists (select from pg_roles where rolname = 'outbox_relay')
               and not (select rolsuper from pg_roles where rolname = 'outbox_relay') order by 1",
            &[],
        )
        .await?;
    for row in &roles {
        let (name, may_set, inherits): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
        if !may_set {
            findings.problem(
                "admin",
                format_args!(
                    "outbox_relay may not take the role {name}: run outboxd migrate as somebody who may grant it"
                ),
            );
        } else if inherits {
            findings.warn("admin", format_args!("outbox_relay has the rights of {name} all the time: run outboxd migrate as somebody who may alter it (noinherit)"));
        }
    }
    let has_tokens: bool = client.query_one("select outbox_relay.has_tokens()", &[]).await?.get(0);
    match has_tokens {
        true => findings.ok("admin", listen),
        false if listen.ip().is_loopback() => {
            findings.ok("admin", format_args!("{listen}; no token yet: select outbox.create_token('operator')"));
        }
        false => findings.warn(
            "admin",
            format_args!("{listen} is not served before there is a token: select outbox.create_token('operator')"),
        ),
    }
    Ok(())
}

async fn check_settings(
    config: &Config,
    client: &Client,
    findings: &mut Findings,
) -> Result<(), tokio_postgres::Error> {
    let status = db::status(client).await?;
    match status["environment"].as_str() {
        None => findings.ok("environment", format_args!("unclaimed; the first relay claims it for {}", config.relay.environment)),
        Some(found) if found == config.relay.environment => findings.ok("environment", found),
        Some(found) => findings.problem(
            "environment",
            format_args!("the database belongs to {found}, relay.environment is {}: select outbox.adopt('{0}') if that is to change", config.relay.environment),
        ),
    }
    match status["hold"].as_str() {
        None => findings.ok("hold", "none"),
        Some(reason) => findings.warn("hold", format_args!("nothing is sent: {reason}")),
    }
    let cache = client
        .query_one(
            "select cache_size, coalesce(last_value, 0)::float8 / max_value from pg_sequences where schemaname = 'outbox' and sequencename = 'event_event_seq_seq'",
            &[],
        )
        .await?;
    let used: f64 = cache.get(1);
    if used >= 0.9 {
        findings.problem(
            "log",
            format_args!("{:.2} % of the positions are used up (outbox.event_event_seq_seq): after the last, producers' inserts fail", used * 100.0),
        );
    }
    if cache.get::<_, i64>(0) != 1 {
        findings.problem(
            "log",
            "the sequence outbox.event_event_seq_seq caches values: alter sequence … cache 1, or events can be missed",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn what_is_needed_is_what_the_relays_group_is_granted() {
        let granted = include_str!("../../sql/granted.txt").lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("function outbox_relay.")?.split_once('(')?;
            line.contains(": outbox_relay execute").then_some(name)
        });
        assert_eq!(granted.collect::<BTreeSet<_>>(), BTreeSet::from(super::NEEDED));
    }

    /// Most tests run the daemon as the owner, who may call anything.
    #[test]
    fn what_the_daemon_calls_is_needed() {
        let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/db")).expect("src/db");
        let calls: String =
            sources.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a source")).collect();
        let called = calls.split("outbox_relay.").skip(1).filter_map(|rest| Some(rest.split_once('(')?.0));
        let called: BTreeSet<_> =
            called.filter(|name| name.bytes().all(|c| c == b'_' || c.is_ascii_lowercase())).collect();
        assert!(called.contains("claim"), "{called:?}");
        assert_eq!(called.difference(&BTreeSet::from(super::NEEDED)).collect::<Vec<_>>(), [&""; 0]);
    }
}
