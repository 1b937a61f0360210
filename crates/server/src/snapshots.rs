//! States on their way to other members and from them.
//!
//! A state that is to be sent is written to a file first, on a thread of its own: taking it is quick,
//! but writing it is not, and a slow receiver must not hold on to it. Raft hears of it once it is
//! whole; what raft then sends is a message, and the file goes with it.
//!
//! A state that arrives is on disk and synced when this member hears of it. It is read through and
//! checked before raft may know of it, because from then on there is no way back: raft's log begins
//! behind it. Its record in the WAL comes next, and then the machine takes it in (W8).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apply::snapshot;
use backend::AtEase;
use node::Input;
use parking_lot::Mutex;
use peer::Receipt;
use raft::{Body, Index, Message, NodeId, Snapshot};

use crate::member::Member;
use crate::outgoing::{Outgoing, Wish};

/// What the names of files to be sent end with.
pub(crate) const OUTGOING: &str = ".out.db";

/// How often to look whether raft has been told what is applied.
const LOOK: Duration = Duration::from_millis(1);

/// The files between the machine, raft and the peers.
pub(crate) struct Snapshots {
    dir: PathBuf,
    outgoing: Mutex<Outgoing>,
    /// Those that have arrived and that raft has been told of. It need not take them.
    accepted: Mutex<BTreeSet<Index>>,
    /// Tells files of one start apart.
    count: AtomicUsize,
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
    let name = snapshot::members_file_name(index);
    let temporary = dir.join(format!("tmp.{name}"));
    let mut file = File::create(&temporary)?;
    file.write_all(members)?;
    file.sync_all()?;
    fs::rename(temporary, dir.join(name))?;
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
        Self { dir, outgoing: Mutex::default(), accepted: Mutex::default(), count: AtomicUsize::new(0) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sees to one for a member that the log cannot bring up to date. Returns at once; raft is told.
    pub(crate) fn make(&self, member: &Arc<Member>, to: NodeId) {
        let refuse = |to| member.inbox().of_peer(Input::SnapshotSent { to, arrived: false });
        let wish = self.outgoing.lock().want(to);
        match wish {
            Wish::Noted => {}
            Wish::Refused => {
                tracing::warn!("to" = format!("{:x}", to.0), "too many snapshots are being sent already");
                refuse(to);
            }
            Wish::Begin => {
                let maker = Arc::clone(member);
                let make = move || maker.snapshots().make_all(&maker);
                if let Err(error) = std::thread::Builder::new().name("snapshot".to_owned()).spawn(make) {
                    tracing::error!(%error, "no thread to make a snapshot");
                    while let Some(to) = self.next() {
                        self.change(|outgoing| outgoing.over(to));
                        refuse(to);
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<NodeId> {
        self.outgoing.lock().next()
    }

    /// Changes what is under way, and removes what nobody needs after that.
    fn change<T>(&self, change: impl FnOnce(&mut Outgoing) -> T) -> T {
        let mut outgoing = self.outgoing.lock();
        let result = change(&mut outgoing);
        let dropped = outgoing.take_dropped();
        drop(outgoing);
        for path in dropped {
            let _ = fs::remove_file(path);
        }
        result
    }

    /// Lets go of what nobody has sent for, and of what has arrived and is not wanted any more: the machine
    /// is past it, by having taken it in or by the log.
    pub(crate) fn tidy(&self, applied: Index) {
        self.change(|outgoing| outgoing.tidy(Instant::now()));
        let mut accepted = self.accepted.lock();
        let later = accepted.split_off(&applied.next());
        let past = std::mem::replace(&mut *accepted, later);
        drop(accepted);
        for index in past {
            remove_incoming(&self.dir, index);
        }
    }

    /// One after the other, as long as somebody waits for one.
    fn make_all(&self, member: &Arc<Member>) {
        while let Some(to) = self.next() {
            let receiver = format!("{:x}", to.0);
            let news = match self.body_for(member, to) {
                Ok((snapshot, path)) => {
                    let index = snapshot.meta.index;
                    tracing::info!("to" = receiver, "snapshot-index" = index.0, "made a snapshot");
                    self.change(|outgoing| outgoing.made(to, index, &path, Instant::now()));
                    Input::Snapshot { to, snapshot }
                }
                Err(error) => {
                    tracing::error!("to" = receiver, error, "failed to make a snapshot");
                    self.change(|outgoing| outgoing.over(to));
                    Input::SnapshotSent { to, arrived: false }
                }
            };
            member.inbox().of_peer(news);
            member.drive();
        }
    }

    /// A state for `to`, and a file of its own with the body: a new name for the one made last, where
    /// that will do.
    fn body_for(&self, member: &Member, to: NodeId) -> Result<(Snapshot, PathBuf), String> {
        let path = self.outgoing_path(&format!("{:x}", to.0));
        // Half of the entries that the WAL keeps: while it is on its way, it grows older.
        let reach = member.config().catchup_entries / 2;
        let last = self.outgoing.lock().reusable(to, Index(member.raft().applied()), reach);
        if let Some((snapshot, last)) = last
            && fs::hard_link(last, &path).is_ok()
        {
            return Ok((snapshot, path));
        }
        let shared = self.outgoing_path("shared");
        let snapshot = write(member, &shared).inspect_err(|_| _ = fs::remove_file(&shared))?;
        // Without links it is for this member alone.
        if fs::hard_link(&shared, &path).is_err() {
            return Ok((snapshot, shared));
        }
        self.change(|outgoing| outgoing.set_last(snapshot.clone(), shared));
        Ok((snapshot, path))
    }

    fn outgoing_path(&self, whose: &str) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{whose}-{number}{OUTGOING}"))
    }

    /// Sends what raft says with the body that belongs to it.
    pub(crate) fn send(&self, member: &Member, message: Message) {
        let to = message.to;
        let Body::Snapshot(Snapshot { meta, .. }) = &message.body else { return };
        match self.change(|outgoing| outgoing.send(to, meta.index)) {
            Some(path) => member.peers().send_snapshot(message, path),
            None => member.inbox().of_peer(Input::SnapshotSent { to, arrived: false }),
        }
    }

    /// What became of one that was sent. Raft is told in any case: it may wait for another one already, which
    /// is made only when it asks again.
    pub(crate) fn sent(&self, member: &Arc<Member>, to: NodeId, arrived: bool) {
        self.change(|outgoing| outgoing.over(to));
        member.inbox().of_peer(Input::SnapshotSent { to, arrived });
        member.drive();
    }

    /// Looks through one that has arrived, lets raft know of it, and then its sender. Returns at once.
    pub(crate) fn receive(&self, member: &Arc<Member>, message: Message, file: PathBuf, receipt: Receipt) {
        let receiver = Arc::clone(member);
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let Body::Snapshot(snapshot) = &message.body else { return };
            let index = snapshot.meta.index;
            // Overtaken by the log on its way: raft will answer, and not install it.
            let is_late = index.0 <= receiver.raft().applied();
            // Sent by two leaders: it is about to be taken in.
            let is_known = receiver.snapshots().accepted.lock().contains(&index);
            if is_late {
                let _ = fs::remove_file(&file);
            } else if is_known {
                // Raft will answer the second message too.
            } else if let Err(error) = accept(receiver.snapshots().dir(), &file, snapshot) {
                tracing::error!("snapshot-index" = index.0, error, "refused a snapshot");
                let _ = fs::remove_file(&file);
                return receipt.refused(error);
            } else {
                receiver.snapshots().accepted.lock().insert(index);
            }
            if receiver.inbox().receive(&mut vec![message]) > 0 {
                return receipt.refused("too many messages wait");
            }
            receiver.drive();
            receipt.taken();
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to check a snapshot");
        }
    }
}

/// Looks through a body that has arrived, and keeps what came beside it.
fn accept(dir: &Path, file: &Path, snapshot: &Snapshot) -> Result<(), String> {
    let body = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    snapshot::check(BufReader::new(body), snapshot).map_err(|error| error.to_string())?;
    keep_members(dir, snapshot.meta.index, &snapshot.data).map_err(|error| error.to_string())
}

/// Writes the present state to `path`. The disk need not have it for good: a crash begins anew.
fn write(member: &Member, path: &Path) -> Result<Snapshot, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let began = Instant::now();
    let backend = member.backend();
    backend.read_ahead().map_err(|error| words(&error))?;
    let taken = snapshot::take(backend).map_err(|error| words(&error))?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = file.map_err(|error| words(&error))?;
    let writer = taken.write_to(BufWriter::new(AtEase::new(file))).map_err(|error| words(&error))?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_the_log_has_overtaken_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(dir.path().to_owned());
        let paths = [7, 8, 9].map(|index| incoming_path(dir.path(), Index(index)));
        for (path, index) in paths.iter().zip(7..) {
            fs::write(path, b"body").unwrap();
            snapshots.accepted.lock().insert(Index(index));
        }
        let left = || paths.each_ref().map(|path| path.exists());
        snapshots.tidy(Index(6));
        assert_eq!(left(), [true, true, true]);
        snapshots.tidy(Index(8));
        assert_eq!(left(), [false, false, true], "the last one is still to be taken in");
        snapshots.tidy(Index(9));
        assert_eq!(left(), [false, false, false]);
    }
}
