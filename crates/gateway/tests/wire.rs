//! A member behind a real port, in this process, and the generated clients in front of it.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use gateway::{Gateway, Http2, Listeners};
use server::{Config, Server};
use tokio::sync::mpsc::unbounded_channel;
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

fn config(directory: &Path) -> Config {
    Config { max_request_bytes: 10_000, no_fsync: true, shards: 2, ..Config::new(directory.join("data")) }
}

/// Runs `work` with a channel to a member, and stops the member: in the middle of it if `work` says
/// when, else after it.
fn with_member<F: Future<Output = ()>>(work: impl FnOnce(Channel, Box<dyn FnOnce() + Send>) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let (failures, mut failed) = unbounded_channel();
    let mut server = Server::start(config(directory.path()), failures).unwrap();
    let listener = gateway::bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = Listeners { client: vec![listener], peer: Vec::new() };
    let http2 = Http2 {
        max_concurrent_streams: u32::MAX,
        keepalive_interval: Duration::ZERO,
        keepalive_timeout: Duration::from_secs(20),
    };
    let gateway = Gateway::new(Arc::clone(server.member()), listeners, http2, || {});
    server.serve(move |shard| gateway.clone().serve(shard)).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The end of `work` without a word is a word too.
            let _ = stopped.recv();
            server.stop();
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let channel =
                Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
            let now = stop.clone();
            work(channel, Box::new(move || now.send(()).unwrap())).await;
        });
        drop(stop);
    });
    if let Ok(failure) = failed.try_recv() {
        panic!("{failure}");
    }
}

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() }
}

#[test]
fn compressed_requests_are_read() {
    with_member(|channel, _stop| async move {
        let mut kv = KvClient::new(channel.clone()).send_compressed(CompressionEncoding::Gzip);
        kv.put(put("k", vec![b'v'; 9_000])).await.unwrap();
        let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        let found = kv.range(range).await.unwrap().into_inner();
        assert_eq!(found.kvs[0].value, vec![b'v'; 9_000]);
        // The limit is one of the message, not of what it was squeezed into.
        let refused = kv.put(put("k", vec![b'v'; 20_000])).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: request is too large");
        assert_eq!(kv.put(put("k", vec![b'v'; 600_000])).await.unwrap_err().code(), Code::ResourceExhausted);

        let mut watch = WatchClient::new(channel).send_compressed(CompressionEncoding::Gzip);
        let create = WatchCreateRequest { key: "k".into(), start_revision: 1, ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // One request, and the client has said all it wants to say; it still listens.
        let mut answers = watch.watch(tokio_stream::once(create)).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        assert_eq!(answers.message().await.unwrap().unwrap().events.len(), 1);
        kv.put(put("k", b"again".to_vec())).await.unwrap();
        let events = answers.message().await.unwrap().unwrap().events;
        assert_eq!(events[0].kv.as_ref().unwrap().value, "again");
    });
}

#[test]
fn unknown_methods_and_services_are_named() {
    with_member(|channel, _stop| async move {
        for (path, text) in [
            ("/etcdserverpb.KV/Guess", "unknown method Guess for service etcdserverpb.KV"),
            ("/etcdserverpb.Watch/Look", "unknown method Look for service etcdserverpb.Watch"),
            ("/no.such.Service/Do", "unknown service no.such.Service"),
        ] {
            let mut client = tonic::client::Grpc::new(channel.clone());
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<PutRequest, PutRequest>::default();
            let asked = client.unary(Request::new(PutRequest::default()), path.parse().unwrap(), codec);
            let refused = asked.await.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::Unimplemented, text));
        }
    });
}

/// A lease that was never granted has no time left, and the stream ends with its requests.
#[test]
fn a_keep_alive_of_no_lease_is_answered() {
    with_member(|channel, _stop| async move {
        let asked = tokio_stream::iter([7, 8]).map(|id| LeaseKeepAliveRequest { id });
        let mut answers = LeaseClient::new(channel).lease_keep_alive(asked).await.unwrap().into_inner();
        for id in [7, 8] {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.id, answer.ttl), (id, 0));
        }
        assert!(answers.message().await.unwrap().is_none());
    });
}

/// Open streams end with a status when the member stops, and do not hold up its end.
#[test]
fn watches_end_in_a_word_when_the_member_stops() {
    with_member(|channel, stop| async move {
        let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (requests, queue) = unbounded_channel();
        requests.send(create).unwrap();
        let queue = tokio_stream::wrappers::UnboundedReceiverStream::new(queue);
        let mut watch = WatchClient::new(channel);
        let mut answers = watch.watch(queue).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        stop();
        let end = answers.message().await.unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
    });
}
