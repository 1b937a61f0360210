//! The one place where connections to peers are made.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// A connection, as hyper takes it.
pub(crate) type Connection = TokioIo<Impatient<TcpStream>>;

/// Where a peer is to be found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Address {
    /// Of a URL `http://host:port`, whatever its path.
    pub(crate) fn of(url: &str) -> Result<Address, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("{url}: only http is spoken"));
        }
        let authority = uri.authority().map(Authority::host).filter(|host| !host.is_empty());
        let host = authority.ok_or_else(|| format!("{url}: no host"))?.to_owned();
        Ok(Address { host, port: uri.port_u16().unwrap_or(80) })
    }

    /// What the Host header says.
    pub(crate) fn authority(&self) -> String {
        self.to_string()
    }
}

/// Dials. `dial`: how long that may take; `write`: how long the peer may take nothing.
pub(crate) async fn connect(address: &Address, dial: Duration, write: Duration) -> io::Result<Connection> {
    // An IPv6 address stands in brackets in a URL, but not in what is resolved.
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let dialed = timeout(dial, TcpStream::connect((host, address.port))).await;
    let stream = dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // What is sent is put together beforehand: waiting to fill a segment only delays it.
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(Impatient::new(stream, write)))
}

/// A connection that fails when the other side takes nothing for too long.
pub(crate) struct Impatient<T> {
    inner: T,
    limit: Duration,
    /// While a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<T: Unpin> Impatient<T> {
    pub(crate) fn new(inner: T, limit: Duration) -> Impatient<T> {
        Impatient { inner, limit, until: None }
    }

    fn write<R>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let written = write(Pin::new(&mut self.inner), context);
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let limit = self.limit;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(limit)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Impatient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Impatient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |inner, context| inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |inner, context| inner.poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(context, |inner, context| inner.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(context, |inner, context| inner.poll_shutdown(context))
    }
}
