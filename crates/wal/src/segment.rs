//! One segment: its name, and a reader that walks its records without trusting any of them.

use std::path::{Path, PathBuf};

use crate::disk::DiskFile;
use crate::error::WalError;
use crate::record::{self, FRAME, Header, Kind, MAX_HEADER};

/// The unit that a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

/// Where a segment stands: its number, and the index that was to be written next when it was cut.
/// Ordered by number, which is the order in which segments were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) seq: u64,
    pub(crate) first: u64,
}

impl SegmentName {
    /// Reads `0000000000000003-00000000000000a0.wal`; `None` for anything else.
    pub(crate) fn parse(name: &str) -> Option<SegmentName> {
        let (seq, first) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(SegmentName { seq: hex(seq)?, first: hex(first)? })
    }

    /// The one with this number.
    pub(crate) fn find(segments: &[SegmentName], seq: u64) -> Option<SegmentName> {
        segments.iter().copied().find(|name| name.seq == seq)
    }

    pub(crate) fn file_name(self) -> String {
        format!("{:016x}-{:016x}.wal", self.seq, self.first)
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.file_name())
    }
}

fn hex(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if digits.len() == 16 && plain { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// How much is read at a time.
const WINDOW: usize = 1 << 20;

/// What stands at the reader's place.
pub(crate) enum Step {
    /// A whole record whose checksum holds. Its data is in [`Reader::data`].
    Record { header: Header, at: u64 },
    /// Zeros from here to the end of the file, or no more bytes.
    End,
    /// Something that is not a record, and why not.
    Bad(String),
}

/// Walks one segment from its start.
pub(crate) struct Reader<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    pub(crate) size: u64,
    /// The bytes from `start` on that were read last.
    window: Vec<u8>,
    start: u64,
    /// Where the next record begins.
    pub(crate) at: u64,
    /// The checksum chain up to there; unknown before the head of the first segment that is read.
    pub(crate) crc: Option<u32>,
    data: std::ops::Range<usize>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        path: &'a Path,
        crc: Option<u32>,
    ) -> Result<Reader<'a>, WalError> {
        let size = file.size().map_err(|source| WalError::Io {
            doing: "read the size of",
            path: path.into(),
            source,
        })?;
        Ok(Reader { file, path, size, window: Vec::new(), start: 0, at: 0, crc, data: 0..0 })
    }

    /// Goes on at `at`, where the checksum chain is known, in a file that may be read up to `size`.
    pub(crate) fn resume(
        file: &'a dyn DiskFile,
        path: &'a Path,
        size: u64,
        (at, crc): (u64, Option<u32>),
    ) -> Reader<'a> {
        Reader { file, path, size, window: Vec::new(), start: 0, at, crc, data: 0..0 }
    }

    /// The data of the record that [`Reader::step`] gave last.
    pub(crate) fn data(&self) -> &[u8] {
        &self.window[self.data.clone()]
    }

    /// Reads the record at `at` and moves past it. On `End` and `Bad` it stays where it is.
    pub(crate) fn step(&mut self) -> Result<Step, WalError> {
        let left = self.size - self.at;
        if left < FRAME as u64 {
            let rest = self.bytes(self.at, left)?;
            let zero = rest.iter().all(|&b| b == 0);
            return Ok(if zero { Step::End } else { Step::Bad("the file ends inside a frame".into()) });
        }
        let frame = self.bytes(self.at, FRAME as u64)?.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        if frame == 0 {
            return Ok(match self.next_nonzero(self.at)? {
                None => Step::End,
                Some(offset) => Step::Bad(format!("the log ends there, yet there is data at byte {offset}")),
            });
        }
        let Some((len, pad)) = record::decode_frame(frame) else {
            return Ok(Step::Bad("its frame is malformed".into()));
        };
        if len.checked_add(pad).is_none_or(|whole| whole > left - FRAME as u64) {
            return Ok(Step::Bad(format!("it claims {len} bytes, more than the file has left")));
        }
        // The header is judged before the body is read: a length is believed only when it is there twice.
        let body = self.at + FRAME as u64;
        let front = self.bytes(body, len.min(MAX_HEADER as u64))?;
        let header = match record::decode_header(front, len) {
            Ok(header) => header,
            Err(reason) => return Ok(Step::Bad(reason.into())),
        };
        let window = self.ensure(body, len)?;
        let data = window.start + header.data_at..window.end;
        let chain = match header.kind {
            // It states the chain and is no part of it; the first one read is taken at its word.
            Kind::Crc => self.crc.unwrap_or(header.crc),
            _ => crc32c::crc32c_append(self.crc.unwrap_or(0), &self.window[data.clone()]),
        };
        if chain != header.crc {
            let (stored, computed) = (header.crc, chain);
            return Ok(Step::Bad(format!("its checksum is {computed:08x}, but {stored:08x} was written")));
        }
        let at = self.at;
        self.crc = Some(chain);
        self.data = data;
        self.at = body + len + pad;
        Ok(Step::Record { header, at })
    }

    /// The first byte at or after `from` that is not zero.
    pub(crate) fn next_nonzero(&mut self, from: u64) -> Result<Option<u64>, WalError> {
        let mut at = from;
        while at < self.size {
            let take = (self.size - at).min(WINDOW as u64);
            let bytes = self.bytes(at, take)?;
            if let Some(i) = first_nonzero(bytes) {
                return Ok(Some(at + i as u64));
            }
            at += take;
        }
        Ok(None)
    }

    /// `len` bytes at `at`, which must lie inside the file.
    pub(crate) fn bytes(&mut self, at: u64, len: u64) -> Result<&[u8], WalError> {
        let range = self.ensure(at, len)?;
        Ok(&self.window[range])
    }

    /// Sees to it that these bytes are in the window and says where.
    fn ensure(&mut self, at: u64, len: u64) -> Result<std::ops::Range<usize>, WalError> {
        debug_assert!(at + len <= self.size);
        let len = len as usize;
        let inside = at >= self.start && at + len as u64 <= self.start + self.window.len() as u64;
        if !inside {
            let take = (self.size - at).min(len.max(WINDOW) as u64) as usize;
            self.window.resize(take, 0);
            self.start = at;
            let read = self.file.read_at(&mut self.window, at);
            read.map_err(|source| WalError::Io { doing: "read", path: self.path.into(), source })?;
        }
        let from = (at - self.start) as usize;
        Ok(from..from + len)
    }
}

/// Young segments are mostly zeros, so whole pages of them are compared at once.
fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let pages = bytes.chunks(ZEROS.len());
    let zero = pages.take_while(|page| *page == &ZEROS[..page.len()]).count();
    let skip = bytes.len().min(zero * ZEROS.len());
    bytes[skip..].iter().position(|&b| b != 0).map(|i| skip + i)
}
