//! The real thing beside something too simple to be wrong, over tens of thousands of random cases.
#![allow(clippy::unwrap_used)]

use raft::quorum::{Verdict, reached_jointly, verdict_jointly};
use raft::*;
use std::collections::{BTreeMap, BTreeSet};

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }

    fn some_of(&mut self, ids: u64) -> Vec<NodeId> {
        (1..=ids).filter(|_| self.below(2) == 0).map(NodeId).collect()
    }
}

/// A majority: more than half of them, one by one.
fn most(side: &[NodeId], which: impl Fn(NodeId) -> bool) -> bool {
    let yes = side.iter().filter(|id| which(**id)).count();
    side.is_empty() || yes > side.len() - yes
}

#[test]
fn a_quorum_has_reached_what_most_of_both_sides_have() {
    let mut dice = Dice(1);
    for case in 0..40_000 {
        let size = if case % 50 == 0 { 40 } else { 9 };
        let (old, new) = (dice.some_of(size), dice.some_of(size));
        let acked: BTreeMap<NodeId, u64> = (1..=size).map(|id| (NodeId(id), dice.below(12))).collect();
        let naive = (0..12)
            .rev()
            .find(|index| most(&old, |id| acked[&id] >= *index) && most(&new, |id| acked[&id] >= *index));
        let naive = if old.is_empty() && new.is_empty() { u64::MAX } else { naive.unwrap() };
        assert_eq!(reached_jointly([&old, &new], |id| acked[&id]), naive, "{old:?} {new:?} {acked:?}");
    }
}

#[test]
fn a_vote_is_won_or_lost_when_no_answer_to_come_can_change_it() {
    let mut dice = Dice(2);
    for _ in 0..20_000 {
        let (old, new) = (dice.some_of(5), dice.some_of(5));
        let votes: BTreeMap<NodeId, Option<bool>> =
            (1..=5).map(|id| (NodeId(id), [None, Some(true), Some(false)][dice.below(3) as usize])).collect();
        let won_if = |open: bool| {
            let yes = |id| votes[&id].unwrap_or(open);
            most(&old, yes) && most(&new, yes)
        };
        let naive = match (won_if(false), won_if(true)) {
            (true, _) => Verdict::Won,
            (false, true) => Verdict::Pending,
            (false, false) => Verdict::Lost,
        };
        assert_eq!(verdict_jointly([&old, &new], |id| votes[&id]), naive, "{old:?} {new:?} {votes:?}");
    }
}

/// The rule of §5.4.2 as the paper writes it, against a leader that is fed random acknowledgements.
#[test]
fn a_leader_commits_by_the_paper() {
    let mut dice = Dice(3);
    for _ in 0..20_000 {
        let mut conf = ConfState { voters: dice.some_of(5), ..ConfState::default() };
        if conf.voters.is_empty() {
            conf.voters = vec![NodeId(1)];
        }
        if dice.below(3) == 0 {
            conf.voters_outgoing = dice.some_of(5);
        }
        if !conf.is_voter(NodeId(1)) {
            conf.voters = vec![NodeId(1)];
        }
        let old = dice.below(6);
        let entry = |term, index| Entry {
            term: Term(term),
            index: Index(index),
            kind: EntryKind::Normal,
            data: [].into(),
        };
        let entries = (1..=old).map(|index| entry(1 + index / 3, index)).collect();
        let snapshot = SnapshotMeta { conf_state: conf.clone(), ..SnapshotMeta::default() };
        let hard_state = HardState { term: Term(5), ..HardState::default() };
        let restored = Restored { hard_state, snapshot, entries, applied: Index(0) };
        let config = Config { pre_vote: false, ..Config::new(NodeId(1), 1) };
        let mut raft = Raft::new(config, restored).unwrap();
        raft.campaign();
        let mut durable = old;
        let mut write = |raft: &mut Raft, really: bool| {
            while let Some(ready) = raft.ready() {
                let Some(persist) = ready.persist else { continue };
                if really {
                    durable = persist.entries.last().map_or(durable, |e| e.index.0);
                    raft.persisted(persist.id);
                }
            }
            durable
        };
        write(&mut raft, true);
        for id in conf.members().into_iter().filter(|id| id.0 != 1) {
            raft.step(yes(id));
        }
        let keep_up = dice.below(2) == 0;
        write(&mut raft, keep_up);
        for index in old + 2..old + 2 + dice.below(4) {
            raft.propose(vec![Proposal {
                id: index,
                kind: EntryKind::Normal,
                data: [1].into(),
                only_in: None,
            }]);
        }
        let own = write(&mut raft, keep_up);
        let last = raft.status().last;
        let mut matched = BTreeMap::from([(NodeId(1), own)]);
        for _ in 0..10 {
            let id = NodeId(2 + dice.below(4));
            let index = dice.below(last.0 + 1);
            let known = matched.entry(id).or_insert(0);
            *known = index.max(*known);
            let body = Body::AppendResponse { index: Index(index), reject: None };
            raft.step(Message { from: id, to: NodeId(1), term: Term(6), body });
            let has = |id: NodeId, index| matched.get(&id).is_some_and(|m| *m >= index);
            let naive = (old + 1..=last.0)
                .rev()
                .find(|n| conf.sides().iter().all(|side| most(side, |id| has(id, *n))))
                .unwrap_or(0);
            assert_eq!(raft.hard_state().commit.0, naive, "{conf:?} {matched:?} old {old}");
        }
    }
}

fn yes(id: NodeId) -> Message {
    Message { from: id, to: NodeId(1), term: Term(6), body: Body::VoteResponse(Answer::default()) }
}

/// A configuration as five sets, changed by the rules as one would say them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sets {
    voters: BTreeSet<NodeId>,
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    next: BTreeSet<NodeId>,
}

#[test]
fn configurations_change_as_sets_do() {
    let mut dice = Dice(4);
    let (mut done, mut refused) = (0, 0);
    let mut conf = ConfState::of([NodeId(1)]);
    let mut sets = Sets { voters: [NodeId(1)].into(), ..Sets::default() };
    for _ in 0..40_000 {
        let kinds = [ChangeKind::AddNode, ChangeKind::AddLearnerNode, ChangeKind::RemoveNode];
        let changes: Vec<_> = (0..dice.below(4))
            .map(|_| Change { kind: kinds[dice.below(3) as usize], node: NodeId(1 + dice.below(6)) })
            .collect();
        let transition =
            [Transition::Auto, Transition::Auto, Transition::JointExplicit][dice.below(3) as usize];
        let change = ConfChangeV2 { transition, changes, ..ConfChangeV2::default() };
        let next = naive_change(&sets, &change);
        match conf.changed(&change) {
            Ok(changed) => {
                done += 1;
                conf = changed;
                sets = next.unwrap_or_else(|| panic!("{change:?} should be refused at {sets:?}"));
                let set = |list: &[NodeId]| list.iter().copied().collect::<BTreeSet<_>>();
                assert_eq!(set(&conf.voters), sets.voters);
                assert_eq!(set(&conf.voters_outgoing), sets.outgoing);
                assert_eq!(set(&conf.learners), sets.learners);
                assert_eq!(set(&conf.learners_next), sets.next);
                assert_eq!(conf.clone().normalized().unwrap(), conf);
            }
            Err(error) => {
                refused += 1;
                assert_eq!(next, None, "{change:?} refused: {error}");
            }
        }
    }
    assert!(done > 5_000 && refused > 5_000, "{done} done, {refused} refused");
}

fn naive_change(now: &Sets, change: &ConfChangeV2) -> Option<Sets> {
    let joint = !now.outgoing.is_empty();
    let mut next = now.clone();
    if change.leaves_joint() {
        next.outgoing.clear();
        next.learners.append(&mut next.next);
        return joint.then_some(next);
    }
    let enters = change.changes.len() > 1 || change.transition != Transition::Auto;
    if joint {
        return None;
    }
    if enters {
        next.outgoing = now.voters.clone();
    }
    for Change { kind, node } in &change.changes {
        next.voters.remove(node);
        next.learners.remove(node);
        next.next.remove(node);
        match kind {
            ChangeKind::AddNode => next.voters.insert(*node),
            ChangeKind::AddLearnerNode if next.outgoing.contains(node) => next.next.insert(*node),
            ChangeKind::AddLearnerNode => next.learners.insert(*node),
            _ => false,
        };
    }
    let moved = now.voters.symmetric_difference(&next.voters).count();
    (!next.voters.is_empty() && (enters || moved <= 1)).then_some(next)
}

/// Quorums of a configuration and the next overlap, whatever the change (R15).
#[test]
fn quorums_before_and_after_every_change_overlap() {
    let mut dice = Dice(5);
    let mut conf = ConfState::of([1, 2, 3].map(NodeId));
    for _ in 0..5_000 {
        let kinds = [ChangeKind::AddNode, ChangeKind::AddLearnerNode, ChangeKind::RemoveNode];
        let changes = (0..dice.below(4))
            .map(|_| Change { kind: kinds[dice.below(3) as usize], node: NodeId(1 + dice.below(5)) })
            .collect();
        let change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
        let Ok(next) = conf.changed(&change) else { continue };
        for mask in 0..32u64 {
            let inside = |id: NodeId| mask >> (id.0 - 1) & 1 == 1;
            let wins = |conf: &ConfState, yes: &dyn Fn(NodeId) -> bool| {
                verdict_jointly(conf.sides(), |id| Some(yes(id))) == Verdict::Won
            };
            let both = wins(&conf, &inside) && wins(&next, &|id| !inside(id));
            assert!(!both, "{conf:?} and {next:?} can decide apart: {mask:b}");
        }
        conf = next;
    }
}

#[test]
fn configuration_changes_survive_their_bytes_and_garbage_does_not_panic() {
    let mut dice = Dice(6);
    for _ in 0..20_000 {
        let kinds =
            [ChangeKind::AddNode, ChangeKind::RemoveNode, ChangeKind::UpdateNode, ChangeKind::AddLearnerNode];
        let some = |dice: &mut Dice| Change {
            kind: kinds[dice.below(4) as usize],
            node: NodeId(dice.below(1 << 31) << dice.below(33)),
        };
        let context: Vec<u8> = (0..dice.below(5)).map(|_| dice.below(256) as u8).collect();
        let old =
            ConfChange { id: dice.below(1 << 30), change: some(&mut dice), context: context.clone().into() };
        let transitions = [Transition::Auto, Transition::JointImplicit, Transition::JointExplicit];
        let new = ConfChangeV2 {
            transition: transitions[dice.below(3) as usize],
            changes: (0..dice.below(3)).map(|_| some(&mut dice)).collect(),
            context: context.into(),
        };
        assert_eq!(ConfChange::decode(&old.encode()).unwrap(), old);
        let mut bytes = new.encode();
        assert_eq!(ConfChangeV2::decode(EntryKind::ConfChangeV2, &bytes).unwrap(), new);
        if let Some(at) = (!bytes.is_empty()).then(|| dice.below(bytes.len() as u64) as usize) {
            bytes[at] ^= 1 << dice.below(8);
            let _ = ConfChangeV2::decode(EntryKind::ConfChangeV2, &bytes);
            bytes.truncate(at);
            let _ = ConfChangeV2::decode(EntryKind::ConfChange, &bytes);
        }
    }
    // As protobuf writes them.
    let add = ConfChange {
        id: 7,
        change: Change { kind: ChangeKind::RemoveNode, node: NodeId(300) },
        context: [9].into(),
    };
    assert_eq!(add.encode(), [0x08, 7, 0x10, 1, 0x18, 0xac, 0x02, 0x22, 1, 9]);
    assert_eq!(ConfChangeV2::default().encode(), []);
}

#[test]
fn what_contradicts_itself_does_not_start() {
    let entry = |term, index| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Normal,
        data: [].into(),
    };
    let start = |commit, applied, begin: (u64, u64), entries: Vec<Entry>| {
        let conf_state = ConfState::of([NodeId(1)]);
        let snapshot = SnapshotMeta { conf_state, index: Index(begin.0), term: Term(begin.1) };
        let hard_state = HardState { term: Term(9), vote: None, commit: Index(commit) };
        let restored = Restored { hard_state, snapshot, entries, applied: Index(applied) };
        Raft::new(Config::new(NodeId(1), 1), restored).map(|raft| raft.hard_state().commit.0)
    };
    let two = || vec![entry(1, 5), entry(2, 6)];
    assert_eq!(start(5, 4, (4, 1), two()), Ok(5));
    assert_eq!(start(4, 6, (4, 1), two()), Ok(6), "what is applied was committed (W2)");
    let short = Error::LogTooShort { last: Index(6), needed: Index(7) };
    assert_eq!(start(7, 4, (4, 1), two()), Err(short.clone()), "R10");
    assert_eq!(start(5, 7, (4, 1), two()), Err(short));
    assert_eq!(start(5, 3, (4, 1), two()), Err(Error::Missing { begin: Index(4), applied: Index(3) }));
    assert_eq!(start(3, 3, (3, 1), two()), Err(Error::Gap { index: Index(4), found: Index(5) }));
    assert_eq!(start(4, 4, (4, 2), two()), Err(Error::TermsFall { index: Index(5) }));
}
