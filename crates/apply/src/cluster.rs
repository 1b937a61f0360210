//! Who is in the cluster, and which version all of it speaks.
//!
//! One record in memory, read by everybody, changed by the apply thread alone; and next to each
//! change the rows that make it durable in the same batch. The raft configuration is part of the
//! record, so that the two can be held against each other.

use std::collections::{BTreeMap, BTreeSet};

use api::membershippb::{ClusterMemberAttrSetRequest, DowngradeInfoSetRequest};
use backend::{Table, TableOp};
use raft::{ChangeKind, ConfChange, ConfState, MembershipError, NodeId};
use serde::{Deserialize, Serialize};

use crate::member::{ChangeContext, Downgrade, Member, from_json, to_json};
use crate::rejection::{Failure, Rejection};
use crate::snapshot::Tables;

pub(crate) const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";
const REMOVED: &[u8] = b"removed";

/// The cluster as of the last applied entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The members by id.
    pub members: BTreeMap<u64, Member>,
    /// The ids that were members once and must never be again.
    pub removed: BTreeSet<u64>,
    /// The version of the API that all members speak, as `major.minor.patch`; none until the first
    /// leader has set it.
    pub version: Option<String>,
    /// The downgrade under way, if one was ever asked for.
    pub downgrade: Option<Downgrade>,
    /// The raft configuration.
    pub conf_state: ConfState,
}

impl Cluster {
    /// The version of the layout of the stored state: it follows the version that the cluster speaks.
    /// 3.5.0 stands for whatever was before layouts had versions.
    pub fn storage_version(&self) -> &str {
        self.version.as_deref().filter(|version| notes_storage_version(version)).unwrap_or("3.5.0")
    }

    /// The voting members' ids.
    pub fn voters(&self) -> Vec<u64> {
        self.members.values().filter(|member| !member.is_learner).map(|member| member.id).collect()
    }

    /// The cluster that the tables hold.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub(crate) fn load(tables: &impl Tables) -> Result<Self, Failure> {
        let cluster = Self::load_unsettled(tables)?;
        cluster.agrees().map_err(Failure::Membership)?;
        Ok(cluster)
    }

    /// The cluster that the tables hold, whether or not it agrees with the raft configuration.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub(crate) fn load_unsettled(tables: &impl Tables) -> Result<Self, Failure> {
        let mut cluster = Cluster::default();
        let mut damaged = None;
        tables.scan(Table::Members, &mut |key, value| {
            if let Err(failure) = cluster.load_member(key, value) {
                damaged = Some(failure);
            }
        })?;
        tables.scan(Table::MembersRemoved, &mut |key, _| match Member::parse_row_key(key) {
            Some(id) => _ = cluster.removed.insert(id),
            None => damaged = Some(damage(Table::MembersRemoved, key)),
        })?;
        if let Some(version) = tables.get(Table::Cluster, CLUSTER_VERSION)? {
            match std::str::from_utf8(&version).ok().filter(|text| is_version(text)) {
                Some(text) => cluster.version = Some(text.to_owned()),
                None => damaged = Some(damage(Table::Cluster, CLUSTER_VERSION)),
            }
        }
        if let Some(downgrade) = tables.get(Table::Cluster, DOWNGRADE)? {
            match from_json(&downgrade) {
                Some(value) => cluster.downgrade = Some(value),
                None => damaged = Some(damage(Table::Cluster, DOWNGRADE)),
            }
        }
        if let Some(json) = tables.position().conf_state {
            match read_conf_state(&json) {
                Some(conf_state) => cluster.conf_state = conf_state,
                None => damaged = Some(damage(Table::Meta, b"confState")),
            }
        }
        damaged.map_or(Ok(cluster), Err)
    }

    pub(crate) fn load_member(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let read = Member::parse_row_key(key).zip(from_json::<Member>(value));
        let (id, member) = read.ok_or_else(|| damage(Table::Members, key))?;
        self.members.insert(id, Member { id, ..member });
        Ok(())
    }

    /// Whether the members' records and the raft configuration name the same voters and learners;
    /// if not, where they differ.
    fn agrees(&self) -> Result<(), String> {
        let ids = |learner| self.members.values().filter(move |m| m.is_learner == learner).map(|m| m.id);
        let conf = &self.conf_state;
        let same = |nodes: &[NodeId], learner| {
            let named: BTreeSet<u64> = nodes.iter().map(|node| node.0).collect();
            named == ids(learner).collect()
        };
        let joint = !conf.voters_outgoing.is_empty() || !conf.learners_next.is_empty();
        if !joint && same(&conf.voters, false) && same(&conf.learners, true) {
            return Ok(());
        }
        let list = |learner| ids(learner).map(|id| format!("{id:x}")).collect::<Vec<_>>().join(" ");
        Err(format!("voters {}, learners {}, but {conf:x?}", list(false), list(true)))
    }

    /// Brings the records of another member's state in line with the raft configuration that came
    /// with it, which decides: some versions of etcd store a promoted member as a learner, or keep
    /// the row of a removed one. Returns the changes of the tables.
    ///
    /// # Errors
    /// A member of the configuration has no record.
    pub(crate) fn settle(&mut self) -> Result<Vec<TableOp>, Failure> {
        let conf = self.conf_state.clone();
        let mut ops = Vec::new();
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            let is_learner = conf.learners.contains(&NodeId(id));
            if !is_learner && !conf.voters.contains(&NodeId(id)) {
                ops.extend(self.remove(id));
            } else if let Some(member) = self.members.get_mut(&id)
                && member.is_learner != is_learner
            {
                member.is_learner = is_learner;
                ops.push(member_row(member));
            }
        }
        self.agrees().map_err(Failure::Membership)?;
        Ok(ops)
    }

    /// Carries out a configuration change, or says why it cannot be.
    ///
    /// # Errors
    /// In etcd's order of checks, raft's own last; nothing has changed then.
    pub(crate) fn change(&mut self, change: &ConfChange) -> Result<Vec<TableOp>, Refused> {
        let id = change.change.node.0;
        if self.removed.contains(&id) {
            return Err(Rejection::MemberRemoved.into());
        }
        let member = match change.change.kind {
            kind @ (ChangeKind::AddNode | ChangeKind::AddLearnerNode) => {
                let context: ChangeContext = from_json(&change.context).ok_or(Refused::UNREADABLE)?;
                let new = context.member;
                Some(if context.is_promote { self.promoted(id, kind)? } else { self.added(id, kind, new)? })
            }
            ChangeKind::UpdateNode => {
                let old = self.members.get(&id).ok_or(Rejection::MemberNotFound)?;
                let new: Member = from_json(&change.context).ok_or(Refused::UNREADABLE)?;
                self.check_urls(id, &new.peer_urls)?;
                if new.id != id {
                    return Err(Refused::CONTRADICTION);
                }
                Some(Member { peer_urls: new.peer_urls, ..old.clone() })
            }
            ChangeKind::RemoveNode => {
                self.members.get(&id).ok_or(Rejection::MemberNotFound)?;
                None
            }
        };
        self.conf_state = self.conf_state.changed(&change.clone().into()).map_err(|error| match error {
            MembershipError::NoVoters => Refused::Rejected(Rejection::NoVoters),
            _ => Refused::CONTRADICTION,
        })?;
        let Some(member) = member else {
            let ops = self.remove(id);
            self.assert_agreement();
            return Ok(ops.into());
        };
        let row = member_row(&member);
        self.members.insert(id, member);
        self.assert_agreement();
        Ok(vec![row])
    }

    fn assert_agreement(&self) {
        if let Err(difference) = self.agrees() {
            panic!("members and raft configuration part ways: {difference}");
        }
    }

    pub(crate) fn remove(&mut self, id: u64) -> [TableOp; 2] {
        self.members.remove(&id);
        self.removed.insert(id);
        let key = Member::row_key(id);
        [TableOp::delete(Table::Members, key.clone()), TableOp::put(Table::MembersRemoved, key, REMOVED)]
    }

    /// Whether a change may be proposed, as far as this member knows: what it
    /// is checked for when it is applied, and the bound on learners.
    ///
    /// The bound is a flag of each member, so it is asked here and not where entries are applied: two
    /// members with different flags must not come to different configurations. (In etcd they do: it
    /// asks its own flag when it applies.) Two learners that are proposed at the same moment may
    /// exceed it by one.
    ///
    /// # Errors
    /// What applying the change would be refused with, or [`Rejection::TooManyLearners`].
    pub fn check(&self, change: &ConfChange, max_learners: usize) -> Result<(), Rejection> {
        let mut after = self.clone();
        after.change(change).map_err(|refused| match refused {
            Refused::Rejected(rejection) => rejection,
            Refused::NotUnderstood(what) => Rejection::Unsupported(what),
        })?;
        let learners = |cluster: &Cluster| cluster.members.values().filter(|m| m.is_learner).count();
        let (before, after) = (learners(self), learners(&after));
        if after > before && after > max_learners { Err(Rejection::TooManyLearners) } else { Ok(()) }
    }

    fn promoted(&self, id: u64, kind: ChangeKind) -> Result<Member, Refused> {
        let member = self.members.get(&id).ok_or(Rejection::MemberNotFound)?;
        if !member.is_learner {
            return Err(Rejection::MemberNotLearner.into());
        }
        if kind != ChangeKind::AddNode {
            return Err(Refused::CONTRADICTION);
        }
        Ok(Member { is_learner: false, ..member.clone() })
    }

    fn added(&self, id: u64, kind: ChangeKind, new: Member) -> Result<Member, Refused> {
        if self.members.contains_key(&id) {
            return Err(Rejection::MemberExists.into());
        }
        self.check_urls(id, &new.peer_urls)?;
        // The context and the change must speak of the same member, and the change's type decides
        // about the vote: it is what raft goes by.
        if new.id != id || new.is_learner != (kind == ChangeKind::AddLearnerNode) {
            return Err(Refused::CONTRADICTION);
        }
        Ok(new)
    }

    fn check_urls(&self, id: u64, urls: &[String]) -> Result<(), Rejection> {
        let others = self.members.values().filter(|member| member.id != id);
        if others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url)) {
            return Err(Rejection::PeerUrlExists);
        }
        Ok(())
    }

    /// Notes a member's name and client URLs. A member that was removed meanwhile is no error.
    pub(crate) fn set_attributes(
        &mut self,
        request: &ClusterMemberAttrSetRequest,
    ) -> Result<Option<TableOp>, Rejection> {
        let id = request.member_id;
        let Some(member) = self.members.get_mut(&id) else {
            return if self.removed.contains(&id) { Ok(None) } else { Err(Rejection::MemberNotFound) };
        };
        let attributes = request.member_attributes.clone().unwrap_or_default();
        member.name = attributes.name;
        member.client_urls = attributes.client_urls;
        Ok(Some(member_row(member)))
    }

    /// Notes the version that all members speak, which [`speaks`] has looked at.
    pub(crate) fn set_version(&mut self, version: String) -> TableOp {
        self.version = Some(version.clone());
        TableOp::put(Table::Cluster, CLUSTER_VERSION, version)
    }

    pub(crate) fn set_downgrade(&mut self, request: &DowngradeInfoSetRequest) -> TableOp {
        let target_version = if request.enabled { request.ver.clone() } else { String::new() };
        let downgrade = Downgrade { target_version, enabled: request.enabled };
        let row = TableOp::put(Table::Cluster, DOWNGRADE, to_json(&downgrade));
        self.downgrade = Some(downgrade);
        row
    }

    /// The raft configuration in etcd's JSON, for the seal.
    pub(crate) fn conf_state_json(&self) -> bytes::Bytes {
        write_conf_state(&self.conf_state)
    }
}

/// A raft configuration from the JSON that etcd stores.
pub(crate) fn read_conf_state(json: &[u8]) -> Option<ConfState> {
    from_json::<StoredConfState>(json).map(ConfState::from)
}

/// A raft configuration in the JSON that etcd stores.
pub(crate) fn write_conf_state(conf_state: &ConfState) -> bytes::Bytes {
    to_json(&StoredConfState::from(conf_state))
}

pub(crate) fn member_row(member: &Member) -> TableOp {
    TableOp::put(Table::Members, Member::row_key(member.id), to_json(member))
}

pub(crate) fn damage(table: Table, key: &[u8]) -> Failure {
    let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
    Failure::Damaged { table: table.name(), key }
}

/// Why a configuration change is not made.
pub(crate) enum Refused {
    /// By every member alike.
    Rejected(Rejection),
    /// What this version cannot make out; it must not go on.
    NotUnderstood(&'static str),
}

impl Refused {
    const UNREADABLE: Refused = Refused::NotUnderstood("a change of members whose context is none");
    const CONTRADICTION: Refused = Refused::NotUnderstood("a change of members that contradicts itself");
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Refused::Rejected(rejection)
    }
}

/// Whether this version may go on in a cluster that is to speak `version`. What a newer one means by its
/// entries, and by the rows that follow from them, is not known here.
///
/// # Errors
/// Why it may not.
pub(crate) fn speaks(version: &str) -> Result<(), String> {
    match number(version).filter(|_| is_version(version)) {
        None => Err(format!("a cluster version that is none ({version:?})")),
        cluster if cluster > number(api::ETCD_VERSION) => Err(format!(
            "invalid downgrade; server version is lower than determined cluster version (current-server-version: \
             {}, determined-cluster-version: {version})",
            api::ETCD_VERSION
        )),
        Some(_) => Ok(()),
    }
}

/// Major and minor of a version.
fn number(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.').map_while(|part| part.parse::<u64>().ok());
    parts.next().zip(parts.next())
}

/// Whether the stored state of a cluster that speaks `version` notes the version of its own layout,
/// which is then the same. etcd began to with 3.6.
pub(crate) fn notes_storage_version(version: &str) -> bool {
    is_version(version) && number(version) >= Some((3, 6))
}

/// `major.minor.patch`, numbers only: what a cluster version is.
pub(crate) fn is_version(text: &str) -> bool {
    let mut parts = 0;
    text.split('.').all(|part| {
        parts += 1;
        !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit())
    }) && parts == 3
}

/// `raftpb.ConfState` in the JSON that etcd keeps in its meta bucket: empty lists are left out.
#[derive(Serialize, Deserialize)]
struct StoredConfState {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    #[serde(default)]
    auto_leave: bool,
}

impl From<&ConfState> for StoredConfState {
    fn from(conf: &ConfState) -> Self {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        StoredConfState {
            voters: ids(&conf.voters),
            learners: ids(&conf.learners),
            voters_outgoing: ids(&conf.voters_outgoing),
            learners_next: ids(&conf.learners_next),
            auto_leave: conf.auto_leave,
        }
    }
}

impl From<StoredConfState> for ConfState {
    fn from(stored: StoredConfState) -> Self {
        let nodes = |ids: Vec<u64>| ids.into_iter().map(NodeId).collect();
        ConfState {
            voters: nodes(stored.voters),
            learners: nodes(stored.learners),
            voters_outgoing: nodes(stored.voters_outgoing),
            learners_next: nodes(stored.learners_next),
            auto_leave: stored.auto_leave,
        }
    }
}
