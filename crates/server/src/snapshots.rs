//! States on their way to other members and from them.
//!
//! A state that is to be sent is written to a file first, on a thread of its own: taking it is quick,
//! but writing it is not, and a slow receiver must not hold on to it. Raft hears of it once it is
//! whole; what raft then sends is a message, and the file goes with it.
//!
//! A state that arrives is on disk and synced when this member hears of it. It is read through and
//! checked before raft may know of it, because from then on there is no way back: raft's log begins
//! behind it. Its record in the WAL comes next, and then the machine takes it in (W8).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apply::snapshot;
use node::OfPeer;
use parking_lot::Mutex;
use raft::{Body, Index, Message, NodeId, Snapshot};

use crate::member::Member;

/// States that may lie in files to be sent at once, each as large as the store. Who has to wait for
/// one asks again.
const MAX_OUTGOING: usize = 4;

/// How long one that was made may wait for raft, which takes it at once if it still wants it.
const WANTED: Duration = Duration::from_secs(10);

/// What the names of files to be sent end with.
const OUTGOING: &str = ".out.db";

/// How often to look whether raft has been told what is applied.
const LOOK: Duration = Duration::from_millis(1);

/// The files between the machine, raft and the peers.
pub(crate) struct Snapshots {
    dir: PathBuf,
    /// Made, and not yet sent for by raft.
    made: Mutex<BTreeMap<u64, Made>>,
    /// Being made, waiting or being sent.
    outgoing: AtomicUsize,
    /// Tells files of one start apart.
    count: AtomicUsize,
}

/// One that waits for raft.
struct Made {
    index: Index,
    path: PathBuf,
    since: Instant,
}

/// The directory in which snapshots lie.
pub(crate) fn directory(member_dir: &Path) -> PathBuf {
    member_dir.join("snap")
}

/// Where the body of the snapshot at `index` lies.
pub(crate) fn incoming_path(dir: &Path, index: Index) -> PathBuf {
    dir.join(snapshot::file_name(index))
}

/// What came beside that body: empty if nothing did.
pub(crate) fn incoming_members(dir: &Path, index: Index) -> io::Result<Vec<u8>> {
    match fs::read(dir.join(snapshot::members_file_name(index))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Keeps what came beside a body, for an install that a crash interrupts. The body is durable already.
fn keep_members(dir: &Path, index: Index, members: &[u8]) -> io::Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let mut file = File::create(dir.join(snapshot::members_file_name(index)))?;
    file.write_all(members)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Removes a body that has been installed, or is of no use, and what came beside it.
pub(crate) fn remove_incoming(dir: &Path, index: Index) {
    let _ = fs::remove_file(incoming_path(dir, index));
    let _ = fs::remove_file(dir.join(snapshot::members_file_name(index)));
}

/// Removes what an earlier run left behind: files to be sent, and bodies that nobody refers to.
pub(crate) fn clean(dir: &Path, needed: Option<Index>) -> io::Result<()> {
    let keep = needed.map(snapshot::file_name);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let endings = [OUTGOING, ".snap.db", ".snap.members"];
        let ours = endings.iter().any(|ending| name.ends_with(ending)) || name.starts_with("tmp");
        if ours && Some(name.as_ref()) != keep.as_deref() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Snapshots {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, made: Mutex::default(), outgoing: AtomicUsize::new(0), count: AtomicUsize::new(0) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes one for a member that the log cannot bring up to date. Returns at once; raft is told.
    pub(crate) fn make(&self, member: &Arc<Member>, to: NodeId) {
        let refuse = |member: &Member| member.inbox().of_peer(OfPeer::SnapshotSent { to, arrived: false });
        self.forget_old();
        if self.outgoing.fetch_add(1, Ordering::AcqRel) >= MAX_OUTGOING {
            self.outgoing.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!("to" = format!("{:x}", to.0), "too many snapshots are being sent already");
            return refuse(member);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{:x}-{number}{OUTGOING}", to.0));
        let maker = Arc::clone(member);
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let made = write(&maker, &path);
            let news = match made {
                Ok(snapshot) => {
                    tracing::info!(
                        "to" = format!("{:x}", to.0),
                        "snapshot-index" = snapshot.meta.index.0,
                        "made a snapshot"
                    );
                    maker.snapshots().keep(to, snapshot.meta.index, path);
                    OfPeer::Snapshot { to, snapshot }
                }
                Err(error) => {
                    tracing::error!("to" = format!("{:x}", to.0), error, "failed to make a snapshot");
                    maker.snapshots().discard(&path);
                    OfPeer::SnapshotSent { to, arrived: false }
                }
            };
            maker.inbox().of_peer(news);
            maker.drive();
        });
        if spawned.is_err() {
            self.outgoing.fetch_sub(1, Ordering::AcqRel);
            refuse(member);
        }
    }

    fn keep(&self, to: NodeId, index: Index, path: PathBuf) {
        // One that raft has not asked for after all is in the way of nothing but its successor.
        let made = Made { index, path, since: Instant::now() };
        if let Some(old) = self.made.lock().insert(to.0, made) {
            self.discard(&old.path);
        }
    }

    /// Those that raft wanted once and has not sent: the log has brought their receivers up to date, or
    /// another member leads.
    fn forget_old(&self) {
        self.made.lock().retain(|_, made| {
            let wanted = made.since.elapsed() < WANTED;
            if !wanted {
                self.discard(&made.path);
            }
            wanted
        });
    }

    fn discard(&self, path: &Path) {
        let _ = fs::remove_file(path);
        self.outgoing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Sends what raft says with the body that belongs to it.
    pub(crate) fn send(&self, member: &Member, message: Message) {
        let to = message.to;
        let Body::Snapshot(Snapshot { meta, .. }) = &message.body else { return };
        let body = self.made.lock().remove(&to.0);
        match body {
            Some(made) if made.index == meta.index => member.peers().send_snapshot(message, made.path),
            other => {
                if let Some(made) = other {
                    self.discard(&made.path);
                }
                member.inbox().of_peer(OfPeer::SnapshotSent { to, arrived: false });
            }
        }
    }

    /// What became of one that was sent.
    pub(crate) fn sent(&self, member: &Arc<Member>, to: NodeId, arrived: bool) {
        self.outgoing.fetch_sub(1, Ordering::AcqRel);
        member.inbox().of_peer(OfPeer::SnapshotSent { to, arrived });
        member.drive();
    }

    /// Looks through one that has arrived, and lets raft know of it. Returns at once.
    pub(crate) fn receive(&self, member: &Arc<Member>, message: Message, file: PathBuf) {
        let receiver = Arc::clone(member);
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let Body::Snapshot(snapshot) = &message.body else { return };
            let index = snapshot.meta.index;
            if index.0 <= receiver.raft().applied() {
                // Overtaken by the log on its way: raft will answer, and not install it.
                let _ = fs::remove_file(&file);
                receiver.inbox().receive(&mut vec![message]);
                return receiver.drive();
            }
            let body = match File::open(&file) {
                Ok(body) => body,
                Err(error) => {
                    tracing::warn!(path = %file.display(), %error, "a snapshot that has arrived is not there");
                    return;
                }
            };
            if let Err(error) = snapshot::check(BufReader::new(body), snapshot) {
                tracing::error!("snapshot-index" = index.0, %error, "refused a damaged snapshot");
                let _ = fs::remove_file(&file);
                return;
            }
            if let Err(error) = keep_members(receiver.snapshots().dir(), index, &snapshot.data) {
                tracing::error!("snapshot-index" = index.0, %error, "cannot keep a snapshot that has arrived");
                let _ = fs::remove_file(&file);
                return;
            }
            receiver.inbox().receive(&mut vec![message]);
            receiver.drive();
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to check a snapshot");
        }
    }
}

/// Writes the present state to `path`. The disk need not have it for good: a crash begins anew.
fn write(member: &Member, path: &Path) -> Result<Snapshot, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let began = Instant::now();
    let taken = snapshot::take(member.backend()).map_err(|error| words(&error))?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = file.map_err(|error| words(&error))?;
    let writer = taken.write_to(BufWriter::new(file)).map_err(|error| words(&error))?;
    writer.into_inner().map_err(|error| words(error.error()))?;
    member.metrics().backend_snapshot.observe(began.elapsed().as_secs_f64());
    let members = taken.members().map_err(|error| words(&error))?;
    let meta = taken.meta().clone();
    // The state may be one that raft has not been told of yet, by a moment.
    while member.inbox().applied_index() < meta.index {
        if *member.is_stopping().borrow() {
            return Err("the member stops".to_owned());
        }
        std::thread::sleep(LOOK);
    }
    Ok(Snapshot { meta, data: members.into() })
}
