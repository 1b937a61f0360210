//! The Election service: whoever holds the oldest key below a name leads, and announces what the key holds.

use std::pin::Pin;

use api::etcdserverpb::{ResponseHeader, TxnRequest, WatchCreateRequest};
use api::mvccpb::{KeyValue, event::EventType};
use api::v3electionpb::election_server::Election;
use api::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::caller::{self, Caller, Home, Watch};
use crate::turn::{self, Place};

/// Elections for clients that have none of their own.
pub(crate) struct ElectionService(pub(crate) Home);

/// Leaders that an observer may be behind before its watcher has to wait.
const AHEAD: usize = 16;

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::of(&self.0, request);
        let lease = caller.session(lease).await?;
        let mut place = Place::take(caller.clone(), &name, lease, &value).await?;
        if place.found.as_ref().is_some_and(|found| *found != value) {
            announce(&caller, &place.key, place.revision, lease, &value).await?;
        }
        place.wait().await?;
        let leader = LeaderKey { name, key: place.key.clone(), rev: place.revision, lease };
        Ok(Response::new(CampaignResponse { header: place.header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = Caller::of(&self.0, request);
        let LeaderKey { key, rev, lease, .. } = leader.ok_or_else(no_leader_key)?;
        let lease = caller.session(lease).await?;
        let header = announce(&caller, &key, rev, lease, &value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(&self.0, request);
        let (header, leader) = leader(&caller, &name).await?;
        let kv = Some(leader.ok_or_else(|| Status::unknown("election: no leader"))?);
        Ok(Response::new(LeaderResponse { header, kv }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(&self.0, request);
        let (sender, leaders) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let told = tokio::select! {
                told = observe(&caller, &name, &sender) => told,
                () = sender.closed() => return,
            };
            if let Err(status) = told {
                // Nobody is there to hear it, at worst.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(leaders))))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let (caller, ResignRequest { leader }) = Caller::of(&self.0, request);
        let LeaderKey { key, rev, .. } = leader.ok_or_else(no_leader_key)?;
        let header = turn::remove(&caller, &key, rev).await?;
        Ok(Response::new(ResignResponse { header }))
    }
}

fn no_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

/// Has the key of a lead hold `value`, if it is still the same one.
async fn announce(
    caller: &Caller,
    key: &Bytes,
    revision: i64,
    lease: i64,
    value: &Bytes,
) -> Result<Option<ResponseHeader>, Status> {
    let put = TxnRequest {
        compare: vec![caller::created_at(key, revision)],
        success: vec![caller::put(key, value, lease)],
        failure: Vec::new(),
    };
    let done = caller.txn(put).await?;
    if done.succeeded { Ok(done.header) } else { Err(Status::unknown("election: not leader")) }
}

/// Who leads, if anybody does.
async fn leader(caller: &Caller, name: &Bytes) -> Result<(Option<ResponseHeader>, Option<KeyValue>), Status> {
    let mut range = caller.range(caller::oldest(name)).await?;
    Ok((range.header, range.kvs.pop()))
}

type Leaders = mpsc::Sender<Result<LeaderResponse, Status>>;

/// Tells who leads, and what the leader announces, whenever that changes; until nobody listens.
async fn observe(caller: &Caller, name: &Bytes, leaders: &Leaders) -> Result<(), Status> {
    loop {
        let (header, found) = leader(caller, name).await?;
        let (header, leader) = match found {
            Some(leader) => (header, leader),
            None => match first(caller, name, caller::revision(header.as_ref())).await? {
                Some(candidate) => candidate,
                None => continue,
            },
        };
        let (key, from) = (leader.key.clone(), caller::revision(header.as_ref()) + 1);
        let response = LeaderResponse { header, kv: Some(leader) };
        if leaders.send(Ok(response)).await.is_err() {
            return Ok(());
        }
        follow(watch(caller, key, Bytes::new(), from), leaders).await?;
    }
}

fn watch(caller: &Caller, key: Bytes, range_end: Bytes, start_revision: i64) -> Watch {
    let watch = caller.watch();
    watch.add(&WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() });
    watch
}

/// The first who comes after `revision`, at which there was nobody; none if that cannot be told any more.
async fn first(
    caller: &Caller,
    name: &Bytes,
    revision: i64,
) -> Result<Option<(Option<ResponseHeader>, KeyValue)>, Status> {
    let (prefix, end) = caller::below(name);
    let mut watch = watch(caller, prefix, end, revision + 1);
    loop {
        let response = watch.next().await?;
        let put = response.events.into_iter().find(|event| event.r#type() == EventType::Put);
        if let Some(pair) = put.and_then(|event| event.kv) {
            let mut header = response.header;
            if let Some(header) = &mut header {
                // The response may tell of later ones as well.
                header.revision = pair.mod_revision;
            }
            return Ok(Some((header, pair)));
        }
        if response.canceled {
            return Ok(None);
        }
    }
}

/// Tells what a leader announces until its key is gone, or that cannot be told any more.
async fn follow(mut watch: Watch, leaders: &Leaders) -> Result<(), Status> {
    loop {
        let response = watch.next().await?;
        for event in response.events {
            if event.r#type() == EventType::Delete {
                return Ok(());
            }
            let told = LeaderResponse { header: response.header, kv: event.kv };
            if leaders.send(Ok(told)).await.is_err() {
                return Ok(());
            }
        }
        if response.canceled {
            return Ok(());
        }
    }
}
