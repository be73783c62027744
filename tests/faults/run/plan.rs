//! What happens in a run: drawn from its seed, before anything happens, so that the seed brings the same again.

use fastrand::Rng;
use std::time::Duration;

/// How long what must happen at last may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Relays of a run.
pub(crate) const RELAYS: usize = 3;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL of a relay; another takes its name after a while.
    RelayKilled,
    /// SIGSTOP of a relay, and SIGCONT.
    RelayStopped,
    /// SIGTERM of a relay: it drains.
    RelayTerminated,
    /// SIGKILL of the postmaster.
    ServerKilled,
    /// An immediate shutdown, and a start.
    ServerRestarted,
    /// SIGSTOP of all of the server's processes, and SIGCONT.
    ServerStopped,
    /// `pg_terminate_backend` of some of the relays' sessions.
    BackendsTerminated,
    /// All connections between one relay and the server are reset.
    DatabaseCut,
    /// What they carry comes late.
    DatabaseDelayed,
    /// They carry nothing, and nobody is told; then they are reset.
    DatabaseHalfOpen,
    /// The same three between the relays and the receivers.
    ReceiverCut,
    ReceiverDelayed,
    ReceiverHalfOpen,
    /// The answers move: 500, 429, 302, none at all.
    AnswersMove,
    /// Every connection of the pools waits for a lock.
    PoolFilled,
    /// A transaction that has written an event stays open, and then commits or rolls back.
    WriterOpen,
    /// A snapshot is held, without a transaction id.
    SnapshotHeld,
    /// Tables of the application are made, changed, rewritten and dropped.
    BystandersChanged,
}

impl Kind {
    pub(crate) const ALL: [Self; 18] = [
        Self::RelayKilled,
        Self::RelayStopped,
        Self::RelayTerminated,
        Self::ServerKilled,
        Self::ServerRestarted,
        Self::ServerStopped,
        Self::BackendsTerminated,
        Self::DatabaseCut,
        Self::DatabaseDelayed,
        Self::DatabaseHalfOpen,
        Self::ReceiverCut,
        Self::ReceiverDelayed,
        Self::ReceiverHalfOpen,
        Self::AnswersMove,
        Self::PoolFilled,
        Self::WriterOpen,
        Self::SnapshotHeld,
        Self::BystandersChanged,
    ];

    /// As reports and `--only` have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RelayKilled => "relay-killed",
            Self::RelayStopped => "relay-stopped",
            Self::RelayTerminated => "relay-terminated",
            Self::ServerKilled => "server-killed",
            Self::ServerRestarted => "server-restarted",
            Self::ServerStopped => "server-stopped",
            Self::BackendsTerminated => "backends-terminated",
            Self::DatabaseCut => "database-cut",
            Self::DatabaseDelayed => "database-delayed",
            Self::DatabaseHalfOpen => "database-half-open",
            Self::ReceiverCut => "receiver-cut",
            Self::ReceiverDelayed => "receiver-delayed",
            Self::ReceiverHalfOpen => "receiver-half-open",
            Self::AnswersMove => "answers-move",
            Self::PoolFilled => "pool-filled",
            Self::WriterOpen => "writer-open",
            Self::SnapshotHeld => "snapshot-held",
            Self::BystandersChanged => "bystanders-changed",
        }
    }

    /// Whether a receiver may get again what it has accepted: the request was out, or its result not recorded.
    pub(crate) fn may_send_twice(self) -> bool {
        match self {
            Self::RelayKilled
            | Self::RelayStopped
            | Self::ServerKilled
            | Self::ServerRestarted
            | Self::ServerStopped
            | Self::BackendsTerminated
            | Self::DatabaseCut
            | Self::DatabaseHalfOpen
            | Self::ReceiverCut
            | Self::ReceiverHalfOpen => true,
            Self::RelayTerminated
            | Self::DatabaseDelayed
            | Self::ReceiverDelayed
            | Self::AnswersMove
            | Self::PoolFilled
            | Self::WriterOpen
            | Self::SnapshotHeld
            | Self::BystandersChanged => false,
        }
    }

    /// Whether a relay may be fenced that has a result to tell, or has one on its way: that is logged, and the delivery is
    /// made again.
    pub(crate) fn may_record_twice(self) -> bool {
        self.may_send_twice() && !matches!(self, Self::ReceiverCut | Self::ReceiverHalfOpen)
    }

    /// Whether it befalls one relay and no other.
    pub(crate) fn is_one_relays(self) -> bool {
        matches!(
            self,
            Self::RelayKilled
                | Self::RelayStopped
                | Self::RelayTerminated
                | Self::DatabaseCut
                | Self::DatabaseDelayed
                | Self::DatabaseHalfOpen
        )
    }

    /// How long it lasts, in milliseconds: from, to.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::RelayKilled | Self::RelayTerminated | Self::ServerKilled => (0, 600),
            Self::RelayStopped | Self::ServerStopped => (200, 3000),
            // As long as it takes.
            Self::ServerRestarted | Self::BackendsTerminated | Self::DatabaseCut | Self::ReceiverCut => (0, 1),
            Self::DatabaseDelayed | Self::ReceiverDelayed | Self::PoolFilled => (300, 1500),
            Self::ReceiverHalfOpen => (500, 3000),
            // Longer than a relay waits for its direct connection, too.
            Self::DatabaseHalfOpen => (500, 8000),
            Self::AnswersMove | Self::WriterOpen | Self::SnapshotHeld => (300, 2000),
            Self::BystandersChanged => (200, 800),
        }
    }
}

/// A fault of a run.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// After the one before it was begun, or, in turn, was over and made good.
    pub(crate) after: Duration,
    pub(crate) lasts: Duration,
    /// Which relay, if it is one relay's.
    pub(crate) relay: usize,
    /// For whatever else is to be decided.
    pub(crate) seed: u64,
}

/// How the faults follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One after the other, each when what was committed until the last one's end has arrived: recovery is measured.
    InTurn,
    /// Whenever: several at once.
    AtOnce,
}

/// All that is to happen in a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) order: Order,
    pub(crate) faults: Vec<Fault>,
    /// Whether the relays listen, or poll alone.
    pub(crate) listen: bool,
    pub(crate) writers: usize,
    /// Statements that break the promise, before anything happens and before the books are compared: whether that is
    /// noticed.
    pub(crate) sabotage: (&'static str, &'static str),
    /// How long what must happen at last may take.
    pub(crate) patience: Duration,
}

impl Plan {
    /// Of every eight runs four have their faults in turn and four at once; one of each kind of order has none that may
    /// send anything twice: there a duplicate has no excuse.
    pub(crate) fn new(seed: u64, faults: usize, only: &[Kind]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let order = if seed.is_multiple_of(2) { Order::InTurn } else { Order::AtOnce };
        let harmless = seed % 8 < 2;
        let kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| if only.is_empty() { !harmless || !kind.may_send_twice() } else { only.contains(kind) })
            .collect();
        let faults = (0..faults)
            .map(|_| {
                let kind = kinds[rng.usize(..kinds.len())];
                let (least, most) = kind.lasts_ms();
                Fault {
                    kind,
                    after: Duration::from_millis(rng.u64(50..700)),
                    lasts: Duration::from_millis(rng.u64(least..=most)),
                    relay: rng.usize(..RELAYS),
                    seed: rng.u64(..),
                }
            })
            .collect();
        Self {
            seed,
            order,
            faults,
            listen: rng.u8(..5) > 0,
            writers: rng.usize(2..=6),
            sabotage: ("", ""),
            patience: PATIENCE,
        }
    }
}
