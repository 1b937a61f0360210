//! How messages follow each other on a stream.

mod append;
mod input;
mod message;

use std::fmt;

use bytes::{Bytes, BytesMut};
use raft::Message;

use crate::codec::Refused;

pub(crate) use append::{AppendDecoder, AppendEncoder};
pub(crate) use input::Input;
pub(crate) use message::{MessageDecoder, put_framed};

/// The longest frame that is believed, etcd's figure. Memory is taken as bytes arrive, not as they
/// are announced.
pub(crate) const MAX_FRAME: u64 = 512 * 1024 * 1024;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything.
    Message,
    /// Appends alone, in fewer bytes.
    Append,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Message, Kind::Append];

    /// The path below `/raft/stream/`.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Append => "msgapp",
        }
    }

    /// etcd's name for it, in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Message => "stream Message",
            Kind::Append => "stream MsgApp v2",
        }
    }
}

/// What the bytes at the begin of a buffer are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A frame of this many bytes.
    Whole(usize),
    /// A part of a frame; nothing new can be said before this many bytes are there.
    Need(usize),
}

/// After this nothing on the stream means anything: it must be given up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A frame claims to be longer than any is.
    TooLong(u64),
    /// A frame of a type that there is not.
    Type(u8),
    /// A frame does not hold what it should.
    Frame(Refused),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::TooLong(bytes) => write!(f, "a frame of {bytes} bytes"),
            Broken::Type(number) => write!(f, "a frame of unknown type {number}"),
            Broken::Frame(refused) => write!(f, "{refused}"),
        }
    }
}

/// Something that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A message for raft.
    Message(Message),
    /// That the other side is still there.
    Heartbeat,
    /// A whole frame whose content is of no use; what follows may be.
    Refused(Refused),
}

/// Writes frames.
pub(crate) enum Encoder {
    /// Of a `message` stream.
    Message,
    /// Of a `msgappv2` stream.
    Append(AppendEncoder),
}

impl Encoder {
    pub(crate) fn new(kind: Kind) -> Encoder {
        match kind {
            Kind::Message => Encoder::Message,
            Kind::Append => Encoder::Append(AppendEncoder::default()),
        }
    }

    pub(crate) fn put(&mut self, out: &mut BytesMut, message: &Message) {
        match self {
            Encoder::Message => put_framed(out, message),
            Encoder::Append(encoder) => encoder.put(out, message),
        }
    }

    pub(crate) fn put_heartbeat(&mut self, out: &mut BytesMut) {
        match self {
            Encoder::Message => message::put_heartbeat(out),
            Encoder::Append(_) => append::put_heartbeat(out),
        }
    }
}

/// Reads frames.
pub(crate) enum Decoder {
    /// Of a `message` stream.
    Message(MessageDecoder),
    /// Of a `msgappv2` stream.
    Append(AppendDecoder),
}

impl Decoder {
    /// Of what `remote` says to `local`.
    pub(crate) fn new(kind: Kind, local: u64, remote: u64) -> Decoder {
        match kind {
            Kind::Message => Decoder::Message(MessageDecoder),
            Kind::Append => Decoder::Append(AppendDecoder::new(local, remote)),
        }
    }

    /// Looks for the end of the first frame. Called with more of the same bytes until it is found.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Broken> {
        match self {
            Decoder::Message(decoder) => decoder.scan(bytes),
            Decoder::Append(decoder) => decoder.scan(bytes),
        }
    }

    /// Reads a frame that [`Decoder::scan`] has found whole.
    pub(crate) fn read(&mut self, frame: Bytes) -> Result<Said, Broken> {
        match self {
            Decoder::Message(decoder) => decoder.read(frame),
            Decoder::Append(decoder) => decoder.read(frame),
        }
    }
}

/// The big-endian number at `at`, if it is there.
fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    Some(u64::from_be_bytes(bytes.get(at..end)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
