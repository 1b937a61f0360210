//! The road of a write and of a read with one voter.
#![allow(clippy::unwrap_used)]

use node::*;

fn lone() -> Node {
    let mut config = Config::new(NodeId(1), 42);
    config.election_ticks = 10;
    let snapshot = SnapshotMeta { conf_state: ConfState::of([NodeId(1)]), ..SnapshotMeta::default() };
    Node::new(config, Restored { snapshot, ..Restored::default() }).unwrap()
}

fn handle(node: &mut Node, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    node.handle(input, &mut effects);
    effects
}

fn persists(effects: &[Effect]) -> Vec<&Persist> {
    effects.iter().filter_map(|e| if let Effect::Persist(p) = e { Some(p) } else { None }).collect()
}

fn applied(effects: &[Effect]) -> Vec<u64> {
    let batches = effects.iter().filter_map(|e| if let Effect::Apply(e) = e { Some(e) } else { None });
    batches.flatten().map(|e| e.index.0).collect()
}

#[test]
fn leads_and_commits_only_what_is_durable() {
    let mut node = lone();
    let effects = handle(&mut node, Input::Campaign);
    assert_eq!(persists(&effects)[0].id, PersistId(1));
    assert_eq!(node.leader(), None, "its own vote is not durable yet");

    let effects = handle(&mut node, Input::Persisted(PersistId(1)));
    assert_eq!(node.leader(), Some(NodeId(1)));
    assert_eq!(persists(&effects)[0].entries.len(), 1, "the no-op");
    assert_eq!(applied(&effects), []);

    assert!(handle(&mut node, Input::ReadIndex(ReadId(1))).is_empty(), "held until the no-op commits");

    let proposals =
        (0..3).map(|id| Proposal { id, kind: EntryKind::Normal, data: [7; 4].into(), only_in: None });
    let effects = handle(&mut node, Input::Propose(proposals.collect()));
    assert_eq!(persists(&effects)[0].entries.len(), 3);
    assert_eq!(applied(&effects), []);

    let effects = handle(&mut node, Input::Persisted(PersistId(2)));
    assert_eq!(applied(&effects), [1]);
    assert!(effects.contains(&Effect::ReadReady { id: ReadId(1), index: Index(1) }));
    let effects = handle(&mut node, Input::Persisted(PersistId(3)));
    assert_eq!(applied(&effects), [2, 3, 4]);
    handle(&mut node, Input::Applied(Index(4)));
    let effects = handle(&mut node, Input::ReadIndex(ReadId(2)));
    assert_eq!(effects, [Effect::ReadReady { id: ReadId(2), index: Index(4) }]);
    assert_eq!(handle(&mut node, Input::Applied(Index(4))), []);
}
