//! What a member asks others before it runs itself. Blocks the calling thread, in bounded time.

use std::time::Duration;

use apply::Member;
use bytes::Bytes;
use http::{Response, StatusCode};
use peer::client;

/// A cluster, as one of its members tells of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) cluster_id: u64,
    pub(crate) members: Vec<Member>,
}

/// Whether it is worth a word that somebody did not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failures {
    /// Most likely nobody runs yet.
    Expected,
    /// Somebody should.
    Told,
}

/// Runs a question on a runtime of its own, wherever it is called from.
pub(crate) fn wait<T: Send>(question: impl Future<Output = T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(question))
        });
        asking.join().ok().flatten()
    })
}

/// Who is in the cluster that the members at `urls` belong to: the first that answers is believed.
///
/// # Errors
/// None answers, in etcd's words.
pub(crate) fn members(
    tls: &tls::Client,
    urls: Vec<String>,
    limit: Duration,
    failures: Failures,
) -> Result<Known, String> {
    const NONE: &str = "could not retrieve cluster information from the given URLs";
    let asking = async move {
        for url in urls {
            let address = format!("{url}/members");
            let answer =
                client::get(tls, &url, "/members", limit).await.map_err(|error| format!("{error:?}"));
            match answer.and_then(|response| read_members(&response)) {
                Ok(known) if known.members.is_empty() => {
                    return Err("failed to get raft cluster member(s) from the given URLs".to_owned());
                }
                Ok(known) => return Ok(known),
                Err(error) if failures == Failures::Told => {
                    tracing::warn!(address, error, "failed to get cluster response");
                }
                Err(_) => {}
            }
        }
        Err(NONE.to_owned())
    };
    wait(asking).unwrap_or_else(|| Err(NONE.to_owned()))
}

fn read_members(response: &Response<Bytes>) -> Result<Known, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("unexpected status {}", response.status()));
    }
    let members = apply::from_json(response.body()).ok_or("unreadable members")?;
    let id = response.headers().get("x-etcd-cluster-id").and_then(|id| id.to_str().ok());
    let cluster_id = id.and_then(|id| u64::from_str_radix(id, 16).ok()).ok_or("no cluster id")?;
    Ok(Known { cluster_id, members })
}
