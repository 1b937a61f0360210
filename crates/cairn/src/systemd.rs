//! Tells the service manager how far the member is: systemd's `Type=notify`.
//!
//! The manager names a datagram socket in `NOTIFY_SOCKET`, as a path or, behind an `@`, in Linux's abstract
//! namespace. Without the variable nobody waits to be told. `WATCHDOG=1` is never sent: a thread that sends it
//! would show that it runs itself, and nothing of what clients get. Whether they get answers, `/livez` and
//! `/readyz` tell.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a manager that reads nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Clients are served, and the cluster knows the member.
pub(crate) fn ready() {
    match tell("READY=1") {
        Ok(true) => tracing::info!("successfully notified init daemon"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to notify systemd for readiness"
            );
        }
    }
}

/// The member ends by intent.
pub(crate) fn stopping() {
    // The manager will see the process end anyway.
    let _ = tell("STOPPING=1");
}

/// Whether there was somebody to tell.
fn tell(state: &str) -> io::Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) {
        Some(socket) => send(&socket, state).map(|()| true),
        None => Ok(false),
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => abstract_address(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => {
            let words = format!("NOTIFY_SOCKET={} is neither a path nor abstract", socket.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(PATIENCE))?;
    loop {
        match datagram.send_to_addr(state.as_bytes(), &address) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|_| ()),
        }
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets are Linux's"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn heard(by: &UnixDatagram) -> String {
        by.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 64];
        let length = by.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_with_a_path_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(heard(&manager), "READY=1");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_told() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("cairn-notify-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(heard(&manager), "STOPPING=1");
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        assert_eq!(send(OsStr::new("vsock:2:1"), "x").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(OsStr::new("/nonexistent/s"), "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_manager_that_reads_nothing_is_not_waited_for_forever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        // Any system's queue is shorter than that.
        let full = (0..100_000).find_map(|_| send(path.as_os_str(), "READY=1").err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
