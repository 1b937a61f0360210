//! Servers that the driver starts, and ends, itself.
//!
//! A started server is one member or a cluster of several. It has free ports on 127.0.0.1, data
//! directories of its own that go with it, and etcd's defaults for all else. Only processes started
//! here are ever ended, by their handle.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use rustix::process::{Pid, Signal, kill_process};
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
    /// How many members make one server.
    pub(crate) members: usize,
}

/// A running server that ends, with its data, when dropped.
pub(crate) struct Server {
    program: Program,
    home: TempDir,
    members: Vec<Member>,
}

struct Member {
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
    /// Starts `program` on empty directories and waits until every member answers a linearizable read.
    ///
    /// # Errors
    /// When it cannot be spawned, ends, or does not answer within a minute; the last lines of its log
    /// are part of the message.
    pub(crate) fn start(program: &Program) -> Result<Server> {
        let home = match &program.scratch {
            Some(dir) => TempDir::with_prefix_in("benches-", dir)?,
            None => TempDir::with_prefix("benches-")?,
        };
        let members = (0..program.members)
            .map(|_| Ok(Member { client: free_address()?, peer: free_address()?, child: None }))
            .collect::<Result<_>>()?;
        let mut server = Server { program: program.clone(), home, members };
        server.start_again(First::Read)?;
        Ok(server)
    }

    /// Where its members serve clients, the leader first: where a lone client connects must not be
    /// chance.
    ///
    /// # Errors
    /// When there is no leader within a minute.
    pub(crate) fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> = self.members.iter().map(|member| member.client).collect();
        if self.members.len() > 1 {
            addresses.swap(0, self.leader()?);
        }
        Ok(addresses)
    }

    /// Where one member serves clients.
    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        self.members[member].client
    }

    /// How many members there are.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// The member that all that run follow.
    ///
    /// # Errors
    /// When they do not agree within a minute.
    pub(crate) fn leader(&self) -> Result<usize> {
        let running = || self.members.iter().enumerate().filter(|(_, member)| member.child.is_some());
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            let told: Result<Vec<_>> = running().map(|(_, member)| converse(status(member.client))).collect();
            if let Ok(told) = told
                && let Some(&(_, leader, term)) = told.first()
                && told.iter().all(|&(_, other, at)| (other, at) == (leader, term))
                && let Some(at) = told.iter().position(|&(id, _, _)| id == leader)
                && let Some((place, _)) = running().nth(at)
            {
                return Ok(place);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the members do not follow one leader: {}", self.last_words(0))
    }

    /// How to look at it from outside.
    pub(crate) fn probe(&self) -> Probe {
        Probe {
            pids: self.members.iter().filter_map(|member| Some(member.child.as_ref()?.id())).collect(),
            data_dirs: (0..self.size()).map(|member| self.data_dir(member)).collect(),
        }
    }

    /// Ends all members without warning, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        (0..self.size()).for_each(|member| self.kill_member(member));
    }

    /// Ends one member in the same way; when this returns, its port is closed.
    pub(crate) fn kill_member(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            // Forgotten before it is waited for: from then on its id may be another's.
            interrupt::forget(child.id());
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends one member a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let child = self.members[member].child.as_ref().context("the member does not run")?;
        let pid = Pid::from_raw(child.id().try_into()?).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Whether a member has ended by itself, which frees its place for the next start.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn has_ended(&mut self, member: usize) -> Result<bool> {
        let Some(child) = &mut self.members[member].child else { return Ok(true) };
        if child.try_wait()?.is_none() {
            return Ok(false);
        }
        interrupt::forget(child.id());
        self.members[member].child = None;
        Ok(true)
    }

    /// Kills it if it runs and removes its data.
    ///
    /// # Errors
    /// When a directory cannot be removed.
    pub(crate) fn wipe(&mut self) -> Result<()> {
        self.kill();
        for data_dir in (0..self.size()).map(|member| self.data_dir(member)) {
            if data_dir.exists() {
                std::fs::remove_dir_all(data_dir)?;
            }
        }
        Ok(())
    }

    /// Starts all members on the data as it is; the time from the first spawn until all have answered.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_again(&mut self, first: First) -> Result<Duration> {
        self.kill();
        let begun = Instant::now();
        for member in 0..self.size() {
            self.spawn(member)?;
        }
        for member in 0..self.size() {
            self.await_answer(member, begun, first)?;
        }
        Ok(begun.elapsed())
    }

    /// Starts one member on its data and waits until it answers.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_member(&mut self, member: usize) -> Result<()> {
        let begun = Instant::now();
        self.spawn(member)?;
        self.await_answer(member, begun, First::Read)
    }

    fn await_answer(&mut self, member: usize, begun: Instant, first: First) -> Result<()> {
        while converse(ask(self.members[member].client, first)).is_err() {
            let child = self.members[member].child.as_mut();
            if let Some(status) = child.map(Child::try_wait).transpose()?.flatten() {
                bail!("the server ended with {status}: {}", self.last_words(member));
            }
            if begun.elapsed() > START_LIMIT {
                bail!("the server does not answer: {}", self.last_words(member));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn spawn(&mut self, member: usize) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log(member))?;
        let child = Command::new(&self.program.binary)
            .args(self.arguments(member))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.binary.display()))?;
        interrupt::remember(child.id(), self.home.path());
        self.members[member].child = Some(child);
        Ok(())
    }

    fn arguments(&self, member: usize) -> Vec<String> {
        let Member { client, peer, .. } = self.members[member];
        if self.program.flavor == Flavor::Bare {
            return vec!["bare".into(), format!("--listen={client}")];
        }
        let members = self.members.iter().enumerate();
        let cluster: Vec<String> =
            members.map(|(number, member)| format!("{}=http://{}", self.name(number), member.peer)).collect();
        vec![
            format!("--name={}", self.name(member)),
            format!("--data-dir={}", self.data_dir(member).display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={}", cluster.join(",")),
        ]
    }

    fn name(&self, member: usize) -> String {
        if self.size() == 1 { "default".to_owned() } else { format!("m{member}") }
    }

    fn data_dir(&self, member: usize) -> PathBuf {
        self.home.path().join(format!("data{member}"))
    }

    fn log(&self, member: usize) -> PathBuf {
        self.home.path().join(format!("log{member}"))
    }

    fn last_words(&self, member: usize) -> String {
        let log = std::fs::read_to_string(self.log(member)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a member says of itself: its id, its leader's, and the term.
async fn status(address: SocketAddr) -> Result<(u64, u64, u64)> {
    let asking = async {
        let mut maintenance = Connection::open(address).await?.maintenance();
        let answer = maintenance.status(StatusRequest {}).await?.into_inner();
        Ok((answer.header.map_or(0, |header| header.member_id), answer.leader, answer.raft_term))
    };
    tokio::time::timeout(Duration::from_secs(1), asking).await?
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

/// An address that nobody listened on a moment ago, and that the system gives to nobody's outgoing
/// connection while the member is down.
fn free_address() -> Result<SocketAddr> {
    const LOWEST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let port = LOWEST + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free")
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
        Program { binary: binary.into(), flavor: Flavor::Etcd, scratch: None, members: 1 }
    }

    #[test]
    fn free_addresses_differ_and_can_be_bound() {
        let (one, other) = (free_address().unwrap(), free_address().unwrap());
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
