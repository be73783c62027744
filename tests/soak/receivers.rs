//! The receiving end: one good server with several tempers, and an address where nobody listens.

use crate::SoakError;
use crate::ledger::Ledger;
use crate::wishes::{Temper, WISHES};
use crate::writers::number_of;
use hyper::StatusCode;
use outboxd::receiver::{self, Arrived, Reply, Verdict};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpSocket};

/// Longer than the subscription's timeout.
const HANGS: Duration = Duration::from_secs(5);

pub(crate) struct Receivers {
    pub(crate) live: SocketAddr,
    pub(crate) dead: SocketAddr,
    listener: TcpListener,
    /// Bound and never listening: its port is nobody else's, and whoever calls is refused.
    reserved: TcpSocket,
}

/// Those that were turned away and are to come again.
type TurnedAway = Arc<Mutex<HashSet<(usize, u32)>>>;

impl Receivers {
    pub(crate) async fn open() -> Result<Self, SoakError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let reserved = TcpSocket::new_v4()?;
        reserved.bind(([127, 0, 0, 1], 0).into())?;
        Ok(Self { live: listener.local_addr()?, dead: reserved.local_addr()?, listener, reserved })
    }

    /// Serves for good; `secrets` are those of [`WISHES`].
    pub(crate) async fn serve(self, ledger: Arc<Ledger>, secrets: Vec<String>) {
        let (turned_away, secrets) = (TurnedAway::default(), Arc::new(secrets));
        let _reserved = self.reserved;
        let handle = move |arrived: Arrived| std::future::ready(answer(&arrived, &ledger, &secrets, &turned_away));
        receiver::serve(self.listener, handle).await;
    }
}

fn answer(arrived: &Arrived, ledger: &Ledger, secrets: &[String], turned_away: &TurnedAway) -> Reply {
    let Some(wish) = WISHES.iter().position(|wish| wish.path == arrived.path) else {
        return Reply::now(StatusCode::NOT_FOUND);
    };
    if receiver::verify(arrived, &secrets[wish..=wish], None, SystemTime::now()) != Verdict::Verified(0) {
        ledger.refuse();
        return Reply::now(StatusCode::UNAUTHORIZED);
    }
    let number = number_of(arrived.event_id());
    let key = (wish, number.unwrap_or_default());
    let one_in = match WISHES[wish].temper {
        Temper::Flaky => 10,
        Temper::Hangs => 100,
        Temper::Good | Temper::Dead => 0,
    };
    let mut turned_away = turned_away.lock().unwrap_or_else(PoisonError::into_inner);
    if one_in > 0 && key.1.wrapping_mul(2_654_435_761).is_multiple_of(one_in) && !turned_away.remove(&key) {
        turned_away.insert(key);
        let delay = if WISHES[wish].temper == Temper::Hangs { HANGS } else { Duration::ZERO };
        return Reply { status: StatusCode::SERVICE_UNAVAILABLE, delay };
    }
    ledger.receive(number, wish);
    Reply::now(StatusCode::OK)
}
