//! One entry of `[egress] allow` or `deny`: a network, and perhaps one port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network and perhaps one port; without one it covers every port.
///
/// Written as `10.0.0.0/8`, `10.0.0.0/8:8443`, `192.0.2.1`, `192.0.2.1:80`, `fd00::/8`,
/// `[fd00::]/8:443` or `[::1]:80`. An IPv6 address without a prefix length needs brackets to be
/// followed by a port: `::1:80` is an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetRule {
    /// The addresses.
    pub net: IpNet,
    /// The one port; none means all.
    pub port: Option<u16>,
}

impl NetRule {
    /// Whether the rule speaks of this address at this port.
    pub fn covers(&self, addr: IpAddr, port: u16) -> bool {
        self.net.contains(&addr) && self.port.is_none_or(|named| named == port)
    }
}

/// A text that is no [`NetRule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no network: {reason}; write CIDR or CIDR:port, as \"10.0.0.0/8\" or \"[fd00::]/8:8443\"")]
pub struct NetRuleError {
    text: String,
    reason: String,
}

impl FromStr for NetRule {
    type Err = NetRuleError;

    fn from_str(text: &str) -> Result<Self, NetRuleError> {
        parse(text).map_err(|reason| NetRuleError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<NetRule, String> {
    let parts = split(text)?;
    let addr: IpAddr = parts.addr.parse().map_err(|_| format!("{:?} is not an IP address", parts.addr))?;
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    let prefix = match parts.prefix {
        Some(digits) => number::<u8>(digits)
            .filter(|prefix| *prefix <= longest)
            .ok_or_else(|| format!("the prefix length has to be a number from 0 to {longest}"))?,
        None => longest,
    };
    let port = match parts.port {
        Some(digits) => {
            let port = number::<u16>(digits).filter(|port| *port > 0);
            Some(port.ok_or("the port has to be a number from 1 to 65535")?)
        }
        None => None,
    };
    let net = IpNet::new_assert(addr, prefix);
    // Somebody who writes 10.0.0.1/8 may mean one address or 16 million: ask rather than guess.
    if net.trunc() != net {
        return Err(format!("it has bits set beyond its prefix; write {} or {addr}/{longest}", net.trunc()));
    }
    if let IpAddr::V6(v6) = addr
        && prefix >= 96
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!("it is the IPv4 network {v4}/{}; write it as that", prefix - 96));
    }
    Ok(NetRule { net, port })
}

struct Parts<'a> {
    addr: &'a str,
    prefix: Option<&'a str>,
    port: Option<&'a str>,
}

fn split(text: &str) -> Result<Parts<'_>, String> {
    // In brackets: [addr], [addr]/prefix or [addr/prefix], each perhaps with :port.
    if let Some(inner) = text.strip_prefix('[') {
        let (inner, tail) = inner.split_once(']').ok_or("the bracket is not closed")?;
        let (tail, port) = split_port(tail);
        let (addr, inner_prefix) = match inner.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (inner, None),
        };
        let prefix = match (tail.strip_prefix('/'), inner_prefix) {
            (Some(prefix), None) => Some(prefix),
            (None, prefix) if tail.is_empty() => prefix,
            _ => return Err("what follows the bracket is neither /prefix nor :port".to_owned()),
        };
        return Ok(Parts { addr, prefix, port });
    }
    if let Some((addr, tail)) = text.split_once('/') {
        let (prefix, port) = split_port(tail);
        return Ok(Parts { addr, prefix: Some(prefix), port });
    }
    // An IPv6 address has colons of its own: only IPv4 takes a port here.
    if text.parse::<IpAddr>().is_ok() {
        return Ok(Parts { addr: text, prefix: None, port: None });
    }
    let (addr, port) = split_port(text);
    Ok(Parts { addr, prefix: None, port })
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((before, port)) => (before, Some(port)),
        None => (text, None),
    }
}

/// A number of digits alone: `FromStr` of the standard library would also take a plus sign.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl fmt::Display for NetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.net, self.port) {
            (net, None) => write!(f, "{net}"),
            (IpNet::V4(net), Some(port)) => write!(f, "{net}:{port}"),
            (IpNet::V6(net), Some(port)) => write!(f, "[{}]/{}:{port}", net.addr(), net.prefix_len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:8443", "10.0.0.0/8:8443"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("127.0.0.1:80", "127.0.0.1/32:80"),
            ("::1", "::1/128"),
            ("::1/128", "::1/128"),
            ("::1:80", "::1:80/128"),
            ("fd00::/8:8443", "[fd00::]/8:8443"),
            ("[fd00::]/8:8443", "[fd00::]/8:8443"),
            ("[fd00::/8]:8443", "[fd00::]/8:8443"),
            ("[fd00::/8]", "fd00::/8"),
            ("[::1]", "::1/128"),
            ("[::1]:80", "[::1]/128:80"),
            ("[::1]/128:80", "[::1]/128:80"),
            ("::/0", "::/0"),
        ] {
            let rule: NetRule = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(rule.to_string(), expected, "{text}");
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not an IP address"),
            ("localhost", "not an IP address"),
            ("10.0.0/8", "not an IP address"),
            ("010.0.0.0/8", "not an IP address"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/8:", "from 1 to 65535"),
            ("10.0.0.0/8:0", "from 1 to 65535"),
            ("10.0.0.0/8:65536", "from 1 to 65535"),
            ("10.0.0.1/8", "write 10.0.0.0/8 or 10.0.0.1/32"),
            ("[::1", "not closed"),
            ("[::1]80", "neither"),
            ("[fd00::/8]/8", "neither"),
            ("::ffff:10.0.0.0/104", "IPv4 network 10.0.0.0/8"),
            (" 10.0.0.0/8", "not an IP address"),
        ] {
            let error = text.parse::<NetRule>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
