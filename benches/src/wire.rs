//! Just enough protobuf to count what is inside an answer without decoding it.

/// Walks the top-level length-delimited fields of `message`, skipping the other kinds.
///
/// Ends quietly at the first malformed byte: callers check what they counted.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// Iterator of [`fields`]: field number and content.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let tag = self.varint()?;
            match tag & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    return Some((tag >> 3, self.take(length)?));
                }
                5 => drop(self.take(4)?),
                _ => return None,
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }
}

/// How many keys a `RangeResponse` carries.
pub(crate) fn keys_in_range(response: &[u8]) -> usize {
    fields(response).filter(|(number, _)| *number == 2).count()
}

/// The value of every event in a `WatchResponse`, in order.
pub(crate) fn event_values(response: &[u8]) -> impl Iterator<Item = &[u8]> {
    let content = |message, wanted| fields(message).find(move |field| field.0 == wanted);
    fields(response)
        .filter(|(number, _)| *number == 11)
        .filter_map(move |(_, event)| Some(content(content(event, 2)?.1, 5)?.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::etcdserverpb::{RangeResponse, ResponseHeader, WatchResponse};
    use api::mvccpb::{Event, KeyValue};
    use prost::Message;

    fn record(key: &'static [u8], value: &'static [u8]) -> KeyValue {
        let (key, value) = (key.into(), value.into());
        KeyValue { key, value, create_revision: 300, mod_revision: 70_000, version: 2, lease: -1 }
    }

    #[test]
    fn keys_are_counted_beside_header_more_and_count() {
        let response = RangeResponse {
            header: Some(ResponseHeader { revision: 9, ..Default::default() }),
            kvs: vec![record(b"a", b"1"), record(b"b", b""), record(b"c", &[7; 400])],
            more: true,
            count: 1 << 40,
        };
        assert_eq!(keys_in_range(&response.encode_to_vec()), 3);
        assert_eq!(keys_in_range(&[]), 0);
    }

    #[test]
    fn event_values_come_in_order_and_previous_values_are_left_out() {
        let event = |value| Event {
            r#type: 0,
            kv: Some(record(b"key", value)),
            prev_kv: Some(record(b"key", b"old")),
        };
        let response =
            WatchResponse { watch_id: 7, events: vec![event(b"one"), event(b"two")], ..Default::default() };
        let encoded = response.encode_to_vec();
        assert_eq!(event_values(&encoded).collect::<Vec<_>>(), [b"one", b"two"]);
    }

    #[test]
    fn a_truncated_message_ends_the_walk() {
        let response = RangeResponse { kvs: vec![record(b"a", b"1"); 2], ..Default::default() };
        let encoded = response.encode_to_vec();
        assert_eq!(keys_in_range(&encoded[..encoded.len() - 1]), 1);
        assert_eq!(fields(&[0xff; 16]).count(), 0);
    }
}
