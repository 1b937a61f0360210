//! One stored version of a key, as bytes: the encoded `mvccpb.KeyValue`.
//!
//! What a put stores is what a read sends, so the bytes are made once, in [`encode`], and from then on only
//! shared. The encoding is written by hand for two reasons. It must be byte for byte etcd's, because `HashKV`
//! is a checksum over these very bytes; and a range over a million keys reads only the numbers of each
//! record, which [`Header::parse`] does without touching the value.

use api::mvccpb::KeyValue;
use bytes::{Bytes, BytesMut};
use prost::Message;

/// Field numbers of `mvccpb.KeyValue` with their wire types, as they stand in front of each field.
mod tag {
    pub(super) const KEY: u8 = 0x0a;
    pub(super) const CREATE_REVISION: u8 = 0x10;
    pub(super) const MOD_REVISION: u8 = 0x18;
    pub(super) const VERSION: u8 = 0x20;
    pub(super) const VALUE: u8 = 0x2a;
    pub(super) const LEASE: u8 = 0x30;
}

/// One encoded `mvccpb.KeyValue`, straight from storage. Many records may slice one shared buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(pub Bytes);

impl Record {
    /// The message; its key and value slice this record.
    ///
    /// # Panics
    /// When the bytes are not an encoded `KeyValue`. Records come from the store, whose rows are checked when
    /// it is opened, so this is damage that must not be served.
    pub fn decode(&self) -> KeyValue {
        KeyValue::decode(self.0.clone()).expect("a record of the store is an encoded KeyValue")
    }

    /// The key of the record, sliced from it.
    pub fn key(&self) -> Bytes {
        let key = Header::parse(&self.0).expect("a record of the store is an encoded KeyValue").key;
        self.0.slice_ref(key)
    }
}

/// What a record says besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// Whether a row is of no key. A restore that is to go on at a higher revision leaves one such row there,
/// as etcd's does; it is part of the hash, and of nothing else.
pub(crate) fn is_bump(tombstone: bool, record: &[u8]) -> bool {
    !tombstone && record.is_empty()
}

/// A record that is not an encoded `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Header<'a> {
    /// Reads the numbers and the key, and steps over the value. Unknown fields are an error: nothing that
    /// writes this format has any.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Result<Header<'a>, Malformed> {
        let mut header = Header::default();
        while let Some((&tag, rest)) = bytes.split_first() {
            bytes = rest;
            match tag {
                tag::KEY => header.key = take_bytes(&mut bytes)?,
                tag::VALUE => _ = take_bytes(&mut bytes)?,
                tag::CREATE_REVISION => header.create_revision = take_varint(&mut bytes)? as i64,
                tag::MOD_REVISION => header.mod_revision = take_varint(&mut bytes)? as i64,
                tag::VERSION => header.version = take_varint(&mut bytes)? as i64,
                tag::LEASE => header.lease = take_varint(&mut bytes)? as i64,
                _ => return Err(Malformed),
            }
        }
        Ok(header)
    }
}

/// The value inside an encoded record.
pub(crate) fn value_of(mut bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut value: &[u8] = &[];
    while let Some((&tag, rest)) = bytes.split_first() {
        bytes = rest;
        match tag {
            tag::KEY => _ = take_bytes(&mut bytes)?,
            tag::VALUE => value = take_bytes(&mut bytes)?,
            tag::CREATE_REVISION | tag::MOD_REVISION | tag::VERSION | tag::LEASE => {
                take_varint(&mut bytes)?;
            }
            _ => return Err(Malformed),
        }
    }
    Ok(value)
}

/// Encodes one record into an allocation of exactly its size: the one copy of a stored value.
pub(crate) fn encode(header: &Header<'_>, value: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(encoded_len(header, value));
    put_record(&mut out, header, value);
    debug_assert_eq!(out.len(), out.capacity());
    Bytes::from(out)
}

/// Encodes a record without its value at the end of `out`, for answers that carry keys only.
pub(crate) fn encode_into(out: &mut BytesMut, header: &Header<'_>) {
    put_record(out, header, &[]);
}

/// The length of the encoded record.
pub(crate) fn encoded_len(header: &Header<'_>, value: &[u8]) -> usize {
    let bytes = |b: &[u8]| if b.is_empty() { 0 } else { 1 + varint_len(b.len() as u64) + b.len() };
    let number = |n: i64| if n == 0 { 0 } else { 1 + varint_len(n as u64) };
    bytes(header.key)
        + number(header.create_revision)
        + number(header.mod_revision)
        + number(header.version)
        + bytes(value)
        + number(header.lease)
}

/// The length of the part of a tombstone's event that is its stored row: the key field alone. An event also
/// says when the key was deleted, which the row's own key says on disk.
pub(crate) fn key_field_len(key_len: usize) -> usize {
    1 + varint_len(key_len as u64) + key_len
}

/// Fields in the order of their numbers, zero and empty ones left out: what every protobuf library writes.
fn put_record(out: &mut impl bytes::BufMut, header: &Header<'_>, value: &[u8]) {
    put_bytes(out, tag::KEY, header.key);
    put_number(out, tag::CREATE_REVISION, header.create_revision);
    put_number(out, tag::MOD_REVISION, header.mod_revision);
    put_number(out, tag::VERSION, header.version);
    put_bytes(out, tag::VALUE, value);
    put_number(out, tag::LEASE, header.lease);
}

fn put_bytes(out: &mut impl bytes::BufMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_number(out: &mut impl bytes::BufMut, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number as u64);
    }
}

fn put_varint(out: &mut impl bytes::BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(take_varint(bytes)?).map_err(|_| Malformed)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_bytes_are_those_of_a_protobuf_library() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, 1 << 35, i64::MAX, -1, i64::MIN];
        for (i, &n) in numbers.iter().enumerate() {
            let m = numbers[(i + 3) % numbers.len()];
            let key = vec![b'k'; [1, 127, 128, 20_000][i % 4]];
            let value = vec![b'v'; [0, 1, 127, 128, 70_000][i % 5]];
            let expected = KeyValue {
                key: key.clone().into(),
                create_revision: n,
                mod_revision: m,
                version: n,
                value: value.clone().into(),
                lease: m,
            };
            let header = Header { key: &key, create_revision: n, mod_revision: m, version: n, lease: m };
            let bytes = encode(&header, &value);
            assert_eq!(bytes, expected.encode_to_vec());
            assert_eq!(Header::parse(&bytes), Ok(header));
            assert_eq!(value_of(&bytes), Ok(&value[..]));
            assert_eq!(Record(bytes.clone()).decode(), expected);
            assert_eq!(Record(bytes).key(), key);
        }
    }

    #[test]
    fn cut_records_are_refused() {
        let header = Header { key: b"key", create_revision: 300, mod_revision: 300, version: 1, lease: 9 };
        let bytes = encode(&header, b"value");
        let whole_fields = [0, 5, 8, 11, 13, 20, 22];
        for cut in 0..=bytes.len() {
            assert_eq!(Header::parse(&bytes[..cut]).is_ok(), whole_fields.contains(&cut), "cut at {cut}");
        }
        assert_eq!(Header::parse(&[0x3a, 0]), Err(Malformed), "a field that KeyValue does not have");
    }
}
