//! A member that sends traces, and a collector that takes them.
#![allow(clippy::unwrap_used)]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{PutRequest, RangeRequest};
use bytes::Bytes;
use common::with_config;
use gateway::Access;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use server::{Config, Traces};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::Request;
use tonic::transport::Endpoint;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Whatever is sent to the one method that a collector has.
async fn collect(listener: TcpListener, taken: UnboundedSender<(String, Bytes)>) {
    while let Ok((stream, _)) = listener.accept().await {
        let taken = taken.clone();
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let taken = taken.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                taken.send((path, body)).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let empty = Frame::data(Bytes::from_static(&[0; 5]));
                let frames = tokio_stream::iter([empty, Frame::trailers(trailers)].map(Ok::<_, Infallible>));
                let answer = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(answer.body(StreamBody::new(frames)).unwrap())
            }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

async fn sent(taken: &mut UnboundedReceiver<(String, Bytes)>) -> Vec<u8> {
    let (path, body) = taken.recv().await.unwrap();
    assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    body.to_vec()
}

/// Of three calls one is told of: the one whose client traces it, with its id for a parent, and none of the others,
/// since no call is to be traced by chance.
#[test]
fn calls_that_clients_trace_are_sent_to_the_collector() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let traces = Traces {
        address: listener.local_addr().unwrap().to_string(),
        service_name: "the-service".to_owned(),
        instance_id: "the-instance".to_owned(),
        per_million: 0,
    };
    let change = |config: &mut Config, _: SocketAddr| config.traces = Some(traces);
    with_config(Access::default(), true, change, async |client, _peer, stop| {
        let (taken, mut spans) = unbounded_channel();
        tokio::spawn(collect(TcpListener::from_std(listener).unwrap(), taken));
        let channel = Endpoint::from_shared(format!("http://{client}")).unwrap().connect().await.unwrap();
        let mut kv = KvClient::new(channel);
        let put = PutRequest { key: "the-key".into(), value: "the-secret".into(), ..Default::default() };
        let mut traced = Request::new(put.clone());
        traced.metadata_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-01").parse().unwrap());
        kv.put(traced).await.unwrap();
        let range = RangeRequest { key: "not-traced".into(), ..RangeRequest::default() };
        let mut unsampled = Request::new(range.clone());
        unsampled.metadata_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-00").parse().unwrap());
        kv.range(unsampled).await.unwrap();
        kv.range(range.clone()).await.unwrap();
        // What waits to be sent is sent at the end.
        stop();
        let told = sent(&mut spans).await;
        let holds = |part: &[u8]| told.windows(part.len()).any(|window| window == part);
        for text in [
            "service.name",
            "the-service",
            "service.instance.id",
            "the-instance",
            "etcdserverpb.KV/Put",
            "rpc.grpc.status_code",
            "put",
            "the-key",
            "Send raft proposal",
            "Receive raft result",
        ] {
            assert!(holds(text.as_bytes()), "{text} in {:?}", String::from_utf8_lossy(&told));
        }
        assert!(holds(&hex(TRACE)) && holds(&hex(SPAN)));
        assert!(!holds(b"the-secret") && !holds(b"not-traced"));
    });
}
