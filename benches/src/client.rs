//! The thinnest gRPC connection that the generated clients accept.
//!
//! The driver shares its cores with the server that it measures, so a call goes straight to
//! hyper's HTTP/2 connection: no load balancer, no reconnecting, no buffer task between. Everything
//! of one connection lives on one thread.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use bytes::{Buf, Bytes};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Windows wide enough that a page of 500 keys is never held back by flow control.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// One HTTP/2 connection, to be cloned freely on its thread.
#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Body>,
    origin: Uri,
}

impl Connection {
    /// Connects and spawns the task that moves the connection's frames; needs a `LocalSet`.
    ///
    /// # Errors
    /// When nobody listens at `address` or the HTTP/2 handshake fails.
    pub(crate) async fn open(address: SocketAddr) -> Result<Connection> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (send, frames) = http2::Builder::new(OnThisThread)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(socket))
            .await?;
        tokio::task::spawn_local(frames);
        let origin = format!("http://{address}").parse()?;
        Ok(Connection { send, origin })
    }

    /// A KV client on this connection.
    pub(crate) fn kv(&self) -> KvClient<Connection> {
        KvClient::with_origin(self.clone(), self.origin.clone())
    }

    /// A lease client on this connection.
    pub(crate) fn lease(&self) -> LeaseClient<Connection> {
        LeaseClient::with_origin(self.clone(), self.origin.clone())
    }

    /// A maintenance client on this connection.
    pub(crate) fn maintenance(&self) -> MaintenanceClient<Connection> {
        MaintenanceClient::with_origin(self.clone(), self.origin.clone())
    }

    /// A client whose answers stay encoded; see [`Raw`].
    pub(crate) fn raw(&self) -> Grpc<Connection> {
        Grpc::with_origin(self.clone(), self.origin.clone()).max_decoding_message_size(usize::MAX)
    }
}

/// One unary call whose answer is handed over undecoded.
///
/// # Errors
/// The server's status, or `Unavailable` when the connection has gone.
pub(crate) async fn call_raw<M: prost::Message + 'static>(
    client: &mut Grpc<Connection>,
    path: &'static str,
    request: M,
) -> Result<Bytes, Status> {
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let codec = Raw(std::marker::PhantomData);
    Ok(client.unary(tonic::Request::new(request), path, codec).await?.into_inner())
}

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}

/// Runs a connection's own tasks on the thread that opened it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Encodes `M` and leaves the answer as bytes: the driver needs to count the keys or events of a
/// large answer, not to build them.
pub(crate) struct Raw<M>(pub(crate) std::marker::PhantomData<fn(M)>);

impl<M: prost::Message + 'static> Codec for Raw<M> {
    type Encode = M;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        Raw(std::marker::PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder
    }
}

impl<M: prost::Message> Encoder for Raw<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, item: M, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(dst).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The receiving half of [`Raw`].
pub(crate) struct RawDecoder;

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

/// Runs a short conversation on a runtime of its own: setup and single calls outside a measured
/// window.
///
/// # Errors
/// What `talk` gives, or the runtime's failure to start.
pub(crate) fn converse<T>(talk: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, talk)
}
