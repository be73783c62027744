//! The way to one of several hosts, each within a time limit.
//!
//! tokio-postgres goes through a list of hosts too, but its `connect_timeout` ends with the TCP connection: a host that
//! is frozen, or whose packets get lost from then on, accepts and says nothing, and no other is ever tried.
//!
//! The host that answered last is tried first, so that after a failover the dead one costs its time limit once and not
//! with each connection. Which host will do is up to `target_session_attrs` and [`history`](super::history).

use super::history::follow;
use super::{CONNECT_TIMEOUT, Canceller, ConnectError, Opened, Tls};
use crate::config::ConnectSettings;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};

/// How many hosts are named.
pub(super) fn count(server: &Config) -> usize {
    server.get_hosts().len().max(server.get_hostaddrs().len())
}

/// Opens a connection to the first address that will do.
pub(super) async fn connect(target: &ConnectSettings, tls: &Tls) -> Result<Opened, ConnectError> {
    let server = &target.server;
    let limit = server.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let (count, first) = (count(server), target.first_host.load(Ordering::Relaxed));
    let mut order: Vec<usize> = (0..count).map(|nth| (first + nth) % count).collect();
    if server.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut order);
    }
    let mut failures = Vec::new();
    for host in order {
        let turn = Turn { first: &target.first_host, next: (host + 1) % count };
        match connect_host(target, host, limit, tls).await {
            Ok(connection) => {
                turn.keep(host);
                return Ok(connection);
            }
            Err(error) => failures.push((name(server, host), error)),
        }
    }
    match failures.pop() {
        Some((_, only)) if failures.is_empty() => Err(only),
        last => Err(ConnectError::Hosts(failures.into_iter().chain(last).collect())),
    }
}

/// The next connection begins with the next host, also if this one is given up halfway.
struct Turn<'a> {
    first: &'a AtomicUsize,
    next: usize,
}

impl Turn<'_> {
    fn keep(mut self, host: usize) {
        self.next = host;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.first.store(self.next, Ordering::Relaxed);
    }
}

async fn connect_host(
    target: &ConnectSettings,
    host: usize,
    limit: Duration,
    tls: &Tls,
) -> Result<Opened, ConnectError> {
    let (named, port) = (target.server.get_hosts().get(host), port(&target.server, host));
    let addresses: Vec<Option<IpAddr>> = match (named, target.server.get_hostaddrs().get(host)) {
        (_, Some(address)) => vec![Some(*address)],
        (Some(Host::Tcp(name)), None) => match timeout(limit, tokio::net::lookup_host((name.as_str(), port))).await {
            Ok(Ok(found)) => found.map(|address| Some(address.ip())).collect(),
            Ok(Err(error)) => return Err(ConnectError::Name(error)),
            Err(_) => return Err(ConnectError::Silent(limit)),
        },
        _ => vec![None],
    };
    let mut last = ConnectError::Silent(limit);
    for address in addresses {
        let one = only(&target.server, named, address, port);
        match timeout(limit, connect_address(target, &one, tls)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::Silent(limit),
        }
    }
    Err(last)
}

async fn connect_address(target: &ConnectSettings, one: &Config, tls: &Tls) -> Result<Opened, ConnectError> {
    let (client, mut driver) = one.connect(tls.clone()).await?;
    let canceller = Canceller::new(&client, one.clone(), tls.clone());
    let followed = tokio::select! {
        followed = follow(&client, &target.history) => Some(followed),
        _ = &mut driver => None,
    };
    match followed {
        Some(followed) => followed?,
        None => {
            // Without its driver the client says itself what has become of the connection.
            drop(driver);
            follow(&client, &target.history).await?;
            return Err(ConnectError::Silent(Duration::ZERO));
        }
    }
    Ok(Opened { client, driver, canceller })
}

/// The same settings for one address. The name stays: TLS is checked against it.
fn only(server: &Config, named: Option<&Host>, address: Option<IpAddr>, port: u16) -> Config {
    let mut one = Config::new();
    match named {
        Some(Host::Tcp(name)) => _ = one.host(name),
        Some(Host::Unix(path)) => _ = one.host_path(path),
        None => {}
    }
    if let Some(address) = address {
        one.hostaddr(address);
    }
    if let Some(user) = server.get_user() {
        one.user(user);
    }
    if let Some(password) = server.get_password() {
        one.password(password);
    }
    if let Some(dbname) = server.get_dbname() {
        one.dbname(dbname);
    }
    if let Some(options) = server.get_options() {
        one.options(options);
    }
    if let Some(name) = server.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = server.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = server.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = server.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = server.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    // As libpq does: a socket in a directory leads to this host and has no TLS.
    let is_local = address.is_none() && matches!(named, Some(Host::Unix(_)));
    one.port(port)
        .ssl_mode(if is_local { SslMode::Disable } else { server.get_ssl_mode() })
        .ssl_negotiation(server.get_ssl_negotiation())
        .keepalives(server.get_keepalives())
        .keepalives_idle(server.get_keepalives_idle())
        .target_session_attrs(server.get_target_session_attrs())
        .channel_binding(server.get_channel_binding());
    one
}

fn port(server: &Config, host: usize) -> u16 {
    server.get_ports().get(host).or(server.get_ports().first()).copied().unwrap_or(5432)
}

fn name(server: &Config, host: usize) -> String {
    let port = port(server, host);
    match (server.get_hosts().get(host), server.get_hostaddrs().get(host)) {
        (Some(Host::Tcp(name)), _) => format!("{name}:{port}"),
        (Some(Host::Unix(path)), _) => format!("{}:{port}", path.display()),
        (None, Some(address)) => format!("{address}:{port}"),
        (None, None) => format!("host {host}"),
    }
}
