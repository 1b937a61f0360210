//! Keys, values, and filling a server with them before a window opens.

use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use api::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::client::{Connection, converse};

/// Puts per transaction while filling: below etcd's limit of 128 operations, and with 1 KiB values
/// far below its limit on the request's size.
const BATCH: u64 = 100;
/// Transactions under way while filling.
const TASKS: u64 = 8;

/// The keys of a row are a prefix and a number of ten digits: their order is the numbers' order.
pub(crate) fn key(prefix: &str, number: u64) -> Bytes {
    Bytes::from(format!("{prefix}{number:010}"))
}

/// The end of the range that begins with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> Bytes {
    // The driver's prefixes are ASCII, so the last byte can always grow.
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// A value of `length` bytes that does not compress away to nothing.
pub(crate) fn value(length: usize) -> Bytes {
    let mut random = crate::random::Random::new(length as u64);
    (0..length).map(|_| random.below(256) as u8).collect::<Vec<_>>().into()
}

/// Writes the numbered keys, many to a transaction, and gives the revision reached.
///
/// # Errors
/// The first failed transaction.
pub(crate) fn fill(address: SocketAddr, prefix: &str, numbers: Range<u64>, length: usize) -> Result<i64> {
    converse(async {
        let connection = Connection::open(address).await?;
        let (prefix, value) = (Rc::<str>::from(prefix), value(length));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (connection, prefix, value) = (connection.clone(), prefix.clone(), value.clone());
            let numbers = numbers.clone();
            tasks.spawn_local(async move {
                let mut kv = connection.kv();
                let mut revision = 0;
                let mut first = numbers.start + task * BATCH;
                while first < numbers.end {
                    let batch = first..(first + BATCH).min(numbers.end);
                    let success = batch.map(|number| put_op(key(&prefix, number), value.clone())).collect();
                    let answer = kv.txn(TxnRequest { success, ..Default::default() }).await?.into_inner();
                    revision = answer.header.map_or(0, |header| header.revision);
                    first += TASKS * BATCH;
                }
                anyhow::Ok(revision)
            });
        }
        let mut reached = 0;
        while let Some(task) = tasks.join_next().await {
            reached = reached.max(task??);
        }
        Ok(reached)
    })
}

fn put_op(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key, value, ..Default::default() })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_lie_within_the_prefix() {
        let keys: Vec<Bytes> = [0, 9, 10, 999_999_999].map(|number| key("p/", number)).into();
        assert!(keys.is_sorted());
        assert!(keys.iter().all(|key| key[..] >= b"p/"[..] && *key < prefix_end("p/")));
        assert_eq!(prefix_end("p/"), "p0");
    }

    #[test]
    fn values_have_their_length_and_are_the_same_every_time() {
        assert_eq!(value(256).len(), 256);
        assert_eq!(value(256), value(256));
    }
}
