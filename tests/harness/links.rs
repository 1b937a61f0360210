//! The links between members, to be cut, stalled and slowed without any privilege.
//!
//! Each member advertises the address of a front of its own to the others. The front passes bytes on
//! to the real peer port and learns who is calling from the header by which members name themselves
//! (`X-Server-From`), so every link has a direction: what member 0 sends to member 1 can be held while
//! what member 1 sends to member 0 passes, whichever of the two opened the connection.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::ports::Port;

/// What happens to the bytes on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// They pass.
    #[default]
    Open,
    /// They wait until the link is open again, as behind a switch that drops every packet.
    Stalled,
    /// The connection is reset, and so is every new one. This concerns both directions.
    Refused,
    /// They pass after this long.
    Slow(Duration),
}

/// From a member to a member, by their places in the cluster.
type Way = (usize, usize);

#[derive(Clone, Debug, Default)]
struct State {
    /// Those that are not open.
    links: BTreeMap<Way, Link>,
    /// Places by member id.
    places: BTreeMap<u64, usize>,
}

impl State {
    /// What is done with bytes between the member behind a front and the one that called it.
    fn between(&self, owner: usize, caller: Option<u64>, inward: bool) -> Link {
        let caller = caller.and_then(|id| self.places.get(&id).copied());
        let concerns = |&(from, to): &Way| {
            let (near, far) = if inward { (to, from) } else { (from, to) };
            // Who has not named itself may be anybody.
            near == owner && caller.is_none_or(|caller| far == caller)
        };
        self.links.iter().find(|(way, _)| concerns(way)).map(|(_, link)| *link).unwrap_or_default()
    }
}

/// The fronts of a cluster's members.
#[derive(Debug)]
pub struct Links {
    state: watch::Sender<State>,
    /// Present until it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Links {
    /// Without fronts so far.
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("links")
            .enable_all()
            .build()?;
        Ok(Self { state: watch::Sender::default(), runtime: Some(runtime) })
    }

    /// Makes the front of the member at `place`, which really listens on `target`.
    pub(crate) fn add_front(&self, place: usize, front: &Port, target: &Port) -> Result<()> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, front.number()))?;
        listener.set_nonblocking(true)?;
        let (state, target) = (self.state.subscribe(), target.number());
        let runtime = self.runtime.as_ref().context("the links are there until they are dropped")?;
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(pass(caller, target, place, state.clone()));
            }
        });
        Ok(())
    }

    /// Tells which member an id belongs to. Until then its links are open.
    pub(crate) fn identify(&self, id: u64, place: usize) {
        self.state.send_modify(|state| {
            state.places.insert(id, place);
        });
    }

    /// Sets one direction of one link.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.state.send_modify(|state| match link {
            Link::Open => {
                state.links.remove(&(from, to));
            }
            other => {
                state.links.insert((from, to), other);
            }
        });
    }

    /// Sets both directions of one link.
    pub fn set_both(&self, one: usize, other: usize, link: Link) {
        self.set(one, other, link);
        self.set(other, one, link);
    }

    /// Sets all links between a member and the others of a cluster of `size`.
    pub fn set_around(&self, member: usize, size: usize, link: Link) {
        (0..size).filter(|other| *other != member).for_each(|other| self.set_both(member, other, link));
    }

    /// Opens all links.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.links.clear());
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // In the middle of a test's own runtime, where nothing may block.
            runtime.shutdown_background();
        }
    }
}

/// Passes one connection on, until one side or the link ends it.
async fn pass(caller: TcpStream, target: u16, owner: usize, state: watch::Receiver<State>) {
    let Ok(member) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    let _ = (caller.set_nodelay(true), member.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_member, to_member) = member.into_split();
    let name = Arc::new(OnceLock::new());
    let inward = Pump { owner, name: Arc::clone(&name), inward: true, state: state.clone() };
    let outward = Pump { owner, name: Arc::clone(&name), inward: false, state: state.clone() };
    tokio::select! {
        () = inward.run(from_caller, to_member) => {}
        () = outward.run(from_member, to_caller) => {}
        () = refusal(owner, &name, state) => {}
    }
}

/// Waits until the link between the two is refused.
async fn refusal(owner: usize, name: &OnceLock<u64>, mut state: watch::Receiver<State>) {
    let refused = |state: &State| {
        [true, false].map(|inward| state.between(owner, name.get().copied(), inward)).contains(&Link::Refused)
    };
    // The state goes with the links, and then this goes too.
    let _ = state.wait_for(refused).await;
}

/// One direction of one connection.
struct Pump {
    owner: usize,
    /// Of the caller, once it is known.
    name: Arc<OnceLock<u64>>,
    /// From the caller to the member behind the front.
    inward: bool,
    state: watch::Receiver<State>,
}

impl Pump {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        let mut head = Vec::new();
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if self.inward && self.name.get().is_none() {
                self.read_name(&mut head, &buffer[..length]);
            }
            if !self.may_pass().await || to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Looks for the header in what has come so far.
    fn read_name(&self, head: &mut Vec<u8>, more: &[u8]) {
        const HEADER: &[u8] = b"x-server-from:";
        /// Longer than any head of a request between members.
        const LONGEST: usize = 16 << 10;
        if head.len() > LONGEST {
            return;
        }
        head.extend_from_slice(more);
        let lower = head.to_ascii_lowercase();
        let Some(at) = lower.windows(HEADER.len()).position(|window| window == HEADER) else { return };
        let rest = String::from_utf8_lossy(&lower[at + HEADER.len()..]).into_owned();
        if let Some((value, _)) = rest.split_once("\r\n")
            && let Ok(id) = u64::from_str_radix(value.trim(), 16)
        {
            let _ = self.name.set(id);
        }
    }

    /// Waits as long as the link wants it to; whether there still is one.
    async fn may_pass(&mut self) -> bool {
        loop {
            let link =
                self.state.borrow_and_update().between(self.owner, self.name.get().copied(), self.inward);
            match link {
                Link::Open => return true,
                Link::Refused => return false,
                Link::Slow(by) => {
                    tokio::time::sleep(by).await;
                    return true;
                }
                Link::Stalled => {
                    if self.state.changed().await.is_err() {
                        return false;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Member 0 (id 0xa) calls member 1, which answers each byte with the same byte.
    struct Call {
        links: Links,
        stream: TcpStream,
        _ports: [Port; 2],
    }

    async fn call(head: &[u8]) -> Call {
        let ports = [Port::reserve().unwrap(), Port::reserve().unwrap()];
        let links = Links::new().unwrap();
        links.identify(0xa, 0);
        links.add_front(1, &ports[0], &ports[1]).unwrap();
        let member = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[1].number())).await.unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = member.accept().await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0].number())).await.unwrap();
        stream.write_all(head).await.unwrap();
        read(&mut stream, head.len()).await.unwrap();
        Call { links, stream, _ports: ports }
    }

    async fn read(stream: &mut TcpStream, length: usize) -> std::io::Result<()> {
        stream.read_exact(&mut vec![0; length]).await.map(drop)
    }

    /// Whether a byte comes back; not at once, where it must not.
    async fn echoes(call: &mut Call) -> bool {
        call.stream.write_all(b"x").await.unwrap();
        tokio::time::timeout(Duration::from_millis(100), read(&mut call.stream, 1)).await.is_ok()
    }

    const NAMED: &[u8] = b"GET /raft HTTP/1.1\r\nHost: b\r\nx-SERVER-from: a\r\n\r\n";

    #[tokio::test]
    async fn each_direction_is_stalled_by_itself_and_loses_nothing() {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut call = call(NAMED).await;
            assert!(echoes(&mut call).await);
            call.links.set(from, to, Link::Stalled);
            assert!(!echoes(&mut call).await, "{from} to {to} is stalled");
            call.links.heal();
            read(&mut call.stream, 1).await.unwrap();
            assert!(echoes(&mut call).await);
        }
    }

    #[tokio::test]
    async fn the_links_of_others_are_no_concern_of_those_who_named_themselves() {
        let mut named = call(NAMED).await;
        named.links.set_both(2, 1, Link::Stalled);
        assert!(echoes(&mut named).await);
        let mut unnamed = call(b"GET /version HTTP/1.1\r\n\r\n").await;
        unnamed.links.set_both(2, 1, Link::Stalled);
        assert!(!echoes(&mut unnamed).await, "it may be member 2");
    }

    #[tokio::test]
    async fn a_refused_link_ends_its_connections() {
        let mut call = call(NAMED).await;
        call.links.set_both(0, 1, Link::Refused);
        assert!(read(&mut call.stream, 1).await.is_err());
    }

    #[tokio::test]
    async fn a_slow_link_delays() {
        let mut call = call(NAMED).await;
        let begun = std::time::Instant::now();
        call.links.set(0, 1, Link::Slow(Duration::from_millis(50)));
        call.stream.write_all(b"x").await.unwrap();
        read(&mut call.stream, 1).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
