//! The Maintenance service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::maintenance_server::Maintenance;
use api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use apply::Body;
use apply::permission::Need;
use server::{ETCD_VERSION, Member, Piece};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::{access, propose, status};

/// What operators ask of one member.
pub(crate) struct MaintenanceService {
    pub(crate) member: Arc<Member>,
}

/// Runs `work` on a thread of its own, which gives way to others: it reads or rewrites the whole store.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let result = server::run_in_background("maintenance", work).await;
    result.map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        if request.action != AlarmAction::Get as i32 {
            let caller = access::caller(&self.member, &extensions)?;
            self.member.allow(&caller, &[Need::Root]).map_err(status::auth)?;
        }
        match propose(&self.member, &extensions, request).await? {
            (header, Body::Alarm(mut response)) => {
                response.header = Some(header);
                Ok(Response::new(response))
            }
            (_, other) => Err(crate::unexpected(&other)),
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let member = &self.member;
        let raft = member.raft();
        let mut errors = Vec::new();
        if raft.leader() == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in member.alarms().get(AlarmType::None.into()) {
            // The text form of the alarm message, as Go prints it.
            let kind = AlarmType::try_from(alarm.alarm).map_or("NONE", |kind| kind.as_str_name());
            errors.push(format!("memberID:{} alarm:{kind} ", alarm.member_id));
        }
        let cluster = member.cluster();
        let downgrade = cluster.downgrade.clone().unwrap_or_default();
        Ok(Response::new(StatusResponse {
            header: Some(member.header(0)),
            version: ETCD_VERSION.to_owned(),
            db_size: member.backend().size() as i64,
            leader: raft.leader(),
            raft_index: raft.committed(),
            raft_term: raft.term(),
            raft_applied_index: raft.applied(),
            errors,
            db_size_in_use: member.backend().size_in_use() as i64,
            is_learner: member.is_learner(),
            storage_version: cluster.storage_version().to_owned(),
            db_size_quota: member.config().quota_bytes,
            downgrade_info: Some(DowngradeInfo {
                enabled: downgrade.enabled,
                target_version: downgrade.target_version,
            }),
        }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let member = Arc::clone(&self.member);
        let started = Instant::now();
        tracing::info!("starting defragment");
        let result = off_thread(move || member.defragment()).await?;
        result.map_err(|error| {
            tracing::warn!(%error, "failed to defragment");
            Status::internal(error.to_string())
        })?;
        tracing::info!(took = ?started.elapsed(), "finished defragment");
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let backend = self.member.backend().clone();
        let started = Instant::now();
        let revision = self.member.store().current_revision();
        let hash = off_thread(move || {
            backend.read_ahead()?;
            backend.hash_tables()
        });
        let hash = hash.await?;
        let hash = hash.map_err(|error| Status::internal(error.to_string()))?;
        self.member.metrics().hash.observe(started.elapsed().as_secs_f64());
        Ok(Response::new(HashResponse { header: Some(self.member.header(revision)), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let (store, backend) = (self.member.store().clone(), self.member.backend().clone());
        let started = Instant::now();
        let current = store.current_revision();
        let hash = off_thread(move || {
            // Where that fails, reading it for good says so.
            let _ = backend.read_ahead();
            store.hash_kv(revision)
        });
        let hash = hash.await?.map_err(status::store)?;
        self.member.metrics().hash_rev.observe(started.elapsed().as_secs_f64());
        Ok(Response::new(HashKvResponse {
            header: Some(self.member.header(current)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let pieces = self.member.backup().map_err(status::backup)?;
        let responses = ReceiverStream::new(pieces).map(|piece| {
            let Piece { bytes, remaining, version } = piece.map_err(status::backup)?;
            Ok(SnapshotResponse { header: None, remaining_bytes: remaining, blob: bytes, version })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.member.move_leader(request.into_inner().target_id).await.map_err(status::server)?;
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let DowngradeRequest { action, version } = request.into_inner();
        let outcome = match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Validate) => self.member.validate_downgrade(&version).await,
            Ok(DowngradeAction::Enable) => self.member.enable_downgrade(&version).await,
            Ok(DowngradeAction::Cancel) => self.member.cancel_downgrade().await,
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        let version = outcome.map_err(|error| {
            tracing::warn!(?error, "reject downgrade request");
            status::downgrade(error)
        })?;
        Ok(Response::new(DowngradeResponse { header: Some(self.member.header(0)), version }))
    }
}
