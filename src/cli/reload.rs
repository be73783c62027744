//! What a running daemon follows: SIGHUP for `[egress]`, and what changes on its host by itself.

use crate::config::{Config, ConfigError, Egress};
use crate::egress::{Policy, PolicyError};
use crate::endpoint::Endpoints;
use crate::send::{SendError, Sender};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

/// How often the host is looked at: an interface that came up an hour ago must not be open to tenants.
const LOOK: Duration = Duration::from_secs(30);
/// What the resolver is made from.
const RESOLVER_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The policy cannot be followed any further; the one before holds.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Follows SIGHUP and the host until the process ends. `load` reads the configuration anew.
pub(super) async fn follow(
    mut egress: Egress,
    load: impl Fn() -> Result<Config, ConfigError>,
    mut hang_up: Signal,
    sender: Sender,
    endpoints: Arc<Endpoints>,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut resolver_files = read_resolver_files();
    loop {
        let told = tokio::select! { _ = hang_up.recv() => true, _ = look.tick() => false };
        if told {
            match load() {
                Ok(config) => egress = config.egress,
                Err(e) => error!(error = %e, "the configuration is refused; everything stays as it was"),
            }
            // Secrets that stand in files may have changed as well.
            endpoints.forget();
        }
        let files = read_resolver_files();
        match follow_up(&egress, &sender, told || files != resolver_files) {
            Ok(true) if told => {
                info!(allow = ?texts(&egress.allow), deny = ?texts(&egress.deny), ports = ?egress.ports, "reloaded: [egress] and secrets in files; the rest of the configuration is read at start")
            }
            Ok(true) => info!("this host's addresses or its resolver have changed; new connections follow"),
            Ok(false) => {}
            Err(e) => {
                warn!(error = %e, "the egress policy of before stays; it is tried again");
                continue; // what the resolver's files say now is still to be followed
            }
        }
        resolver_files = files;
    }
}

/// Makes the sender follow the policy as it is now; whether anything has changed.
fn follow_up(egress: &Egress, sender: &Sender, whatever_it_says: bool) -> Result<bool, ReloadError> {
    let policy = Policy::new(&egress.allow, &egress.deny, &egress.ports)?;
    let changed = whatever_it_says || policy != *sender.policy();
    if changed {
        sender.replace_policy(Arc::new(policy))?;
    }
    Ok(changed)
}

fn read_resolver_files() -> [Option<Vec<u8>>; 2] {
    RESOLVER_FILES.map(|path| std::fs::read(path).ok())
}

fn texts<T: ToString>(rules: &[T]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}
