//! `make interop`: what arrives is handed to verifiers that nobody here wrote.
//!
//! One real relay delivers every body in every profile and envelope to a sink, which keeps the bytes. Each
//! cell of the matrix means: the verifier accepts every request, and refuses each with a flipped bit in its
//! body and each under another secret. Then the receivers of `examples/receivers` get deliveries of their own.
//! A program rather than tests, because its result is the table it prints.

mod bodies;
mod matrix;
mod receivers;
mod stage;
mod verifiers;

use stage::Stage;
use std::process::ExitCode;
use std::time::Instant;

/// How many things were not as they must be.
#[derive(Default)]
struct Verdict {
    failures: usize,
    skipped: usize,
}

impl Verdict {
    fn fail(&mut self, what: impl std::fmt::Display) {
        self.failures += 1;
        if self.failures <= 40 {
            println!("  FAILED  {what}");
        }
    }

    fn skip(&mut self, what: impl std::fmt::Display) {
        self.skipped += 1;
        println!("  SKIPPED {what}");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let began = Instant::now();
    let mut verdict = Verdict::default();
    let stage = Stage::new(&[]).await;
    matrix::run(&stage, &mut verdict).await;
    receivers::run(&stage, &mut verdict).await;
    let required = std::env::var_os("OUTBOXD_INTEROP_REQUIRE").is_some();
    println!(
        "\n{} in {:.0} s: {} failures, {} skipped",
        if verdict.failures == 0 { "green" } else { "RED" },
        began.elapsed().as_secs_f64(),
        verdict.failures,
        verdict.skipped
    );
    ExitCode::from(u8::from(verdict.failures > 0 || (required && verdict.skipped > 0)))
}
