//! A connection of any kind.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use crate::certificate::Certificate;

/// A connection as the system knows it.
#[derive(Debug)]
pub enum Socket {
    /// Over a network.
    Tcp(TcpStream),
    /// Inside this machine.
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        Socket::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Socket {
        Socket::Unix(stream)
    }
}

impl Socket {
    /// Where the other side is, if it is anywhere.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// The first byte of what the other side has to say, which is left where it is; none if it has nothing to
    /// say any more.
    pub(crate) async fn peek(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let length = match self {
            Socket::Tcp(stream) => {
                stream.async_io(Interest::READABLE, || look(stream.as_fd(), &mut byte)).await?
            }
            Socket::Unix(stream) => {
                stream.async_io(Interest::READABLE, || look(stream.as_fd(), &mut byte)).await?
            }
        };
        Ok((length > 0).then_some(byte[0]))
    }
}

fn look(socket: BorrowedFd<'_>, byte: &mut [u8; 1]) -> io::Result<usize> {
    let (_, length) = rustix::net::recv(socket, byte.as_mut_slice(), RecvFlags::PEEK)?;
    Ok(length)
}

/// A connection, secured or not.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(Socket),
    /// Inside TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// Whether it is secured.
    pub fn is_secure(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Where the other side is, if it is anywhere.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Stream::Plain(socket) => socket.remote(),
            Stream::Tls(stream) => stream.get_ref().0.remote(),
        }
    }

    /// The common name in the certificate that the other side has proved to own, empty if it has none; nothing if
    /// it has shown no certificate.
    pub fn common_name(&self) -> Option<String> {
        let Stream::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates()?.first()?;
        Some(Certificate::read(shown).map(|certificate| certificate.common_name()).unwrap_or_default())
    }
}

macro_rules! each {
    ($kind:ident { $($case:ident),+ }, $self:expr, $stream:ident => $call:expr) => {
        match $self {
            $($kind::$case($stream) => $call,)+
        }
    };
}

macro_rules! forward {
    ($kind:ident { $($case:ident),+ }) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                each!($kind { $($case),+ }, self.get_mut(), s => Pin::new(s).poll_read(context, buffer))
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                each!($kind { $($case),+ }, self.get_mut(), s => Pin::new(s).poll_write(context, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                pieces: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!($kind { $($case),+ }, self.get_mut(), s => Pin::new(s).poll_write_vectored(context, pieces))
            }

            fn is_write_vectored(&self) -> bool {
                each!($kind { $($case),+ }, self, s => s.is_write_vectored())
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!($kind { $($case),+ }, self.get_mut(), s => Pin::new(s).poll_flush(context))
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!($kind { $($case),+ }, self.get_mut(), s => Pin::new(s).poll_shutdown(context))
            }
        }
    };
}

forward!(Socket { Tcp, Unix });
forward!(Stream { Plain, Tls });
