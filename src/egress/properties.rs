//! The guard against an oracle that is written another way: ranges as texts, addresses as strings of bits.

use proptest::prelude::*;

use super::*;

/// IANA's registry of special-purpose IPv4 addresses, whole, with multicast and Azure's host.
/// <https://www.iana.org/assignments/iana-ipv4-special-registry>
const SPECIAL_V4: [&str; 28] = [
    "0.0.0.0/8",
    "0.0.0.0/32",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/32",
    "192.0.0.171/32",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.88.99.2/32",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "168.63.129.16/32",
];

/// The same of IPv6, and what lies around global unicast. What carries an IPv4 address is in [`SPELLINGS`].
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>
const SPECIAL_V6: [&str; 30] = [
    "::1/128",
    "::/128",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
    // Outside 2000::/3.
    "0::/3",
    "4000::/3",
    "6000::/3",
    "8000::/2",
    "c000::/3",
    "e000::/3",
];

/// The networks whose last 32 bits are an IPv4 address: mapped, compatible, NAT64.
const SPELLINGS: [&str; 3] = ["::ffff:0:0/96", "::/96", "64:ff9b::/96"];

fn bits(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => addr.octets().iter().map(|octet| format!("{octet:08b}")).collect(),
        IpAddr::V6(addr) => addr.segments().iter().map(|segment| format!("{segment:016b}")).collect(),
    }
}

/// A network's addresses begin with these bits.
fn prefix(net: &str) -> String {
    let (addr, length) = net.split_once('/').expect("CIDR");
    bits(addr.parse().expect("an address"))[..length.parse().expect("a length")].to_owned()
}

fn is_in(addr: &str, net: &str) -> bool {
    let same_family = net.contains(':') == (addr.len() == 128);
    same_family && addr.starts_with(&prefix(net))
}

fn address(bits: &str) -> IpAddr {
    match bits.len() {
        32 => Ipv4Addr::from(u32::from_str_radix(bits, 2).expect("bits")).into(),
        _ => Ipv6Addr::from(u128::from_str_radix(bits, 2).expect("bits")).into(),
    }
}

/// The bits of the address that counts: of the IPv4 address inside, if there is one.
fn inner(bits: &str) -> &str {
    let is_carrier = SPELLINGS.iter().any(|net| is_in(bits, net)) && !bits[..127].chars().all(|bit| bit == '0');
    if is_carrier { &bits[96..] } else { bits }
}

fn is_special(inner: &str) -> bool {
    SPECIAL_V4.iter().chain(&SPECIAL_V6).any(|net| is_in(inner, net))
}

/// A rule as text, with its parts.
#[derive(Clone, Debug)]
struct Listed {
    net: String,
    port: Option<u16>,
}

impl Listed {
    fn rule(&self) -> NetRule {
        let text = match (self.port, self.net.contains(':')) {
            (None, _) => self.net.clone(),
            (Some(port), false) => format!("{}:{port}", self.net),
            (Some(port), true) => {
                let (addr, length) = self.net.split_once('/').expect("CIDR");
                format!("[{addr}]/{length}:{port}")
            }
        };
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn covers(&self, bits: &str, port: u16) -> bool {
        is_in(bits, &self.net) && self.port.is_none_or(|named| named == port)
    }
}

fn may_be_dialled(bits: &str, port: u16, allow: &[Listed], deny: &[Listed], ports: &[u16]) -> bool {
    let inner = inner(bits);
    if deny.iter().any(|rule| rule.covers(inner, port) || rule.covers(bits, port)) {
        return false;
    }
    allow.iter().any(|rule| rule.covers(inner, port)) || (!is_special(inner) && (port == 443 || ports.contains(&port)))
}

fn policy(allow: &[Listed], deny: &[Listed], ports: &[u16]) -> Policy {
    let rules = |list: &[Listed]| list.iter().map(Listed::rule).collect::<Vec<_>>();
    Policy::with_own(&rules(allow), &rules(deny), ports, [])
}

/// The neighbours and the ends of a network, where its family has them.
fn edges(net: &str) -> Vec<String> {
    let prefix = prefix(net);
    let width = if net.contains(':') { 128 } else { 32 };
    let (first, last) = (format!("{prefix:0<width$}"), format!("{prefix:1<width$}"));
    let step = |bits: &str, up: bool| {
        let number = u128::from_str_radix(bits, 2).expect("bits");
        let moved = if up { number.checked_add(1) } else { number.checked_sub(1) };
        moved.map(|number| format!("{number:0>width$b}")).filter(|bits| bits.len() == width)
    };
    let around = [step(&first, false), step(&last, true)];
    around.into_iter().flatten().chain([first, last]).collect()
}

/// Anywhere, or near a network of the tables, in any spelling.
fn any_bits() -> impl Strategy<Value = String> {
    let nets = || proptest::sample::select([&SPECIAL_V4[..], &SPECIAL_V6[..], &SPELLINGS[..]].concat());
    let within = (nets(), any::<u128>()).prop_map(|(net, random)| {
        let width = if net.contains(':') { 128 } else { 32 };
        let prefix = prefix(net);
        let tail = format!("{random:0128b}");
        format!("{prefix}{}", &tail[..width - prefix.len()])
    });
    let v4 = prop_oneof![
        any::<u32>().prop_map(|bits| format!("{bits:032b}")),
        within.clone().prop_filter("IPv4", |bits| bits.len() == 32),
        nets().prop_flat_map(|net| proptest::sample::select(edges(net))).prop_filter("IPv4", |bits| bits.len() == 32),
    ];
    let v6 = prop_oneof![
        any::<u128>().prop_map(|bits| format!("{bits:0128b}")),
        any::<u128>().prop_map(|bits| format!("001{}", &format!("{bits:0128b}")[3..])),
        within.prop_filter("IPv6", |bits| bits.len() == 128),
        nets().prop_flat_map(|net| proptest::sample::select(edges(net))).prop_filter("IPv6", |bits| bits.len() == 128),
        (proptest::sample::select(&SPELLINGS[..]), v4.clone())
            .prop_map(|(carrier, v4)| format!("{}{v4}", prefix(carrier))),
        // 6to4 and Teredo carry one too, and are refused as what they are.
        v4.clone().prop_map(|v4| format!("{}{v4}{}", prefix("2002::/16"), "0".repeat(80))),
        v4.clone().prop_map(|v4| format!("{}{}{v4}", prefix("2001::/32"), "0".repeat(64))),
    ];
    prop_oneof![v4, v6]
}

fn any_port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(443), Just(80), Just(8443), any::<u16>()]
}

/// A network around the address, so that rules often meet it.
fn any_rules() -> impl Strategy<Value = Vec<(usize, Option<u16>)>> {
    proptest::collection::vec(
        (0..=128usize, proptest::option::of(any_port().prop_filter("none", |port| *port > 0))),
        0..3,
    )
}

fn around(bits: &str, rules: &[(usize, Option<u16>)]) -> Vec<Listed> {
    let listed = rules.iter().map(|(length, port)| {
        let bits = if length % 2 == 0 { bits } else { inner(bits) };
        let length = (*length).min(bits.len());
        let zeroed = format!("{:0<width$}", &bits[..length], width = bits.len());
        Listed { net: format!("{}/{length}", address(&zeroed)), port: *port }
    });
    // What is written as mapped has to be written as IPv4.
    listed.filter(|rule| !rule.net.starts_with("::ffff:")).collect()
}

#[test]
fn the_ends_of_every_special_range_are_exact() {
    let policy = policy(&[], &[], &[]);
    let mut seen = 0;
    for net in SPECIAL_V4.iter().chain(&SPECIAL_V6).chain(&SPELLINGS) {
        for bits in edges(net) {
            let spelled =
                SPELLINGS.iter().filter(|_| bits.len() == 32).map(|carrier| format!("{}{bits}", prefix(carrier)));
            for bits in spelled.chain([bits.clone()]) {
                let addr = address(&bits);
                let judged = policy.judge(SocketAddr::new(addr, 443));
                assert_eq!(judged.is_ok(), may_be_dialled(&bits, 443, &[], &[], &[]), "{addr} at the edge of {net}");
                seen += 1;
            }
        }
    }
    assert!(seen > 500, "{seen}");
}

proptest! {
    #[test]
    fn an_address_is_judged_as_the_registries_have_it(bits in any_bits(), port in any_port()) {
        let addr = SocketAddr::new(address(&bits), port);
        prop_assert_eq!(policy(&[], &[], &[8443]).judge(addr).is_ok(), may_be_dialled(&bits, port, &[], &[], &[8443]), "{}", addr);
    }

    #[test]
    fn lists_are_judged_in_their_order(bits in any_bits(), port in any_port(), allow in any_rules(), deny in any_rules()) {
        let (allow, deny) = (around(&bits, &allow), around(&bits, &deny));
        let addr = SocketAddr::new(address(&bits), port);
        let judged = policy(&allow, &deny, &[80]).judge(addr);
        prop_assert_eq!(judged.is_ok(), may_be_dialled(&bits, port, &allow, &deny, &[80]), "{} {:?} {:?}", addr, allow, deny);
    }

    #[test]
    fn any_text_is_a_rule_that_is_written_as_it_is_read_or_none(
        text in prop_oneof!["\\PC{0,40}", "[0-9a-f.:/\\[\\]]{0,24}", "[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3})?(:[0-9]{1,5})?", "\\[?[0-9a-f:]{2,20}\\]?(/[0-9]{1,3})?\\]?(:[0-9]{1,5})?"]
    ) {
        if let Ok(rule) = text.parse::<NetRule>() {
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            prop_assert!(rule.port != Some(0));
            prop_assert_eq!(rule.net.trunc(), rule.net);
        }
    }

    #[test]
    fn what_a_url_shows_is_what_is_dialled(
        host in proptest::sample::select(&["", "hooks.example.com", "hooks.example.com", "127.0.0.1", "[::1]", "bücher.example"][..]),
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..6),
        scheme in proptest::sample::select(&["https://", "https://", "https://", "http://", "https:/", "https:\\\\", "HTTPS://", ""][..]),
        noise in "|\\PC{0,3}|[\\x00-\\x7f]{0,3}",
        at in any::<proptest::sample::Index>(),
    ) {
        let mut text = format!("{scheme}{host}{}", parts.concat());
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        text.insert_str(places[at.index(places.len())], &noise);
        let Ok(url) = check_url(&text, true) else { return Ok(()) };
        // The text taken apart by hand, as somebody would who knows no URL standard.
        let (scheme, rest) = text.split_once("://").expect("a scheme");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let (host, port) = (port.map_or(authority, |(host, _)| host), port.map(|(_, port)| port));
        let dialled: hyper::Uri = url.as_str().parse().expect("what is sent is a URI");
        let name = dialled.host().expect("a host");
        prop_assert_eq!(dialled.scheme_str(), Some(scheme));
        prop_assert!(!authority.contains('@') && !text.contains(['\\', '#', ' ']) && path.is_ascii(), "{}", text);
        prop_assert!(text.len() <= 2048 && dialled.authority().is_some_and(|authority| !authority.as_str().contains('@')));
        let usual = if scheme == "http" { 80 } else { 443 };
        let meant = port.map_or(usual, |port| port.parse::<u16>().expect("a port"));
        prop_assert_eq!(dialled.port_u16().unwrap_or(usual), meant, "{}", text);
        if host.is_ascii() {
            prop_assert_eq!(name, host.to_ascii_lowercase(), "{}", text);
        } else {
            prop_assert!(name.contains("xn--") && name.matches('.').count() == host.matches('.').count(), "{}", text);
        }
        // A resolver that reads 127.1 or 0x7f.1 as an address must find none that is not written plainly.
        let literal = name.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_number = |label: &str| {
            let hex = label.to_ascii_lowercase();
            label.bytes().all(|byte| byte.is_ascii_digit())
                || hex.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
        prop_assert!(literal.is_ok() || !labels.iter().all(|label| is_number(label)), "{}", text);
        prop_assert!(literal.is_ok() || labels.len() > 1, "{}", text);
    }
}

/// What URLs and attacks on their parsers are made of.
const PARTS: &[&str] = &[
    "hooks.example.com",
    "example",
    ".",
    "..",
    "com",
    "127.0.0.1",
    "127.1",
    "0x7f",
    "1",
    "2130706433",
    "[::1]",
    "[::ffff:7f00:1]",
    "[",
    "]",
    "::1",
    "%25eth0",
    ":",
    ":443",
    ":80",
    ":0443",
    ":0",
    ":65536",
    "@",
    "user",
    "user:pass@",
    "/",
    "//",
    "\\",
    "?",
    "#",
    "%2e",
    "%00",
    "%2f",
    "%40",
    "xn--bcher-kva",
    "xn--",
    "bücher",
    "ⓔ",
    "１",
    "。",
    "．",
    "\u{ad}",
    "\u{200b}",
    "\u{202e}",
    "ß",
    "İ",
    "K",
    "\t",
    "\n",
    "\r\n",
    " ",
    "_",
    "-",
    "*",
    "../",
    "a=b",
    "&",
    ";",
    "'",
    "\"",
    "<",
    ">",
    "|",
    "^",
    "`",
    "{",
    "}",
    "\u{0}",
    "\u{7f}",
    "localhost",
    "A",
    "Z",
];
