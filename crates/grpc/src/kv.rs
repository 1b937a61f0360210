//! The KV service but for `Range`, which [`crate::range`] serves.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use api::etcdserverpb::kv_server::Kv;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use apply::{Body, permission};
use prost::Message as _;
use server::Member;
use tokio_stream::Stream;
use tonic::{Extensions, Request, Response, Status};

use crate::access::Reader;
use crate::slow;
use crate::stats::{self, Stats};
use crate::trace::Trace;
use crate::{propose, propose_counted, range, status, stream_range};

/// Reads and writes of keys.
pub(crate) struct KvService {
    pub(crate) member: Arc<Member>,
}

#[tonic::async_trait]
impl Kv for KvService {
    /// The generated service asks for it; the dispatcher sends `Range` to [`range::serve`], whose
    /// answer is not built as a message.
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let result = range::answer(&self.member, &extensions, &request).await?;
        Ok(Response::new(RangeResponse {
            header: Some(self.member.header(result.revision)),
            more: result.more,
            count: result.count,
            kvs: result.records.iter().map(mvcc::Record::decode).collect(),
        }))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (_, extensions, request) = request.into_parts();
        apply::check::range_stream(&request).map_err(status::rejection)?;
        if !request.serializable {
            self.member.linearize().await.map_err(status::server)?;
        }
        let reader = Reader::of(&self.member, &extensions, &[permission::range(&request)])?;
        Ok(Response::new(Box::pin(stream_range::chunks(Arc::clone(&self.member), reader, request))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        apply::check::put(&request).map_err(status::rejection)?;
        crate::quota::check(&self.member, apply::quota::put_cost(&request)).await?;
        match propose_counted(&self.member, &extensions, request).await? {
            (header, Body::Put(mut response), stats) => {
                response.header = Some(header);
                Ok(answered(response, stats))
            }
            (_, other, _) => Err(crate::unexpected(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        apply::check::delete_range(&request).map_err(status::rejection)?;
        match propose_counted(&self.member, &extensions, request).await? {
            (header, Body::DeleteRange(mut response), stats) => {
                response.header = Some(header);
                Ok(answered(response, stats))
            }
            (_, other, _) => Err(crate::unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        apply::check::txn(&request, self.member.config().max_txn_ops).map_err(status::rejection)?;
        if apply::txn::is_read_only(&request) {
            return self.read_txn(&extensions, &request).await;
        }
        crate::quota::check(&self.member, apply::quota::txn_cost(&request)).await?;
        match propose_counted(&self.member, &extensions, request).await? {
            (header, Body::Txn(mut response), stats) => {
                response.header = Some(header);
                Ok(answered(response, stats))
            }
            (_, other, _) => Err(crate::unexpected(&other)),
        }
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let (revision, physical) = (request.revision, request.physical);
        match propose(&self.member, &extensions, request).await? {
            (header, Body::Compaction(mut response)) => {
                self.member.wake_compactor();
                if physical {
                    self.member.compacted(revision).await;
                }
                response.header = Some(header);
                Ok(Response::new(response))
            }
            (_, other) => Err(crate::unexpected(&other)),
        }
    }
}

impl KvService {
    async fn read_txn(
        &self,
        extensions: &Extensions,
        request: &TxnRequest,
    ) -> Result<Response<TxnResponse>, Status> {
        let began = Instant::now();
        let mut agreed = began;
        if !apply::txn::is_serializable(request) {
            agreed = self.member.linearize_since(began).await.map_err(status::server)?;
        }
        let mut permitted = agreed;
        let outcome = self.read_txn_here(extensions, request, &mut permitted).await;
        // Agreement is no part of the time that etcd's metric and its warning tell.
        let took = agreed.elapsed();
        self.member.metrics().answered_read_only(outcome.is_ok(), took);
        if took > self.member.config().warning_apply {
            slow::read_txn(&self.member, request, &outcome, took);
        }
        if agreed - began + took > server::TRACED {
            slow::trace_txn([began, agreed, permitted]);
        }
        if let Some(trace) = extensions.get::<Trace>() {
            let error = outcome.as_ref().err().map(Status::message);
            trace.txn(request, [began, agreed, permitted], error);
        }
        let mut outcome = outcome.map(Response::new);
        if stats::wanted(began, self.member.config().warning_request) {
            Stats::of_txn(request, outcome.as_ref().ok().map(Response::get_ref)).leave(&mut outcome);
        }
        outcome
    }

    async fn read_txn_here(
        &self,
        extensions: &Extensions,
        request: &TxnRequest,
        permitted: &mut Instant,
    ) -> Result<TxnResponse, Status> {
        let reader = Reader::of(&self.member, extensions, &permission::txn(request))?;
        *permitted = Instant::now();
        let mut response = range::read_txn(&self.member, request).await?;
        reader.may_be_told(&self.member)?;
        let revision = response.header.take().map_or(0, |header| header.revision);
        response.header = Some(self.member.header(revision));
        Ok(response)
    }
}

/// An answer, with what the log tells of it if it took long.
fn answered<T>(message: T, stats: Option<Stats>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(stats) = stats {
        response.extensions_mut().insert(Arc::new(stats));
    }
    response
}

/// The size of an answer, for chunks that should come near a target.
pub(crate) fn size(response: &RangeResponse) -> usize {
    response.encoded_len()
}
