#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use super::*;

pub(crate) fn entry(term: u64, index: u64, kind: EntryKind, data: &[u8]) -> Entry {
    Entry { term: Term(term), index: Index(index), kind, data: data.into() }
}

fn message(term: u64, body: Body) -> Message {
    Message { to: NodeId(2), from: NodeId(1), term: Term(term), body }
}

fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    put_message(&mut out, message);
    out.freeze()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn unhex(text: &str) -> Bytes {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Every kind of message and the bytes that it is on the wire.
fn table() -> Vec<(Message, &'static str)> {
    let context: Arc<[u8]> = b"ctx".as_slice().into();
    let candidacy = Candidacy { last_index: Index(9), last_term: Term(4), transfer: true };
    let answer = Answer { reject: true, commit: Index(7), commit_term: Term(4) };
    let conf_state = ConfState {
        voters: vec![NodeId(1), NodeId(2)],
        learners: vec![NodeId(3)],
        voters_outgoing: vec![NodeId(1)],
        learners_next: vec![NodeId(4)],
        auto_leave: true,
    };
    let meta = SnapshotMeta { conf_state, index: Index(6), term: Term(3) };
    let entries = [
        entry(4, 8, EntryKind::Normal, b"put"),
        entry(5, 9, EntryKind::Normal, b""),
        entry(5, 300, EntryKind::ConfChange, b"cc"),
    ];
    vec![
        (
            message(0, Body::Propose { entries: vec![entry(0, 0, EntryKind::ConfChangeV2, b"x")] }),
            "08 02 10 02 18 01 20 00 3a 09 08 02 10 00 18 00 22 01 78",
        ),
        (
            message(0, Body::Propose { entries: vec![entry(0, 0, EntryKind::Unknown(127), b"x")] }),
            "08 02 10 02 18 01 20 00 3a 09 08 7f 10 00 18 00 22 01 78",
        ),
        (
            message(
                5,
                Body::Append {
                    prev_index: Index(7),
                    prev_term: Term(4),
                    entries: entries[..2].to_vec(),
                    commit: Index(6),
                },
            ),
            "08 03 10 02 18 01 20 05 28 04 30 07 3a 0b 08 00 10 04 18 08 22 03 70 75 74 \
             3a 06 08 00 10 05 18 09 40 06",
        ),
        (
            message(5, Body::AppendResponse { index: Index(200), reject: None }),
            "08 04 10 02 18 01 20 05 30 c8 01",
        ),
        (
            message(
                5,
                Body::AppendResponse {
                    index: Index(9),
                    reject: Some(Rejection { hint: Index(6), hint_term: Term(3) }),
                },
            ),
            "08 04 10 02 18 01 20 05 28 03 30 09 50 01 58 06",
        ),
        (
            message(5, Body::Vote(candidacy)),
            "08 05 10 02 18 01 20 05 28 04 30 09 62 10 43 61 6d 70 61 69 67 6e 54 72 61 6e 73 66 65 72",
        ),
        (message(5, Body::VoteResponse(answer)), "08 06 10 02 18 01 20 05 28 04 30 07 50 01"),
        (
            message(5, Body::Snapshot(Snapshot { meta, data: b"m".as_slice().into() })),
            "08 07 10 02 18 01 20 05 4a 17 0a 01 6d 12 12 0a 0c 08 01 08 02 10 03 18 01 20 04 28 01 \
             10 06 18 03",
        ),
        (
            message(5, Body::Heartbeat { commit: Index(6), context: Arc::clone(&context) }),
            "08 08 10 02 18 01 20 05 40 06 62 03 63 74 78",
        ),
        (
            message(5, Body::HeartbeatResponse { context: Arc::clone(&context) }),
            "08 09 10 02 18 01 20 05 62 03 63 74 78",
        ),
        (message(5, Body::TransferLeader), "08 0d 10 02 18 01 20 05"),
        (message(5, Body::TimeoutNow), "08 0e 10 02 18 01 20 05"),
        (
            message(0, Body::ReadIndex { context: Arc::clone(&context) }),
            "08 0f 10 02 18 01 20 00 3a 05 22 03 63 74 78",
        ),
        (
            message(5, Body::ReadIndexResponse { index: Index(6), context }),
            "08 10 10 02 18 01 20 05 30 06 3a 05 22 03 63 74 78",
        ),
        (
            message(5, Body::PreVote(Candidacy { transfer: false, ..candidacy })),
            "08 11 10 02 18 01 20 05 28 04 30 09",
        ),
        (message(5, Body::PreVoteResponse(Answer::default())), "08 12 10 02 18 01 20 05"),
    ]
}

#[test]
fn every_message_is_these_bytes_and_comes_back_from_them() {
    for (message, wanted) in table() {
        let bytes = encoded(&message);
        assert_eq!(hex(&bytes), hex(&unhex(wanted)), "{}", message.body.name());
        assert_eq!(decode(bytes).and_then(to_raft), Ok(message));
    }
}

/// etcd 3.5 writes every field of a message but bytes that are nil, and a snapshot even if there is
/// none.
#[test]
fn what_etcd_writes_is_understood() {
    let none = "4a 0a 12 08 0a 02 28 00 10 00 18 00 50 00 58 00";
    let read = |text: String| decode(unhex(&text));
    let link = read(format!("08 08 10 00 18 00 20 00 28 00 30 00 40 00 {none}")).unwrap();
    assert!(is_link_heartbeat(&link));
    let heartbeat = read(format!("08 08 10 02 18 01 20 05 28 00 30 00 40 06 {none} 62 00")).unwrap();
    assert!(!is_link_heartbeat(&heartbeat));
    let context = Arc::from([]);
    assert_eq!(to_raft(heartbeat), Ok(message(5, Body::Heartbeat { commit: Index(6), context })));
    let append =
        read(format!("08 03 10 02 18 01 20 05 28 05 30 07 3a 09 08 00 10 05 18 08 22 01 78 40 06 {none}"));
    let entries = vec![entry(5, 8, EntryKind::Normal, b"x")];
    let (prev_index, prev_term, commit) = (Index(7), Term(5), Index(6));
    let wanted = message(5, Body::Append { prev_index, prev_term, entries, commit });
    assert_eq!(append.and_then(to_raft), Ok(wanted));
    // 3.6 and later have fields of their own for writes to their log.
    let grant = read(format!("08 12 10 02 18 01 20 05 28 00 30 00 40 00 {none} 68 00 72 00"));
    assert_eq!(grant.and_then(to_raft), Ok(message(5, Body::PreVoteResponse(Answer::default()))));
}

#[test]
fn what_no_member_could_mean_is_refused() {
    let valid = |kind: MessageType| raftpb::Message {
        r#type: Some(kind as i32),
        to: Some(2),
        from: Some(1),
        term: Some(5),
        ..raftpb::Message::default()
    };
    let one =
        |term, index| raftpb::Entry { term: Some(term), index: Some(index), ..raftpb::Entry::default() };
    let append = |entries| raftpb::Message {
        index: Some(7),
        log_term: Some(4),
        entries,
        ..valid(MessageType::MsgApp)
    };
    assert!(to_raft(append(vec![one(4, 8), one(5, 9)])).is_ok());
    let snapshot = |index, voters| {
        let conf_state = Some(raftpb::ConfState { voters, ..raftpb::ConfState::default() });
        let metadata = raftpb::SnapshotMetadata { conf_state, index: Some(index), term: Some(1) };
        let snapshot = raftpb::Snapshot { data: None, metadata: Some(metadata) };
        raftpb::Message { snapshot: Some(snapshot), ..valid(MessageType::MsgSnap) }
    };
    assert!(to_raft(snapshot(1, vec![1])).is_ok());
    let app = || valid(MessageType::MsgApp);
    let senseless = [
        raftpb::Message { to: None, ..app() },
        raftpb::Message { from: Some(0), ..app() },
        raftpb::Message { term: None, ..app() },
        raftpb::Message { term: Some(u64::MAX), ..app() },
        raftpb::Message { commit: Some(1 << 63), ..app() },
        raftpb::Message { reject_hint: Some(u64::MAX), ..valid(MessageType::MsgAppResp) },
        append(vec![one(4, 9)]),
        append(vec![one(4, 8), one(4, 10)]),
        append(vec![one(5, 8), one(4, 9)]),
        append(vec![one(3, 8)]),
        append(vec![one(6, 8)]),
        append(vec![one(0, 8)]),
        append(vec![raftpb::Entry { r#type: Some(128), ..one(4, 8) }]),
        append(vec![raftpb::Entry { r#type: Some(-1), ..one(4, 8) }]),
        valid(MessageType::MsgProp),
        valid(MessageType::MsgReadIndex),
        valid(MessageType::MsgSnap),
        snapshot(0, vec![1]),
        snapshot(1, vec![]),
        snapshot(u64::MAX, vec![1]),
    ];
    for message in senseless {
        let text = format!("{message:?}");
        assert!(matches!(to_raft(message), Err(Refused::Senseless(_))), "{text}");
    }
    for kind in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 24, -1, i32::MAX] {
        let message = raftpb::Message { r#type: Some(kind), ..valid(MessageType::MsgHup) };
        assert_eq!(to_raft(message), Err(Refused::Type(kind)));
    }
}

#[test]
fn bytes_that_are_no_message_are_refused_and_nothing_worse() {
    for (message, _) in table() {
        let bytes = encoded(&message);
        for at in 0..bytes.len() {
            let _ = decode(bytes.slice(..at)).and_then(to_raft);
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= flip;
                let _ = decode(Bytes::from(damaged)).and_then(to_raft);
            }
        }
    }
    assert_eq!(decode(Bytes::from_static(b"\xff")), Err(Refused::Malformed));
}

#[test]
fn the_length_of_an_entry_is_known_before_it_is_written() {
    for bits in 0..64 {
        for data in [0, 1, 127, 128, 20_000] {
            let entry = entry(1 << bits, u64::MAX >> bits, EntryKind::Normal, &vec![0; data]);
            let mut out = BytesMut::new();
            put_entry(&mut out, &entry);
            assert_eq!(out.len(), entry_len(&entry));
            assert_eq!(raftpb::Entry::decode(out.freeze()).unwrap().term(), entry.term.0);
        }
    }
}

/// Numbers of all lengths, from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// As likely small as large, and never senseless.
    fn number(&mut self) -> u64 {
        let (high, low) = (self.below(1 << 31), self.below(1 << 31));
        (high << 31 | low) >> self.below(62)
    }

    fn bytes(&mut self) -> Arc<[u8]> {
        let length = [0, 1, 3, 127, 128, 300][self.below(6) as usize];
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn body(&mut self, term: u64) -> Body {
        let candidacy = Candidacy {
            last_index: Index(self.number()),
            last_term: Term(self.number()),
            transfer: self.below(2) == 0,
        };
        let answer = Answer {
            reject: self.below(2) == 0,
            commit: Index(self.number()),
            commit_term: Term(self.number()),
        };
        match self.below(13) {
            0 => Body::Vote(candidacy),
            1 => Body::PreVote(candidacy),
            2 => Body::VoteResponse(answer),
            3 => Body::PreVoteResponse(answer),
            4 => Body::AppendResponse {
                index: Index(self.number()),
                reject: (self.below(2) == 0)
                    .then(|| Rejection { hint: Index(self.number()), hint_term: Term(self.number()) }),
            },
            5 => Body::Heartbeat { commit: Index(self.number()), context: self.bytes() },
            6 => Body::HeartbeatResponse { context: self.bytes() },
            7 => Body::TransferLeader,
            8 => Body::TimeoutNow,
            9 => Body::ReadIndex { context: self.bytes() },
            10 => Body::ReadIndexResponse { index: Index(self.number()), context: self.bytes() },
            11 => {
                let entries = (0..=self.below(5)).map(|_| {
                    let kind = [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2];
                    Entry {
                        kind: kind[self.below(3) as usize],
                        ..entry(0, 0, EntryKind::Normal, &self.bytes())
                    }
                });
                Body::Propose { entries: entries.collect() }
            }
            _ => {
                let (prev_index, prev_term) = (self.number(), self.below(term));
                let mut last = prev_term.max(1);
                let entries = (1..=self.below(5)).map(|at| {
                    last += self.below(term - last + 1);
                    entry(last, prev_index + at, EntryKind::Normal, &self.bytes())
                });
                Body::Append {
                    entries: entries.collect(),
                    prev_index: Index(prev_index),
                    prev_term: Term(prev_term),
                    commit: Index(self.number()),
                }
            }
        }
    }
}

#[test]
fn any_message_comes_back_as_it_was() {
    let mut chance = Chance(1);
    for _ in 0..20_000 {
        let term = chance.number().max(1);
        let body = chance.body(term);
        let outside_terms = matches!(body, Body::Propose { .. } | Body::ReadIndex { .. });
        let (to, from) = (NodeId(chance.number().max(1)), NodeId(u64::MAX - chance.number()));
        let message = Message { to, from, term: Term(if outside_terms { 0 } else { term }), body };
        assert_eq!(decode(encoded(&message)).and_then(to_raft), Ok(message));
    }
}
