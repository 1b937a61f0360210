//! Where others connect.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::{Door, Socket};

/// A socket that listens, and how those who connect to it are taken in.
pub struct Listener {
    bound: Bound,
    door: Door,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a socket, for as long as somebody listens at it.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, and the next one who wants to be there removes it else.
        let _ = fs::remove_file(&self.0);
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::tcp(listener, Door::plain())
    }
}

impl Listener {
    /// On a bound socket.
    pub fn tcp(listener: TcpListener, door: Door) -> Listener {
        Listener { bound: Bound::Tcp(listener), door }
    }

    /// At a path. The file that one who has not ended in order has left there is removed; and the new one when this
    /// ends. Who may connect is decided by the file's permissions, which are those of any new file.
    ///
    /// # Errors
    /// Somebody listens there, or something else is there, or it cannot be made.
    pub fn unix(path: &Path, door: Door) -> io::Result<Listener> {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        if is_socket
            && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        Ok(Listener { bound: Bound::Unix(listener, SocketFile(path.to_owned())), door })
    }

    /// Where it listens, on a network.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.bound {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Goes on on the current runtime.
    ///
    /// # Errors
    /// The runtime cannot take it.
    pub fn listen(self) -> io::Result<Listening> {
        let bound = match self.bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                On::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Bound::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                On::Unix(tokio::net::UnixListener::from_std(listener)?, file)
            }
        };
        Ok(Listening { bound, door: self.door })
    }
}

/// A [`Listener`] on a runtime.
pub struct Listening {
    bound: On,
    door: Door,
}

enum On {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, #[expect(dead_code, reason = "it is there to be dropped")] SocketFile),
}

impl Listening {
    /// Waits for the next one who connects.
    ///
    /// # Errors
    /// As accept(2); the next one may have more luck.
    pub async fn accept(&self) -> io::Result<Guest> {
        let way = match &self.bound {
            On::Tcp(listener) => Way::Tcp(listener.accept().await?.0.into_std()?),
            On::Unix(listener, _) => Way::Unix(listener.accept().await?.0.into_std()?),
        };
        Ok(Guest { way, door: self.door.clone() })
    }
}

/// Somebody who has connected, on the way to the thread that will serve them.
pub struct Guest {
    way: Way,
    door: Door,
}

enum Way {
    Tcp(std::net::TcpStream),
    Unix(UnixStream),
}

impl Guest {
    /// Goes on on the current runtime: the connection, and the door that it has to go through.
    ///
    /// # Errors
    /// The runtime cannot take it.
    pub fn settle(self) -> io::Result<(Socket, Door)> {
        let socket = match self.way {
            Way::Tcp(stream) => {
                // What is written is put together beforehand: waiting to fill a segment only delays it.
                let _ = stream.set_nodelay(true);
                Socket::Tcp(tokio::net::TcpStream::from_std(stream)?)
            }
            Way::Unix(stream) => Socket::Unix(tokio::net::UnixStream::from_std(stream)?),
        };
        Ok((socket, self.door))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_socket_that_was_left_makes_room_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bind = || Listener::unix(&path, Door::plain());
        let first = bind().unwrap();
        let refused = bind().err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "somebody listens there");
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
        // A process that was killed removes nothing.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind().unwrap());
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind().err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
