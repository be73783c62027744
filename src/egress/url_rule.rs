//! Which URL may be an endpoint at all, whatever its name resolves to.
//!
//! URL parsers disagree, and a disagreement is a way past a guard: what is checked here is the text,
//! and the text must leave nothing to interpret. `outbox_relay.url_refusal` refuses most of it already
//! when a URL is stored; this is the rule that counts. What is taken here is taken there.
//!
//! Names are judged by their form alone. `localhost`, `.local` or `.internal` say no more of an address than any other
//! name does, and closed networks that `[egress] allow` opens are full of them: the address decides.

use url::{Host, Url};

/// As long as a URL may be, in bytes; the same in SQL.
const MAX_URL_BYTES: usize = 2048;

/// Why a URL cannot be an endpoint. No message shows the path, the query or user information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum UrlRefusal {
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    #[error("the URL holds white space, a control character or a backslash; percent-encode it")]
    BadCharacter,
    #[error("the URL has a fragment (#), which would never be sent; leave it out")]
    Fragment,
    #[error("the URL does not begin with https://")]
    Scheme,
    #[error("the URL begins with http://, which the setting allow_insecure_http does not allow; use https://")]
    Insecure,
    #[error("the URL's path or query holds a character that is not ASCII; percent-encode it")]
    NotAscii,
    #[error("the URL has a user name or password; use a header instead")]
    UserInfo,
    #[error("the URL cannot be parsed: {0}")]
    Unparsable(url::ParseError),
    #[error("the host is the address {canonical} in another spelling; write {canonical}")]
    NotCanonical { canonical: String },
    #[error("the host {host:?} is not a public name; it needs two labels or more, as hooks.example.com")]
    SingleLabel { host: String },
    #[error("the host {host:?} is not a valid name; write letters, digits and hyphens, or the name as xn--")]
    BadName { host: String },
    #[error("the URL's port is no number from 1 to 65535 without leading zeros")]
    Port,
}

/// Parses a URL that may be stored as an endpoint.
///
/// `https:`, or `http:` if `insecure_http_allowed`; printable ASCII, or a host name that becomes
/// `xn--`; no user information, fragment, backslash, control character or white space; a name of two
/// labels or more, or a literal address in its one canonical spelling. Ports are the
/// [`Policy`](super::Policy)'s business.
///
/// # Errors
/// The first rule that the URL breaks.
pub fn check_url(text: &str, insecure_http_allowed: bool) -> Result<Url, UrlRefusal> {
    if text.len() > MAX_URL_BYTES {
        return Err(UrlRefusal::TooLong);
    }
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(UrlRefusal::BadCharacter);
    }
    if text.contains('#') {
        return Err(UrlRefusal::Fragment);
    }
    let rest = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => rest,
        (None, Some(rest)) if insecure_http_allowed => rest,
        (None, Some(_)) => return Err(UrlRefusal::Insecure),
        (None, None) => return Err(UrlRefusal::Scheme),
    };
    let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !path_and_query.is_ascii() {
        return Err(UrlRefusal::NotAscii);
    }
    if authority.contains('@') {
        return Err(UrlRefusal::UserInfo);
    }
    // `https:///host` would be read as `https://host`.
    if authority.is_empty() {
        return Err(UrlRefusal::Unparsable(url::ParseError::EmptyHost));
    }
    let url = Url::parse(text).map_err(UrlRefusal::Unparsable)?;
    let host = host_of(authority);
    check_host(host, &url)?;
    check_port(&authority[host.len()..])?;
    Ok(url)
}

/// The host as it was written: an authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.find(']') {
        Some(bracket) => &authority[..=bracket],
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// `https://host:/` and `:0443` are read as 443, and not by everybody.
fn check_port(written: &str) -> Result<(), UrlRefusal> {
    let Some(digits) = written.strip_prefix(':') else { return Ok(()) };
    let plain = digits.starts_with(|first| ('1'..='9').contains(&first)) && digits.parse::<u16>().is_ok();
    if plain { Ok(()) } else { Err(UrlRefusal::Port) }
}

fn check_host(written: &str, url: &Url) -> Result<(), UrlRefusal> {
    let canonical = match url.host() {
        Some(Host::Domain(name)) => return check_name(written, name),
        Some(Host::Ipv4(addr)) => addr.to_string(),
        // RFC 5952 writes the end of a mapped address with dots, the URL standard does not: either.
        Some(Host::Ipv6(_)) if url.host_str() == Some(written) => return Ok(()),
        Some(Host::Ipv6(addr)) => format!("[{addr}]"),
        None => return Err(UrlRefusal::Unparsable(url::ParseError::EmptyHost)),
    };
    if written == canonical { Ok(()) } else { Err(UrlRefusal::NotCanonical { canonical }) }
}

/// `name` is what the parser made of `written`: lower case, percent-decoded, IDNA applied.
fn check_name(written: &str, name: &str) -> Result<(), UrlRefusal> {
    let bad = || UrlRefusal::BadName { host: written.chars().take(100).collect() };
    let labels = |name: &str| -> Vec<String> {
        // One dot at the end says that the name is absolute.
        name.strip_suffix('.').unwrap_or(name).split('.').map(str::to_owned).collect()
    };
    let (written_labels, parsed_labels) = (labels(written), labels(name));
    // What is percent-encoded may be a dot: `exämple%2e` would have as many labels as its reading.
    if written.contains('%') || written_labels.len() != parsed_labels.len() || name.len() > 253 {
        return Err(bad());
    }
    for (written, parsed) in written_labels.iter().zip(&parsed_labels) {
        // Characters that IDNA maps to ASCII (full-width digits, a soft hyphen) only disguise a name.
        let undisguised =
            if written.is_ascii() { written.eq_ignore_ascii_case(parsed) } else { parsed.starts_with("xn--") };
        let plain = parsed.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !undisguised || !plain || parsed.is_empty() || parsed.len() > 63 {
            return Err(bad());
        }
    }
    if parsed_labels.len() < 2 {
        return Err(UrlRefusal::SingleLabel { host: written.to_owned() });
    }
    Ok(())
}
