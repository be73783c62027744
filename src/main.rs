//! The command line. Two phases: a synchronous bootstrap that can refuse, then the runtime.

use clap::{Parser, Subcommand};
use outboxd::cli::{self, Exit};
use outboxd::config::{Config, LogFormat, Overrides};
use outboxd::crash_point;
use outboxd::telemetry;
use std::path::PathBuf;
use std::process::ExitCode;

/// Turns rows inserted in a PostgreSQL transaction into signed webhooks.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (default: /etc/outboxd/outboxd.toml, if there is one)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines are written
    #[arg(long, global = true, value_name = "text|json", value_parser = clap::value_parser!(LogFormat))]
    log_format: Option<LogFormat>,
    /// Log more
    #[arg(short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Run,
    /// Create or upgrade the schema; safe to run from many hosts at once
    Migrate,
    /// Check configuration, connection, privileges, schema, settings and egress policy
    Check(cli::check::Arguments),
    /// Seal signing secrets that are plain in the database, or sealed with another key
    Seal(cli::seal::Arguments),
    /// Say how things stand
    Status(cli::status::Arguments),
    /// Receive webhooks on this machine: verify, print, answer as told
    Listen(cli::listen::Arguments),
    /// Show a whole system on a throwaway PostgreSQL
    Demo(cli::demo::Arguments),
    /// Measure throughput, latency and what a producer pays
    Bench(Box<cli::bench::Arguments>),
}

const NO_CORE: rustix::process::Rlimit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };

fn main() -> ExitCode {
    // Secrets are in memory: a crash must not write them to a disk. It cannot fail: less is always allowed.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, NO_CORE);
    let arguments = Arguments::parse();
    if let Err(e) = crash_point::arm() {
        eprintln!("outboxd: {e}");
        return Exit::BadConfiguration.into();
    }
    let overrides = Overrides { log_format: arguments.log_format, verbosity: arguments.verbose };
    let load = || Config::load(arguments.config.as_deref(), &overrides);

    // These need no database of the user's, and so no configuration.
    let exit = match &arguments.command {
        Command::Listen(a) => block_on(cli::listen::listen(a)),
        Command::Demo(a) => block_on(cli::demo::demo(a)),
        Command::Bench(a) => block_on(cli::bench::bench(a)),
        Command::Seal(a) if a.generate_key => cli::seal::generate_key(),
        command => {
            let config = match load() {
                Ok(config) => config,
                Err(e) => {
                    eprintln!("outboxd: {e}");
                    return Exit::BadConfiguration.into();
                }
            };
            if matches!(command, Command::Run)
                && let Err(e) = telemetry::init(&config.log)
            {
                eprintln!("outboxd: {e}");
                return Exit::BadConfiguration.into();
            }
            match command {
                Command::Run => block_on(cli::run::run(config, load)),
                Command::Migrate => block_on(cli::migrate::migrate(&config)),
                Command::Check(a) => block_on(cli::check::check(&config, a)),
                Command::Seal(a) => block_on(cli::seal::seal(&config, a)),
                Command::Status(a) => block_on(cli::status::status(&config, a)),
                Command::Listen(_) | Command::Demo(_) | Command::Bench(_) => Exit::Done,
            }
        }
    };
    exit.into()
}

fn block_on(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(work);
            // A name lookup that hangs must not keep the process.
            runtime.shutdown_background();
            exit
        }
        Err(e) => {
            eprintln!("outboxd: cannot start the runtime: {e}");
            Exit::Failed
        }
    }
}
