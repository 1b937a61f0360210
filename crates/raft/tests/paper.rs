//! The claims of the Raft paper ("In search of an understandable consensus algorithm", extended
//! version), section 5 and 8, and of the thesis, chapters 3, 4, 6.4 and 9.6: one test each, named
//! after the section. What takes a whole story is a golden script instead; the list at the end says
//! which.
#![allow(clippy::unwrap_used)]

mod support;

use raft::*;
use support::Cluster;

/// Member 1 of `voters`, whose log has these terms, everything durable and nothing committed.
fn member(voters: u64, terms: &[u64]) -> Raft {
    let entries = terms.iter().zip(1..).map(|(term, index)| entry(*term, index)).collect();
    let term = Term(terms.last().copied().unwrap_or(0));
    let conf_state = ConfState::of((1..=voters).map(NodeId));
    let snapshot = SnapshotMeta { conf_state, ..SnapshotMeta::default() };
    let hard_state = HardState { term, ..HardState::default() };
    let config = Config { pre_vote: false, ..Config::new(NodeId(1), 7) };
    Raft::new(config, Restored { hard_state, snapshot, entries, applied: Index(0) }).unwrap()
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: [].into() }
}

fn from(id: u64, term: u64, body: Body) -> Message {
    Message { from: NodeId(id), to: NodeId(1), term: Term(term), body }
}

fn append(prev: (u64, u64), entries: Vec<Entry>, commit: u64) -> Body {
    let (prev_index, prev_term) = (Index(prev.0), Term(prev.1));
    Body::Append { prev_index, prev_term, entries, commit: Index(commit) }
}

fn heartbeat() -> Body {
    Body::Heartbeat { commit: Index(0), context: [].into() }
}

fn vote(last_index: u64, last_term: u64) -> Body {
    let (last_index, last_term) = (Index(last_index), Term(last_term));
    Body::Vote(Candidacy { last_index, last_term, transfer: false })
}

fn yes() -> Body {
    Body::VoteResponse(Answer::default())
}

fn no() -> Body {
    Body::VoteResponse(Answer { reject: true, ..Answer::default() })
}

fn matched(index: u64) -> Body {
    Body::AppendResponse { index: Index(index), reject: None }
}

/// Carries out everything at once; returns what was sent and applied.
fn settle(raft: &mut Raft) -> (Vec<Message>, Vec<Entry>) {
    let (mut sent, mut applied) = (Vec::new(), Vec::new());
    while let Some(ready) = raft.ready() {
        sent.extend(ready.messages);
        if let Some(persist) = ready.persist {
            raft.persisted(persist.id);
        }
        sent.extend(ready.promises);
        if let Some(last) = ready.committed.last() {
            raft.applied(last.index);
        }
        applied.extend(ready.committed);
    }
    (sent, applied)
}

fn step(raft: &mut Raft, message: Message) -> Vec<Message> {
    raft.step(message);
    settle(raft).0
}

/// Member 1 of `voters`, elected by as few as possible.
fn leader(voters: u64, terms: &[u64]) -> Raft {
    let mut raft = member(voters, terms);
    raft.campaign();
    settle(&mut raft);
    let term = raft.hard_state().term.0;
    for id in 2..=voters / 2 + 1 {
        step(&mut raft, from(id, term, yes()));
    }
    assert_eq!(raft.leader(), Some(NodeId(1)));
    raft
}

fn role(raft: &Raft) -> (RoleKind, u64) {
    let status = raft.status();
    (status.role, status.hard_state.term.0)
}

fn terms(raft: &mut Raft, disk: &mut Vec<Entry>) -> Vec<u64> {
    while let Some(ready) = raft.ready() {
        if let Some(persist) = ready.persist {
            if let Some(first) = persist.entries.first() {
                disk.retain(|e| e.index < first.index);
            }
            disk.extend(persist.entries);
            raft.persisted(persist.id);
        }
    }
    disk.iter().map(|e| e.term.0).collect()
}

#[test]
fn s5_1_whoever_sees_a_higher_term_takes_it_and_follows() {
    for mut raft in [member(3, &[1]), leader(3, &[1])] {
        step(&mut raft, from(2, 9, append((0, 0), vec![], 0)));
        assert_eq!(role(&raft), (RoleKind::Follower, 9));
        assert_eq!(raft.leader(), Some(NodeId(2)));
    }
    let mut candidate = member(3, &[1]);
    candidate.campaign();
    step(&mut candidate, from(2, 9, heartbeat()));
    assert_eq!(role(&candidate), (RoleKind::Follower, 9));
}

#[test]
fn s5_1_requests_of_a_stale_term_change_nothing() {
    let mut raft = leader(3, &[1]);
    let before = raft.status();
    for body in [append((0, 0), vec![entry(1, 1)], 1), heartbeat(), vote(9, 1), matched(1), no()] {
        let sent = step(&mut raft, from(2, 1, body));
        assert!(sent.iter().all(|m| m.term == Term(2)), "only ever told that time has moved on");
    }
    assert_eq!(raft.status(), before);
}

#[test]
fn s5_2_members_start_as_followers() {
    assert_eq!(role(&member(3, &[])), (RoleKind::Follower, 0));
}

#[test]
fn s5_2_a_leader_sends_heartbeats_to_everyone_at_every_interval() {
    let mut raft = leader(3, &[]);
    settle(&mut raft);
    for _ in 0..5 {
        raft.tick();
        let to: Vec<_> = settle(&mut raft).0.iter().map(|m| (m.to.0, m.body.name())).collect();
        assert_eq!(to, [(2, "MsgHeartbeat"), (3, "MsgHeartbeat")]);
    }
}

#[test]
fn s5_2_silence_makes_a_candidate_that_votes_for_itself_and_asks_everyone() {
    let mut raft = member(3, &[]);
    let mut sent = Vec::new();
    while sent.is_empty() {
        raft.tick();
        sent = settle(&mut raft).0;
    }
    assert_eq!(role(&raft), (RoleKind::Candidate, 1));
    assert_eq!(raft.hard_state().vote, Some(NodeId(1)));
    assert_eq!(sent.iter().map(|m| (m.to.0, m.term.0)).collect::<Vec<_>>(), [(2, 1), (3, 1)]);
}

#[test]
fn s5_2_a_majority_of_votes_elects_and_nothing_less_does() {
    for (voters, grants, denials, expected) in [
        (1, 0, 0, RoleKind::Leader),
        (3, 1, 0, RoleKind::Leader),
        (3, 1, 1, RoleKind::Leader),
        (3, 0, 1, RoleKind::Candidate),
        (3, 0, 2, RoleKind::Follower),
        (5, 2, 2, RoleKind::Leader),
        (5, 1, 2, RoleKind::Candidate),
        (5, 1, 3, RoleKind::Follower),
        (4, 1, 1, RoleKind::Candidate),
        (4, 1, 2, RoleKind::Follower),
        (4, 2, 1, RoleKind::Leader),
    ] {
        let mut raft = member(voters, &[]);
        raft.campaign();
        settle(&mut raft);
        for id in 2..2 + denials {
            step(&mut raft, from(id, 1, no()));
        }
        for id in 2 + denials..2 + denials + grants {
            step(&mut raft, from(id, 1, yes()));
            step(&mut raft, from(id, 1, yes())); // Said twice, counted once.
        }
        assert_eq!(raft.status().role, expected, "{grants} yes and {denials} no of {voters}");
    }
}

#[test]
fn s5_2_one_vote_per_term_first_come_first_served() {
    let mut raft = member(3, &[]);
    let answer = |raft: &mut Raft, id| {
        let sent = step(raft, from(id, 1, vote(0, 0)));
        sent.iter().map(|m| m.body == yes()).collect::<Vec<_>>()
    };
    assert_eq!(answer(&mut raft, 2), [true]);
    assert_eq!(answer(&mut raft, 3), [false]);
    assert_eq!(answer(&mut raft, 2), [true], "asked again by the same");
}

#[test]
fn s5_2_a_candidate_gives_up_when_it_hears_the_leader_of_its_term() {
    for body in [append((0, 0), vec![], 0), heartbeat()] {
        let mut raft = member(3, &[]);
        raft.campaign();
        settle(&mut raft);
        step(&mut raft, from(3, 1, body));
        assert_eq!((role(&raft), raft.leader()), ((RoleKind::Follower, 1), Some(NodeId(3))));
    }
}

#[test]
fn s5_2_election_timeouts_are_spread_between_one_and_two_timeouts() {
    let mut seen = [0; 21];
    let mut raft = member(3, &[]);
    for _ in 0..2000 {
        let term = raft.hard_state().term;
        let mut ticks = 0;
        while raft.hard_state().term == term {
            raft.tick();
            settle(&mut raft);
            ticks += 1;
        }
        seen[ticks] += 1;
    }
    assert!(seen[..10].iter().all(|n| *n == 0) && seen[20] == 0, "{seen:?}");
    assert!(seen[10..20].iter().all(|n| *n > 120), "{seen:?}");
}

#[test]
fn s5_3_an_entry_goes_to_everyone_with_the_place_before_it() {
    let mut raft = leader(3, &[1]);
    settle(&mut raft);
    step(&mut raft, from(2, 2, matched(2)));
    raft.propose(vec![Proposal { id: 0, kind: EntryKind::Normal, data: [1].into(), only_in: None }]);
    let sent = settle(&mut raft).0;
    let Body::Append { prev_index, prev_term, entries, .. } = &sent[0].body else { panic!() };
    assert_eq!((prev_index.0, prev_term.0), (2, 2));
    assert_eq!(entries.iter().map(|e| (e.index.0, e.term.0)).collect::<Vec<_>>(), [(3, 2)]);
}

#[test]
fn s5_3_a_majority_commits_with_all_that_comes_before() {
    for (acks, committed) in [(&[][..], false), (&[2][..], false), (&[2, 3][..], true), (&[5, 4][..], true)] {
        let mut raft = leader(5, &[1, 1]);
        for id in acks {
            raft.step(from(*id, 2, matched(3)));
        }
        let applied = settle(&mut raft).1;
        let expected: &[u64] = if committed { &[1, 2, 3] } else { &[] };
        assert_eq!(applied.iter().map(|e| e.index.0).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn s5_3_followers_learn_what_is_committed_and_apply_it_in_order() {
    let mut raft = member(3, &[1]);
    raft.step(from(2, 1, append((1, 1), vec![entry(1, 2), entry(1, 3)], 2)));
    assert_eq!(settle(&mut raft).1, [entry(1, 1), entry(1, 2)]);
    raft.step(from(2, 1, append((3, 1), vec![], 9)));
    assert_eq!(settle(&mut raft).1, [entry(1, 3)]);
    // No further than what this message has shown to match: entry 2 may be another one there.
    let mut raft = member(3, &[1, 1]);
    raft.step(from(2, 2, append((1, 1), vec![], 2)));
    assert_eq!(settle(&mut raft).1, [entry(1, 1)]);
}

#[test]
fn s5_3_an_append_is_refused_unless_the_place_before_matches() {
    let refused = |prev, hint: (u64, u64)| {
        let mut raft = member(3, &[1, 2]);
        let sent = step(&mut raft, from(2, 2, append(prev, vec![], 0)));
        let reject = Some(Rejection { hint: Index(hint.0), hint_term: Term(hint.1) });
        assert_eq!(sent[0].body, Body::AppendResponse { index: Index(prev.0), reject });
    };
    refused((2, 1), (1, 1));
    refused((3, 2), (2, 2));
    let mut raft = member(3, &[1, 2]);
    assert_eq!(step(&mut raft, from(2, 2, append((2, 2), vec![], 0)))[0].body, matched(2));
}

#[test]
fn s5_3_conflicting_entries_and_all_after_them_give_way() {
    for (prev, new, expected) in [
        ((2, 2), vec![entry(3, 3)], vec![1, 2, 3]),
        ((1, 1), vec![entry(3, 2), entry(4, 3)], vec![1, 3, 4]),
        ((0, 0), vec![entry(1, 1)], vec![1, 2]), // Nothing in conflict: nothing is cut off.
        ((0, 0), vec![entry(3, 1)], vec![3]),
    ] {
        let mut raft = member(3, &[1, 2]);
        let mut disk = vec![entry(1, 1), entry(2, 2)];
        raft.step(from(2, 4, append(prev, new, 0)));
        assert_eq!(terms(&mut raft, &mut disk), expected);
    }
}

#[test]
fn s5_3_a_leader_brings_every_log_of_figure_7_to_its_own() {
    let leads = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for follows in [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6][..],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ] {
        let conf_state = ConfState::of([1, 2, 3].map(NodeId));
        let mut cluster = Cluster::new(&conf_state, &[], |_| {});
        for (id, terms) in [(1, &leads[..]), (2, follows)] {
            let entries: Vec<_> = terms.iter().zip(1..).map(|(t, i)| entry(*t, i)).collect();
            let hard_state = HardState { term: Term(7), vote: None, commit: Index(1) };
            let snapshot = SnapshotMeta { conf_state: conf_state.clone(), ..SnapshotMeta::default() };
            cluster.start_from(NodeId(id), support::Disk { hard_state, snapshot, entries }, &|_| {});
        }
        // Member 3 is empty and votes for anyone.
        cluster.campaign(1);
        cluster.deliver();
        let (one, two) = (&cluster.members[&NodeId(1)].disk, &cluster.members[&NodeId(2)].disk);
        assert_eq!(one.entries, two.entries, "{follows:?}");
        assert_eq!(one.entries.len(), 11);
    }
}

#[test]
fn s5_3_messages_that_come_twice_or_late_do_no_harm() {
    let mut raft = member(3, &[1]);
    let first = from(2, 1, append((1, 1), vec![entry(1, 2)], 0));
    let second = from(2, 1, append((1, 1), vec![entry(1, 2), entry(1, 3)], 3));
    let mut disk = vec![entry(1, 1)];
    for message in [&second, &first, &second, &first] {
        raft.step(message.clone());
        assert_eq!(terms(&mut raft, &mut disk), [1, 1, 1]);
    }
}

#[test]
fn s5_4_1_a_request_for_a_vote_shows_the_end_of_the_log() {
    let mut raft = member(3, &[1, 4, 4]);
    raft.campaign();
    let sent = settle(&mut raft).0;
    assert_eq!(sent[0].body, vote(3, 4));
}

#[test]
fn s5_4_1_no_vote_for_a_log_that_is_less_complete() {
    for (own, index, term, granted) in [
        (&[1][..], 1, 1, true),
        (&[1][..], 2, 1, true),
        (&[1, 1][..], 1, 1, false),
        (&[1][..], 1, 2, true),
        (&[1, 1][..], 1, 2, true),
        (&[2][..], 9, 1, false),
        (&[][..], 0, 0, true),
    ] {
        let mut raft = member(3, own);
        let sent = step(&mut raft, from(2, 9, vote(index, term)));
        let Body::VoteResponse(answer) = sent[0].body else { panic!() };
        assert_eq!(!answer.reject, granted, "{own:?} asked by {index}/{term}");
    }
}

#[test]
fn s5_4_2_only_entries_of_the_own_term_are_committed_by_counting() {
    for (index, committed) in [(1, 0), (2, 0), (3, 3)] {
        let mut raft = leader(3, &[1, 2]);
        step(&mut raft, from(2, 3, matched(index)));
        assert_eq!(raft.hard_state().commit.0, committed, "matched {index}");
    }
}

#[test]
fn s5_5_a_follower_that_is_away_is_asked_again() {
    let mut cluster = Cluster::voters(3);
    cluster.elect(1);
    cluster.crash(3);
    cluster.propose(1, "a");
    cluster.deliver();
    cluster.restart(3);
    cluster.tick(1, 1);
    cluster.deliver();
    assert_eq!(cluster.texts(3), ["a"]);
}

#[test]
fn s5_6_timers_alone_find_a_leader_again_and_again() {
    let mut cluster = Cluster::voters(5);
    for _ in 0..20 {
        let mut ticks = 0;
        let led = loop {
            ticks += 1;
            assert!(ticks < 200, "no leader for twenty election timeouts");
            (1..=5).for_each(|id| cluster.tick(id, 1));
            cluster.deliver();
            let leaders: Vec<_> =
                (1..=5).filter(|id| cluster.raft(*id).leader() == Some(NodeId(*id))).collect();
            if let [one] = leaders[..] {
                break one;
            }
        };
        cluster.crash(led);
        // Its peers still believe in it; let them notice.
        (1..=5).filter(|id| *id != led).for_each(|id| cluster.tick(id, 10));
        cluster.deliver();
        cluster.restart(led);
    }
}

#[test]
fn s8_a_leader_begins_with_an_empty_entry() {
    let mut raft = member(1, &[]);
    raft.campaign();
    assert_eq!(settle(&mut raft).1, [entry(1, 1)]);
}

#[test]
fn thesis_3_8_a_restart_remembers_term_vote_and_log() {
    let mut cluster = Cluster::voters(3);
    cluster.elect(1);
    cluster.propose(1, "a");
    cluster.deliver();
    let before = cluster.raft(2).hard_state();
    cluster.crash(2);
    cluster.restart(2);
    let after = cluster.raft(2).hard_state();
    assert_eq!((before.term, before.vote), (after.term, after.vote));
    assert_eq!(cluster.raft(2).status().last, Index(2));
}

#[test]
fn thesis_3_8_a_term_known_only_from_a_torn_write_is_written_before_anything_else() {
    // Entries come before the hard state in a write: the crash left entry 2/2, but not term 2.
    let conf_state = ConfState::of([1, 2, 3].map(NodeId));
    let snapshot = SnapshotMeta { conf_state, ..SnapshotMeta::default() };
    let hard_state = HardState { term: Term(1), vote: Some(NodeId(3)), commit: Index(1) };
    let entries = vec![entry(1, 1), entry(2, 2)];
    let restored = Restored { hard_state, snapshot, entries, applied: Index(1) };
    let mut raft = Raft::new(Config::new(NodeId(1), 1), restored).unwrap();
    let persist = raft.ready().unwrap().persist.unwrap();
    let expected = HardState { term: Term(2), vote: None, commit: Index(1) };
    assert_eq!((persist.hard_state, persist.must_sync), (Some(expected), true));
}

#[test]
fn thesis_4_1_who_holds_two_changes_knows_that_the_first_is_committed() {
    let mut raft = member(3, &[1]);
    let change = |index, node| {
        let change: ConfChangeV2 = Change { kind: ChangeKind::AddNode, node: NodeId(node) }.into();
        Entry { kind: EntryKind::ConfChangeV2, data: change.encode().into(), ..entry(1, index) }
    };
    // The leader applied entry 2 before it appended entry 4; no message says that 2 is committed.
    raft.step(from(2, 1, append((1, 1), vec![change(2, 4), entry(1, 3)], 0)));
    assert_eq!(settle(&mut raft).1.len(), 0);
    raft.step(from(2, 1, append((3, 1), vec![change(4, 5)], 0)));
    assert_eq!(settle(&mut raft).1.len(), 2);
    assert_eq!(raft.hard_state().commit, Index(2));
}

#[test]
fn thesis_4_2_2_a_removed_leader_does_not_count_itself() {
    let mut cluster = Cluster::voters(2);
    cluster.elect(1);
    cluster.change(1, &Change { kind: ChangeKind::RemoveNode, node: NodeId(1) }.into());
    cluster.deliver();
    assert_eq!(cluster.raft(1).leader(), None);
    assert_eq!(cluster.raft(2).leader(), Some(NodeId(2)));
}

#[test]
fn thesis_4_2_3_a_member_that_was_removed_disturbs_nobody() {
    let mut cluster = Cluster::voters(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.change(1, &Change { kind: ChangeKind::RemoveNode, node: NodeId(3) }.into());
    cluster.deliver();
    cluster.heal();
    let term = cluster.raft(1).hard_state().term;
    for _ in 0..100 {
        (1..=3).for_each(|id| cluster.tick(id, 1));
        cluster.deliver();
        assert_eq!((cluster.raft(1).leader(), cluster.raft(1).hard_state().term), (Some(NodeId(1)), term));
    }
}

#[test]
fn thesis_4_3_both_majorities_must_agree_while_the_configuration_is_joint() {
    let joint = ConfState {
        voters: [1, 4, 5].map(NodeId).into(),
        voters_outgoing: [1, 2, 3].map(NodeId).into(),
        ..ConfState::default()
    };
    for (acks, committed) in [(&[2, 3][..], 0), (&[4, 5][..], 0), (&[2, 4][..], 1)] {
        let mut cluster = Cluster::new(&joint, &[], |config| config.pre_vote = false);
        cluster.campaign(1);
        cluster.deliver_where(|m| matches!(m.body, Body::Vote(_) | Body::VoteResponse(_)));
        for id in acks {
            cluster.receive(*id, 1, 1, matched(1));
        }
        assert_eq!(cluster.raft(1).hard_state().commit.0, committed, "{acks:?}");
    }
    // Nor is a leader elected by one of them alone.
    let mut cluster = Cluster::new(&joint, &[], |config| config.pre_vote = false);
    cluster.cut(1, 4);
    cluster.cut(1, 5);
    cluster.campaign(1);
    cluster.deliver();
    assert_eq!(cluster.raft(1).status().role, RoleKind::Candidate);
}

#[test]
fn thesis_6_4_a_deposed_leader_that_does_not_know_it_answers_no_read() {
    let mut cluster = Cluster::voters(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.tick(2, 10);
    cluster.tick(3, 10);
    cluster.elect(2);
    cluster.propose(2, "news");
    cluster.deliver();
    assert_eq!(cluster.raft(1).leader(), Some(NodeId(1)), "so it believes");
    cluster.with(1, |raft| raft.read_index(ReadId(1)));
    cluster.deliver();
    cluster.tick(1, 1);
    cluster.heal();
    cluster.deliver();
    cluster.tick(2, 1);
    cluster.deliver();
    assert_eq!(cluster.reads, [(NodeId(1), ReadOutcome::Dropped { id: ReadId(1) })]);
}

#[test]
fn thesis_6_4_the_number_of_a_read_round_is_never_used_again() {
    let mut raft = leader(3, &[]);
    for turn in 1..=3 {
        let term = raft.hard_state().term.0;
        let last = raft.status().last.0;
        step(&mut raft, from(2, term, matched(last)));
        raft.read_index(ReadId(turn));
        let Body::Heartbeat { context, .. } = &settle(&mut raft).0[0].body else { panic!() };
        assert_eq!(context[..], turn.to_be_bytes(), "in whatever term");
        raft.stalled();
        raft.campaign();
        settle(&mut raft);
        step(&mut raft, from(2, term + 1, yes()));
    }
}

#[test]
fn thesis_6_4_a_read_sees_every_write_that_was_applied_anywhere_before_it() {
    let mut cluster = Cluster::voters(3);
    cluster.elect(1);
    for (turn, id) in (1..=3).cycle().take(30).enumerate() {
        cluster.propose(1, "w");
        cluster.deliver();
        cluster.with(id, |raft| raft.read_index(ReadId(turn as u64)));
        let applied = cluster.members[&NodeId(1)].applied;
        cluster.deliver();
        let (_, ReadOutcome::Ready { index, .. }) = cluster.reads[turn] else { panic!() };
        assert!(index >= applied, "read at {index}, applied {applied}");
    }
}

#[test]
fn thesis_9_6_asking_changes_no_term() {
    let mut cluster = Cluster::voters(3);
    cluster.isolate(1);
    cluster.tick(1, 500);
    assert_eq!(cluster.raft(1).hard_state(), HardState::default());
    assert_eq!(cluster.raft(1).status().role, RoleKind::PreCandidate);
}

// As golden scripts, since they take a story: 5.4.2 figure 8 (an_entry_of_an_earlier_term...), 3.8
// (a_vote_leaves..., a_late_disk_acknowledgement..., a_restart...), 3.10 (leadership_is_handed...,
// a_transfer_is_given_up...), 4.2.1 (a_learner_...), 4.2.2 (a_leader_that_removed_itself...), 4.3
// (a_change_of_several..., the_next_leader...), 6.2 (a_leader_that_hears_no_quorum...), 6.4 (reads_...,
// a_late_echo...), 9.6 (a_pre_vote..., a_stuck_member...), 10.2.1 (a_leader_counts_itself...).
