//! A copy of the state for an operator: the database that `etcdctl snapshot save` stores.
//!
//! The state is written to a file first, and sent from there. A view of it holds disk space that
//! flushes have freed, and a slow client must not keep that for as long as it likes. The file has no
//! name from its first moment on, so that nobody has to remove it, whatever happens: it is gone with
//! its handle. All of this is done by a thread of its own, which nobody waits for but the client.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use apply::snapshot;
use bolt::digest::Digest;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::background::give_way;
use crate::member::Member;
use crate::snapshots::OUTGOING;

/// Bytes of a piece, as in etcd.
const PIECE: usize = 32 * 1024;
/// Pieces read ahead of the client.
const AHEAD: usize = 32;
/// Backups under way at a time: each takes as much disk as the state.
const MOST: usize = 8;

/// A backup on its way, from its beginning to its end.
pub type Backup = mpsc::Receiver<Result<Piece, BackupError>>;

/// A part of a backup.
#[derive(Debug)]
pub struct Piece {
    /// The next bytes of the database; in the last piece the SHA-256 of all of them.
    pub bytes: Bytes,
    /// How many bytes of the database follow.
    pub remaining: u64,
    /// The version of the layout that the database notes; empty where it notes none.
    pub version: String,
}

/// Why there is no backup, or only a part of one.
#[derive(Debug)]
pub enum BackupError {
    /// Too many are under way.
    TooMany,
    /// The state could not be read, or written to a file.
    Failed(String),
}

/// The backups under way.
#[derive(Debug, Default)]
pub(crate) struct Backups(AtomicUsize);

/// One of them; dropped when it is over.
struct Turn(Arc<Member>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.backups().0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Member {
    /// Begins a backup of the present state. It ends when the receiver is dropped.
    ///
    /// # Errors
    /// [`BackupError::TooMany`], or there is no thread for it.
    pub fn backup(self: &Arc<Self>) -> Result<Backup, BackupError> {
        let under_way = self.backups().0.fetch_add(1, Ordering::Relaxed);
        let turn = Turn(Arc::clone(self));
        if under_way >= MOST {
            return Err(BackupError::TooMany);
        }
        let (send, receive) = mpsc::channel(AHEAD);
        let make = move || {
            let Turn(member) = &turn;
            give_way();
            if let Err(error) = make(member, &send) {
                // Without a client there is nobody to tell, and nothing has gone wrong.
                if !send.is_closed() {
                    tracing::warn!(error, "failed to send database snapshot to client");
                    let _ = send.blocking_send(Err(BackupError::Failed(error)));
                }
            }
        };
        let thread = std::thread::Builder::new().name("backup".to_owned()).spawn(make);
        thread.map_err(|error| BackupError::Failed(error.to_string()))?;
        Ok(receive)
    }
}

type Pieces = mpsc::Sender<Result<Piece, BackupError>>;

fn make(member: &Member, pieces: &Pieces) -> Result<(), String> {
    let words = |error: io::Error| error.to_string();
    let began = Instant::now();
    let file = nameless(member).map_err(words)?;
    let taken = snapshot::take(member.backend()).map_err(|error| error.to_string())?;
    let version = taken.storage_version().map_err(|error| error.to_string())?.unwrap_or_default();
    let sink = BufWriter::new(Wanted { file, pieces });
    let sink = taken.write_to(sink).map_err(|error| error.to_string())?;
    // The disk space that it held is free from here on.
    drop(taken);
    let mut file = sink.into_inner().map_err(|error| error.error().to_string())?.file;
    member.metrics().backend_snapshot.observe(began.elapsed().as_secs_f64());
    let size = file.seek(SeekFrom::End(0)).map_err(words)?;
    file.rewind().map_err(words)?;
    tracing::info!("total-bytes" = size, "storage-version" = version, "sending database snapshot to client");
    let mut digest = Digest::default();
    let mut remaining = size;
    while remaining > 0 {
        let length = PIECE.min(usize::try_from(remaining).unwrap_or(PIECE));
        let mut bytes = BytesMut::zeroed(length);
        file.read_exact(&mut bytes).map_err(words)?;
        digest.update(&bytes);
        remaining -= length as u64;
        let piece = Piece { bytes: bytes.freeze(), remaining, version: version.clone() };
        pieces.blocking_send(Ok(piece)).map_err(|_| GONE)?;
    }
    let bytes = Bytes::copy_from_slice(&digest.finish());
    pieces.blocking_send(Ok(Piece { bytes, remaining: 0, version })).map_err(|_| GONE)?;
    tracing::info!("total-bytes" = size, took = ?began.elapsed(), "successfully sent database snapshot to client");
    Ok(())
}

const GONE: &str = "the client is gone";

/// A new file in the directory of snapshots, whose name is taken away at once. A crash in between
/// leaves a name that the next start knows.
fn nameless(member: &Member) -> io::Result<File> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = member.snapshots().dir().join(format!("backup-{number}{OUTGOING}"));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// A file that is written as long as somebody wants it.
struct Wanted<'a> {
    file: File,
    pieces: &'a Pieces,
}

impl Write for Wanted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pieces.is_closed() {
            return Err(io::Error::other(GONE));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Wanted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
