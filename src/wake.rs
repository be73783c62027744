//! The doorbell: how a relay hears that something was committed, on the one direct connection.
//!
//! While a relay sleeps it holds the *door*, an advisory lock, exclusively; a producer's trigger that
//! cannot get the same lock in shared mode notifies (see `sql/functions/10_produce/ring.sql`). So a busy
//! relay costs a producer no NOTIFY, and nothing is missed, because of the order in which a relay goes
//! to sleep: it takes the door, looks at the log *once more*, and only then sleeps. A writer either
//! committed before the second look, or found the door taken and rang.
//!
//! Of several relays one has the *bell*, a second lock: it alone takes the door and is notified of
//! commits. The others are called by it when there is more than it has room for, and one of them takes
//! the bell over when its holder's session is gone.
//!
//! NOTIFY is a hint throughout. Polling finds everything, only later.
//!
//! The same session holds the advisory lock of the relay's epoch, which is what being alive means.

use crate::config::ConnectSettings;
use crate::connect::{self, Opened};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Client};

/// Class of the advisory locks of one database; the numbers under it follow. `outb` in ASCII.
/// 1 the door, 2 the bell, 3 expand, 4 fencing, 5 maintain, 6 migrate. SQL functions name them too.
const TRY_DOOR: &str = "select pg_try_advisory_lock(1869968482, 1)";
const LEAVE_DOOR: &str = "select pg_advisory_unlock(1869968482, 1)";
const TRY_BELL: &str = "select pg_try_advisory_lock(1869968482, 2)";
const LEAVE_BELL: &str = "select pg_advisory_unlock(1869968482, 2)";
/// What a role may be told for people's sessions, and this one is not meant by: it idles by design.
const UNLIMIT: [&str; 2] = [
    "set statement_timeout = 0",
    "select set_config(name, '0', false) from pg_settings where setting <> '0' and name in
        ('lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')",
];
const LISTEN_BELL: &str = "listen outbox_bell";
const UNLISTEN_BELL: &str = "unlisten outbox_bell";
const LISTEN_SIGNAL: &str = "listen outbox_signal";

/// What was heard since it was last asked. Any number of notifications of a kind are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// An event was committed while the door was taken.
    pub bell: bool,
    /// A delivery became due by an operator's hand or a relay's death.
    pub due: bool,
    /// A hold, a release or a setting.
    pub control: bool,
    /// The relay with the bell has more than it has room for.
    pub help: bool,
    /// The connection is gone, and with it door, bell and epoch.
    pub lost: bool,
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    notify: Notify,
}

impl Ear {
    fn hear(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }
}

/// The relay's direct connection.
pub struct Direct {
    client: Client,
    ear: Arc<Ear>,
    has_bell: bool,
    has_door: bool,
    listening: bool,
    /// The epoch this session keeps alive.
    pub epoch: i32,
}

/// What a relay says of itself when it registers.
pub struct Identity<'a> {
    /// Shown as `leased_by` and in the attempt log.
    pub name: &'a str,
    /// Must be the database's, or the relay holds.
    pub environment: &'a str,
}

impl Direct {
    /// Connects, listens, and takes up `previous` (the epoch before a lost connection, with all its
    /// leases) or begins a new one.
    ///
    /// # Errors
    /// If the database cannot be reached or refuses to register the relay.
    pub async fn open(
        target: &ConnectSettings,
        identity: &Identity<'_>,
        listen: bool,
        previous: Option<i32>,
    ) -> Result<Self, connect::ConnectError> {
        let Opened { client, driver: mut connection, .. } = connect::open(target).await?;
        let ear = Arc::new(Ear::default());
        let listener = ear.clone();
        tokio::spawn(async move {
            // Drained always: a notification nobody reads keeps the server's queue from being cut.
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(n) = message {
                    listener.hear(|heard| match (n.channel(), n.payload()) {
                        ("outbox_bell", _) => heard.bell = true,
                        (_, "due") => heard.due = true,
                        (_, "help") => heard.help = true,
                        _ => heard.control = true,
                    });
                }
            }
            listener.hear(|heard| heard.lost = true);
        });
        for unlimit in UNLIMIT {
            client.batch_execute(unlimit).await?;
        }
        // Listen before looking: what is notified from here on is heard.
        if listen {
            client.batch_execute(LISTEN_SIGNAL).await.map_err(connect::writing)?;
        }
        let epoch = match previous {
            Some(epoch) if client.query_one("select outbox_relay.resume_epoch($1)", &[&epoch]).await?.get(0) => epoch,
            _ => client
                .query_one(
                    "select outbox_relay.register($1, $2, $3)",
                    &[&identity.name, &env!("CARGO_PKG_VERSION"), &identity.environment],
                )
                .await
                .map_err(connect::writing)?
                .get(0),
        };
        let mut direct = Self { client, ear, has_bell: false, has_door: false, listening: listen, epoch };
        direct.try_bell().await?;
        Ok(direct)
    }

    /// Waits until something is heard, and returns it. Returns at once if something was heard before.
    pub async fn hear(&self) -> Heard {
        loop {
            let heard = std::mem::take(&mut *self.ear.heard.lock().unwrap_or_else(PoisonError::into_inner));
            if heard != Heard::default() {
                return heard;
            }
            self.ear.notify.notified().await;
        }
    }

    /// Takes the bell if nobody has it; asked again once a second. Without LISTEN there is no bell to take.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn try_bell(&mut self) -> Result<bool, tokio_postgres::Error> {
        if self.listening && !self.has_bell && self.client.query_one(TRY_BELL, &[]).await?.get(0) {
            self.client.batch_execute(LISTEN_BELL).await?;
            self.has_bell = true;
        }
        Ok(self.has_bell)
    }

    /// Whether this relay is the one that is rung for.
    pub fn has_bell(&self) -> bool {
        self.has_bell
    }

    /// Whether producers ring.
    pub fn has_door(&self) -> bool {
        self.has_door
    }

    /// Tries to take the door. Not while a producer's transaction that inserted is open. Afterwards look
    /// at the log once more before sleeping.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn try_door(&mut self) -> Result<bool, tokio_postgres::Error> {
        if !self.has_door {
            self.has_door = self.client.query_one(TRY_DOOR, &[]).await?.get(0);
        }
        Ok(self.has_door)
    }

    /// Leaves the door: producers no longer ring.
    ///
    /// # Errors
    /// If the connection is gone (and the door with it).
    pub async fn leave_door(&mut self) -> Result<(), tokio_postgres::Error> {
        if self.has_door {
            self.has_door = false;
            self.client.batch_execute(LEAVE_DOOR).await?;
        }
        Ok(())
    }

    /// Lets go of everything but the epoch: another session is to hear, and to hold door and bell.
    ///
    /// # Errors
    /// If the connection is gone (and the epoch with it).
    pub async fn step_down(&mut self) -> Result<(), tokio_postgres::Error> {
        self.leave_bell().await?;
        self.listening = false;
        self.client.batch_execute("unlisten *").await
    }

    /// Leaves the bell, and the door with it, to another relay: this one would not act when it is rung.
    ///
    /// # Errors
    /// If the connection is gone (and the bell with it).
    pub async fn leave_bell(&mut self) -> Result<(), tokio_postgres::Error> {
        self.leave_door().await?;
        if self.has_bell {
            self.has_bell = false;
            self.client.batch_execute(UNLISTEN_BELL).await?;
            self.client.batch_execute(LEAVE_BELL).await?;
        }
        Ok(())
    }
}
