//! Waiting for one's turn: a key below a name for each who waits, and the oldest key has it.
//!
//! Who waits watches the key that was created last before its own, and nobody else's, so a turn that ends
//! wakes one of them. It watches its own key too: one whose lease has expired waits for nothing.

use api::etcdserverpb::request_op::Request as Operation;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::{ResponseHeader, TxnRequest, WatchCreateRequest};
use bytes::Bytes;
use tonic::Status;

use crate::caller::{self, Caller};

/// A place in the queue below a name.
pub(crate) struct Place {
    caller: Caller,
    name: Bytes,
    /// The key that stands for it.
    pub(crate) key: Bytes,
    /// Where the key was created.
    pub(crate) revision: i64,
    /// The header of the transaction that took the place.
    pub(crate) header: Option<ResponseHeader>,
    /// What the key held already; `None` if the key is new.
    pub(crate) found: Option<Bytes>,
    /// Whether the key goes when this does.
    is_waiting: bool,
}

/// The key for a lease below a name: etcd's, so that whoever locks by its client library waits too.
pub(crate) fn key(name: &Bytes, lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let key = [name.as_ref(), format!("/{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat();
    key.into()
}

impl Place {
    /// Takes a place at the end of the queue, or the one that the lease has already.
    pub(crate) async fn take(
        caller: Caller,
        name: &Bytes,
        lease: i64,
        value: &Bytes,
    ) -> Result<Self, Status> {
        // A call may be given up at any moment, also while its key is being written: then the place is taken
        // all the same, to be given back.
        let taken = tokio::spawn(Self::taken(caller, name.clone(), lease, value.clone()));
        taken.await.map_err(|_| Status::internal("the wait was interrupted"))?
    }

    async fn taken(caller: Caller, name: Bytes, lease: i64, value: Bytes) -> Result<Self, Status> {
        let key = key(&name, lease);
        let mut taken = caller
            .txn(TxnRequest {
                compare: vec![caller::created_at(&key, 0)],
                success: vec![caller::put(&key, &value, lease)],
                failure: vec![caller::get(&key)],
            })
            .await?;
        let (found, revision) = if taken.succeeded {
            (None, caller::revision(taken.header.as_ref()))
        } else {
            let mut range = caller::read_at(&mut taken, 0)?;
            let pair = range.kvs.pop().ok_or_else(|| Status::internal("a key was there and was not"))?;
            (Some(pair.value), pair.create_revision)
        };
        Ok(Self { caller, name, key, revision, header: taken.header, found, is_waiting: true })
    }

    /// Waits until every older key is gone; the header of the look that found it so.
    ///
    /// If this is dropped before that, the key is taken back.
    pub(crate) async fn wait(&mut self) -> Result<Option<ResponseHeader>, Status> {
        loop {
            let before = caller::last_before(&self.name, self.revision);
            let look = TxnRequest {
                success: vec![caller::get(&self.key), caller::one(Operation::RequestRange(before))],
                ..TxnRequest::default()
            };
            let mut seen = self.caller.txn(look).await?;
            let own = caller::read_at(&mut seen, 0)?;
            if own.kvs.first().is_none_or(|own| own.create_revision != self.revision) {
                self.is_waiting = false;
                return Err(Status::unknown("mutex: session is expired"));
            }
            let Some(before) = caller::read_at(&mut seen, 1)?.kvs.pop() else {
                self.is_waiting = false;
                return Ok(seen.header);
            };
            let now = caller::revision(seen.header.as_ref());
            self.gone([before.key, self.key.clone()], now).await?;
        }
    }

    /// Waits until one of the keys, all of which were there at `revision`, may not be there any more.
    async fn gone(&self, keys: [Bytes; 2], revision: i64) -> Result<(), Status> {
        let mut watch = self.caller.watch();
        for key in keys {
            watch.add(&WatchCreateRequest {
                key,
                start_revision: revision + 1,
                filters: vec![FilterType::Noput.into()],
                ..WatchCreateRequest::default()
            });
        }
        loop {
            let response = watch.next().await?;
            // A watcher that a compaction has overtaken is of no more use; a new look is.
            if !response.events.is_empty() || response.canceled {
                return Ok(());
            }
        }
    }
}

impl Drop for Place {
    /// A client that has gone, or that was refused, does not hold up those behind it.
    fn drop(&mut self) {
        if !self.is_waiting {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (caller, key, revision) = (self.caller.clone(), self.key.clone(), self.revision);
            runtime.spawn(async move {
                if let Err(error) = remove(&caller, &key, revision).await {
                    // Its lease will take it.
                    tracing::debug!(%error, "failed to take back a place in a queue");
                }
            });
        }
    }
}

/// Deletes `key` if it was created at `revision`: another one of that name is another's.
pub(crate) async fn remove(
    caller: &Caller,
    key: &Bytes,
    revision: i64,
) -> Result<Option<ResponseHeader>, Status> {
    let removed = caller
        .txn(TxnRequest {
            compare: vec![caller::created_at(key, revision)],
            success: vec![caller::delete(key)],
            failure: Vec::new(),
        })
        .await?;
    Ok(removed.header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_by_etcds_clients() {
        let name = Bytes::from("lock");
        assert_eq!(key(&name, 0x2040a1f9a6befb0c), "lock/2040a1f9a6befb0c");
        assert_eq!(key(&name, -26), "lock/-1a");
        assert_eq!(key(&name, i64::MIN), "lock/-8000000000000000");
        assert_eq!(caller::below(&name), ("lock/".into(), "lock0".into()));
    }
}
