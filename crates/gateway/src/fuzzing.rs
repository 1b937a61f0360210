//! JSON made of any bytes: what fuzz targets call, and the tests that repeat what these have found.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::json::{Reading, Routes};

/// The longest JSON value that is read, in bytes.
const LIMIT: usize = 4096;

/// Reads `input` as the body of a request to the method that its first byte chooses, in pieces whose size the
/// second byte says; and writes what it has read as JSON again.
///
/// # Panics
/// If what is read depends on the pieces, or is not what is written of it.
pub fn json(input: &[u8]) {
    static ROUTES: OnceLock<Routes> = OnceLock::new();
    let [method, size, body @ ..] = input else { return };
    let reading = Reading::nth(ROUTES.get_or_init(Routes::new), usize::from(*method), LIMIT);
    let whole = messages(&reading, [Bytes::copy_from_slice(body)]);
    let pieces = messages(&reading, body.chunks(usize::from(*size) + 1).map(Bytes::copy_from_slice));
    // How much there is of a value when it is found to be too long depends on the pieces.
    if body.len() <= LIMIT {
        assert_eq!(whole, pieces);
    }
    for message in whole.0 {
        let text = reading.written(&message).expect("what was read can be written");
        assert_eq!(messages(&reading, [Bytes::from(text)]).0, [message]);
    }
}

/// The messages of a body, and what ended them if that was an error.
fn messages(reading: &Reading<'_>, pieces: impl IntoIterator<Item = Bytes>) -> (Vec<Bytes>, Option<String>) {
    let mut body = reading.requests(Pieces(pieces.into_iter().collect()));
    let mut all = Vec::new();
    loop {
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => all.extend(frame.into_data()),
            Poll::Ready(Some(Err(status))) => return (all, Some(status.message().to_owned())),
            Poll::Ready(None) => return (all, None),
            Poll::Pending => unreachable!("nobody is waited for"),
        }
    }
}

/// A body that comes in pieces.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn json_of_the_corpus_is_read_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/json");
        let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
        assert!(files.map(|file| super::json(&std::fs::read(file).unwrap())).count() > 0);
    }
}
