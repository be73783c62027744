//! Any file, any environment, any connection string: read, or refused without its values.

use super::tests::{TempFile, load};
use super::*;
use proptest::prelude::*;

/// Where this stands, no message must show it.
const SECRET: &str = "hunter2";
const KEYS: [&str; 30] = [
    "database.url",
    "database.listen_url",
    "database.url_file",
    "database.pool_size",
    "database.connect_timeout",
    "database.ca_file",
    "relay.name",
    "relay.environment",
    "relay.concurrency",
    "relay.batch",
    "relay.listen",
    "relay.poll_interval",
    "relay.drain_deadline",
    "http.user_agent",
    "http.max_response_bytes",
    "http.ca_file",
    "http.http2",
    "egress.allow",
    "egress.deny",
    "egress.ports",
    "admin.listen",
    "admin.tls_certificate_file",
    "admin.hosts",
    "admin.session_idle",
    "trace.endpoint",
    "log.format",
    "log.level",
    "relay.nonsense",
    "nonsense.key",
    "subscription",
];

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}".prop_map(|text| format!("{text}{SECRET}")),
        "\\PC{0,12}".prop_map(|text| format!("{SECRET}{text}")),
        Just(format!("postgres://relay:{SECRET}@db.example.com/shop?sslmode={SECRET}")),
        Just(format!("host=db password='{SECRET}")),
        Just(format!("[\"{SECRET}\"]")),
        Just(format!("/nonexistent/{SECRET}")),
    ]
}

/// A value in TOML's notation.
fn any_toml() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any_text().prop_map(|text| toml_text(&text)),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}").replace("NaN", "nan")),
        "true|false|inf|-nan|2026-01-01T00:00:00Z|07:32:00|0x1f|\"30s\"|\"1 day\"",
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::vec(("[a-z]{1,8}", inner), 0..3).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().enumerate().map(|(n, (name, value))| format!("{name}{n} = {value}")).collect();
                format!("{{ {} }}", members.join(", "))
            }),
        ]
    })
}

fn toml_text(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|character| match character {
            '"' | '\\' => format!("\\{character}"),
            control if control.is_control() => format!("\\u{:04X}", u32::from(control)),
            other => other.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

fn without_secret(result: Result<Config, ConfigError>) -> Result<(), TestCaseError> {
    match result {
        Ok(config) => {
            for secret in [Some(&config.database.url), config.database.listen_url.as_ref()].into_iter().flatten() {
                prop_assert_eq!(format!("{:?} {}", secret, secret), "[redacted] [redacted]");
            }
        }
        Err(error) => {
            prop_assert!(!error.problems().is_empty());
            prop_assert!(!format!("{error} {error:?}").contains(SECRET), "{}", error);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_without_its_values(
        entries in proptest::collection::vec((proptest::sample::select(&KEYS[..]), any_toml()), 0..6),
        // Names are repeated, so that this must not begin with one.
        garbage in proptest::option::weighted(0.2, any_text().prop_map(|text| format!("= {text}"))),
    ) {
        let lines: Vec<String> = entries.iter().map(|(key, value)| format!("{key} = {value}")).chain(garbage).collect();
        let file = TempFile::new("any.toml", &lines.join("\n"));
        without_secret(load(Some(&file), &[]))?;
        without_secret(load(Some(&file), &[("DATABASE_URL", "postgres://relay@db/shop")]))?;
    }

    #[test]
    fn any_environment_is_read_or_refused_without_its_values(
        entries in proptest::collection::vec((proptest::sample::select(&KEYS[..]), prop_oneof![any_text(), any_toml()]), 0..6),
        webhook in proptest::option::of(any_text()), separator in "__|_|___",
    ) {
        let mut variables: Vec<(String, String)> = entries.into_iter()
            .map(|(key, text)| (format!("OUTBOXD_{}", key.to_uppercase().replace('.', &separator)), text.replace('\0', ""))).collect();
        if let Some(text) = webhook {
            variables.push(("WEBHOOK_URLS".into(), format!("https://hooks.example.com/?{text}")));
            variables.push(("WEBHOOK_TIMEOUT_MS".into(), text));
        }
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        without_secret(load(None, &variables))?;
    }

    #[test]
    fn what_is_valid_comes_back_as_it_was_written(
        concurrency in 1..=65_536usize, batch in 1..=10_000usize, poll_ms in 10..=3_600_000u64, listen in any::<bool>(), in_file in any::<bool>(),
        name in "[!#-Z_a-z][!-Z_a-z\u{e4}\u{4e16}]{0,20}", ports in proptest::collection::vec(1..=u16::MAX, 0..5),
        allow in proptest::collection::vec((any::<u32>(), 0..=32u8, proptest::option::of(1..=u16::MAX)), 0..4),
    ) {
        let rules: Vec<String> = allow.iter().map(|(bits, length, port)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            format!("{}/{length}{port}", std::net::Ipv4Addr::from(bits & mask))
        }).collect();
        let rules_text = format!("[{}]", rules.iter().map(|rule| toml_text(rule)).collect::<Vec<_>>().join(", "));
        let values = [
            ("relay.concurrency", concurrency.to_string()), ("relay.batch", batch.to_string()), ("relay.listen", listen.to_string()),
            ("relay.poll_interval", toml_text(&format!("{poll_ms}ms"))), ("relay.name", toml_text(&name)),
            ("egress.ports", format!("{ports:?}")), ("egress.allow", rules_text),
        ];
        let text: Vec<String> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let file = TempFile::new("valid.toml", &if in_file { text.join("\n") } else { String::new() });
        let variables: Vec<(String, String)> = values.iter().filter(|_| !in_file)
            .map(|(key, value)| (format!("OUTBOXD_{}", key.to_uppercase().replace('.', "__")), value.clone())).collect();
        let mut variables: Vec<(&str, &str)> = variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        variables.push(("DATABASE_URL", "postgres://relay@db/shop"));
        let config = load(Some(&file), &variables);
        let config = config.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!((config.relay.concurrency, config.relay.batch, config.relay.listen), (concurrency, batch, listen));
        prop_assert_eq!((config.relay.name, config.relay.poll_interval), (name, millis(poll_ms)));
        prop_assert_eq!(config.egress.ports, ports);
        prop_assert_eq!(config.egress.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), rules);
    }

    #[test]
    fn a_connection_string_says_the_same_in_both_forms(
        user in "[a-z]{1,8}", password in "[ -~\u{e4}]{1,16}", host in "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", port in 1..=u16::MAX, dbname in "[a-z]{1,8}",
        mode in proptest::sample::select(&["disable", "prefer", "require", "verify-full"][..]),
    ) {
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
        for text in [
            format!("postgres://{user}:{encoded}@{host}:{port}/{dbname}?sslmode={mode}"),
            format!("host={host} port = {port} user={user} password='{quoted}' dbname={dbname} sslmode='{mode}'"),
        ] {
            let settings = ConnectSettings::parse(&Secret::new(text.clone()), None, millis(1000));
            let settings = settings.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            prop_assert_eq!(settings.server.get_user(), Some(user.as_str()));
            prop_assert_eq!(settings.server.get_password(), Some(password.as_bytes()));
            prop_assert_eq!((settings.server.get_ports(), settings.server.get_dbname()), (&[port][..], Some(dbname.as_str())));
            let tls = match mode {
                "disable" => TlsMode::Disable,
                "prefer" => TlsMode::Prefer,
                "require" => TlsMode::Require,
                _ => TlsMode::VerifyFull { ca_file: None },
            };
            prop_assert_eq!(settings.tls, tls);
        }
    }

    #[test]
    fn any_text_is_a_connection_string_or_an_error_without_it(
        parts in proptest::collection::vec(prop_oneof![
            proptest::sample::select(&["postgres://", "postgresql://", "host=", "password=", "sslmode=", "verify-full", "sslrootcert=", "system", "?", "&", "@",
                ":", "/", "=", "'", "\\", " ", ",", "%", "%zz", "5432", "port=", "options=", "hunter2", "[::1]", "hostaddr=", "connect_timeout="][..]).prop_map(str::to_owned),
            "\\PC{0,4}",
        ], 0..10)
    ) {
        if let Err(error) = ConnectSettings::parse(&Secret::new(parts.concat()), None, millis(1000)) {
            let told = format!("{error} {error:?}");
            prop_assert!(!told.contains(SECRET), "{}", told);
        }
    }
}
