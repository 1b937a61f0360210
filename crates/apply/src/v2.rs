//! What members up to etcd 3.5 write into the log as requests of the v2 API.
//!
//! etcd kept two facts about the cluster in its v2 store for a long time, and its members announce
//! them there first: what clients may know of a member, and the cluster's version. Here they are the
//! commands that later versions use. Nothing else of that API is carried out, since it is about nothing
//! that is kept here; it is refused on every member alike.

use std::sync::Arc;

use api::etcdserverpb::Request;
use api::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use prost::Message as _;
use serde::Deserialize;

use crate::cluster;
use crate::command::Command;
use crate::member::{Member, from_json};

const MEMBERS: &str = "/0/members/";
const ATTRIBUTES: &str = "/attributes";
const VERSION: &str = "/0/version";

/// What members write, and clients of that API could.
const METHODS: [&str; 5] = ["PUT", "POST", "DELETE", "QGET", "SYNC"];

/// A member's attributes as etcd writes them for the v2 store.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

/// The payload of an entry that is nothing but such a request.
pub(crate) fn bare(data: &Arc<[u8]>) -> Option<Request> {
    Request::decode(&data[..]).ok().filter(|request| METHODS.contains(&request.method()))
}

/// What is asked for.
///
/// # Errors
/// Why it is not to be understood.
pub(crate) fn command(request: &Request) -> Result<Command, String> {
    let conditional =
        request.prev_exist.is_some() || request.prev_index() > 0 || !request.prev_value().is_empty();
    if request.method() != "PUT" || conditional {
        return Ok(Command::Unsupported("V2"));
    }
    if request.path() == VERSION {
        cluster::speaks(request.val())?;
        return Ok(Command::ClusterVersionSet(ClusterVersionSetRequest { ver: request.val().to_owned() }));
    }
    let id = request.path().strip_prefix(MEMBERS).and_then(|rest| rest.strip_suffix(ATTRIBUTES));
    let Some(member_id) = id.and_then(|id| Member::parse_row_key(id.as_bytes())) else {
        return Ok(Command::Unsupported("V2"));
    };
    let named: Option<Named> = from_json(request.val().as_bytes());
    let Named { name, client_urls } = named.ok_or("attributes of a member that are none")?;
    let attributes = Attributes { name, client_urls: client_urls.unwrap_or_default() };
    Ok(Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest {
        member_id,
        member_attributes: Some(attributes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &str, val: &str) -> Request {
        let text = |text: &str| Some(text.to_owned());
        Request { id: Some(9), method: text("PUT"), path: text(path), val: text(val), ..Request::default() }
    }

    #[test]
    fn a_member_announces_itself() {
        let request =
            put("/0/members/8e9e05c52164694d/attributes", r#"{"name":"m1","clientURLs":["http://a:1"]}"#);
        let Ok(Command::ClusterMemberAttrSet(request)) = command(&request) else { panic!("{request:?}") };
        assert_eq!(request.member_id, 0x8e9e_05c5_2164_694d);
        let attributes = Attributes { name: "m1".into(), client_urls: vec!["http://a:1".into()] };
        assert_eq!(request.member_attributes, Some(attributes));
    }

    #[test]
    fn the_version_is_set() {
        let Ok(Command::ClusterVersionSet(request)) = command(&put("/0/version", "3.5.0")) else { panic!() };
        assert_eq!(request.ver, "3.5.0");
    }

    #[test]
    fn nothing_else_is_carried_out() {
        let refused = [
            put("/0/members/1/raftAttributes", "{}"),
            put("/0/members/xyz/attributes", "{}"),
            put("/0/members//attributes", "{}"),
            put("/1/foo", "bar"),
            Request { method: Some("DELETE".into()), ..put("/0/version", "3.5.0") },
            Request { prev_exist: Some(false), ..put("/0/version", "3.5.0") },
            Request { prev_value: Some("3.4.0".into()), ..put("/0/version", "3.5.0") },
            Request::default(),
        ];
        for request in refused {
            assert!(matches!(command(&request), Ok(Command::Unsupported("V2"))), "{request:?}");
        }
        assert!(command(&put("/0/members/1/attributes", "no json")).is_err());
    }
}
