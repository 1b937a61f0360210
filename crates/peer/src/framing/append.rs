//! `msgappv2` streams. In steady replication each append begins where the one before has ended, in one
//! term: then neither needs to be said.
//!
//! | frame | bytes |
//! |---|---|
//! | heartbeat | `00` |
//! | entries that continue | `01`, count, for each its length and a `raftpb.Entry`, commit index |
//! | any append | `02`, length, a `raftpb.Message` |
//!
//! Numbers are eight bytes, big-endian. Both sides keep the place (term, index) where the last append
//! ended; a frame `02` sets it, a frame `01` moves it on.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use raft::{Body, Index, Message, NodeId, Term};

use super::{Broken, MAX_FRAME, Said, Scan, number_at};
use crate::codec::{self, Refused};

const HEARTBEAT: u8 = 0;
const ENTRIES: u8 = 1;
const APPEND: u8 = 2;

/// Entries that memory is taken for before they have been seen.
const MOST_AT_ONCE: usize = 4096;

pub(super) fn put_heartbeat(out: &mut BytesMut) {
    out.put_u8(HEARTBEAT);
}

/// The sender's side.
#[derive(Default)]
pub(crate) struct AppendEncoder {
    term: Term,
    index: Index,
}

impl AppendEncoder {
    /// Appends a message. Only appends belong on such a stream; another message would travel whole.
    pub(crate) fn put(&mut self, out: &mut BytesMut, message: &Message) {
        match &message.body {
            Body::Append { prev_index, prev_term, entries, commit }
                if *prev_index == self.index && *prev_term == self.term && self.term == message.term =>
            {
                out.put_u8(ENTRIES);
                out.put_u64(entries.len() as u64);
                for entry in entries {
                    out.put_u64(codec::entry_len(entry) as u64);
                    codec::put_entry(out, entry);
                }
                out.put_u64(commit.0);
                self.index = Index(self.index.0 + entries.len() as u64);
            }
            _ => {
                out.put_u8(APPEND);
                super::put_framed(out, message);
                self.term = message.term;
                self.index = match &message.body {
                    Body::Append { prev_index, entries, .. } => {
                        entries.last().map_or(*prev_index, |last| last.index)
                    }
                    // The index field of any other message that could come here is zero or unused.
                    _ => Index(0),
                };
            }
        }
    }
}

/// The receiver's side.
pub(crate) struct AppendDecoder {
    local: NodeId,
    remote: NodeId,
    term: Term,
    index: Index,
    /// How far a frame of entries has been walked through: entries left, and where the next begins.
    walked: Option<(u64, usize)>,
}

impl AppendDecoder {
    pub(crate) fn new(local: u64, remote: u64) -> AppendDecoder {
        AppendDecoder {
            local: NodeId(local),
            remote: NodeId(remote),
            term: Term(0),
            index: Index(0),
            walked: None,
        }
    }

    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Broken> {
        let Some(&kind) = bytes.first() else { return Ok(Scan::Need(1)) };
        let end = match kind {
            HEARTBEAT => 1,
            ENTRIES => return self.scan_entries(bytes),
            APPEND => {
                let Some(length) = number_at(bytes, 1) else { return Ok(Scan::Need(9)) };
                if length > MAX_FRAME {
                    return Err(Broken::TooLong(length));
                }
                9 + length as usize
            }
            other => return Err(Broken::Type(other)),
        };
        Ok(if bytes.len() >= end { Scan::Whole(end) } else { Scan::Need(end) })
    }

    fn scan_entries(&mut self, bytes: &[u8]) -> Result<Scan, Broken> {
        let (mut left, mut at) = match self.walked.take() {
            Some(walked) => walked,
            None => {
                let Some(count) = number_at(bytes, 1) else { return Ok(Scan::Need(9)) };
                // Each takes eight bytes at least.
                if count > MAX_FRAME / 8 {
                    return Err(Broken::TooLong(count.saturating_mul(8)));
                }
                (count, 9)
            }
        };
        while left > 0 {
            let Some(length) = number_at(bytes, at) else {
                self.walked = Some((left, at));
                return Ok(Scan::Need(at + 8));
            };
            let end = (at as u64 + 8).saturating_add(length);
            if end > MAX_FRAME {
                return Err(Broken::TooLong(end));
            }
            at = end as usize;
            left -= 1;
        }
        let end = at + 8;
        if bytes.len() < end {
            self.walked = Some((0, at));
            return Ok(Scan::Need(end));
        }
        Ok(Scan::Whole(end))
    }

    pub(crate) fn read(&mut self, mut frame: Bytes) -> Result<Said, Broken> {
        match frame.get_u8() {
            HEARTBEAT => Ok(Said::Heartbeat),
            ENTRIES => self.read_entries(frame),
            _ => {
                frame.advance(8);
                let message = codec::decode(frame).map_err(Broken::Frame)?;
                self.term = Term(message.term());
                self.index = Index(message.entries.last().map_or(message.index(), |last| last.index()));
                Ok(codec::to_raft(message).map_or_else(Said::Refused, Said::Message))
            }
        }
    }

    fn read_entries(&mut self, mut frame: Bytes) -> Result<Said, Broken> {
        let count = frame.get_u64() as usize;
        let (term, prev_index) = (self.term, self.index);
        if term.0 == 0 {
            return Err(Broken::Frame(Refused::Senseless("entries that continue nothing")));
        }
        let mut entries = Vec::with_capacity(count.min(MOST_AT_ONCE));
        for _ in 0..count {
            let length = frame.get_u64() as usize;
            let entry = codec::decode_entry(frame.split_to(length)).map_err(Broken::Frame)?;
            // The place may be one that a refused message has named.
            self.index = Index(codec::bounded(self.index.0.saturating_add(1)).map_err(Broken::Frame)?);
            // Both sides count. If the sender has counted otherwise, the place is lost for good.
            if entry.index != self.index || entry.term != term {
                return Err(Broken::Frame(Refused::Senseless("entries that do not continue")));
            }
            entries.push(entry);
        }
        let commit = Index(codec::bounded(frame.get_u64()).map_err(Broken::Frame)?);
        Ok(Said::Message(Message {
            to: self.local,
            from: self.remote,
            term,
            body: Body::Append { prev_index, prev_term: term, entries, commit },
        }))
    }
}
