//! The members as a snapshot's message tells them, beside the body: etcd's v2 store in JSON.
//!
//! Up to 3.5 this, and not the body, is what etcd believes about its cluster when it takes in a
//! snapshot. Without it such a member knows of no members and stops. The other way it is needed as
//! well: 3.5 writes a member's row in the body when the member is added and then never again, so names,
//! client URLs, new peer URLs and promotions are in this JSON alone.
//!
//! The store is a tree. A directory has children, even if it has none; a value has `null` there:
//!
//! ```text
//! /0/version                          3.5.0
//! /0/members/8e9e05c52164694d/raftAttributes   {"peerURLs":["http://10.0.0.1:2380"]}
//! /0/members/8e9e05c52164694d/attributes       {"name":"m1","clientURLs":["http://10.0.0.1:2379"]}
//! /0/removed_members/a3b1…            (an empty value)
//! /1                                  users' keys, not looked at
//! ```

use std::collections::BTreeMap;

use backend::{Table, TableOp};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, is_version, member_row};
use crate::member::{Member, from_json, to_json};

const RAFT_ATTRIBUTES: &str = "raftAttributes";
const ATTRIBUTES: &str = "attributes";
const MEMBERS: &str = "members";
const REMOVED: &str = "removed_members";
const VERSION: &str = "version";

/// Go's zero time: never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The version of the store's own format.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Store<Children> {
    root: Node<Children>,
    #[serde(default)]
    current_index: u64,
    #[serde(default)]
    current_version: u32,
}

/// `Children` is a map, or what is known of one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node<Children> {
    #[serde(default)]
    path: String,
    #[serde(default)]
    created_index: u64,
    #[serde(default)]
    modified_index: u64,
    #[serde(default)]
    expire_time: String,
    #[serde(default)]
    value: String,
    children: Option<Children>,
}

/// Any directory.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Children(BTreeMap<String, Node<Children>>);

/// The top directory: whatever users have in `/1` is passed over.
#[derive(Deserialize)]
struct Top {
    #[serde(rename = "0")]
    cluster: Node<Children>,
}

#[derive(Serialize, Deserialize)]
struct RaftAttributes {
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Serialize, Deserialize)]
struct Attributes {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
}

fn value(path: String, value: String) -> Node<Children> {
    Node { path, created_index: 0, modified_index: 0, expire_time: NEVER.to_owned(), value, children: None }
}

fn directory(path: &str, children: BTreeMap<String, Node<Children>>) -> Node<Children> {
    Node { children: Some(Children(children)), ..value(path.to_owned(), String::new()) }
}

fn text(json: &bytes::Bytes) -> String {
    String::from_utf8_lossy(json).into_owned()
}

/// The store of a cluster, as of the entry `index`.
pub(crate) fn write(cluster: &Cluster, index: u64) -> Vec<u8> {
    let members = cluster.members.values().map(|member| {
        let name = format!("{:x}", member.id);
        (name.clone(), write_member(&format!("/0/{MEMBERS}/{name}"), member))
    });
    let removed = cluster.removed.iter().map(|id| {
        let name = format!("{id:x}");
        (name.clone(), value(format!("/0/{REMOVED}/{name}"), String::new()))
    });
    let mut known = BTreeMap::new();
    known.insert(MEMBERS.to_owned(), directory("/0/members", members.collect()));
    known.insert(REMOVED.to_owned(), directory("/0/removed_members", removed.collect()));
    if let Some(version) = &cluster.version {
        known.insert(VERSION.to_owned(), value("/0/version".to_owned(), version.clone()));
    }
    let mut top = BTreeMap::new();
    top.insert("0".to_owned(), directory("/0", known));
    top.insert("1".to_owned(), directory("/1", BTreeMap::new()));
    let store = Store { root: directory("/", top), current_index: index, current_version: FORMAT };
    to_json(&store).into()
}

fn write_member(path: &str, member: &Member) -> Node<Children> {
    let raft = RaftAttributes { peer_urls: Some(member.peer_urls.clone()), is_learner: member.is_learner };
    let raft = value(format!("{path}/{RAFT_ATTRIBUTES}"), text(&to_json(&raft)));
    let mut children = BTreeMap::from([(RAFT_ATTRIBUTES.to_owned(), raft)]);
    // A member has attributes from its first start on.
    if !member.client_urls.is_empty() {
        let client_urls = Some(member.client_urls.clone());
        let attributes = to_json(&Attributes { name: member.name.clone(), client_urls });
        let attributes = value(format!("{path}/{ATTRIBUTES}"), text(&attributes));
        children.insert(ATTRIBUTES.to_owned(), attributes);
    }
    directory(path, children)
}

/// Brings the records of `cluster` in line with the store that came with them, and returns the changes
/// of the tables; `None` if `json` is no such store.
///
/// It adds what the rows lack, and never takes a member away: who is a member is for the raft
/// configuration to say.
pub(crate) fn adopt(cluster: &mut Cluster, json: &[u8]) -> Option<Vec<TableOp>> {
    let store: Store<Top> = from_json(json)?;
    let mut known = store.root.children?.cluster.children?.0;
    let mut ops = Vec::new();
    for (name, node) in entries(known.remove(MEMBERS)) {
        let id = Member::parse_row_key(name.as_bytes())?;
        let mut member = cluster.members.get(&id).cloned().unwrap_or_default();
        member.id = id;
        read_member(node, &mut member)?;
        if cluster.members.get(&id) != Some(&member) {
            ops.push(member_row(&member));
            cluster.members.insert(id, member);
        }
    }
    for (name, _) in entries(known.remove(REMOVED)) {
        let id = Member::parse_row_key(name.as_bytes())?;
        if !cluster.removed.contains(&id) {
            ops.extend(cluster.remove(id));
        }
    }
    if let Some(version) = known.remove(VERSION).map(|node| node.value)
        && cluster.version.as_ref() != Some(&version)
    {
        ops.push(is_version(&version).then(|| cluster.set_version(version))?);
    }
    Some(ops)
}

fn entries(directory: Option<Node<Children>>) -> BTreeMap<String, Node<Children>> {
    directory.and_then(|node| node.children).map(|children| children.0).unwrap_or_default()
}

fn read_member(node: Node<Children>, member: &mut Member) -> Option<()> {
    let mut children = node.children?.0;
    let raft: RaftAttributes = from_json(children.remove(RAFT_ATTRIBUTES)?.value.as_bytes())?;
    member.peer_urls = raft.peer_urls.unwrap_or_default();
    member.is_learner = raft.is_learner;
    if let Some(node) = children.remove(ATTRIBUTES) {
        let attributes: Attributes = from_json(node.value.as_bytes())?;
        member.name = attributes.name;
        member.client_urls = attributes.client_urls.unwrap_or_default();
    }
    Some(())
}

/// The table and key that a store is reported under when it cannot be read.
pub(crate) const PLACE: (Table, &[u8]) = (Table::Members, b"v2 store");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn cluster() -> Cluster {
        let one = Member {
            id: 0x8e9e_05c5_2164_694d,
            peer_urls: vec!["http://10.0.0.1:2380".into()],
            name: "m<1>".into(),
            client_urls: vec!["http://10.0.0.1:2379".into()],
            ..Member::default()
        };
        let two = Member {
            id: 0x2a,
            peer_urls: vec!["http://10.0.0.2:2380".into()],
            is_learner: true,
            ..Member::default()
        };
        let mut cluster = Cluster { version: Some("3.5.0".into()), ..Cluster::default() };
        cluster.members = [one, two].map(|member| (member.id, member)).into();
        cluster.removed = [0x17].into();
        cluster
    }

    #[test]
    fn it_is_written_as_etcd_reads_it() {
        let json = String::from_utf8(write(&cluster(), 9)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let at = |path: &str| value.pointer(&format!("/Root/Children/0/Children{path}")).unwrap().clone();
        assert_eq!(at("/version/Value"), "3.5.0");
        // A value has no children; a directory has some, even if there are none.
        assert_eq!(at("/version/Children"), serde_json::Value::Null);
        assert_eq!(value.pointer("/Root/Children/1/Children").unwrap(), &serde_json::json!({}));
        let member = "/members/Children/8e9e05c52164694d";
        assert_eq!(at(&format!("{member}/Path")), "/0/members/8e9e05c52164694d");
        assert_eq!(
            at(&format!("{member}/Children/raftAttributes/Value")),
            r#"{"peerURLs":["http://10.0.0.1:2380"]}"#
        );
        assert_eq!(
            at(&format!("{member}/Children/attributes/Value")),
            "{\"name\":\"m\\u003c1\\u003e\",\"clientURLs\":[\"http://10.0.0.1:2379\"]}"
        );
        assert_eq!(at("/members/Children/2a/Children").as_object().unwrap().len(), 1);
        assert_eq!(at("/removed_members/Children/17/Children"), serde_json::Value::Null);
        assert_eq!(at("/version/ExpireTime"), NEVER);
        assert_eq!(value["CurrentVersion"], 2);
    }

    #[test]
    fn what_is_written_changes_nothing_when_it_comes_back() {
        let json = write(&cluster(), 9);
        let mut same = cluster();
        assert!(adopt(&mut same, &json).unwrap().is_empty());
        assert_eq!(same, cluster());
        let mut empty = Cluster::default();
        assert_eq!(adopt(&mut empty, &json).unwrap().len(), 2 + 2 + 1);
        assert_eq!(empty, cluster());
    }

    #[test]
    fn rows_that_were_never_written_again_are_brought_up_to_date() {
        let mut stale = cluster();
        let one = stale.members.get_mut(&0x8e9e_05c5_2164_694d).unwrap();
        (one.name, one.client_urls) = (String::new(), Vec::new());
        one.peer_urls = vec!["http://before:2380".into()];
        let ops = adopt(&mut stale, &write(&cluster(), 9)).unwrap();
        assert_eq!(ops.len(), 1);
        assert_eq!(stale, cluster());
    }

    #[test]
    fn users_keys_of_the_v2_api_are_passed_over() {
        let mut json: serde_json::Value = serde_json::from_slice(&write(&cluster(), 9)).unwrap();
        json["Root"]["Children"]["1"]["Children"] = serde_json::json!({"foo": {"Anything": [1, 2]}});
        json["WatcherHub"] = serde_json::json!({"EventHistory": {}});
        let json = serde_json::to_vec(&json).unwrap();
        assert!(adopt(&mut cluster(), &json).unwrap().is_empty());
        for damaged in [&b""[..], b"{}", b"[]", b"{\"Root\":null}", &json[..json.len() - 1]] {
            assert!(adopt(&mut cluster(), damaged).is_none());
        }
    }
}
