//! Letters in, effects out: the order of a turn, proposals that wait for a leader, and how a lone voter
//! starts.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use node::*;

const AT: fn(u64) -> Duration = Duration::from_secs;

/// A member whose log holds `entries`, all of them committed and none applied, the last one a change of
/// the configuration.
fn pump(voters: u64, entries: u64) -> Pump {
    let conf_state = ConfState::of((1..=voters).map(NodeId));
    let snapshot = SnapshotMeta { conf_state, ..SnapshotMeta::default() };
    let entry =
        |index| Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, data: [7].into() };
    let hard_state = HardState { term: Term(entries.min(1)), vote: None, commit: Index(entries) };
    let entries: Vec<Entry> = (1..=entries).map(entry).collect();
    let configured = Index(entries.len() as u64);
    let restored = Restored { hard_state, snapshot, entries, applied: Index(0) };
    Pump::new(Node::new(Config::new(NodeId(1), 3), restored).unwrap(), Index(0), configured)
}

/// A turn at second `now` with these letters.
fn turn(pump: &mut Pump, now: u64, post: impl FnOnce(&mut Letters)) -> Vec<Effect> {
    let (mut letters, mut effects) = (Letters::default(), Vec::new());
    post(&mut letters);
    pump.turn(&mut letters, AT(now), &mut effects);
    assert!(letters.is_empty(), "{letters:?}");
    effects
}

fn receive<const N: usize>(letters: &mut Letters, messages: [Message; N]) {
    assert_eq!(letters.receive(messages), 0);
}

fn message(from: u64, term: u64, body: Body) -> Message {
    Message { from: NodeId(from), to: NodeId(1), term: Term(term), body }
}

fn heartbeat(from: u64, term: u64) -> Message {
    message(from, term, Body::Heartbeat { commit: Index(0), context: [].into() })
}

fn proposal(from: u64) -> Message {
    let entry = Entry { term: Term(0), index: Index(0), kind: EntryKind::Normal, data: [9].into() };
    message(from, 0, Body::Propose { entries: vec![entry] })
}

/// Who sent the proposals among these, and to whom.
fn passed_on(effects: &[Effect]) -> Vec<(u64, u64)> {
    let sent = effects.iter().filter_map(|e| if let Effect::Send(sent) = e { Some(sent) } else { None });
    let proposals = sent.flatten().filter(|m| matches!(m.body, Body::Propose { .. }));
    proposals.map(|m| (m.from.0, m.to.0)).collect()
}

#[test]
fn a_proposal_that_finds_no_leader_waits_for_one_and_goes_on_as_this_members_own() {
    let mut pump = pump(3, 0);
    assert_eq!(passed_on(&turn(&mut pump, 1, |letters| receive(letters, [proposal(2), proposal(3)]))), []);
    assert_eq!(passed_on(&turn(&mut pump, 2, |letters| letters.tick(false))), []);
    let led = turn(&mut pump, 5, |letters| receive(letters, [heartbeat(2, 1)]));
    assert_eq!(passed_on(&led), [(1, 2), (1, 2)], "also to the one who sent it, who may lead by now");
    assert_eq!(passed_on(&turn(&mut pump, 6, |letters| letters.tick(false))), [], "once");
}

#[test]
fn a_proposal_does_not_wait_for_longer_than_its_client() {
    let mut pump = pump(3, 0);
    turn(&mut pump, 1, |letters| receive(letters, [proposal(2)]));
    let late = turn(&mut pump, 7, |letters| receive(letters, [heartbeat(2, 1)]));
    assert_eq!(passed_on(&late), []);
    // What comes afterwards is as good as ever.
    let next = turn(&mut pump, 8, |letters| receive(letters, [proposal(3)]));
    assert_eq!(passed_on(&next), [(1, 2)]);
}

/// One change of the configuration is under way at a time (R15). Whoever asks for another one through a
/// follower hears nothing of it if the leader drops it, so it waits; what was asked with it does not.
#[test]
fn a_change_of_the_configuration_waits_for_the_one_before_it() {
    let mut pump = pump(1, 0);
    turn(&mut pump, 0, |letters| letters.tick(false));
    turn(&mut pump, 0, |letters| letters.persisted(PersistId(1)));
    turn(&mut pump, 0, |letters| letters.persisted(PersistId(2)));
    turn(&mut pump, 0, |letters| letters.applied(Index(1), &mut Vec::new()));
    let change = |node| {
        let change = Change { kind: ChangeKind::AddLearnerNode, node: NodeId(node) };
        let change = ConfChange { id: node, change, context: [].into() };
        let kind = EntryKind::ConfChange;
        Entry { term: Term(0), index: Index(0), kind, data: change.encode().into() }
    };
    let Message { body: Body::Propose { entries: put }, .. } = proposal(2) else { unreachable!() };
    let asked = message(2, 0, Body::Propose { entries: [vec![change(7), change(8)], put].concat() });
    let appended = |effects: &[Effect]| -> Vec<EntryKind> {
        let persisted =
            effects.iter().filter_map(|e| if let Effect::Persist(p) = e { Some(p) } else { None });
        persisted.flat_map(|persist| &persist.entries).map(|entry| entry.kind).collect()
    };
    let effects = turn(&mut pump, 1, |letters| receive(letters, [asked]));
    assert_eq!(appended(&effects), [EntryKind::ConfChange, EntryKind::Normal]);
    let Some(Effect::Persist(persist)) = effects.iter().rfind(|e| matches!(e, Effect::Persist(_))) else {
        panic!("{effects:?}")
    };
    let (id, last) = (persist.id, persist.entries.last().unwrap().index);
    let effects = turn(&mut pump, 2, |letters| letters.persisted(id));
    assert_eq!(appended(&effects), [], "committed is not applied");
    let applied = ConfChangeV2 {
        changes: vec![Change { kind: ChangeKind::AddLearnerNode, node: NodeId(7) }],
        ..ConfChangeV2::default()
    };
    let effects = turn(&mut pump, 3, |letters| letters.applied(last, &mut vec![applied]));
    assert_eq!(appended(&effects), [EntryKind::ConfChange]);
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    let mut pump = pump(3, 0);
    let large = |bytes: usize| {
        let Message { body: Body::Propose { mut entries }, .. } = proposal(2) else { unreachable!() };
        entries[0].data = vec![0; bytes].into();
        message(2, 0, Body::Propose { entries })
    };
    turn(&mut pump, 1, |letters| receive(letters, [large(15 << 20), large(2 << 20), large(1)]));
    let led = turn(&mut pump, 1, |letters| receive(letters, [heartbeat(2, 1)]));
    assert_eq!(passed_on(&led).len(), 2);
}

#[test]
fn whoever_leads_no_more_hears_it_before_anything_else_of_that_turn() {
    let mut pump = pump(1, 0);
    turn(&mut pump, 0, |letters| letters.tick(false));
    turn(&mut pump, 0, |letters| letters.persisted(PersistId(1)));
    assert_eq!(pump.node().leader(), Some(NodeId(1)));
    let effects = turn(&mut pump, 1, |letters| {
        letters.persisted(PersistId(2));
        receive(letters, [heartbeat(2, 9)]);
    });
    let at = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    assert_eq!(at(|effect| matches!(effect, Effect::SoftState { .. })), 0, "{effects:?}");
    // The rest stays as it came about: what was committed before the message was read is before its answer.
    let (apply, send) = (at(|e| matches!(e, Effect::Apply(_))), at(|e| matches!(e, Effect::Persist(_))));
    assert!(apply < send, "{effects:?}");
}

/// A follower that has heard its leader, and how many silent ticks it bears before it campaigns.
fn follower() -> (Pump, u64) {
    let led = || {
        let mut pump = pump(3, 0);
        turn(&mut pump, 0, |letters| receive(letters, [heartbeat(2, 1)]));
        pump
    };
    let mut twin = led();
    let campaigns = |_: &u64| {
        turn(&mut twin, 0, |letters| letters.tick(false));
        twin.status().role != RoleKind::Follower
    };
    let patience = (0..100).find(campaigns).unwrap();
    let mut pump = led();
    for _ in 0..patience {
        turn(&mut pump, 0, |letters| letters.tick(false));
    }
    assert_eq!(pump.status().role, RoleKind::Follower);
    (pump, patience)
}

#[test]
fn what_others_say_is_heard_before_time_is_judged_to_have_run_out() {
    let (mut pump, _) = follower();
    turn(&mut pump, 0, |letters| {
        letters.tick(false);
        receive(letters, [heartbeat(2, 1)]);
    });
    assert_eq!(pump.status().role, RoleKind::Follower);
}

/// R21: what waited during a pause is not judged by the time that the pause took.
#[test]
fn what_tells_of_a_pause_is_seen_before_the_tick_that_follows_it() {
    let (mut pump, patience) = follower();
    for _ in 0..patience {
        turn(&mut pump, 0, |letters| letters.tick(true));
        assert_eq!(pump.status().role, RoleKind::Follower);
    }
}

#[test]
fn a_lone_voter_campaigns_as_soon_as_it_knows_that_it_is_alone() {
    let mut pump = pump(1, 4);
    let apply_to = |pump: &mut Pump, index: u64| {
        turn(pump, 0, |letters| {
            letters.applied(Index(index), &mut Vec::new());
            letters.tick(false);
        })
    };
    let campaigns = |effects: &[Effect]| {
        let persists = |effect: &Effect| matches!(effect, Effect::Persist(persist) if persist.must_sync);
        effects.iter().any(persists)
    };
    let effects = turn(&mut pump, 0, |letters| letters.tick(false));
    assert!(matches!(&effects[..], [Effect::Apply(entries)] if entries.len() == 4), "{effects:?}");
    assert!(!campaigns(&apply_to(&mut pump, 3)));
    assert_eq!(pump.applied(), Index(3));
    assert!(campaigns(&apply_to(&mut pump, 4)));
}
