//! How members tell each other their hashes: a question over the peer port, in etcd's JSON.

use std::time::Duration;

use api::etcdserverpb::AlarmType;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use mvcc::{HashKv, ReadError};
use peer::client;
use serde::{Deserialize, Serialize};

use crate::background;
use crate::forward::HASH_KV;
use crate::member::Member;

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What etcd's members say instead of a hash.
const COMPACTED: &str = "mvcc: required revision has been compacted";
const FUTURE: &str = "mvcc: required revision is a future revision";
const OTHER_CLUSTER: &str = "cluster ID mismatch";

/// What another member has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Who.
    pub(crate) id: u64,
    /// Its hash, or why there is none.
    pub(crate) answer: Result<Answer, Silence>,
}

/// Another member's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) hash: u32,
    /// The revision that the hash takes as the last compacted one.
    pub(crate) compact_revision: i64,
    /// The revision that the member was at when it answered.
    pub(crate) current_revision: i64,
}

/// Why there is no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The member has compacted further.
    Compacted,
    /// It has not come that far.
    Future,
    /// It is of another cluster.
    OtherCluster,
    /// Anything else, in words.
    Failed(String),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compacted => COMPACTED,
            Self::Future => FUTURE,
            Self::OtherCluster => OTHER_CLUSTER,
            Self::Failed(words) => words,
        })
    }
}

/// `etcdserverpb.HashKVRequest` as Go writes it in JSON.
#[derive(Serialize, Deserialize)]
struct Question {
    #[serde(default)]
    revision: i64,
}

/// `etcdserverpb.HashKVResponse`, of which Go leaves out what is zero.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Reply {
    header: Header,
    #[serde(skip_serializing_if = "is_zero")]
    hash: i64,
    #[serde(skip_serializing_if = "is_zero")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hash_revision: i64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Header {
    #[serde(skip_serializing_if = "is_zero")]
    revision: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Member {
    /// The hash at a revision, 0 for the current one, and the revision that this member was at. Where a
    /// compaction to that very revision was hashed, the hash is of what it began from.
    pub(crate) async fn hash_at(&self, revision: i64) -> Result<(HashKv, i64), ReadError> {
        let store = self.store().clone();
        let current = store.current_revision();
        let kept = store.compacted_hashes().into_iter().find(|kept| kept.revision == revision);
        if let Some(kept) = kept {
            return Ok((kept, current));
        }
        let began = std::time::Instant::now();
        // It reads all that is stored.
        let hash = background::run("hash", move || store.hash_kv(revision)).await;
        let hash = hash.map_err(|error| ReadError::Storage(backend::Error::Storage(error.to_string())))??;
        self.metrics().hash_rev.observe(began.elapsed().as_secs_f64());
        Ok((hash, current))
    }

    /// Answers another member that asks for a hash, with GET at [`HASH_KV`].
    pub async fn tell_hash(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let asked_of = request.headers().get(CLUSTER_ID).filter(|id| !id.is_empty());
        let own = format!("{:x}", self.cluster_id());
        if asked_of.is_some_and(|id| id.as_bytes() != own.as_bytes()) {
            return refusal(StatusCode::PRECONDITION_FAILED, OTHER_CLUSTER);
        }
        let Ok(Question { revision }) = serde_json::from_slice(request.body()) else {
            return refusal(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        let (hash, current) = match self.hash_at(revision).await {
            Ok(told) => told,
            Err(failure) => {
                let words = match failure {
                    ReadError::Compacted { .. } => COMPACTED.to_owned(),
                    ReadError::Future { .. } => FUTURE.to_owned(),
                    ReadError::Storage(error) => error.to_string(),
                };
                tracing::warn!("requested-revision" = revision, error = words, "failed to get hashKV");
                return refusal(StatusCode::BAD_REQUEST, &words);
            }
        };
        let reply = Reply {
            header: Header { revision: current },
            hash: hash.hash.into(),
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        };
        let body = serde_json::to_vec(&reply).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        if let Ok(id) = HeaderValue::from_str(&own) {
            response.headers_mut().insert(CLUSTER_ID, id);
        }
        response
    }

    /// Asks every other member for its hash at `revision`, all at once; each of them at one URL after the
    /// other until one answers.
    pub(crate) async fn ask_hashes(&self, revision: i64) -> Vec<Told> {
        let cluster = self.cluster();
        let others = cluster.members.values();
        let others = others.filter(|other| other.id != self.id() && !other.peer_urls.is_empty());
        join_all(others.map(|other| async {
            let mut answer = Err(Silence::Failed("no URL".to_owned()));
            for url in &other.peer_urls {
                answer = ask(self.peer_tls(), url, self.cluster_id(), revision, self.request_timeout()).await;
                match &answer {
                    Ok(_) => break,
                    Err(silence) => tracing::warn!(
                        "local-member-id" = format!("{:x}", self.id()),
                        "requested-revision" = revision,
                        "remote-peer-endpoint" = url,
                        error = %silence,
                        "failed hash kv request"
                    ),
                }
            }
            Told { id: other.id, answer }
        }))
        .await
    }

    /// Whether the alarm is raised for this member already.
    pub(crate) fn is_called_corrupt(&self, id: u64) -> bool {
        self.alarms().get(AlarmType::Corrupt.into()).any(|alarm| alarm.member_id == id)
    }
}

/// As Go's `http.Error` writes it.
fn refusal(status: StatusCode, words: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{words}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn ask(
    tls: &tls::Client,
    url: &str,
    cluster_id: u64,
    revision: i64,
    limit: Duration,
) -> Result<Answer, Silence> {
    let failed = |words: String| Silence::Failed(words);
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
    let id = HeaderValue::from_str(&format!("{cluster_id:x}"));
    headers.insert(CLUSTER_ID, id.map_err(|error| failed(error.to_string()))?);
    // What Go leaves out is zero.
    let body = serde_json::to_vec(&Question { revision }).map_err(|error| failed(error.to_string()))?;
    let answer = client::ask(tls, Method::GET, url, HASH_KV, headers, body.into(), limit).await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    understand(answer.status(), answer.body())
}

fn understand(status: StatusCode, body: &[u8]) -> Result<Answer, Silence> {
    let words = String::from_utf8_lossy(body);
    match status {
        StatusCode::OK => {
            let unreadable = || Silence::Failed(format!("unreadable hash: {words}"));
            let reply: Reply = serde_json::from_slice(body).map_err(|_| unreadable())?;
            Ok(Answer {
                hash: u32::try_from(reply.hash).map_err(|_| unreadable())?,
                compact_revision: reply.compact_revision,
                current_revision: reply.header.revision,
            })
        }
        StatusCode::BAD_REQUEST if words.contains(COMPACTED) => Err(Silence::Compacted),
        StatusCode::BAD_REQUEST if words.contains(FUTURE) => Err(Silence::Future),
        StatusCode::PRECONDITION_FAILED if words.contains(OTHER_CLUSTER) => Err(Silence::OtherCluster),
        _ => Err(Silence::Failed(format!("unknown error: {}", words.trim_end()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What etcd 3.5.1 and 3.7.1 answer.
    #[test]
    fn etcd_s_answers_are_understood() {
        let read =
            |status: u16, words: &str| understand(StatusCode::from_u16(status).unwrap(), words.as_bytes());
        let answer = |hash, compact_revision, current_revision| {
            Ok(Answer { hash, compact_revision, current_revision })
        };
        let older = r#"{"header":{"revision":7},"hash":4063574387,"compact_revision":-1}"#;
        assert_eq!(read(200, older), answer(4_063_574_387, -1, 7));
        let newer = r#"{"header":{"revision":9},"hash":1,"compact_revision":3,"hash_revision":8}"#;
        assert_eq!(read(200, newer), answer(1, 3, 9));
        assert_eq!(read(200, r#"{"header":{}}"#), answer(0, 0, 0), "Go leaves out what is zero");
        assert_eq!(read(400, "mvcc: required revision has been compacted\n"), Err(Silence::Compacted));
        assert_eq!(read(400, "mvcc: required revision is a future revision\n"), Err(Silence::Future));
        assert_eq!(read(412, "cluster ID mismatch\n"), Err(Silence::OtherCluster));
        for (status, words) in [(400, "else"), (500, ""), (200, "{"), (200, r#"{"hash":-1}"#), (404, "?")] {
            assert!(matches!(read(status, words), Err(Silence::Failed(_))), "{status} {words}");
        }
    }

    #[test]
    fn questions_and_replies_are_go_s() {
        assert_eq!(serde_json::to_string(&Question { revision: 7 }).unwrap(), r#"{"revision":7}"#);
        let reply = Reply { header: Header { revision: 2 }, hash: 5, compact_revision: -1, hash_revision: 0 };
        let text = r#"{"header":{"revision":2},"hash":5,"compact_revision":-1}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), text);
    }
}
