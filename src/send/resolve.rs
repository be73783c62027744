//! Names into addresses, without a thread.
//!
//! The system's resolver blocks a thread for each name until it answers, and names are chosen by
//! tenants: some hundred names whose servers do not answer would stop every other look-up. hickory asks
//! the same name servers (`/etc/resolv.conf`) and reads the same `/etc/hosts` asynchronously.
//!
//! Nothing is kept: each new connection asks anew and is judged anew, and no tenant's names fill a cache.
//! A name stands for itself: the search list of `resolv.conf` would make another one of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;

use super::SendError;
use crate::outcome::Failure;

/// Look-ups under way at one name server over one TCP connection; more are refused as busy.
const MAX_ACTIVE_REQUESTS: usize = 4096;

/// Asks the name servers of the system, or those it was made with.
#[derive(Clone)]
pub(super) struct Resolver {
    resolver: TokioResolver,
}

impl Resolver {
    /// With these name servers, or with the system's if there are none.
    pub(super) fn new(name_servers: &[SocketAddr]) -> Result<Self, SendError> {
        let mut builder = match name_servers {
            // Without a resolv.conf libc asks this host, too (resolv.conf(5)).
            [] => TokioResolver::builder_tokio().unwrap_or_else(|_| with(&[(Ipv4Addr::LOCALHOST, 53).into()])),
            named => with(named),
        };
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Always;
        options.cache_size = 0;
        options.max_active_requests = MAX_ACTIVE_REQUESTS;
        Ok(Self { resolver: builder.build().map_err(|error| SendError::Resolver(error.to_string()))? })
    }

    /// Every address of the name, IPv4 and IPv6; never none.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        let failed = |reason: String| Failure::Dns { host: host.to_owned(), reason };
        // What ends in a number would be an address in an old spelling (127.1) to others: RFC 3696, section 2.
        if host.trim_end_matches('.').rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(failed("it ends in a number, as no name does".to_owned()));
        }
        // From ASCII: URL parsing has applied IDNA, and receivers' names may hold an underscore.
        let mut name = Name::from_ascii(host).map_err(|error| failed(error.to_string()))?;
        name.set_fqdn(true);
        let found = self.resolver.lookup_ip(name).await.map_err(|error| match &error {
            NetError::Io(io) => Failure::exhausted(io).unwrap_or_else(|| failed(reason(&error))),
            _ => failed(reason(&error)),
        })?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

fn with(name_servers: &[SocketAddr]) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
    let name_servers = name_servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].into_iter().map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.collect())
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), name_servers.collect());
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

/// What a look-up failed of, in words an operator can act on.
fn reason(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "the name does not exist".to_owned()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => "it has no address".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server answers {code}"),
        NetError::Timeout => "no name server answered".to_owned(),
        other => other.to_string(),
    }
}
