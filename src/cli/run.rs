//! `outboxd run`: the daemon.

use super::{Exit, fail, reload, seal};
use crate::admin;
use crate::config::{Config, ConfigError, ConnectError, ConnectSettings};
use crate::db::{Db, DbError, Seat};
use crate::endpoint::Endpoints;
use crate::metrics::Metrics;
use crate::reconcile::{self, Change, ReconcileError};
use crate::relay::{Relay, Settings};
use crate::send::Sender;
use crate::trace::Tracer;
use crate::{connect, egress, schema, secrets, send};
use hyper::header::HeaderValue;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Reconciling waits by itself for what others have locked; this lets them come through in between.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Runs a relay until SIGTERM or SIGINT. At SIGHUP `load` reads the configuration anew, of which `[egress]` is
/// followed.
pub async fn run(config: Config, load: impl Fn() -> Result<Config, ConfigError>) -> Exit {
    let (tell, stop) = watch::channel(false);
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(hang_up)] = kinds else { return fail("cannot listen for signals") };
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        let _ = tell.send(true);
    });

    let metrics = Metrics::default();
    let tracer = match tracer(&config) {
        Ok(tracer) => tracer,
        Err(e) => {
            error!(error = %e, "traces cannot be exported");
            return Exit::BadConfiguration;
        }
    };
    let relay = match assemble(&config, &metrics, &tracer).await {
        Ok(relay) => relay,
        Err(e) => {
            error!(error = %e, "cannot start");
            return Exit::Failed;
        }
    };
    let mut stopped = stop.clone();
    let in_step = tokio::select! {
        result = in_step(&config) => result,
        _ = stopped.wait_for(|stop| *stop) => return Exit::Done,
    };
    match in_step {
        Ok(()) => {}
        Err(e @ ReconcileError::Refused(_)) => {
            error!(error = %e, "the configuration is refused; no subscription was changed");
            return Exit::BadConfiguration;
        }
        Err(e) => {
            error!(error = %e, "cannot start");
            return Exit::Failed;
        }
    }
    match serve_admin(&config, metrics) {
        Ok(()) => {}
        Err(e) => {
            error!(error = %e, "the operator's seat cannot be served");
            return Exit::BadConfiguration;
        }
    }
    info!(version = env!("CARGO_PKG_VERSION"), "outboxd starts");
    let mut ready = false;
    let following = reload::follow(config.egress.clone(), load, hang_up, relay.sender(), relay.endpoints());
    // A task, so that what wakes it is on the same threads: here each attempt that ends would wake another thread.
    let running = tokio::spawn(relay.run(stop, move |relay| {
        if !ready && relay.is_connected() {
            ready = true;
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        // From the loop itself: a loop that stands still is restarted.
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }));
    tokio::select! {
        ended = running => if let Err(e) = ended { std::panic::resume_unwind(e.into_panic()) },
        () = following => {}
    }
    // Its export blocks.
    let _ = tokio::task::spawn_blocking(move || tracer.finish()).await;
    Exit::Done
}

/// What takes part in the traces of events.
fn tracer(config: &Config) -> Result<Tracer, String> {
    match &config.trace_endpoint {
        None => Ok(Tracer::off()),
        #[cfg(feature = "otlp")]
        Some(endpoint) => Tracer::to(endpoint, &config.relay.name).map_err(|e| format!("trace.endpoint: {e}")),
        #[cfg(not(feature = "otlp"))]
        Some(_) => Err("trace.endpoint is set, and this outboxd was built without the feature otlp".into()),
    }
}

/// Serves the operator's seat in the background, if it is on.
fn serve_admin(config: &Config, metrics: Metrics) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(listen) = config.admin.listen else { return Ok(()) };
    let seat = |connections| -> Result<Seat, Box<dyn std::error::Error + Send + Sync>> {
        let pool = connect::pool(&pooled_settings(config)?, connections, config.database.connect_timeout)?;
        let secrets = Arc::new(config.secrets.clone());
        Ok(Seat::new(pool, config.admin.request_timeout, config.admin.session_idle, secrets))
    };
    admin::serve(listen, &config.admin, seat(config.admin.pool_size)?, seat(1)?, metrics)?;
    Ok(())
}

/// Brings the subscriptions of the configuration about, as soon as nobody's open transaction is in the way.
async fn in_step(config: &Config) -> Result<(), ReconcileError> {
    let direct = config.database.listen_settings().map_err(|e| DbError::Pool(e.to_string()))?;
    let client = connect::open_driven(&direct).await.map_err(|e| DbError::Pool(e.to_string()))?;
    let changes = loop {
        match reconcile::reconcile(&client, config, false).await {
            Err(e) if e.is_passing() => warn!(error = %e, "cannot reconcile yet; trying again"),
            done => break done?,
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    };
    for Change { action, subscription, detail } in changes {
        // Whoever takes a block away may not know that another host's file had it.
        if action == "paused" {
            warn!(subscription, action, detail, "reconciled");
        } else {
            info!(subscription, action, detail, "reconciled");
        }
    }
    seal_found(config, &client).await;
    Ok(())
}

/// Seals what the configuration, or SQL, has put into the database. What is left is sealed by the relay's ticks.
async fn seal_found(config: &Config, client: &tokio_postgres::Client) {
    if config.secrets.keyring.current().is_none() {
        return;
    }
    // In doubt the ticks will do it.
    if !matches!(seal::other_environment(config, client).await, Ok(None)) {
        return;
    }
    match secrets::seal_found(client, &config.secrets.keyring).await {
        Ok(0) => {}
        Ok(secrets) => info!(secrets, "sealed"),
        Err(e) => warn!(error = %e, "secrets could not be sealed yet"),
    }
}

/// Puts a relay together from its configuration, after seeing that the schema is the right one.
///
/// # Errors
/// If the database cannot be reached, has another schema, or the HTTP client cannot be set up.
pub async fn assemble(
    config: &Config,
    metrics: &Metrics,
    tracer: &Tracer,
) -> Result<Relay, Box<dyn std::error::Error + Send + Sync>> {
    let direct = config.database.listen_settings()?;
    schema::verify(&connect::open_driven(&direct).await?).await?;

    let db = database(config, metrics)?;
    let sender = sender(config)?;
    let settings = Settings {
        name: config.relay.name.as_str().into(),
        environment: config.relay.environment.as_str().into(),
        concurrency: config.relay.concurrency,
        max_in_flight: config.relay.max_in_flight,
        batch: config.relay.batch,
        max_payload_bytes_held: config.relay.max_payload_bytes_held,
        listen: config.relay.listen,
        poll_interval: config.relay.poll_interval,
        drain_deadline: config.relay.drain_deadline,
    };
    let secrets = Arc::new(config.secrets.clone());
    let endpoints = Endpoints::new(HeaderValue::from_str(&config.http.user_agent)?, sender.clone(), secrets);
    Ok(Relay::new(settings, direct, db, sender, endpoints, (metrics.clone(), tracer.clone())))
}

/// The relay's calls, over a pool of connections that are opened as they are needed.
pub(super) fn database(config: &Config, metrics: &Metrics) -> Result<Db, Box<dyn std::error::Error + Send + Sync>> {
    let pooled = pooled_settings(config)?;
    let pool = connect::pool(&pooled, config.database.pool_size, config.database.connect_timeout)?;
    Ok(Db::new(
        pool,
        config.database.statement_timeout + Duration::from_secs(5),
        !config.relay.synchronous_commit,
        metrics.clone(),
    ))
}

/// What requests go out through.
pub(super) fn sender(config: &Config) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
    let policy = egress::Policy::new(&config.egress.allow, &config.egress.deny, &config.egress.ports)?;
    let extra_roots_pem =
        config.http.ca_file.as_ref().map(std::fs::read).transpose().map_err(|e| format!("http.ca_file: {e}"))?;
    Ok(Sender::new(
        send::Settings {
            pool_idle_timeout: config.http.pool_idle_timeout,
            max_response_bytes: config.http.max_response_bytes,
            max_response_header_bytes: config.http.max_response_header_bytes,
            extra_roots_pem,
            http2: config.http.http2,
            http2_keep_alive_interval: config.http.http2_keep_alive_interval,
            name_servers: config.http.name_servers.clone(),
            proxy: config.http.proxy.clone(),
        },
        Arc::new(policy),
    )?)
}

/// How pooled connections are made.
fn pooled_settings(config: &Config) -> Result<ConnectSettings, ConnectError> {
    let mut pooled = config.database.connect_settings()?;
    if config.database.listen_url.is_none() {
        // A pooler would refuse the startup parameter; there the client's own limit has to do.
        let timeout_ms = config.database.statement_timeout.as_millis();
        let options = pooled.server.get_options().unwrap_or_default();
        let own = format!(
            "-c statement_timeout={timeout_ms} -c lock_timeout=0 -c idle_session_timeout=0 -c default_transaction_isolation=read\\ committed"
        );
        pooled.server.options(format!("{options} {own}").trim());
    }
    Ok(pooled)
}
