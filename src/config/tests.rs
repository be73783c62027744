//! What a user meets: precedence, refusals, and that no secret gets out.

mod secrets;

use super::*;

const URL: &str = "postgres://relay:hunter2@db.example.com/shop";

/// A file of its own for one test, removed with it.
pub(super) struct TempFile(PathBuf);

impl TempFile {
    pub(super) fn new(name: &str, text: &str) -> TempFile {
        let path = std::env::temp_dir().join(format!("outboxd-config-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a writable temporary directory");
        TempFile(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn load(file: Option<&TempFile>, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_with(file, environment, &Overrides::default())
}

fn load_with(
    file: Option<&TempFile>,
    environment: &[(&str, &str)],
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
    Config::load_from(file.map(|file| file.0.as_path()), environment, overrides)
}

/// The environment with a usable database.
fn with_database<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("DATABASE_URL", URL)], more].concat()
}

fn refused(file: Option<&TempFile>, environment: &[(&str, &str)]) -> Vec<Problem> {
    let error = load(file, environment).expect_err("a refusal");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    error.problems().to_vec()
}

#[test]
fn the_defaults_are_the_annotated_file() {
    let config = Config::for_database(URL).expect("defaults");
    assert_eq!(config.database.pool_size, 4);
    assert_eq!(config.database.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.database.statement_timeout, Duration::from_secs(10));
    assert_eq!(config.relay.environment, "default");
    assert!(!config.relay.name.is_empty());
    assert_eq!((config.relay.concurrency, config.relay.max_in_flight, config.relay.batch), (512, 64, 1000));
    assert!(config.relay.listen && !config.relay.synchronous_commit);
    assert_eq!(config.relay.poll_interval, Duration::from_secs(1));
    assert_eq!(config.relay.drain_deadline, Duration::from_secs(30));
    assert_eq!(config.http.user_agent, concat!("outboxd/", env!("CARGO_PKG_VERSION")));
    assert_eq!((config.http.max_response_bytes, config.http.max_response_header_bytes), (65_536, 16_384));
    assert!(config.http.http2);
    assert_eq!((config.egress.allow, config.egress.deny, config.egress.ports), (vec![], vec![], vec![443]));
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Text, "info"));
}

#[test]
fn the_annotated_file_names_every_key_and_no_other() {
    let mut reader = Reader::new(Layers::defaults());
    let _ = Config::read(&mut reader, &Overrides::default());
    let blocks = subscription::keys().map(|key| format!("[subscription].{key}"));
    let mut known: Vec<String> =
        reader.known().map(str::to_owned).filter(|key| key != "subscription").chain(blocks).collect();
    known.sort();

    let mut section = "";
    let mut documented: Vec<String> = Vec::new();
    for line in DEFAULTS.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.strip_suffix(']').map_or(name, |_| "[subscription]");
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '2')
        {
            documented.push(format!("{section}.{key}"));
        }
    }
    documented.sort();
    assert_eq!(documented, known);
}

#[test]
fn flags_go_over_the_environment_over_the_file_over_the_defaults() {
    let file = TempFile::new(
        "precedence.toml",
        "[relay]\nbatch = 10\nconcurrency = 20\n[log]\nformat = \"json\"\nlevel = \"warn\"\n",
    );
    let environment = with_database(&[("OUTBOXD_RELAY__CONCURRENCY", "30"), ("OUTBOXD_LOG__FORMAT", "json")]);
    let config = load(Some(&file), &environment).expect("valid");
    assert_eq!((config.relay.batch, config.relay.concurrency, config.relay.max_in_flight), (10, 30, 64));
    assert_eq!(config.log.format, LogFormat::Json);

    let flags = Overrides { log_format: Some(LogFormat::Text), verbosity: 1 };
    let config = load_with(Some(&file), &environment, &flags).expect("valid");
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.level, "warn,outboxd=debug");
}

#[test]
fn database_url_gives_way_to_the_variable_made_for_outboxd_and_goes_over_the_file() {
    let file = TempFile::new("url.toml", "[database]\nurl = \"postgres://file/a\"\n");
    let from_file = load(Some(&file), &[]).expect("valid");
    assert_eq!(from_file.database.url.expose(), "postgres://file/a");
    let generic = [("DATABASE_URL", "postgres://generic/a")];
    let over_file = load(Some(&file), &generic).expect("valid");
    assert_eq!(over_file.database.url.expose(), "postgres://generic/a");
    let own = [("OUTBOXD_DATABASE__URL", "postgres://own/a"), generic[0]];
    let over_generic = load(Some(&file), &own).expect("valid");
    assert_eq!(over_generic.database.url.expose(), "postgres://own/a");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let config = load(None, &with_database(&[("OUTBOXD_HTTP__CA_FILE", ""), ("OUTBOXD_RELAY__BATCH", "")]));
    assert_eq!(config.expect("valid").relay.batch, 1000);
}

#[test]
fn a_text_from_the_environment_is_taken_as_it_stands() {
    let variables = [("OUTBOXD_RELAY__NAME", "0042"), ("OUTBOXD_RELAY__ENVIRONMENT", "true")];
    let config = load(None, &with_database(&variables)).expect("valid");
    assert_eq!((config.relay.name.as_str(), config.relay.environment.as_str()), ("0042", "true"));
    let config = load(None, &with_database(&[("OUTBOXD_RELAY__NAME", "\"quoted\"")])).expect("valid");
    assert_eq!(config.relay.name, "quoted");
}

#[test]
fn an_unknown_key_is_named_with_its_source() {
    let file = TempFile::new("unknown.toml", "[relay]\nbatchsize = 1\n[vault]\nkey = \"hunter2\"\n");
    let problems = refused(Some(&file), &with_database(&[("OUTBOXD_HTTP__PROXY", "hunter2")]));
    let named: Vec<_> = problems.iter().map(|p| (p.key.as_deref(), p.origin.clone())).collect();
    assert_eq!(
        named,
        [
            (Some("http.proxy"), Some("environment variable OUTBOXD_HTTP__PROXY".to_owned())),
            (Some("relay.batchsize"), Some(file.path())),
            (Some("vault.key"), Some(file.path())),
        ]
    );
    assert!(problems[1].message.contains("batch,"), "{}", problems[1]);
    assert_eq!(
        problems[2].message,
        "there is no such section; there are admin, database, egress, http, log, relay, secrets, subscription, trace"
    );
}

#[test]
fn a_variable_with_one_underscore_too_few_is_refused() {
    let variables = [("OUTBOXD_EGRESS_ALLOW", "[]"), ("OUTBOXD_LOG", "debug"), ("OUTBOXD_PORT", "tcp://10.0.0.1:80")];
    let problems = refused(None, &with_database(&variables));
    let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert_eq!(texts[0], "environment variable OUTBOXD_EGRESS_ALLOW: expected OUTBOXD_EGRESS__ALLOW");
    assert!(texts[1].starts_with("environment variable OUTBOXD_LOG: expected one variable a key"), "{texts:?}");
}

#[test]
fn a_wrong_type_tells_what_was_expected_and_never_the_value() {
    let file = TempFile::new(
        "types.toml",
        "[database]\nurl = 31337\npool_size = \"hunter2\"\n[relay]\nlisten = \"hunter2\"\nname = [\"hunter2\"]\n\
         [http]\nhttp2 = {hunter2 = \"hunter2\"}\n[egress]\nallow = \"hunter2\"\nports = [\"hunter2\"]\n",
    );
    let error = load(Some(&file), &[("OUTBOXD_RELAY__BATCH", "hunter2")]).expect_err("a refusal");
    let text = error.to_string();
    assert!(!text.contains("hunter2") && !text.contains("31337"), "{text}");
    let path = file.path();
    for line in [
        format!("database.url ({path}): expected a PostgreSQL connection string, found a number"),
        format!("database.pool_size ({path}): expected a whole number from 1 to 1000, found a text"),
        "relay.batch (environment variable OUTBOXD_RELAY__BATCH): expected a whole number from 1 to 10000, \
         found a text"
            .to_owned(),
        format!("relay.listen ({path}): expected true or false, found a text"),
        format!("http.http2 ({path}): expected true or false, found a table"),
        format!("egress.allow ({path}): expected a list such as [\"10.20.0.0/16:8443\"], found a text"),
        format!("egress.ports ({path}): expected a list such as [443, 8443], found a list"),
    ] {
        assert!(text.contains(&line), "{line}\nis not in\n{text}");
    }
    assert_eq!(error.problems().len(), 8, "{text}");
}

#[test]
fn a_value_where_a_section_belongs_is_one_problem() {
    let file = TempFile::new("section.toml", "relay = \"hunter2\"\n");
    let problems = refused(Some(&file), &with_database(&[]));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().contains("expected a section [relay] with batch, "), "{}", problems[0]);
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_refused_without_quoting_it() {
    let broken = TempFile::new("broken.toml", "[database]\nurl = postgres://relay:hunter2@db/shop\n");
    let problems = refused(Some(&broken), &[]);
    assert_eq!(problems[0].to_string(), format!("{}: is not valid TOML at line 2, column 7", broken.path()));

    let missing = TempFile::new("missing.toml", "");
    std::fs::remove_file(&missing.0).expect("it was there");
    assert!(refused(Some(&missing), &[])[0].message.starts_with("cannot be read: "));
}

#[test]
fn a_duration_needs_a_unit_and_has_bounds() {
    for (text, expected) in [
        ("250ms", Duration::from_millis(250)),
        ("5 minutes", Duration::from_secs(300)),
        ("1m 30s", Duration::from_secs(90)),
        ("PT2S", Duration::from_secs(2)),
    ] {
        let config = load(None, &with_database(&[("OUTBOXD_RELAY__POLL_INTERVAL", text)])).expect(text);
        assert_eq!(config.relay.poll_interval, expected, "{text}");
    }
    for text in ["30", "1.5", "soon", "-1s", "1ms", "2h", "5 seconds ago"] {
        let problems = refused(None, &with_database(&[("OUTBOXD_RELAY__POLL_INTERVAL", text)]));
        assert!(problems[0].message.contains("with its unit from 10ms to 1h"), "{text}: {}", problems[0]);
    }
    let file = TempFile::new("duration.toml", "[relay]\npoll_interval = 1000\n");
    let problems = refused(Some(&file), &with_database(&[]));
    assert!(problems[0].message.ends_with("found a number"), "{}", problems[0]);
}

#[test]
fn a_value_out_of_bounds_is_refused() {
    for (name, text) in [
        ("OUTBOXD_RELAY__BATCH", "0"),
        ("OUTBOXD_RELAY__BATCH", "-1"),
        ("OUTBOXD_DATABASE__POOL_SIZE", "1001"),
        ("OUTBOXD_HTTP__MAX_RESPONSE_HEADER_BYTES", "100"),
        ("OUTBOXD_RELAY__ENVIRONMENT", "prod and staging"),
        ("OUTBOXD_RELAY__NAME", "a\u{7}b"),
        ("OUTBOXD_HTTP__USER_AGENT", "sch\u{f6}n"),
        ("OUTBOXD_HTTP__CA_FILE", "/nonexistent/ca.pem"),
        ("OUTBOXD_LOG__FORMAT", "xml"),
        ("OUTBOXD_LOG__LEVEL", "infoo"),
    ] {
        let problems = refused(None, &with_database(&[(name, text)]));
        assert_eq!(problems.len(), 1, "{name}: {problems:?}");
        assert_eq!(problems[0].origin, Some(format!("environment variable {name}")));
    }
}

#[test]
fn egress_lists_are_read_from_the_environment_and_judged_entry_by_entry() {
    let config = load(
        None,
        &with_database(&[
            ("OUTBOXD_EGRESS__ALLOW", "[\"127.0.0.0/8\", \"[::1]/128:8443\"]"),
            ("OUTBOXD_EGRESS__DENY", "[203.0.113.0/24]"),
            ("OUTBOXD_EGRESS__PORTS", "[443, 8443]"),
        ]),
    )
    .expect("valid");
    let texts: Vec<String> = config.egress.allow.iter().map(NetRule::to_string).collect();
    assert_eq!(texts, ["127.0.0.0/8", "[::1]/128:8443"]);
    assert_eq!(config.egress.deny[0].to_string(), "203.0.113.0/24");
    assert_eq!(config.egress.ports, [443, 8443]);

    let variables =
        [("OUTBOXD_EGRESS__ALLOW", "[\"10.1.2.3/8\", \"::1\", \"hunter2\"]"), ("OUTBOXD_EGRESS__PORTS", "[0]")];
    let problems = refused(None, &with_database(&variables));
    let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(messages[0].starts_with("entry 1: \"10.1.2.3/8\" is no network: it has bits set"), "{messages:?}");
    assert!(messages[1].starts_with("entry 3: expected CIDR"), "{messages:?}");
    assert!(messages[2].starts_with("entry 1: expected a port"), "{messages:?}");
}

#[test]
fn a_secret_can_come_from_a_file_but_not_from_two_places() {
    let secret = TempFile::new("secret", &format!("{URL}\n"));
    let config = load(None, &[("OUTBOXD_DATABASE__URL_FILE", &secret.path())]).expect("valid");
    assert_eq!(config.database.url.expose(), URL);

    let problems = refused(None, &with_database(&[("OUTBOXD_DATABASE__URL_FILE", &secret.path())]));
    assert_eq!(
        problems[0].to_string(),
        "database.url (environment variable DATABASE_URL): database.url_file is set too \
         (environment variable OUTBOXD_DATABASE__URL_FILE); set one of them"
    );

    let empty = TempFile::new("empty", "\n");
    let problems = refused(None, &[("OUTBOXD_DATABASE__URL_FILE", &empty.path())]);
    assert_eq!(problems[0].message, "the file is empty");
    // Whoever puts the secret itself where its file belongs does not find it in the error.
    let problems = refused(None, &[("OUTBOXD_DATABASE__URL_FILE", URL)]);
    assert!(problems[0].message.starts_with("the file cannot be read"), "{}", problems[0]);
    // What is wrong inside the file is told about the file.
    let wrong = TempFile::new("wrong", "postgres://relay:hunter2@db/shop?sslmode=hunter2\n");
    let problems = refused(None, &[("OUTBOXD_DATABASE__URL_FILE", &wrong.path())]);
    assert_eq!(problems[0].key.as_deref(), Some("database.url_file"));
}

#[test]
fn a_database_is_required() {
    let problems = refused(None, &[]);
    let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(texts, ["database.url: is not set; set DATABASE_URL or database.url_file"]);
}

#[test]
fn a_secret_is_in_no_debug_output() {
    let listen = [("OUTBOXD_DATABASE__LISTEN_URL", "host=db user=relay password=hunter2")];
    let config = load(None, &with_database(&listen)).expect("valid");
    let settings = config.database.listen_settings().expect("valid");
    let shown = format!("{config:?} {settings:?} {settings} {}", config.database.url);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("[redacted]"), "{shown}");
    assert_eq!(settings.server.get_password(), Some(&b"hunter2"[..]));
}

#[test]
fn the_direct_connection_falls_back_to_url() {
    let config = load(None, &with_database(&[])).expect("valid");
    let settings = config.database.listen_settings().expect("valid");
    assert_eq!(settings.to_string(), "relay@db.example.com:5432/shop (sslmode prefer)");
}

#[test]
fn a_ca_file_that_would_not_be_used_is_refused() {
    let ca = TempFile::new("ca.pem", "");
    let problems = refused(None, &with_database(&[("OUTBOXD_DATABASE__CA_FILE", &ca.path())]));
    assert_eq!(problems[0].key.as_deref(), Some("database.url"));
    assert_eq!(problems[0].message, ConnectError::UnusedCa.to_string());
}

#[test]
fn a_block_becomes_the_arguments_of_subscribe() {
    let secret = TempFile::new("secret", "whsec_from_a_file\n");
    let file = TempFile::new(
        "blocks.toml",
        &format!(
            "[[subscription]]\nname = \"a\"\nurl = \"https://a.example.com/\"\nevent_types = [\"order.*\", \"x\"]\nsecret = \"hunter2\"\n\
             timeout = \"1500ms\"\nrate_limit = 2.5\nmax_in_flight = 3\nordered = true\nheaders = {{ \"X-Team\" = \"blue\" }}\n\
             [[subscription]]\nname = \"a\"\ntenant_id = \"t\"\nurl = \"https://b.example.com/\"\nevent_types = [\"*\"]\nsecret_file = \"{}\"\n",
            secret.path()
        ),
    );
    let config = load(Some(&file), &with_database(&[])).expect("valid");
    let [first, second] = config.subscriptions.as_slice() else { panic!("two blocks: {:?}", config.subscriptions) };
    assert_eq!((first.tenant_id.as_str(), first.name.as_str(), given(first)), ("default", "a", "hunter2"));
    assert_eq!(
        serde_json::Value::from(first.definition.clone()),
        serde_json::json!({
            "url": "https://a.example.com/", "event_types": ["order.*", "x"], "timeout": "1500 milliseconds",
            "rate_limit": 2.5, "max_in_flight": 3, "ordered": true, "headers": { "X-Team": "blue" },
        })
    );
    assert_eq!((second.tenant_id.as_str(), given(second)), ("t", "whsec_from_a_file"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_block_is_named_without_its_values() {
    const GOOD: &str = "[[subscription]]\nname = \"a\"\nurl = \"https://a.example.com/\"\nevent_types = [\"*\"]\nsecret = \"hunter2hunter2\"\n";
    let with_nul = TempFile::new("nul-secret", "hunter2\0hunter2\n");
    let cases = [
        (format!("{GOOD}colour = \"hunter2\"\n"), "subscription[1].colour", "unknown key"),
        (format!("{GOOD}timeout = 15\n"), "subscription[1].timeout", "a duration with its unit"),
        (format!("{GOOD}ordered = \"hunter2\"\n"), "subscription[1].ordered", "true or false"),
        (format!("{GOOD}max_in_flight = \"hunter2\"\n"), "subscription[1].max_in_flight", "a number"),
        (format!("{GOOD}headers = [\"hunter2\"]\n"), "subscription[1].headers", "a table of texts"),
        (format!("{GOOD}rate_limit = inf\n"), "subscription[1].rate_limit", "a finite number"),
        (format!("{GOOD}rate_limit = -nan\n"), "subscription[1].rate_limit", "a finite number"),
        // PostgreSQL's log would repeat what stands around it.
        (format!("{GOOD}description = \"\\u0000hunter2\"\n"), "subscription[1].description", "without NUL"),
        (format!("{GOOD}headers = {{ \"X-A\" = \"\\u0000hunter2\" }}\n"), "subscription[1].headers", "without NUL"),
        (format!("{GOOD}headers = {{ \"\\u0000\" = \"hunter2\" }}\n"), "subscription[1].headers", "without NUL"),
        (GOOD.replace("[\"*\"]", "[\"a\", \"\\u0000\"]"), "subscription[1].event_types", "without NUL"),
        (GOOD.replace("hunter2hunter2", "hunter2\\u0000hunter2"), "subscription[1].secret", "without NUL"),
        (
            GOOD.replace("secret = \"hunter2hunter2\"", &format!("secret_file = \"{}\"", with_nul.path())),
            "subscription[1].secret_file",
            "without NUL",
        ),
        (GOOD.replace("[\"*\"]", "\"hunter2\""), "subscription[1].event_types", "a list of texts"),
        (format!("{GOOD}secret_file = \"hunter2\"\n"), "subscription[1].secret", "set one of secret, secret_file"),
        (
            GOOD.replace("secret = \"hunter2hunter2\"", "secret_file = \"/hunter2\""),
            "subscription[1].secret_file",
            "cannot be read",
        ),
        (GOOD.replace("secret = \"hunter2hunter2\"\n", ""), "subscription[1].secret", "shown one that is made"),
        (GOOD.replace("name = \"a\"\n", ""), "subscription[1].name", "is not set"),
        (GOOD.replace("url = \"https://a.example.com/\"\n", ""), "subscription[1].url", "is not set"),
        (format!("{GOOD}{GOOD}"), "subscription[2]", "has this name"),
        ("subscription = \"hunter2\"\n".to_owned(), "subscription", "[[subscription]] blocks"),
    ];
    for (n, (text, key, message)) in cases.iter().enumerate() {
        let file = TempFile::new(&format!("block-{n}.toml"), text);
        let problems = refused(Some(&file), &with_database(&[]));
        let [problem] = problems.as_slice() else { panic!("one problem in {text}: {problems:?}") };
        assert_eq!(problem.key.as_deref(), Some(*key), "{text}");
        assert!(problem.message.contains(message), "{}", problem.message);
        assert!(!problem.message.contains("hunter2"), "{}", problem.message);
    }
}

#[test]
fn a_few_variables_stand_for_blocks() {
    let variables = [
        ("WEBHOOK_URLS", "https://a.example.com/x, https://b.example.com/y"),
        ("WEBHOOK_SECRET", "hunter2hunter2"),
        ("WEBHOOK_TIMEOUT_MS", "2500"),
        ("WEBHOOK_MAX_RETRIES", "4"),
    ];
    let config = load(None, &with_database(&variables)).expect("valid");
    let [a, b] = config.subscriptions.as_slice() else { panic!("two: {:?}", config.subscriptions) };
    assert_eq!(
        serde_json::Value::from(a.definition.clone()),
        serde_json::json!({ "url": "https://a.example.com/x", "event_types": ["*"], "timeout": "2500 milliseconds", "max_retries": 4 })
    );
    assert!(a.name.starts_with("webhook-") && a.name.len() == 16 && a.name != b.name);
    let turned = [("WEBHOOK_URLS", "https://b.example.com/y,https://a.example.com/x"), variables[1]];
    assert_eq!(load(None, &with_database(&turned)).expect("valid").subscriptions[1].name, a.name);

    let url = "https://a.example.com/x";
    for (changed, key, message) in [
        (("WEBHOOK_SECRET", ""), "WEBHOOK_URLS", "needs WEBHOOK_SECRET"),
        (("WEBHOOK_SECRET_FILE", "/hunter2"), "WEBHOOK_SECRET", "set one of them"),
        (("WEBHOOK_TIMEOUT_MS", "soon"), "WEBHOOK_TIMEOUT_MS", "a whole number"),
        (("WEBHOOK_MAX_RETRIES", "-1"), "WEBHOOK_MAX_RETRIES", "a whole number"),
        (("WEBHOOK_URLS", &format!("{url}, {url}")), "WEBHOOK_URLS", "the same URL twice"),
        (("WEBHOOK_URLS", " , "), "WEBHOOK_URLS", "names no URL"),
    ] {
        let environment: Vec<_> =
            variables.into_iter().filter(|(name, _)| *name != changed.0).chain([changed]).collect();
        let problems = refused(None, &with_database(&environment));
        assert!(problems.len() == 1 && problems[0].key.as_deref() == Some(key), "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
    // Without URLs the others mean somebody else.
    assert!(load(None, &with_database(&variables[1..])).expect("valid").subscriptions.is_empty());
}

/// The secret of a subscription, or the reference.
fn given(subscription: &Subscription) -> &str {
    match &subscription.secret {
        Given::Secret(secret) => secret.expose(),
        Given::Reference(reference) => reference,
    }
}
