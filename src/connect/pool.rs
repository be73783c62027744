//! The pool of the statements' connections.

use super::{Canceller, ConnectError, Opened, Tls, hosts, tls};
use crate::config::ConnectSettings;
use deadpool::Runtime;
use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// Connections that are opened as they are needed and used again.
pub type Pool = managed::Pool<Connections>;

/// A connection of the pool, which goes back when it is dropped; taken out of it, it is closed.
pub type Object = managed::Object<Connections>;

/// A pool of `size` connections; a call waits for one as long as `wait`.
///
/// # Errors
/// If the certificates cannot be read.
pub fn pool(target: &ConnectSettings, size: usize, wait: Duration) -> Result<Pool, ConnectError> {
    let connections = Connections { target: target.clone(), tls: tls(&target.tls)? };
    let hosts = u32::try_from(hosts::count(&target.server)).unwrap_or(u32::MAX);
    Pool::builder(connections)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        // Each host has a limit of its own, and the last of them must be reached.
        .create_timeout(Some(wait.saturating_mul(hosts)))
        .build()
        .map_err(|e| ConnectError::Pool(e.to_string()))
}

/// How connections are made.
pub struct Connections {
    target: ConnectSettings,
    tls: Tls,
}

/// One connection, closed when it is dropped.
pub struct Pooled {
    client: Client,
    canceller: Canceller,
    driver: JoinHandle<()>,
    made_at: Instant,
}

impl Pooled {
    /// Stops its statements.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl managed::Manager for Connections {
    type Type = Pooled;
    type Error = ConnectError;

    async fn create(&self) -> Result<Pooled, ConnectError> {
        let made_at = Instant::now();
        let Opened { client, driver, canceller } = hosts::connect(&self.target, &self.tls).await?;
        let driver = tokio::spawn(async move {
            // Its end shows as an error of the client's next call.
            let _ = driver.await;
        });
        Ok(Pooled { client, canceller, driver, made_at })
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<ConnectError> {
        if pooled.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if self.target.history.was_left_since(pooled.made_at) {
            return Err(RecycleError::message("another primary has taken over since"));
        }
        Ok(())
    }
}

impl Deref for Pooled {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
