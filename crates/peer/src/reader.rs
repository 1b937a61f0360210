//! A stream from a peer to here: dialled by us, again and again, for as long as the peer is one.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use raft::{Body, Message};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::{self, beside};
use crate::connect::{Address, Connection, connect};
use crate::framing::{Broken, Decoder, Input, Kind, Said};
use crate::hub::Hub;
use crate::identity::{self, hex_value, major_minor};
use crate::link::{Link, count};

/// The rest after the first failure; doubled each time, up to the settings' figure. A process that has
/// just died may refuse only a moment after its streams have closed.
const FIRST_REST: Duration = Duration::from_millis(4);

/// A stream that lasted this long was no failure.
const STEADY: Duration = Duration::from_secs(1);

/// Messages given to the member at once.
const MOST_AT_ONCE: usize = 4096;

type Driver = Fuse<http1::Connection<Connection, Empty<Bytes>>>;

/// Why there is no stream, or none any more.
#[derive(Debug)]
enum Failure {
    /// Nobody listens there.
    Refused,
    /// The connection was cut.
    Cut(String),
    /// No answer in time.
    Silent,
    /// This member has been removed from the cluster.
    RemovedHere,
    /// An answer that is no stream.
    Declined(String),
    /// What came makes no sense.
    Broken(Broken),
    /// The peer ended the stream in order.
    Ended,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused => write!(f, "connection refused"),
            Failure::Cut(why) | Failure::Declined(why) => write!(f, "{why}"),
            Failure::Silent => write!(f, "timed out"),
            Failure::RemovedHere => write!(f, "the member has been permanently removed from the cluster"),
            Failure::Broken(broken) => write!(f, "{broken}"),
            Failure::Ended => write!(f, "the peer ended the stream"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::Silent,
            _ => Failure::Cut(error.to_string()),
        }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Failure {
        Failure::Cut(whole(&error))
    }
}

/// An error with what it comes from.
fn whole(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

/// Keeps a stream open.
pub(crate) async fn run(hub: Arc<Hub>, link: Arc<Link>, kind: Kind) {
    let id = format!("{:x}", link.id);
    let mut rest = FIRST_REST;
    let mut complaint = String::new();
    loop {
        let poked = link.poke.notified();
        let Some(address) = link.address() else { return };
        let failure = match dial(&hub, &link, kind, &address).await {
            Ok(stream) => {
                tracing::info!(
                    "stream-reader-type" = kind.name(),
                    "remote-peer-id" = id,
                    "established stream"
                );
                complaint.clear();
                link.opened(true);
                let since = Instant::now();
                let failure = stream.read(&hub, &link, kind).await;
                link.closed(&failure.to_string());
                tracing::warn!(
                    "stream-reader-type" = kind.name(),
                    "remote-peer-id" = id,
                    error = %failure,
                    "lost TCP streaming connection with remote peer"
                );
                if since.elapsed() >= STEADY {
                    rest = FIRST_REST;
                    continue;
                }
                failure
            }
            Err(failure) => {
                link.failed_at(&address);
                let text = failure.to_string();
                if complaint != text {
                    tracing::warn!(
                        "stream-reader-type" = kind.name(),
                        "remote-peer-id" = id,
                        address = %address,
                        error = text,
                        "failed to dial remote peer"
                    );
                    complaint = text;
                }
                failure
            }
        };
        match failure {
            Failure::Refused if link.refused_at(&address) => hub.events.gone(link.id),
            Failure::Refused | Failure::Cut(_) | Failure::Ended => {}
            Failure::RemovedHere => hub.events.removed_here(),
            Failure::Silent | Failure::Declined(_) | Failure::Broken(_) => link.unanswered(),
        }
        tokio::select! {
            () = sleep(rest) => {}
            // It has just shown that it is there.
            () = poked => {}
        }
        rest = (rest * 2).min(hub.settings.retry);
    }
}

/// An answer that goes on and on, and the connection that brings it.
struct Stream {
    connection: Pin<Box<Driver>>,
    body: Incoming,
}

async fn dial(hub: &Hub, link: &Link, kind: Kind, address: &Address) -> Result<Stream, Failure> {
    let settings = &hub.settings;
    let connection = connect(address, settings).await?;
    let (mut sender, connection) = http1::handshake(connection).await?;
    let mut connection = Box::pin(connection.fuse());
    let mut headers = identity::introduction(settings);
    headers.insert(identity::RAFT_TO, hex_value(link.id));
    let path = format!("/raft/stream/{}/{}", kind.path(), identity::id_text(settings.id));
    let request = client::request(Method::GET, address, &path, headers, Empty::new())
        .map_err(|error| Failure::Declined(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::GONE => Err(Failure::RemovedHere),
            _ => Err(declined(response).await),
        }
    };
    let answer = timeout(settings.read_timeout, beside(connection.as_mut(), answer));
    let (head, body) = answer.await.unwrap_or(Err(Failure::Silent))?.into_parts();
    check_version(settings.version, &head.headers)?;
    Ok(Stream { connection, body })
}

/// etcd before 2.1 has no such streams; before 2.0 it did not say what it was.
fn check_version(ours: &str, headers: &HeaderMap) -> Result<(), Failure> {
    let theirs = identity::text(headers, &identity::VERSION);
    let number = if theirs.is_empty() { Some((2, 0)) } else { major_minor(theirs) };
    match number {
        Some(number) if number >= (2, 1) || Some(number) >= major_minor(ours) => Ok(()),
        _ => Err(Failure::Declined(format!("the peer's version {theirs:?} has no such stream"))),
    }
}

/// The reason in an answer that is no stream.
async fn declined(response: Response<Incoming>) -> Failure {
    const LONGEST: usize = 4096;
    let status = response.status();
    let cluster = identity::text(response.headers(), &identity::CLUSTER_ID).to_owned();
    let text = match Limited::new(response.into_body(), LONGEST).collect().await {
        Ok(text) => String::from_utf8_lossy(&text.to_bytes()).trim_end().to_owned(),
        Err(_) => String::new(),
    };
    Failure::Declined(match text.as_str() {
        identity::OTHER_CLUSTER => format!("{text}: the peer's is {cluster}"),
        _ => format!("the peer answered {status}: {text}"),
    })
}

impl Stream {
    /// Reads until there is no more, and tells why.
    async fn read(mut self, hub: &Hub, link: &Link, kind: Kind) -> Failure {
        let limit = hub.settings.read_timeout;
        let mut input = Input::new(Decoder::new(kind, hub.settings.id, link.id));
        let mut batch = Batch { hub, link, messages: Vec::new(), refused: 0 };
        let mut deadline = pin!(sleep_until(Instant::now() + limit));
        let mut last = Instant::now();
        let mut pieces = Vec::new();
        loop {
            let end = poll_fn(|context| {
                let end = self.poll(context, &mut pieces);
                if !pieces.is_empty() || end.is_ready() {
                    return Poll::Ready(end);
                }
                // One timer is moved now and then, instead of with every piece.
                while deadline.as_mut().poll(context).is_ready() {
                    if last.elapsed() >= limit {
                        return Poll::Ready(Poll::Ready(Failure::Silent));
                    }
                    deadline.as_mut().reset(last + limit);
                }
                Poll::Pending
            })
            .await;
            last = Instant::now();
            for piece in pieces.drain(..) {
                count(&link.counters.received_bytes, piece.len());
                if let Err(broken) = input.feed(piece, |said| batch.take(said)) {
                    batch.deliver();
                    return Failure::Broken(broken);
                }
            }
            batch.deliver();
            if let Poll::Ready(failure) = end {
                return failure;
            }
        }
    }

    /// Collects all that has arrived; ready when nothing will come after it.
    fn poll(&mut self, context: &mut Context<'_>, pieces: &mut Vec<Bytes>) -> Poll<Failure> {
        loop {
            // How it ends is seen in the body.
            let _: Poll<_> = self.connection.as_mut().poll(context);
            let before = pieces.len();
            while let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
                match frame {
                    Some(Ok(frame)) => pieces.extend(frame.into_data()),
                    Some(Err(error)) => return Poll::Ready(error.into()),
                    None => return Poll::Ready(Failure::Ended),
                }
            }
            if self.connection.is_terminated() {
                return Poll::Ready(Failure::Ended);
            }
            if pieces.len() == before {
                return Poll::Pending;
            }
        }
    }
}

/// Messages on their way to the member.
struct Batch<'a> {
    hub: &'a Hub,
    link: &'a Link,
    messages: Vec<Message>,
    refused: u64,
}

impl Batch<'_> {
    fn take(&mut self, said: Said) {
        let why = match said {
            Said::Heartbeat => return,
            Said::Message(message) if message.to.0 != self.hub.settings.id => {
                "it is for another member".into()
            }
            Said::Message(Message { body: Body::Snapshot(_), .. }) => {
                "a snapshot without its database".into()
            }
            Said::Message(message) => {
                if matches!(message.body, Body::Propose { .. }) {
                    self.link.proposes();
                }
                self.messages.push(message);
                if self.messages.len() >= MOST_AT_ONCE {
                    self.deliver();
                }
                return;
            }
            Said::Refused(refused) => refused.to_string(),
        };
        count(&self.link.counters.received_failures, 1);
        // The first of a stream is news; a peer that does it all the time is not to fill the log.
        if self.refused == 0 {
            tracing::warn!(
                "remote-peer-id" = format!("{:x}", self.link.id),
                error = why,
                "dropped raft message"
            );
        }
        self.refused += 1;
    }

    fn deliver(&mut self) {
        if !self.messages.is_empty() {
            self.hub.events.receive(&mut self.messages);
            self.messages.clear();
        }
    }
}
