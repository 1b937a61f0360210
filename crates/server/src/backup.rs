//! A copy of the state for an operator: the database that `etcdctl snapshot save` stores.
//!
//! It goes from the store to the client, and to no file: a file as large as the state would compete with
//! the log for the disk. The beginning of a database says where its end lies, so a view of the state is
//! read twice, first to find that out. The view holds disk space that flushes have freed meanwhile, so a
//! client that has stopped reading is not waited for for ever. All of this is done by a thread of its own,
//! which nobody waits for but the client.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apply::snapshot;
use bolt::digest::Digest;
use bytes::{Bytes, BytesMut};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::background::give_way;
use crate::member::Member;

/// Bytes of a piece, as in etcd.
const PIECE: usize = 32 * 1024;
/// Pieces read ahead of the client.
const AHEAD: usize = 32;
/// Backups under way at a time.
const MOST: usize = 8;
/// How long a client may take for a piece.
const PATIENCE: Duration = Duration::from_secs(300);

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
    /// The state could not be read, or the client does not.
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
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let began = Instant::now();
    let backend = member.backend();
    backend.read_ahead().map_err(|error| words(&error))?;
    let taken = snapshot::take(backend).map_err(|error| words(&error))?;
    let version = taken.storage_version().map_err(|error| words(&error))?.unwrap_or_default();
    let layout = taken.measure().map_err(|error| words(&error))?;
    let size = layout.size();
    tracing::info!("total-bytes" = size, "storage-version" = version, "sending database snapshot to client");
    let sender = Sender::new(pieces, size, version).map_err(|error| words(&error))?;
    let mut sender = taken.stream(&layout, sender).map_err(|error| words(&error))?;
    // The disk space that it held is free from here on.
    drop(taken);
    sender.send_digest().map_err(|error| words(&error))?;
    member.metrics().backend_snapshot.observe(began.elapsed().as_secs_f64());
    tracing::info!("total-bytes" = size, took = ?began.elapsed(), "successfully sent database snapshot to client");
    Ok(())
}

/// Cuts what is written to it into pieces, and waits until the client takes them.
struct Sender<'a> {
    pieces: &'a Pieces,
    /// Bytes of the database that have not been sent.
    remaining: u64,
    version: String,
    digest: Digest,
    piece: BytesMut,
    /// Has the clock that waiting needs.
    runtime: Runtime,
}

impl Sender<'_> {
    fn new(pieces: &Pieces, size: u64, version: String) -> io::Result<Sender<'_>> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (digest, piece) = Default::default();
        Ok(Sender { pieces, remaining: size, version, digest, piece, runtime })
    }

    fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        let piece = Piece { bytes, remaining: self.remaining, version: self.version.clone() };
        self.runtime.block_on(self.pieces.send_timeout(Ok(piece), PATIENCE)).map_err(|error| {
            io::Error::other(match error {
                mpsc::error::SendTimeoutError::Closed(_) => "the client is gone",
                mpsc::error::SendTimeoutError::Timeout(_) => "the client has stopped reading",
            })
        })
    }

    fn send_piece(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.digest.update(&piece);
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        self.send(piece)
    }

    /// Ends it: with what is left, and the digest of all.
    fn send_digest(&mut self) -> io::Result<()> {
        self.flush()?;
        let digest = std::mem::take(&mut self.digest).finish();
        self.send(Bytes::copy_from_slice(&digest))
    }
}

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send_piece()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send_piece() }
    }
}
