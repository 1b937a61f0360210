//! Ports that stay free while a server is down.
//!
//! A port that the system hands out is also one that it gives to anybody's outgoing connection, so a
//! server that is restarted may find its own port taken. These ports lie below that range, and a
//! locked file tells other test processes which of them are in use.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

/// The lowest port that is tried; services of the machine mostly lie below.
const LOWEST: u32 = 10_000;

/// A port of 127.0.0.1 that no other test takes as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked; the lock goes with the process, however it ends.
    _lock: File,
}

impl Port {
    /// Reserves a port on which nobody listens.
    ///
    /// # Errors
    /// When there is none, or the directory of the lock files cannot be used.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = lock_directory()?;
        let ports = lowest_of_the_system().saturating_sub(LOWEST);
        // Each process begins elsewhere, so that lock files are seldom found taken.
        let first = std::process::id().wrapping_mul(97);
        for _ in 0..ports {
            let number = LOWEST + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports;
            let path = directory.join(number.to_string());
            let lock = File::options().create(true).truncate(false).write(true).open(&path);
            let lock = lock.with_context(|| format!("opening {}", path.display()))?;
            let number = u16::try_from(number)?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no port below {} is free", LOWEST + ports)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// What is served there, as a URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.number)
    }
}

fn lock_directory() -> Result<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let directory = std::env::temp_dir().join(format!("cairn-test-ports-{user}"));
    std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

/// Where the ports begin that the system hands out itself.
fn lowest_of_the_system() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|lowest| lowest.parse().ok());
    lowest.filter(|lowest| *lowest > LOWEST + 1_000).unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reserved_ports_differ_and_lie_below_those_of_the_system() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.iter().all(|&number| u32::from(number) < lowest_of_the_system()));
    }

    #[test]
    fn a_reserved_port_is_given_to_nobody_else() {
        let port = Port::reserve().unwrap();
        let path = lock_directory().unwrap().join(port.number().to_string());
        assert!(File::open(path).unwrap().try_lock().is_err());
    }
}
