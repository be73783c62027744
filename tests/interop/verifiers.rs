//! The verifiers of others: child processes that answer a line of JSON with a line of JSON, and one crate.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use outboxd::receiver::Arrived;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A verifier: its runtime, and its name there.
pub(crate) type Name = (&'static str, &'static str);

/// Who can verify a profile.
pub(crate) fn of(profile: &str) -> &'static [Name] {
    match profile {
        "standard" => &[
            ("node", "standardwebhooks"),
            ("node", "svix"),
            ("python", "standardwebhooks"),
            ("python", "svix"),
            ("rust", "standardwebhooks"),
        ],
        "standard-ed25519" => &[("node", "node:crypto"), ("python", "cryptography")],
        "x-signature" => &[("php", "hash_hmac")],
        "x-webhook" | "github" => &[("node", "octokit"), ("php", "hash_hmac")],
        "stripe" => &[("node", "stripe"), ("python", "stripe")],
        _ => &[],
    }
}

/// The running ones. A runtime that is missing is remembered as such.
#[derive(Default)]
pub(crate) struct Verifiers {
    processes: HashMap<&'static str, Option<Process>>,
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Verifiers {
    /// Whether the verifier accepts, with what it saw; `None` if its runtime is missing.
    pub(crate) fn ask(
        &mut self,
        (runtime, name): Name,
        arrived: &Arrived,
        body: &[u8],
        secret: &str,
    ) -> Option<Result<Value, String>> {
        if runtime == "rust" {
            let webhook = standardwebhooks::Webhook::new(secret).map_err(|e| e.to_string());
            return Some(
                webhook.and_then(|w| w.verify(body, &arrived.headers).map_err(|e| e.to_string())).map(|()| Value::Null),
            );
        }
        let process = self.processes.entry(runtime).or_insert_with(|| start(runtime)).as_mut()?;
        let headers: HashMap<&str, &str> =
            arrived.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
        let question = json!({ "verifier": name, "secret": secret, "headers": headers, "body": BASE64.encode(body) });
        writeln!(process.stdin, "{question}").expect("the verifier listens");
        let mut line = String::new();
        process.stdout.read_line(&mut line).expect("the verifier answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{runtime}'s answer: {line:?}"));
        Some(match answer["ok"].as_bool() {
            Some(true) => Ok(answer["seen"].clone()),
            _ => Err(answer["error"].as_str().unwrap_or("refused").to_owned()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(runtime: &str) -> Option<Process> {
    let (program, script) = match runtime {
        "node" => ("node", "target/interop/node/verify.mjs"),
        "python" => ("target/interop/python/venv/bin/python", "target/interop/python/verify.py"),
        _ => ("php", "tests/interop/verify.php"),
    };
    let mut command = Command::new(program);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let (stdin, stdout) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
    Some(Process { child, stdin, stdout })
}
