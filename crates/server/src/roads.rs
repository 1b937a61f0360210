//! Peers and the member: what the peers' thread tells, and who the peers are.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use apply::{Cluster, Member as Other};
use node::Input;
use peer::{Events, Measured, Peers, Receipt, Settings};
use raft::{Message, NodeId};
use tokio::sync::mpsc;

use crate::member::Member;
use crate::metrics::ETCD_VERSION;
use crate::run::ThreadFailure;

/// The oldest version of a member that may take part (etcd's number).
const MIN_CLUSTER_VERSION: &str = "3.0.0";

/// The member, as its peers' thread knows it.
pub(crate) struct Ears {
    member: Weak<Member>,
    failures: mpsc::UnboundedSender<ThreadFailure>,
}

impl Ears {
    fn member(&self) -> Option<Arc<Member>> {
        self.member.upgrade()
    }

    fn tell(&self, news: Input) {
        if let Some(member) = self.member() {
            member.inbox().of_peer(news);
            member.drive();
        }
    }
}

impl Events for Ears {
    /// One batch is one turn of raft, on the thread that brought it.
    fn receive(&self, messages: &mut Vec<Message>) {
        let Some(member) = self.member() else { return };
        let dropped = member.inbox().receive(messages);
        if dropped > 0 {
            tracing::warn!(dropped, "dropped messages of other members: too many wait");
        }
        member.drive();
    }

    fn receive_snapshot(&self, message: Message, file: PathBuf, receipt: Receipt) {
        if let Some(member) = self.member() {
            member.snapshots().receive(&member, message, file, receipt);
        }
    }

    fn is_removed(&self, id: u64) -> bool {
        self.member().is_some_and(|member| member.cluster().removed.contains(&id))
    }

    fn unreachable(&self, id: u64) {
        self.tell(Input::Unreachable(NodeId(id)));
    }

    fn gone(&self, id: u64) {
        self.tell(Input::LeaderGone(NodeId(id)));
    }

    fn snapshot_sent(&self, to: u64, arrived: bool) {
        if let Some(member) = self.member() {
            member.snapshots().sent(&member, NodeId(to), arrived);
        }
    }

    fn removed_here(&self) {
        if let Some(member) = self.member() {
            member.is_removed();
        }
    }

    /// Raft may be broken: without it the member must not go on.
    fn failed(&self, cause: &str) {
        // Nobody listens any more once the process is on its way out.
        let _ = self.failures.send(ThreadFailure { thread: "peers".to_owned(), cause: cause.to_owned() });
    }

    fn measured(&self, id: u64, what: Measured) {
        if let Some(member) = self.member() {
            member.metrics().peer_times().observe(id, what);
        }
    }
}

/// Starts the peers' thread. Nobody is known to it yet.
pub(crate) fn start(
    member: &Arc<Member>,
    failures: mpsc::UnboundedSender<ThreadFailure>,
) -> std::io::Result<Peers> {
    let config = member.config();
    let settings = Settings {
        version: ETCD_VERSION,
        min_cluster_version: MIN_CLUSTER_VERSION,
        read_timeout: config.raft_read_timeout,
        write_timeout: config.raft_write_timeout,
        tls: config.peer_tls.clone(),
        ..Settings::new(
            member.id(),
            member.cluster_id(),
            config.peer_urls.clone(),
            member.snapshots().dir().to_owned(),
            config.election_timeout,
        )
    };
    Peers::start(settings, Arc::new(Ears { member: Arc::downgrade(member), failures }))
}

/// Begins to speak with every member of `cluster` but this one, and with `remotes`, of whom the log
/// may not know yet.
pub(crate) fn meet(member: &Member, cluster: &Cluster, remotes: &[Other]) {
    let peers = member.peers();
    for other in remotes {
        peers.add_remote(other.id, &other.peer_urls);
    }
    for other in cluster.members.values().chain(remotes).filter(|other| other.id != member.id()) {
        peers.add(other.id, &other.peer_urls);
    }
}

/// Follows a change of the configuration that has been applied.
pub(crate) fn follow(member: &Arc<Member>, before: &Cluster, after: &Cluster) {
    let peers = member.peers();
    for (id, other) in after.members.iter().filter(|(id, _)| **id != member.id()) {
        match before.members.get(id) {
            None => peers.add(*id, &other.peer_urls),
            Some(old) if old.peer_urls != other.peer_urls => peers.update(*id, &other.peer_urls),
            Some(_) => {}
        }
    }
    // Who joins the cluster learns of its members one after the other: that one is not among them yet
    // does not mean that it has gone.
    for id in after.removed.difference(&before.removed).filter(|id| **id != member.id()) {
        member.leaving().lock().push((*id, Instant::now()));
    }
    if after.removed.contains(&member.id()) {
        member.is_removed();
    }
}

/// Ends the talk with those who were removed a while ago. Not at once: they should hear from the log
/// that they are, and one that led has still to name its successor.
pub(crate) fn part(member: &Member) {
    let patience = member.config().election_timeout;
    for (id, _) in member.leaving().lock().extract_if(.., |(_, since)| since.elapsed() > patience) {
        member.peers().remove(id);
    }
}

/// Speaks with the members of an installed state, and with nobody else.
pub(crate) fn start_anew(member: &Arc<Member>, before: &Cluster, after: &Cluster) {
    follow(member, before, after);
    let gone = before.members.keys().filter(|id| !after.members.contains_key(id));
    for id in gone.filter(|id| **id != member.id()) {
        member.peers().remove(*id);
    }
    // Known as one who would be a member; whether it was is known now.
    for (id, other) in after.members.iter().filter(|(id, _)| **id != member.id()) {
        member.peers().add(*id, &other.peer_urls);
    }
}
