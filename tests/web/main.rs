//! `make test-web`: the operator's seat before programs that nobody here wrote.
//!
//! One real daemon, and in turn: its metrics, dashboard and alert rules before promtool; its OpenAPI document before
//! a validator, a generator of types and the TypeScript compiler; the API before schemathesis; the console in
//! Chromium, with axe-core. A program rather than tests, because it prints what each of them says.
//! `make test-web ARGS='console'` runs one.

#[path = "../interop/stage.rs"]
#[allow(dead_code, reason = "its sink is for the interoperation tests")]
mod stage;

use outboxd::throwaway::free_port;
use stage::Stage;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Name, what runs it, and its script.
const CHECKS: [(&str, &str, &str); 6] = [
    ("metrics", "python", "metrics.py"),
    ("openapi", "python", "openapi.py"),
    ("types", "node", "types.mjs"),
    ("fuzz", "python", "fuzz.py"),
    ("console", "node", "console.mjs"),
    ("incident", "node", "incident.mjs"),
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut failures = 0;
    for (name, runtime, script) in CHECKS {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let began = Instant::now();
        println!("== {name}");
        let succeeded = check(runtime, script).await;
        println!("{} {name} in {:.0} s", if succeeded { "ok" } else { "FAILED" }, began.elapsed().as_secs_f64());
        failures += usize::from(!succeeded);
    }
    println!("\n{}", if failures == 0 { "green" } else { "RED" });
    ExitCode::from(u8::from(failures > 0))
}

/// Runs one program against a daemon and a database of its own.
async fn check(runtime: &str, script: &str) -> bool {
    let admin = free_address();
    let stage =
        Stage::new(&[("OUTBOXD_ADMIN__LISTEN", &admin), ("OUTBOXD_ADMIN__METRICS_BY_SUBSCRIPTION", "true")]).await;
    stage.client.batch_execute(include_str!("shop.sql")).await.expect("the catalog");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = root.join("target/web/out");
    std::fs::create_dir_all(&out).expect("a directory");
    let mut command = match runtime {
        "python" => Command::new(root.join("target/web/python/venv/bin/python")),
        _ => Command::new("node"),
    };
    let script = if runtime == "node" { beside_modules(root, script) } else { root.join("tests/web").join(script) };
    command
        .arg(script)
        .current_dir(root)
        .env("BASE", format!("http://{admin}"))
        .env("OUT", &out)
        .env("DATABASE_URL", stage.url());
    for (name, role, tenant) in [
        ("OPERATOR", "operator", "null"),
        ("VIEWER", "viewer", "null"),
        ("PRODUCER", "producer", "null"),
        ("ACME", "operator", "'acme'"),
    ] {
        let token: String = stage
            .one(&format!("select outbox.create_token('{role}', {tenant}, '{} in tests')", name.to_lowercase()))
            .await
            .get(0);
        command.env(name, token);
    }
    answering(&admin).await;
    let status = tokio::task::spawn_blocking(move || command.status()).await.expect("no panic");
    status.is_ok_and(|status| status.success())
}

/// Modules are looked for where a script lies.
fn beside_modules(root: &Path, script: &str) -> PathBuf {
    let to = root.join("target/web/node");
    for file in ["browser.mjs", script] {
        std::fs::copy(root.join("tests/web").join(file), to.join(file)).expect("the script can be copied");
    }
    to.join(script)
}

fn free_address() -> String {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port"))).to_string()
}

async fn answering(admin: &str) {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(admin).await.is_err() {
        assert!(began.elapsed() < stage::PATIENCE, "the daemon does not listen at {admin}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
