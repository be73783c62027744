//! A wire that can be cut, delayed, and left half open: a TCP proxy in this process.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

/// What a wire does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Carries,
    /// Each piece comes that much later.
    Delays(Duration),
    /// Takes everything and passes nothing on.
    Swallows,
}

#[derive(Clone, Copy)]
struct State {
    mode: Mode,
    /// Connections of an earlier generation have been cut.
    generation: u64,
}

/// From a port of its own to one address.
pub(crate) struct Wire {
    /// Held by who does something to it: what was swallowed must not be followed by what comes later.
    pub(crate) turn: Mutex<()>,
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (state, watched) = watch::channel(State { mode: Mode::Carries, generation: 0 });
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, target, watched.clone()));
            }
        });
        Self { turn: Mutex::new(()), address, state }
    }

    /// Where to connect instead.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn delay(&self, by: Duration) {
        self.state.send_modify(|state| state.mode = Mode::Delays(by));
    }

    pub(crate) fn swallow(&self) {
        self.state.send_modify(|state| state.mode = Mode::Swallows);
    }

    pub(crate) fn mend(&self) {
        self.state.send_modify(|state| state.mode = Mode::Carries);
    }

    /// Resets every connection there is, and carries what comes.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::Carries, generation: state.generation + 1 });
    }
}

async fn connect(near: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let generation = state.borrow_and_update().generation;
    // Nobody there: the near end is closed, as a server that is gone would.
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
        // Cut means a reset, not an orderly end.
        let _ = stream.set_zero_linger();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (there, back) = (carry(near_in, far_out, state.clone()), carry(far_in, near_out, state.clone()));
    let is_cut = async move { state.wait_for(|state| state.generation != generation).await.map(drop) };
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = is_cut => {}
    }
}

/// Ends when either end does: the other direction is of no use then.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let mode = state.borrow().mode;
        match mode {
            Mode::Carries => {}
            Mode::Delays(by) => sleep(by).await,
            Mode::Swallows => continue,
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
