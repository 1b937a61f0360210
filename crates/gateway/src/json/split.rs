//! JSON values, one after the other, out of bytes that come in pieces.

use bytes::{Buf as _, Bytes, BytesMut};
use tonic::Status;

/// Finds where values end; whether they are good is for others to say. Every byte is looked at once, however
/// small the pieces are.
pub(super) struct Splitter {
    buffer: BytesMut,
    /// How much of `buffer` has been looked at.
    seen: usize,
    /// Objects and arrays that are open.
    depth: usize,
    place: Place,
    limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between two values.
    Outside,
    /// In an object or an array.
    Inside,
    /// In a string within one.
    String,
    /// After a backslash in such a string.
    Escape,
    /// In a value that is neither: it ends with white space.
    Bare,
}

impl Splitter {
    /// A splitter of values of up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), seen: 0, depth: 0, place: Place::Outside, limit }
    }

    /// Adds what has come.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next value that has come as a whole.
    ///
    /// # Errors
    /// `ResourceExhausted` when it is too long.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            match self.place {
                Place::Outside if byte.is_ascii_whitespace() => {
                    self.buffer.advance(1);
                    continue;
                }
                Place::Outside if matches!(byte, b'{' | b'[') => {
                    self.place = Place::Inside;
                    self.depth = 1;
                }
                Place::Outside => self.place = Place::Bare,
                Place::Inside => match byte {
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            self.seen += 1;
                            return Ok(Some(self.take()));
                        }
                    }
                    b'"' => self.place = Place::String,
                    _ => {}
                },
                Place::String => match byte {
                    b'"' => self.place = Place::Inside,
                    b'\\' => self.place = Place::Escape,
                    _ => {}
                },
                Place::Escape => self.place = Place::String,
                Place::Bare if byte.is_ascii_whitespace() => return Ok(Some(self.take())),
                Place::Bare => {}
            }
            self.seen += 1;
        }
        if self.buffer.len() > self.limit {
            let (found, limit) = (self.buffer.len(), self.limit);
            let words = format!("grpc: received message larger than max ({found} vs. {limit})");
            return Err(Status::resource_exhausted(words));
        }
        Ok(None)
    }

    /// What is left when no more will come.
    ///
    /// # Errors
    /// `InvalidArgument` if that is a part of a value.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Status> {
        match self.place {
            Place::Outside => Ok(None),
            Place::Bare => Ok(Some(self.take())),
            Place::Inside | Place::String | Place::Escape => Err(Status::invalid_argument("unexpected EOF")),
        }
    }

    fn take(&mut self) -> Bytes {
        let value = self.buffer.split_to(self.seen).freeze();
        self.seen = 0;
        self.place = Place::Outside;
        value
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The values of `text`, which comes in pieces of `size` bytes.
    fn split(text: &str, size: usize) -> Result<Vec<String>, Status> {
        let mut splitter = Splitter::new(40);
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            splitter.push(piece);
            while let Some(value) = splitter.next()? {
                found.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        if let Some(value) = splitter.finish()? {
            found.push(String::from_utf8(value.to_vec()).unwrap());
        }
        Ok(found)
    }

    #[test]
    fn values_are_told_apart_whatever_the_pieces() {
        for (text, values) in [
            ("", vec![]),
            (" \r\n\t", vec![]),
            ("{}", vec!["{}"]),
            ("{}{} [1]\n", vec!["{}", "{}", "[1]"]),
            (r#"{"a":"}\"{\\"}{"b":[{}]}"#, vec![r#"{"a":"}\"{\\"}"#, r#"{"b":[{}]}"#]),
            ("null {}", vec!["null", "{}"]),
            ("null", vec!["null"]),
        ] {
            for size in 1..=text.len().max(1) {
                assert_eq!(split(text, size).unwrap(), values, "{text} by {size}");
            }
        }
    }

    #[test]
    fn a_value_that_does_not_end_is_an_error() {
        for text in ["{", r#"{"a""#, r#"{"a\"#, "[[]", r#"{}{"a":1"#] {
            assert_eq!(split(text, 1).unwrap_err().message(), "unexpected EOF", "{text}");
        }
    }

    #[test]
    fn a_value_is_bounded_and_their_number_is_not() {
        let long = format!("{{{}", " ".repeat(40));
        let refused = split(&long, 1).unwrap_err();
        assert_eq!(refused.message(), "grpc: received message larger than max (41 vs. 40)");
        assert_eq!(split(&r#"{"a":1}"#.repeat(100), 7).unwrap().len(), 100);
        assert_eq!(split(&" ".repeat(1000), 1000).unwrap().len(), 0);
    }
}
