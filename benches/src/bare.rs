//! The bare service: tonic's KV with nothing behind it, run the way Cairn runs its connections.
//!
//! One single-threaded runtime per core; the first thread accepts and hands connections out in turn.
//! What it costs is what any server on this stack pays before it has stored a byte.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::Result;
use api::etcdserverpb::kv_server::{Kv, KvServer};
use api::etcdserverpb::*;
use api::mvccpb::KeyValue;
use bytes::Bytes;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tonic::{Request, Response, Status};

use crate::client::OnThisThread;

/// Connections accepted and not yet taken up by their thread.
const HANDED_OUT: usize = 64;

/// Serves at `address` until the process ends.
///
/// # Errors
/// When the address cannot be bound, and as [`serve_on`].
pub(crate) fn serve(address: SocketAddr, threads: usize) -> Result<()> {
    serve_on(&TcpListener::bind(address)?, threads)
}

/// Serves what comes to `listener` until the process ends.
///
/// # Errors
/// When a runtime cannot start or the listener fails.
pub(crate) fn serve_on(listener: &TcpListener, threads: usize) -> Result<()> {
    let mut hands = Vec::new();
    for _ in 0..threads.max(1) {
        let (hand, mut taken) = mpsc::channel::<std::net::TcpStream>(HANDED_OUT);
        hands.push(hand);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                while let Some(socket) = taken.recv().await {
                    tokio::task::spawn_local(serve_connection(socket));
                }
            });
        });
    }
    for hand in hands.iter().cycle() {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        hand.blocking_send(socket)?;
    }
    Ok(())
}

async fn serve_connection(socket: std::net::TcpStream) -> Result<()> {
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let service = TowerToHyperService::new(KvServer::new(Bare::new()));
    // A client that goes away ends its connection with an error that is of no interest.
    let _ = http2::Builder::new(OnThisThread).serve_connection(TokioIo::new(socket), service).await;
    Ok(())
}

/// Answers puts with a header and gets with the key asked for.
struct Bare {
    value: Bytes,
}

impl Bare {
    fn new() -> Bare {
        Bare { value: crate::keys::value(256) }
    }
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 })
}

#[tonic::async_trait]
impl Kv for Bare {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (key, value) = (request.into_inner().key, self.value.clone());
        let kv = KeyValue { key, value, create_revision: 1, mod_revision: 1, version: 1, lease: 0 };
        Ok(Response::new(RangeResponse { header: header(), kvs: vec![kv], more: false, count: 1 }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse { header: header(), prev_kv: None }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        // The driver fills a server with transactions before it reads; taken and forgotten.
        drop(request);
        Ok(Response::new(TxnResponse { header: header(), succeeded: true, responses: Vec::new() }))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the bare service stores nothing"))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the bare service stores nothing"))
    }

    type RangeStreamStream = tokio_stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("the bare service stores nothing"))
    }
}
