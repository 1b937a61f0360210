//! What all tasks of the thread "peers" share, and the way in from other threads.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;
use parking_lot::RwLock;
use raft::{Body, Message};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::budget::Budget;
use crate::company::PATIENCE;
use crate::connect::Address;
use crate::events::Events;
use crate::framing::Kind;
use crate::link::Link;
use crate::settings::Settings;
use crate::{pipeline, probe, reader};

/// Peers outside of the cluster that are remembered: any caller can make one.
const MOST_REMOTES: usize = 128;

thread_local! {
    /// The hub whose thread this is.
    static ON_THREAD_OF: Cell<usize> = const { Cell::new(0) };
}

pub(crate) struct Hub {
    pub(crate) settings: Settings,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) runtime: Handle,
    /// What arrives and is not yet read.
    pub(crate) bodies: Budget,
    links: RwLock<BTreeMap<u64, Arc<Link>>>,
    /// Rung when there is something to send or to tell.
    bell: Notify,
    /// The bell has been rung and not yet been heard.
    rung: AtomicBool,
    /// Rung when a message waits for company and nobody looks after it.
    company: Notify,
    /// Somebody looks after messages that wait.
    looks: AtomicBool,
    /// Something has had to wait since that was last asked.
    waited: AtomicBool,
    stopping: AtomicBool,
    /// Rung when all is to stop.
    stopped: Notify,
}

impl Hub {
    pub(crate) fn new(settings: Settings, events: Arc<dyn Events>, runtime: Handle) -> Hub {
        Hub {
            settings,
            events,
            runtime,
            bodies: Budget::default(),
            links: RwLock::default(),
            bell: Notify::new(),
            rung: AtomicBool::new(false),
            company: Notify::new(),
            looks: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
        }
    }

    /// The life of the thread.
    pub(crate) async fn run(self: Arc<Self>) {
        // In a task of its own: the runtime looks at what it was started with only after a look at all
        // sockets.
        self.spawn(Arc::clone(&self).dispatch());
        self.spawn(Arc::clone(&self).look_after_waiting());
        self.stopped.notified().await;
    }

    // ------------------------------------------------------------ who there is

    pub(crate) fn link(&self, id: u64) -> Option<Arc<Link>> {
        self.links.read().get(&id).cloned()
    }

    /// A peer of the cluster.
    pub(crate) fn member(&self, id: u64) -> Option<Arc<Link>> {
        self.link(id).filter(|link| link.is_member)
    }

    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.read().values().cloned().collect()
    }

    /// Adds a member, or someone who may become one.
    pub(crate) fn add(self: &Arc<Self>, id: u64, urls: &[String], is_member: bool) {
        let addresses = addresses(id, urls);
        if id == self.settings.id || addresses.is_empty() || self.stopping.load(Ordering::Acquire) {
            return;
        }
        let mut links = self.links.write();
        let known = links.get(&id).map(|link| link.is_member);
        if known == Some(true) || (!is_member && (known.is_some() || links.len() >= MOST_REMOTES)) {
            return;
        }
        let link = Arc::new(Link::new(id, is_member, addresses));
        if let Some(remote) = links.insert(id, Arc::clone(&link)) {
            remote.close();
        }
        drop(links);
        let (id_text, urls) = (format!("{id:x}"), format!("{urls:?}"));
        if is_member {
            tracing::info!("remote-peer-id" = id_text, "remote-peer-urls" = urls, "added remote peer");
        } else {
            tracing::info!("remote-peer-id" = id_text, "remote-peer-urls" = urls, "added new remote peer");
        }
        if let Some(generation) = link.pipeline.attach() {
            link.own(self.spawn(pipeline::run(Arc::clone(self), Arc::clone(&link), generation)));
        }
        if is_member {
            for kind in Kind::ALL {
                link.own(self.spawn(reader::run(Arc::clone(self), Arc::clone(&link), kind)));
            }
            link.own(self.spawn(probe::run(Arc::clone(self), Arc::clone(&link))));
        }
    }

    pub(crate) fn update(&self, id: u64, urls: &[String]) {
        let addresses = addresses(id, urls);
        if let Some(link) = self.member(id).filter(|_| !addresses.is_empty()) {
            link.move_to(addresses);
            tracing::info!(
                "remote-peer-id" = format!("{id:x}"),
                "remote-peer-urls" = ?urls,
                "updated remote peer"
            );
        }
    }

    pub(crate) fn remove(&self, id: u64) {
        let removed = self.links.write().remove(&id);
        if let Some(link) = removed {
            link.close();
            tracing::info!("removed-remote-peer-id" = format!("{id:x}"), "removed remote peer");
        }
    }

    pub(crate) fn remove_all(&self) {
        let removed = std::mem::take(&mut *self.links.write());
        for link in removed.into_values() {
            link.close();
        }
    }

    // ------------------------------------------------------------ sending

    /// Queues messages and wakes the thread, once, if there is anything for it.
    pub(crate) fn send(&self, messages: Vec<Message>) {
        let (mut any, mut waits) = (false, false);
        // On the thread itself streams can be woken at once: they run when the caller is through.
        let here = ON_THREAD_OF.get() == self.address();
        let links = self.links.read();
        for message in messages {
            let Some(link) = links.get(&message.to.0) else { continue };
            if matches!(message.body, Body::Snapshot(_)) {
                tracing::error!("a snapshot message without a database cannot be sent");
                link.lose();
                any = true;
                continue;
            }
            let posted = link.post(message);
            any |= posted.lost || posted.queued && !here;
            waits |= posted.waits;
        }
        if here {
            links.values().for_each(|link| link.wake());
        }
        drop(links);
        if any {
            self.ring();
        }
        if waits {
            self.waited.store(true, Ordering::SeqCst);
            if !self.looks.swap(true, Ordering::SeqCst) {
                self.company.notify_one();
            }
        }
    }

    /// Sends what has waited for company for long enough. While something has to wait now and then, it
    /// looks by itself: being called for each message would cost more than the message.
    async fn look_after_waiting(self: Arc<Self>) {
        loop {
            self.company.notified().await;
            loop {
                tokio::time::sleep(PATIENCE).await;
                let now = Instant::now();
                let mut waits = false;
                for link in self.links.read().values() {
                    waits |= link.release(now);
                    link.wake();
                }
                if waits || self.waited.swap(false, Ordering::SeqCst) {
                    continue;
                }
                self.looks.store(false, Ordering::SeqCst);
                // Something may have come between the two.
                if !self.waited.load(Ordering::SeqCst) || self.looks.swap(true, Ordering::SeqCst) {
                    break;
                }
            }
        }
    }

    /// Something sent to this peer has been lost.
    pub(crate) fn lost(&self, link: &Link) {
        link.lose();
        self.ring();
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// What tells this hub from others.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Wakes those who have to send, and tells of what is lost, until all is to stop.
    pub(crate) async fn dispatch(self: Arc<Self>) {
        ON_THREAD_OF.set(self.address());
        let mut unreachable = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            self.bell.notified().await;
            self.rung.store(false, Ordering::Release);
            for link in self.links.read().values() {
                link.wake();
                if link.has_lost() {
                    unreachable.push(link.id);
                }
            }
            // Not under the lock: the callee may add or remove peers.
            for id in unreachable.drain(..) {
                self.events.unreachable(id);
            }
        }
    }

    // ------------------------------------------------------------ tasks

    /// Runs a task on the thread. One that panics is told to the member: a peer that nobody listens to
    /// any more must not be taken for a silent one.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let hub = Arc::clone(self);
        let guarded = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                hub.failed(panic.as_ref());
            }
        };
        self.runtime.spawn(guarded).abort_handle()
    }

    /// Tells of a panic.
    pub(crate) fn failed(&self, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        self.events.failed(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic"));
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.remove_all();
        self.bell.notify_one();
        self.stopped.notify_one();
    }
}

fn addresses(id: u64, urls: &[String]) -> Vec<Address> {
    let usable = |url: &String| {
        Address::of(url)
            .inspect_err(|error| tracing::warn!("remote-peer-id" = format!("{id:x}"), error, "unusable URL"))
            .ok()
    };
    urls.iter().filter_map(usable).collect()
}
