use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn rules(texts: &[&str]) -> Vec<NetRule> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// The policy of a host whose interfaces are 8.8.8.8 and 2606:4700::1111.
fn policy(allow: &[&str], deny: &[&str], ports: &[u16]) -> Policy {
    let own = ["8.8.8.8", "2606:4700::1111"].map(|addr| addr.parse().expect("an address"));
    Policy::with_own(&rules(allow), &rules(deny), ports, own)
}

/// "" if the address may be dialled at this port, else the reason.
fn verdict(policy: &Policy, addr: &str, port: u16) -> String {
    let addr: IpAddr = addr.parse().unwrap_or_else(|_| panic!("{addr} is no address"));
    policy.judge(SocketAddr::new(addr, port)).err().map_or_else(String::new, |refusal| refusal.to_string())
}

/// An address and the words its refusal must hold; none is a public address.
const ADDRESSES: [(&str, &str); 82] = [
    // Public, with the neighbours of what is refused.
    ("1.1.1.1", ""),
    ("9.255.255.255", ""),
    ("11.0.0.0", ""),
    ("100.63.255.255", ""),
    ("100.128.0.0", ""),
    ("126.255.255.255", ""),
    ("128.0.0.0", ""),
    ("169.253.255.255", ""),
    ("169.255.0.0", ""),
    ("172.15.255.255", ""),
    ("172.32.0.0", ""),
    ("192.0.1.0", ""),
    ("192.167.255.255", ""),
    ("192.169.0.0", ""),
    ("198.17.255.255", ""),
    ("198.20.0.0", ""),
    ("223.255.255.255", ""),
    ("168.63.129.15", ""),
    ("2606:4700:4700::1111", ""),
    ("2001:200::1", ""),
    ("2001:4860:4860::8888", ""),
    ("2003::1", ""),
    ("3ffe:ffff::1", ""),
    // IPv4.
    ("0.0.0.0", "0.0.0.0/8 (this network)"),
    ("0.255.255.255", "0.0.0.0/8"),
    ("10.0.0.0", "10.0.0.0/8 (private)"),
    ("10.255.255.255", "10.0.0.0/8"),
    ("100.64.0.1", "100.64.0.0/10"),
    ("100.127.255.255", "100.64.0.0/10"),
    ("127.0.0.1", "127.0.0.1 is in 127.0.0.0/8 (loopback)"),
    ("127.255.255.254", "127.0.0.0/8"),
    ("169.254.169.254", "169.254.0.0/16"),
    ("172.16.0.1", "172.16.0.0/12"),
    ("172.31.255.255", "172.16.0.0/12"),
    ("192.0.0.8", "192.0.0.0/24"),
    ("192.0.0.192", "192.0.0.0/24"),
    ("192.0.2.1", "192.0.2.0/24"),
    ("192.31.196.1", "192.31.196.0/24"),
    ("192.52.193.1", "192.52.193.0/24"),
    ("192.88.99.1", "192.88.99.0/24"),
    ("192.168.1.1", "192.168.0.0/16"),
    ("192.175.48.1", "192.175.48.0/24"),
    ("198.18.0.1", "198.18.0.0/15"),
    ("198.19.255.255", "198.18.0.0/15"),
    ("198.51.100.1", "198.51.100.0/24"),
    ("203.0.113.1", "203.0.113.0/24"),
    ("224.0.0.1", "224.0.0.0/4 (multicast)"),
    ("239.255.255.255", "224.0.0.0/4"),
    ("240.0.0.1", "240.0.0.0/4"),
    ("255.255.255.255", "240.0.0.0/4"),
    ("168.63.129.16", "168.63.129.16/32"),
    ("8.8.8.8", "8.8.8.8 is an address of this host"),
    // IPv6.
    ("::", ":: is in ::/128 (unspecified)"),
    ("::1", "::1 is in ::1/128 (loopback)"),
    ("fc00::1", "fc00::/7"),
    ("fd00:ec2::254", "fc00::/7"),
    ("fe80::1", "fe80::/10"),
    ("fec0::1", "outside 2000::/3"),
    ("ff02::1", "ff00::/8"),
    ("100::1", "outside 2000::/3"),
    ("4000::1", "outside 2000::/3"),
    ("5f00::1", "outside 2000::/3"),
    ("2001::1", "2001::/23"),
    ("2001:1ff:ffff::1", "2001::/23"),
    ("2001:db8::1", "2001:db8::/32"),
    ("2002:7f00:1::", "2002::/16 (6to4)"),
    ("2002:808:808::1", "2002::/16"),
    ("2620:4f:8000::1", "2620:4f:8000::/48"),
    ("3fff::1", "3fff::/20"),
    ("2606:4700::1111", "an address of this host"),
    // IPv4 within IPv6: mapped, compatible, translated; then the forms that are simply outside.
    ("::ffff:1.1.1.1", ""),
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1 carries 127.0.0.1, which is in 127.0.0.0/8"),
    ("::ffff:a9fe:a9fe", "169.254.0.0/16"),
    ("::ffff:8.8.8.8", "8.8.8.8, which is an address of this host"),
    ("::1.1.1.1", ""),
    ("::10.0.0.1", "10.0.0.0/8"),
    ("::2", "0.0.0.0/8"),
    ("64:ff9b::1.1.1.1", ""),
    ("64:ff9b::10.0.0.1", "10.0.0.0/8"),
    ("64:ff9b::a9fe:a9fe", "169.254.0.0/16"),
    ("64:ff9b:1::1.1.1.1", "outside 2000::/3"),
    ("::ffff:0:1.1.1.1", "outside 2000::/3"),
];

#[test]
fn only_the_public_internet_is_dialled_by_default() {
    let policy = policy(&[], &[], &[]);
    for (addr, words) in ADDRESSES {
        let said = verdict(&policy, addr, 443);
        assert!(if words.is_empty() { said.is_empty() } else { said.contains(words) }, "{addr}: {said:?}");
    }
}

#[test]
fn port_443_and_the_listed_ones_are_allowed() {
    let policy = policy(&[], &[], &[8443]);
    assert_eq!(verdict(&policy, "1.1.1.1", 443), "");
    assert_eq!(verdict(&policy, "1.1.1.1", 8443), "");
    assert_eq!(verdict(&policy, "1.1.1.1", 25), "port 25 is not among the ports allowed");
    assert_eq!(verdict(&policy, "1.1.1.1", 0), "port 0 is not among the ports allowed");
}

#[test]
fn an_allowed_address_is_allowed_at_every_port_unless_one_is_named() {
    let policy = policy(&["127.0.0.0/8", "10.0.0.0/8:8443", "1.1.1.1:25", "::1", "8.8.8.8"], &[], &[]);
    for (addr, port, allowed) in [
        ("127.0.0.1", 443, true),
        ("127.0.0.1", 1, true),
        ("::ffff:127.0.0.1", 80, true),
        ("10.1.2.3", 8443, true),
        ("10.1.2.3", 443, false),
        ("10.1.2.3", 80, false),
        ("1.1.1.1", 25, true),
        ("1.1.1.1", 443, true),
        ("1.1.1.1", 26, false),
        ("::1", 80, true),
        ("::", 80, false),
        ("8.8.8.8", 80, true),
    ] {
        assert_eq!(verdict(&policy, addr, port).is_empty(), allowed, "{addr} port {port}");
    }
}

#[test]
fn deny_beats_allow() {
    let policy = policy(&["0.0.0.0/0", "::/0"], &["10.0.0.0/8", "1.1.1.1:25", "64:ff9b::/96"], &[]);
    for (addr, port, allowed) in [
        ("127.0.0.1", 22, true),
        ("10.0.0.1", 443, false),
        ("::ffff:10.0.0.1", 443, false),
        ("1.1.1.1", 25, false),
        ("1.1.1.1", 26, true),
        ("64:ff9b::1.1.1.1", 443, false),
        ("fd00::1", 443, true),
    ] {
        assert_eq!(verdict(&policy, addr, port).is_empty(), allowed, "{addr} port {port}");
    }
    assert_eq!(verdict(&policy, "10.0.0.1", 443), "10.0.0.1 is in 10.0.0.0/8 (denied by the configuration)");
}

#[test]
fn an_allowed_ipv6_range_does_not_open_ipv4_behind_it() {
    let policy = policy(&["::/0"], &[], &[]);
    assert_eq!(verdict(&policy, "fd00::1", 443), "");
    assert!(verdict(&policy, "::ffff:10.0.0.1", 443).contains("10.0.0.0/8"));
    assert!(verdict(&policy, "64:ff9b::10.0.0.1", 443).contains("10.0.0.0/8"));
}

#[test]
fn the_addresses_of_this_host_are_refused() {
    let policy = Policy::new(&[], &[], &[]).expect("the interfaces can be listed");
    for interface in if_addrs::get_if_addrs().expect("the interfaces can be listed") {
        assert!(policy.judge(SocketAddr::new(interface.ip(), 443)).is_err(), "{}", interface.ip());
    }
}

/// A URL and the words its refusal must hold; none is a URL that may be stored.
const URLS: &[(&str, &str)] = &[
    ("https://hooks.example.com", ""),
    ("https://hooks.example.com/", ""),
    ("https://hooks.example.com/a/b?c=d&e=%20f", ""),
    ("https://hooks.example.com?c=d", ""),
    ("https://HOOKS.Example.COM/", ""),
    ("https://hooks.example.com.:8443/", ""),
    ("https://hooks.example.com:443/@user", ""),
    ("https://my_host.example.com/", ""),
    ("https://bücher.example/", ""),
    ("https://xn--bcher-kva.example/", ""),
    ("https://1.1.1.1/", ""),
    ("https://127.0.0.1:8443/", ""),
    ("https://[2606:4700::1111]/", ""),
    ("https://[::1]:8443/x", ""),
    ("https://[::ffff:127.0.0.1]/", ""),
    ("https://[::ffff:7f00:1]/", ""),
    ("http://hooks.example.com/", "allow_insecure_http"),
    ("HTTPS://hooks.example.com/", "does not begin with https://"),
    ("ftp://hooks.example.com/", "does not begin with https://"),
    ("file:///etc/passwd", "does not begin with https://"),
    ("//hooks.example.com/", "does not begin with https://"),
    ("https:hooks.example.com", "does not begin with https://"),
    ("https:/hooks.example.com", "does not begin with https://"),
    ("https:\\\\hooks.example.com", "backslash"),
    ("hooks.example.com", "does not begin with https://"),
    ("", "does not begin with https://"),
    ("https://", "cannot be parsed"),
    ("https:///hooks.example.com", "cannot be parsed"),
    ("https://?x", "cannot be parsed"),
    ("https://:443/", "cannot be parsed"),
    (" https://hooks.example.com/", "white space"),
    ("https://hooks.example.com/ ", "white space"),
    ("https://hooks.example.com/a b", "white space"),
    ("https://hooks.exa\tmple.com/", "white space"),
    ("https://hooks.example.com/\n", "white space"),
    ("https://hooks.example.com/\u{7f}", "control character"),
    ("https://hooks.example.com/\u{a0}", "white space"),
    ("https://hooks.example.com\\@10.0.0.1/", "backslash"),
    ("https://hooks.example.com/é", "not ASCII"),
    ("https://hooks.example.com/?q=é", "not ASCII"),
    ("https://hooks.example.com/#top", "fragment"),
    ("https://hooks.example.com#@10.0.0.1/", "fragment"),
    ("https://user@hooks.example.com/", "user name"),
    ("https://user:secret@hooks.example.com/", "user name"),
    ("https://@hooks.example.com/", "user name"),
    ("https://hooks.example.com:443@10.0.0.1/", "user name"),
    ("https://localhost/", "two labels"),
    ("https://localhost./", "two labels"),
    ("https://metadata:8080/", "two labels"),
    ("https://bücher/", "two labels"),
    ("https://example..com/", "not a valid name"),
    ("https://.example.com/", "not a valid name"),
    ("https://example.com../", "not a valid name"),
    ("https://a*b.example.com/", "not a valid name"),
    ("https://hooks%2eexample.com/", "not a valid name"),
    ("https://%68ooks.example.com/", "not a valid name"),
    ("https://hooks.ex\u{e4}mple%2e/", "not a valid name"),
    ("https://ⓔxample.com/", "not a valid name"),
    ("https://exam\u{ad}ple.com/", "not a valid name"),
    ("https://exam\u{200b}ple.com/", "not a valid name"),
    ("https://example。com/", "not a valid name"),
    ("https://127.1/", "write 127.0.0.1"),
    ("https://127.0.1/", "write 127.0.0.1"),
    ("https://0x7f.1/", "write 127.0.0.1"),
    ("https://0x7f000001/", "write 127.0.0.1"),
    ("https://2130706433/", "write 127.0.0.1"),
    ("https://017700000001/", "write 127.0.0.1"),
    ("https://0177.0.0.1/", "write 127.0.0.1"),
    ("https://127.0.0.01/", "write 127.0.0.1"),
    ("https://127.0.0.1./", "write 127.0.0.1"),
    ("https://127.0.0.%31/", "write 127.0.0.1"),
    ("https://１２７.0.0.1/", "write 127.0.0.1"),
    ("https://①②⑦.0.0.1/", "write 127.0.0.1"),
    ("https://127。0。0。1/", "write 127.0.0.1"),
    ("https://0/", "write 0.0.0.0"),
    ("https://1.2.3.4.5/", "cannot be parsed"),
    ("https://256.1.1.1/", "cannot be parsed"),
    ("https://[0:0:0:0:0:0:0:1]/", "write [::1]"),
    ("https://[::0001]/", "write [::1]"),
    ("https://[2606:4700::ABCD]/", "write [2606:4700::abcd]"),
    ("https://[fe80::1%25eth0]/", "cannot be parsed"),
    ("https://[::1/", "cannot be parsed"),
    ("https://[::1]x/", "cannot be parsed"),
    ("https://hooks.example.com:0/", "port is no number"),
    ("https://hooks.example.com:/", "port is no number"),
    ("https://hooks.example.com:0443/", "port is no number"),
    ("https://hooks.example.com:65536/", "cannot be parsed"),
    ("https://hooks.example.com:http/", "cannot be parsed"),
];

#[test]
fn a_url_leaves_nothing_to_interpret() {
    for (text, words) in URLS {
        let said = check_url(text, false).err().map_or_else(String::new, |refusal| refusal.to_string());
        assert!(if words.is_empty() { said.is_empty() } else { said.contains(words) }, "{text:?}: {said:?}");
    }
    let long = format!("https://hooks.example.com/{}", "a".repeat(2048));
    assert_eq!(check_url(&long, false), Err(UrlRefusal::TooLong));
}

#[test]
fn http_needs_the_setting() {
    assert!(check_url("http://hooks.example.com/", true).is_ok());
    assert!(check_url("http://127.0.0.1:8080/", true).is_ok());
    assert_eq!(check_url("http://hooks.example.com/", false), Err(UrlRefusal::Insecure));
    assert_eq!(check_url("ws://hooks.example.com/", true), Err(UrlRefusal::Scheme));
}

#[test]
fn a_refusal_shows_neither_user_information_nor_the_query() {
    for (text, _) in URLS {
        let text = text.replace("example", "user:hunter2@example") + "?token=hunter2";
        if let Err(refusal) = check_url(&text, false) {
            assert!(!refusal.to_string().contains("hunter2"), "{text}: {refusal}");
        }
    }
}

proptest! {
    #[test]
    fn every_form_of_an_ipv4_address_is_judged_alike(bits in any::<u32>(), port in any::<u16>()) {
        let policy = policy(&[], &[], &[80]);
        let v4 = Ipv4Addr::from(bits);
        let plain = policy.judge(SocketAddr::new(v4.into(), port)).is_ok();
        for prefix in [0u128, 0xffff << 32, 0x64_ff9b << 96] {
            let v6 = Ipv6Addr::from(prefix | u128::from(bits));
            prop_assert_eq!(policy.judge(SocketAddr::new(v6.into(), port)).is_ok(), plain, "{}", v6);
        }
    }

    #[test]
    fn an_address_in_a_refused_range_is_refused_at_every_port(
        range in 0..REFUSED_V4.len(), bits in any::<u32>(), port in any::<u16>()
    ) {
        let (net, _) = REFUSED_V4[range];
        let addr = Ipv4Addr::from(u32::from(net.network()) | (bits & u32::from(net.hostmask())));
        prop_assert!(policy(&[], &[], &[port]).judge(SocketAddr::new(addr.into(), port)).is_err());
    }

    #[test]
    fn nothing_outside_global_unicast_is_dialled(bits in any::<u128>()) {
        let addr = Ipv6Addr::from(bits);
        if carried(addr.into()).is_none() && policy(&[], &[], &[]).judge(SocketAddr::new(addr.into(), 443)).is_ok() {
            prop_assert!(GLOBAL_V6.contains(&addr));
        }
    }

    #[test]
    fn a_stored_url_can_be_sent_to_the_host_it_shows(
        host in "[a-z0-9.-]{1,20}|[0-9a-fx.]{1,12}|\\[[0-9a-f:.]{2,20}\\]|\\PC{1,8}\\.[a-z]{2,3}",
        rest in "[/?][!-~]{0,30}|",
    ) {
        let text = format!("https://{host}{rest}");
        if let Ok(url) = check_url(&text, false) {
            let uri: hyper::Uri = url.as_str().parse().expect("a stored URL is a request's URI");
            prop_assert_eq!(uri.host(), url.host_str());
            prop_assert_eq!(uri.path(), url.path());
            prop_assert_eq!(uri.query(), url.query());
            prop_assert!(!host.is_ascii() || url.host_str().is_some_and(|name| name.eq_ignore_ascii_case(&host))
                || host.starts_with('['), "{} became {}", host, url);
        }
    }
}
