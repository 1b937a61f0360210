//! `message` streams, and the head of a snapshot: 8 bytes of big-endian length, a `raftpb.Message`.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use raft::Message;

use super::{Broken, MAX_FRAME, Said, Scan, number_at};
use crate::codec;

/// Appends a message and its length.
pub(crate) fn put_framed(out: &mut BytesMut, message: &Message) {
    let at = out.len();
    out.put_u64(0);
    codec::put_message(out, message);
    let length = (out.len() - at - 8) as u64;
    out[at..at + 8].copy_from_slice(&length.to_be_bytes());
}

/// A heartbeat from nobody to nobody.
pub(super) fn put_heartbeat(out: &mut BytesMut) {
    out.put_u64(2);
    out.put_slice(&[1 << 3, 8]);
}

/// Frames do not depend on each other.
pub(crate) struct MessageDecoder;

impl MessageDecoder {
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Broken> {
        let Some(length) = number_at(bytes, 0) else { return Ok(Scan::Need(8)) };
        if length > MAX_FRAME {
            return Err(Broken::TooLong(length));
        }
        let end = 8 + length as usize;
        Ok(if bytes.len() >= end { Scan::Whole(end) } else { Scan::Need(end) })
    }

    pub(crate) fn read(&mut self, mut frame: Bytes) -> Result<Said, Broken> {
        frame.advance(8);
        let message = codec::decode(frame).map_err(Broken::Frame)?;
        if codec::is_link_heartbeat(&message) {
            return Ok(Said::Heartbeat);
        }
        Ok(codec::to_raft(message).map_or_else(Said::Refused, Said::Message))
    }
}
