//! A connection string taken apart: tokio-postgres' parser knows neither `sslmode=verify-ca` and
//! `verify-full` nor `sslrootcert`, so they are taken out before it sees the string. Everything else
//! stays as it was written: several hosts, `target_session_attrs`, Unix sockets.
//!
//! Format: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::postgres::{ConnectError, TlsMode};

/// Options of tokio-postgres 0.7 besides those of TLS.
const OPTIONS: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Options that libpq or a driver knows and that people have in their strings: worth naming when refused.
/// An unknown option is not named, since an unquoted blank makes the rest of a password one.
const FOREIGN_OPTIONS: [&str; 20] = [
    "client_encoding",
    "connection_limit",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "passfile",
    "pgbouncer",
    "pool_timeout",
    "replication",
    "require_auth",
    "requirepeer",
    "schema",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "sslsni",
];

/// A connection string taken apart as far as its options.
pub(super) struct ConnectionString<'a> {
    /// What stands before the options of a URL; none in the key=value form.
    base: Option<&'a str>,
    options: Vec<Parameter<'a>>,
}

struct Parameter<'a> {
    key: String,
    value: Zeroizing<String>,
    /// As it was written.
    raw: &'a str,
}

impl<'a> ConnectionString<'a> {
    pub(super) fn parse(text: &'a str) -> Result<ConnectionString<'a>, ConnectError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Ok(ConnectionString { base: None, options: key_values(text)? });
        }
        // The password may hold a question mark: the options begin at the first one behind the host.
        let host = text.find('@').unwrap_or(0);
        let Some(question) = text[host..].find('?').map(|offset| host + offset) else {
            return Ok(ConnectionString { base: Some(text), options: Vec::new() });
        };
        let (base, query) = (&text[..question], &text[question + 1..]);
        let options = query.split('&').filter(|raw| !raw.is_empty()).map(query_parameter);
        Ok(ConnectionString { base: Some(base), options: options.collect::<Result<_, _>>()? })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The last one wins, as in libpq.
    fn get(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|option| option.key == key).map(|option| option.value.as_str())
    }

    /// The whole string but `sslmode` and `sslrootcert`, as tokio-postgres reads it.
    pub(super) fn without_tls(&self) -> Result<tokio_postgres::Config, ConnectError> {
        let mut text = Zeroizing::new(self.base.unwrap_or_default().to_owned());
        let (mut separator, next_separator) = if self.base.is_some() { ('?', '&') } else { (' ', ' ') };
        for option in &self.options {
            if option.key == "sslmode" || option.key == "sslrootcert" {
                continue;
            }
            check_option(option)?;
            text.push(separator);
            text.push_str(option.raw);
            separator = next_separator;
        }
        // Its message may quote from the string.
        text.parse().map_err(|_| ConnectError::Syntax)
    }

    pub(super) fn tls_mode(&self, ca_file: Option<&Path>) -> Result<TlsMode, ConnectError> {
        let root_cert = self.get("sslrootcert").filter(|path| !path.is_empty());
        if root_cert.is_some() && ca_file.is_some() {
            return Err(ConnectError::TwoCas);
        }
        // libpq's word for the system's roots, with verify-full alone.
        let system = root_cert == Some("system");
        let ca_file = root_cert.filter(|_| !system).map(PathBuf::from).or(ca_file.map(Path::to_owned));
        match (self.get("sslmode").unwrap_or("prefer"), ca_file) {
            ("verify-full", ca_file) => Ok(TlsMode::VerifyFull { ca_file }),
            ("verify-ca", Some(ca_file)) => Ok(TlsMode::VerifyCa { ca_file }),
            ("verify-ca", None) => Err(ConnectError::MissingCa),
            ("disable" | "prefer" | "require", Some(_)) => Err(ConnectError::UnusedCa),
            ("disable" | "prefer" | "require", None) if system => Err(ConnectError::UnusedCa),
            ("disable", None) => Ok(TlsMode::Disable),
            ("prefer", None) => Ok(TlsMode::Prefer),
            ("require", None) => Ok(TlsMode::Require),
            _ => Err(ConnectError::SslMode),
        }
    }
}

/// Asks tokio-postgres about one option alone, so that the error can name it.
fn check_option(option: &Parameter<'_>) -> Result<(), ConnectError> {
    let named = |known: &[&'static str]| known.iter().copied().find(|name| *name == option.key);
    if let Some(name) = named(&FOREIGN_OPTIONS) {
        return Err(ConnectError::UnsupportedOption(name));
    }
    let name = named(&OPTIONS).ok_or(ConnectError::UnknownOption)?;
    let quoted = option.value.replace('\\', "\\\\").replace('\'', "\\'");
    let alone = Zeroizing::new(format!("{name}='{quoted}'"));
    alone.parse::<tokio_postgres::Config>().map(|_| ()).map_err(|_| ConnectError::OptionValue(name))
}

fn query_parameter(raw: &str) -> Result<Parameter<'_>, ConnectError> {
    // A plus sign is itself in a connection URL, a blank in a form.
    let escaped = Zeroizing::new(raw.replace('+', "%2B"));
    let mut decoded = url::form_urlencoded::parse(escaped.as_bytes()).into_owned();
    match decoded.next() {
        Some((key, value)) if raw.contains('=') => Ok(Parameter { key, value: Zeroizing::new(value), raw }),
        _ => Err(ConnectError::Syntax),
    }
}

/// Takes `key = 'value' key=value` apart: blanks around the equals sign are allowed, a backslash takes
/// the next character as it is.
fn key_values(text: &str) -> Result<Vec<Parameter<'_>>, ConnectError> {
    let mut options = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let equals = rest.find('=').ok_or(ConnectError::Syntax)?;
        let key = rest[..equals].trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(ConnectError::Syntax);
        }
        let behind = rest[equals + 1..].trim_start();
        let (value, after) = value(behind)?;
        let raw = &rest[..rest.len() - after.len()];
        options.push(Parameter { key: key.to_owned(), value, raw });
        rest = after.trim_start();
    }
    Ok(options)
}

/// The value at the beginning of `text`, and what follows it.
fn value(text: &str) -> Result<(Zeroizing<String>, &str), ConnectError> {
    let quoted = text.starts_with('\'');
    let mut value = Zeroizing::new(String::new());
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[index + 1..])),
            blank if !quoted && blank.is_whitespace() => return Ok((value, &text[index..])),
            other => value.push(other),
        }
    }
    if quoted || value.is_empty() { Err(ConnectError::Syntax) } else { Ok((value, "")) }
}
