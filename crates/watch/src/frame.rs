//! One `WatchResponse` on its way out: a few bytes of its own and events shared with other responses.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use api::etcdserverpb::WatchResponse;

/// Who answers, for the header of every response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: u64,
    /// The raft term, as of now.
    pub raft_term: u64,
}

/// An encoded `WatchResponse`, in pieces.
///
/// The pieces in order are the message: [`Frame::write_to`] puts them into a send buffer. What differs
/// between the watchers of an event is a few dozen bytes; the events themselves are shared.
#[derive(Clone, Debug)]
pub struct Frame {
    prefix: Prefix,
    body: Body,
    watch_id: i64,
    events: usize,
}

impl Frame {
    pub(crate) fn new(prefix: Prefix, watch_id: i64, events: usize, body: Body) -> Frame {
        Frame { prefix, body, watch_id, events }
    }

    /// The size of the encoded message in bytes.
    pub fn encoded_len(&self) -> usize {
        self.prefix.as_ref().len() + self.body.len()
    }

    /// Appends the encoded message to `out`.
    pub fn write_to(&self, out: &mut impl BufMut) {
        out.put_slice(self.prefix.as_ref());
        for piece in self.body.pieces() {
            out.put_slice(piece);
        }
    }

    /// The encoded message in one piece.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.write_to(&mut out);
        out.freeze()
    }

    /// The message, for those who do not pass bytes on: the JSON gateway, and tests.
    pub fn to_message(&self) -> WatchResponse {
        WatchResponse::decode(self.to_bytes()).expect("a frame is the encoding of a response")
    }

    /// The watcher that the response is for; -1 when it speaks for all of the stream or for none.
    pub fn watch_id(&self) -> i64 {
        self.watch_id
    }

    /// Whether the response says that a watcher begins or ends.
    pub fn is_control(&self) -> bool {
        self.prefix.control
    }

    /// How many events the response carries.
    pub fn events(&self) -> usize {
        self.events
    }
}

/// Field numbers of `WatchResponse` and `ResponseHeader` as tag bytes.
mod tag {
    pub(super) const HEADER: u8 = 0x0a;
    pub(super) const CLUSTER_ID: u8 = 0x08;
    pub(super) const MEMBER_ID: u8 = 0x10;
    pub(super) const REVISION: u8 = 0x18;
    pub(super) const RAFT_TERM: u8 = 0x20;
    pub(super) const WATCH_ID: u8 = 0x10;
    pub(super) const CREATED: u8 = 0x18;
    pub(super) const CANCELED: u8 = 0x20;
    pub(super) const COMPACT_REVISION: u8 = 0x28;
    pub(super) const CANCEL_REASON: u8 = 0x32;
    pub(super) const FRAGMENT: u8 = 0x38;
}

/// The fields of a response that are not events, encoded in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    bytes: [u8; Prefix::MAX],
    len: u8,
    /// Whether it says that a watcher begins or ends.
    control: bool,
}

impl Prefix {
    /// A header of four numbers, an id, a compact revision and two flags at their longest.
    const MAX: usize = 2 + 4 * 11 + 11 + 11 + 2 * 2 + 2;

    pub(crate) fn new(identity: Identity, revision: i64, watch_id: i64) -> Prefix {
        let mut prefix = Prefix { bytes: [0; Prefix::MAX], len: 2, control: false };
        prefix.number(tag::CLUSTER_ID, identity.cluster_id);
        prefix.number(tag::MEMBER_ID, identity.member_id);
        prefix.number(tag::REVISION, revision as u64);
        prefix.number(tag::RAFT_TERM, identity.raft_term);
        prefix.bytes[0] = tag::HEADER;
        prefix.bytes[1] = prefix.len - 2;
        prefix.number(tag::WATCH_ID, watch_id as u64);
        prefix
    }

    pub(crate) fn created(mut self) -> Prefix {
        self.number(tag::CREATED, 1);
        self.control = true;
        self
    }

    pub(crate) fn canceled(mut self) -> Prefix {
        self.number(tag::CANCELED, 1);
        self.control = true;
        self
    }

    pub(crate) fn compacted(mut self, revision: i64) -> Prefix {
        self.number(tag::COMPACT_REVISION, revision as u64);
        self
    }

    pub(crate) fn fragment(mut self) -> Prefix {
        self.number(tag::FRAGMENT, 1);
        self
    }

    /// Appends a field, unless it has the default value.
    fn number(&mut self, tag: u8, value: u64) {
        if value == 0 {
            return;
        }
        let at = self.len as usize;
        self.bytes[at] = tag;
        let mut rest = &mut self.bytes[at + 1..];
        let room = rest.len();
        encode_varint(value, &mut rest);
        self.len += 1 + (room - rest.len()) as u8;
    }
}

impl AsRef<[u8]> for Prefix {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

/// Encoded fields shared between frames, in as many pieces as it took not to copy large values.
#[derive(Clone, Debug, Default)]
pub(crate) enum Body {
    #[default]
    Empty,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Body {
    pub(crate) fn cancel_reason(reason: &str) -> Body {
        let mut out = Vec::with_capacity(reason.len() + 6);
        out.push(tag::CANCEL_REASON);
        encode_varint(reason.len() as u64, &mut out);
        out.extend_from_slice(reason.as_bytes());
        Body::One(out.into())
    }

    pub(crate) fn pieces(&self) -> &[Bytes] {
        match self {
            Body::Empty => &[],
            Body::One(piece) => std::slice::from_ref(piece),
            Body::Many(pieces) => pieces,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces().iter().map(Bytes::len).sum()
    }

    pub(crate) fn append(&mut self, more: &Body) {
        let mut pieces = match std::mem::take(self) {
            Body::Empty => {
                *self = more.clone();
                return;
            }
            Body::One(piece) => vec![piece],
            Body::Many(pieces) => pieces,
        };
        pieces.extend_from_slice(more.pieces());
        *self = Body::Many(pieces);
    }
}

/// Builds a [`Body`] out of events.
///
/// Small records are copied together into one piece, which every watcher's send buffer then takes in one
/// go; a record from [`BodyWriter::OWN_PIECE`] bytes on is cheaper to share than to copy.
#[derive(Debug, Default)]
pub(crate) struct BodyWriter {
    pieces: Vec<Bytes>,
    open: BytesMut,
}

impl BodyWriter {
    const OWN_PIECE: usize = 4 << 10;
    const EVENTS: u8 = 0x5a;
    const TYPE_DELETE: [u8; 2] = [0x08, 0x01];
    const KV: u8 = 0x12;
    const PREV_KV: u8 = 0x1a;

    pub(crate) fn with_capacity(bytes: usize) -> BodyWriter {
        BodyWriter { pieces: Vec::new(), open: BytesMut::with_capacity(bytes) }
    }

    /// Appends one element of the `events` field.
    pub(crate) fn event(&mut self, tombstone: bool, record: &Bytes, prev: Option<&Bytes>) {
        self.open.put_u8(Self::EVENTS);
        encode_varint(event_len(tombstone, record, prev) as u64, &mut self.open);
        if tombstone {
            self.open.put_slice(&Self::TYPE_DELETE);
        }
        self.record(Self::KV, record);
        if let Some(prev) = prev {
            self.record(Self::PREV_KV, prev);
        }
    }

    fn record(&mut self, tag: u8, record: &Bytes) {
        self.open.put_u8(tag);
        encode_varint(record.len() as u64, &mut self.open);
        if record.len() < Self::OWN_PIECE {
            self.open.put_slice(record);
        } else {
            self.pieces.push(self.open.split().freeze());
            self.pieces.push(record.clone());
        }
    }

    pub(crate) fn finish(mut self) -> Body {
        if !self.open.is_empty() {
            self.pieces.push(self.open.freeze());
        }
        match self.pieces.len() {
            0 => Body::Empty,
            1 => Body::One(self.pieces.remove(0)),
            _ => Body::Many(self.pieces),
        }
    }
}

/// The size of a length-delimited field with a one-byte tag.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// The size of an encoded `mvccpb.Event`.
fn event_len(tombstone: bool, record: &Bytes, prev: Option<&Bytes>) -> usize {
    let kind = if tombstone { BodyWriter::TYPE_DELETE.len() } else { 0 };
    kind + field_len(record.len()) + prev.map_or(0, |prev| field_len(prev.len()))
}

/// The size of an event as an element of a response's `events` field.
pub(crate) fn element_len(tombstone: bool, record: &Bytes, prev: Option<&Bytes>) -> usize {
    field_len(event_len(tombstone, record, prev))
}
