//! `RangeStream`: the chunks joined are exactly what `Range` answers at the same revision, whatever
//! is written meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use tests::Server;
use tonic::Code;
use tonic::transport::Channel;

use crate::channel;

const KEYS: usize = 4_000;

/// Reads a stream to its end: all of it joined, and in how many chunks it came.
async fn joined(client: &mut KvClient<Channel>, request: RangeRequest) -> Result<(RangeResponse, usize)> {
    let mut stream = client.range_stream(request).await?.into_inner();
    let (mut all, mut chunks) = (RangeResponse::default(), 0);
    while let Some(chunk) = stream.message().await? {
        let chunk = chunk.range_response.expect("every chunk is a range response");
        assert!(all.header.is_none(), "nothing follows the chunk with the header");
        all.kvs.extend(chunk.kvs);
        (all.header, all.more, all.count) = (chunk.header, chunk.more, chunk.count);
        chunks += 1;
    }
    Ok((all, chunks))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_join_to_the_answer_of_range_under_concurrent_writes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync", "--max-request-bytes", "100000"])?;
    let mut client = KvClient::new(channel(&server).await?);
    for number in 0..KEYS {
        let key = format!("k{number:05}").into();
        client.put(PutRequest { key, value: vec![b'v'; 200].into(), ..Default::default() }).await?;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (mut client, stop) = (client.clone(), Arc::clone(&stop));
        async move {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                // New keys before, between and behind those that the stream is reading.
                let key = format!("k{:05}{}", turn * 37 % KEYS, turn % 7).into();
                client.put(PutRequest { key, value: "new".into(), ..Default::default() }).await?;
                turn += 1;
            }
            anyhow::Ok(turn)
        }
    });
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let variants = [
        all.clone(),
        RangeRequest { limit: 777, ..all.clone() },
        RangeRequest { limit: 3, ..all.clone() },
        RangeRequest { keys_only: true, ..all.clone() },
        RangeRequest { count_only: true, ..all.clone() },
        RangeRequest { serializable: true, ..all.clone() },
        RangeRequest { revision: 1_000, ..all.clone() },
        RangeRequest { key: "k02".into(), range_end: b"\0".to_vec().into(), ..all.clone() },
        RangeRequest { key: "nothing".into(), range_end: "o".into(), ..all.clone() },
        RangeRequest { key: "k00007".into(), range_end: Default::default(), ..all.clone() },
    ];
    for request in variants.iter().cycle().take(3 * variants.len()) {
        let (streamed, chunks) = joined(&mut client, request.clone()).await?;
        let revision = streamed.header.as_ref().expect("the last chunk has a header").revision;
        let at = if request.revision == 0 { revision } else { request.revision };
        let whole = client.range(RangeRequest { revision: at, ..request.clone() }).await?.into_inner();
        assert_eq!(streamed.kvs, whole.kvs, "{request:?}");
        assert_eq!((streamed.more, streamed.count), (whole.more, whole.count), "{request:?}");
        if whole.kvs.len() >= KEYS && !request.keys_only {
            assert!(chunks > 3, "{} keys came in {chunks} chunks", whole.kvs.len());
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await?? > 0, "writes went on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_as_a_status_before_any_chunk() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = KvClient::new(channel(&server).await?);
    let refused = [
        (RangeRequest::default(), Code::InvalidArgument, "etcdserver: key is not provided"),
        (
            RangeRequest { key: "k".into(), revision: 99, ..Default::default() },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ];
    for (request, code, text) in refused {
        let status = joined(&mut client, request).await.unwrap_err().downcast::<tonic::Status>()?;
        assert_eq!((status.code(), status.message()), (code, text));
    }
    Ok(())
}
