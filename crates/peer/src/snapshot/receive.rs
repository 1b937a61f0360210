//! The receiver's side: the database goes to a temporary file, and gets its name when it is whole and
//! durable. Until then there is nothing that anybody could take for one (W8, W12).

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use raft::{Body, Message};
use tokio::time::timeout;

use super::Temporary;
use crate::budget::{Budget, Share, TOO_MUCH};
use crate::codec;
use crate::events::{Measured, Receipt};
use crate::hub::Hub;
use crate::identity::{self, DATABASE_CRC};
use crate::link::{Counters, UnderWay, count};

/// What the names of temporary files end with.
const PARTIAL: &str = ".snap.db.part";

/// The longest message before a database, etcd's figure in bytes.
const LONGEST_MESSAGE: u64 = 64 << 20;

/// Bytes written at once.
const PIECE: usize = 1 << 20;

/// Bytes between two syncs: one at the end alone would stall the log's own for long.
const SYNC_EVERY: u64 = 32 << 20;

/// Why a database was not taken, for the answer.
type Refusal = (StatusCode, String);

/// Removes what transfers have left behind that a crash has cut, and makes the directory (W14).
pub(crate) fn remove_partial(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(PARTIAL)) {
            fs::remove_file(&path)?;
            tracing::info!(path = %path.display(), "removed a database that was received in part");
        }
    }
    Ok(())
}

/// Takes a database; says how to answer, which is when the member has looked at it.
pub(crate) async fn receive(hub: &Arc<Hub>, request: Request<Incoming>) -> Result<(), Refusal> {
    let bad = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned());
    let checksum = match identity::text(request.headers(), &DATABASE_CRC) {
        "" => None,
        text => Some(u32::from_str_radix(text, 16).map_err(|_| bad("malformed checksum"))?),
    };
    let mut source =
        Source { body: request.into_body(), rest: Bytes::new(), limit: hub.settings.read_timeout };
    let message = read_message(&mut source, &hub.bodies).await.map_err(|why| bad(&why))?;
    let message = codec::to_raft(message).map_err(|refused| bad(&refused.to_string()))?;
    let Body::Snapshot(snapshot) = &message.body else { return Err(bad("wrong raft message type")) };
    check_parties(hub, &message)?;
    let (from, index) = (message.from.0, snapshot.meta.index.0);
    let link = hub.link(from);
    let unknown = Counters::default();
    let counters = link.as_ref().map_or(&unknown, |link| &link.counters);
    let _under_way = UnderWay::new(&counters.snapshots_receiving);
    let start = Instant::now();
    let id = format!("{from:x}");
    tracing::info!("remote-peer-id" = id, "incoming-snapshot-index" = index, "receiving database snapshot");
    match save(&hub.settings.snapshot_dir, index, checksum, &mut source).await {
        Ok(Saved { file, bytes, syncing }) => {
            count(&counters.received_bytes, bytes as usize);
            count(&counters.snapshots_received, 1);
            let took = start.elapsed();
            tracing::info!("remote-peer-id" = id, bytes, ?took, "received and saved database snapshot");
            hub.events.measured(from, Measured::SnapshotReceived { took, syncing });
            let (receipt, answer) = Receipt::new();
            hub.events.receive_snapshot(message, file, receipt);
            match answer.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(why)) => Err((StatusCode::INTERNAL_SERVER_ERROR, why)),
                Err(_) => Err((StatusCode::INTERNAL_SERVER_ERROR, "it was not taken".to_owned())),
            }
        }
        Err(error) => {
            count(&counters.snapshot_receive_failures, 1);
            tracing::warn!("remote-peer-id" = id, %error, "failed to save incoming database snapshot");
            Err((StatusCode::INTERNAL_SERVER_ERROR, format!("failed to save KV snapshot ({error})")))
        }
    }
}

/// Whether the message is for us and from someone who may send it.
pub(crate) fn check_parties(hub: &Hub, message: &Message) -> Result<(), Refusal> {
    let forbidden = |why: &str| Err((StatusCode::FORBIDDEN, why.to_owned()));
    if hub.events.is_removed(message.from.0) {
        return forbidden("cannot process message from removed member");
    }
    if message.to.0 != hub.settings.id {
        return forbidden("cannot process message to mismatch member");
    }
    Ok(())
}

async fn read_message<B: HttpBody<Data = Bytes> + Unpin>(
    source: &mut Source<B>,
    budget: &Budget,
) -> Result<api::raftpb::Message, String>
where
    B::Error: Error + Send + Sync + 'static,
{
    let mut share = budget.share();
    let length = source.exactly(8, &mut share).await.map_err(|error| error.to_string())?.get_u64();
    if length > LONGEST_MESSAGE {
        return Err("failed to decode raft message (error limit exceeded)".to_owned());
    }
    let bytes = source.exactly(length as usize, &mut share).await.map_err(|error| error.to_string())?;
    codec::decode(bytes).map_err(|refused| format!("failed to decode raft message ({refused})"))
}

/// What [`receive`] makes of a body before it writes anything: the message, if it is a snapshot's.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn head<B: HttpBody<Data = Bytes> + Unpin>(
    body: B,
    limit: Duration,
) -> Result<Message, String>
where
    B::Error: Error + Send + Sync + 'static,
{
    let mut source = Source { body, rest: Bytes::new(), limit };
    let message = read_message(&mut source, &Budget::default()).await?;
    let message = codec::to_raft(message).map_err(|refused| refused.to_string())?;
    match message.body {
        Body::Snapshot(_) => Ok(message),
        _ => Err("wrong raft message type".to_owned()),
    }
}

/// What has been saved.
struct Saved {
    file: PathBuf,
    bytes: u64,
    /// How much of the time went into syncs.
    syncing: Duration,
}

/// Writes what is left of the body to a file of the name that the index calls for. The file exists
/// under that name only if all of it is there, on the disk.
async fn save(
    directory: &Path,
    index: u64,
    checksum: Option<u32>,
    source: &mut Source<Incoming>,
) -> io::Result<Saved> {
    static TRANSFERS: AtomicU64 = AtomicU64::new(0);
    let number = TRANSFERS.fetch_add(1, Ordering::Relaxed);
    let temporary = Temporary::new(directory.join(format!("{index:016x}.{number}{PARTIAL}")));
    let path = temporary.path().to_owned();
    let create = move || fs::File::options().write(true).create_new(true).open(path);
    let mut file = blocking(create).await?;
    let (mut bytes, mut unsynced, mut seen) = (0u64, 0u64, 0);
    let mut syncing = Duration::ZERO;
    while let Some(piece) = source.piece().await? {
        seen = crc32c::crc32c_append(seen, &piece);
        bytes += piece.len() as u64;
        unsynced += piece.len() as u64;
        let sync = unsynced >= SYNC_EVERY;
        if sync {
            unsynced = 0;
        }
        let took;
        (file, took) = blocking(move || {
            file.write_all(&piece)?;
            let began = Instant::now();
            if sync {
                file.sync_data()?;
            }
            Ok((file, began.elapsed()))
        })
        .await?;
        syncing += took;
    }
    if checksum.is_some_and(|checksum| checksum != seen) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of what came is wrong"));
    }
    let last = directory.join(format!("{index:016x}.snap.db"));
    let (directory, from, to) = (directory.to_owned(), temporary.path().to_owned(), last.clone());
    syncing += blocking(move || {
        let began = Instant::now();
        file.sync_all()?;
        let took = began.elapsed();
        // One of this name is the same state, sent by another leader perhaps, and may be about to be taken in.
        if !fs::exists(&to)? {
            fs::rename(from, to)?;
        }
        fs::File::open(directory)?.sync_all()?;
        Ok(took)
    })
    .await?;
    Ok(Saved { file: last, bytes, syncing })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A body, read as it comes.
struct Source<B> {
    body: B,
    /// Came, and was not asked for yet.
    rest: Bytes,
    /// How long it may be silent.
    limit: Duration,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Source<B>
where
    B::Error: Error + Send + Sync + 'static,
{
    /// What comes next; `None` at the end, which only a body that is whole has.
    async fn frame(&mut self) -> io::Result<Option<Bytes>> {
        if self.rest.has_remaining() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        loop {
            let frame = timeout(self.limit, self.body.frame()).await;
            match frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.has_remaining() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }

    /// Memory is taken as bytes come, not as they are asked for.
    async fn exactly(&mut self, length: usize, share: &mut Share<'_>) -> io::Result<Bytes> {
        let mut all = BytesMut::new();
        while all.len() < length {
            let Some(mut frame) = self.frame().await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let taken = frame.split_to(frame.len().min(length - all.len()));
            if !share.take(taken.len()) {
                return Err(io::Error::other(TOO_MUCH));
            }
            all.extend_from_slice(&taken);
            self.rest = frame;
        }
        Ok(all.freeze())
    }

    /// Much at once, so that the file is written in few steps.
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut all = BytesMut::new();
        while all.len() < PIECE
            && let Some(frame) = self.frame().await?
        {
            all.extend_from_slice(&frame);
        }
        Ok((!all.is_empty()).then(|| all.freeze()))
    }
}
