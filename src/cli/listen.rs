//! `outboxd listen`: a local receiver that verifies, prints and answers as told.

use super::{Exit, fail};
use crate::receiver::{self, Arrived, Reply, Verdict};
use hyper::StatusCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

/// Flags of `outboxd listen`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000")]
    address: SocketAddr,
    /// A secret as outbox.subscribe showed it, of ed25519 the public key (whpk_…); may be given again, as during a rotation
    #[arg(long = "secret", env = "OUTBOXD_LISTEN_SECRET", hide_env_values = true, value_delimiter = ',')]
    secrets: Vec<String>,
    /// The header that carries the signature, if the subscription has a signature_header
    #[arg(long, value_name = "NAME")]
    signature_header: Option<String>,
    /// The status to answer with
    #[arg(long, default_value = "200")]
    status: u16,
    /// Milliseconds to wait before answering
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Answer 500 to this many requests first
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_first: u64,
    /// Print headers and bodies as they came
    #[arg(long)]
    raw: bool,
}

/// Listens until it is interrupted.
pub async fn listen(arguments: &Arguments) -> Exit {
    let Ok(status) = StatusCode::from_u16(arguments.status) else {
        return fail(format_args!("--status {}: an HTTP status has three digits", arguments.status));
    };
    let listener = match TcpListener::bind(arguments.address).await {
        Ok(listener) => listener,
        Err(e) => return fail(format_args!("cannot listen on {}: {e}", arguments.address)),
    };
    println!(
        "listening on http://{}/  (outboxd refuses loopback and http: unless told otherwise: see README, Development)",
        arguments.address
    );
    if arguments.secrets.is_empty() {
        println!("no --secret: signatures are not verified");
    }
    let (secrets, raw) = (Arc::new(arguments.secrets.clone()), arguments.raw);
    let signature_header = arguments.signature_header.clone();
    let count = Arc::new(AtomicU64::new(0));
    let (delay, fail_first) = (Duration::from_millis(arguments.delay), arguments.fail_first);
    let serve = receiver::serve(listener, move |arrived| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let verdict = receiver::verify(&arrived, &secrets, signature_header.as_deref(), SystemTime::now());
        let wrong = !secrets.is_empty() && !matches!(verdict, Verdict::Verified(_));
        // As a real receiver would: what is not proven is refused.
        let status = if wrong {
            StatusCode::UNAUTHORIZED
        } else if number <= fail_first {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            status
        };
        print_one(number, &arrived, &verdict, secrets.is_empty(), status, raw);
        async move { Reply { status, delay } }
    });
    tokio::select! {
        () = serve => Exit::Failed,
        _ = tokio::signal::ctrl_c() => Exit::Done,
    }
}

fn print_one(number: u64, arrived: &Arrived, verdict: &Verdict, unchecked: bool, status: StatusCode, raw: bool) {
    let verdict = match verdict {
        _ if unchecked => "not verified".to_owned(),
        Verdict::Verified(0) => "verified".to_owned(),
        Verdict::Verified(n) => format!("verified with secret {}", n + 1),
        Verdict::Unsigned => "UNSIGNED".to_owned(),
        Verdict::Refused(reason) => format!("REFUSED: {reason}"),
    };
    let body = String::from_utf8_lossy(&arrived.body);
    // Control characters would let a body write on the terminal.
    let printable =
        |text: &str| text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect::<String>();
    println!("{number:>6}  {}  {verdict}, answered {}", printable(arrived.event_id()), status.as_u16());
    if raw {
        for (name, value) in &arrived.headers {
            println!("        {name}: {}", printable(&String::from_utf8_lossy(value.as_bytes())));
        }
    }
    println!("        {}", printable(&body));
}
