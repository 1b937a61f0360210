//! Servers that the driver starts, and ends, itself.
//!
//! A started server has free ports on 127.0.0.1, a data directory of its own that goes with it, and
//! etcd's defaults for all else. Only processes started here are ever ended, by their handle.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::etcdserverpb::{PutRequest, RangeRequest};
use tempfile::TempDir;

use crate::client::{Connection, converse};
use crate::interrupt;
use crate::procfs::Probe;

/// A server that has not answered by then is taken for dead.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What kind of server a binary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// etcd, or anything with its flags.
    Etcd,
    /// This driver's own bare service.
    Bare,
}

/// A binary and how to start it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The executable.
    pub(crate) binary: PathBuf,
    /// Its kind of command line.
    pub(crate) flavor: Flavor,
    /// Where data directories go; the system's temporary directory when absent.
    pub(crate) scratch: Option<PathBuf>,
}

/// A running server that ends, with its data, when dropped.
pub(crate) struct Server {
    program: Program,
    home: TempDir,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

/// The first request that a start is timed to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum First {
    /// A linearizable read.
    Read,
    /// A put.
    Put,
}

impl Server {
    /// Starts `program` on an empty directory and waits until it answers a linearizable read.
    ///
    /// # Errors
    /// When it cannot be spawned, ends, or does not answer within a minute; the last lines of its log
    /// are part of the message.
    pub(crate) fn start(program: &Program) -> Result<Server> {
        let home = match &program.scratch {
            Some(dir) => TempDir::with_prefix_in("benches-", dir)?,
            None => TempDir::with_prefix("benches-")?,
        };
        let (client, peer) = free_addresses()?;
        let mut server = Server { program: program.clone(), home, client, peer, child: None };
        server.start_again(First::Read)?;
        Ok(server)
    }

    /// Where it serves clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.client
    }

    /// How to look at it from outside.
    pub(crate) fn probe(&self) -> Probe {
        Probe { pid: self.child.as_ref().map(Child::id), data_dir: Some(self.data_dir()) }
    }

    /// Ends it without warning, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Forgotten before it is waited for: from then on its id may be another's.
            interrupt::forget(child.id());
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it if it runs and removes its data.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub(crate) fn wipe(&mut self) -> Result<()> {
        self.kill();
        let data_dir = self.data_dir();
        if data_dir.exists() {
            std::fs::remove_dir_all(data_dir)?;
        }
        Ok(())
    }

    /// Starts it on the data directory as it is; the time from the spawn to the first answer.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_again(&mut self, first: First) -> Result<Duration> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.log())?;
        let begun = Instant::now();
        let child = Command::new(&self.program.binary)
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.binary.display()))?;
        interrupt::remember(child.id(), self.home.path());
        self.child = Some(child);
        while converse(ask(self.client, first)).is_err() {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the server ended with {status}: {}", self.last_words());
            }
            if begun.elapsed() > START_LIMIT {
                bail!("the server does not answer: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(begun.elapsed())
    }

    fn arguments(&self) -> Vec<String> {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        match self.program.flavor {
            Flavor::Bare => vec!["bare".into(), format!("--listen={}", self.client)],
            Flavor::Etcd => vec![
                "--name=default".into(),
                format!("--data-dir={}", self.data_dir().display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ],
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends the first request once, giving up after a second.
async fn ask(address: SocketAddr, first: First) -> Result<()> {
    let asking = async {
        let mut kv = Connection::open(address).await?.kv();
        let key = bytes::Bytes::from_static(b"benches/first");
        match first {
            First::Read => drop(kv.range(RangeRequest { key, ..Default::default() }).await?),
            First::Put => {
                drop(kv.put(PutRequest { key: key.clone(), value: key, ..Default::default() }).await?);
            }
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(1), asking).await?
}

/// Two addresses that nobody listened on a moment ago.
fn free_addresses() -> Result<(SocketAddr, SocketAddr)> {
    let (one, other) =
        (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    Ok((one.local_addr()?, other.local_addr()?))
}

/// What a binary's `--version` prints first, and the line with which Cairn adds its own version.
pub(crate) fn version(binary: &Path) -> Option<String> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = text.lines().skip(1).find(|line| line.to_lowercase().starts_with("cairn"));
    Some(text.lines().take(1).chain(own).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn program(binary: &str) -> Program {
        Program { binary: binary.into(), flavor: Flavor::Etcd, scratch: None }
    }

    #[test]
    fn free_addresses_differ_and_can_be_bound() {
        let (one, other) = free_addresses().unwrap();
        assert_ne!(one, other);
        TcpListener::bind(one).unwrap();
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_and_not_a_wait() {
        let error = Server::start(&program("/bin/false")).err().unwrap();
        assert!(error.to_string().contains("ended with"), "{error}");
    }

    #[test]
    fn a_missing_binary_is_named() {
        let error = Server::start(&program("/nonexistent/etcd")).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/etcd"), "{error}");
    }
}
