//! Answers that are put on the wire from parts, without becoming a message first.
//!
//! A list of keys is stored as it is sent: each record is an encoded `mvccpb.KeyValue`. An event
//! is encoded once for all its watchers. So both are written here by hand, tag by tag; everything
//! else goes through prost.

use std::marker::PhantomData;

use bytes::BufMut;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

/// An answer that knows its bytes.
pub(crate) trait Wire: Send + 'static {
    /// How many bytes [`Wire::write`] will write.
    fn length(&self) -> usize;
    /// Writes the protobuf encoding.
    fn write(&self, to: &mut impl BufMut);
}

/// Writes answers by [`Wire`], reads requests by prost.
pub(crate) struct WireCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WireCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Wire, U: Message + Default + Send + 'static> Codec for WireCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = WireEncoder<T>;
    type Decoder = <ProstCodec<U, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        WireEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<U, U>::default().decoder()
    }
}

pub(crate) struct WireEncoder<T>(PhantomData<T>);

impl<T: Wire> Encoder for WireEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // One exact reservation: growing by doubling would hold a large list up to twice more.
        buffer.reserve(item.length());
        item.write(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(512, 32 * 1024)
    }
}

/// The length of a protobuf varint.
pub(crate) fn varint_length(value: u64) -> usize {
    prost::encoding::encoded_len_varint(value)
}

/// Writes the tag and length that come before a length-delimited field (field numbers below 16).
pub(crate) fn write_delimited(field: u8, length: usize, to: &mut impl BufMut) {
    to.put_u8(field << 3 | 2);
    prost::encoding::encode_varint(length as u64, to);
}
