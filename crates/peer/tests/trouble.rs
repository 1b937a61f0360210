//! Peers that are dead, slow, elsewhere, cut off, of another cluster, or no peers any more.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::raw::{Impostor, Wire, listen_to};
use common::{Member, append, heartbeat, pair, snapshot, until};
use peer::client::{self, ClientError};
use raft::Body;

#[test]
fn a_process_that_ends_is_known_to_have_ended() {
    let (one, two) = pair();
    until("one hears two", || one.peers.active_since(2).is_some());
    one.hears(&two);
    two.hears(&one);
    assert!(one.record.seen().gone.is_empty());
    let start = Instant::now();
    two.peers.stop();
    let gone = one.record.once("that two is gone", |seen| !seen.gone.is_empty()).gone[0];
    assert_eq!(gone.0, 2);
    let took = gone.1.duration_since(start);
    assert!(took < Duration::from_millis(500), "{took:?}");
    // It is said again: whoever has to know may have been looking elsewhere.
    one.record.wait("that it still is", |seen| seen.gone.len() >= 5);
    assert_eq!(one.peers.active_since(2), None);
    assert_eq!(one.peers.status()[0].disconnects, 1);
}

#[test]
fn who_never_was_there_is_not_gone() {
    let one = Member::start(1);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one.peers.add(2, &[format!("http://{nobody}")]);
    one.peers.send(vec![heartbeat(1, 2, 1)]);
    one.record.wait("that it cannot be reached", |seen| !seen.unreachable.is_empty());
    // Some attempts later.
    for _ in 0..20 {
        let before = one.record.seen().unreachable.len();
        one.peers.send(vec![heartbeat(1, 2, 1)]);
        one.record.wait("another loss", |seen| seen.unreachable.len() > before);
    }
    assert!(one.record.seen().gone.is_empty());
}

#[test]
fn who_is_silent_is_not_gone() {
    let quick = |settings: &mut peer::Settings| settings.read_timeout = Duration::from_millis(300);
    let one = Member::start_on(1, TcpListener::bind("127.0.0.1:0").unwrap(), quick);
    let silent = Impostor::streaming(Vec::new());
    one.peers.add(2, std::slice::from_ref(&silent.url));
    until("streams", || one.peers.active_since(2).is_some());
    until("given up", || one.peers.status()[0].disconnects >= 2);
    assert!(silent.taken() >= 4, "dialled again");
    // Its streams are cut, but it still listens.
    silent.cut();
    let before = one.peers.status()[0].disconnects;
    until("given up again", || one.peers.status()[0].disconnects >= before + 2);
    assert!(one.record.seen().gone.is_empty());
}

#[test]
fn idle_streams_stay() {
    let quick = |settings: &mut peer::Settings| settings.read_timeout = Duration::from_millis(300);
    let start = |id| Member::start_on(id, TcpListener::bind("127.0.0.1:0").unwrap(), quick);
    let (one, two) = (start(1), start(2));
    one.knows(&two);
    two.knows(&one);
    one.hears(&two);
    two.hears(&one);
    let since = one.peers.active_since(2).unwrap();
    // Heartbeats of both streams, several times the patience of readers.
    until("heartbeats", || one.peers.status()[0].received_bytes >= 20 * 11);
    assert_eq!(one.peers.active_since(2), Some(since));
    // Probes go their own way meanwhile.
    one.record.wait("a round trip", |seen| seen.round_trips.contains(&2));
    let status = &one.peers.status()[0];
    assert!(status.round_trip.unwrap() < Duration::from_secs(1), "{status:?}");
    assert!(status.clock_difference.unwrap() < Duration::from_secs(1), "{status:?}");
}

#[test]
fn a_peer_that_starts_again_is_found_again() {
    let one = Member::start(1);
    let two = Member::start(2);
    let (url, address) = (two.url.clone(), two.url.trim_start_matches("http://").to_owned());
    one.knows(&two);
    two.knows(&one);
    two.hears(&one);
    two.peers.stop();
    one.record.wait("that two is gone", |seen| !seen.gone.is_empty());
    let listener = {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // The connections of the one before linger.
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(64).unwrap();
        TcpListener::from(socket)
    };
    let again = Member::start_on(2, listener, |_| {});
    assert_eq!(again.url, url);
    again.knows(&one);
    again.hears(&one);
    one.hears(&again);
    one.peers.send(vec![heartbeat(1, 2, 9)]);
    again.record.wait("a heartbeat", |seen| seen.messages.contains(&heartbeat(1, 2, 9)));
    until("one hears two", || one.peers.active_since(2).is_some());
}

#[test]
fn a_peer_that_moves_is_found_where_it_is() {
    let (one, two) = (Member::start(1), Member::start(2));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one.peers.add(2, &[format!("http://{nobody}")]);
    one.peers.send(vec![heartbeat(1, 2, 1)]);
    one.record.wait("that it cannot be reached", |seen| !seen.unreachable.is_empty());
    one.peers.update(2, &[format!("http://{nobody}"), two.url.clone()]);
    two.knows(&one);
    one.hears(&two);
    until("one hears two", || one.peers.active_since(2).is_some());
}

#[test]
fn a_removed_member_is_told() {
    let (one, two) = pair();
    two.hears(&one);
    one.record.seen().removed.push(2);
    one.peers.remove(2);
    two.record.wait("that it is removed", |seen| seen.removed_here > 0);
    // Also by the answer to a message, when it has no stream to anyone.
    let three = Member::start(3);
    one.record.seen().removed.push(3);
    three.peers.add_remote(1, std::slice::from_ref(&one.url));
    three.peers.send(vec![heartbeat(3, 1, 1)]);
    three.record.wait("that it is removed", |seen| seen.removed_here > 0);
    assert!(one.record.seen().messages.is_empty());
}

#[test]
fn another_cluster_is_left_alone() {
    let one = Member::start(1);
    let foreign = |settings: &mut peer::Settings| settings.cluster_id = 77;
    let two = Member::start_on(2, TcpListener::bind("127.0.0.1:0").unwrap(), foreign);
    one.knows(&two);
    two.knows(&one);
    for _ in 0..10 {
        for (member, message) in [(&one, heartbeat(1, 2, 1)), (&two, heartbeat(2, 1, 1))] {
            let before = member.record.seen().unreachable.len();
            member.peers.send(vec![message]);
            member.record.wait("a loss", |seen| seen.unreachable.len() > before);
        }
    }
    for member in [&one, &two] {
        let seen = member.record.seen();
        assert!(seen.messages.is_empty() && seen.gone.is_empty() && seen.removed_here == 0);
        assert_eq!(member.peers.status()[0].active_since, None);
    }
}

#[test]
fn streams_that_make_no_sense_are_given_up() {
    let one = Member::start(1);
    let senseless = Impostor::streaming(vec![0xff; 64]);
    one.peers.add(2, std::slice::from_ref(&senseless.url));
    until("dialled again and again", || senseless.taken() >= 8);
    assert!(one.record.seen().messages.is_empty());
    assert_eq!(one.record.seen().failed, [""; 0]);
    // A frame that is one, with a message for somebody else, then one for us.
    let message = |to: u8| [&[0, 0, 0, 0, 0, 0, 0, 8][..], &[8, 8, 16, to, 24, 3, 32, 5]].concat();
    let strange = Impostor::streaming([message(9), message(1)].concat());
    one.peers.add(3, std::slice::from_ref(&strange.url));
    one.record.wait("the second", |seen| seen.messages.len() == 1);
    assert_eq!(one.peers.status()[1].received_failures, 1);
}

#[test]
fn a_wire_that_breaks_anywhere_is_mended() {
    let (one, two) = (Member::start(1), Member::start(2));
    let wire = Wire::to(&two);
    one.peers.add(2, std::slice::from_ref(&wire.impostor.url));
    let back = Wire::to(&one);
    two.peers.add(1, std::slice::from_ref(&back.impostor.url));
    let mut prev = 0;
    for round in 0..60 {
        // Anywhere in the heads, in the frames, between them.
        for wire in [&wire, &back] {
            wire.break_after(round * 37 % 900);
        }
        for _ in 0..5 {
            one.peers.send(vec![append(1, 2, 5, prev, 3, b"something to cut"), heartbeat(1, 2, prev)]);
            two.peers.send(vec![heartbeat(2, 1, prev)]);
            prev += 3;
        }
        if round % 10 == 9 {
            wire.break_after(u64::MAX);
            back.break_after(u64::MAX);
            two.hears(&one);
            one.hears(&two);
            let before = (one.record.seen().messages.len(), two.record.seen().messages.len());
            one.peers.send(vec![append(1, 2, 5, prev, 3, b"something to cut")]);
            two.peers.send(vec![heartbeat(2, 1, prev)]);
            one.record.wait("messages again", |seen| seen.messages.len() > before.0);
            two.record.wait("messages again", |seen| seen.messages.len() > before.1);
        }
        wire.impostor.cut();
        back.impostor.cut();
    }
    // What did arrive is what was said.
    for message in &two.record.seen().messages {
        match &message.body {
            Body::Append { prev_index, .. } => {
                assert_eq!(*message, append(1, 2, 5, prev_index.0, 3, b"something to cut"));
            }
            Body::Heartbeat { commit, .. } => assert_eq!(*message, heartbeat(1, 2, commit.0)),
            other => panic!("never said: {other:?}"),
        }
    }
    assert_eq!(two.record.seen().failed, [""; 0]);
    assert!(one.record.seen().gone.is_empty() && two.record.seen().gone.is_empty(), "both lived");
}

#[test]
fn a_slow_peer_does_not_delay_another() {
    let quick = |settings: &mut peer::Settings| settings.write_timeout = Duration::from_millis(700);
    let one = Member::start_on(1, TcpListener::bind("127.0.0.1:0").unwrap(), quick);
    let (fast, silent) = (Member::start(2), Impostor::streaming(Vec::new()));
    one.knows(&fast);
    fast.knows(&one);
    one.peers.add(3, std::slice::from_ref(&silent.url));
    fast.hears(&one);
    // Listens, and reads nothing.
    let slow = listen_to(&one, "msgapp", 3);
    until("a listener", || one.peers.status()[1].listening == 1);
    let data = vec![1; 1 << 20];
    let mut at = 0;
    let mut slowest = Duration::ZERO;
    while !one.record.seen().unreachable.contains(&3) {
        let start = Instant::now();
        one.peers.send(vec![append(1, 3, 5, at, 1, &data), append(1, 2, 5, at, 1, b"small")]);
        at += 1;
        fast.record.wait("its own", |seen| seen.messages.len() as u64 >= at);
        slowest = slowest.max(start.elapsed());
        assert!(at < 100_000);
    }
    assert!(slowest < Duration::from_millis(600), "{slowest:?}");
    until("the slow one is let go", || one.peers.status()[1].listening == 0);
    drop(slow);
}

#[test]
fn a_database_that_cannot_be_sent_is_told_and_removed() {
    let (one, two) = (Member::start(1), Member::start(2));
    let write = |name: &str| {
        let file = one.dir.path().join(name);
        std::fs::write(&file, b"database").unwrap();
        file
    };
    // Nobody knows it; nobody is there; it is of another mind.
    let files = [write("a"), write("b"), write("c"), one.dir.path().join("missing")];
    one.peers.send_snapshot(snapshot(1, 9, 4), files[0].clone());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one.peers.add(8, &[format!("http://{nobody}")]);
    one.peers.send_snapshot(snapshot(1, 8, 4), files[1].clone());
    one.peers.add(7, std::slice::from_ref(&two.url));
    one.peers.send_snapshot(snapshot(1, 7, 4), files[2].clone());
    one.peers.send_snapshot(snapshot(1, 7, 4), files[3].clone());
    let mut sent = one.record.once("four verdicts", |seen| seen.sent.len() == 4).sent.clone();
    sent.sort_unstable();
    assert_eq!(sent, [(7, false), (7, false), (8, false), (9, false)]);
    assert!(files.iter().all(|file| !file.exists()));
    let status = one.peers.status();
    let failures: Vec<_> = status.iter().map(|status| status.snapshot_send_failures).collect();
    assert_eq!(failures, [2, 1]);
    assert_eq!(two.files(), [""; 0]);
}

/// Whoever has sent a database hears of it when the receiver has made up its mind, and not before: what
/// comes next rests on its being there.
#[test]
fn a_database_has_arrived_when_its_receiver_says_so() {
    let (one, two) = pair();
    two.record.seen().keeps_receipts = true;
    for (at, expected) in [true, false, false].into_iter().enumerate() {
        let file = one.dir.path().join(at.to_string());
        std::fs::write(&file, b"database").unwrap();
        one.peers.send_snapshot(snapshot(1, 2, 4), file);
        let receipt = two.record.once("the database", |seen| !seen.receipts.is_empty()).receipts.remove(0);
        // Long enough for a hasty word to come; and other messages are not kept waiting meanwhile.
        let before = two.record.seen().messages.len();
        one.peers.send(vec![heartbeat(1, 2, 1)]);
        two.record.wait("a heartbeat", |seen| seen.messages.len() > before);
        assert_eq!(one.record.seen().sent.len(), at);
        match at {
            0 => receipt.taken(),
            1 => receipt.refused("it is odd"),
            _ => drop(receipt),
        }
        let sent = one.record.once("the verdict", |seen| seen.sent.len() > at).sent[at];
        assert_eq!(sent, (2, expected));
    }
}

#[test]
fn what_a_crash_has_left_is_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["0000000000000007.3.snap.db.part", "0000000000000009.snap.db", "lost+found", "x.part"];
    for name in names {
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let at = |settings: &mut peer::Settings| settings.snapshot_dir = dir.path().to_owned();
    let _one = Member::start_on(1, TcpListener::bind("127.0.0.1:0").unwrap(), at);
    let left: Vec<_> = names.into_iter().filter(|name| dir.path().join(name).exists()).collect();
    assert_eq!(left, names[1..]);
}

#[test]
fn small_questions_are_answered_within_their_time() {
    let mut two = Member::start(2);
    let mut other = std::mem::replace(&mut two.other, tokio::sync::mpsc::channel(1).1);
    let answering = std::thread::spawn(move || {
        let (request, answer) = other.blocking_recv().unwrap();
        let text = format!("{} {:?} {:?}", request.uri(), request.headers()["content-type"], request.body());
        answer.send(http::Response::new(text.into())).unwrap();
        // The next is left without an answer.
        other.blocking_recv()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let long = Duration::from_secs(20);
    runtime.block_on(async {
        let tls = tls::Client::default();
        let kind = http::HeaderValue::from_static("application/protobuf");
        let answer = client::post(&tls, &two.url, "/leases?x=y", kind, "body".into(), long).await.unwrap();
        assert_eq!(answer.body(), "/leases?x=y \"application/protobuf\" b\"body\"");
        let late = client::get(&tls, &two.url, "/members", Duration::from_millis(50)).await;
        assert!(matches!(late, Err(ClientError::TimedOut)), "{late:?}");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = client::get(&tls, &format!("http://{nobody}"), "/version", long).await;
        assert!(matches!(refused, Err(ClientError::Io(_))), "{refused:?}");
        for odd in ["", "version", "ftp://127.0.0.1", "unix://"] {
            let refused = client::get(&tls, odd, "/version", long).await;
            assert!(matches!(refused, Err(ClientError::Url(_))), "{odd}: {refused:?}");
        }
    });
    drop(answering.join());
}

#[test]
fn a_panic_of_the_member_is_not_passed_over() {
    let (one, two) = pair();
    two.hears(&one);
    two.record.seen().fragile = true;
    one.peers.send(vec![heartbeat(1, 2, 1)]);
    let seen = two.record.once("the failure", |seen| !seen.failed.is_empty());
    assert_eq!(seen.failed, ["a broken raft"]);
}
