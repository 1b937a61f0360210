//! Two members and what they say to each other over real sockets.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Member, append, heartbeat, message, pair, snapshot};
use raft::{Answer, Body, Candidacy, Index, Rejection, Term};

/// One of every kind that is sent without a database.
fn one_of_each(from: u64, to: u64) -> Vec<raft::Message> {
    let context: Arc<[u8]> = b"ctx".as_slice().into();
    let candidacy = Candidacy { last_index: Index(9), last_term: Term(3), transfer: true };
    let answer = Answer { reject: true, commit: Index(7), commit_term: Term(2) };
    let reject = Some(Rejection { hint: Index(5), hint_term: Term(2) });
    let bodies = [
        Body::AppendResponse { index: Index(8), reject: None },
        Body::AppendResponse { index: Index(8), reject },
        Body::Vote(candidacy),
        Body::VoteResponse(answer),
        Body::PreVote(Candidacy { transfer: false, ..candidacy }),
        Body::PreVoteResponse(Answer::default()),
        Body::Heartbeat { commit: Index(4), context: Arc::clone(&context) },
        Body::HeartbeatResponse { context: Arc::clone(&context) },
        Body::TransferLeader,
        Body::TimeoutNow,
        Body::ReadIndexResponse { index: Index(12), context: Arc::clone(&context) },
    ];
    let mut all: Vec<_> = bodies.into_iter().map(|body| message(from, to, 4, body)).collect();
    all.push(message(from, to, 0, Body::ReadIndex { context }));
    all.push(message(from, to, 0, Body::Propose { entries: vec![common::entry(0, 0, b"data")] }));
    all
}

#[test]
fn everything_that_members_say_arrives_as_it_was_said() {
    let (one, two) = pair();
    two.hears(&one);
    let before = two.record.seen().messages.len();
    let all = one_of_each(1, 2);
    one.peers.send(all.clone());
    let seen = two.record.once("all messages", |seen| seen.messages.len() >= before + all.len());
    assert_eq!(seen.messages[before..], all, "in order, on one stream");
}

#[test]
fn appends_arrive_in_order_and_as_they_were() {
    let (one, two) = pair();
    two.hears(&one);
    let mut appends = Vec::new();
    let mut at = 0;
    for (count, size) in [(1, 10), (3, 0), (500, 300), (1, 3_000_000), (2, 5)] {
        appends.push(append(1, 2, 5, at, count, &vec![7; size]));
        at += count;
    }
    // A jump back, as after a rejection, and a new term.
    appends.push(append(1, 2, 5, 2, 4, b"again"));
    appends.push(append(1, 2, 6, at, 2, b"term six"));
    for append in &appends {
        one.peers.send(vec![append.clone()]);
    }
    let is_append = |message: &&raft::Message| matches!(message.body, Body::Append { .. });
    let wanted = appends.len();
    let seen =
        two.record.once("all appends", |seen| seen.messages.iter().filter(is_append).count() >= wanted);
    let came: Vec<_> = seen.messages.iter().filter(is_append).cloned().collect();
    assert!(came == appends);
}

#[test]
fn a_commit_index_alone_arrives_though_nothing_follows_it() {
    let (one, two) = pair();
    two.hears(&one);
    // Without entries, after two that came close together: it may wait for the next, but not for ever.
    let appends = [append(1, 2, 5, 0, 1, b""), append(1, 2, 5, 1, 1, b""), append(1, 2, 5, 2, 0, b"")];
    one.peers.send(appends.to_vec());
    let last = appends.last().unwrap();
    two.record.wait("the commit index", |seen| seen.messages.contains(last));
}

#[test]
fn a_batch_is_received_as_one() {
    let (one, two) = pair();
    two.hears(&one);
    let (before, batches) = {
        let seen = two.record.seen();
        (seen.messages.len(), seen.batches)
    };
    one.peers.send((0..1000).map(|commit| heartbeat(1, 2, commit)).collect());
    let seen = two.record.once("a thousand", |seen| seen.messages.len() >= before + 1000);
    assert!(seen.batches - batches < 50, "{} calls", seen.batches - batches);
}

#[test]
fn a_database_travels_with_its_message() {
    let (one, two) = pair();
    let file = one.dir.path().join("out.db");
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(&file, &data).unwrap();
    one.peers.send_snapshot(snapshot(1, 2, 0x2f), file.clone());
    let sent = one.record.once("the verdict", |seen| !seen.sent.is_empty()).sent.clone();
    assert_eq!(sent, [(2, true)]);
    assert!(!file.exists(), "the sender's copy is removed");
    let seen = two.record.once("the database", |seen| !seen.snapshots.is_empty());
    let (message, path) = &seen.snapshots[0];
    assert_eq!(*message, snapshot(1, 2, 0x2f));
    assert_eq!(*path, two.snapshot_dir().join("000000000000002f.snap.db"));
    assert!(std::fs::read(path).unwrap() == data);
    drop(seen);
    assert_eq!(two.files(), ["000000000000002f.snap.db"]);
}

#[test]
fn peers_find_each_other_in_any_order_and_know_it() {
    let (one, two) = (Member::start(1), Member::start(2));
    one.knows(&two);
    assert_eq!(one.peers.active_since(2), None);
    // Two does not know one as a member yet, but has heard where it is.
    two.knows(&one);
    two.hears(&one);
    one.hears(&two);
    assert!(one.peers.active_since(2).is_some());
    one.peers.send(vec![heartbeat(1, 2, 1)]);
    two.peers.send(vec![heartbeat(2, 1, 1)]);
    one.record.wait("a heartbeat", |seen| !seen.messages.is_empty());
    two.record.wait("a heartbeat", |seen| !seen.messages.is_empty());
    let status = one.peers.status();
    assert_eq!(status.len(), 1);
    assert!(status[0].sent_bytes > 0 && status[0].received_bytes > 0, "{status:?}");
}
