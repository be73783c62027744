//! Which address may be dialled.
//!
//! A webhook's URL is chosen by a tenant, so it may point at what only the relay can reach: the
//! cloud's metadata service, a database, the relay itself. Names say nothing about that, so the
//! [`Policy`] judges addresses, every one a name resolves to, at the moment they are dialled
//! ([`crate::send`]). [`check_url`] refuses earlier what no address could mend.

mod net_rule;
mod url_rule;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use net_rule::{NetRule, NetRuleError};
pub use url_rule::{UrlRefusal, check_url};

/// The port that needs no permission.
const HTTPS_PORT: u16 = 443;

/// The IPv4 ranges that are not the public internet (IANA's special-purpose registry, multicast,
/// the reserved class E) and the one public address that is a cloud's own.
const REFUSED_V4: [(Ipv4Net, &str); 19] = [
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared by carriers"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([169, 254, 0, 0], 16), "link-local, cloud metadata"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "protocol assignments"),
    (v4([192, 0, 2, 0], 24), "documentation"),
    (v4([192, 31, 196, 0], 24), "AS112"),
    (v4([192, 52, 193, 0], 24), "AMT"),
    (v4([192, 88, 99, 0], 24), "6to4 relays"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([192, 175, 48, 0], 24), "AS112"),
    (v4([198, 18, 0, 0], 15), "benchmarks"),
    (v4([198, 51, 100, 0], 24), "documentation"),
    (v4([203, 0, 113, 0], 24), "documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved, broadcast"),
    (v4([168, 63, 129, 16], 32), "Azure's host"),
];

/// The IPv6 ranges refused by name. Whatever is outside [`GLOBAL_V6`] is refused as well: the ones
/// listed here that lie outside only give the message a better word.
const REFUSED_V6: [(Ipv6Net, &str); 10] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments, Teredo"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), "AS112"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
];

/// All of IPv6 that has been given out as global unicast.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// The ranges whose last 32 bits are an IPv4 address: mapped (RFC 4291, 2.5.5.2), compatible
/// (2.5.5.1) and translated by NAT64 (RFC 6052).
const CARRIERS_OF_V4: [Ipv6Net; 3] =
    [v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), v6([0, 0, 0, 0, 0, 0, 0, 0], 96), v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96)];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// What the operator allows beyond the default, and what the default refuses.
///
/// Order of judgement: the deny list, the allow list, the default refusals with this host's own
/// addresses, the ports. What the deny list names stays refused even if the allow list names it
/// too; an address of the allow list may be dialled at every port, unless its rule names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<NetRule>,
    deny: Vec<NetRule>,
    ports: Vec<u16>,
    own: HashSet<IpAddr>,
}

/// The policy cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The operating system does not tell this host's addresses, which have to be refused.
    #[error("cannot list the addresses of this host's interfaces, which egress refuses: {0}")]
    Interfaces(#[source] std::io::Error),
}

impl Policy {
    /// Makes the policy and reads this host's interface addresses, as they are now.
    ///
    /// `ports` are those besides 443 at which any public address may be dialled.
    ///
    /// # Errors
    /// If the interfaces cannot be listed: without them the policy would be a hole.
    pub fn new(allow: &[NetRule], deny: &[NetRule], ports: &[u16]) -> Result<Self, PolicyError> {
        let interfaces = if_addrs::get_if_addrs().map_err(PolicyError::Interfaces)?;
        Ok(Self::with_own(allow, deny, ports, interfaces.iter().map(if_addrs::Interface::ip)))
    }

    fn with_own(allow: &[NetRule], deny: &[NetRule], ports: &[u16], own: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { allow: allow.to_vec(), deny: deny.to_vec(), ports: ports.to_vec(), own: own.into_iter().collect() }
    }

    /// Whether this very address may be dialled.
    ///
    /// An IPv6 address that carries an IPv4 address is judged as the one it carries; the deny list
    /// matches it in both spellings.
    ///
    /// # Errors
    /// A [`Refusal`] that names the rule.
    pub fn judge(&self, addr: SocketAddr) -> Result<(), Refusal> {
        let (written, port) = (addr.ip(), addr.port());
        let judged = carried(written).unwrap_or(written);
        let refused = |rule| Err(Refusal { written, judged, rule });

        if let Some(rule) = self.deny.iter().find(|rule| rule.covers(judged, port) || rule.covers(written, port)) {
            return refused(Rule::Denied(*rule));
        }
        if self.allow.iter().any(|rule| rule.covers(judged, port)) {
            return Ok(());
        }
        if let Some(rule) = refused_by_default(judged) {
            return refused(rule);
        }
        if self.own.contains(&judged) || self.own.contains(&written) {
            return refused(Rule::OwnAddress);
        }
        if port != HTTPS_PORT && !self.ports.contains(&port) {
            return refused(Rule::Port(port));
        }
        Ok(())
    }
}

/// The IPv4 address inside an IPv6 one, if it is of a form that carries one.
fn carried(addr: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(addr) = addr else { return None };
    // `::` and `::1` look compatible and are not (RFC 4291, 2.5.2 and 2.5.3).
    if addr.is_unspecified() || addr.is_loopback() || !CARRIERS_OF_V4.iter().any(|net| net.contains(&addr)) {
        return None;
    }
    let [.., a, b, c, d] = addr.octets();
    Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
}

fn refused_by_default(addr: IpAddr) -> Option<Rule> {
    match addr {
        IpAddr::V4(addr) => REFUSED_V4
            .iter()
            .find(|(net, _)| net.contains(&addr))
            .map(|(net, class)| Rule::Range(IpNet::V4(*net), class)),
        IpAddr::V6(addr) => REFUSED_V6
            .iter()
            .find(|(net, _)| net.contains(&addr))
            .map(|(net, class)| Rule::Range(IpNet::V6(*net), class))
            .or_else(|| (!GLOBAL_V6.contains(&addr)).then_some(Rule::NotGlobal)),
    }
}

/// An address that must not be dialled, and the rule that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    written: IpAddr,
    judged: IpAddr,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Denied(NetRule),
    Range(IpNet, &'static str),
    NotGlobal,
    OwnAddress,
    Port(u16),
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Rule::Port(port) = self.rule {
            return write!(f, "port {port} is not among the ports allowed");
        }
        if self.written == self.judged {
            write!(f, "{} is ", self.written)?;
        } else {
            write!(f, "{} carries {}, which is ", self.written, self.judged)?;
        }
        match &self.rule {
            Rule::Denied(rule) => write!(f, "in {rule} (denied by the configuration)"),
            Rule::Range(net, class) => write!(f, "in {net} ({class})"),
            Rule::NotGlobal => write!(f, "outside {GLOBAL_V6} (global unicast)"),
            Rule::OwnAddress => f.write_str("an address of this host"),
            Rule::Port(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
