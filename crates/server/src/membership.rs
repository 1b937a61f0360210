//! Changes of members, and of the leader, as clients ask for them.
//!
//! What the log decides — is there such a member, is its URL taken — is decided where entries are
//! applied, by everybody alike. Here is what one member looks at before it proposes anything: would
//! the cluster still have a quorum that runs (E3), does a learner keep up (E2)? The rules are etcd's,
//! and `--strict-reconfig-check=false` switches those about the quorum off.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apply::{ChangeContext, Cluster, Member as Other, Rejection};
use raft::{Change, ChangeKind, ConfChange, NodeId};

use crate::error::Error;
use crate::identity::member_id;
use crate::member::Member;

/// How long a connection must have lasted for its other end to count as healthy (etcd's number).
const HEALTHY: Duration = Duration::from_secs(5);

/// How much of the leader's log a learner must have before it may vote, in percent (etcd's number).
const READY: u64 = 90;

/// How often a leader that hands over looks whether it is done.
const TRANSFER_LOOK: Duration = Duration::from_millis(5);

/// Why the members did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// This member could not have it agreed on.
    Failed(Error),
    /// Every member refused it alike.
    Rejected(Rejection),
    /// The peer URLs are none.
    BadUrls,
    /// Of those who would vote, too few have ever started.
    NotEnoughStarted,
    /// Of those who would vote, too few can be reached from here.
    Unhealthy,
    /// The learner lacks too much of the log, or is not heard of.
    LearnerNotReady,
    /// The leader was asked, and gave an answer that is none of the above; its words.
    Unforeseen(String),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error}"),
            Self::Rejected(rejection) => write!(f, "{rejection}"),
            Self::BadUrls => f.write_str("given member URLs are invalid"),
            Self::NotEnoughStarted => {
                f.write_str("re-configuration failed due to not enough started members")
            }
            Self::Unhealthy => f.write_str("unhealthy cluster"),
            Self::LearnerNotReady => {
                f.write_str("can only promote a learner member which is in sync with leader")
            }
            Self::Unforeseen(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What a change comes to: the members after it, by id.
pub type Changed = Result<Vec<Other>, ChangeError>;

impl Member {
    /// Adds a member that will be found at these URLs; tells which, and who is a member now.
    ///
    /// # Errors
    /// [`ChangeError::BadUrls`], [`ChangeError::NotEnoughStarted`], [`ChangeError::Unhealthy`], or what
    /// became of the proposal.
    pub async fn add_member(
        self: &Arc<Self>,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(Other, Vec<Other>), ChangeError> {
        let peer_urls = checked_urls(peer_urls).ok_or(ChangeError::BadUrls)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // etcd hashes the time in the place of the cluster's token: a URL that was removed and comes
        // back is another member.
        let id = member_id(&peer_urls, &now.to_string());
        let other = Other { id, peer_urls, is_learner, ..Other::default() };
        self.may_add(&other)?;
        let kind = if is_learner { ChangeKind::AddLearnerNode } else { ChangeKind::AddNode };
        let members = self.change(kind, id, &apply::to_json(&other)).await?;
        Ok((other, members))
    }

    fn may_add(&self, other: &Other) -> Result<(), ChangeError> {
        if !self.config().strict_reconfig_check {
            return Ok(());
        }
        let cluster = self.cluster();
        let refuse = |error: ChangeError| {
            tracing::warn!(
                "local-member-id" = format!("{:x}", self.id()),
                "requested-member-add" = format!("{:x} {:?}", other.id, other.peer_urls),
                %error,
                "rejecting member add request"
            );
            Err(error)
        };
        if !other.is_learner && !ready_to_add_voter(&cluster) {
            return refuse(ChangeError::NotEnoughStarted);
        }
        let voters = cluster.voters();
        // The new one counts as one that does not run yet. Who is alone must be able to grow.
        if voters.len() > 1 && self.connected(&voters) < quorum(voters.len() + 1) {
            return refuse(ChangeError::Unhealthy);
        }
        Ok(())
    }

    /// Removes a member, this one perhaps.
    ///
    /// # Errors
    /// [`ChangeError::NotEnoughStarted`], [`ChangeError::Unhealthy`], or what became of the proposal.
    pub async fn remove_member(self: &Arc<Self>, id: u64) -> Changed {
        self.may_remove(id)?;
        self.change(ChangeKind::RemoveNode, id, &[]).await
    }

    fn may_remove(&self, id: u64) -> Result<(), ChangeError> {
        let cluster = self.cluster();
        let is_learner = cluster.members.get(&id).is_some_and(|other| other.is_learner);
        if !self.config().strict_reconfig_check || is_learner {
            return Ok(());
        }
        let refuse = |error: ChangeError| {
            tracing::warn!(
                "local-member-id" = format!("{:x}", self.id()),
                "requested-member-remove-id" = format!("{id:x}"),
                %error,
                "rejecting member remove request"
            );
            Err(error)
        };
        if !ready_to_remove_voter(&cluster, id) {
            return refuse(ChangeError::NotEnoughStarted);
        }
        // Who is down is no part of the quorum that runs.
        if id != self.id() && self.active_since(id).is_none() {
            return Ok(());
        }
        let voters = cluster.voters();
        if self.connected(&voters) < 1 + quorum(voters.len().saturating_sub(1)) {
            return refuse(ChangeError::Unhealthy);
        }
        Ok(())
    }

    /// Says where a member is to be found from now on.
    ///
    /// # Errors
    /// [`ChangeError::BadUrls`], or what became of the proposal.
    pub async fn update_member(self: &Arc<Self>, id: u64, peer_urls: &[String]) -> Changed {
        // etcd lets everything into its log here, and every member panics over it.
        let peer_urls = checked_urls(peer_urls).ok_or(ChangeError::BadUrls)?;
        let other = Other { id, peer_urls, ..Other::default() };
        self.change(ChangeKind::UpdateNode, id, &apply::to_json(&other)).await
    }

    /// Gives a learner its vote, or has the leader do so, which is shown the caller's token.
    ///
    /// # Errors
    /// As [`Member::promote_here`], but for [`Error::NotLeader`].
    pub async fn promote_member(self: &Arc<Self>, id: u64, token: Option<&str>) -> Changed {
        match self.promote_here(id).await {
            Err(ChangeError::Failed(Error::NotLeader)) => self.promote_at_leader(id, token).await,
            result => result,
        }
    }

    /// Gives a learner its vote, if this member leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`ChangeError::LearnerNotReady`], [`ChangeError::NotEnoughStarted`], or what
    /// became of the proposal.
    pub async fn promote_here(self: &Arc<Self>, id: u64) -> Changed {
        let promoted = self.try_to_promote(id).await;
        match &promoted {
            Ok(_) => self.metrics().learners_promoted.inc(),
            Err(ChangeError::Failed(Error::NotLeader)) => {}
            Err(error) => {
                self.metrics().learners_refused.with_label_values(&[error.to_string().as_str()]).inc();
            }
        }
        promoted
    }

    async fn try_to_promote(self: &Arc<Self>, id: u64) -> Changed {
        if !self.raft().is_leader() {
            return Err(Error::NotLeader.into());
        }
        // What is to be promoted may have been added just now.
        self.linearize().await?;
        self.keeps_up(id)?;
        if self.config().strict_reconfig_check && !ready_to_promote(&self.cluster()) {
            tracing::warn!(
                "local-member-id" = format!("{:x}", self.id()),
                "requested-member-promote-id" = format!("{id:x}"),
                "rejecting member promote request; not enough healthy members"
            );
            return Err(ChangeError::NotEnoughStarted);
        }
        let context = ChangeContext { member: Other { id, ..Other::default() }, is_promote: true };
        self.change(ChangeKind::AddNode, id, &apply::to_json(&context)).await
    }

    /// Whether a member has nearly all of the leader's log and is there.
    fn keeps_up(self: &Arc<Self>, id: u64) -> Result<(), ChangeError> {
        let picture = self.raft_picture();
        if picture.role != node::RoleKind::Leader {
            return Err(Error::NotLeader.into());
        }
        if id == self.id() {
            return Err(ChangeError::Rejected(Rejection::MemberNotLearner));
        }
        let Some(peer) = picture.peers.iter().find(|peer| peer.id.0 == id) else {
            return Err(ChangeError::Rejected(Rejection::MemberNotFound));
        };
        if !peer.learner {
            return Err(ChangeError::Rejected(Rejection::MemberNotLearner));
        }
        // One that has all of the log but is gone would be a voter that does not vote (E2).
        let is_there = peer.active || self.active_since(id).is_some();
        if !is_there || !has_enough(peer.matched.0, picture.stable.0) {
            tracing::error!(
                "learner-match" = peer.matched.0,
                "leader-match" = picture.stable.0,
                "ready-percent-threshold" = READY,
                active = is_there,
                "rejecting promote learner: learner is not ready"
            );
            return Err(ChangeError::LearnerNotReady);
        }
        Ok(())
    }

    /// Hands the leadership over, and waits until this member follows the new leader.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::BadTransferee`], [`Error::TimeoutLeaderTransfer`].
    pub async fn move_leader(self: &Arc<Self>, to: u64) -> Result<(), Error> {
        if !self.raft().is_leader() {
            return Err(Error::NotLeader);
        }
        if self.cluster().members.get(&to).is_none_or(|other| other.is_learner) {
            return Err(Error::BadTransferee);
        }
        let began = Instant::now();
        tracing::info!(
            "local-member-id" = format!("{:x}", self.id()),
            "transferee-member-id" = format!("{to:x}"),
            "leadership transfer starting"
        );
        self.transfer_leader(to);
        while self.raft().leader() != to {
            if began.elapsed() > self.request_timeout() {
                return Err(Error::TimeoutLeaderTransfer);
            }
            tokio::select! {
                () = tokio::time::sleep(TRANSFER_LOOK) => {}
                () = self.stopping() => return Err(Error::Stopped),
            }
        }
        tracing::info!(
            "local-member-id" = format!("{:x}", self.id()),
            "new-leader-member-id" = format!("{to:x}"),
            took = ?began.elapsed(),
            "leadership transfer finished"
        );
        Ok(())
    }

    /// Whether this member receives the log without a vote.
    pub fn is_learner(&self) -> bool {
        self.cluster().members.get(&self.id()).is_some_and(|own| own.is_learner)
    }

    async fn change(self: &Arc<Self>, kind: ChangeKind, id: u64, context: &[u8]) -> Changed {
        let change = Change { kind, node: NodeId(id) };
        // What the log would refuse need not enter it, and `--max-learners` is looked at nowhere else: a
        // flag must not decide what an entry does.
        let named = ConfChange { id: 0, change, context: context.into() };
        let check = || self.cluster().check(&named, self.config().max_learners);
        if check().is_err() {
            // This member may know less than the cluster does.
            self.linearize().await?;
            check().map_err(ChangeError::Rejected)?;
        }
        let members = self.propose_change(change, context.into()).await?;
        let members = members.map_err(ChangeError::Rejected)?;
        tracing::info!(
            "local-member-id" = format!("{:x}", self.id()),
            "raft-conf-change" = ?kind,
            "raft-conf-change-node-id" = format!("{id:x}"),
            "applied a configuration change through raft"
        );
        Ok(members)
    }

    /// How many of these members can be reached, and could be for some time; this one can.
    fn connected(&self, members: &[u64]) -> usize {
        let lasts = |since: Instant| since.elapsed() > HEALTHY;
        members.iter().filter(|id| **id == self.id() || self.active_since(**id).is_some_and(lasts)).count()
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// A member has a name once it has started for the first time.
fn started(cluster: &Cluster, but: Option<u64>) -> (usize, usize) {
    let voters = cluster.members.values().filter(|other| !other.is_learner && Some(other.id) != but);
    voters.fold((0, 0), |(all, started), other| (all + 1, started + usize::from(!other.name.is_empty())))
}

fn ready_to_add_voter(cluster: &Cluster) -> bool {
    match started(cluster, None) {
        // Who is alone may grow, or a cluster could never be restored from one member.
        (1, 1) => true,
        (all, started) => started >= quorum(all + 1),
    }
}

fn ready_to_remove_voter(cluster: &Cluster, id: u64) -> bool {
    let (all, started) = started(cluster, Some(id));
    started >= quorum(all)
}

/// The learner will vote and has started: it keeps up.
fn ready_to_promote(cluster: &Cluster) -> bool {
    let (all, started) = started(cluster, None);
    started + 1 >= quorum(all + 1)
}

fn has_enough(learner: u64, leader: u64) -> bool {
    u128::from(learner) * 100 >= u128::from(leader) * u128::from(READY)
}

/// Peer URLs in the form and order in which etcd hashes and announces them; none if one of them is
/// no URL of a peer, or there are none.
fn checked_urls(urls: &[String]) -> Option<Vec<String>> {
    let mut checked = urls.iter().map(|url| checked_url(url)).collect::<Option<Vec<String>>>()?;
    checked.sort();
    (!checked.is_empty()).then_some(checked)
}

fn checked_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_text = |text: &str| text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    match scheme.as_str() {
        "http" | "https" => {
            let authority = rest.split(['/', '?', '#']).next()?;
            let (host, port) = authority.rsplit_once(':')?;
            let host_is_one = match host.strip_prefix('[') {
                Some(address) => address.ends_with(']'),
                None => !host.contains([':', '[', ']', '@']),
            };
            let port_is_one = port.is_empty() || port.parse::<u16>().is_ok();
            let is_url = host_is_one && port_is_one && authority == rest && is_text(rest);
            is_url.then(|| format!("{scheme}://{rest}"))
        }
        "unix" | "unixs" => is_text(rest).then(|| format!("{scheme}://{rest}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster in a word: a letter per member, `V` for a voter that has started, `v` for one that has
    /// not, `L` for a learner; ids count from 1.
    fn cluster(word: &str) -> Cluster {
        let mut cluster = Cluster::default();
        for (id, letter) in (1..).zip(word.chars()) {
            let name = if letter == 'v' { String::new() } else { "n".to_owned() };
            let member = Other { id, name, is_learner: letter == 'L', ..Other::default() };
            cluster.members.insert(id, member);
        }
        cluster
    }

    /// etcd's cases, from its tests of membership.
    #[test]
    fn a_change_must_leave_a_quorum_of_members_that_have_started() {
        for (word, ready) in [
            ("VVV", true),
            ("VVv", false),
            ("Vvv", false),
            ("V", true),
            ("v", false),
            ("", false),
            ("VVVv", true),
            ("VVL", true),
            ("vL", false),
        ] {
            assert_eq!(ready_to_add_voter(&cluster(word)), ready, "adding to {word}");
        }
        for (word, id, ready) in [
            ("VVV", 3, true),
            ("VV", 2, true),
            ("Vv", 2, true),
            ("vV", 2, false),
            ("VVv", 1, false),
            ("VVv", 3, true),
            ("V", 1, false),
            ("VvL", 2, true),
            ("VVVvv", 1, false),
        ] {
            assert_eq!(ready_to_remove_voter(&cluster(word), id), ready, "removing {id} of {word}");
        }
        for (word, ready) in [("VL", true), ("vL", false), ("VvL", true), ("VvvL", false), ("L", true)] {
            assert_eq!(ready_to_promote(&cluster(word)), ready, "promoting in {word}");
        }
    }

    #[test]
    fn a_learner_needs_nine_tenths_of_the_log() {
        assert!(has_enough(9, 10) && has_enough(10, 10) && has_enough(0, 0));
        assert!(!has_enough(8, 10) && !has_enough(0, 1));
        assert!(!has_enough(899, 1000) && has_enough(u64::MAX, u64::MAX));
    }

    #[test]
    fn urls_are_checked_and_sorted() {
        let check =
            |urls: &[&str]| checked_urls(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>());
        let good = check(&["http://b:2380", " HTTP://[::1]:1 ", "https://a:"]);
        assert_eq!(good.unwrap_or_default(), ["http://[::1]:1", "http://b:2380", "https://a:"]);
        for bad in [
            "",
            "a:1",
            "http://a",
            "http://a:1/",
            "http://a:1/x",
            "http://a:1?x",
            "http://::1:1",
            "ftp://a:1",
            "http://a:port",
            "http://a b:1",
            "127.0.0.1:2380",
        ] {
            assert_eq!(check(&[bad]), None, "{bad}");
        }
        assert_eq!(check(&[]), None);
    }
}
