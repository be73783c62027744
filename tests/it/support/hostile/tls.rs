//! What is wrong before the first byte of HTTP.

use super::certificates::Certificate;
use super::{Over, Part, Step, send};

/// A whole, good answer.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

macro_rules! parts {
    ($($name:literal => $over:expr, [$($step:expr),* $(,)?];)*) => {
        pub(super) const NAMES: &[&str] = &[$($name),*];

        pub(super) fn part(name: &str) -> Option<Part> {
            Some(match name {
                $($name => Part { over: $over, steps: vec![$($step),*] },)*
                _ => return None,
            })
        }
    };
}

use Over::{Https, Tls, TlsOnHttp};
use Step::{Deaf, Forever, Hang, Request, Reset, Something};

parts! {
    "tls: a good one" => Tls(Certificate::Good), [Request, send(OK), Step::Again];
    "tls: an answer in the clear" => Https, [Something, send(OK)];
    "tls: an SSH banner" => Https, [send(&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..]), Hang];
    "tls: garbage" => Https, [Something, send(&[0x7f; 300][..]), Hang];
    "tls: closed at once" => Https, [];
    "tls: closed after our hello" => Https, [Something];
    "tls: reset at once" => Https, [Reset];
    "tls: reset after our hello" => Https, [Something, Reset];
    "tls: silence" => Https, [Hang];
    "tls: our hello is not read" => Https, [Deaf];
    "tls: alert handshake_failure" => Https, [Something, send(&[0x15, 3, 3, 0, 2, 2, 40][..]), Hang];
    "tls: alert protocol_version" => Https, [Something, send(&[0x15, 3, 3, 0, 2, 2, 70][..]), Hang];
    "tls: alert nobody knows" => Https, [Something, send(&[0x15, 3, 3, 0, 2, 2, 250][..]), Hang];
    "tls: endless warnings" => Https, [Something, Forever((&[0x15, 3, 3, 0, 2, 1, 90][..]).into())];
    "tls: half a record, closed" => Https, [Something, send(&[0x16, 3, 3, 0, 0x7a, 2, 0, 0][..])];
    "tls: half a record, silence" => Https, [Something, send(&[0x16, 3, 3, 0, 0x7a, 2, 0, 0][..]), Hang];
    "tls: a byte at a time" => Https, [Something, Step::Drip(&[0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xf0, 3, 3])];
    "tls: a record larger than any" => Https, [Something, send(&[0x16, 3, 3, 0xff, 0xff][..]), Forever((&[2][..]).into())];
    "tls: a hello of 16 MiB" => Https, [Something, Forever((&[0x16, 3, 3, 0, 8, 2, 0xff, 0xff, 0xff, 3, 3, 0, 0][..]).into())];
    "tls: endless empty records" => Https, [Something, Forever((&[0x16, 3, 3, 0, 0][..]).into())];
    "tls: endless change_cipher_spec" => Https, [Something, Forever((&[0x14, 3, 3, 0, 1, 1][..]).into())];
    "tls: SSL 3.0" => Https, [Something, send(&SERVER_HELLO_SSL3[..]), Hang];
    "tls: TLS 1.0" => Https, [Something, send(&SERVER_HELLO_TLS10[..]), Hang];
    "tls: self-signed" => Tls(Certificate::SelfSigned), [Request, send(OK)];
    "tls: expired" => Tls(Certificate::Expired), [Request, send(OK)];
    "tls: not yet valid" => Tls(Certificate::NotYetValid), [Request, send(OK)];
    "tls: for another name" => Tls(Certificate::WrongName), [Request, send(OK)];
    "tls: for a thousand other names" => Tls(Certificate::AThousandNames), [Request, send(OK)];
    "tls: issued by a stranger" => Tls(Certificate::UnknownIssuer), [Request, send(OK)];
    "tls: wants our certificate" => Tls(Certificate::WantsOurs), [Request, send(OK)];
    "tls: on a port for http" => TlsOnHttp, [Request, send(OK)];
    "tls: cut off in a body without a length" => Tls(Certificate::Good), [Request, send(&b"HTTP/1.1 200 OK\r\n\r\npaid: no"[..]), Reset];
    "tls: closed after the request" => Tls(Certificate::Good), [Request];
    "tls: reset after the request" => Tls(Certificate::Good), [Request, Reset];
    "tls: silence after the request" => Tls(Certificate::Good), [Request, Hang];
    "tls: endless body" => Tls(Certificate::Good), [Request, send(&b"HTTP/1.1 200 OK\r\n\r\n"[..]), Forever((&b"0123456789"[..]).into())];
}

/// ServerHello of that version, the rest does not matter.
const fn server_hello(minor: u8) -> [u8; 47] {
    let mut hello = [0; 47];
    let head = [0x16, 3, minor, 0, 42, 2, 0, 0, 38, 3, minor];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    // 32 bytes of random, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello[45] = 0x2f;
    hello
}

const SERVER_HELLO_SSL3: [u8; 47] = server_hello(0);
const SERVER_HELLO_TLS10: [u8; 47] = server_hello(1);
