//! Small questions to a peer's URL: `/members`, `/version`, `/leases` and the like. They run on whatever
//! tokio runtime they are awaited on. Every thread keeps the connections it has made for its next
//! questions: a follower passes on a renewal of each of its clients' leases every few seconds.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientFailure};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connect::Address;

/// The longest answer that is read, bytes.
const LONGEST: usize = 16 << 20;

/// How long a connection is kept for the next question.
const IDLE: Duration = Duration::from_secs(10);

thread_local! {
    /// Of the thread, because what drives a connection is a task of the thread's runtime.
    static CONNECTIONS: Client<HttpConnector, Full<Bytes>> = {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
    };
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is none of ours: not `http://host:port/path`.
    Url(String),
    /// The time was over.
    TimedOut,
    /// The peer could not be reached, or the connection broke.
    Io(io::Error),
    /// What came was not HTTP, or too long.
    Malformed(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Url(what) => write!(f, "no URL of a peer: {what}"),
            ClientError::TimedOut => write!(f, "timed out"),
            ClientError::Io(error) => write!(f, "{error}"),
            ClientError::Malformed(what) => write!(f, "{what}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> ClientError {
        if error.is_parse() || error.is_parse_too_large() {
            return ClientError::Malformed(error.to_string());
        }
        ClientError::Io(io::Error::other(error))
    }
}

impl From<ClientFailure> for ClientError {
    fn from(error: ClientFailure) -> ClientError {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
        match cause {
            Some(cause) if cause.is_parse() || cause.is_parse_too_large() => {
                ClientError::Malformed(cause.to_string())
            }
            _ => ClientError::Io(io::Error::other(error)),
        }
    }
}

/// Asks with GET; `url` is whole, as in `http://10.0.0.1:2380/members`. The answer may have any status.
pub async fn get(url: &str, limit: Duration) -> Result<Response<Bytes>, ClientError> {
    ask(Method::GET, url, HeaderMap::new(), Bytes::new(), limit).await
}

/// Sends a body with POST. The answer may have any status.
pub async fn post(
    url: &str,
    content_type: HeaderValue,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Bytes>, ClientError> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    ask(Method::POST, url, headers, body, limit).await
}

/// Asks with any method and headers.
pub async fn ask(
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Bytes>, ClientError> {
    Address::of(url).map_err(ClientError::Url)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|_| ClientError::Url(url.to_owned()))?;
    *request.headers_mut() = headers;
    let exchange = async {
        let (head, body) = CONNECTIONS.with(|client| client.request(request)).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => ClientError::from(*error),
                Err(other) => ClientError::Malformed(other.to_string()),
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(ClientError::TimedOut))
}

/// A request to this address.
pub(crate) fn request<B>(
    method: Method,
    address: &Address,
    path: &str,
    headers: HeaderMap,
    body: B,
) -> Result<Request<B>, ClientError> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| ClientError::Url(path.to_owned()))?;
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&address.authority());
    request.headers_mut().insert(HOST, host.map_err(|_| ClientError::Url(address.to_string()))?);
    Ok(request)
}

/// Runs `main`, and a connection beside it, without which `main` gets nowhere.
pub(crate) async fn beside<C: Future, F: Future>(connection: C, main: F) -> F::Output {
    let mut connection = pin!(connection.fuse());
    let mut main = pin!(main);
    std::future::poll_fn(|context| {
        // How it ends is told to `main`.
        let _: Poll<_> = connection.as_mut().poll(context);
        main.as_mut().poll(context)
    })
    .await
}
