//! Numbers at the ends of their ranges, text that is none, and depth, in every field of every request.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use tests::Server;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::beside::Beside;
use crate::frames::message;
use crate::no_panics;

const MIB: u64 = 1 << 20;

/// Switching authentication on would keep everybody else out.
const NOT_ASKED: [&str; 1] = ["AuthEnable"];

/// Values of a numeric field that nobody would choose.
fn extremes(kind: &Kind) -> Vec<Value> {
    match kind {
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            [i64::MIN, i64::MIN + 1, -1, i64::from(u32::MAX), 1 << 53, i64::MAX - 1, i64::MAX]
                .map(Value::I64)
                .into()
        }
        Kind::Uint64 | Kind::Fixed64 => [1, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX].map(Value::U64).into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => [i32::MIN, -1, i32::MAX].map(Value::I32).into(),
        Kind::Uint32 | Kind::Fixed32 => [1 << 31, u32::MAX].map(Value::U32).into(),
        Kind::Enum(_) => [i32::MIN, -1, 77, i32::MAX].map(Value::EnumNumber).into(),
        _ => Vec::new(),
    }
}

/// A message with a key where there is room for one, so that more than its absence is looked at.
fn usual(kind: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for name in ["key", "name"] {
        match kind.get_field_by_name(name).map(|field| field.kind()) {
            Some(Kind::Bytes) => message.set_field_by_name(name, Value::Bytes("k".into())),
            Some(Kind::String) => message.set_field_by_name(name, Value::String("k".to_owned())),
            _ => {}
        }
    }
    message
}

/// Messages of a kind in each of which one number, here or below, is extreme.
fn with_extremes(kind: &MessageDescriptor, depth: usize) -> Vec<DynamicMessage> {
    let mut all = Vec::new();
    for field in kind.fields() {
        let values = match field.kind() {
            Kind::Message(inner) if depth > 0 => {
                with_extremes(&inner, depth - 1).into_iter().map(Value::Message).collect()
            }
            kind => extremes(&kind),
        };
        for value in values {
            let mut message = usual(kind);
            message.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
            all.push(message);
        }
    }
    all
}

/// The bytes of messages of a kind in each of which one text, here or below, is not UTF-8.
fn with_broken_text(kind: &MessageDescriptor, depth: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for field in kind.fields() {
        let tag = |length: usize| {
            let mut bytes = Vec::new();
            prost::encoding::encode_key(
                field.number(),
                prost::encoding::WireType::LengthDelimited,
                &mut bytes,
            );
            prost::encoding::encode_varint(length as u64, &mut bytes);
            bytes
        };
        let values = match field.kind() {
            Kind::String => vec![vec![0xff], b"\xc3\x28".to_vec(), b"a\xed\xa0\x80".to_vec()],
            Kind::Message(inner) if depth > 0 => with_broken_text(&inner, depth - 1),
            _ => Vec::new(),
        };
        all.extend(values.into_iter().map(|value| [tag(value.len()), value].concat()));
    }
    all
}

/// Asks, and says with which gRPC code it was answered; none for a stream that goes on.
async fn ask(channel: &Channel, server: &Server, path: &str, body: Vec<u8>) -> Result<Option<i32>> {
    let request = http::Request::post(format!("{}{path}", server.endpoint()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(Bytes::from(body))))?;
    let mut channel = channel.clone();
    let answer = tower::Service::call(channel.ready().await?, request).await?;
    anyhow::ensure!(answer.status().as_u16() == 200, "{}", answer.status());
    if let Some(status) = tonic::Status::from_header_map(answer.headers()) {
        return Ok(Some(status.code() as i32));
    }
    let Ok(body) = tokio::time::timeout(Duration::from_millis(100), answer.into_body().collect()).await
    else {
        return Ok(None);
    };
    let body = body?;
    let trailers = body.trailers().context("an answer without an end")?;
    Ok(Some(tonic::Status::from_header_map(trailers).context("an end without a status")?.code() as i32))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_text_in_every_field_of_every_request() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let beside = Beside::start(&server).await?;
    let channel = Endpoint::from_shared(server.endpoint())?.connect().await?;
    let pool = DescriptorPool::decode(api::DESCRIPTORS)?;
    let (mut asked, mut refused) = (0, 0);
    for service in pool.services() {
        for method in service.methods().filter(|method| !NOT_ASKED.contains(&method.name())) {
            let path = format!("/{}/{}", service.full_name(), method.name());
            for bytes in with_extremes(&method.input(), 2) {
                let code = ask(&channel, &server, &path, message(&bytes.encode_to_vec())).await;
                let code = code.with_context(|| format!("{path} {bytes:?}"))?;
                asked += 1;
                refused += usize::from(code.is_some_and(|code| code != 0));
            }
            for bytes in with_broken_text(&method.input(), 2) {
                let code = ask(&channel, &server, &path, message(&bytes)).await;
                let code = code.with_context(|| format!("{path} {bytes:?}"))?;
                assert!(code.is_some_and(|code| code != 0), "{path}: {bytes:?} was taken for text");
                asked += 1;
            }
        }
    }
    println!("{asked} requests, {refused} of those with odd numbers refused");
    assert!(asked > 400 && refused > 100);
    beside.end("extremes", 128 * MIB).await?;
    no_panics(&server);
    Ok(())
}

/// A transaction in a transaction in a transaction, in protobuf.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        // RequestOp.request_txn is its field 4, TxnRequest.success its field 2. Written from the end.
        for tag in [4 << 3 | 2, 2 << 3 | 2_u8] {
            let mut length = Vec::new();
            prost::encoding::encode_varint(bytes.len() as u64, &mut length);
            length.reverse();
            bytes.extend(length);
            bytes.push(tag);
        }
    }
    bytes.reverse();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_and_bombs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let beside = Beside::start(&server).await?;
    let channel = Endpoint::from_shared(server.endpoint())?.connect().await?;
    // Some levels are let in, many are not, and none overflows a stack.
    for (depth, code) in [(1, 0), (10, 0), (40, 0)] {
        assert_eq!(
            ask(&channel, &server, "/etcdserverpb.KV/Txn", message(&nested(depth))).await?,
            Some(code),
            "{depth}"
        );
    }
    for depth in [60, 1_000, 100_000] {
        let code = ask(&channel, &server, "/etcdserverpb.KV/Txn", message(&nested(depth))).await?;
        assert!(code.is_some_and(|code| code != 0), "{depth}");
    }
    for body in
        [r#"{"success":[{"request_txn":"#.repeat(50_000), "[".repeat(2 << 20), r#"{"a":"#.repeat(300_000)]
    {
        let answer = json(&server, "/v3/kv/txn", &body)?;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // What nobody knows is passed over, however deep.
    let unknown = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let answer = json(&server, "/v3/kv/txn", &unknown)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // 64 MiB in 64 KiB; twenty at a time.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 64 * MIB), &mut packed)?;
    let packed = packed.finish()?;
    let framed = [&[1][..], &(packed.len() as u32).to_be_bytes(), &packed].concat();
    let bombs = (0..20).map(|_| async {
        let request = http::Request::post(format!("{}/etcdserverpb.KV/Put", server.endpoint()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", "gzip")
            .body(tonic::body::Body::new(Full::new(Bytes::from(framed.clone()))))?;
        let mut channel = channel.clone();
        let answer = tower::Service::call(channel.ready().await?, request).await?;
        let in_head = tonic::Status::from_header_map(answer.headers());
        let end = answer.into_body().collect().await?;
        let status =
            in_head.or_else(|| tonic::Status::from_header_map(end.trailers()?)).context("a status")?;
        anyhow::Ok(status)
    });
    for status in futures_util::future::join_all(bombs).await {
        let status = status?;
        assert!(status.code() != tonic::Code::Ok, "{status:?}");
        println!("{:?} {}", status.code(), status.message());
    }
    beside.end("depth and bombs", 128 * MIB).await?;
    no_panics(&server);
    Ok(())
}

/// Posts a body as JSON; the answer as it comes.
fn json(server: &Server, path: &str, body: &str) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.client_port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    // It may be answered before all of it has come.
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        end?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
