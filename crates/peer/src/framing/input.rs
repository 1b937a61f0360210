//! Bytes as they come, cut into frames.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{Broken, Decoder, Said, Scan};

/// Holds a frame until it is whole. Frames that lie within one piece of input are read from it in
/// place; only what straddles pieces is copied together.
pub(crate) struct Input {
    decoder: Decoder,
    partial: BytesMut,
    /// Bytes without which nothing new can be said about `partial`.
    need: usize,
}

impl Input {
    pub(crate) fn new(decoder: Decoder) -> Input {
        Input { decoder, partial: BytesMut::new(), need: 1 }
    }

    /// Takes what came, and tells what it said.
    pub(crate) fn feed(&mut self, piece: Bytes, mut said: impl FnMut(Said)) -> Result<(), Broken> {
        let mut rest = if self.partial.is_empty() {
            piece
        } else {
            self.partial.extend_from_slice(&piece);
            if self.partial.len() < self.need {
                return Ok(());
            }
            self.partial.split().freeze()
        };
        while rest.has_remaining() {
            match self.decoder.scan(&rest)? {
                Scan::Whole(bytes) => said(self.decoder.read(rest.split_to(bytes))?),
                Scan::Need(bytes) => {
                    self.need = bytes;
                    self.partial.extend_from_slice(&rest);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
