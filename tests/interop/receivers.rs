//! The receivers of `examples/receivers`, each in its own runtime.

use crate::Verdict;
use crate::stage::{PATIENCE, Stage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use outboxd::throwaway::free_port;
use ring::hmac;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How to start each; the first argument of the command is looked up.
const RECEIVERS: [(&str, &str, &[&str]); 6] = [
    ("Node, Express", "node", &["target/interop/receiver-node/server.mjs"]),
    ("Python, Flask", "target/interop/receiver-python/venv/bin/python", &["target/interop/receiver-python/app.py"]),
    ("PHP", "php", &["-q", "-S", "127.0.0.1:{port}", "examples/receivers/php/index.php"]),
    ("Go", "target/interop/receiver-go/receiver", &[]),
    ("Ruby", "ruby", &["examples/receivers/ruby/server.rb"]),
    ("Rust, axum", "target/debug/examples/receiver", &[]),
];

/// What no receiver may verify with: absent, empty, cut off, or short enough to be guessed.
const NO_SECRETS: [Option<&str>; 6] =
    [None, Some(""), Some("whsec_"), Some("abc"), Some("whsec_****"), Some("whsec_AQEBAQEBAQEBAQEBAQEBAQ==")];

/// Delivers to each what it should take, and forges what it should not.
pub(crate) async fn run(stage: &Stage, verdict: &mut Verdict) {
    println!("\nexamples/receivers");
    for (name, program, arguments) in RECEIVERS {
        let secret = format!("whsec_{}", BASE64.encode([7; 32]));
        match Receiver::start(program, arguments, Some(&secret)) {
            None => verdict.skip(format!("{name}: {program} is missing, or its server did not start")),
            Some(receiver) => match exercise(stage, &receiver, &secret).await {
                Ok(slowest_ms) => println!(
                    "  ok      {name:<16} verified, told a replay from a new event, refused forgeries; slowest answer {slowest_ms} ms"
                ),
                Err(what) => verdict.fail(format!("{name}: {what}; it wrote {:?}", receiver.written())),
            },
        }
        for bad in NO_SECRETS {
            // Most do not start at all.
            let taken = Receiver::start(program, arguments, bad).and_then(|receiver| receiver.takes_a_forgery());
            if let Some(forgery) = taken {
                verdict.fail(format!("{name}: with the secret {bad:?} it took what was signed with {forgery}"));
            }
        }
    }
}

/// A receiver under way; killed when dropped.
struct Receiver {
    child: Child,
    address: SocketAddr,
    written: Arc<Mutex<String>>,
    /// Where PHP keeps the ids it has seen.
    seen: PathBuf,
}

impl Receiver {
    /// `None` if it does not start, or ends at once.
    fn start(program: &str, arguments: &[&str], secret: Option<&str>) -> Option<Self> {
        let port = free_port().ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = port.to_string();
        let seen = std::env::temp_dir().join(format!("outboxd-interop-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&seen).ok()?;
        let mut child = Command::new(program)
            .args(arguments.iter().map(|argument| argument.replace("{port}", &port)))
            .env("PORT", &port)
            .env_remove("WEBHOOK_SECRET")
            .envs(secret.map(|secret| ("WEBHOOK_SECRET", secret)))
            .env("SEEN_DIR", &seen)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let written = Arc::new(Mutex::new(String::new()));
        let (pipe, text) = (child.stdout.take()?, written.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                text.lock().expect("no panic while reading").push_str(&(line + "\n"));
            }
        });
        let mut receiver = Self { child, address, written, seen };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > Duration::from_secs(20) || receiver.child.try_wait().ok()?.is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(receiver)
    }

    fn written(&self) -> String {
        self.written.lock().expect("no panic while reading").clone()
    }

    /// How often it says that it has processed an event.
    fn processed(&self, event_id: &str) -> usize {
        self.written().lines().filter(|line| line.starts_with("processed") && line.contains(event_id)).count()
    }

    /// Posts a request of our own; the status.
    fn post(&self, key: &[u8], id: &str, sent_at: u64, body: &str) -> Option<u16> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let signature = BASE64.encode(hmac::sign(&key, format!("{id}.{sent_at}.{body}").as_bytes()));
        self.post_as(&format!("v1,{signature}"), id, sent_at, body)
    }

    fn post_as(&self, signature: &str, id: &str, sent_at: u64, body: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(
            stream,
            "POST /webhooks HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             webhook-id: {id}\r\nwebhook-timestamp: {sent_at}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .ok()?;
        let mut answer = Vec::new();
        // A server may reset the connection after its answer.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
    }

    /// What it takes for signed though nobody has a secret.
    fn takes_a_forgery(&self) -> Option<&'static str> {
        let forgeries: [(&str, &[u8]); 2] = [("the empty key", b""), ("a short key", &[1; 16])];
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let body = r#"{"id":"forged","type":"order.created"}"#;
        let taken = |key: &[u8]| matches!(self.post(key, "forged", now, body), Some(200..=299));
        forgeries.into_iter().find(|(_, key)| taken(key)).map(|(what, _)| what)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.seen);
    }
}

/// Returns the slowest answer in milliseconds, or what was wrong.
async fn exercise(stage: &Stage, receiver: &Receiver, secret: &str) -> Result<i32, String> {
    let tenant = format!("receiver-{}", receiver.address.port());
    let url = format!("http://{}/webhooks", receiver.address);
    let endpoint = stage.subscribe(&url, &tenant, &format!("secret => '{secret}', name => '{tenant}'")).await;
    // One that re-encoding would change, one that is large.
    let payloads = [
        r#"{"amount": 123456789012345678901234567890.10, "text": "Grüße 👩‍👧"}"#.to_owned(),
        format!(r#"{{"text": "{}"}}"#, "x".repeat(900_000)),
    ];
    let mut ids = Vec::new();
    for payload in &payloads {
        ids.push(stage.publish(&tenant, payload).await.map_err(|e| e.to_string())?);
    }
    let delivered = |times: usize| {
        format!(
            "select count(*) = {times} from outbox.attempt where subscription_id = {} and outcome = 'delivered'",
            endpoint.id
        )
    };
    stage.wait_until(&format!("delivering to {url}"), &delivered(2)).await;
    stage.one(&format!("select outbox.replay('{}'::uuid, {})", ids[0], endpoint.id)).await;
    stage.wait_until(&format!("delivering to {url}"), &delivered(3)).await;
    let began = Instant::now();
    while ids.iter().any(|id| receiver.processed(id) == 0) {
        if began.elapsed() > PATIENCE / 10 {
            return Err("an event was answered and not processed".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failed: i64 = stage
        .one(&format!(
            "select count(*) from outbox.attempt where subscription_id = {} and outcome <> 'delivered'",
            endpoint.id
        ))
        .await
        .get(0);
    if failed > 0 {
        return Err(format!("{failed} attempts were refused"));
    }

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|e| e.to_string())?.as_secs();
    let key = BASE64.decode(&secret["whsec_".len()..]).map_err(|e| e.to_string())?;
    let body = r#"{"id":"forged","type":"order.created"}"#;
    for (what, key, sent_at) in [
        ("another secret", [8; 32].as_slice(), now),
        ("the empty key", b"", now),
        ("a time long ago", &key, now - 600),
        ("a time to come", &key, now + 600),
    ] {
        match receiver.post(key, "forged", sent_at, body) {
            Some(400..=499) => {}
            status => return Err(format!("a request with {what} was answered {status:?}")),
        }
    }
    for garbage in ["garbage", "v1,a,b", "v1,!", ","] {
        match receiver.post_as(garbage, "forged", now, body) {
            Some(400..=499) => {}
            status => return Err(format!("the signature {garbage:?} was answered {status:?}")),
        }
    }
    match receiver.post(&key, "made-by-hand", now, r#"{"id":"made-by-hand","type":"order.created"}"#) {
        Some(200..=299) => {}
        status => return Err(format!("a good request was answered {status:?}")),
    }
    let processed: Vec<usize> = ids.iter().map(|id| receiver.processed(id)).collect();
    if processed != [1, 1] || receiver.processed("forged") > 0 {
        return Err(format!("processed {processed:?} times, forged {}", receiver.processed("forged")));
    }
    // As on a full disk: what cannot be noted must not be answered as if it were.
    let _ = std::fs::remove_dir_all(&receiver.seen);
    let taken = receiver.post(&key, "unnoted", now, r#"{"id":"unnoted","type":"order.created"}"#);
    let began = Instant::now();
    while matches!(taken, Some(200..=299)) && receiver.processed("unnoted") == 0 {
        if began.elapsed() > PATIENCE / 60 {
            return Err("an event that could not be noted was answered, and not processed".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let slowest: i32 = stage
        .one(&format!("select max(latency_ms) from outbox.attempt where subscription_id = {}", endpoint.id))
        .await
        .get(0);
    // Generous: a receiver that works before it answers would take its time for every event.
    if slowest > 5_000 { Err(format!("an answer took {slowest} ms")) } else { Ok(slowest) }
}
