//! HTTP/1.1 as it should not be.

use super::Over::Http;
use super::Step::{Again, Deaf, Drip, Forever, Hang, Head, Request, Reset};
use super::{Part, Step, send};
use std::net::SocketAddr;

/// The names of the redirects, besides those of [`ANSWERS`] and [`SCRIPTS`].
const REDIRECTS: &[(&str, &str, &str)] = &[
    ("redirect: 301 to itself", "301 Moved Permanently", "{own}"),
    ("redirect: 302 to another receiver", "302 Found", "{trap}"),
    ("redirect: 303 to another receiver", "303 See Other", "{trap}"),
    ("redirect: 307 to itself", "307 Temporary Redirect", "{own}"),
    ("redirect: 307 to another receiver", "307 Temporary Redirect", "{trap}"),
    ("redirect: 308 to another receiver", "308 Permanent Redirect", "{trap}"),
    ("redirect: 302 to a file", "302 Found", "file:///etc/passwd"),
    ("redirect: 302 to the metadata of the cloud", "302 Found", "http://169.254.169.254/latest/meta-data/"),
    ("redirect: 302 without a scheme", "302 Found", "//127.0.0.1/"),
    ("redirect: 302 to nothing", "302 Found", ""),
    ("redirect: 300 with a choice", "300 Multiple Choices", "{trap}"),
    ("redirect: 305 to a proxy", "305 Use Proxy", "{trap}"),
    ("redirect: 200 with a refresh", "200 OK\r\nrefresh: 0; url={trap}", "{trap}"),
];

/// Answers that are sent whole after the request, the connection is closed then.
const ANSWERS: &[(&str, &[u8])] = &[
    // Status lines.
    ("status line: HTTP/0.9", b"<html>ok</html>"),
    ("status line: HTTP/9.9", b"HTTP/9.9 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: HTTP/2 in the clear", b"HTTP/2 200\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: lower case", b"http/1.1 200 ok\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: ICY", b"ICY 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: status 0", b"HTTP/1.1 000 X\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: status 99", b"HTTP/1.1 099 X\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: status 999", b"HTTP/1.1 999 X\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: status 1000", b"HTTP/1.1 1000 X\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: status 20", b"HTTP/1.1 20 X\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: status -200", b"HTTP/1.1 -200 X\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: letters", b"HTTP/1.1 two OK\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: no status", b"HTTP/1.1\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: a NUL in the reason", b"HTTP/1.1 200 O\0K\r\ncontent-length: 2\r\n\r\nok"),
    ("status line: an SMTP banner", b"220 mail.example.com ESMTP\r\n\r\n"),
    ("status line: frames of HTTP/2", b"\0\0\0\x04\0\0\0\0\0"),
    (
        "status line: 101 Switching Protocols",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ),
    (
        "status line: 103, then 200",
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ),
    ("status line: 100, then nothing", b"HTTP/1.1 100 Continue\r\n\r\n"),
    // Headers.
    ("headers: folded", b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nok"),
    ("headers: a NUL in a value", b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 2\r\n\r\nok"),
    ("headers: a bare CR in a value", b"HTTP/1.1 200 OK\r\nx-a: b\rx-c: d\r\ncontent-length: 2\r\n\r\nok"),
    ("headers: bare LF at the end of lines", b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
    ("headers: a space before the colon", b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok"),
    ("headers: no colon", b"HTTP/1.1 200 OK\r\nx-a\r\ncontent-length: 2\r\n\r\nok"),
    ("headers: no name", b"HTTP/1.1 200 OK\r\n: b\r\ncontent-length: 2\r\n\r\nok"),
    ("headers: a control character in a name", b"HTTP/1.1 200 OK\r\nx\x01a: b\r\ncontent-length: 2\r\n\r\nok"),
    ("headers: the first begins with a space", b"HTTP/1.1 200 OK\r\n x-a: b\r\ncontent-length: 2\r\n\r\nok"),
    // What they say of the body.
    ("length: two that differ", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!"),
    ("length: two that agree", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok"),
    ("length: two in one line that differ", b"HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok!"),
    ("length: -1", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok"),
    ("length: +2", b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"),
    ("length: 0x2", b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok"),
    ("length: none written", b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nok"),
    ("length: more than 64 bits", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nok"),
    ("length: 64 bits", b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nok"),
    ("length: more than comes", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok"),
    ("length: less than comes", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more"),
    ("length: as of a HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
    ("length: 204 with a body", b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok"),
    ("length: 304 with a body", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\nok"),
    (
        "length: and chunked",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    ("length: chunked twice", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("length: chunked, then gzip", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("length: an unknown transfer coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\nok"),
    ("length: chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    // Chunks.
    ("chunks: a size that is none", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"),
    ("chunks: a negative size", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n"),
    (
        "chunks: a size of more than 64 bits",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n",
    ),
    ("chunks: no line end behind one", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n"),
    ("chunks: a size of 64 bits", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nok\r\n"),
    ("chunks: closed within one", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok"),
    ("chunks: closed before the last", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"),
    (
        "chunks: closed within trailers",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-a: b\r\n",
    ),
    // Where the connection ends.
    ("closed: after the request", b""),
    ("closed: within the status line", b"HTTP/1.1 200 O"),
    ("closed: within the headers", b"HTTP/1.1 200 OK\r\ncontent-le"),
    ("closed: before the body", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
    ("closed: within the body", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no"),
];

const OK_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

macro_rules! scripts {
    ($($name:literal => [$($step:expr),* $(,)?];)*) => {
        const SCRIPTS: &[&str] = &[$($name),*];

        fn script(name: &str) -> Option<Vec<Step>> {
            Some(match name {
                $($name => vec![$($step),*],)*
                _ => return None,
            })
        }
    };
}

scripts! {
    "slow: silence" => [Hang];
    "slow: silence after the request" => [Request, Hang];
    "slow: the request is not read" => [Deaf];
    "slow: a byte at a time of the status line" => [Request, Drip(b"HTTP/1.1 200 OK, and there is more to say about it than one would have thought")];
    "slow: a byte at a time of the headers" => [Request, send(OK_HEAD), Drip(b"x-a: b\r\n")];
    "slow: a byte at a time of the body" => [Request, send(&b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"[..]), Drip(b"x")];
    "slow: a byte at a time of chunks" => [Request, send(CHUNKED), Drip(b"1\r\nx\r\n")];
    "slow: silence within the headers" => [Request, send(&b"HTTP/1.1 200 OK\r\nx-a: "[..]), Hang];
    "slow: silence before the body" => [Request, send(&b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"[..]), Hang];
    "slow: silence within a chunk" => [Request, send(CHUNKED), send(&b"9\r\nok"[..]), Hang];
    "slow: a body without a length, and no end" => [Request, send(&b"HTTP/1.1 200 OK\r\n\r\nok"[..]), Hang];
    "endless: body without a length" => [Request, send(&b"HTTP/1.1 200 OK\r\n\r\n"[..]), Forever(b"0123456789".into())];
    "endless: body of a petabyte" => [Request, send(&b"HTTP/1.1 200 OK\r\ncontent-length: 1125899906842624\r\n\r\n"[..]), Forever(b"0123456789".into())];
    "endless: body of an error" => [Request, send(&b"HTTP/1.1 500 Oops\r\n\r\n"[..]), Forever(b"0123456789".into())];
    "endless: chunks" => [Request, send(CHUNKED), Forever(b"a\r\n0123456789\r\n".into())];
    "endless: chunks of one byte" => [Request, send(CHUNKED), Forever(b"1\r\nx\r\n".into())];
    "endless: a chunk's extension" => [Request, send(CHUNKED), send(&b"2;x="[..]), Forever(b"y".into())];
    "endless: extensions of chunks" => [Request, send(CHUNKED), Forever([&b"1;"[..], &[b'y'; 1000], b"\r\nx\r\n"].concat().into())];
    "endless: zeros in a chunk's size" => [Request, send(CHUNKED), Forever(b"0".into())];
    "endless: trailers" => [Request, send(CHUNKED), send(&b"2\r\nok\r\n0\r\n"[..]), Forever(b"x-a: b\r\n".into())];
    "endless: 100 Continue" => [Request, Forever(b"HTTP/1.1 100 Continue\r\n\r\n".into())];
    "endless: 103 Early Hints" => [Request, Forever(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".into())];
    "endless: empty lines before the status" => [Request, Forever(b"\r\n".into())];
    "endless: reason" => [Request, send(&b"HTTP/1.1 200 O"[..]), Forever(b"K".into())];
    "endless: headers" => [Request, send(OK_HEAD), Forever(b"x-a: b\r\n".into())];
    "endless: a header's name" => [Request, send(OK_HEAD), Forever(b"x".into())];
    "endless: a header's value" => [Request, send(OK_HEAD), send(&b"x-a: "[..]), Forever(b"x".into())];
    "headers: a thousand" => [Request, send([OK_HEAD, &b"x-a: b\r\n".repeat(1000), b"content-length: 2\r\n\r\nok"].concat()), Hang];
    "headers: 99" => [Request, send([OK_HEAD, &b"x-a: b\r\n".repeat(98), b"content-length: 2\r\n\r\nok"].concat()), Hang];
    "headers: one of 64 KiB" => [Request, send([OK_HEAD, b"x-a: ", &[b'y'; 64 << 10], b"\r\ncontent-length: 2\r\n\r\nok"].concat()), Hang];
    "headers: 64 of 1 KiB" => [Request, send([OK_HEAD, &[&b"x-a: "[..], &[b'y'; 1018], b"\r\n"].concat().repeat(64), b"content-length: 2\r\n\r\nok"].concat()), Hang];
    "gzip bomb" => [Request, send(bomb(b"content-encoding: gzip")), Hang];
    "gzip bomb: as a transfer coding" => [Request, send(bomb(b"transfer-encoding: gzip"))];
    "closed: at once" => [];
    "reset: at once" => [Reset];
    "closed: after the head of the request" => [Head];
    "reset: after the request" => [Request, Reset];
    "reset: within the status line" => [Request, send(&b"HTTP/1.1 200 O"[..]), Reset];
    "reset: within the headers" => [Request, send(&b"HTTP/1.1 200 OK\r\ncontent-le"[..]), Reset];
    "reset: within the body" => [Request, send(&b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\no"[..]), Reset];
    "early: 200 before the request" => [send(OK), Hang];
    "early: 200 before the body is read" => [Head, send(OK), Deaf];
    "early: 413 before the body is read" => [Head, send(&b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"[..]), Deaf];
    "early: two answers at once" => [Request, send([OK, b"HTTP/1.1 200 OK\r\nx-smuggled: yes\r\ncontent-length: 2\r\n\r\nno"].concat()), Hang];
    "kept: closes under every second request" => [Request, send(OK), Step::Something];
    "good" => [Request, send(OK), Again];
}

/// Ten MiB of zeros in ten KiB, under this header.
fn bomb(header: &[u8]) -> Vec<u8> {
    let bomb = include_bytes!("bomb.gz");
    let length =
        if header.starts_with(b"content") { format!("content-length: {}\r\n", bomb.len()) } else { String::new() };
    [OK_HEAD, header, b"\r\n", length.as_bytes(), b"\r\n", bomb].concat()
}

pub(super) const NAMES: &[&str] = &all_names();

const fn all_names() -> [&'static str; REDIRECTS.len() + ANSWERS.len() + SCRIPTS.len()] {
    let mut names = [""; REDIRECTS.len() + ANSWERS.len() + SCRIPTS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = if at < REDIRECTS.len() {
            REDIRECTS[at].0
        } else if at < REDIRECTS.len() + ANSWERS.len() {
            ANSWERS[at - REDIRECTS.len()].0
        } else {
            SCRIPTS[at - REDIRECTS.len() - ANSWERS.len()]
        };
        at += 1;
    }
    names
}

pub(super) fn part(name: &str, own: SocketAddr, trap: SocketAddr) -> Option<Part> {
    let redirect = REDIRECTS.iter().find(|redirect| redirect.0 == name).map(|(_, status, location)| {
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let (own, trap) = (format!("http://{own}/in"), format!("http://{trap}/trap"));
        vec![Request, send(answer.replace("{own}", &own).replace("{trap}", &trap).into_bytes())]
    });
    let answer = || ANSWERS.iter().find(|answer| answer.0 == name).map(|(_, bytes)| vec![Request, send(*bytes)]);
    let steps = redirect.or_else(answer).or_else(|| script(name))?;
    Some(Part { over: Http, steps })
}
