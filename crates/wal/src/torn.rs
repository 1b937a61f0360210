//! Torn or damaged? What a crash can leave at the end of the log, and what it cannot.
//!
//! A power loss during a sync leaves any subset of the sectors of that one batch; the others read as
//! what was there before, and in a log that only ever grows into zeros, that is zeros. So a torn batch
//! shows it: the first record that does not read has at least one stretch inside one sector, frame or
//! message, that is all zeros. A flipped bit or a foreign sector does not look like that.
//!
//! And it can only be the last batch. Every batch opens with a mark that says "all before me is synced",
//! bound to its place in its file; a mark after the bad record therefore proves that the bad record had
//! been durable, and may have been acknowledged. Then the log is refused, not cut.

use crate::error::WalError;
use crate::record::{self, FRAME, Header, Kind, MAX_HEADER};
use crate::segment::{Reader, SECTOR};

/// The verdict on the first place in the last segment that does not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Sectors of the last batch are missing; nothing in it was ever acknowledged.
    Torn,
    /// Anything else, and why.
    Damaged(String),
}

/// Judges the place where `reader` stopped, in the last segment, whose number is `seq`. `marked` tells
/// whether its batches open with marks: segments written by etcd have none.
pub(crate) fn judge(reader: &mut Reader<'_>, seq: u64, marked: bool) -> Result<Verdict, WalError> {
    if let Err(reason) = explained_by_missing_sectors(reader)? {
        return Ok(Verdict::Damaged(reason));
    }
    let (mark, record) = survey(reader, seq)?;
    if let Some(offset) = mark {
        let reason = format!(
            "it is unreadable, but the batch that begins at byte {offset} was written after its sync"
        );
        return Ok(Verdict::Damaged(reason));
    }
    // Without marks a readable record further on may be of the same torn batch, or may be of a later one.
    if let (false, Some(offset)) = (marked, record) {
        let reason = format!(
            "it is unreadable, but the record at byte {offset} reads; if etcd was stopped by a power loss, let \
             etcd start once and repair its own log"
        );
        return Ok(Verdict::Damaged(reason));
    }
    Ok(Verdict::Torn)
}

/// Whether a crash can have made the bad record at the reader's place out of a good one.
fn explained_by_missing_sectors(reader: &mut Reader<'_>) -> Result<Result<(), String>, WalError> {
    let at = reader.at;
    let left = reader.size - at;
    if left < FRAME as u64 {
        return Ok(Ok(()));
    }
    let frame = reader.bytes(at, FRAME as u64)?.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    if frame == 0 {
        // The frame's sector is missing, so whatever else of the record lies in it must be missing too.
        let sector_end = (at / SECTOR + 1) * SECTOR;
        return Ok(match reader.next_nonzero(at)? {
            Some(offset) if offset < sector_end => {
                Err(format!("the log ends there, yet there is data in the same sector, at byte {offset}"))
            }
            _ => Ok(()),
        });
    }
    let Some((len, pad)) = record::decode_frame(frame) else {
        return Ok(Err("its frame is malformed".into()));
    };
    let body = at + FRAME as u64;
    let short = len.checked_add(pad).is_none_or(|whole| whole > left - FRAME as u64);
    let end = if short { reader.size } else { body + len };
    let front_len = len.min(MAX_HEADER as u64).min(end - body);
    let front = reader.bytes(body, front_len)?;
    if let Err(reason) = record::decode_header(front, len) {
        // The header does not read. It may lie in a missing sector, or its rest in the next one.
        let next_sector = (body / SECTOR + 1) * SECTOR;
        let first_missing = is_zero(reader, body, next_sector.min(end))?;
        let straddles = next_sector < body + MAX_HEADER as u64 && next_sector < end;
        let second_missing = straddles && is_zero(reader, next_sector, (next_sector + SECTOR).min(end))?;
        let cut_short = end - body < MAX_HEADER as u64 && short;
        if !(first_missing || second_missing || cut_short) {
            return Ok(Err(reason.into()));
        }
        return Ok(Ok(()));
    }
    if short {
        // A whole header whose two lengths agree, and a file that ends before: it never grew that far.
        return Ok(Ok(()));
    }
    let mut from = body;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if is_zero(reader, from, to)? {
            return Ok(Ok(()));
        }
        from = to;
    }
    Ok(Err("its checksum does not hold, and no sector of it is missing".into()))
}

fn is_zero(reader: &mut Reader<'_>, from: u64, to: u64) -> Result<bool, WalError> {
    Ok(from < to && reader.bytes(from, to - from)?.iter().all(|&b| b == 0))
}

/// Looks at every place behind the bad record where a record could begin: the first mark, and the
/// first pair of records of which the second continues the checksum of the first.
fn survey(reader: &mut Reader<'_>, seq: u64) -> Result<(Option<u64>, Option<u64>), WalError> {
    let mut pair = None;
    let mut at = reader.at + FRAME as u64;
    while let Some(offset) = reader.next_nonzero(at)? {
        at = offset / 8 * 8;
        if let Some((header, next)) = plausible(reader, at)? {
            if is_mark(reader, at, header, seq)? {
                return Ok((Some(at), pair));
            }
            if pair.is_none() && continues(reader, header.crc, next)? {
                pair = Some(at);
            }
        }
        at += FRAME as u64;
    }
    Ok((None, pair))
}

/// A frame and a header that agree, and the place behind them.
fn plausible(reader: &mut Reader<'_>, at: u64) -> Result<Option<(Header, u64)>, WalError> {
    let left = reader.size.saturating_sub(at + FRAME as u64);
    if at + FRAME as u64 > reader.size {
        return Ok(None);
    }
    let frame = reader.bytes(at, FRAME as u64)?.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let Some((len, pad)) = record::decode_frame(frame).filter(|&(len, _)| len > 0) else { return Ok(None) };
    if len.checked_add(pad).is_none_or(|whole| whole > left) {
        return Ok(None);
    }
    let body = at + FRAME as u64;
    let front = reader.bytes(body, len.min(MAX_HEADER as u64))?;
    Ok(record::decode_header(front, len).ok().map(|header| (header, body + len + pad)))
}

fn is_mark(reader: &mut Reader<'_>, at: u64, header: Header, seq: u64) -> Result<bool, WalError> {
    let proof = record::mark_proof(header.crc, seq, at);
    let data_at = at + (FRAME + header.data_at) as u64;
    let fits = header.kind == Kind::Crc && data_at + proof.len() as u64 <= reader.size;
    Ok(fits && reader.bytes(data_at, proof.len() as u64)? == proof)
}

fn continues(reader: &mut Reader<'_>, crc: u32, at: u64) -> Result<bool, WalError> {
    let Some((header, next)) = plausible(reader, at)? else { return Ok(false) };
    let data_at = at + (FRAME + header.data_at) as u64;
    // The padding is not data; the frame says how much of it there is.
    let frame = reader.bytes(at, FRAME as u64)?.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let pad = record::decode_frame(frame).map_or(0, |(_, pad)| pad);
    let data = reader.bytes(data_at, next - pad - data_at)?;
    Ok(match header.kind {
        Kind::Crc => header.crc == crc,
        _ => header.crc == crc32c::crc32c_append(crc, data),
    })
}
