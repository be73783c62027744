//! The configuration: one struct a section, read once at start, refused with everything that is wrong.
//!
//! The defaults are `config/outboxd.toml`, compiled in; it documents every key. Over them go a file, the
//! environment and the command line. An error repeats no value, since whatever is in the wrong place
//! may be a secret; see [`ConfigError`].

mod connection_string;
mod layers;
mod level;
mod postgres;
mod problem;
#[cfg(test)]
mod properties;
mod reader;
mod secret;
mod secrets;
mod subscription;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::connect::history::History;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use crate::egress::{NetRule, NetRuleError};
use crate::secrets::Secrets;
use crate::send::Proxy;
use layers::Layers;
use reader::{Noted, Read, Reader};

pub use postgres::{ConnectError, ConnectSettings, TlsMode};
pub use problem::{ConfigError, Problem};
pub use secret::Secret;
pub use subscription::{Given, Subscription};

/// `config/outboxd.toml`: every key with its default and the reason to change it.
pub const DEFAULTS: &str = include_str!("../../config/outboxd.toml");

/// The file that is read where none is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/outboxd/outboxd.toml";

/// The whole configuration, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the events are.
    pub database: Database,
    /// The loop.
    pub relay: Relay,
    /// How a receiver is spoken to.
    pub http: Http,
    /// Which addresses may be dialled.
    pub egress: Egress,
    /// Sealing keys, and where references are looked up.
    pub secrets: Secrets,
    /// The operator's seat.
    pub admin: Admin,
    /// Where spans are exported to.
    pub trace_endpoint: Option<String>,
    /// What is logged.
    pub log: Log,
    /// Subscriptions that are kept in step with the configuration.
    pub subscriptions: Vec<Subscription>,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// The connection string: a URL or key=value pairs.
    pub url: Secret,
    /// The direct connection, if `url` goes through a pooler.
    pub listen_url: Option<Secret>,
    /// Connections for statements.
    pub pool_size: usize,
    /// For one address, unless the connection string says otherwise.
    pub connect_timeout: Duration,
    /// For one statement; whoever opens a session sets it there, since a pooler may refuse it at connect.
    pub statement_timeout: Duration,
    /// The CA of the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// What was seen of the server's timelines, by both ways.
    history: Arc<History>,
}

/// `[relay]`
#[derive(Debug, Clone)]
pub struct Relay {
    /// How this relay is called; the host's name unless set.
    pub name: String,
    /// The environment it belongs to.
    pub environment: String,
    /// Attempts under way at once, over all subscriptions.
    pub concurrency: usize,
    /// The same for one subscription that sets none of its own.
    pub max_in_flight: usize,
    /// Events an expand takes.
    pub batch: usize,
    /// Bytes of payload held at once, counted for each delivery, and as many for slow ones beside them.
    pub max_payload_bytes_held: usize,
    /// Whether LISTEN is used.
    pub listen: bool,
    /// The longest sleep.
    pub poll_interval: Duration,
    /// How long a stopping relay waits for attempts under way.
    pub drain_deadline: Duration,
    /// Whether the relay's own writes wait for the disk.
    pub synchronous_commit: bool,
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// The `user-agent` header.
    pub user_agent: String,
    /// How long an idle connection is kept.
    pub pool_idle_timeout: Duration,
    /// How much of an answer's body is read.
    pub max_response_bytes: usize,
    /// How large the headers of an answer may be, all together.
    pub max_response_header_bytes: usize,
    /// CAs besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// How often an HTTP/2 connection is pinged.
    pub http2_keep_alive_interval: Duration,
    /// Asked instead of the system's name servers; none is the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Who dials instead of the relay.
    pub proxy: Option<Proxy>,
}

/// `[egress]`
#[derive(Debug, Clone)]
pub struct Egress {
    /// Exceptions from what is refused by default.
    pub allow: Vec<NetRule>,
    /// Refused in addition; goes before `allow`.
    pub deny: Vec<NetRule>,
    /// Ports that may be dialled at an address that `allow` does not name.
    pub ports: Vec<u16>,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it is served; none is off.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and key in PEM files; none is plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Names by which it may be called besides addresses and localhost.
    pub hosts: Vec<String>,
    /// Database connections for it.
    pub pool_size: usize,
    /// A request's time.
    pub request_timeout: Duration,
    /// The largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// A console's session ends after so long without anything done.
    pub session_idle: Duration,
    /// Not ready once the oldest work has waited so long.
    pub ready_lag: Duration,
    /// Whether `/metrics` names tenants and subscriptions.
    pub metrics_by_subscription: bool,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives of [`tracing_subscriber::EnvFilter`], already raised by `-v`.
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// What the command line says; it goes over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// How often `-v` was given: once raises outboxd's own modules to debug, twice everything.
    pub verbosity: u8,
}

impl Config {
    /// Reads the defaults, `file` (or [`DEFAULT_FILE`] where that exists), the process's environment and
    /// `overrides`, the later over the earlier.
    ///
    /// # Errors
    /// Every problem at once: an unreadable file, unknown keys, wrong types, impossible values or
    /// combinations, a missing `database.url`.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, ConfigError> {
        let default_file = Path::new(DEFAULT_FILE);
        // Not being allowed to look is a problem to report, not a file that does not exist.
        let exists = || default_file.try_exists().unwrap_or(true).then_some(default_file);
        Config::load_from(file.or_else(exists), std::env::vars_os(), overrides)
    }

    /// The defaults with this database and nothing of the surroundings, for a system that brings its
    /// own: the demo, the benchmark, the tests.
    ///
    /// # Errors
    /// If `url` is not a connection string.
    pub fn for_database(url: &str) -> Result<Config, ConfigError> {
        let variable = (OsString::from("DATABASE_URL"), OsString::from(url));
        Config::load_from(None, [variable], &Overrides::default())
    }

    fn load_from(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let mut layers = Layers::defaults();
        if let Some(path) = file {
            layers.add_file(path);
        }
        layers.add_environment(environment);
        layers.add_flags(overrides);

        // Without one of its layers the rest would be judged wrongly.
        if !layers.problems.is_empty() {
            return Err(ConfigError::new(layers.problems));
        }
        let mut reader = Reader::new(layers);
        let config = Config::read(&mut reader, overrides);
        let problems = reader.into_problems();
        match config {
            Ok(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::new(problems)),
        }
    }

    // Here and in every section all is read before the first `?`, so that every problem is noted.
    fn read(reader: &mut Reader, overrides: &Overrides) -> Read<Config> {
        let database = Database::read(reader);
        let relay = Relay::read(reader);
        let http = Http::read(reader);
        let egress = Egress::read(reader);
        let secrets = secrets::read(reader);
        let admin = Admin::read(reader);
        let trace_endpoint = trace_endpoint(reader);
        let log = Log::read(reader, overrides.verbosity);
        let subscriptions = subscription::read(reader);
        Ok(Config {
            database: database?,
            relay: relay?,
            http: http?,
            egress: egress?,
            secrets: secrets?,
            admin: admin?,
            trace_endpoint: trace_endpoint?,
            log: log?,
            subscriptions: subscriptions?,
        })
    }
}

impl Database {
    fn read(reader: &mut Reader) -> Read<Database> {
        const EXPECTED: &str = "a PostgreSQL connection string";
        let url = reader.secret("database.url", "database.url_file", EXPECTED);
        let listen_url = reader.secret("database.listen_url", "database.listen_url_file", EXPECTED);
        let pool_size = reader.number("database.pool_size", 1..=1000);
        let connect_timeout = reader.duration("database.connect_timeout", millis(100)..=minutes(10));
        let statement_timeout = reader.duration("database.statement_timeout", millis(100)..=minutes(60));
        let ca_file = reader.readable_file("database.ca_file");

        let url = url.and_then(|url| {
            url.ok_or_else(|| {
                reader.note("database.url", "is not set; set DATABASE_URL or database.url_file".to_owned())
            })
        });
        let (url, listen_url, connect_timeout, ca_file) = (url?, listen_url?, connect_timeout?, ca_file?);
        let mut usable = Ok(());
        for (key, file_key, secret) in [
            ("database.url", "database.url_file", Some(&url)),
            ("database.listen_url", "database.listen_url_file", listen_url.as_ref()),
        ] {
            let Some(secret) = secret else { continue };
            if let Err(error) = ConnectSettings::parse(secret, ca_file.as_deref(), connect_timeout) {
                let key = if reader.is_set(key) { key } else { file_key };
                usable = Err(reader.note(key, error.to_string()));
            }
        }
        let (pool_size, statement_timeout) = (pool_size?, statement_timeout?);
        usable?;
        Ok(Database {
            url,
            listen_url,
            pool_size,
            connect_timeout,
            statement_timeout,
            ca_file,
            history: Arc::default(),
        })
    }

    /// How the pooled connections are made.
    ///
    /// # Errors
    /// None in a configuration that was loaded and not changed since.
    pub fn connect_settings(&self) -> Result<ConnectSettings, ConnectError> {
        self.settings(&self.url)
    }

    /// How the one direct connection is made: by `listen_url`, or by `url` where that is not set.
    ///
    /// # Errors
    /// As [`Database::connect_settings`].
    pub fn listen_settings(&self) -> Result<ConnectSettings, ConnectError> {
        self.settings(self.listen_url.as_ref().unwrap_or(&self.url))
    }

    fn settings(&self, url: &Secret) -> Result<ConnectSettings, ConnectError> {
        let settings = ConnectSettings::parse(url, self.ca_file.as_deref(), self.connect_timeout)?;
        Ok(ConnectSettings { history: self.history.clone(), ..settings })
    }
}

impl Relay {
    fn read(reader: &mut Reader) -> Read<Relay> {
        const NAME: &str = "a name of 1 to 100 printable characters";
        // What outbox.adopt accepts.
        const ENVIRONMENT: &str = "1 to 63 letters, digits, _ . -";
        let name = reader.parsed("relay.name", NAME, |text| {
            let printable = text.chars().count() <= 100 && !text.chars().any(char::is_control);
            if printable { Ok(text.to_owned()) } else { Err(format!("expected {NAME}")) }
        });
        let name = name.and_then(|name| match name.or_else(host_name) {
            Some(name) => Ok(name),
            None => Err(reader.note("relay.name", "this host has no name; set one".to_owned())),
        });
        let environment = reader.parsed("relay.environment", ENVIRONMENT, |text| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let acceptable = text.len() <= 63 && text.chars().all(plain);
            if acceptable { Ok(text.to_owned()) } else { Err(format!("expected {ENVIRONMENT}")) }
        });
        let environment = environment.and_then(|set| reader.required("relay.environment", set));
        let concurrency = reader.number("relay.concurrency", 1..=65_536);
        let max_in_flight = reader.number("relay.max_in_flight", 1..=65_536);
        let batch = reader.number("relay.batch", 1..=10_000);
        let max_payload_bytes_held = reader.number("relay.max_payload_bytes_held", 1 << 20..=1 << 36);
        let listen = reader.boolean("relay.listen");
        let poll_interval = reader.duration("relay.poll_interval", millis(10)..=minutes(60));
        let drain_deadline = reader.duration("relay.drain_deadline", Duration::ZERO..=minutes(60));
        let synchronous_commit = reader.boolean("relay.synchronous_commit");
        Ok(Relay {
            name: name?,
            environment: environment?,
            concurrency: concurrency?,
            max_in_flight: max_in_flight?,
            batch: batch?,
            max_payload_bytes_held: max_payload_bytes_held?,
            listen: listen?,
            poll_interval: poll_interval?,
            drain_deadline: drain_deadline?,
            synchronous_commit: synchronous_commit?,
        })
    }
}

impl Http {
    fn read(reader: &mut Reader) -> Read<Http> {
        const USER_AGENT: &str = "printable ASCII";
        const PROXY: &str = "http://host:port, perhaps with user:password@ before the host";
        let user_agent = reader.parsed("http.user_agent", USER_AGENT, |text| {
            let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if printable { Ok(text.to_owned()) } else { Err(format!("expected {USER_AGENT}")) }
        });
        let pool_idle_timeout = reader.duration("http.pool_idle_timeout", millis(100)..=minutes(60));
        let max_response_bytes = reader.number("http.max_response_bytes", 0..=16 << 20);
        // hyper's buffer for an HTTP/1 head cannot be smaller than 8 KiB.
        let max_response_header_bytes = reader.number("http.max_response_header_bytes", 8 << 10..=1 << 20);
        let ca_file = reader.readable_file("http.ca_file");
        let http2 = reader.boolean("http.http2");
        let http2_keep_alive_interval = reader.duration("http.http2_keep_alive_interval", millis(1000)..=minutes(60));
        let name_servers = reader.list("http.name_servers", "[\"127.0.0.53\", \"[::1]:5353\"]", name_server);
        let proxy = reader.secret("http.proxy", "http.proxy_file", PROXY);
        let proxy = proxy.and_then(|url| {
            let key = if reader.is_set("http.proxy") { "http.proxy" } else { "http.proxy_file" };
            let unusable = |expected: &str| reader.note(key, format!("expected {expected}"));
            url.map(|url| parse_proxy(url.expose()).ok_or(PROXY)).transpose().map_err(unusable)
        });
        let default_agent = || concat!("outboxd/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(Http {
            user_agent: user_agent?.unwrap_or_else(default_agent),
            pool_idle_timeout: pool_idle_timeout?,
            max_response_bytes: max_response_bytes?,
            max_response_header_bytes: max_response_header_bytes?,
            ca_file: ca_file?,
            http2: http2?,
            http2_keep_alive_interval: http2_keep_alive_interval?,
            name_servers: name_servers?,
            proxy: proxy?,
        })
    }
}

impl Egress {
    fn read(reader: &mut Reader) -> Read<Egress> {
        const EXAMPLE: &str = "[\"10.20.0.0/16:8443\"]";
        let allow = reader.list("egress.allow", EXAMPLE, net_rule);
        let deny = reader.list("egress.deny", EXAMPLE, net_rule);
        let ports = reader.list("egress.ports", "[443, 8443]", |port: u64| match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err("expected a port from 1 to 65535"),
        });
        Ok(Egress { allow: allow?, deny: deny?, ports: ports? })
    }
}

impl Admin {
    fn read(reader: &mut Reader) -> Read<Admin> {
        const LISTEN: &str = "an address with its port, as 127.0.0.1:8480, or off";
        let listen = reader.parsed("admin.listen", LISTEN, |text| match text {
            "off" => Ok(None),
            text => text.parse::<SocketAddr>().map(Some).map_err(|_| format!("expected {LISTEN}")),
        });
        let certificate = reader.readable_file("admin.tls_certificate_file");
        let key = reader.readable_file("admin.tls_key_file");
        let tls = match (certificate, key) {
            (Ok(Some(certificate)), Ok(Some(key))) => Ok(Some((certificate, key))),
            (Ok(None), Ok(None)) => Ok(None),
            (Ok(Some(_)), Ok(None)) => {
                Err(reader.note("admin.tls_key_file", "is not set; a certificate needs its key".to_owned()))
            }
            (Ok(None), Ok(Some(_))) => {
                Err(reader.note("admin.tls_certificate_file", "is not set; a key needs its certificate".to_owned()))
            }
            _ => Err(Noted),
        };
        let plaintext = reader.boolean("admin.plaintext");
        let hosts = reader.list("admin.hosts", "[\"ops.example.com\"]", |name: String| {
            let plain = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
            if plain { Ok(name) } else { Err("expected a name in lower case without its port") }
        });
        let pool_size = reader.number("admin.pool_size", 1..=100);
        let request_timeout = reader.duration("admin.request_timeout", millis(100)..=minutes(10));
        let max_body_bytes = reader.number("admin.max_body_bytes", 1024..=128 << 20);
        let session_idle = reader.duration("admin.session_idle", millis(1000)..=minutes(720));
        let ready_lag = reader.duration("admin.ready_lag", millis(100)..=minutes(24 * 60));
        let metrics_by_subscription = reader.boolean("admin.metrics_by_subscription");
        let listen = listen.and_then(|set| reader.required("admin.listen", set))?;
        let (tls, plaintext) = (tls?, plaintext?);
        if tls.is_none() && !plaintext && listen.is_some_and(|at| !at.ip().is_loopback()) {
            return Err(reader.note(
                "admin.listen",
                "is not a loopback address: set admin.tls_certificate_file and admin.tls_key_file, or admin.plaintext = true where a proxy before it speaks TLS".to_owned(),
            ));
        }
        Ok(Admin {
            listen,
            tls,
            hosts: hosts?,
            pool_size: pool_size?,
            request_timeout: request_timeout?,
            max_body_bytes: max_body_bytes?,
            session_idle: session_idle?,
            ready_lag: ready_lag?,
            metrics_by_subscription: metrics_by_subscription?,
        })
    }
}

/// `trace.endpoint`
fn trace_endpoint(reader: &mut Reader) -> Read<Option<String>> {
    const ENDPOINT: &str = "an http: URL, as http://127.0.0.1:4318/v1/traces, or off";
    let endpoint = reader.parsed("trace.endpoint", ENDPOINT, |text| match url::Url::parse(text) {
        _ if text == "off" => Ok(None),
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(Some(text.to_owned())),
        _ => Err(format!("expected {ENDPOINT}")),
    });
    endpoint.and_then(|set| reader.required("trace.endpoint", set))
}

impl Log {
    fn read(reader: &mut Reader, verbosity: u8) -> Read<Log> {
        const LEVEL: &str = "a level (error, warn, info, debug, trace, off) or module=level pairs";
        let format = reader.parsed("log.format", "text or json", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("expected text or json"),
        });
        let format = format.and_then(|format| reader.required("log.format", format));
        let level = reader.parsed("log.level", LEVEL, |text| {
            if level::is_filter(text) { Ok(level::raised(text, verbosity)) } else { Err(format!("expected {LEVEL}")) }
        });
        let level = level.and_then(|level| reader.required("log.level", level));
        Ok(Log { format: format?, level: level? })
    }
}

/// Reads one entry of an egress list. The reason repeats the entry, which helps to find it; it is shown
/// only for what could not be anything but an address.
fn name_server(text: String) -> Result<SocketAddr, &'static str> {
    const DNS_PORT: u16 = 53;
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|address| (address, DNS_PORT).into()));
    address.map_err(|_| "expected the address of a name server, perhaps with its port")
}

fn parse_proxy(text: &str) -> Option<Proxy> {
    let url = Url::parse(text).ok()?;
    if url.scheme() != "http" || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let uri = format!("http://{}:{}", url.host_str()?, url.port_or_known_default()?).parse().ok()?;
    let decoded = |text| percent_decode_str(text).decode_utf8().ok();
    let authorization = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            let pair = Zeroizing::new(format!("{}:{}", decoded(user)?, decoded(password.unwrap_or_default())?));
            let basic = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
            let mut value = HeaderValue::from_str(&basic).ok()?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    Some(Proxy { uri, authorization })
}

fn net_rule(text: String) -> Result<NetRule, String> {
    text.parse().map_err(|error: NetRuleError| {
        if text.len() <= 50 && text.chars().all(|c| c.is_ascii_hexdigit() || ".:/[]".contains(c)) {
            error.to_string()
        } else {
            "expected CIDR or CIDR:port, as \"10.20.0.0/16\" or \"[::1]/128:8443\"".to_owned()
        }
    })
}

/// The host's name as the kernel has it.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}
