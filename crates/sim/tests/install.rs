//! A follower takes in another member's state, and the power fails at every call of it, also while what
//! was interrupted is finished: there is always the old state or the new one, whole, never less than
//! what was acknowledged, and the log goes on behind it.
//!
//! `SIM_SEED` chooses the first seed, `SIM_LIVES` how many follow.
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::raftpb::ConfChange;
use apply::{Machine, Shared, snapshot};
use backend::{Backend, Options, Storage, Target};
use prost::Message as _;
use raft::{Entry, EntryKind, HardState, Index, SnapshotMeta, Term};
use sim::workload::Workload;
use sim::{Disk, Image, Random, Shadow};
use wal::{Disk as _, Wal};

type Outcome<T> = Result<T, Box<dyn Error>>;

const STORE: &str = "/member/store";
const INCOMING: &str = "/member/store.installing";
const BODIES: &str = "/member/snap";
const LOG: &str = "/member/wal";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What there is to know of a state.
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    conf_state: raft::ConfState,
    cluster: apply::Cluster,
    leases: Vec<lease::Stored>,
    hash: mvcc::HashKv,
}

impl Picture {
    fn of(machine: &Machine, shared: &Shared) -> Picture {
        Picture {
            conf_state: machine.conf_state().clone(),
            cluster: (*shared.cluster.get()).clone(),
            leases: shared.lessor.lock().stored(),
            hash: shared.store.hash_kv(0).unwrap(),
        }
    }
}

/// The log as it is everywhere, what each entry leads to, and snapshots of some.
struct Truth {
    log: Vec<Entry>,
    pictures: Vec<Picture>,
    snapshots: Vec<(SnapshotMeta, Vec<u8>)>,
}

fn founder(id: u64) -> Arc<[u8]> {
    let peer_urls = vec![format!("http://m{id}:2380")];
    let member = apply::Member { id, peer_urls, ..apply::Member::default() };
    let context = Some(apply::to_json(&member));
    ConfChange { id: None, r#type: Some(0), node_id: Some(id), context }.encode_to_vec().into()
}

impl Truth {
    fn new(seed: u64, length: u64) -> Truth {
        let disk = Disk::new(&Image::default());
        let backend = open_store(&disk).unwrap();
        let (mut machine, shared) = Machine::open(backend.clone(), apply::Options::default()).unwrap();
        let mut truth =
            Truth { log: Vec::new(), pictures: vec![Picture::of(&machine, &shared)], snapshots: Vec::new() };
        let mut workload = Workload::new(seed);
        for index in 1..=length {
            let (kind, data) = match index {
                1..=3 => (EntryKind::ConfChange, founder(index)),
                // A configuration that changes between two snapshots.
                20 => (EntryKind::ConfChange, founder(4)),
                _ => {
                    let command = workload.command(shared.store.current_revision());
                    (EntryKind::Normal, command.into())
                }
            };
            let entry = Entry { term: Term(1 + index / 16), index: Index(index), kind, data };
            machine.apply(&entry, Duration::ZERO).unwrap();
            machine.seal();
            truth.log.push(entry);
            truth.pictures.push(Picture::of(&machine, &shared));
            if index % 12 == 0 {
                let taken = snapshot::take(&backend).unwrap();
                let body = taken.write_to(Cursor::new(Vec::new())).unwrap().into_inner();
                assert_eq!(taken.meta().index, Index(index));
                assert_eq!(taken.meta().conf_state, *machine.conf_state());
                truth.snapshots.push((taken.meta().clone(), body));
            }
        }
        truth
    }

    /// The entries after `after` up to and including `upto`.
    fn entries(&self, after: u64, upto: u64) -> &[Entry] {
        &self.log[after as usize..(upto as usize).min(self.log.len())]
    }
}

fn open_store(disk: &Disk) -> Result<Backend, backend::Error> {
    let storage = Storage::Custom(Box::new(disk.storage(Path::new(STORE))));
    Backend::open(storage, Options { cache_bytes: 1 << 20, flush_rows: 8, ..Options::default() })
}

/// An empty medium for a new state, and what gives it the store's name.
fn target(disk: &Disk) -> Outcome<Target<'static>> {
    let incoming = Path::new(INCOMING);
    if disk.list(Path::new("/member"))?.iter().any(|name| incoming.ends_with(name)) {
        disk.remove(incoming)?;
    }
    let medium = Box::new(disk.storage(incoming));
    let disk = disk.clone();
    let take_place = Box::new(move || {
        disk.rename(Path::new(INCOMING), Path::new(STORE))?;
        disk.sync_dir(Path::new("/member"))
    });
    Ok(Target::Custom { medium, take_place })
}

struct Member {
    disk: Disk,
    wal: Wal,
    backend: Backend,
    machine: Machine,
    shared: Shared,
}

impl Member {
    /// Starts, finishes what was interrupted, and applies what is in the log.
    fn start(disk: &Disk) -> Outcome<Member> {
        let backend = open_store(disk)?;
        let log_disk: Arc<dyn wal::Disk> = Arc::new(disk.clone());
        let options = wal::Options { segment_bytes: 4096 };
        if !Wal::exists(disk, Path::new(LOG))? {
            drop(Wal::found(log_disk.clone(), Path::new(LOG), b"sim", options.clone(), None, &[])?);
        }
        let applied = Index(backend.consistent().index);
        let (wal, found) = Wal::open_with(log_disk, Path::new(LOG), applied, options)?;
        if let Some(meta) = &found.install {
            let file = disk.open(&body_path(meta.index))?;
            let mut body = vec![0; file.size()? as usize];
            file.read_at(&mut body, 0)?;
            assert!(snapshot::finish(&backend, Cursor::new(body), meta, target(disk)?)?);
        }
        let (machine, shared) = Machine::open(backend.clone(), apply::Options::default())?;
        let mut member = Member { disk: disk.clone(), wal, backend, machine, shared };
        assert_eq!(found.begins_after, member.machine.applied().0, "the log begins where the state ends");
        member.apply(&found.entries)?;
        Ok(member)
    }

    fn applied(&self) -> u64 {
        self.machine.applied().0.0
    }

    fn apply(&mut self, entries: &[Entry]) -> Outcome<()> {
        for run in entries.chunks(3) {
            for entry in run {
                self.machine.apply(entry, Duration::ZERO)?;
            }
            self.machine.seal();
        }
        Ok(())
    }

    /// Writes entries to the log, acknowledges and applies them.
    fn take(&mut self, entries: &[Entry]) -> Outcome<()> {
        let Some(last) = entries.last() else { return Ok(()) };
        let state = HardState { term: last.term, vote: None, commit: last.index };
        self.wal.append(Some(&state), entries)?;
        self.wal.sync()?;
        self.disk.acknowledge(last.index.0);
        self.apply(entries)
    }

    fn flush(&mut self) -> Outcome<()> {
        let flushed = self.backend.flush()?;
        if flushed.index > 0 {
            let conf_state = flushed.conf_state.as_deref().and_then(snapshot::conf_state_of).unwrap();
            let meta = SnapshotMeta { conf_state, index: Index(flushed.index), term: Term(flushed.term) };
            self.wal.append_snapshot(&meta)?;
            self.wal.sync()?;
            self.wal.release_to(Index(flushed.index.saturating_sub(2)))?;
        }
        Ok(())
    }

    /// The four steps, each durable before the next.
    fn install(&mut self, meta: &SnapshotMeta, body: &[u8]) -> Outcome<()> {
        let path = body_path(meta.index);
        self.disk.create_dir(Path::new(BODIES))?;
        if let Ok(stale) = self.disk.open(&path) {
            drop(stale);
            self.disk.remove(&path)?;
        }
        let file = self.disk.create(&path)?;
        file.write_at(body, 0)?;
        file.sync_data()?;
        self.disk.sync_dir(Path::new(BODIES))?;
        snapshot::check(Cursor::new(body), meta)?;
        let state = HardState { term: meta.term, vote: None, commit: meta.index };
        self.wal.append_install(meta, &state)?;
        self.wal.sync()?;
        self.disk.acknowledge(meta.index.0);
        let installed = self.machine.install(Cursor::new(body), meta, target(&self.disk)?)?;
        assert_eq!(installed.revision, self.shared.store.current_revision());
        assert_eq!(self.applied(), meta.index.0);
        self.disk.remove(&path)?;
        self.wal.append_snapshot(meta)?;
        self.wal.sync()?;
        self.wal.release_to(meta.index)?;
        Ok(())
    }

    fn check(&self, truth: &Truth) {
        let at = self.applied();
        let picture = Picture::of(&self.machine, &self.shared);
        assert_eq!(picture, truth.pictures[at as usize], "the state at {at}");
        let now = self.shared.store.current_revision();
        assert_eq!(now, picture.hash.revision);
    }
}

fn body_path(index: Index) -> std::path::PathBuf {
    Path::new(BODIES).join(snapshot::file_name(index))
}

/// A follower's life: some of the log, a snapshot over it, more of the log, another snapshot.
fn live(disk: &Disk, truth: &Truth, random: &mut Random) -> Outcome<Member> {
    let mut member = Member::start(disk)?;
    for (meta, body) in &truth.snapshots {
        let upto = member.applied() + random.below(8);
        for entries in truth.entries(member.applied(), upto.min(meta.index.0 - 1)).chunks(4) {
            member.take(entries)?;
            if random.one_in(2) {
                member.flush()?;
            }
        }
        if random.one_in(3) {
            // A batch that was not sealed when the snapshot came, and rows that were not flushed.
            let next = member.applied();
            if next + 1 < meta.index.0 {
                member.wal.append(None, truth.entries(next, next + 1))?;
                member.machine.apply(&truth.entries(next, next + 1)[0], Duration::ZERO)?;
            }
        }
        member.install(meta, body)?;
        member.check(truth);
    }
    member.take(truth.entries(member.applied(), u64::MAX))?;
    member.flush()?;
    member.check(truth);
    Ok(member)
}

/// A start on what a crash left: nothing acknowledged is lost, and the log goes on.
fn recover(disk: &Disk, acknowledged: u64, truth: &Truth) -> Outcome<Member> {
    let mut member = Member::start(disk)?;
    assert!(member.applied() >= acknowledged, "{} of {acknowledged} entries", member.applied());
    member.check(truth);
    let (meta, body) = &truth.snapshots[truth.snapshots.len() - 1];
    if member.applied() < meta.index.0 {
        member.install(meta, body)?;
    }
    member.take(truth.entries(member.applied(), u64::MAX))?;
    member.flush()?;
    member.check(truth);
    Ok(member)
}

/// W7: the store's new file is synced before it is renamed, and the directory before anything relies on it.
#[test]
fn the_power_fails_at_every_call() {
    let (first, lives) = (number("SIM_SEED", 1), number("SIM_LIVES", 2));
    let (mut images, mut again) = (0, 0);
    for seed in first..first + lives {
        let truth = Truth::new(seed, 40);
        let disk = Disk::new(&Image::default());
        drop(live(&disk, &truth, &mut Random::new(seed)).unwrap());
        let mut shadow = Shadow::new(&Image::default(), &disk);
        let mut random = Random::new(!seed);
        while shadow.advance() {
            for image in shadow.images(8, &mut random) {
                images += 1;
                let second = Disk::new(&image);
                recover(&second, shadow.acknowledged(), &truth)
                    .unwrap_or_else(|error| panic!("seed {seed}, call {}: {error}", shadow.position()));
                if !random.one_in(100) {
                    continue;
                }
                // The power fails again while that is put right.
                let mut twice = Shadow::new(&image, &second);
                while twice.advance() {
                    for image in twice.images(2, &mut random) {
                        again += 1;
                        let told = shadow.acknowledged().max(twice.acknowledged());
                        recover(&Disk::new(&image), told, &truth).unwrap_or_else(|error| {
                            panic!(
                                "seed {seed}, call {}, then {}: {error}",
                                shadow.position(),
                                twice.position()
                            )
                        });
                    }
                }
            }
        }
    }
    println!("{images} crash images, {again} of a second crash");
    assert!(lives < 2 || (images > 2_000 && again > 1_000), "{images} and {again} images are too few");
}

#[test]
fn every_call_fails_once() {
    let seed = number("SIM_SEED", 1);
    let truth = Truth::new(seed, 40);
    let whole = Disk::new(&Image::default());
    drop(live(&whole, &truth, &mut Random::new(seed)).unwrap());
    let calls = whole.calls();
    let mut noticed = 0;
    for call in 1..=calls {
        let disk = Disk::new(&Image::default());
        disk.fail_at(call);
        let failed = live(&disk, &truth, &mut Random::new(seed)).is_err();
        noticed += u64::from(failed);
        let acknowledged = disk.acknowledged();
        // The process ends over it, and another one starts on the same page cache.
        drop(recover(&disk.restart(), acknowledged, &truth).unwrap_or_else(|error| {
            panic!("seed {seed}, call {call}: {error}");
        }));
    }
    // Calls that close a replaced store or look for something stale may fail unseen.
    assert!(noticed > calls * 3 / 4, "{noticed} of {calls} failures were noticed");
}
