//! Sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use tls::Listener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The sockets of a member.
#[derive(Default)]
pub struct Listeners {
    /// Where clients connect: for everything, or for gRPC alone if there is `http`.
    pub client: Vec<Listener>,
    /// Where clients connect for HTTP alone.
    pub http: Vec<Listener>,
    /// Where the other members connect.
    pub peer: Vec<Listener>,
}

/// Binds a socket and starts to listen.
pub fn bind(address: SocketAddr, reuse_address: bool, reuse_port: bool) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // As Go's listener: a port whose old connections linger can be bound again at once. It is not
    // what `--socket-reuse-address` means, but includes it.
    let _ = reuse_address;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
