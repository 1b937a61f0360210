//! What a member says, and when, while its disk and its machine lag.
#![allow(clippy::unwrap_used)]

use node::*;

fn member(voters: u64) -> Node {
    let conf_state = ConfState::of((1..=voters).map(NodeId));
    let snapshot = SnapshotMeta { conf_state, ..SnapshotMeta::default() };
    Node::new(Config::new(NodeId(1), 3), Restored { snapshot, ..Restored::default() }).unwrap()
}

fn handle(node: &mut Node, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    node.handle(input, &mut effects);
    effects
}

fn receive(node: &mut Node, from: u64, term: u64, body: Body) -> Vec<Effect> {
    let message = Message { from: NodeId(from), to: NodeId(1), term: Term(term), body };
    handle(node, Input::Receive(message))
}

fn append(prev: (u64, u64), entries: Vec<Entry>, commit: u64) -> Body {
    let (prev_index, prev_term) = (Index(prev.0), Term(prev.1));
    Body::Append { prev_index, prev_term, entries, commit: Index(commit) }
}

fn entry(index: u64) -> Entry {
    Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, data: [1].into() }
}

fn add(index: u64, node: u64) -> (ConfChangeV2, Entry) {
    let change: ConfChangeV2 = Change { kind: ChangeKind::AddNode, node: NodeId(node) }.into();
    let data = change.encode().into();
    (change, Entry { kind: EntryKind::ConfChangeV2, data, ..entry(index) })
}

fn sent(effects: &[Effect]) -> Vec<&Body> {
    let batches = effects.iter().filter_map(|e| if let Effect::Send(m) = e { Some(m) } else { None });
    batches.flatten().map(|m| &m.body).collect()
}

#[test]
fn acknowledgements_wait_for_their_own_write_and_every_one_before() {
    let mut node = member(3);
    assert_eq!(sent(&receive(&mut node, 2, 1, append((0, 0), vec![entry(1)], 0))), [] as [&Body; 0]);
    assert_eq!(sent(&receive(&mut node, 2, 1, append((1, 1), vec![entry(2)], 0))), [] as [&Body; 0]);
    // The same again, nothing to write: what it acknowledges is still on its way to the disk.
    assert_eq!(sent(&receive(&mut node, 2, 1, append((0, 0), vec![entry(1)], 0))), [] as [&Body; 0]);
    // A heartbeat promises nothing.
    let heartbeat = Body::Heartbeat { commit: Index(0), context: [5].into() };
    let echo = Body::HeartbeatResponse { context: [5].into() };
    assert_eq!(sent(&receive(&mut node, 2, 1, heartbeat)), [&echo]);

    let matched = |index| Body::AppendResponse { index: Index(index), reject: None };
    assert_eq!(sent(&handle(&mut node, Input::Persisted(PersistId(1)))), [&matched(1)]);
    assert_eq!(sent(&handle(&mut node, Input::Persisted(PersistId(2)))), [&matched(2), &matched(1)]);
}

#[test]
fn a_write_that_needs_no_sync_holds_nothing_back() {
    let mut node = member(3);
    receive(&mut node, 2, 1, append((0, 0), vec![entry(1)], 0));
    handle(&mut node, Input::Persisted(PersistId(1)));
    receive(&mut node, 2, 1, append((1, 1), vec![], 1));
    let effects = handle(&mut node, Input::Tick);
    assert!(matches!(&effects[..], [Effect::Persist(Persist { must_sync: false, .. })]), "{effects:?}");
    assert_eq!(sent(&receive(&mut node, 2, 1, append((1, 1), vec![], 1))).len(), 1);
}

#[test]
fn changes_that_a_snapshot_has_overtaken_do_not_touch_its_configuration() {
    let mut node = member(3);
    let (change, second) = add(2, 4);
    receive(&mut node, 2, 1, append((0, 0), vec![entry(1), second], 2));
    let effects = handle(&mut node, Input::Persisted(PersistId(1)));
    assert!(effects.iter().any(|e| matches!(e, Effect::Apply(entries) if entries.len() == 2)));
    // The machine takes its time. Meanwhile a snapshot comes, in which 4 is in and 3 is out.
    let conf_state = ConfState::of([1, 2, 4].map(NodeId));
    let meta = SnapshotMeta { conf_state: conf_state.clone(), index: Index(9), term: Term(1) };
    let snapshot = Snapshot { meta, data: [].into() };
    receive(&mut node, 2, 1, Body::Snapshot(snapshot.clone()));
    // Now it gets to entry 2, and then, before it knows better, to a removal of 4.
    handle(&mut node, Input::ApplyConfChange(change));
    let removal: ConfChangeV2 = Change { kind: ChangeKind::RemoveNode, node: NodeId(4) }.into();
    handle(&mut node, Input::ApplyConfChange(removal));
    handle(&mut node, Input::Applied(Index(2)));
    let effects = handle(&mut node, Input::Persisted(PersistId(2)));
    assert!(effects.contains(&Effect::Install(snapshot)));
    assert!(effects.contains(&Effect::Configured(conf_state.clone())));
    handle(&mut node, Input::Applied(Index(9)));
    assert_eq!(node.conf_state(), &conf_state);
}

#[test]
fn a_leader_whose_disk_does_not_answer_hands_over_after_an_election_timeout() {
    let mut node = member(3);
    let yes = Body::PreVoteResponse(Answer::default());
    handle(&mut node, Input::Campaign);
    receive(&mut node, 2, 1, yes);
    handle(&mut node, Input::Persisted(PersistId(1)));
    receive(&mut node, 2, 1, Body::VoteResponse(Answer::default()));
    assert_eq!(node.leader(), Some(NodeId(1)));
    // Its first entry is on the others' disks, and not on its own.
    for id in [2, 3] {
        receive(&mut node, id, 1, Body::AppendResponse { index: Index(1), reject: None });
    }
    for _ in 0..9 {
        assert!(!sent(&handle(&mut node, Input::Tick)).contains(&&Body::TimeoutNow));
        for id in [2, 3] {
            receive(&mut node, id, 1, Body::HeartbeatResponse { context: [].into() });
        }
    }
    assert!(sent(&handle(&mut node, Input::Tick)).contains(&&Body::TimeoutNow));
    assert_eq!(node.status().transferee, Some(NodeId(2)));
}

#[test]
fn a_campaign_asked_for_at_the_start_waits_for_the_founding_changes() {
    // A new cluster of one: its own addition is the first entry, committed and not yet applied.
    let (change, first) = add(1, 1);
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(1) };
    let restored = Restored { hard_state, entries: vec![first], ..Restored::default() };
    let mut node = Node::new(Config::new(NodeId(1), 3), restored).unwrap();
    let effects = handle(&mut node, Input::Campaign);
    assert!(matches!(&effects[..], [Effect::Apply(entries)] if entries.len() == 1), "{effects:?}");
    handle(&mut node, Input::ApplyConfChange(change));
    let effects = handle(&mut node, Input::Applied(Index(1)));
    let term = |e: &Effect| matches!(e, Effect::Persist(p) if p.hard_state.unwrap().term == Term(2));
    assert!(effects.iter().any(term), "{effects:?}");
    handle(&mut node, Input::Persisted(PersistId(1)));
    assert_eq!(node.leader(), Some(NodeId(1)));
}
