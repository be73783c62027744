//! Asking a server to stop a statement.
//!
//! tokio-postgres closes the connection of such a request as soon as it is written. PostgreSQL has it by then, but a
//! pooler has yet to pass it on, and PgBouncer drops a request whose client is gone. libpq waits until the other end
//! closes the connection, and so does this.

use super::{CONNECT_TIMEOUT, ConnectError, Tls};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config};

/// How the statements of one connection are stopped.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    /// The one address that the connection goes to.
    at: Config,
    /// A request goes encrypted if the connection does.
    tls: Tls,
}

impl Canceller {
    pub(super) fn new(client: &Client, at: Config, tls: Tls) -> Self {
        Self { token: client.cancel_token(), at, tls }
    }

    /// Asks the server to stop what the connection does now, and returns when the request has been passed on. Whether it
    /// came in time only the statement's result tells. Not to be given up halfway: PgBouncer 1.18 ends itself if who
    /// cancels hangs up before it does.
    ///
    /// # Errors
    /// If the server cannot be reached in the time that a connection has.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let limit = self.at.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        timeout(limit, self.ask()).await.map_err(|_| ConnectError::Silent(limit))?
    }

    async fn ask(&self) -> Result<(), ConnectError> {
        let port = self.at.get_ports().first().copied().unwrap_or(5432);
        match (self.at.get_hosts().first(), self.at.get_hostaddrs().first()) {
            (Some(Host::Unix(directory)), _) => {
                let socket = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await;
                self.send(socket.map_err(ConnectError::Cancel)?, "").await
            }
            (Some(Host::Tcp(name)), None) => {
                let socket = TcpStream::connect((name.as_str(), port)).await;
                self.send(socket.map_err(ConnectError::Cancel)?, name).await
            }
            (named, Some(address)) => {
                let name = if let Some(Host::Tcp(name)) = named { name.as_str() } else { "" };
                let socket = TcpStream::connect((*address, port)).await;
                self.send(socket.map_err(ConnectError::Cancel)?, name).await
            }
            (None, None) => Ok(()),
        }
    }

    async fn send<S>(&self, socket: S, name: &str) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tls = MakeTlsConnect::<UntilClosed<S>>::make_tls_connect(&mut self.tls.clone(), name)
            .map_err(|e| ConnectError::Certificates(e.to_string()))?;
        Ok(self.token.cancel_query_raw(UntilClosed(socket), tls).await?)
    }
}

/// Is shut down when the other end has closed it.
struct UntilClosed<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for UntilClosed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for UntilClosed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut scratch = [0; 64];
            let mut unread = ReadBuf::new(&mut scratch);
            // It may be closed with what it has not read, which is an error here and as good as its end.
            let end = ready!(Pin::new(&mut self.0).poll_read(cx, &mut unread)).is_err() || unread.filled().is_empty();
            if end {
                return Pin::new(&mut self.0).poll_shutdown(cx).map(|_| Ok(()));
            }
        }
    }
}
