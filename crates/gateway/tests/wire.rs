//! A member behind a real port, in this process, and the generated clients in front of it.
#![allow(clippy::unwrap_used)]

mod common;

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use common::{ask, with_member, with_ports};
use tokio::sync::mpsc::unbounded_channel;
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

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

#[test]
fn a_version_that_is_no_text_is_refused() {
    with_member(|channel, _stop| async move {
        let mut kv = KvClient::new(channel);
        for (version, code) in
            [(&b"3.7"[..], Code::Ok), (b"none", Code::Ok), (b"\xff", Code::InvalidArgument)]
        {
            let mut request = Request::new(put("k", b"v".to_vec()));
            request.metadata_mut().insert("client-api-version", version.try_into().unwrap());
            let refused = kv.put(request).await.err();
            assert_eq!(refused.as_ref().map_or(Code::Ok, tonic::Status::code), code);
            assert!(refused.is_none_or(|it| it.message() == "etcdserver: invalid client api version"));
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

/// Both versions of the question, whose messages are the same, and its answer.
#[test]
fn generic_clients_are_told_what_there_is_to_call() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    with_member(|channel, _stop| async move {
        let ask = |question| ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let services = ask(MessageRequest::ListServices(String::new()));
        let symbol = ask(MessageRequest::FileContainingSymbol("v3lockpb.Lock".to_owned()));
        let asked = tokio_stream::iter([services.clone(), symbol]);
        let mut reflection = ServerReflectionClient::new(channel.clone());
        let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
        let Some(MessageResponse::ListServicesResponse(list)) =
            answers.message().await.unwrap().unwrap().message_response
        else {
            panic!("a list was asked for")
        };
        let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
        for name in ["etcdserverpb.KV", "etcdserverpb.Auth", "v3lockpb.Lock", "v3electionpb.Election"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let answer = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
        assert!(answers.message().await.unwrap().is_none());

        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo".parse().unwrap();
        let asked = Request::new(tokio_stream::once(services));
        let mut answers = client.streaming(asked, path, codec).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(answer, Some(MessageResponse::ListServicesResponse(_))), "{answer:?}");
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

#[test]
fn probes_tell_how_the_member_is() {
    with_ports(async |client, _peer, _stop| {
        let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
        for (path, status, body) in [
            ("GET /livez", 200, "ok\n"),
            ("GET /livez?verbose", 200, "[+]serializable_read ok\nok\n"),
            ("GET /readyz", 200, "ok\n"),
            ("GET /readyz?verbose=1", 200, all),
            ("GET /readyz/linearizable_read?verbose", 200, "[+]linearizable_read ok\nok\n"),
            ("GET /livez?exclude=serializable_read&verbose", 200, "ok\n"),
            ("GET /readyz/guess", 404, "404 page not found\n"),
            ("POST /livez", 405, "Method Not Allowed\n"),
        ] {
            assert_eq!(ask(client, path, "").await, (status, body.to_owned()), "{path}");
        }
        let (_, numbers) = ask(client, "GET /metrics", "").await;
        let count = r#"etcd_server_healthchecks_total{name="non_learner",status="success",type="readyz"} 2"#;
        assert!(numbers.contains(count), "{numbers}");
    });
}

/// What etcd refuses while members' data is known to differ: whatever is applied. Reads are answered.
#[test]
fn a_corrupt_cluster_reads_and_does_not_write() {
    with_ports(async |client, _peer, _stop| {
        let alarm = |action: &str| format!(r#"{{"action":"{action}","alarm":"CORRUPT","memberID":"77"}}"#);
        let put = ("POST /v3/kv/put", r#"{"key":"aw==","value":"dg=="}"#);
        assert_eq!(ask(client, put.0, put.1).await.0, 200);
        let (status, raised) = ask(client, "POST /v3/maintenance/alarm", &alarm("ACTIVATE")).await;
        assert_eq!(
            (status, raised.contains(r#"[{"memberID":"77","alarm":"CORRUPT"}]"#)),
            (200, true),
            "{raised}"
        );
        for (path, body) in [
            put,
            ("POST /v3/kv/deleterange", r#"{"key":"aw=="}"#),
            ("POST /v3/kv/txn", r#"{"success":[{"requestPut":{"key":"aw==","value":"dg=="}}]}"#),
            ("POST /v3/kv/compaction", r#"{"revision":"2"}"#),
            ("POST /v3/lease/grant", r#"{"TTL":"100"}"#),
            ("POST /v3/lease/revoke", r#"{"ID":"7"}"#),
        ] {
            let (_, refused) = ask(client, path, body).await;
            assert!(refused.contains("etcdserver: corrupt cluster"), "{path}: {refused}");
            assert!(refused.contains(r#""code":15"#), "{path}: {refused}");
        }
        let (status, found) = ask(client, "POST /v3/kv/range", r#"{"key":"aw=="}"#).await;
        assert_eq!((status, found.contains(r#""value":"dg==""#)), (200, true), "{found}");
        let words = "[-]data_corruption failed: alarm activated: CORRUPT\n";
        let (status, ready) = ask(client, "GET /readyz", "").await;
        assert_eq!((status, ready.starts_with(words)), (503, true), "{ready}");
        assert_eq!(ask(client, "GET /readyz?exclude=data_corruption", "").await, (200, "ok\n".to_owned()));
        assert_eq!(ask(client, "GET /readyz/data_corruption", "").await, (503, format!("{words}\n")));
        assert_eq!(ask(client, "GET /livez", "").await.0, 200);
        let (status, health) = ask(client, "GET /health", "").await;
        assert_eq!((status, health.contains(r#""reason":"ALARM CORRUPT""#)), (503, true), "{health}");
        assert_eq!(ask(client, "POST /v3/maintenance/alarm", &alarm("DEACTIVATE")).await.0, 200);
        assert_eq!(ask(client, put.0, put.1).await.0, 200);
        assert_eq!(ask(client, "GET /readyz", "").await, (200, "ok\n".to_owned()));
    });
}

/// Alone in its cluster, a member answers others all the same: they may be about to join.
#[test]
fn other_members_are_answered() {
    with_ports(async |client, peer, _stop| {
        // Clients are served once the member has something to say; other members may ask before.
        assert_eq!(ask(client, "GET /livez", "").await.0, 200);
        let (status, version) = ask(peer, "GET /version", "").await;
        assert_eq!((status, version.contains(r#""etcdcluster":"3.7.0""#)), (200, true), "{version}");
        let (status, members) = ask(peer, "GET /members", "").await;
        assert_eq!((status, members.matches("peerURLs").count()), (200, 1), "{members}");
        let hash = r#"{"header":{"revision":1},"hash":1084519789,"compact_revision":-1,"hash_revision":1}"#;
        let question = r#"{"revision":0}"#;
        assert_eq!(ask(peer, "GET /members/hashkv", question).await, (200, hash.to_owned()));
        let future = (400, "mvcc: required revision is a future revision\n".to_owned());
        assert_eq!(ask(peer, "GET /members/hashkv", r#"{"revision":7}"#).await, future);
        let long = "x".repeat(64 * 1024 + 1);
        let refused = (413, "request body too large\n".to_owned());
        assert_eq!(ask(peer, "POST /leases", &long).await, refused);
        let own = format!("/members/promote/{}", u64::MAX);
        assert_eq!(
            ask(peer, &format!("POST {own}"), "").await,
            (404, "membership: ID not found\n".to_owned())
        );
    });
}
