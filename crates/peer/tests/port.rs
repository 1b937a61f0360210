//! What the peer port answers to those who are not peers, or not any more, or not in their right mind.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use bytes::Bytes;
use common::raw::{Answer, ask, connect, head, headers, listen_to};
use common::{Member, until};
use http::{HeaderValue, Response};

/// The headers of a member, one of them changed.
fn with(name: &str, value: &str) -> Vec<(&'static str, String)> {
    let mut headers = headers(2, 1);
    headers.iter_mut().find(|(known, _)| *known == name).unwrap().1 = value.to_owned();
    headers
}

fn get(member: &Member, path: &str, headers: &[(&str, String)]) -> Answer {
    ask(member, "GET", path, headers, b"")
}

/// A member that knows 2 as a peer; nobody is there.
fn one() -> Member {
    let one = Member::start(1);
    one.peers.add(2, &["http://127.0.0.1:1".to_owned()]);
    one
}

#[test]
fn a_stream_is_only_for_those_who_may_have_it() {
    let one = one();
    one.record.seen().removed.push(3);
    let stream = "/raft/stream/message/2";
    let cases = [
        (stream, with("X-Etcd-Cluster-ID", "1"), 412, "cluster ID mismatch\n"),
        (stream, with("X-Etcd-Cluster-ID", ""), 412, "cluster ID mismatch\n"),
        (stream, with("X-Server-Version", "2.3.0"), 412, "incompatible version\n"),
        (stream, with("X-Min-Cluster-Version", "4.0.0"), 412, "incompatible version\n"),
        (stream, with("X-Server-Version", "nonsense"), 412, "incompatible version\n"),
        (stream, with("X-Raft-To", "9"), 412, "to field mismatch\n"),
        ("/raft/stream/message/3", headers(3, 1), 410, "removed member\n"),
        ("/raft/stream/message/x", headers(2, 1), 404, "invalid from\n"),
        ("/raft/stream/msgappv3/2", headers(2, 1), 404, "invalid path\n"),
        ("/raft/stream/2", headers(2, 1), 404, "invalid path\n"),
        ("/raft/stream/message/4", headers(4, 1), 404, "error sender not found\n"),
        ("/raft/elsewhere", headers(2, 1), 404, "404 page not found\n"),
    ];
    for (path, headers, status, text) in cases {
        let answer = get(&one, path, &headers);
        assert_eq!((answer.status, answer.text()), (status, text), "{path} {headers:?}");
        if path.starts_with("/raft/stream/") {
            assert!(answer.head.contains("x-etcd-cluster-id: c1a5\r\n"), "{}", answer.head);
            assert!(answer.head.contains("x-server-version: 3.7.1\r\n"), "{}", answer.head);
        }
    }
    let answer = ask(&one, "POST", stream, &headers(2, 1), b"");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: get\r\n"), "{}", answer.head);
    // Who knocked without being known can be sent to; who was removed cannot.
    let ids: Vec<_> = one.peers.status().iter().map(|status| (status.id, status.is_member)).collect();
    assert_eq!(ids, [(2, true), (4, false)]);
}

#[test]
fn a_second_stream_takes_the_place_of_the_first() {
    let one = one();
    let mut first = listen_to(&one, "message", 2);
    until("a listener", || one.peers.status()[0].listening == 1);
    let second = listen_to(&one, "message", 2);
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"0\r\n\r\n", "ended in order");
    assert_eq!(one.peers.status()[0].listening, 1);
    drop(second);
    until("no listener", || one.peers.status()[0].listening == 0);
}

#[test]
fn a_removed_peer_loses_its_streams() {
    let one = one();
    let mut stream = listen_to(&one, "msgapp", 2);
    one.peers.remove(2);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"0\r\n\r\n");
    assert_eq!(one.peers.status(), []);
}

/// `raftpb.Message`: a heartbeat in term 5.
fn heartbeat(to: u8, from: u8) -> Vec<u8> {
    vec![8, 8, 16, to, 24, from, 32, 5]
}

#[test]
fn a_posted_message_is_taken_or_declined_with_a_word() {
    let one = one();
    one.record.seen().removed.push(3);
    let post = |headers: &[(&str, String)], body: &[u8]| {
        let answer = ask(&one, "POST", "/raft", headers, body);
        assert!(answer.head.contains("x-etcd-cluster-id: c1a5\r\n"), "{}", answer.head);
        (answer.status, answer.text().to_owned())
    };
    let (status, text) = post(&headers(2, 1), b"\xffgarbage");
    assert!(status == 400 && text.starts_with("error unmarshalling raft message"), "{status} {text}");
    assert_eq!(post(&headers(2, 1), &[8, 99, 16, 1, 24, 2, 32, 5]).0, 400, "of no type");
    assert_eq!(post(&headers(2, 1), &[8, 0, 16, 1, 24, 2, 32, 5]).0, 400, "of a local type");
    let (status, text) = post(&headers(2, 1), &heartbeat(9, 2));
    assert_eq!((status, text.as_str()), (403, "cannot process message to mismatch member\n"));
    let (status, text) = post(&headers(3, 1), &heartbeat(1, 3));
    assert_eq!((status, text.as_str()), (403, "cannot process message from removed member\n"));
    let (status, text) = post(&with("X-Etcd-Cluster-ID", "7"), &heartbeat(1, 2));
    assert_eq!((status, text.as_str()), (412, "cluster ID mismatch\n"));
    assert!(one.record.seen().messages.is_empty());
    assert_eq!(post(&headers(2, 1), &heartbeat(1, 2)), (204, String::new()));
    assert_eq!(one.record.seen().messages.len(), 1, "received before it is answered");
    assert_eq!(ask(&one, "GET", "/raft", &headers(2, 1), b"").status, 405);
    assert_eq!(one.peers.status()[0].received_failures, 3);
}

#[test]
fn a_sender_that_was_unknown_can_be_answered() {
    let (one, two) = (Member::start(1), Member::start(2));
    let mut introduced = headers(2, 1);
    introduced.iter_mut().find(|(name, _)| *name == "X-PeerURLs").unwrap().1 = two.url.clone();
    assert_eq!(ask(&one, "POST", "/raft", &introduced, &heartbeat(1, 2)).status, 204);
    one.peers.send(vec![common::heartbeat(1, 2, 1)]);
    let seen = two.record.once("an answer", |seen| !seen.messages.is_empty());
    assert_eq!(seen.messages, [common::heartbeat(1, 2, 1)]);
}

/// The body of a snapshot request: message with this index, then this database.
fn snapshot(index: u8, data: &[u8]) -> Vec<u8> {
    let meta = [0x0a, 2, 8, 1, 0x10, index, 0x18, 1];
    let snapshot = [&[0x12, meta.len() as u8], &meta[..]].concat();
    let message = [&[8, 7, 16, 1, 24, 2, 32, 5, 0x4a, snapshot.len() as u8], &snapshot[..]].concat();
    [&(message.len() as u64).to_be_bytes()[..], &message, data].concat()
}

/// W12: nothing is taken for a database that is not there as a whole.
#[test]
fn a_database_that_is_cut_off_leaves_nothing() {
    let one = one();
    let data: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let body = snapshot(7, &data);
    let step = body.len() / 50;
    for end in [0, 4, 8, 20, 33].into_iter().chain((40..body.len()).step_by(step)) {
        let mut stream = connect(&one);
        let head = head("POST", "/raft/snapshot", &headers(2, 1), body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body[..end]).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    until("no more transfers", || {
        let status = &one.peers.status()[0];
        status.snapshots_receiving == 0 && status.snapshot_receive_failures >= 40
    });
    until("no file", || one.files().is_empty());
    assert!(one.record.seen().snapshots.is_empty());
    assert_eq!(ask(&one, "POST", "/raft/snapshot", &headers(2, 1), &body).status, 204);
    let seen = one.record.seen();
    assert!(std::fs::read(&seen.snapshots[0].1).unwrap() == data);
    assert_eq!(one.files(), ["0000000000000007.snap.db"]);
}

/// The state at an index is one state. A body that may be about to be taken in is not touched any more.
#[test]
fn a_database_does_not_take_the_place_of_another_one() {
    let one = one();
    for data in [&b"first"[..], b"second"] {
        assert_eq!(ask(&one, "POST", "/raft/snapshot", &headers(2, 1), &snapshot(7, data)).status, 204);
    }
    let seen = one.record.seen();
    assert_eq!(seen.snapshots.len(), 2);
    assert_eq!(std::fs::read(&seen.snapshots[1].1).unwrap(), b"first");
    assert_eq!(one.files(), ["0000000000000007.snap.db"]);
}

/// W12: the sender's checksum is over all of it.
#[test]
fn a_database_is_checked_before_it_is_taken() {
    let one = one();
    one.record.seen().removed.push(3);
    let post =
        |headers: &[(&str, String)], body: &[u8]| ask(&one, "POST", "/raft/snapshot", headers, body).status;
    let mut known = headers(2, 1);
    known.push(("X-Cairn-Database-Crc32c", format!("{:x}", crc32c::crc32c(b"database"))));
    assert_eq!(post(&known, &snapshot(7, b"databuse")), 500);
    known.last_mut().unwrap().1 = "nonsense".into();
    assert_eq!(post(&known, &snapshot(7, b"database")), 400);
    let heartbeat = [&8u64.to_be_bytes()[..], &heartbeat(1, 2)].concat();
    assert_eq!(post(&headers(2, 1), &heartbeat), 400, "no snapshot");
    assert_eq!(post(&headers(2, 1), &u64::MAX.to_be_bytes()), 400, "no length");
    assert_eq!(post(&headers(2, 1), &snapshot(0, b"")), 400, "of nothing");
    assert_eq!(post(&with("X-Etcd-Cluster-ID", "7"), &snapshot(7, b"database")), 412);
    assert_eq!(ask(&one, "GET", "/raft/snapshot", &headers(2, 1), b"").status, 405);
    assert_eq!(one.files(), [""; 0]);
    known.last_mut().unwrap().1 = format!("{:x}", crc32c::crc32c(b"database"));
    assert_eq!(post(&known, &snapshot(7, b"database")), 204);
    assert_eq!(one.record.seen().snapshots.len(), 1);
}

#[test]
fn probes_are_answered() {
    let one = Member::start(1);
    let answer = get(&one, "/raft/probing", &[]);
    assert_eq!(answer.status, 200);
    let health: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(health["OK"], true);
    let now = health["Now"].as_str().unwrap();
    assert!(now.starts_with("20") && now.ends_with('Z') && now.contains('T'), "{now}");
}

#[test]
fn paths_that_are_not_rafts_are_answered_elsewhere() {
    let mut one = Member::start(1);
    let mut other = std::mem::replace(&mut one.other, tokio::sync::mpsc::channel(1).1);
    let answering = std::thread::spawn(move || {
        let (request, answer) = other.blocking_recv().unwrap();
        assert_eq!((request.uri().path(), &request.body()[..]), ("/members", &b"who?"[..]));
        let mut response = Response::new(Bytes::from_static(b"[]\n"));
        response.headers_mut().insert("x-what", HeaderValue::from_static("that"));
        answer.send(response).unwrap();
    });
    let answer = ask(&one, "POST", "/members", &[], b"who?");
    assert_eq!((answer.status, answer.text()), (200, "[]\n"));
    assert!(answer.head.contains("x-what: that\r\n"), "{}", answer.head);
    answering.join().unwrap();
    // Nobody answers there any more.
    assert_eq!(ask(&one, "GET", "/version", &[], b"").status, 503);
}

#[test]
fn garbage_on_the_port_disturbs_nobody() {
    let one = one();
    let garbage = [
        &b"\x00\x01\x02\x03"[..],
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /raft/stream/message/2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /raft HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
        &[0xff; 100_000],
    ];
    let open: Vec<_> = garbage
        .into_iter()
        .map(|bytes| {
            let mut stream = connect(&one);
            // It may be closed before all is written.
            let _ = stream.write_all(bytes);
            stream
        })
        .collect();
    assert_eq!(ask(&one, "POST", "/raft", &headers(2, 1), &heartbeat(1, 2)).status, 204);
    drop(open);
    assert_eq!(one.record.seen().failed, [""; 0]);
}
