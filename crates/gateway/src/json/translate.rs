//! Messages as JSON, by the mapping that protobuf defines: 64-bit numbers as strings, bytes as base64, enums
//! by name. Both the names in `proto/` and their lowerCamel forms are read, the first are written, and what
//! has its default value is left out.

use hyper::body::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Deserializer, Serializer};
use tonic::Status;

/// Fields and names of enums that nobody knows are passed over: they may be those of a later version.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// The message that a JSON value stands for. How deep it may go is bounded by `serde_json`.
///
/// # Errors
/// `InvalidArgument` if it stands for none.
pub(super) fn from_json(kind: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    if text == b"null" {
        return Ok(DynamicMessage::new(kind.clone()));
    }
    let mut source = Deserializer::from_slice(text);
    DynamicMessage::deserialize_with_options(kind.clone(), &mut source, &READ)
        .and_then(|message| source.end().map(|()| message))
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A message as JSON.
///
/// # Errors
/// `Internal` if it is no such message.
pub(super) fn to_json(kind: &MessageDescriptor, message: Bytes) -> Result<Vec<u8>, Status> {
    let message = DynamicMessage::decode(kind.clone(), message)
        .map_err(|error| Status::internal(format!("cannot read an answer: {error}")))?;
    let mut text = Vec::with_capacity(2 * message.encoded_len());
    message
        .serialize_with_options(&mut Serializer::new(&mut text), &WRITE)
        .map_err(|error| Status::internal(format!("cannot write an answer: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost_reflect::DescriptorPool;
    use serde_json::{Value, json};
    use tonic::Code;

    use super::*;

    fn kind(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(api::DESCRIPTORS).unwrap();
        pool.get_message_by_name(&format!("etcdserverpb.{name}")).unwrap()
    }

    /// There and back.
    fn round(name: &str, text: &str) -> Value {
        let message = from_json(&kind(name), text.as_bytes()).unwrap();
        let text = to_json(&kind(name), message.encode_to_vec().into()).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn what_is_read_is_written_in_one_form() {
        for (name, text, written) in [
            ("RangeRequest", "{}", json!({})),
            ("RangeRequest", "null", json!({})),
            ("RangeRequest", r#"{"key":""}"#, json!({})),
            ("RangeRequest", r#"{"key":null,"limit":null}"#, json!({})),
            // Both names; both alphabets; with and without padding.
            ("RangeRequest", r#"{"rangeEnd":"Zm9v"}"#, json!({"range_end": "Zm9v"})),
            ("RangeRequest", r#"{"range_end":"-_8"}"#, json!({"range_end": "+/8="})),
            ("RangeRequest", r#"{"key":"+/8="}"#, json!({"key": "+/8="})),
            // Numbers as numbers or strings.
            ("RangeRequest", r#"{"limit":7}"#, json!({"limit": "7"})),
            ("RangeRequest", r#"{"limit":"-7"}"#, json!({"limit": "-7"})),
            (
                "RangeRequest",
                r#"{"revision":"9223372036854775807"}"#,
                json!({"revision": "9223372036854775807"}),
            ),
            // Enums by name or number, also one that is not known.
            ("RangeRequest", r#"{"sort_order":"DESCEND"}"#, json!({"sort_order": "DESCEND"})),
            ("RangeRequest", r#"{"sortOrder":1}"#, json!({"sort_order": "ASCEND"})),
            ("RangeRequest", r#"{"sort_target":77}"#, json!({"sort_target": 77})),
            // What a later version knows is passed over, fields and names alike.
            ("RangeRequest", r#"{"sort_order":"LATER"}"#, json!({})),
            ("RangeRequest", r#"{"later":{"a":[1]},"serializable":true}"#, json!({"serializable": true})),
            // What is one of several is written also if it is zero.
            (
                "Compare",
                r#"{"key":"YQ==","target":"VERSION","version":0}"#,
                json!({"key": "YQ==", "version": "0"}),
            ),
            ("LeaseGrantRequest", r#"{"TTL":"5","ID":6}"#, json!({"TTL": "5", "ID": "6"})),
        ] {
            assert_eq!(round(name, text), written, "{name} {text}");
        }
    }

    #[test]
    fn what_stands_for_no_message_is_refused() {
        let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(60), "}]}".repeat(60));
        for text in [
            "[]",
            "7",
            r#""text""#,
            "{,}",
            "{]",
            r#"{"key":"!!"}"#,
            r#"{"key":7}"#,
            r#"{"limit":"x"}"#,
            r#"{"limit":1.5}"#,
            r#"{"limit":9223372036854775808}"#,
            r#"{"serializable":"true"}"#,
            r#"{"compare":[{"version":1,"lease":2}]}"#,
            deep.as_str(),
            "\u{feff}{}",
        ] {
            let name = if text.contains("compare") || text.contains("success") {
                "TxnRequest"
            } else {
                "RangeRequest"
            };
            let refused = from_json(&kind(name), text.as_bytes()).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{text}");
        }
        assert!(from_json(&kind("RangeRequest"), b"{\"key\":\"\xff\"}").is_err());
    }
}
