//! HTTP/2 as it should not be, in frames written by hand: a library would refuse to misbehave.

use super::Over::Http2;
use super::Step::{Drip, Forever, Hang, Http2Request, Paced, Reset};
use super::{Part, send};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` and `:status: 204`, as the static table has them.
const STATUS_200: u8 = 0x88;
const STATUS_204: u8 = 0x89;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with these values, and the acknowledgement of the client's.
fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    [frame(SETTINGS, 0, 0, &payload), frame(SETTINGS, ACK, 0, &[])].concat()
}

fn goaway(last_stream: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A header that enters no table.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0], &length(name.len())[..], name, &length(value.len()), value].concat()
}

/// A string's length, in HPACK's 7-bit prefix form.
fn length(value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![value as u8];
    }
    let (mut bytes, mut rest) = (vec![127], value - 127);
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// HEADERS of the one stream, whole, and its flags besides.
fn headers(flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, 1, block)
}

/// Headers of more than one frame.
fn continued(block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16 << 10).peekable();
    let mut frames = frame(HEADERS, 0, 1, pieces.next().unwrap_or_default());
    while let Some(piece) = pieces.next() {
        frames.extend(frame(CONTINUATION, if pieces.peek().is_none() { END_HEADERS } else { 0 }, 1, piece));
    }
    frames
}

/// One header of 4,000 bytes enters the table, and is named 12,000 times: 48 MB in 16 KiB.
fn hpack_bomb() -> Vec<u8> {
    let value = [b'x'; 4000];
    let entry = [&[0x40, 1, b'a'], &length(value.len())[..], &value].concat();
    headers(END_STREAM, &[&[STATUS_200], &entry[..], &[0xbe; 12_000]].concat())
}

fn ok() -> Vec<u8> {
    [headers(0, &[STATUS_200]), frame(DATA, END_STREAM, 1, b"ok")].concat()
}

macro_rules! parts {
    ($($name:literal => [$($step:expr),* $(,)?];)*) => {
        pub(super) const NAMES: &[&str] = &[$($name),*];

        pub(super) fn part(name: &str) -> Option<Part> {
            let steps = match name {
                $($name => vec![$($step),*],)*
                _ => return None,
            };
            Some(Part { over: Http2, steps })
        }
    };
}

parts! {
    "h2: a good one" => [send(settings(&[])), Http2Request, send(ok()), Hang];
    "h2: closed at once" => [];
    "h2: reset after the request" => [send(settings(&[])), Http2Request, Reset];
    "h2: closed after the request" => [send(settings(&[])), Http2Request];
    "h2: silence" => [Hang];
    "h2: silence after the settings" => [send(settings(&[])), Hang];
    "h2: silence after the headers" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), Hang];
    "h2: a byte at a time" => [send(settings(&[])), Http2Request, Drip(&[0, 0x3f, 0xff, 1, 4, 0, 0, 0, 1, 0x88])];
    "h2: an answer of HTTP/1.1" => [Http2Request, send(&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..]), Hang];
    "h2: garbage" => [Http2Request, send(&[0x7f; 300][..]), Hang];
    "h2: GOAWAY at once" => [send([settings(&[]), goaway(0, 0)].concat()), Hang];
    "h2: GOAWAY after the request" => [send(settings(&[])), Http2Request, send(goaway(0, 0)), Hang];
    "h2: GOAWAY, enhance your calm" => [send(settings(&[])), Http2Request, send(goaway(0, 11)), Hang];
    "h2: GOAWAY, then the whole answer" => [send(settings(&[])), Http2Request, send([goaway(1, 0), ok()].concat()), Hang];
    "h2: GOAWAY within the body" => [send(settings(&[])), Http2Request, send([headers(0, &[STATUS_200]), frame(DATA, 0, 1, b"o"), goaway(1, 0)].concat())];
    "h2: RST_STREAM refused" => [send(settings(&[])), Http2Request, send(frame(RST_STREAM, 0, 1, &7_u32.to_be_bytes())), Hang];
    "h2: RST_STREAM internal error" => [send(settings(&[])), Http2Request, send(frame(RST_STREAM, 0, 1, &2_u32.to_be_bytes())), Hang];
    "h2: RST_STREAM within the body" => [send(settings(&[])), Http2Request, send([headers(0, &[STATUS_200]), frame(DATA, 0, 1, b"o"), frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())].concat()), Hang];
    "h2: RST_STREAM after the whole answer" => [send(settings(&[])), Http2Request, send([ok(), frame(RST_STREAM, 0, 1, &[0; 4])].concat()), Hang];
    "h2: a stream that never ends" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), Paced(frame(DATA, 0, 1, &[b'x'; 8192]).into())];
    "h2: a stream that ignores its window" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), Forever(frame(DATA, 0, 1, &[b'x'; 1024]).into())];
    "h2: a stream of padding" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), Forever(frame(DATA, 8, 1, &[&[255][..], b"x", &[0; 255]].concat()).into())];
    "h2: endless empty DATA" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), Forever(frame(DATA, 0, 1, &[]).into())];
    "h2: a window that is never opened" => [send(settings(&[(4, 0)])), Hang];
    "h2: no stream allowed" => [send(settings(&[(3, 0)])), Hang];
    "h2: one stream allowed" => [send(settings(&[(3, 1)])), Http2Request, send(ok()), Hang];
    "h2: settings flood" => [Forever(frame(SETTINGS, 0, 0, &[]).into())];
    "h2: ping flood" => [send(settings(&[])), Forever(frame(PING, 0, 0, &[7; 8]).into())];
    "h2: priority flood" => [send(settings(&[])), Http2Request, Forever(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]).into())];
    "h2: window flood" => [send(settings(&[])), Http2Request, Forever(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()).into())];
    "h2: a window beyond its bound" => [send(settings(&[])), Http2Request, send(frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())), Hang];
    "h2: RST_STREAM flood" => [send(settings(&[])), Http2Request, Forever(frame(RST_STREAM, 0, 3, &[0; 4]).into())];
    "h2: unknown frames" => [send(settings(&[])), Http2Request, Forever(frame(0x42, 0, 0, &[7; 100]).into())];
    "h2: continuation flood" => [send(settings(&[])), Http2Request, send(frame(HEADERS, 0, 1, &[STATUS_200])), Forever(frame(CONTINUATION, 0, 1, &literal(b"x-a", &[b'y'; 100])).into())];
    "h2: empty continuation flood" => [send(settings(&[])), Http2Request, send(frame(HEADERS, 0, 1, &[STATUS_200])), Forever(frame(CONTINUATION, 0, 1, &[]).into())];
    "h2: one header of 64 KiB" => [send(settings(&[])), Http2Request, send(continued(&[vec![STATUS_200], literal(b"x-a", &[b'y'; 64 << 10])].concat())), Hang];
    "h2: ten thousand headers" => [send(settings(&[])), Http2Request, send(continued(&[vec![STATUS_200], literal(b"x-a", b"b").repeat(10_000)].concat())), Hang];
    "h2: HPACK bomb" => [send(settings(&[])), Http2Request, send(hpack_bomb()), Hang];
    "h2: HPACK garbage" => [send(settings(&[])), Http2Request, send(headers(END_STREAM, &[0xff; 20])), Hang];
    "h2: 1xx flood" => [send(settings(&[])), Http2Request, Forever(headers(0, &[8, 3, b'1', b'0', b'3']).into())];
    "h2: trailers flood" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), Forever(headers(0, &literal(b"x-a", b"b")).into())];
    "h2: push promise" => [send(settings(&[])), Http2Request, send(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82, 0x87, 0x84])), Hang];
    "h2: a frame larger than allowed" => [send(settings(&[])), Http2Request, send(headers(0, &[STATUS_200])), send(frame(DATA, 0, 1, &[b'x'; 17 << 10])), Hang];
    "h2: DATA before HEADERS" => [send(settings(&[])), Http2Request, send(frame(DATA, END_STREAM, 1, b"ok")), Hang];
    "h2: HEADERS without a status" => [send(settings(&[])), Http2Request, send(headers(END_STREAM, &literal(b"x-a", b"b"))), Hang];
    "h2: two statuses" => [send(settings(&[])), Http2Request, send(headers(END_STREAM, &[STATUS_200, STATUS_204])), Hang];
    "h2: headers of HTTP/1.1" => [send(settings(&[])), Http2Request, send(headers(END_STREAM, &[vec![STATUS_200], literal(b"connection", b"close")].concat())), Hang];
    "h2: a name in capitals" => [send(settings(&[])), Http2Request, send(headers(END_STREAM, &[vec![STATUS_200], literal(b"X-A", b"b")].concat())), Hang];
    "h2: a length that lies" => [send(settings(&[])), Http2Request, send([headers(0, &[vec![STATUS_200], literal(b"content-length", b"9")].concat()), frame(DATA, END_STREAM, 1, b"ok")].concat()), Hang];
    "h2: 204 with a body" => [send(settings(&[])), Http2Request, send([headers(0, &[STATUS_204]), frame(DATA, END_STREAM, 1, b"ok")].concat()), Hang];
    "h2: an answer nobody asked for" => [send(settings(&[])), Http2Request, send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &[STATUS_200])), Hang];
    "h2: an answer on stream 2" => [send(settings(&[])), Http2Request, send(frame(HEADERS, END_HEADERS | END_STREAM, 2, &[STATUS_200])), Hang];
    "h2: an answer on stream 0" => [send(settings(&[])), Http2Request, send(frame(HEADERS, END_HEADERS | END_STREAM, 0, &[STATUS_200])), Hang];
}
