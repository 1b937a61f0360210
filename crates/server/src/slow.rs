//! What took long, in the log: the lines that etcd writes, with its fields, and where the time went.
//!
//! While all is quick this costs nothing: requests are timed for the metrics anyway, and words are made of them
//! only once one was slow.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use api::etcdserverpb::InternalRaftRequest;
use api::loggable;
use apply::{Rejection, Reply};
use prost::Message as _;

use crate::member::Member;

/// From when on the steps of a request are told (etcd's number).
pub const TRACED: Duration = Duration::from_millis(100);

/// What has been done, and how long that took.
pub type Step = (&'static str, Duration);

/// A request that took `took` until now, most of it in one of these steps. Those that are short are not told.
pub fn trace(operation: &str, detail: &[(&str, String)], took: Duration, steps: &[Step]) {
    let steps = told(steps);
    let mut fields = String::new();
    for (name, value) in detail {
        let _ = write!(fields, "{name}:{value}; ");
    }
    let end = SystemTime::now();
    tracing::info!(
        trace_id = getrandom::u32().unwrap_or_default() >> 1,
        operation,
        detail = format!("{{{fields}}}"),
        duration = ?took,
        start = ?end - took,
        ?end,
        ?steps,
        step_count = steps.len(),
        "trace"
    );
}

/// The steps that took their share of what is too long, in words.
fn told(steps: &[Step]) -> Vec<String> {
    let share = TRACED / u32::try_from(steps.len() + 1).unwrap_or(u32::MAX);
    let long = steps.iter().filter(|(_, took)| *took > share);
    long.map(|(what, took)| format!("'{what}'  (duration: {took:?})")).collect()
}

/// When an entry was applied here, for whoever waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applying {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// An entry that took long to apply.
pub(crate) fn applied(member: &Member, data: &[u8], outcome: &Result<Reply, Rejection>, took: Duration) {
    let request =
        InternalRaftRequest::decode(data).map(|request| loggable::raft(&request)).unwrap_or_default();
    let response = outcome.as_ref().map(|reply| format!("size:{}", reply.body.size())).unwrap_or_default();
    let error = outcome.as_ref().err().map(ToString::to_string);
    took_too_long(member, "", request, response, error, took);
}

/// A read that took long.
pub fn took_too_long(
    member: &Member,
    prefix: &str,
    request: String,
    response: String,
    error: Option<String>,
    took: Duration,
) {
    member.metrics().slow_apply.inc();
    tracing::warn!(
        ?took,
        "expected-duration" = ?member.config().warning_apply,
        prefix,
        request,
        response,
        error,
        "apply request took too long"
    );
}

/// Something that this member asked for went through the log slowly: how long it waited there, and how long it
/// took to do. `reply` is none where it did not come to that.
pub(crate) fn proposed(data: &[u8], began: Instant, applying: Option<Applying>, reply: Option<&Reply>) {
    let took = began.elapsed();
    let Ok(request) = InternalRaftRequest::decode(data) else { return };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (operation, mut detail) = if let Some(put) = &request.put {
        ("put", vec![("key", text(&put.key)), ("req_size", put.encoded_len().to_string())])
    } else if let Some(delete) = &request.delete_range {
        ("delete_range", vec![("key", text(&delete.key)), ("range_end", text(&delete.range_end))])
    } else if let Some(txn) = &request.txn {
        ("transaction", vec![("read_only", "false".to_owned()), ("req_size", txn.encoded_len().to_string())])
    } else if let Some(compaction) = &request.compaction {
        ("compact", vec![("revision", compaction.revision.to_string())])
    } else {
        return;
    };
    if let Some(reply) = reply {
        detail.push(("response_revision", reply.revision.to_string()));
    }
    let steps = match applying {
        Some(Applying { began: applied, took: applying }) => {
            let agreed = applied.saturating_duration_since(began);
            let told = took.saturating_sub(agreed + applying);
            vec![
                ("process raft request", agreed),
                ("apply the request", applying),
                ("tell the outcome", told),
            ]
        }
        None => vec![("process raft request", took)],
    };
    trace(operation, &detail, took, &steps);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_steps_are_not_told() {
        let millis = Duration::from_millis;
        let steps = [("agree", millis(120)), ("permit", millis(25)), ("read", millis(26))];
        assert_eq!(told(&steps), ["'agree'  (duration: 120ms)", "'read'  (duration: 26ms)"]);
        assert_eq!(told(&[]), [""; 0]);
    }
}
