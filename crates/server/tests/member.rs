//! A whole member on a temporary directory, asked from its own runtime threads, as the services do.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::etcdserverpb::{LeaseGrantRequest, PutRequest};
use mvcc::{KeyRange, RangeQuery};
use server::{Config, Error, Member, Server, StartError};
use tokio::sync::mpsc::unbounded_channel;

const SHARDS: usize = 3;

fn config(directory: &Path) -> Config {
    Config {
        compaction_sleep: Duration::from_millis(1),
        shards: SHARDS,
        ..Config::new(directory.join("data"))
    }
}

/// Starts a member, runs `work` on each of its runtime threads, and stops it when all are done.
fn run<F>(config: Config, work: impl Fn(Arc<Member>, usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()>,
{
    let (failures, mut failed) = unbounded_channel();
    let mut server = Server::start(config, failures).unwrap();
    let member = Arc::clone(server.member());
    let (done, finished) = std::sync::mpsc::channel();
    server
        .serve(move |shard| {
            let (work, done) = (work(Arc::clone(&member), shard), done.clone());
            let member = Arc::clone(&member);
            async move {
                // As clients are let in.
                member.ready().await;
                work.await;
                done.send(shard).unwrap();
            }
        })
        .unwrap();
    for _ in 0..SHARDS {
        // A thread that fails drops its end without a word, and says why on the other channel.
        if finished.recv().is_err() {
            break;
        }
    }
    server.stop();
    if let Ok(failure) = failed.try_recv() {
        panic!("{failure}");
    }
}

async fn put(member: &Member, key: &str, value: String) -> Result<i64, Error> {
    let request = PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() };
    member.propose(request).await.map(|outcome| outcome.unwrap().revision)
}

fn get(member: &Member, key: &str) -> Option<u64> {
    let result = member.store().range(&RangeQuery::new(KeyRange::Key(key.to_owned().into()))).unwrap();
    let value = result.records.first()?.decode().value;
    Some(std::str::from_utf8(&value).unwrap().parse().unwrap())
}

/// What was acknowledged on any thread before a read began is seen by it, on every thread.
#[test]
fn a_linearizable_read_sees_all_that_was_acknowledged_before_it() {
    const TASKS: usize = 4;
    const ROUNDS: u64 = 60;
    let directory = tempfile::tempdir().unwrap();
    let acknowledged: Arc<Vec<AtomicU64>> =
        Arc::new((0..SHARDS * TASKS).map(|_| AtomicU64::new(0)).collect());
    run(config(directory.path()), move |member, shard| {
        let acknowledged = Arc::clone(&acknowledged);
        async move {
            let tasks = (0..TASKS).map(|task| {
                let (member, acknowledged) = (Arc::clone(&member), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    let own = shard * TASKS + task;
                    for round in 1..=ROUNDS {
                        while put(&member, &format!("k{own}"), round.to_string()).await.is_err() {
                            // Nobody leads yet: nothing entered the log.
                            tokio::task::yield_now().await;
                        }
                        acknowledged[own].store(round, Ordering::SeqCst);
                        let before: Vec<u64> =
                            acknowledged.iter().map(|at| at.load(Ordering::SeqCst)).collect();
                        member.linearize().await.unwrap();
                        for (other, least) in before.into_iter().enumerate() {
                            let found = get(&member, &format!("k{other}")).unwrap_or(0);
                            assert!(found >= least, "k{other} is {found}, after {least} was acknowledged");
                        }
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        }
    });
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// The first to be served after a kill finds everything that was acknowledged before it, even who
/// asks for nothing but this member's present state: no read goes back.
#[test]
fn a_restart_serves_nothing_older_than_what_was_acknowledged() {
    const PUTS: u64 = 500;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    for start in 0..4_u64 {
        let path = path.clone();
        run(config(&path.join(start.to_string())), move |member, shard| {
            let path = path.clone();
            async move {
                if shard != 0 {
                    return;
                }
                assert_eq!(get(&member, "k"), (start * PUTS).checked_sub(1));
                let leases = member.lessor().lock().list().len();
                assert_eq!(leases as u64, start, "leases are kept too");
                assert_ne!(member.raft().leader(), 0);
                let grant = LeaseGrantRequest { ttl: 1_000, id: 1 + start as i64 };
                member.propose(grant).await.unwrap().unwrap();
                for number in start * PUTS..(start + 1) * PUTS {
                    assert_eq!(put(&member, "k", number.to_string()).await, Ok(2 + number as i64));
                }
                // As a kill would leave it: most of it only in the log.
                copy(&path.join(start.to_string()), &path.join((start + 1).to_string()));
            }
        });
    }
}

#[test]
fn a_request_that_is_too_large_never_enters_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_request_bytes: 1_000, ..config(directory.path()) };
    run(config, |member, shard| async move {
        if shard != 0 {
            return;
        }
        assert_eq!(put(&member, "k", "x".repeat(1_000)).await, Err(Error::RequestTooLarge));
        assert_eq!(member.raft().pending(), 0);
        assert_eq!(put(&member, "k", "7".into()).await, Ok(2));
    });
}

/// All names under a directory, with the bytes of the files.
fn picture(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.push((path.clone(), None));
            found.extend(picture(&path));
        } else {
            found.push((path.clone(), Some(fs::read(&path).unwrap())));
        }
    }
    found
}

fn refused(config: Config) -> StartError {
    let (failures, _failed) = unbounded_channel();
    match Server::start(config, failures) {
        Ok(_) => panic!("the member started"),
        Err(error) => error,
    }
}

#[test]
fn a_first_start_that_was_interrupted_is_begun_again() {
    let works = |config: Config| {
        run(config, |member, shard| async move {
            if shard == 0 {
                assert_eq!(put(&member, "k", "1".into()).await, Ok(2));
            }
        });
    };
    // The directories alone; with a backend that nothing was applied to; with a segment of the log
    // that has not got its name yet.
    let directory = tempfile::tempdir().unwrap();
    let settings = config(directory.path());
    fs::create_dir_all(settings.data_dir.join("member")).unwrap();
    works(settings);

    let directory = tempfile::tempdir().unwrap();
    let settings = config(directory.path());
    fs::create_dir_all(settings.data_dir.join("member")).unwrap();
    let storage = backend::Storage::File(settings.backend_path());
    drop(backend::Backend::open(storage, backend::Options::default()).unwrap());
    fs::create_dir(settings.wal_dir()).unwrap();
    fs::write(settings.wal_dir().join("next.tmp"), [1; 100]).unwrap();
    works(settings);

    // With the log elsewhere, under directories that are not there.
    let directory = tempfile::tempdir().unwrap();
    let wal_dir = Some(directory.path().join("else").join("where"));
    let settings = Config { wal_dir, ..config(directory.path()) };
    works(settings.clone());
    assert!(!settings.data_dir.join("member").join("wal").exists());
}

#[test]
fn a_directory_that_is_not_ours_is_left_as_it_is() {
    let make = |names: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"of somebody else").unwrap();
        }
        directory
    };
    for names in [
        &["data"] as &[&str],
        &["data/member/snap/db", "data/member/wal/0000000000000000-0000000000000000.wal"],
        &["data/member/wal/0000000000000000-0000000000000000.wal"],
    ] {
        let directory = make(names);
        let before = picture(directory.path());
        let error = refused(config(directory.path()));
        assert!(matches!(error, StartError::NotOurs(..)), "{names:?}: {error}");
        assert!(picture(directory.path()) == before, "{names:?} was changed");
    }
}

#[test]
fn one_that_etcd_was_started_on_is_refused_until_its_file_is_out_of_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(directory.path());
    run(settings.clone(), |_, _| async {});
    let snap = settings.data_dir.join("member").join("snap");
    fs::create_dir_all(&snap).unwrap();
    fs::write(snap.join("db"), b"etcd's").unwrap();
    let words = refused(settings.clone()).to_string();
    assert!(words.contains("etcd has been started on it since Cairn was"), "{words}");
    fs::rename(&snap, directory.path().join("away")).unwrap();
    run(settings, |_, _| async {});
}

/// A crash between the log's record of a snapshot and the taking in of its body: the start does the
/// rest, and nothing is served before that.
#[test]
fn an_install_that_was_cut_short_is_finished_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(directory.path());
    let write = |value: &'static str| {
        run(settings.clone(), move |member, shard| async move {
            if shard == 0 {
                put(&member, "k", value.to_owned()).await.unwrap();
            }
        });
    };
    write("1");
    let old = directory.path().join("old");
    copy(&settings.data_dir, &old);
    write("2");
    let settings_of = |data_dir: &Path| Config { data_dir: data_dir.to_owned(), ..settings.clone() };
    let open = |dir: &Path| {
        let options = backend::Options::default();
        backend::Backend::open(backend::Storage::File(settings_of(dir).backend_path()), options).unwrap()
    };
    let taken = apply::snapshot::take(&open(&settings.data_dir)).unwrap();
    let meta = taken.meta().clone();
    let body = settings_of(&old).snapshot_dir().join(apply::snapshot::file_name(meta.index));
    taken.write_to(fs::File::create_new(&body).unwrap()).unwrap();
    let applied = raft::Index(open(&old).consistent().index);
    assert!(applied < meta.index, "the snapshot is of a later state");
    {
        let disk = Arc::new(wal::RealDisk);
        let (mut log, _) = wal::Wal::open(disk, &settings_of(&old).wal_dir(), applied).unwrap();
        let state = raft::HardState { term: meta.term, vote: None, commit: meta.index };
        log.append_install(&meta, &state).and_then(|()| log.sync()).unwrap();
    }
    for _ in 0..2 {
        run(settings_of(&old), |member, _| async move { assert_eq!(get(&member, "k"), Some(2)) });
        assert!(!body.exists(), "the body is of no more use");
    }
    // Without the body there is no way on, and no way back either.
    let lost = directory.path().join("lost");
    copy(&settings.data_dir, &lost);
    {
        let (mut log, _) =
            wal::Wal::open(Arc::new(wal::RealDisk), &settings_of(&lost).wal_dir(), meta.index).unwrap();
        let meta = raft::SnapshotMeta { index: raft::Index(meta.index.0 + 10), ..meta };
        let state = raft::HardState { term: meta.term, vote: None, commit: meta.index };
        log.append_install(&meta, &state).and_then(|()| log.sync()).unwrap();
    }
    assert!(matches!(refused(settings_of(&lost)), StartError::Io(..)));
}

/// A10: a member that comes upon a committed entry of a later version stops, says which entry and which
/// version, and keeps the entry: the same at every start, until it is started as a version that knows it.
#[test]
fn an_entry_of_a_later_version_stops_the_member_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(directory.path());
    run(settings.clone(), |member, _| async move {
        put(&member, "k", "1".to_owned()).await.unwrap();
    });
    let odd = {
        let (mut log, recovered) =
            wal::Wal::open(Arc::new(wal::RealDisk), &settings.wal_dir(), raft::Index(0)).unwrap();
        let (term, index) = (recovered.hard_state.term, log.last_index().next());
        let data = Arc::from(*b"?");
        log.append(None, &[raft::Entry { term, index, kind: raft::EntryKind::Unknown(9), data }]).unwrap();
        log.sync().unwrap();
        index
    };
    for _ in 0..2 {
        let (failures, mut failed) = unbounded_channel();
        let server = Server::start(settings.clone(), failures).unwrap();
        let failure = failed.blocking_recv().unwrap();
        assert_eq!(failure.thread, "apply");
        let words = format!("entry {odd} of term ");
        assert!(failure.cause.starts_with(&words), "{failure}");
        assert!(
            failure.cause.contains(server::ETCD_VERSION) && failure.cause.contains("kind 9"),
            "{failure}"
        );
        assert_eq!(server.member().raft().applied(), odd.0 - 1);
        assert_eq!(get(server.member(), "k"), Some(1));
        server.stop();
    }
}

#[test]
fn one_directory_has_one_member() {
    let directory = tempfile::tempdir().unwrap();
    let (failures, _failed) = unbounded_channel();
    let server = Server::start(config(directory.path()), failures).unwrap();
    assert!(matches!(refused(config(directory.path())), StartError::InUse(_)));
    server.stop();
    run(config(directory.path()), |_, _| async {});
}

/// The log says what redb holds; without it, redb alone could go back behind what was acknowledged.
#[test]
fn a_store_without_its_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    run(config(directory.path()), |_, _| async {});
    fs::remove_dir_all(config(directory.path()).wal_dir()).unwrap();
    assert!(matches!(refused(config(directory.path())), StartError::NotOurs(..)));
}

/// As in etcd, whoever asks while one is under way waits for it, and then has one too.
#[test]
fn defragmentations_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let (failures, _failed) = unbounded_channel();
    let server = Server::start(config(directory.path()), failures).unwrap();
    let together = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                server.member().defragment().unwrap();
            });
        }
    });
    assert_eq!(server.member().defragmenting(), 0);
    server.stop();
}

#[test]
fn a_log_directory_may_be_a_mere_name() {
    let named = |dir: &str| Config { wal_dir: Some(dir.into()), ..config(Path::new("x")) }.wal_dir();
    assert_eq!(named("wal"), Path::new("./wal"));
    assert_eq!(named("a/wal"), Path::new("a/wal"));
    assert_eq!(named("/wal"), Path::new("/wal"));
}
