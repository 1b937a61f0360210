//! Small questions to a peer's URL: `/members`, `/version`, `/leases` and the like. They run on whatever
//! tokio runtime they are awaited on. Every thread keeps the connections it has made for its next
//! questions: a follower passes on a renewal of each of its clients' leases every few seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::{Client, Error as ClientFailure};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower_service::Service;

use crate::connect::{self, Address, Connection, Impatient};

/// The longest answer that is read, bytes.
const LONGEST: usize = 16 << 20;

/// How long a connection is kept for the next question.
const IDLE: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of a question.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// Of the thread, because what drives a connection is a task of the thread's runtime; by the number of the
    /// [`tls::Client`] that has made them.
    static CONNECTIONS: RefCell<HashMap<u64, Asking>> = RefCell::default();
}

type Asking = Client<Connector, Full<Bytes>>;

/// The connections of this thread that were made with `tls`.
fn connections(tls: &tls::Client) -> Asking {
    CONNECTIONS.with_borrow_mut(|all| {
        let made = || {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(Connector(tls.clone()))
        };
        all.entry(tls.number()).or_insert_with(made).clone()
    })
}

/// Makes connections to whatever [`target`] has made a target of.
#[derive(Clone)]
struct Connector(tls::Client);

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let address = place(&target)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, target.to_string()))?;
            // Whoever asks has a limit of their own.
            let stream = connect::dial(&address, &tls, Duration::MAX).await?;
            Ok(TokioIo::new(Impatient::new(stream, PATIENCE)))
        })
    }
}

/// What is asked for, as a URI. A path of the file system can be no authority: its bytes stand there as digits.
fn target(url: &str, path: &str) -> Option<Uri> {
    let text = match url.split_once("://")? {
        (scheme @ ("unix" | "unixs"), file) => {
            let digits: String = file.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("{scheme}://{digits}{path}")
        }
        _ => format!("{url}{path}"),
    };
    text.parse().ok()
}

/// Where a target is.
fn place(target: &Uri) -> Option<Address> {
    let (scheme, host) = (target.scheme_str()?, target.host()?);
    if !matches!(scheme, "unix" | "unixs") {
        return Address::of(&target.to_string()).ok();
    }
    let pairs = host.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let file = String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()?;
    Address::of(&format!("{scheme}://{file}")).ok()
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is none of ours: not `http://host:port` or the like.
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

/// Asks with GET for what is at `path` of a peer's URL, as in `http://10.0.0.1:2380` and `/members`. The answer may
/// have any status.
pub async fn get(
    tls: &tls::Client,
    url: &str,
    path: &str,
    limit: Duration,
) -> Result<Response<Bytes>, ClientError> {
    ask(tls, Method::GET, url, path, HeaderMap::new(), Bytes::new(), limit).await
}

/// Sends a body with POST. The answer may have any status.
pub async fn post(
    tls: &tls::Client,
    url: &str,
    path: &str,
    content_type: HeaderValue,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Bytes>, ClientError> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    ask(tls, Method::POST, url, path, headers, body, limit).await
}

/// Asks with any method and headers.
pub async fn ask(
    tls: &tls::Client,
    method: Method,
    url: &str,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Bytes>, ClientError> {
    let address = Address::of(url).map_err(ClientError::Url)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target(url, path).ok_or_else(|| ClientError::Url(format!("{url}{path}")))?;
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&address.authority());
    request.headers_mut().insert(HOST, host.map_err(|_| ClientError::Url(url.to_owned()))?);
    let connections = connections(tls);
    let exchange = async {
        let (head, body) = connections.request(request).await?.into_parts();
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
