//! The sender's side.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use raft::Message;
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::timeout;

use super::Temporary;
use crate::client::{self, beside};
use crate::connect::{Address, connect};
use crate::events::Measured;
use crate::framing::put_framed;
use crate::hub::Hub;
use crate::identity::{self, DATABASE_CRC};
use crate::link::{Link, UnderWay, count};
use crate::verdict::{Verdict, verdict};

/// Bytes read from the file at once.
const PIECE: usize = 256 << 10;

/// How long the receiver may take to make a database durable and to look through it, once it has all of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a database and tells the member how that went; the file is removed in any case.
pub(crate) fn send(hub: Arc<Hub>, message: Message, file: PathBuf) -> impl Future<Output = ()> {
    // Also if it is never begun.
    let file = Temporary::new(file);
    deliver(hub, message, file)
}

async fn deliver(hub: Arc<Hub>, message: Message, file: Temporary) {
    let to = message.to.0;
    let sent = match hub.link(to) {
        Some(link) => attempt(&hub, &link, &message, file.path()).await,
        None => Err("it is not a known peer".to_owned()),
    };
    if let Err(error) = &sent {
        tracing::warn!("remote-peer-id" = format!("{to:x}"), error, "failed to send database snapshot");
        hub.events.unreachable(to);
    }
    drop(file);
    hub.events.snapshot_sent(to, sent.is_ok());
}

async fn attempt(hub: &Hub, link: &Link, message: &Message, file: &Path) -> Result<(), String> {
    let counters = &link.counters;
    let _under_way = UnderWay::new(&counters.snapshots_sending);
    let start = Instant::now();
    let address = link.address().ok_or("no address")?;
    match post(hub, &address, message, file).await {
        Ok((Verdict::Taken, bytes)) => {
            count(&counters.snapshots_sent, 1);
            count(&counters.sent_bytes, bytes as usize);
            hub.events.measured(link.id, Measured::SnapshotSent(start.elapsed()));
            let id = format!("{:x}", link.id);
            tracing::info!("remote-peer-id" = id, bytes, took = ?start.elapsed(), "sent database snapshot");
            Ok(())
        }
        Ok((Verdict::RemovedHere, _)) => {
            count(&counters.snapshot_send_failures, 1);
            hub.events.removed_here();
            Err("this member has been removed from the cluster".to_owned())
        }
        Ok((Verdict::Declined(why), _)) | Err(why) => {
            count(&counters.snapshot_send_failures, 1);
            link.failed_at(&address);
            Err(why)
        }
    }
}

/// The peer's word, and how many bytes it has got.
async fn post(
    hub: &Hub,
    address: &Address,
    message: &Message,
    file: &Path,
) -> Result<(Verdict, u64), String> {
    const LONGEST: usize = 64 << 10;
    let settings = &hub.settings;
    let (length, checksum) = survey(file.to_owned()).await.map_err(|error| error.to_string())?;
    let mut head = BytesMut::new();
    put_framed(&mut head, message);
    let bytes = head.len() as u64 + length;
    let file = File::open(file).await.map_err(|error| error.to_string())?;
    let body = Database { head: Some(head.freeze()), file, left: length };
    let mut headers = identity::introduction(settings);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(DATABASE_CRC, identity::hex_value(u64::from(checksum)));
    let request = client::request(Method::POST, address, "/raft/snapshot", headers, body);
    let request = request.map_err(|error| error.to_string())?;
    let connection = connect(address, settings).await;
    let connection = connection.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(connection).await.map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = Limited::new(response.into_body(), LONGEST).collect().await;
        let text = text.map_err(|error| error.to_string())?.to_bytes();
        Ok((verdict(status, &text), bytes))
    };
    // A peer that takes nothing is given up by the connection itself; a large database may take long.
    let limit = PATIENCE + Duration::from_secs(length >> 20);
    timeout(limit, beside(connection, answer)).await.unwrap_or_else(|_| Err("timed out".to_owned()))
}

/// Length and checksum of a file.
async fn survey(path: PathBuf) -> io::Result<(u64, u32)> {
    let read = move || {
        let mut file = std::fs::File::open(path)?;
        let (mut length, mut checksum) = (0, 0);
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok((length, checksum)),
                read => {
                    length += read as u64;
                    checksum = crc32c::crc32c_append(checksum, &piece[..read]);
                }
            }
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// The message, then the file.
struct Database {
    head: Option<Bytes>,
    file: File,
    left: u64,
}

impl Body for Database {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(self.left).unwrap_or(PIECE))];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.file).poll_read(context, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            // It has become shorter: the connection is cut, so that the receiver does not take it.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        piece.truncate(read);
        self.left -= read as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_none() && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left + self.head.as_ref().map_or(0, |head| head.len() as u64))
    }
}
