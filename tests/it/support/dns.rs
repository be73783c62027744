//! A name server on the loopback interface, over UDP and TCP, that answers as each name's case says.
//!
//! The wire format is written out by hand: a library would refuse to write most of this.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The zone of all names here.
const ZONE: &str = "dns.example";
/// What the tests take for a public address: loopback all the same, and allowed.
pub(crate) const PUBLIC: &str = "127.0.0.2";

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

const NXDOMAIN: u8 = 3;

/// The name of a case: its words, as labels may hold them.
pub(crate) fn host(case: &str) -> String {
    let words = case.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    format!("{}.{ZONE}", words.collect::<Vec<_>>().join("-").to_lowercase())
}

/// One record of an answer, with the name it is for.
#[derive(Clone)]
struct Record {
    owner: String,
    kind: u16,
    ttl_s: u32,
    data: Vec<u8>,
}

/// What the server does with a question.
enum Reaction {
    /// This response code, with these records.
    Answer(u8, Vec<Record>),
    /// The same, over UDP cut short with TC set.
    OverTcp(Vec<Record>),
    /// Nothing.
    Silence,
    /// So much later.
    Late(Duration, Vec<Record>),
    /// These bytes, whatever they are, with the id of the question in front.
    Bytes(Vec<u8>),
    /// An answer whose bytes are changed before they leave.
    Changed(Vec<Record>, fn(&mut Vec<u8>)),
    /// First the answer as the function spoils it, then as it is.
    SpoiledThenRight(Vec<Record>, fn(&mut Vec<u8>)),
    /// Truncated over UDP, and over TCP a length that is never fulfilled.
    NeverOverTcp,
}

use Reaction::{Answer, Bytes, Changed, Late, NeverOverTcp, OverTcp, Silence, SpoiledThenRight};

struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// As it was asked, without the header.
    bytes: Vec<u8>,
}

/// A name server, until it is dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    tasks: [JoinHandle<()>; 2],
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        // The same port for both: another test may have taken it for one of them.
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("an address")).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = tcp.local_addr().expect("an address");
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let tasks = [tokio::spawn(serve_udp(udp, asked.clone())), tokio::spawn(serve_tcp(tcp, asked.clone()))];
        Self { address, asked, tasks }
    }

    /// How often the addresses (IPv4) of that case's name were asked for.
    pub(crate) fn asked(&self, case: &str) -> usize {
        self.asked.lock().expect("no panic while counting").get(&host(case)).copied().unwrap_or(0)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, asked: Arc<Mutex<HashMap<String, usize>>>) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(question) = parse(&buffer[..length]) else { continue };
        let reaction = react(&question, &asked);
        let socket = socket.clone();
        tokio::spawn(async move {
            // Whoever asked may have gone.
            for (wait, answer) in datagrams(&question, reaction) {
                sleep(wait).await;
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

fn datagrams(question: &Question, reaction: Reaction) -> Vec<(Duration, Vec<u8>)> {
    let at_once = |answer| vec![(Duration::ZERO, answer)];
    match reaction {
        Silence => Vec::new(),
        Answer(code, records) => at_once(answer(question, code, false, &records)),
        OverTcp(_) | NeverOverTcp => at_once(answer(question, 0, true, &[])),
        Late(wait, records) => vec![(wait, answer(question, 0, false, &records))],
        Bytes(bytes) => at_once([&question.id[..], &bytes].concat()),
        Changed(records, change) => at_once(changed(answer(question, 0, false, &records), change)),
        SpoiledThenRight(records, spoil) => {
            let right = answer(question, 0, false, &records);
            vec![(Duration::ZERO, changed(right.clone(), spoil)), (Duration::from_millis(50), right)]
        }
    }
}

fn changed(mut answer: Vec<u8>, change: fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut answer);
    answer
}

async fn serve_tcp(listener: TcpListener, asked: Arc<Mutex<HashMap<String, usize>>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let asked = asked.clone();
        tokio::spawn(async move {
            // Until whoever asks closes the connection.
            while let Ok(length) = stream.read_u16().await {
                let mut message = vec![0; length.into()];
                if stream.read_exact(&mut message).await.is_err() {
                    return;
                }
                let Some(question) = parse(&message) else { return };
                let answer = match react(&question, &asked) {
                    Answer(code, records) => answer(&question, code, false, &records),
                    OverTcp(records) => answer(&question, 0, false, &records),
                    Late(wait, records) => {
                        sleep(wait).await;
                        answer(&question, 0, false, &records)
                    }
                    Changed(records, change) => changed(answer(&question, 0, false, &records), change),
                    // Nobody but the server writes on this connection.
                    SpoiledThenRight(records, _) => answer(&question, 0, false, &records),
                    Bytes(bytes) => [&question.id[..], &bytes].concat(),
                    Silence => continue,
                    NeverOverTcp => {
                        let _ = stream.write_all(&[0xff, 0xff, question.id[0], question.id[1]]).await;
                        continue;
                    }
                };
                let length = u16::try_from(answer.len()).expect("a message").to_be_bytes();
                if stream.write_all(&[&length[..], &answer].concat()).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn parse(message: &[u8]) -> Option<Question> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    let id = [message[0], message[1]];
    Some(Question { id, name: labels.join("."), kind, bytes: message.get(12..at + 4)?.to_vec() })
}

fn answer(question: &Question, code: u8, truncated: bool, records: &[Record]) -> Vec<u8> {
    let count = u16::try_from(records.len()).expect("so many records").to_be_bytes();
    let flags = [0x81 | if truncated { 2 } else { 0 }, 0x80 | code];
    let mut message = [&question.id[..], &flags, &[0, 1], &count, &[0; 4], &question.bytes].concat();
    for record in records {
        message.extend(name(&record.owner));
        message.extend(record.kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(record.ttl_s.to_be_bytes());
        message.extend(u16::try_from(record.data.len()).expect("a record").to_be_bytes());
        message.extend(&record.data);
    }
    message
}

fn name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

/// The records of these addresses that answer the question.
fn addresses(question: &Question, addresses: &[&str]) -> Vec<Record> {
    with_ttl(question, 0, addresses)
}

fn with_ttl(question: &Question, ttl_s: u32, addresses: &[&str]) -> Vec<Record> {
    let of = |text: &&str| match text.parse().expect("an address") {
        std::net::IpAddr::V4(v4) => (A, v4.octets().to_vec()),
        std::net::IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
    };
    let fitting = addresses.iter().map(of).filter(|(kind, _)| *kind == question.kind);
    fitting.map(|(kind, data)| Record { owner: question.name.clone(), kind, ttl_s, data }).collect()
}

fn alias(owner: &str, of: &str) -> Record {
    Record { owner: owner.to_owned(), kind: CNAME, ttl_s: 0, data: name(of) }
}

fn react(question: &Question, asked: &Mutex<HashMap<String, usize>>) -> Reaction {
    let nth = {
        let mut asked = asked.lock().expect("no panic while counting");
        let count = asked.entry(question.name.clone()).or_default();
        *count += usize::from(question.kind == A);
        *count
    };
    let found = |list: &[&str]| Answer(0, addresses(question, list));
    let zone = |label: &str| format!("{label}.{ZONE}");
    let Some(label) = question.name.strip_suffix(&format!(".{ZONE}")) else { return Answer(NXDOMAIN, Vec::new()) };
    if let Some((_, address)) = LITERALS.iter().find(|(case, _)| host(case) == question.name) {
        return found(&[address]);
    }
    match label {
        "public" | "0-seconds-to-live" => found(&[PUBLIC]),
        "public-and-private" => found(&[PUBLIC, "10.0.0.1"]),
        "private-and-public" => found(&["10.0.0.1", PUBLIC]),
        "public-ipv4-loopback-ipv6" => found(&[PUBLIC, "::1"]),
        "a-private-one-among-four-hundred" => {
            let mut many = vec![PUBLIC; 399];
            many.push("10.0.0.1");
            OverTcp(addresses(question, &many))
        }
        "four-hundred-public-ones" => OverTcp(addresses(question, &[PUBLIC; 400])),
        "truncated-then-over-tcp" => OverTcp(addresses(question, &[PUBLIC])),
        "truncated-then-private-over-tcp" => OverTcp(addresses(question, &["10.0.0.1"])),
        "truncated-and-never-over-tcp" => NeverOverTcp,
        "rebinding-public-then-loopback" => found(&[if nth < 2 { PUBLIC } else { "127.0.0.1" }]),
        "rebinding-loopback-then-public" => found(&[if nth < 2 { "127.0.0.1" } else { PUBLIC }]),
        "rebinding-with-a-long-time-to-live" => {
            let address = if nth < 2 { PUBLIC } else { "127.0.0.1" };
            Answer(0, with_ttl(question, i32::MAX as u32, &[address]))
        }
        "cname-to-a-private-name" | "cname-to-a-public-name" => {
            let target = zone(if label.contains("private") { "private-10-0-0-1" } else { "public" });
            let mut records = vec![alias(&question.name, &target)];
            let address = if label.contains("private") { "10.0.0.1" } else { PUBLIC };
            let of_target = addresses(question, &[address]);
            records.extend(of_target.into_iter().map(|record| Record { owner: target.clone(), ..record }));
            Answer(0, records)
        }
        "cname-to-a-private-name-that-has-to-be-asked-for" => {
            Answer(0, vec![alias(&question.name, &zone("private-10-0-0-1"))])
        }
        "cname-to-localhost" => Answer(0, vec![alias(&question.name, "localhost")]),
        "cname-to-what-looks-like-an-address" => Answer(0, vec![alias(&question.name, "127.0.0.1")]),
        "cname-to-itself" => Answer(0, vec![alias(&question.name, &question.name)]),
        "cname-in-a-circle" => Answer(0, vec![alias(&question.name, &zone("cname-in-a-circle-back"))]),
        "cname-in-a-circle-back" => Answer(0, vec![alias(&question.name, &zone("cname-in-a-circle"))]),
        "cname-without-end" => Answer(0, vec![alias(&question.name, &zone(&format!("cname-without-end-{nth}")))]),
        "a-chain-of-a-hundred-cnames" => {
            let names: Vec<String> = (0..100).map(|n| zone(&format!("link-{n}"))).collect();
            let mut records = vec![alias(&question.name, &names[0])];
            records.extend(names.windows(2).map(|pair| alias(&pair[0], &pair[1])));
            let last = addresses(question, &["10.0.0.1"]);
            records.extend(last.into_iter().map(|record| Record { owner: names[99].clone(), ..record }));
            OverTcp(records)
        }
        "no-address" => Answer(0, Vec::new()),
        "no-such-name" => Answer(NXDOMAIN, Vec::new()),
        "servfail" => Answer(2, Vec::new()),
        "refused" => Answer(5, Vec::new()),
        "formerr" => Answer(1, Vec::new()),
        "notimp" => Answer(4, Vec::new()),
        "no-such-name-with-a-private-address" => Answer(NXDOMAIN, addresses(question, &["10.0.0.1"])),
        "silence" => Silence,
        "after-the-deadline" => Late(Duration::from_secs(2), addresses(question, &[PUBLIC])),
        "garbage" => Bytes(vec![0xff; 100]),
        "nothing-but-an-id" => Bytes(Vec::new()),
        "another-id" => Changed(addresses(question, &["10.0.0.1"]), |answer| answer[0] ^= 0xff),
        "another-id-then-the-right-one" => SpoiledThenRight(addresses(question, &[PUBLIC]), |answer| {
            answer[0] ^= 0xff;
            // What it says, too, is another's: 10.0.0.1 in place of the last address.
            if let Some(at) =
                answer.len().checked_sub(4).filter(|at| answer[*at..] == Ipv4Addr::new(127, 0, 0, 2).octets())
            {
                answer[at..].copy_from_slice(&[10, 0, 0, 1]);
            }
        }),
        "another-question" => Changed(addresses(question, &[PUBLIC]), |answer| answer[13] ^= 1),
        "a-question-instead-of-an-answer" => Changed(addresses(question, &[PUBLIC]), |answer| answer[2] &= 0x7f),
        "an-address-of-another-name" => {
            let others = addresses(question, &["10.0.0.1"]).into_iter();
            Answer(0, others.map(|record| Record { owner: zone("another"), ..record }).collect())
        }
        "more-records-announced-than-there-are" => {
            Changed(addresses(question, &[PUBLIC]), |answer| answer[6..8].fill(0xff))
        }
        "an-address-of-three-bytes" => Answer(
            0,
            vec![Record { owner: question.name.clone(), kind: question.kind, ttl_s: 0, data: vec![10, 0, 0] }],
        ),
        "a-name-that-points-to-itself" => {
            // A compression pointer to where it stands: behind the header and the question.
            let at = 12 + question.bytes.len();
            let pointer = [0xc0 | (at >> 8) as u8, at as u8];
            let rest = [0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 2];
            Bytes([&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..], &question.bytes, &pointer, &rest].concat())
        }
        "private-10-0-0-1" => found(&["10.0.0.1"]),
        other if other.starts_with("cname-without-end-") => {
            Answer(0, vec![alias(&question.name, &zone(&format!("{other}x")))])
        }
        _ => Answer(NXDOMAIN, Vec::new()),
    }
}

/// Cases of one address each.
const LITERALS: &[(&str, &str)] = &[
    ("loopback", "127.0.0.1"),
    ("private 10/8", "10.1.2.3"),
    ("private 172.16/12", "172.31.255.255"),
    ("private 192.168/16", "192.168.0.1"),
    ("metadata of the cloud", "169.254.169.254"),
    ("metadata of Azure", "168.63.129.16"),
    ("shared by carriers", "100.64.0.1"),
    ("unspecified", "0.0.0.0"),
    ("broadcast", "255.255.255.255"),
    ("multicast", "224.0.0.1"),
    ("documentation", "203.0.113.7"),
    ("IPv6 loopback", "::1"),
    ("IPv6 unspecified", "::"),
    ("IPv6 unique local", "fd00:ec2::254"),
    ("IPv6 link-local", "fe80::1"),
    ("IPv6 site-local", "fec0::1"),
    ("IPv6 multicast", "ff02::1"),
    ("IPv6 mapped", "::ffff:10.0.0.1"),
    ("IPv6 compatible", "::127.0.0.1"),
    ("IPv6 translated", "64:ff9b::a9fe:a9fe"),
    ("IPv6 translated locally", "64:ff9b:1::a00:1"),
    ("IPv6 6to4", "2002:7f00:1::1"),
    ("IPv6 Teredo", "2001:0:7f00:1::1"),
    ("IPv6 ISATAP", "2001:db8::5efe:a00:1"),
    ("IPv6 discard", "100::1"),
    ("IPv6 documentation", "2001:db8::1"),
];
