//! What tokio-postgres connects with, made from a connection string and `[database]`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::Secret;
use super::connection_string::ConnectionString;
use crate::connect::history::History;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// A dead server is noticed after the same 11 s whether it owes keepalives or acknowledgements.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5 + 2 * 3);

/// Everything that is needed to connect.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// Hosts, user, database, timeouts, keepalives. Its `ssl_mode` agrees with `tls`.
    pub server: tokio_postgres::Config,
    /// Whether and how the connection is encrypted.
    pub tls: TlsMode,
    /// Which of the hosts is tried first; clones share it.
    pub first_host: Arc<AtomicUsize>,
    /// What was seen of the server's timelines.
    pub history: Arc<History>,
}

/// TLS to the database, by the names of `sslmode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS; also what a Unix socket uses.
    Disable,
    /// TLS if the server offers it; the certificate is not checked.
    Prefer,
    /// TLS or nothing; the certificate is not checked.
    Require,
    /// The certificate must come from this CA; the host's name is not checked.
    VerifyCa {
        /// PEM.
        ca_file: PathBuf,
    },
    /// The certificate must come from this CA and be the host's.
    VerifyFull {
        /// PEM; none means the system's roots.
        ca_file: Option<PathBuf>,
    },
}

/// Why a connection string is refused; never with a part of it that might be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Neither form of a connection string.
    #[error(
        "expected a PostgreSQL connection string: postgres://user@host/database or host=… user=… dbname=…, \
         with special characters percent-encoded or quoted"
    )]
    Syntax,
    /// An option that nobody knows.
    #[error("there is an option in it that outboxd does not know")]
    UnknownOption,
    /// An option of libpq or another driver.
    #[error("the option {0} is not supported; remove it")]
    UnsupportedOption(&'static str),
    /// An option with an impossible value.
    #[error("the value of the option {0} is not possible")]
    OptionValue(&'static str),
    /// A `sslmode` that is none.
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// A CA was named, and the mode would not check against it.
    #[error("a CA file needs sslmode=verify-ca or verify-full; every other mode would ignore it")]
    UnusedCa,
    /// `verify-ca` against all public CAs would accept anybody's certificate.
    #[error("sslmode=verify-ca needs database.ca_file or sslrootcert; with the system's roots use verify-full")]
    MissingCa,
    /// Both the string and the configuration name a CA.
    #[error("both sslrootcert and database.ca_file are set; set one of them")]
    TwoCas,
    /// libpq's default is a compiled-in socket directory; a daemon should not guess.
    #[error("it names no host; a Unix socket is host=/run/postgresql")]
    NoHost,
    /// Several ports, but not one a host.
    #[error("it must have one port, or as many ports as hosts")]
    Ports,
}

impl ConnectSettings {
    /// Settings with nothing seen yet.
    pub fn new(server: tokio_postgres::Config, tls: TlsMode) -> ConnectSettings {
        ConnectSettings { server, tls, first_host: Arc::default(), history: Arc::default() }
    }

    /// Reads a connection string. What it says itself goes before `connect_timeout` and outboxd's own
    /// name and keepalives; `ca_file` stands for `sslrootcert`.
    pub(super) fn parse(
        text: &Secret,
        ca_file: Option<&Path>,
        connect_timeout: Duration,
    ) -> Result<ConnectSettings, ConnectError> {
        let string = ConnectionString::parse(text.expose().trim())?;
        let mut server = string.without_tls()?;
        check_hosts(&server)?;

        let only_sockets =
            server.get_hostaddrs().is_empty() && server.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        // As libpq: TLS does not apply to a Unix socket.
        let tls = if only_sockets { TlsMode::Disable } else { string.tls_mode(ca_file)? };
        server.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa { .. } | TlsMode::VerifyFull { .. } => SslMode::Require,
        });

        // A standby in a list is there to be promoted. Alone it may be asked for its status.
        if !string.has("target_session_attrs") && server.get_hosts().len().max(server.get_hostaddrs().len()) > 1 {
            server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if !string.has("connect_timeout") {
            server.connect_timeout(connect_timeout);
        }
        if !string.has("application_name") {
            server.application_name("outboxd");
        }
        if !string.has("keepalives_idle") {
            server.keepalives_idle(KEEPALIVE_IDLE);
        }
        if !string.has("keepalives_interval") {
            server.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if !string.has("keepalives_retries") {
            server.keepalives_retries(KEEPALIVE_RETRIES);
        }
        if !string.has("tcp_user_timeout") {
            server.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        Ok(ConnectSettings::new(server, tls))
    }
}

/// Where this leads, for people: `user@host:port,…/database (sslmode verify-full)`; no password.
impl fmt::Display for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = self.server.get_user() {
            write!(f, "{user}@")?;
        }
        let ports = self.server.get_ports();
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let separator = |index: usize| if index == 0 { "" } else { "," };
        for (index, host) in self.server.get_hosts().iter().enumerate() {
            match host {
                Host::Tcp(name) => write!(f, "{}{name}:{}", separator(index), port(index))?,
                Host::Unix(path) => write!(f, "{}{}:{}", separator(index), path.display(), port(index))?,
            }
        }
        if self.server.get_hosts().is_empty() {
            for (index, address) in self.server.get_hostaddrs().iter().enumerate() {
                write!(f, "{}{address}:{}", separator(index), port(index))?;
            }
        }
        write!(f, "/{} (sslmode {})", self.server.get_dbname().unwrap_or_default(), self.tls)
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsMode::Disable => "disable",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa { .. } => "verify-ca",
            TlsMode::VerifyFull { .. } => "verify-full",
        })
    }
}

/// tokio-postgres finds these only when it connects.
fn check_hosts(server: &tokio_postgres::Config) -> Result<(), ConnectError> {
    let hosts = server.get_hosts().len().max(server.get_hostaddrs().len());
    if hosts == 0 || server.get_hosts().iter().any(|host| *host == Host::Tcp(String::new())) {
        return Err(ConnectError::NoHost);
    }
    let (hostaddrs, ports) = (server.get_hostaddrs().len(), server.get_ports().len());
    if hostaddrs != 0 && !server.get_hosts().is_empty() && hostaddrs != server.get_hosts().len() {
        return Err(ConnectError::OptionValue("hostaddr"));
    }
    if ports > 1 && ports != hosts {
        return Err(ConnectError::Ports);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConnectSettings, ConnectError> {
        parse_with(text, None)
    }

    fn parse_with(text: &str, ca_file: Option<&str>) -> Result<ConnectSettings, ConnectError> {
        ConnectSettings::parse(&Secret::new(text.to_owned()), ca_file.map(Path::new), Duration::from_secs(10))
    }

    fn tls(text: &str) -> Result<TlsMode, ConnectError> {
        parse(text).map(|settings| settings.tls)
    }

    #[test]
    fn every_sslmode_is_understood_in_both_forms() {
        let ca_file = PathBuf::from("/etc/ca file.pem");
        for (url, keys, expected) in [
            ("", "", TlsMode::Prefer),
            ("?sslmode=disable", "sslmode=disable", TlsMode::Disable),
            ("?sslmode=prefer", "sslmode = prefer", TlsMode::Prefer),
            ("?sslmode=require", "sslmode='require'", TlsMode::Require),
            (
                "?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca%20file.pem",
                "sslmode=verify-ca sslrootcert='/etc/ca file.pem'",
                TlsMode::VerifyCa { ca_file: ca_file.clone() },
            ),
            (
                "?sslrootcert=/etc/ca%20file.pem&sslmode=verify-full",
                "sslrootcert=/etc/ca\\ file.pem sslmode=verify-full",
                TlsMode::VerifyFull { ca_file: Some(ca_file) },
            ),
            ("?sslmode=verify-full", "sslmode=verify-full", TlsMode::VerifyFull { ca_file: None }),
            (
                "?sslmode=verify-full&sslrootcert=system",
                "sslmode=verify-full sslrootcert=system",
                TlsMode::VerifyFull { ca_file: None },
            ),
        ] {
            assert_eq!(tls(&format!("postgres://u@db/x{url}")).as_ref(), Ok(&expected), "{url}");
            assert_eq!(tls(&format!("host=db user=u {keys} dbname=x")).as_ref(), Ok(&expected), "{keys}");
        }
        let settings = parse("postgresql://db/x?sslmode=verify-full").expect("valid");
        assert_eq!(settings.server.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn a_mode_that_would_not_check_what_it_was_given_is_refused() {
        use ConnectError::{MissingCa, SslMode, TwoCas, UnusedCa};
        for (options, ca_file, expected) in [
            ("sslmode=verify", None, SslMode),
            ("sslmode=allow", None, SslMode),
            ("sslmode=verify-ca", None, MissingCa),
            ("sslmode=verify-ca&sslrootcert=system", None, MissingCa),
            ("sslmode=require&sslrootcert=/ca.pem", None, UnusedCa),
            ("sslmode=require&sslrootcert=system", None, UnusedCa),
            ("sslmode=disable", Some("/ca.pem"), UnusedCa),
            ("", Some("/ca.pem"), UnusedCa),
            ("sslmode=verify-full&sslrootcert=/ca.pem", Some("/ca.pem"), TwoCas),
        ] {
            let refused = parse_with(&format!("postgres://u@db/x?{options}"), ca_file).map(|settings| settings.tls);
            assert_eq!(refused, Err(expected), "{options}");
        }
        let settings = parse_with("host=/run/postgresql sslmode=verify-full", Some("/ca.pem")).expect("a socket");
        assert_eq!((settings.tls, settings.server.get_ssl_mode()), (TlsMode::Disable, super::SslMode::Disable));
    }

    #[test]
    fn several_hosts_and_session_attributes_keep_working() {
        let url = "postgres://u:p%40ss@db1:5433,db2,[::1]:5434/shop\
                   ?target_session_attrs=read-write&sslmode=verify-full&load_balance_hosts=random";
        let settings = parse(url).expect("valid");
        assert_eq!(settings.to_string(), "u@db1:5433,db2:5432,::1:5434/shop (sslmode verify-full)");
        assert_eq!(settings.server.get_password(), Some(&b"p@ss"[..]));
        let attributes = settings.server.get_target_session_attrs();
        assert_eq!(attributes, tokio_postgres::config::TargetSessionAttrs::ReadWrite);

        let keys = "host=db1,db2 port=5433 dbname=shop target_session_attrs=read-write sslmode=verify-full";
        assert_eq!(parse(keys).expect("valid").to_string(), "db1:5433,db2:5433/shop (sslmode verify-full)");
    }

    #[test]
    fn of_several_hosts_the_one_that_may_be_written_to_is_meant_unless_it_is_said_otherwise() {
        for (text, expected) in [
            ("postgres://db1,db2/shop", TargetSessionAttrs::ReadWrite),
            ("hostaddr=10.0.0.1,10.0.0.2 dbname=shop", TargetSessionAttrs::ReadWrite),
            ("postgres://db1,db2/shop?target_session_attrs=any", TargetSessionAttrs::Any),
            ("postgres://db1/shop", TargetSessionAttrs::Any),
        ] {
            assert_eq!(parse(text).expect("valid").server.get_target_session_attrs(), expected, "{text}");
        }
    }

    #[test]
    fn a_password_with_signs_of_the_syntax_survives() {
        for text in [
            "postgres://u:a?sslmode=x&b'c+d\\@db/x?sslmode=require",
            "host=db user=u password='a?sslmode=x&b\\'c+d\\\\' sslmode=require",
        ] {
            let settings = parse(text).expect(text);
            assert_eq!(settings.server.get_password(), Some(&b"a?sslmode=x&b'c+d\\"[..]), "{text}");
            assert_eq!(settings.tls, TlsMode::Require);
        }
    }

    #[test]
    fn the_string_goes_before_the_defaults() {
        let server = parse("postgres://u@db/x").expect("valid").server;
        assert_eq!(server.get_connect_timeout(), Some(&Duration::from_secs(10)));
        assert_eq!(server.get_application_name(), Some("outboxd"));
        assert!(server.get_keepalives());
        assert_eq!(server.get_keepalives_idle(), KEEPALIVE_IDLE);
        assert_eq!(server.get_keepalives_interval(), Some(KEEPALIVE_INTERVAL));
        assert_eq!(server.get_keepalives_retries(), Some(KEEPALIVE_RETRIES));
        assert_eq!(server.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));

        let own = "postgres://u@db/x?connect_timeout=3&application_name=relay+1&keepalives_idle=60";
        let server = parse(own).expect("valid").server;
        assert_eq!(server.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(server.get_application_name(), Some("relay+1"));
        assert_eq!(server.get_keepalives_idle(), Duration::from_secs(60));
    }

    #[test]
    fn what_cannot_connect_is_refused_before_it_is_tried() {
        use ConnectError::{NoHost, OptionValue, Ports, Syntax, UnknownOption, UnsupportedOption};
        for (text, expected) in [
            ("db.example.com", Syntax),
            ("mysql://db/x", Syntax),
            ("host=db password='open", Syntax),
            ("host=db password=two words", Syntax),
            ("postgres://db/x?sslmode", Syntax),
            ("postgres:///x", NoHost),
            ("user=u dbname=x", NoHost),
            ("host=db1,db2,db3 port=1,2", Ports),
            ("host=db1,db2 hostaddr=127.0.0.1", OptionValue("hostaddr")),
            ("host=db connect_timeout=soon", OptionValue("connect_timeout")),
            ("postgres://db/x?sslcert=/a", UnsupportedOption("sslcert")),
            ("postgres://db/x?password=a&b=c", UnknownOption),
        ] {
            assert_eq!(tls(text), Err(expected), "{text}");
        }
    }
}
