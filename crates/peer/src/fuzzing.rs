//! What other members may say, made of any bytes: what fuzz targets call, and the tests that repeat what these
//! have found.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use raft::{Body as RaftBody, Message};

use crate::codec;
use crate::framing::{Broken, Decoder, Encoder, Input, Kind, Said};
use crate::identity;
use crate::snapshot;

/// Reads what another member says by `input`: its first byte says whether on a stream or by a request.
///
/// # Panics
/// If what is read depends on the pieces in which it comes, or is not what its own encoding says.
pub fn said(input: &[u8]) {
    match input.split_first() {
        Some((way, rest)) if way % 2 == 0 => stream(rest),
        Some((_, rest)) => post(rest),
        None => {}
    }
}

/// A stream that brings `input`, but for its first byte, which says which of the two kinds it is and in pieces of
/// which size it comes.
fn stream(input: &[u8]) {
    let Some((&how, bytes)) = input.split_first() else { return };
    let kind = Kind::ALL[usize::from(how % 2)];
    let bytes = Bytes::copy_from_slice(bytes);
    let (whole, end) = read(kind, [bytes.clone()]);
    let size = usize::from(how / 2) + 1;
    let pieces = (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..bytes.len().min(at + size)));
    let by_pieces = read(kind, pieces);
    assert_eq!((&by_pieces.0, &by_pieces.1), (&whole, &end), "by {size}");

    let messages: Vec<Message> = whole
        .into_iter()
        .filter_map(|said| match said {
            Said::Message(message) => Some(message),
            Said::Heartbeat | Said::Refused(_) => None,
        })
        // Whatever comes on a stream of appends is read, but nothing else is ever written there.
        .filter(|message| kind == Kind::Message || matches!(message.body, RaftBody::Append { .. }))
        .collect();
    let mut encoder = Encoder::new(kind);
    let mut again = BytesMut::new();
    for message in &messages {
        let _ = codec::weight(message);
        encoder.put(&mut again, message);
    }
    let (again, end) = read(kind, [again.freeze()]);
    assert_eq!(end, None);
    assert_eq!(again, messages.into_iter().map(Said::Message).collect::<Vec<_>>());
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

/// A `POST /raft` whose body is `input`, and the head of a `POST /raft/snapshot` that brings it in pieces; and a
/// few headers out of it.
fn post(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let _ = codec::decode(bytes.clone()).and_then(codec::to_raft);
    let whole = head([bytes.clone()]);
    assert_eq!(head(bytes.chunks(7).map(Bytes::copy_from_slice)), whole);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = (identity::parse_id(text), identity::major_minor(text));
    }
}

fn head(pieces: impl IntoIterator<Item = Bytes>) -> Result<Message, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
    let body = StreamBody::new(stream::iter(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)))));
    runtime.block_on(snapshot::head(body, Duration::from_secs(60)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn messages_of_the_corpus_are_read_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/peer");
        let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
        assert!(files.map(|file| super::said(&std::fs::read(file).unwrap())).count() > 0);
    }
}
