//! The Lock service: whoever holds the oldest key below a name holds the lock of that name.
//!
//! A lock is as good as its lease, and no better: what it protects should check the revision of the key,
//! which grows from holder to holder.

use api::v3lockpb::lock_server::Lock;
use api::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use crate::caller::{Caller, Home};
use crate::turn::Place;

/// Locks for clients that have none of their own.
pub(crate) struct LockService(pub(crate) Home);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::of(&self.0, request);
        let lease = caller.session(lease).await?;
        let mut place = Place::take(caller, &name, lease, &Bytes::new()).await?;
        let header = place.wait().await?;
        Ok(Response::new(LockResponse { header, key: place.key.clone() }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(&self.0, request);
        let deleted = caller.delete(key).await?;
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}
