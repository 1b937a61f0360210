//! A member of the cluster, and the JSON in which etcd stores it and sends it along with a
//! configuration change.

use std::io;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One member, as the log knows it.
///
/// The fields stand in the order in which etcd writes them, and are absent from the JSON where
/// etcd's are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The id, never zero.
    #[serde(default)]
    pub id: u64,
    /// Where the other members reach it.
    #[serde(
        rename = "peerURLs",
        default,
        serialize_with = "null_if_empty",
        deserialize_with = "null_is_empty"
    )]
    pub peer_urls: Vec<String>,
    /// Whether it receives the log without a vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    pub is_learner: bool,
    /// Its human-readable name; empty until it has started for the first time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it; empty until it has started for the first time.
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub client_urls: Vec<String>,
}

/// The context of a configuration change that adds or promotes a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeContext {
    /// The member; of a promotion only its id.
    #[serde(flatten)]
    pub member: Member,
    /// Whether a learner is to become a voter.
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

/// Whether a downgrade is under way, and to which version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// The wanted version, empty if none is under way.
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    /// Whether one is under way.
    #[serde(default)]
    pub enabled: bool,
}

impl Member {
    /// The key of its row: the id in hexadecimal, without leading zeros.
    pub fn row_key(id: u64) -> Bytes {
        Bytes::from(format!("{id:x}"))
    }

    /// The id that a row's key names.
    pub fn parse_row_key(key: &[u8]) -> Option<u64> {
        u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok()
    }
}

impl From<&Member> for api::etcdserverpb::Member {
    fn from(member: &Member) -> Self {
        api::etcdserverpb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: member.peer_urls.clone(),
            client_ur_ls: member.client_urls.clone(),
            is_learner: member.is_learner,
        }
    }
}

/// The bytes that etcd would write. Its encoder escapes what could be taken for markup.
pub fn to_json<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, GoFormatter);
    value.serialize(&mut serializer).expect("members are plain strings and numbers, which always serialize");
    bytes.into()
}

/// A value from etcd's JSON.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

struct GoFormatter;

impl serde_json::ser::Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            let mut chars = tail.chars();
            let special = chars.next().map_or(0, u32::from);
            write!(writer, "{plain}\\u{special:04x}")?;
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn null_if_empty<S: Serializer>(urls: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    if urls.is_empty() { serializer.serialize_none() } else { urls.serialize(serializer) }
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn members_are_written_as_etcd_writes_them() {
        let mut member = Member { id: 0x8e9e_05c5_2164_694d, ..Member::default() };
        assert_eq!(to_json(&member), r#"{"id":10276657743932975437,"peerURLs":null}"#);
        member.peer_urls = vec!["http://localhost:2380".into()];
        member.is_learner = true;
        member.name = "a<b>&\u{2028}\"\n".into();
        member.client_urls = vec!["http://localhost:2379".into()];
        let json = r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"isLearner":true,"name":"a\u003cb\u003e\u0026\u2028\"\n","clientURLs":["http://localhost:2379"]}"#;
        assert_eq!(to_json(&member), json);
        assert_eq!(from_json::<Member>(json.as_bytes()).unwrap(), member);
        assert_eq!(Member::row_key(member.id), "8e9e05c52164694d");
        assert_eq!(Member::parse_row_key(b"8e9e05c52164694d"), Some(member.id));
    }

    #[test]
    fn a_promotion_s_context_is_read_and_written() {
        let member = Member { id: 7, ..Member::default() };
        let context = ChangeContext { member, is_promote: true };
        let json = r#"{"id":7,"peerURLs":null,"isPromote":true}"#;
        assert_eq!(to_json(&context), json);
        assert_eq!(from_json::<ChangeContext>(json.as_bytes()).unwrap(), context);
        // Adding a member sends the member alone.
        let added: ChangeContext = from_json(br#"{"id":7,"peerURLs":["x"],"name":"n"}"#).unwrap();
        assert!(!added.is_promote);
        assert_eq!((added.member.id, added.member.name.as_str()), (7, "n"));
    }
}
