#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use raft::{Body, Entry, EntryKind, Index, NodeId, Term};

use super::*;

fn append(term: u64, prev: (u64, u64), terms: &[u64], data: &[u8], commit: u64) -> Message {
    let (prev_term, prev_index) = prev;
    let entries = terms.iter().zip(prev_index + 1..).map(|(&term, index)| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Normal,
        data: data.into(),
    });
    let body = Body::Append {
        prev_index: Index(prev_index),
        prev_term: Term(prev_term),
        entries: entries.collect(),
        commit: Index(commit),
    };
    Message { to: NodeId(2), from: NodeId(1), term: Term(term), body }
}

fn heartbeat() -> Message {
    let body = Body::Heartbeat { commit: Index(3), context: Arc::from([]) };
    Message { to: NodeId(2), from: NodeId(1), term: Term(5), body }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn number(number: u8) -> String {
    format!("00 00 00 00 00 00 00 {number:02x}")
}

/// Replication as it goes: found out where, on and on, commit alone, an election, back again.
fn story() -> Vec<Message> {
    vec![
        append(5, (4, 7), &[4, 5], b"a", 6),
        append(5, (5, 9), &[5, 5, 5], b"bc", 7),
        append(5, (5, 12), &[], b"", 12),
        append(5, (5, 12), &[5], &[9; 3000], 12),
        append(6, (5, 13), &[6], b"d", 13),
        append(6, (6, 14), &[6], b"", 14),
        append(6, (6, 11), &[6], b"again", 14),
    ]
}

fn written(kind: Kind, story: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::new(kind);
    let mut out = BytesMut::new();
    encoder.put_heartbeat(&mut out);
    for message in story {
        encoder.put(&mut out, message);
    }
    encoder.put_heartbeat(&mut out);
    out.to_vec()
}

fn read(kind: Kind, pieces: impl IntoIterator<Item = Bytes>) -> (Vec<Said>, Option<Broken>) {
    let mut input = Input::new(Decoder::new(kind, 2, 1));
    let mut all = Vec::new();
    for piece in pieces {
        if let Err(broken) = input.feed(piece, |said| all.push(said)) {
            return (all, Some(broken));
        }
    }
    (all, None)
}

fn told(story: Vec<Message>) -> Vec<Said> {
    let told = story.into_iter().map(Said::Message);
    std::iter::once(Said::Heartbeat).chain(told).chain([Said::Heartbeat]).collect()
}

#[test]
fn frames_of_a_message_stream_are_these_bytes() {
    let bytes = hex(&written(Kind::Message, &[heartbeat()]));
    let idle = format!("{} 08 08", number(2));
    assert_eq!(bytes, format!("{idle} {} 08 08 10 02 18 01 20 05 40 03 {idle}", number(10)));
}

#[test]
fn frames_of_an_append_stream_are_these_bytes() {
    let story = [
        // Says where it is,
        append(5, (4, 7), &[5], b"a", 6),
        // goes on from there,
        append(5, (5, 8), &[5, 5], b"", 8),
        // tells a commit index,
        append(5, (5, 10), &[], b"", 10),
        // and says again where it is.
        append(6, (5, 10), &[], b"", 10),
    ];
    let bytes = hex(&written(Kind::Append, &story));
    let message = "08 03 10 02 18 01 20 05 28 04 30 07 3a 09 08 00 10 05 18 08 22 01 61 40 06";
    let again = "08 03 10 02 18 01 20 06 28 05 30 0a 40 0a";
    let entry = |index: u8| format!("{} 08 00 10 05 18 {index:02x}", number(6));
    let wanted = [
        "00".to_owned(),
        format!("02 {} {message}", number(25)),
        format!("01 {} {} {} {}", number(2), entry(9), entry(10), number(8)),
        format!("01 {} {}", number(0), number(10)),
        format!("02 {} {again}", number(14)),
        "00".to_owned(),
    ];
    assert_eq!(bytes, wanted.join(" "));
}

#[test]
fn a_stream_says_the_same_however_it_is_cut() {
    for kind in Kind::ALL {
        let bytes = Bytes::from(written(kind, &story()));
        for size in [1, 2, 3, 7, 8, 9, 64, 1000, bytes.len()] {
            let pieces = (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..bytes.len().min(at + size)));
            assert_eq!(read(kind, pieces), (told(story()), None), "{kind:?} by {size}");
        }
        // In two, anywhere.
        for at in 0..bytes.len() {
            let pieces = [bytes.slice(..at), bytes.slice(at..)];
            assert_eq!(read(kind, pieces), (told(story()), None), "{kind:?} at {at}");
        }
    }
}

#[test]
fn what_is_cut_off_says_nothing() {
    for kind in Kind::ALL {
        let bytes = Bytes::from(written(kind, &story()));
        for end in 0..bytes.len() {
            let (said, broken) = read(kind, [bytes.slice(..end)]);
            assert_eq!(broken, None);
            assert_eq!(said, told(story())[..said.len()], "a beginning of it, up to byte {end}");
        }
    }
}

#[test]
fn damage_breaks_a_stream_and_nothing_else() {
    for kind in Kind::ALL {
        let bytes = written(kind, &story());
        for at in 0..bytes.len() {
            for flip in [1, 0x40, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = read(kind, [Bytes::from(damaged)]);
            }
        }
    }
}

#[test]
fn lengths_without_bound_are_not_believed() {
    let huge = u64::MAX.to_be_bytes();
    let too_long = |kind, bytes: Vec<u8>| matches!(read(kind, [bytes.into()]), (_, Some(Broken::TooLong(_))));
    assert!(too_long(Kind::Message, huge.to_vec()));
    assert!(too_long(Kind::Message, (MAX_FRAME + 1).to_be_bytes().to_vec()));
    assert!(too_long(Kind::Append, [&[2], &huge[..]].concat()));
    assert!(too_long(Kind::Append, [&[1], &huge[..]].concat()), "entries");
    let one_entry = [&[1], &1u64.to_be_bytes()[..], &huge[..]].concat();
    assert!(too_long(Kind::Append, one_entry), "an entry");
    assert_eq!(read(Kind::Append, [Bytes::from_static(b"\x03")]).1, Some(Broken::Type(3)));
}

#[test]
fn indexes_without_bound_break_the_stream() {
    let at = |index: u64, commit: u64| {
        let mut encoder = AppendEncoder::default();
        let mut out = BytesMut::new();
        encoder.put(&mut out, &append(5, (5, index), &[], b"", 0));
        encoder.put(&mut out, &append(5, (5, index), &[5], b"", commit));
        read(Kind::Append, [out.freeze()])
    };
    assert_eq!(at(7, 7).1, None);
    let without_bound = Broken::Frame(Refused::Senseless("a number without bound"));
    assert_eq!(at(7, 1 << 63).1, Some(without_bound));
    // The first message is refused, but says where the next one goes on.
    assert!(at(u64::MAX - 2, 7).1.is_some());
}

#[test]
fn entries_that_continue_nothing_break_the_stream() {
    let mut encoder = AppendEncoder::default();
    let mut out = BytesMut::new();
    for message in story() {
        encoder.put(&mut out, &message);
    }
    let first = out.split_to(9 + out[8] as usize).freeze();
    assert_eq!(read(Kind::Append, [first.clone()]).0.len(), 1);
    let lost = |bytes: Bytes| matches!(read(Kind::Append, [bytes]), (said, Some(Broken::Frame(_))) if said.is_empty());
    assert!(lost(out.clone().freeze()), "its begin was never seen");
    // Seen, but a frame is missing.
    let second = 1 + 8 + 3 * 16 + 8 + 8;
    let gap = [first, out.split_off(second).freeze()].concat();
    assert!(read(Kind::Append, [gap.into()]).1.is_some());
}

#[test]
fn a_senseless_message_does_not_break_a_stream() {
    let mut bytes = Vec::new();
    // A type that there is not, between two heartbeats.
    for message in [&[8, 8][..], &[8, 99, 16, 2, 24, 1, 32, 5], &[8, 8]] {
        bytes.extend_from_slice(&(message.len() as u64).to_be_bytes());
        bytes.extend_from_slice(message);
    }
    let wanted = vec![Said::Heartbeat, Said::Refused(Refused::Type(99)), Said::Heartbeat];
    assert_eq!(read(Kind::Message, [Bytes::from(bytes)]), (wanted, None));
}
