//! Runs the scripts in `tests/golden/`: commands, a line `---`, what they come to.
//!
//! `UPDATE_GOLDEN=1 cargo test -p apply` rewrites what is below the lines, to be read in review.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    AlarmRequest, CompactionRequest, InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest,
};
use api::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use api::raftpb::ConfChange;
use apply::{Applied, ChangeContext, Failure, Member, Quota, ReadFailure, to_json};
use lease::LeaseId;
use prost::Message;
use raft::{Change, ChangeKind, EntryKind, NodeId};
use support::dsl::{Tokens, tokens};
use support::{Stage, encode, show};

struct Script(Option<Stage>);

impl Script {
    fn run(&mut self, line: &str) -> String {
        let stage = self.0.as_mut().unwrap();
        let mut words = tokens(line);
        let verb = words.next();
        let request = match verb {
            "put" | "get" | "delete" | "txn" => request(tokens(line).op()),
            "compact" => compaction(words.number()),
            "grant" => {
                let lease_grant = Some(LeaseGrantRequest { id: words.number(), ttl: words.number() });
                InternalRaftRequest { lease_grant, ..Default::default() }
            }
            "revoke" => {
                let lease_revoke = Some(LeaseRevokeRequest { id: words.number() });
                InternalRaftRequest { lease_revoke, ..Default::default() }
            }
            "checkpoint" => {
                let one = LeaseCheckpoint { id: words.number(), remaining_ttl: words.number() };
                let lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints: vec![one] });
                InternalRaftRequest { lease_checkpoint, ..Default::default() }
            }
            "alarm" => alarm(&mut words),
            "cluster-version" => {
                let cluster_version_set = Some(ClusterVersionSetRequest { ver: words.next().into() });
                InternalRaftRequest { cluster_version_set, ..Default::default() }
            }
            "downgrade" => {
                let ver = words.next().to_owned();
                let downgrade_info_set = Some(DowngradeInfoSetRequest { enabled: ver != "off", ver });
                InternalRaftRequest { downgrade_info_set, ..Default::default() }
            }
            "attributes" => {
                let member_id = words.number() as u64;
                let attributes = Attributes { name: words.next().into(), client_urls: strings(words.rest()) };
                let cluster_member_attr_set =
                    Some(ClusterMemberAttrSetRequest { member_id, member_attributes: Some(attributes) });
                InternalRaftRequest { cluster_member_attr_set, ..Default::default() }
            }
            "auth-status" => {
                InternalRaftRequest { auth_status: Some(Default::default()), ..Default::default() }
            }
            "request-for-nothing" => InternalRaftRequest::default(),
            "downgrade-version-test" => {
                InternalRaftRequest { downgrade_version_test: Some(Default::default()), ..Default::default() }
            }
            "v2" => InternalRaftRequest { v2: Some(v2(line)), ..Default::default() },
            "v2-bare" => return show::tried(&stage.attempt(EntryKind::Normal, &v2(line).encode_to_vec())),
            "member" => {
                let change = member_change(&mut words).encode_to_vec();
                return show::tried(&stage.attempt(EntryKind::ConfChange, &change));
            }
            "entry" => return show::tried(&entry(stage, &mut words)),
            _ => return self.stage_direction(verb, words),
        };
        show::tried(&stage.attempt(EntryKind::Normal, &encode(request)))
    }

    /// What is not in the log.
    fn stage_direction(&mut self, verb: &str, mut words: Tokens<'_>) -> String {
        let stage = self.0.as_mut().unwrap();
        let options = stage.options;
        match verb {
            "at" => stage.now = Duration::from_secs_f64(words.next().parse().unwrap()),
            "promote" => _ = stage.shared.lessor.lock().promote(Duration::ZERO, stage.now),
            "restart" => self.0 = self.0.take().map(Stage::restart),
            // Goes on as a member that was sent a snapshot.
            "move" => self.0 = self.0.take().map(|mut stage| stage.moved_to(Stage::new(options))),
            "may" => {
                let (max_learners, _) = (words.number() as usize, words.next());
                let change = member_change(&mut words);
                let node = NodeId(change.node_id());
                let kind = [
                    ChangeKind::AddNode,
                    ChangeKind::RemoveNode,
                    ChangeKind::UpdateNode,
                    ChangeKind::AddLearnerNode,
                ][change.r#type() as usize];
                let context = change.context().into();
                let change = raft::ConfChange { id: 9, change: Change { kind, node }, context };
                let may = stage.shared.cluster.get().check(&change, max_learners);
                return may.map_or_else(|error| format!("error: {error}\n"), |()| "fine\n".into());
            }
            "quota" => {
                let mut stage = self.0.take().unwrap();
                stage.options.quota = Quota::from_flag(words.number());
                self.0 = Some(stage.restart());
            }
            "noop" => return show::applied(&stage.apply(EntryKind::Normal, b"")),
            "index" => return format!("applied {}\n", stage.machine.applied().0),
            "leases" => {
                let lessor = stage.shared.lessor.lock();
                let mut out = String::new();
                for lease in lessor.stored() {
                    let keys = lessor.keys(lease.id).unwrap();
                    let keys: String =
                        keys.iter().map(|key| format!(" {}", String::from_utf8_lossy(key))).collect();
                    writeln!(
                        out,
                        "{}: ttl {} left {} keys:{keys}",
                        lease.id.0, lease.ttl, lease.remaining_ttl
                    )
                    .unwrap();
                }
                return out;
            }
            "ttl" => {
                let ttl = stage.shared.lessor.lock().time_to_live(LeaseId(words.number()), stage.now);
                return format!("{ttl:?}\n");
            }
            "tables" => {
                stage.machine.seal();
                stage.backend.flush_all().unwrap();
                let row = |bytes: &[u8]| bytes.escape_ascii().to_string();
                let rows = stage.tables().into_iter();
                return rows
                    .map(|(table, key, value)| format!("{} {}: {}\n", table.name(), row(&key), row(&value)))
                    .collect();
            }
            "raft" => return format!("{:?}\n", stage.machine.conf_state()),
            "check" => {
                let checked = match words.op() {
                    Request::RequestRange(request) => apply::check::range(&request),
                    Request::RequestPut(request) => apply::check::put(&request),
                    Request::RequestDeleteRange(request) => apply::check::delete_range(&request),
                    Request::RequestTxn(request) => apply::check::txn(&request, 4),
                };
                return checked.map_or_else(|error| format!("error: {error}\n"), |()| "fine\n".into());
            }
            "check-stream" => {
                assert_eq!(words.next(), "get");
                let checked = apply::check::range_stream(&words.get());
                return checked.map_or_else(|error| format!("error: {error}\n"), |()| "fine\n".into());
            }
            "read" => {
                assert_eq!(words.next(), "txn");
                let request = words.txn();
                if !apply::txn::is_read_only(&request) {
                    return "not read-only\n".into();
                }
                return match apply::txn::read_only(&stage.shared.store, &request) {
                    Ok(response) => {
                        format!("@{} {}", response.header.unwrap().revision, show::txn(&response, 1))
                    }
                    Err(ReadFailure::Rejected(rejection)) => format!("error: {rejection}\n"),
                    Err(ReadFailure::Failed(failure)) => panic!("{failure}"),
                };
            }
            other => panic!("no such command: {other}"),
        }
        String::new()
    }
}

fn request(op: Request) -> InternalRaftRequest {
    let mut request = InternalRaftRequest::default();
    match op {
        Request::RequestRange(range) => request.range = Some(range),
        Request::RequestPut(put) => request.put = Some(put),
        Request::RequestDeleteRange(delete) => request.delete_range = Some(delete),
        Request::RequestTxn(txn) => request.txn = Some(txn),
    }
    request
}

fn compaction(revision: i64) -> InternalRaftRequest {
    let compaction = Some(CompactionRequest { revision, physical: false });
    InternalRaftRequest { compaction, ..Default::default() }
}

/// `alarm get|raise|lower NOSPACE|CORRUPT|NONE member`
fn alarm(words: &mut Tokens<'_>) -> InternalRaftRequest {
    let place = |names: [&str; 3], name: &str| names.iter().position(|known| *known == name).unwrap() as i32;
    let action = place(["get", "raise", "lower"], words.next());
    let alarm = place(["NONE", "NOSPACE", "CORRUPT"], words.next());
    let alarm = Some(AlarmRequest { action, member_id: words.number() as u64, alarm });
    InternalRaftRequest { alarm, ..Default::default() }
}

/// `entry kind bytes-in-hex`: what no member of this version writes.
fn entry(stage: &mut Stage, words: &mut Tokens<'_>) -> Result<Applied, Failure> {
    let kind = EntryKind::of(words.number() as u64).unwrap();
    let hex = words.rest().concat();
    let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    let data: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
    stage.attempt(kind, &data)
}

/// `v2 method path value`, the value without spaces.
fn v2(line: &str) -> api::etcdserverpb::Request {
    let mut words = line.split(' ').skip(1).map(str::to_owned);
    let (method, path, val) = (words.next(), words.next(), words.next());
    api::etcdserverpb::Request { id: Some(7), method, path, val, ..Default::default() }
}

/// `member add|learn|promote|update|remove id urls...`
fn member_change(words: &mut Tokens<'_>) -> ConfChange {
    let verb = words.next();
    let id = words.number() as u64;
    let peer_urls = strings(words.rest());
    let member = Member { id, peer_urls, is_learner: verb == "learn", ..Member::default() };
    let kind = match verb {
        "add" | "promote" => 0,
        "remove" => 1,
        "update" => 2,
        "learn" => 3,
        other => panic!("no such change: {other}"),
    };
    let context = match verb {
        "promote" => to_json(&ChangeContext { member, is_promote: true }),
        "remove" => Default::default(),
        _ => to_json(&member),
    };
    ConfChange { id: Some(9), r#type: Some(kind), node_id: Some(id), context: Some(context) }
}

fn strings(words: Vec<&str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

fn replay(text: &str) -> String {
    let mut script = Script(Some(Stage::new(apply::Options::default())));
    let (mut out, mut printed, mut below) = (String::new(), String::new(), false);
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            out += &printed;
            (below, printed) = (false, String::new());
        }
        if below {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        match line {
            "---" => below = true,
            line if line.is_empty() || line.starts_with('#') => {}
            line => printed += &script.run(line),
        }
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn the_scripts_say_what_happens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let replayed = replay(&text);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, replayed).unwrap();
        } else {
            assert_eq!(replayed, text, "{}", path.display());
        }
    }
}
