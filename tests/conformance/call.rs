//! One request of a sequence, and what it takes to send it to one of the two servers.

use std::time::Duration;

use anyhow::Result;
use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::compare::TargetUnion;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::*;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::fields::{self, Fields};
use crate::pair::{MEMBER, Party};

/// Longer than any answer takes; a request that waits for this long is a difference.
const PATIENCE: Duration = Duration::from_secs(20);

/// Leases whose id the server chose have different ids on the two servers. In a sequence they go by
/// numbers from here on, which are put in place of each server's own in requests and answers.
pub(crate) const SERVER_CHOSEN: i64 = 0x5eed_0000_0000_0000;

/// A request and its kind.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    LeaseLeases,
    /// A stream of its own with these ids, read until each is answered.
    LeaseKeepAlive(Vec<i64>),
    HashKv(HashKvRequest),
    Hash,
    Alarm(AlarmRequest),
    MemberList(MemberListRequest),
    Status,
    Defragment,
    Watch(Watch),
}

impl Call {
    /// The kind alone.
    pub(crate) fn name(&self) -> String {
        format!("{self:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
    }
}

/// What is done with streams of watchers.
#[derive(Clone, Debug)]
pub(crate) enum Watch {
    /// Creates a watcher on a stream, which begins with its first watcher.
    Create(usize, WatchCreateRequest),
    Cancel(usize, i64),
    Progress(usize),
    /// Ends the stream from the client's side.
    Close(usize),
    /// Waits until every watcher has what it must get, and compares.
    Settle,
}

/// A server as one sequence sees it.
pub(crate) struct Side {
    /// To each member.
    channels: Vec<Channel>,
    /// The member that is asked next.
    at: usize,
    party: Party,
    chosen: Vec<i64>,
}

impl Side {
    pub(crate) async fn connect(party: Party) -> Result<Self> {
        let mut channels = Vec::new();
        for endpoint in &party.endpoints {
            channels.push(Endpoint::from_shared(endpoint.clone())?.tcp_nodelay(true).connect().await?);
        }
        Ok(Self { channels, at: 0, party, chosen: Vec::new() })
    }

    /// Has the next request go to the next member.
    pub(crate) fn turn(&mut self) {
        self.at = (self.at + 1) % self.channels.len();
    }

    fn channel(&self) -> Channel {
        self.channels[self.at].clone()
    }

    /// The connection that a stream of watchers uses, with the member caught up: where a watcher
    /// begins must not depend on how far that member is.
    pub(crate) fn channel_of(&self, stream: usize) -> Channel {
        self.channels[stream % self.channels.len()].clone()
    }

    /// Waits until a member has applied whatever was acknowledged.
    pub(crate) async fn catch_up(&self, channel: Channel) {
        if self.channels.len() > 1 {
            let asked = RangeRequest { key: "?".into(), ..Default::default() };
            // What is wrong with it shows in the request that follows.
            let _ = tokio::time::timeout(PATIENCE, KvClient::new(channel).range(asked)).await;
        }
    }

    /// Sends a request that is no matter of watchers, and takes the answer apart.
    pub(crate) async fn call(&mut self, call: &Call) -> Fields {
        self.catch_up(self.channel()).await;
        match tokio::time::timeout(PATIENCE, self.send(call)).await {
            Ok(Ok(fields)) => self.hide(fields),
            Ok(Err(status)) => {
                let told = fields::of_error(&status).into_iter();
                told.map(|(place, value)| (format!("{}.{place}", call.name()), value)).collect()
            }
            Err(_) => vec![("error".to_owned(), format!("no answer in {PATIENCE:?}"))],
        }
    }

    async fn send(&mut self, call: &Call) -> Result<Fields, Status> {
        let limit = usize::MAX;
        let mut kv = KvClient::new(self.channel()).max_decoding_message_size(limit);
        let mut lease = LeaseClient::new(self.channel());
        let mut maintenance = MaintenanceClient::new(self.channel());
        Ok(match call.clone() {
            Call::Range(request) => fields::of(kv.range(request).await?.get_ref()),
            Call::Put(mut request) => {
                self.own(&mut request.lease);
                fields::of(kv.put(request).await?.get_ref())
            }
            Call::DeleteRange(request) => fields::of(kv.delete_range(request).await?.get_ref()),
            Call::Txn(mut request) => {
                self.own_txn(&mut request);
                fields::of(kv.txn(request).await?.get_ref())
            }
            Call::Compact(request) => fields::of(kv.compact(request).await?.get_ref()),
            Call::LeaseGrant(request) => {
                let granted = lease.lease_grant(request).await?.into_inner();
                if request.id == 0 {
                    self.chosen.push(granted.id);
                }
                fields::of(&granted)
            }
            Call::LeaseRevoke(mut request) => {
                self.own(&mut request.id);
                fields::of(lease.lease_revoke(request).await?.get_ref())
            }
            Call::LeaseTimeToLive(mut request) => {
                self.own(&mut request.id);
                fields::of(lease.lease_time_to_live(request).await?.get_ref())
            }
            Call::LeaseLeases => fields::of(lease.lease_leases(LeaseLeasesRequest {}).await?.get_ref()),
            Call::LeaseKeepAlive(mut ids) => {
                ids.iter_mut().for_each(|id| self.own(id));
                let requests = ids.into_iter().map(|id| LeaseKeepAliveRequest { id });
                let mut answers = lease.lease_keep_alive(tokio_stream::iter(requests)).await?.into_inner();
                let mut all = Fields::new();
                while let Some(answer) = answers.next().await {
                    all.extend(numbered(all.len(), fields::of(&answer?)));
                }
                all
            }
            Call::HashKv(request) => fields::of(maintenance.hash_kv(request).await?.get_ref()),
            Call::Hash => fields::of(maintenance.hash(HashRequest {}).await?.get_ref()),
            Call::Alarm(mut request) => {
                let number = request.member_id.checked_sub(MEMBER);
                let own = number.and_then(|number| self.party.ids.get(usize::try_from(number).ok()?));
                request.member_id = own.copied().unwrap_or(request.member_id);
                fields::of(maintenance.alarm(request).await?.get_ref())
            }
            Call::MemberList(request) => {
                let mut cluster = ClusterClient::new(self.channel());
                fields::of(cluster.member_list(request).await?.get_ref())
            }
            Call::Status => fields::of(maintenance.status(StatusRequest {}).await?.get_ref()),
            Call::Defragment => fields::of(maintenance.defragment(DefragmentRequest {}).await?.get_ref()),
            Call::Watch(_) => unreachable!("watchers have a module of their own"),
        })
    }

    /// What `RangeStream` says to a request, its chunks put together to one answer of `Range`.
    pub(crate) async fn range_stream(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let mut kv = KvClient::new(self.channel()).max_decoding_message_size(usize::MAX);
        let mut chunks = kv.range_stream(request).await?.into_inner();
        let mut whole = RangeResponse::default();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?.range_response.unwrap_or_default();
            whole.kvs.extend(chunk.kvs);
            whole = RangeResponse { kvs: whole.kvs, ..chunk };
        }
        Ok(whole)
    }

    /// Puts this server's id in place of a number that stands for it.
    fn own(&self, id: &mut i64) {
        let number = id.checked_sub(SERVER_CHOSEN).and_then(|number| usize::try_from(number).ok());
        if let Some(own) = number.and_then(|number| self.chosen.get(number)) {
            *id = *own;
        }
    }

    fn own_txn(&self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            if let Some(TargetUnion::Lease(id)) = &mut compare.target_union {
                self.own(id);
            }
        }
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut op.request {
                Some(Request::RequestPut(put)) => self.own(&mut put.lease),
                Some(Request::RequestTxn(txn)) => self.own_txn(txn),
                _ => {}
            }
        }
    }

    /// Puts the numbers back where this server's ids are.
    pub(crate) fn hide(&self, mut fields: Fields) -> Fields {
        for (number, id) in self.chosen.iter().enumerate() {
            let id = id.to_string();
            for (_, value) in fields.iter_mut().filter(|(_, value)| *value == id) {
                *value = (SERVER_CHOSEN + number as i64).to_string();
            }
        }
        for (_, value) in &mut fields {
            *value = self.party.hide(value);
        }
        fields
    }
}

/// Tells the fields of the answers on one stream apart.
fn numbered(number: usize, fields: Fields) -> Fields {
    fields.into_iter().map(|(place, value)| (format!("{place}@{number}"), value)).collect()
}
