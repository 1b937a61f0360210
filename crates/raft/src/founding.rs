//! First entries: of a new cluster, and of one that a single survivor carries on with.
//!
//! Both are configuration changes that nobody voted on. The founders of a cluster each write the same
//! ones, so that it makes no difference whose log is taken; a survivor's cluster is its own affair.

use std::sync::Arc;

use crate::membership::{Change, ChangeKind, ConfChange, ConfChangeV2};
use crate::types::{ConfState, Entry, EntryKind, HardState, Index, NodeId, Restored, Term};

/// What the log of every founder of a cluster begins with: one entry for each founder, committed in
/// term 1 before anybody was elected. `founders` are ids and what the machine is to know about each;
/// all founders must give the same, in the same order (etcd's is that of the ids).
pub fn found(founders: &[(NodeId, Arc<[u8]>)]) -> (HardState, Vec<Entry>) {
    let entries = (1..).zip(founders).map(|(index, (node, context))| {
        let change = Change { kind: ChangeKind::AddNode, node: *node };
        change_entry(Term(1), Index(index), &ConfChange { id: 0, change, context: Arc::clone(context) })
    });
    let commit = Index(founders.len() as u64);
    (HardState { term: Term(1), vote: None, commit }, entries.collect())
}

/// Turns a member of whatever cluster into the only one: forgets what was not committed, and appends,
/// as committed, changes that make `me` a voter, if it is none, and remove everybody else. `context` is
/// what the machine is to know about `me`, used only if it has to be added.
///
/// Returns what was appended: it must be durable, together with the new hard state in `restored`, before
/// the member starts. `restored.snapshot.conf_state` is the configuration at `restored.applied`, as ever.
///
/// What other members have may be lost by this; it is for the case that they are lost themselves.
pub fn survive_alone(me: NodeId, context: &Arc<[u8]>, restored: &mut Restored) -> Vec<Entry> {
    let Restored { hard_state, snapshot, entries, applied } = restored;
    let commit = hard_state.commit.max(*applied);
    entries.retain(|entry| entry.index <= commit);
    let mut conf_state = snapshot.conf_state.clone();
    // Whoever is named is removed, too, even if the machine has refused the change that named it.
    let mut others = conf_state.members();
    for entry in entries.iter().filter(|entry| entry.is_conf_change() && entry.index > *applied) {
        let Ok(change) = ConfChangeV2::decode(entry.kind, &entry.data) else { continue };
        others.extend(change.changes.iter().map(|change| change.node));
        conf_state = conf_state.changed(&change).unwrap_or(conf_state);
    }
    others.sort_unstable();
    others.dedup();
    others.retain(|id| *id != me && *id != NodeId(0));

    let term = hard_state.term.max(entries.last().map_or(snapshot.term, |entry| entry.term));
    let mut index = commit;
    let mut appended = Vec::new();
    if conf_state.is_joint() {
        index = index.next();
        let (kind, data) = (EntryKind::ConfChangeV2, ConfChangeV2::default().encode().into());
        appended.push(Entry { term, index, kind, data });
    }
    let add = (!conf_state.voters.contains(&me)).then_some((ChangeKind::AddNode, me));
    let removals = others.into_iter().map(|id| (ChangeKind::RemoveNode, id));
    for (kind, node) in add.into_iter().chain(removals) {
        index = index.next();
        let context = if node == me { Arc::clone(context) } else { Arc::default() };
        let change = ConfChange { id: 0, change: Change { kind, node }, context };
        appended.push(change_entry(term, index, &change));
    }
    entries.extend(appended.iter().cloned());
    *hard_state =
        HardState { term, vote: hard_state.vote.filter(|_| term == hard_state.term), commit: index };
    appended
}

fn change_entry(term: Term, index: Index, change: &ConfChange) -> Entry {
    Entry { term, index, kind: EntryKind::ConfChange, data: change.encode().into() }
}

/// The configuration that `conf_state` becomes through these entries, as every member computes it.
pub fn configured(conf_state: &ConfState, entries: &[Entry]) -> ConfState {
    let changes = entries.iter().filter(|entry| entry.is_conf_change());
    changes.fold(conf_state.clone(), |before, entry| {
        let change = ConfChangeV2::decode(entry.kind, &entry.data);
        change.ok().and_then(|change| before.changed(&change).ok()).unwrap_or(before)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Config, Raft, SnapshotMeta};

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn alone(me: u64, restored: &mut Restored) -> (Vec<Entry>, ConfState) {
        let before = restored.snapshot.conf_state.clone();
        let appended = survive_alone(NodeId(me), &Arc::from(*b"me"), restored);
        let unapplied: Vec<_> =
            restored.entries.iter().filter(|e| e.index > restored.applied).cloned().collect();
        Raft::new(Config::new(NodeId(me), 1), restored.clone()).unwrap();
        (appended, configured(&before, &unapplied))
    }

    #[test]
    fn founders_write_the_same_entries_and_agree_on_the_configuration() {
        let founders: Vec<_> = ids(&[3, 5, 9]).into_iter().map(|id| (id, Arc::from(*b"{}"))).collect();
        let (hard_state, entries) = found(&founders);
        assert_eq!(hard_state, HardState { term: Term(1), vote: None, commit: Index(3) });
        assert_eq!(entries.iter().map(|e| e.index.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(configured(&ConfState::default(), &entries), ConfState::of(ids(&[3, 5, 9])));
        let first = ConfChange::decode(&entries[0].data).unwrap();
        assert_eq!((first.change.node, &first.context[..]), (NodeId(3), &b"{}"[..]));
    }

    /// E5: no learner, no member of a change that was still to be applied, and nothing uncommitted stays.
    #[test]
    fn a_survivor_removes_everybody_and_forgets_what_was_not_committed() {
        let (_, mut entries) = found(&[1, 2, 3].map(|id| (NodeId(id), Arc::default())));
        let learner = Change { kind: ChangeKind::AddLearnerNode, node: NodeId(7) };
        let change = ConfChange { id: 0, change: learner, context: Arc::default() };
        entries.push(change_entry(Term(4), Index(4), &change));
        let lost = Change { kind: ChangeKind::AddNode, node: NodeId(8) };
        let change = ConfChange { id: 0, change: lost, context: Arc::default() };
        entries.push(change_entry(Term(4), Index(5), &change));
        let hard_state = HardState { term: Term(4), vote: Some(NodeId(2)), commit: Index(4) };
        let mut restored = Restored { hard_state, entries, ..Restored::default() };
        let (appended, conf_state) = alone(2, &mut restored);
        assert_eq!(conf_state, ConfState::of(ids(&[2])));
        assert_eq!(
            appended.iter().map(|e| (e.index.0, e.term.0)).collect::<Vec<_>>(),
            [(5, 4), (6, 4), (7, 4)]
        );
        assert_eq!(restored.hard_state.commit, Index(7));
        assert_eq!(restored.entries.len(), 7);
    }

    #[test]
    fn a_learner_that_survives_becomes_a_voter_first() {
        let conf_state = ConfState { voters: ids(&[1, 2]), learners: ids(&[4]), ..ConfState::default() };
        let snapshot = SnapshotMeta { conf_state, index: Index(9), term: Term(3) };
        let hard_state = HardState { term: Term(3), vote: None, commit: Index(9) };
        let mut restored = Restored { hard_state, snapshot, entries: Vec::new(), applied: Index(9) };
        let (appended, conf_state) = alone(4, &mut restored);
        assert_eq!(conf_state, ConfState::of(ids(&[4])));
        let first = ConfChange::decode(&appended[0].data).unwrap();
        assert_eq!((first.change.node, &first.context[..]), (NodeId(4), &b"me"[..]));
    }

    #[test]
    fn a_survivor_leaves_a_joint_configuration_before_anything_else() {
        let joint = ConfState {
            voters: ids(&[1, 2, 3]),
            voters_outgoing: ids(&[1, 4]),
            learners_next: ids(&[4]),
            auto_leave: true,
            ..ConfState::default()
        };
        let snapshot = SnapshotMeta { conf_state: joint, index: Index(9), term: Term(3) };
        let hard_state = HardState { term: Term(5), vote: None, commit: Index(9) };
        let mut restored = Restored { hard_state, snapshot, entries: Vec::new(), applied: Index(9) };
        let (_, conf_state) = alone(4, &mut restored);
        assert_eq!(conf_state, ConfState::of(ids(&[4])));
    }

    #[test]
    fn who_is_alone_already_only_forgets_what_was_not_committed() {
        let (hard_state, mut entries) = found(&[(NodeId(1), Arc::default())]);
        entries.push(Entry { term: Term(1), index: Index(2), kind: EntryKind::Normal, data: Arc::default() });
        let mut restored = Restored { hard_state, entries, ..Restored::default() };
        let (appended, conf_state) = alone(1, &mut restored);
        assert_eq!((appended, conf_state), (vec![], ConfState::of(ids(&[1]))));
        assert_eq!(restored.entries.len(), 1);
    }
}
