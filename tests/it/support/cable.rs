//! A cable between a relay and PostgreSQL that can be cut at the worst moment.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A TCP proxy. Once armed it lets the next statement that contains the text pass, waits for the server's
/// answer (so the statement is committed), and closes both ends instead of passing the answer on.
pub(crate) struct Cable {
    address: SocketAddr,
    armed: Arc<Mutex<Option<&'static str>>>,
}

impl Cable {
    /// In front of the server of that connection URL.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let armed = Arc::new(Mutex::new(None));
        let shared = armed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
                tokio::spawn(carry(client, server, shared.clone()));
            }
        });
        Self { address, armed }
    }

    /// The same URL through the cable.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }

    /// Cut when the answer to a statement with this text is on its way.
    pub(crate) fn cut_at(&self, text: &'static str) {
        *self.armed.lock().expect("no panic while arming") = Some(text);
    }

    /// Whether a cut is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.lock().expect("no panic while arming").is_some()
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, armed: Arc<Mutex<Option<&'static str>>>) {
    let (mut asked, mut answered) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut cut = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let mut armed = armed.lock().expect("no panic while arming").take_if(|text| {
                    asked[..length].windows(text.len()).any(|window| window == text.as_bytes())
                });
                cut |= armed.take().is_some();
                if server.write_all(&asked[..length]).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if cut { return }
                if client.write_all(&answered[..length]).await.is_err() { return }
            }
        }
    }
}
