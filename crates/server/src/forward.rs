//! What only the leader can answer, and how the other members ask it: over its peer URLs, as etcd's do.
//!
//! Renewals of leases never enter the log (design §6), the time a lease has left is known to one clock
//! alone, and only the leader sees how far a learner has come. A member that does not lead asks
//! the one that does, waits through elections, and gives up when a request may take no longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{
    LeaseCheckpoint, LeaseCheckpointRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use api::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use apply::{Member as Other, Rejection};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use lease::{LeaseId, Renewal};
use peer::client::{self, ClientError};
use prost::Message as _;

use crate::error::Error;
use crate::member::Member;
use crate::membership::{ChangeError, Changed};

/// Where a leader renews leases for the other members.
pub const LEASES: &str = "/leases";
/// Where it tells the time that leases have left.
pub const LEASES_INTERNAL: &str = "/leases/internal";
/// Where it promotes learners; an id follows.
pub const PROMOTE: &str = "/members/promote/";
/// Where every member says whether a downgrade is under way.
pub const DOWNGRADE_ENABLED: &str = "/downgrade/enabled";
/// Where every member hashes what it stores.
pub const HASH_KV: &str = "/members/hashkv";

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");

/// How long to wait before a leader that did not answer is asked again (etcd's number).
const AGAIN: Duration = Duration::from_millis(50);

/// How often to look for a leader where there is none. etcd waits for a whole election timeout.
const LEADER_LOOK: Duration = Duration::from_millis(10);

/// How often a renewal of an expired lease looks whether the lease is gone.
const EXPIRED_LOOK: Duration = Duration::from_millis(50);

/// Keys of a lease that are listed while the lessor is locked.
const KEYS_PER_LOOK: usize = 1_000;

/// Why a lease could not be renewed or looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseError {
    /// There is no such lease.
    NotFound,
    /// This member does not keep the time of leases, or does no longer.
    NotPrimary,
    /// The member failed.
    Failed(Error),
}

impl From<Error> for LeaseError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<lease::Error> for LeaseError {
    fn from(error: lease::Error) -> Self {
        match error {
            lease::Error::NotPrimary => Self::NotPrimary,
            _ => Self::NotFound,
        }
    }
}

/// One way of asking the leader at one of its URLs; `Ok(None)` where asking again may help.
type Asked<T> = Result<Option<T>, LeaseError>;

impl Member {
    /// Gives a lease its full time again, here or at the leader; returns it, in seconds.
    ///
    /// # Errors
    /// [`LeaseError::NotFound`], or [`LeaseError::Failed`] where no leader could be asked in time.
    pub async fn renew_lease(self: &Arc<Self>, id: i64) -> Result<i64, LeaseError> {
        let until = Instant::now() + self.request_timeout();
        loop {
            if self.raft().is_leader() {
                match self.renew_lease_here(id).await {
                    // Another one leads by now: ask that one.
                    Err(LeaseError::NotPrimary) => {}
                    result => return result,
                }
            }
            let leader = self.await_leader(until).await?;
            if leader.id != self.id() {
                let body = Bytes::from(LeaseKeepAliveRequest { id }.encode_to_vec());
                for url in &leader.peer_urls {
                    let limit = self.one_try(until);
                    if let Some(ttl) = ask_to_renew(self.peer_tls(), url, id, body.clone(), limit).await? {
                        return Ok(ttl);
                    }
                }
            }
            self.rest(AGAIN, until).await?;
        }
    }

    /// The same on this member alone.
    ///
    /// # Errors
    /// [`LeaseError::NotPrimary`] where it does not lead.
    pub async fn renew_lease_here(self: &Arc<Self>, id: i64) -> Result<i64, LeaseError> {
        loop {
            // Whoever leads without knowing that it does no longer would promise time that the new
            // leader takes away: every renewal rests on a round of its own moment, shared with all
            // others of that moment (L1, L2). What was granted before is applied then, too (L4). The
            // round is of the reign looked at before it, and so is the renewal (L3).
            let epoch = self.lessor().lock().epoch();
            self.linearize().await?;
            let Some(epoch) = epoch else {
                // Just elected: what linearizes a read there begins to measure time as well.
                match self.lessor().lock().is_primary() {
                    true => continue,
                    false => return Err(LeaseError::NotPrimary),
                }
            };
            let renewal = self.lessor().lock().renew(epoch, LeaseId(id), self.now());
            match renewal {
                Ok(Renewal::Renewed(ttl)) => {
                    self.metrics().leases_renewed.inc();
                    return Ok(ttl);
                }
                Ok(Renewal::ClearCheckpoint) => self.clear_checkpoint(id).await?,
                // Its time is up, but only its revocation through the log settles that it is gone.
                Err(lease::Error::Expired) => tokio::time::sleep(EXPIRED_LOOK).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has every member forget the remaining time that an earlier leader noted for a lease.
    async fn clear_checkpoint(&self, id: i64) -> Result<(), Error> {
        let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
        // A refusal is that of a lease which is gone, and is found out by looking again.
        self.propose(LeaseCheckpointRequest { checkpoints }).await.map(|_| ())
    }

    /// The time a lease has left, and its keys if asked for, here or at the leader; without a header.
    ///
    /// # Errors
    /// As [`Member::renew_lease`].
    pub async fn lease_time_to_live(
        self: &Arc<Self>,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, LeaseError> {
        let until = Instant::now() + self.request_timeout();
        let body = LeaseInternalRequest { lease_time_to_live_request: Some(request) }.encode_to_vec();
        let body = Bytes::from(body);
        loop {
            if self.raft().is_leader() {
                match self.lease_time_to_live_here(request).await {
                    // Told so that the client asks again, rather than a time that means nothing (L6).
                    Err(LeaseError::NotPrimary) => return Err(Error::LeaderChanged.into()),
                    result => return result,
                }
            }
            let leader = self.await_leader(until).await?;
            if leader.id != self.id() {
                for url in &leader.peer_urls {
                    let (tls, limit) = (self.peer_tls(), self.one_try(until));
                    let asked = ask_for_time(tls, url, request.id, body.clone(), limit).await?;
                    if let Some(response) = asked {
                        return Ok(response);
                    }
                }
            }
            self.rest(AGAIN, until).await?;
        }
    }

    /// The same on this member alone.
    ///
    /// # Errors
    /// [`LeaseError::NotPrimary`] where it does not lead.
    pub async fn lease_time_to_live_here(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, LeaseError> {
        self.linearize().await?;
        let id = LeaseId(request.id);
        let left = self.lessor().lock().time_to_live(id, self.now())?;
        let keys = if request.keys { self.lease_keys(id) } else { Vec::new() };
        Ok(LeaseTimeToLiveResponse {
            header: None,
            id: request.id,
            ttl: left.remaining,
            granted_ttl: left.granted,
            keys,
        })
    }

    /// The keys of a lease. The apply thread, which needs the lessor for every put with a lease, gets
    /// it between two pages.
    fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let mut keys: Vec<Bytes> = Vec::new();
        loop {
            let page = self.lessor().lock().keys_after(id, keys.last().map(AsRef::as_ref), KEYS_PER_LOOK);
            let last = page.len() < KEYS_PER_LOOK;
            keys.extend(page.into_iter().map(Bytes::from));
            if last {
                return keys;
            }
        }
    }

    /// Has the leader promote a learner.
    pub(crate) async fn promote_at_leader(self: &Arc<Self>, id: u64, token: Option<&str>) -> Changed {
        let until = Instant::now() + self.request_timeout();
        loop {
            let leader = self.await_leader(until).await?;
            if leader.id == self.id() {
                // It came to this member meanwhile.
                match self.promote_here(id).await {
                    Err(ChangeError::Failed(Error::NotLeader)) => {}
                    result => return result,
                }
            } else {
                for url in &leader.peer_urls {
                    match ask_to_promote(self.peer_tls(), url, id, token, left(until)).await {
                        Err(ChangeError::Unforeseen(words)) => {
                            tracing::warn!(error = words, "failed to forward a member promote request");
                        }
                        result => return result,
                    }
                }
            }
            self.rest(AGAIN, until).await?;
        }
    }

    /// Who leads; waits for somebody to do so.
    async fn await_leader(&self, until: Instant) -> Result<Other, Error> {
        loop {
            let leader = self.cluster().members.get(&self.raft().leader()).cloned();
            match leader {
                Some(leader) => return Ok(leader),
                None => self.rest(LEADER_LOOK, until).await.map_err(|error| match error {
                    Error::Timeout => Error::NoLeader,
                    error => error,
                })?,
            }
        }
    }

    /// How long a leader may take over one question. One that is silent for an election timeout may
    /// lead no longer: a paused process would keep a short lease from being renewed at its successor.
    fn one_try(&self, until: Instant) -> Duration {
        left(until).min(self.config().election_timeout)
    }

    /// Waits a moment.
    async fn rest(&self, moment: Duration, until: Instant) -> Result<(), Error> {
        if Instant::now() + moment > until {
            return Err(Error::Timeout);
        }
        tokio::select! {
            () = tokio::time::sleep(moment) => Ok(()),
            () = self.stopping() => Err(Error::Stopped),
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn ask_to_renew(tls: &tls::Client, url: &str, id: i64, body: Bytes, limit: Duration) -> Asked<i64> {
    let answer = client::post(tls, url, LEASES, PROTOBUF, body, limit).await;
    let Some(body) = found(answer)? else { return Ok(None) };
    let response = LeaseKeepAliveResponse::decode(body).ok();
    Ok(response.filter(|response| response.id == id).map(|response| response.ttl))
}

async fn ask_for_time(
    tls: &tls::Client,
    url: &str,
    id: i64,
    body: Bytes,
    limit: Duration,
) -> Asked<LeaseTimeToLiveResponse> {
    let answer = client::post(tls, url, LEASES_INTERNAL, PROTOBUF, body, limit).await;
    let Some(body) = found(answer)? else { return Ok(None) };
    let response = LeaseInternalResponse::decode(body).ok();
    let response = response.and_then(|response| response.lease_time_to_live_response);
    Ok(response.filter(|response| response.id == id))
}

/// The body of a good answer; nothing where another try may do better.
fn found(answer: Result<Response<Bytes>, ClientError>) -> Asked<Bytes> {
    match answer {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(Some(answer.into_body())),
        Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Err(LeaseError::NotFound),
        Ok(_) | Err(_) => Ok(None),
    }
}

async fn ask_to_promote(
    tls: &tls::Client,
    url: &str,
    id: u64,
    token: Option<&str>,
    limit: Duration,
) -> Changed {
    let unforeseen = |words: String| Err(ChangeError::Unforeseen(words));
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    // The leader looks for itself who asks.
    if let Some(token) = token.and_then(|token| HeaderValue::from_str(token).ok()) {
        headers.insert(AUTHORIZATION, token);
    }
    let path = format!("{PROMOTE}{id}");
    match client::ask(tls, Method::POST, url, &path, headers, Bytes::new(), limit).await {
        Ok(answer) => promoted(answer.status(), answer.body()),
        Err(error) => unforeseen(format!("{error:?}")),
    }
}

/// Reads a leader's answer: a status, and words by which two refusals of one status are told apart.
fn promoted(status: StatusCode, body: &[u8]) -> Changed {
    let words = String::from_utf8_lossy(body);
    match status {
        StatusCode::OK => serde_json::from_slice(body)
            .map_err(|error| ChangeError::Unforeseen(format!("unreadable members: {error}"))),
        StatusCode::NOT_FOUND => Err(ChangeError::Rejected(Rejection::MemberNotFound)),
        StatusCode::REQUEST_TIMEOUT => Err(ChangeError::Failed(Error::Timeout)),
        StatusCode::PRECONDITION_FAILED if words.contains("in sync with leader") => {
            Err(ChangeError::LearnerNotReady)
        }
        StatusCode::PRECONDITION_FAILED if words.contains("can only promote a learner member") => {
            Err(ChangeError::Rejected(Rejection::MemberNotLearner))
        }
        _ => Err(ChangeError::Unforeseen(format!("member promote: unknown error({})", words.trim_end()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(status: u16, body: &'static str) -> Result<Response<Bytes>, ClientError> {
        Ok(Response::builder().status(status).body(Bytes::from(body)).unwrap())
    }

    #[test]
    fn only_a_lease_that_is_gone_ends_the_asking() {
        assert_eq!(found(answer(200, "x")), Ok(Some(Bytes::from("x"))));
        assert_eq!(found(answer(404, "lease not found\n")), Err(LeaseError::NotFound));
        for status in [400, 408, 500, 503] {
            assert_eq!(found(answer(status, "")), Ok(None), "{status}");
        }
        assert_eq!(found(Err(ClientError::TimedOut)), Ok(None));
    }

    /// What etcd 3.5.1 and 3.7 answer at `/members/promote/`.
    #[test]
    fn a_leader_s_answers_about_a_promotion_are_understood() {
        let read =
            |status: u16, words: &str| promoted(StatusCode::from_u16(status).unwrap(), words.as_bytes());
        let members = r#"[{"id":7,"peerURLs":["http://a:1"],"name":"x","clientURLs":["http://a:2"]}]"#;
        let members = read(200, members).unwrap();
        assert_eq!((members[0].id, members[0].is_learner, members[0].name.as_str()), (7, false, "x"));
        let refused = |rejection| Err(ChangeError::Rejected(rejection));
        assert_eq!(read(404, "membership: ID not found\n"), refused(Rejection::MemberNotFound));
        let words = "membership: can only promote a learner member\n";
        assert_eq!(read(412, words), refused(Rejection::MemberNotLearner));
        let words = "etcdserver: can only promote a learner member which is in sync with leader\n";
        assert_eq!(read(412, words), Err(ChangeError::LearnerNotReady));
        for (status, words) in [(412, "other"), (500, r#"{"message":"Internal Server Error"}"#), (200, "?")] {
            assert!(matches!(read(status, words), Err(ChangeError::Unforeseen(_))), "{status} {words}");
        }
    }
}
