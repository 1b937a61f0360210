//! RangeStream: a long list in chunks, all at the revision that was current when it began.

use std::sync::Arc;
use std::time::Instant;

use api::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use bytes::{BufMut as _, Bytes, BytesMut};
use server::Member;
use tokio_stream::Stream;
use tonic::Status;

use crate::access::Reader;
use crate::range;

/// Keys in the first chunk (etcd's number): a caller that wants little soon has it.
const FIRST_CHUNK: i64 = 10;

/// Where a stream is: what is left to read, and what has been read.
struct Progress {
    member: Arc<Member>,
    reader: Reader,
    request: RangeRequest,
    limit: i64,
    sent: i64,
    revision: i64,
    done: bool,
}

/// The chunks of a checked request. The last one alone carries the header, `more` and the count.
pub(crate) fn chunks(
    member: Arc<Member>,
    reader: Reader,
    mut request: RangeRequest,
) -> impl Stream<Item = Result<RangeStreamResponse, Status>> + Send {
    let limit = if request.limit == 0 { i64::MAX } else { request.limit };
    request.limit = FIRST_CHUNK.min(limit);
    let progress = Progress { member, reader, request, limit, sent: 0, revision: 0, done: false };
    futures_util::stream::unfold(progress, |mut progress| async move {
        if progress.done {
            return None;
        }
        let chunk = progress.next().await;
        progress.done |= chunk.is_err();
        Some((chunk.map(|range| RangeStreamResponse { range_response: Some(range) }), progress))
    })
}

impl Progress {
    async fn next(&mut self) -> Result<RangeResponse, Status> {
        let result =
            range::read(&self.member, apply::read::query(&self.request), &mut Instant::now()).await?;
        self.reader.may_be_told(&self.member)?;
        if self.revision == 0 {
            // Later chunks, and the header, stay at the revision of the first.
            self.revision = result.revision;
            if self.request.revision <= 0 {
                self.request.revision = result.revision;
            }
        }
        if self.request.count_only {
            self.done = true;
            let header = Some(self.member.header(self.revision));
            return Ok(RangeResponse { header, count: result.count, ..Default::default() });
        }
        let kvs: Vec<_> = result.records.iter().map(mvcc::Record::decode).collect();
        self.sent += kvs.len() as i64;
        let next = kvs.last().filter(|_| result.more).map(|last| after(&last.key));
        let mut chunk = RangeResponse { kvs, ..Default::default() };
        let size = crate::kv::size(&chunk);
        self.done = !result.more || self.sent >= self.limit;
        if self.done {
            chunk.header = Some(self.member.header(self.revision));
            chunk.more = result.more;
            // What this read counted is what it returned and all behind it.
            chunk.count = self.sent - chunk.kvs.len() as i64 + result.count;
        }
        if let Some(next) = next {
            self.request.key = next;
        }
        let target = self.member.config().max_request_bytes;
        self.request.limit = adjusted(self.request.limit, size, target).min(self.limit - self.sent).max(1);
        Ok(chunk)
    }
}

/// The first key behind `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Twice or half as many keys where a chunk came out far from the target size.
fn adjusted(limit: i64, size: usize, target: usize) -> i64 {
    if size < target / 2 {
        limit.saturating_mul(2)
    } else if size > target.saturating_mul(2) {
        (limit / 2).max(1)
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::adjusted;

    #[test]
    fn chunks_grow_and_shrink_towards_the_target() {
        assert_eq!(adjusted(10, 10, 100), 20);
        assert_eq!(adjusted(10, 60, 100), 10);
        assert_eq!(adjusted(10, 201, 100), 5);
        assert_eq!(adjusted(1, 1_000, 100), 1);
    }
}
