//! Answers, written down.

use std::fmt::Write;

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{AlarmMember, RangeResponse, ResponseHeader, TxnResponse};
use api::mvccpb::KeyValue;
use apply::{Applied, Body, Failure, Reply};
use prost::Message;

pub fn tried(tried: &Result<Applied, Failure>) -> String {
    match tried {
        Ok(done) => applied(done),
        Err(failure) => format!("stops: {failure}\n"),
    }
}

pub fn applied(applied: &Applied) -> String {
    let mut out = match &applied.outcome {
        Ok(reply) => outcome(reply),
        Err(rejection) => format!("error: {rejection}\n"),
    };
    if applied.raise_no_space {
        out += "  raise the alarm\n";
    }
    if let Some(change) = &applied.conf_change {
        let change = change.change;
        writeln!(out, "  to raft: {:?} {:x}", change.kind, change.node.0).unwrap();
    }
    if let Some((revision, events)) = &applied.events {
        for event in events {
            assert_eq!(event.revision.main, *revision);
            let record = KeyValue::decode(event.record.clone()).unwrap();
            let what = if event.tombstone {
                format!("deleted {}", String::from_utf8_lossy(&record.key))
            } else {
                format!("put {}", kv(&record))
            };
            writeln!(out, "  event {revision}.{}: {what}", event.revision.sub).unwrap();
        }
    }
    out
}

fn outcome(reply: &Reply) -> String {
    let rev = reply.revision;
    match &reply.body {
        Body::Range(response) => format!("@{rev} {}\n", range(response)),
        Body::Put(response) => format!("@{rev} put{}\n", was(response.prev_kv.as_slice())),
        Body::DeleteRange(response) => {
            format!("@{rev} deleted {}{}\n", response.deleted, was(&response.prev_kvs))
        }
        Body::Txn(response) => format!("@{rev} {}", txn(response, 1)),
        Body::Compaction(_) => format!("@{rev} compacted\n"),
        Body::LeaseGrant(response) => format!("@{rev} lease {} for {} s\n", response.id, response.ttl),
        Body::LeaseRevoke(_) => format!("@{rev} revoked\n"),
        Body::LeaseCheckpoint(_) => format!("@{rev} noted\n"),
        Body::Alarm(response) => format!("@{rev} alarms:{}\n", alarms(&response.alarms)),
        Body::Auth(reply) => format!("@{rev} {reply:?}\n"),
        Body::Members(members) => {
            let lines = members.iter().map(|member| {
                let learner = if member.is_learner { " learner" } else { "" };
                format!(
                    "  {:x} {:?} {:?} {:?}{learner}\n",
                    member.id, member.name, member.peer_urls, member.client_urls
                )
            });
            format!("@{rev} members:\n{}", lines.collect::<String>())
        }
        Body::Internal => format!("@{rev} done\n"),
        Body::Nothing => format!("@{rev} nothing\n"),
    }
}

pub fn alarms(alarms: &[AlarmMember]) -> String {
    alarms.iter().map(|alarm| format!(" {}={:x}", alarm.alarm().as_str_name(), alarm.member_id)).collect()
}

/// A transaction's branch and answers, each answer with the revision in its own header.
pub fn txn(response: &TxnResponse, depth: usize) -> String {
    let mut out = format!("{}\n", if response.succeeded { "then" } else { "else" });
    for op in &response.responses {
        let line = match &op.response {
            Some(Response::ResponseRange(response)) => {
                format!("@{} {}\n", header(&response.header), range(response))
            }
            Some(Response::ResponsePut(response)) => {
                format!("@{} put{}\n", header(&response.header), was(response.prev_kv.as_slice()))
            }
            Some(Response::ResponseDeleteRange(response)) => {
                let was = was(&response.prev_kvs);
                format!("@{} deleted {}{was}\n", header(&response.header), response.deleted)
            }
            Some(Response::ResponseTxn(response)) => {
                format!("@{} {}", header(&response.header), txn(response, depth + 1))
            }
            None => "nothing\n".to_owned(),
        };
        out += &format!("{:width$}{line}", "", width = 2 * depth);
    }
    out
}

fn header(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().unwrap().revision
}

fn was(kvs: &[KeyValue]) -> String {
    if kvs.is_empty() { String::new() } else { format!(", was {}", list(kvs)) }
}

fn range(response: &RangeResponse) -> String {
    let more = if response.more { ", more" } else { "" };
    let kvs = if response.kvs.is_empty() { String::new() } else { format!(": {}", list(&response.kvs)) };
    format!("count {}{more}{kvs}", response.count)
}

fn list(kvs: &[KeyValue]) -> String {
    kvs.iter().map(kv).collect::<Vec<_>>().join(", ")
}

/// `key=value (created, modified, version, lease)`, the lease only if there is one.
pub fn kv(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" l{}", kv.lease) };
    format!(
        "{}={} (c{} m{} v{}{lease})",
        String::from_utf8_lossy(&kv.key),
        String::from_utf8_lossy(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}
