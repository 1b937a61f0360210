//! The lock and election services of a member, called by the generated clients.
#![allow(clippy::unwrap_used)]

mod common;

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use api::v3electionpb::election_client::ElectionClient;
use api::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use api::v3lockpb::lock_client::LockClient;
use api::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use common::with_member;
use std::collections::VecDeque;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

async fn lease(channel: &Channel, id: i64) -> i64 {
    let grant = LeaseGrantRequest { ttl: 600, id };
    LeaseClient::new(channel.clone()).lease_grant(grant).await.unwrap().into_inner().id
}

async fn revoke(channel: &Channel, id: i64) {
    LeaseClient::new(channel.clone()).lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
}

fn lock(channel: &Channel, name: &'static str, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
    let mut client = LockClient::new(channel.clone());
    let request = LockRequest { name: name.into(), lease };
    tokio::spawn(async move { client.lock(request).await.map(tonic::Response::into_inner) })
}

async fn unlock(channel: &Channel, held: &LockResponse) {
    let request = UnlockRequest { key: held.key.clone() };
    LockClient::new(channel.clone()).unlock(request).await.unwrap();
}

/// Whether a call fails as etcd's does: in these words, and without a code.
fn failed<T: std::fmt::Debug>(result: Result<T, Status>, words: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, words));
}

/// Who comes and goes below a name, as it happens.
struct Queue(Streaming<WatchResponse>, VecDeque<Event>);

impl Queue {
    async fn of(channel: &Channel, name: &str) -> Self {
        let (key, range_end) = (format!("{name}/").into(), format!("{name}0").into());
        let create = WatchCreateRequest { key, range_end, ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(create), tokio_stream::pending());
        let mut answers = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        Self(answers, VecDeque::new())
    }

    async fn next(&mut self) -> (EventType, String) {
        while self.1.is_empty() {
            self.1.extend(self.0.message().await.unwrap().unwrap().events);
        }
        let event = self.1.pop_front().unwrap();
        (event.r#type(), String::from_utf8(event.kv.unwrap().key.to_vec()).unwrap())
    }

    async fn comes(&mut self, key: &str) {
        assert_eq!(self.next().await, (EventType::Put, key.to_owned()));
    }

    async fn goes(&mut self, key: &str) {
        assert_eq!(self.next().await, (EventType::Delete, key.to_owned()));
    }
}

#[test]
fn a_lock_goes_to_those_who_wait_in_the_order_in_which_they_came() {
    with_member(|channel, _stop| async move {
        let mut queue = Queue::of(&channel, "l").await;
        let mut waiting = VecDeque::new();
        // Ids whose keys sort the other way than they come.
        for id in (0x10..0x18).rev() {
            lease(&channel, id).await;
            waiting.push_back(lock(&channel, "l", id));
            queue.comes(&format!("l/{id:x}")).await;
        }
        let mut last = 0;
        for id in (0x10..0x18).rev() {
            let held = waiting.pop_front().unwrap().await.unwrap().unwrap();
            assert_eq!(held.key, format!("l/{id:x}"));
            let revision = held.header.unwrap().revision;
            assert!(revision > last, "{revision} after {last}");
            last = revision;
            assert!(waiting.iter().all(|other| !other.is_finished()), "two hold it");
            unlock(&channel, &held).await;
            queue.goes(&format!("l/{id:x}")).await;
        }
    });
}

#[test]
fn who_holds_a_lock_is_told_so_again() {
    with_member(|channel, _stop| async move {
        lease(&channel, 1).await;
        let first = lock(&channel, "l", 1).await.unwrap().unwrap();
        let again = lock(&channel, "l", 1).await.unwrap().unwrap();
        assert_eq!((first.key.as_ref(), &again.key), (&b"l/1"[..], &first.key));
        // A session that brings no lease gets one of a minute.
        let other = lock(&channel, "other", 0).await.unwrap().unwrap();
        let id = i64::from_str_radix(std::str::from_utf8(&other.key[6..]).unwrap(), 16).unwrap();
        let ask = LeaseTimeToLiveRequest { id, keys: true };
        let found = LeaseClient::new(channel).lease_time_to_live(ask).await.unwrap().into_inner();
        assert_eq!((found.granted_ttl, found.keys), (60, vec![other.key]));
    });
}

#[test]
fn a_call_that_is_given_up_leaves_the_queue() {
    with_member(|channel, _stop| async move {
        for id in [1, 2, 3] {
            lease(&channel, id).await;
        }
        let mut queue = Queue::of(&channel, "l").await;
        let held = lock(&channel, "l", 1).await.unwrap().unwrap();
        queue.comes("l/1").await;
        let given_up = lock(&channel, "l", 2);
        queue.comes("l/2").await;
        let patient = lock(&channel, "l", 3);
        queue.comes("l/3").await;
        given_up.abort();
        queue.goes("l/2").await;
        assert!(!patient.is_finished(), "the lock is held by the first");
        unlock(&channel, &held).await;
        assert_eq!(patient.await.unwrap().unwrap().key, "l/3");

        let mut campaign = ElectionClient::new(channel.clone());
        let mut queue = Queue::of(&channel, "e").await;
        let run = |lease| CampaignRequest { name: "e".into(), lease, value: "v".into() };
        campaign.campaign(run(1)).await.unwrap();
        queue.comes("e/1").await;
        let given_up = tokio::spawn(async move { campaign.campaign(run(2)).await });
        queue.comes("e/2").await;
        given_up.abort();
        queue.goes("e/2").await;
    });
}

#[test]
fn a_session_that_ends_waits_no_longer_and_holds_nothing() {
    with_member(|channel, _stop| async move {
        for id in [1, 2, 3] {
            lease(&channel, id).await;
        }
        let mut queue = Queue::of(&channel, "l").await;
        lock(&channel, "l", 1).await.unwrap().unwrap();
        let expired = lock(&channel, "l", 2);
        queue.comes("l/1").await;
        queue.comes("l/2").await;
        let heir = lock(&channel, "l", 3);
        queue.comes("l/3").await;
        revoke(&channel, 2).await;
        // At once, not when its turn would have come.
        failed(expired.await.unwrap(), "mutex: session is expired");
        assert!(!heir.is_finished());
        revoke(&channel, 1).await;
        assert_eq!(heir.await.unwrap().unwrap().key, "l/3");
        failed(lock(&channel, "l", 77).await.unwrap(), "etcdserver: requested lease not found");
        failed(lock(&channel, "l", -77).await.unwrap(), "etcdserver: requested lease not found");
    });
}

/// Another's key of the same name is not taken for one's own, and a compaction loses nobody.
#[test]
fn who_waits_lives_through_what_others_do_to_the_keys() {
    with_member(|channel, _stop| async move {
        for id in [1, 2] {
            lease(&channel, id).await;
        }
        let mut kv = KvClient::new(channel.clone());
        let mut queue = Queue::of(&channel, "l").await;
        let held = lock(&channel, "l", 1).await.unwrap().unwrap();
        queue.comes("l/1").await;
        let waiting = lock(&channel, "l", 2);
        queue.comes("l/2").await;
        let write = PutRequest {
            key: "l/1".into(),
            value: "scribble".into(),
            ignore_lease: true,
            ..Default::default()
        };
        let revision = kv.put(write).await.unwrap().into_inner().header.unwrap().revision;
        queue.comes("l/1").await;
        kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
        assert!(!waiting.is_finished());
        unlock(&channel, &held).await;
        queue.goes("l/1").await;
        let held = waiting.await.unwrap().unwrap();
        assert_eq!(held.key, "l/2");

        // Deleted and made again by somebody else while its owner waits: the place is lost.
        let late = lock(&channel, "l", 1);
        queue.comes("l/1").await;
        kv.delete_range(DeleteRangeRequest { key: "l/1".into(), ..Default::default() }).await.unwrap();
        failed(late.await.unwrap(), "mutex: session is expired");
        kv.put(PutRequest { key: "l/1".into(), ..Default::default() }).await.unwrap();
        let range = RangeRequest { key: "l/1".into(), ..Default::default() };
        assert_eq!(
            kv.range(range).await.unwrap().into_inner().count,
            1,
            "it is not the late one's to delete"
        );
    });
}

#[test]
fn who_waits_is_told_when_the_member_stops() {
    with_member(|channel, stop| async move {
        lease(&channel, 1).await;
        lease(&channel, 2).await;
        let mut queue = Queue::of(&channel, "l").await;
        lock(&channel, "l", 1).await.unwrap().unwrap();
        queue.comes("l/1").await;
        let waiting = lock(&channel, "l", 2);
        queue.comes("l/2").await;
        stop();
        let end = waiting.await.unwrap().unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
    });
}

#[test]
fn an_election_has_one_leader_after_the_other() {
    with_member(|channel, _stop| async move {
        let mut election = ElectionClient::new(channel.clone());
        let ask = || LeaderRequest { name: "e".into() };
        failed(election.leader(ask()).await, "election: no leader");
        let mut leaders = election.observe(ask()).await.unwrap().into_inner();
        for id in [1, 2] {
            lease(&channel, id).await;
        }
        let run =
            |lease, value: &'static str| CampaignRequest { name: "e".into(), lease, value: value.into() };
        let first = election.campaign(run(1, "first")).await.unwrap().into_inner();
        let key = first.leader.unwrap();
        let revision = first.header.unwrap().revision;
        let name = LeaderKey { name: "e".into(), key: "e/1".into(), rev: revision, lease: 1 };
        assert_eq!(key, name);

        let told = leaders.message().await.unwrap().unwrap();
        assert_eq!((&told.kv.unwrap().value[..], told.header.unwrap().revision), (&b"first"[..], revision));
        let proclaim = ProclaimRequest { leader: Some(key.clone()), value: "again".into() };
        election.proclaim(proclaim.clone()).await.unwrap();
        assert_eq!(leaders.message().await.unwrap().unwrap().kv.unwrap().value, "again");
        let now = election.leader(ask()).await.unwrap().into_inner().kv.unwrap();
        assert_eq!((&now.key[..], &now.value[..], now.lease), (&b"e/1"[..], &b"again"[..], 1));
        // A leader that campaigns still leads, and says what it has to say now.
        let still = election.campaign(run(1, "third")).await.unwrap().into_inner();
        assert_eq!(still.leader.as_ref(), Some(&key));
        assert_eq!(leaders.message().await.unwrap().unwrap().kv.unwrap().value, "third");

        let mut queue = Queue::of(&channel, "e").await;
        let mut other = ElectionClient::new(channel.clone());
        let second = tokio::spawn(async move { other.campaign(run(2, "second")).await });
        queue.comes("e/2").await;
        assert!(!second.is_finished());
        election.resign(ResignRequest { leader: Some(key.clone()) }).await.unwrap();
        let second = second.await.unwrap().unwrap().into_inner();
        assert_eq!(second.leader.unwrap().key, "e/2");
        assert_eq!(leaders.message().await.unwrap().unwrap().kv.unwrap().value, "second");

        // What the first one says now is nobody's word, and to resign twice does no harm.
        failed(election.proclaim(proclaim).await, "election: not leader");
        election.resign(ResignRequest { leader: Some(key) }).await.unwrap();
        revoke(&channel, 2).await;
        failed(election.leader(ask()).await, "election: no leader");
        let words = "\"leader\" field must be provided";
        failed(election.proclaim(ProclaimRequest::default()).await, words);
        failed(election.resign(ResignRequest::default()).await, words);
        failed(election.campaign(run(77, "")).await, "etcdserver: requested lease not found");
    });
}

/// A name is not a prefix of another, and one that nobody has given is one too.
#[test]
fn names_do_not_get_in_each_others_way() {
    with_member(|channel, _stop| async move {
        for id in 1..=4 {
            lease(&channel, id).await;
        }
        for (id, name) in [(1, "a"), (2, "ab"), (3, ""), (4, "a0")] {
            let held = lock(&channel, name, id).await.unwrap().unwrap();
            assert_eq!(held.key, format!("{name}/{id}"));
        }
    });
}
