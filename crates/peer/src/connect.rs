//! The one place where connections to peers are made.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection as Pooled};
use hyper_util::rt::TokioIo;
use tls::{Socket, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep, timeout};

use crate::Settings;

/// How long a peer may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection, as hyper takes it.
pub(crate) type Connection = TokioIo<Impatient<Stream>>;

/// Where a peer is to be found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    is_secure: bool,
    place: Place,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A host, without brackets, and a port.
    Network(String, u16),
    /// A socket in the file system.
    File(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Network(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Network(host, port) => write!(f, "{host}:{port}"),
            Place::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Address {
    /// Of a URL `http://host:port` or `https://host:port`, whatever its path, or `unix://path` or `unixs://path`.
    pub(crate) fn of(url: &str) -> Result<Address, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url}: no scheme"))?;
        if let "unix" | "unixs" = scheme {
            return match rest {
                "" => Err(format!("{url}: no path")),
                path => Ok(Address { is_secure: scheme == "unixs", place: Place::File(path.into()) }),
            };
        }
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let (is_secure, usual) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(format!("{url}: only http, https, unix and unixs are spoken")),
        };
        let authority = uri.authority().map(Authority::host).filter(|host| !host.is_empty());
        let host = authority.ok_or_else(|| format!("{url}: no host"))?;
        // An IPv6 address stands in brackets in a URL, but not in what is resolved.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Address { is_secure, place: Place::Network(host, uri.port_u16().unwrap_or(usual)) })
    }

    /// What the Host header says.
    pub(crate) fn authority(&self) -> String {
        match &self.place {
            Place::Network(..) => self.to_string(),
            Place::File(_) => "localhost".to_owned(),
        }
    }

    /// Whose certificate is looked for there.
    fn host(&self) -> &str {
        match &self.place {
            Place::Network(host, _) => host,
            // As in `unixs://localhost:7`.
            Place::File(path) => {
                let name = path.to_str().and_then(|path| path.split_once(':'));
                name.map_or("localhost", |(name, _)| name)
            }
        }
    }
}

/// Dials, and has the peer prove who it is where that is asked for.
pub(crate) async fn connect(address: &Address, settings: &Settings) -> io::Result<Connection> {
    let stream = dial(address, &settings.tls, settings.dial_timeout).await?;
    Ok(TokioIo::new(Impatient::new(stream, settings.write_timeout)))
}

/// Dials; that may take so long, and the proof [`HANDSHAKE`].
pub(crate) async fn dial(address: &Address, tls: &tls::Client, limit: Duration) -> io::Result<Stream> {
    let dialed = timeout(limit, socket(&address.place)).await;
    let socket = dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if !address.is_secure {
        return Ok(Stream::Plain(socket));
    }
    let proved = timeout(HANDSHAKE, tls.connect(socket, address.host())).await;
    proved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn socket(place: &Place) -> io::Result<Socket> {
    match place {
        Place::Network(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // What is sent is put together beforehand: waiting to fill a segment only delays it.
            stream.set_nodelay(true)?;
            Ok(stream.into())
        }
        Place::File(path) => Ok(UnixStream::connect(path).await?.into()),
    }
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

impl Pooled for Impatient<Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
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
