//! One record: its frame, its checksum, and the few messages that it can carry.
//!
//! A record on disk is an 8-byte little-endian frame, a `walpb.Record`, and zeros up to a multiple of
//! eight, so that a frame never straddles a sector. The low 56 bits of the frame are the length of the
//! message; if zeros follow it, the top byte is `0x80` plus their count. A frame of zero is the end.
//!
//! The message is `08 kind  10 crc  1a length data`. The checksum is CRC-32C over the data of this record
//! and of all records before it, back to the first segment; it covers neither the kind nor the frame.
//! What it leaves out is held by being strict: exactly these fields in this order, filling the frame.

use raft::{ConfState, Entry, EntryKind, HardState, Index, NodeId, SnapshotMeta, Term};
use std::sync::Arc;

/// Bytes of a frame.
pub(crate) const FRAME: usize = 8;

/// More than any record header needs: kind, checksum, length of the data.
pub(crate) const MAX_HEADER: usize = 2 + 6 + 11;

/// Indexes and terms from here on are of no log: counting on from them could overflow.
pub(crate) const SENSELESS: u64 = 1 << 63;

/// What a record holds. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl Kind {
    fn from_number(n: u64) -> Option<Kind> {
        Some(match n {
            1 => Kind::Metadata,
            2 => Kind::Entry,
            3 => Kind::State,
            4 => Kind::Crc,
            5 => Kind::Snapshot,
            _ => return None,
        })
    }
}

// ---------------------------------------------------------------- writing

/// Encodes records one after the other into one buffer that is used again and again.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(crate) buf: Vec<u8>,
    /// The checksum chain up to the last record encoded.
    pub(crate) crc: u32,
}

impl Encoder {
    pub(crate) fn metadata(&mut self, metadata: &[u8]) {
        self.record(Kind::Metadata, Some([metadata, &[]]));
    }

    /// The record that opens a segment: the chain as the segment before left it.
    pub(crate) fn crc(&mut self) {
        self.record(Kind::Crc, None);
    }

    /// The record that opens a batch: everything before it in this segment has been synced.
    /// To etcd it is a checksum record like the one above, which readers accept anywhere.
    pub(crate) fn mark(&mut self, seq: u64, offset: u64) {
        let proof = mark_proof(self.crc, seq, offset);
        self.record(Kind::Crc, Some([&proof, &[]]));
    }

    pub(crate) fn entry(&mut self, entry: &Entry) {
        let mut head = Small::default();
        head.field(1, u64::from(entry.kind.number()));
        head.field(2, entry.term.0);
        head.field(3, entry.index.0);
        if !entry.data.is_empty() {
            head.key(4, 2);
            head.varint(entry.data.len() as u64);
        }
        self.record(Kind::Entry, Some([head.as_slice(), &entry.data]));
    }

    pub(crate) fn state(&mut self, state: &HardState) {
        let mut head = Small::default();
        head.field(1, state.term.0);
        head.field(2, state.vote.map_or(0, |id| id.0));
        head.field(3, state.commit.0);
        self.record(Kind::State, Some([head.as_slice(), &[]]));
    }

    pub(crate) fn snapshot(&mut self, meta: &SnapshotMeta) {
        let mut head = Small::default();
        head.field(1, meta.index.0);
        head.field(2, meta.term.0);
        let mut conf = Vec::new();
        if meta.index.0 > 0 {
            conf = encode_conf_state(&meta.conf_state);
            head.key(3, 2);
            head.varint(conf.len() as u64);
        }
        self.record(Kind::Snapshot, Some([head.as_slice(), &conf]));
    }

    /// The data comes in two parts so that an entry's payload is copied once, straight to its place.
    pub(crate) fn record(&mut self, kind: Kind, data: Option<[&[u8]; 2]>) {
        let [front, back] = data.unwrap_or_default();
        if kind != Kind::Crc {
            self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, front), back);
        }
        let mut header = Small::default();
        header.field(1, kind as u64);
        header.field(2, u64::from(self.crc));
        if data.is_some() {
            header.key(3, 2);
            header.varint((front.len() + back.len()) as u64);
        }
        let header = header.as_slice();
        let len = header.len() + front.len() + back.len();
        let pad = (8 - len % 8) % 8;
        let frame = if pad == 0 { len as u64 } else { len as u64 | (0x80 | pad as u64) << 56 };
        self.buf.reserve(FRAME + len + pad);
        self.buf.extend_from_slice(&frame.to_le_bytes());
        self.buf.extend_from_slice(header);
        self.buf.extend_from_slice(front);
        self.buf.extend_from_slice(back);
        self.buf.extend_from_slice(&[0; 8][..pad]);
    }
}

/// What a mark carries: where it was written, and a checksum that binds it to that place, so that bytes
/// which merely look like a mark (a log stored as a value, say) are not taken for one.
pub(crate) fn mark_proof(crc: u32, seq: u64, offset: u64) -> [u8; 8] {
    let mut proof = [0; 8];
    proof[..4].copy_from_slice(&(offset as u32).to_le_bytes());
    let mut check = crc32c::crc32c(b"cairn sync mark");
    check = crc32c::crc32c_append(check, &seq.to_le_bytes());
    check = crc32c::crc32c_append(check, &offset.to_le_bytes());
    check = crc32c::crc32c_append(check, &crc.to_le_bytes());
    proof[4..].copy_from_slice(&check.to_le_bytes());
    proof
}

/// A few protobuf fields on the stack.
struct Small {
    bytes: [u8; 48],
    len: usize,
}

impl Default for Small {
    fn default() -> Small {
        Small { bytes: [0; 48], len: 0 }
    }
}

impl Small {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn key(&mut self, field: u8, wire: u8) {
        self.bytes[self.len] = field << 3 | wire;
        self.len += 1;
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes[self.len] = value as u8 | 0x80;
            self.len += 1;
            value >>= 7;
        }
        self.bytes[self.len] = value as u8;
        self.len += 1;
    }

    fn field(&mut self, field: u8, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }
}

fn encode_conf_state(conf: &ConfState) -> Vec<u8> {
    let mut out = Vec::new();
    let lists = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next];
    for (number, list) in (1u8..).zip(lists) {
        for id in list {
            let mut field = Small::default();
            field.field(number, id.0);
            out.extend_from_slice(field.as_slice());
        }
    }
    out.extend_from_slice(&[5 << 3, u8::from(conf.auto_leave)]);
    out
}

// ---------------------------------------------------------------- reading

/// What a frame says: bytes of the message, and of the zeros after it. `None` for a frame that no
/// writer makes; a zero frame gives zero bytes.
pub(crate) fn decode_frame(frame: u64) -> Option<(u64, u64)> {
    let len = frame & (u64::MAX >> 8);
    let pad = match (frame >> 56) as u8 {
        0 => 0,
        top @ 0x81..=0x87 => u64::from(top & 7),
        _ => return None,
    };
    (len.wrapping_add(pad) % 8 == 0).then_some((len, pad))
}

/// The fixed part of a record: kind, stored checksum, and where its data lies inside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) crc: u32,
    pub(crate) data_at: usize,
}

/// Reads the header from the first bytes of a message that is `len` bytes long, and checks that the
/// data fills the rest exactly: the length is on disk twice, and both must agree before either is trusted.
pub(crate) fn decode_header(front: &[u8], len: u64) -> Result<Header, &'static str> {
    let mut fields = Fields { rest: front };
    let kind = fields.expect_varint(1 << 3).ok_or("it does not begin with a record kind")?;
    let kind = Kind::from_number(kind).ok_or("its kind is unknown")?;
    let crc = fields.expect_varint(2 << 3).ok_or("its checksum field is malformed")?;
    let crc = u32::try_from(crc).map_err(|_| "its checksum field is malformed")?;
    let used = front.len() - fields.rest.len();
    if used as u64 == len {
        return Ok(Header { kind, crc, data_at: used });
    }
    let data = fields.expect_varint(3 << 3 | 2).ok_or("its data field is malformed")?;
    let used = front.len() - fields.rest.len();
    if (used as u64).checked_add(data) != Some(len) {
        return Err("its two lengths disagree");
    }
    Ok(Header { kind, crc, data_at: used })
}

pub(crate) fn decode_entry(data: &[u8]) -> Result<Entry, &'static str> {
    const BAD: &str = "its entry is malformed";
    let mut entry = Entry { term: Term(0), index: Index(0), kind: EntryKind::Normal, data: Arc::default() };
    let mut fields = Fields { rest: data };
    while let Some(key) = fields.key() {
        match key {
            0x08 => {
                entry.kind = EntryKind::of(fields.varint().ok_or(BAD)?).ok_or("its entry is of no kind")?;
            }
            0x10 => entry.term = Term(fields.varint().ok_or(BAD)?),
            0x18 => entry.index = Index(fields.varint().ok_or(BAD)?),
            0x22 => entry.data = fields.bytes().ok_or(BAD)?.into(),
            _ => return Err(BAD),
        }
    }
    if entry.term.0 == 0 || entry.index.0 == 0 {
        return Err("its entry has no term or no index");
    }
    if entry.term.0 >= SENSELESS || entry.index.0 >= SENSELESS {
        return Err("its entry has an index or a term without bound");
    }
    Ok(entry)
}

/// Where an entry stands, without looking at its payload.
pub(crate) fn entry_place(data: &[u8]) -> Result<(Term, Index), &'static str> {
    const BAD: &str = "its entry is malformed";
    let (mut term, mut index) = (Term(0), Index(0));
    let mut fields = Fields { rest: data };
    while let Some(key) = fields.key() {
        match key {
            0x22 => fields.bytes().map(|_| ()).ok_or(BAD)?,
            0x10 => term = Term(fields.varint().ok_or(BAD)?),
            0x18 => index = Index(fields.varint().ok_or(BAD)?),
            _ => fields.varint().map(|_| ()).ok_or(BAD)?,
        }
    }
    Ok((term, index))
}

pub(crate) fn decode_state(data: &[u8]) -> Result<HardState, &'static str> {
    const BAD: &str = "its hard state is malformed";
    let mut state = HardState { term: Term(0), vote: None, commit: Index(0) };
    let mut fields = Fields { rest: data };
    while let Some(key) = fields.key() {
        let value = fields.varint().ok_or(BAD)?;
        match key {
            0x08 => state.term = Term(value),
            0x10 => state.vote = (value != 0).then_some(NodeId(value)),
            0x18 => state.commit = Index(value),
            _ => return Err(BAD),
        }
    }
    if state.term.0 == 0 {
        return Err("its hard state has no term");
    }
    if state.term.0 >= SENSELESS || state.commit.0 >= SENSELESS {
        return Err("its hard state has a term or a commit index without bound");
    }
    Ok(state)
}

pub(crate) fn decode_snapshot(data: &[u8]) -> Result<SnapshotMeta, &'static str> {
    const BAD: &str = "its snapshot marker is malformed";
    let mut meta = SnapshotMeta { conf_state: ConfState::default(), index: Index(0), term: Term(0) };
    let mut fields = Fields { rest: data };
    let mut seen = 0;
    while let Some(key) = fields.key() {
        match key {
            0x08 => meta.index = Index(fields.varint().ok_or(BAD)?),
            0x10 => meta.term = Term(fields.varint().ok_or(BAD)?),
            0x1a => meta.conf_state = decode_conf_state(fields.bytes().ok_or(BAD)?).ok_or(BAD)?,
            _ => return Err(BAD),
        }
        seen += 1;
    }
    if seen < 2 || (meta.index.0 == 0) != (meta.term.0 == 0) {
        return Err(BAD);
    }
    if meta.index.0 >= SENSELESS || meta.term.0 >= SENSELESS {
        return Err("its snapshot marker has an index or a term without bound");
    }
    Ok(meta)
}

fn decode_conf_state(data: &[u8]) -> Option<ConfState> {
    let mut conf = ConfState::default();
    let mut fields = Fields { rest: data };
    while let Some(key) = fields.key() {
        let value = fields.varint()?;
        match key >> 3 {
            1 => conf.voters.push(NodeId(value)),
            2 => conf.learners.push(NodeId(value)),
            3 => conf.voters_outgoing.push(NodeId(value)),
            4 => conf.learners_next.push(NodeId(value)),
            5 => conf.auto_leave = value != 0,
            _ => return None,
        }
    }
    Some(conf)
}

/// A walk over protobuf fields. Keys are one byte here: every field number is below 16.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn key(&mut self) -> Option<u8> {
        let (&key, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(key)
    }

    fn expect_varint(&mut self, key: u8) -> Option<u64> {
        (self.key()? == key).then(|| self.varint()).flatten()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // The tenth byte holds one bit, and no writer spends bytes on leading zeros.
                if (i == 9 && byte > 1) || (i > 0 && byte == 0) {
                    return None;
                }
                self.rest = &self.rest[i + 1..];
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }
}
