//! Backups and downgrades of a whole member, asked from its own runtime thread.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use api::etcdserverpb::{CompactionRequest, LeaseGrantRequest, PutRequest};
use bolt::digest::Digest;
use server::{Backup, BackupError, Config, DowngradeError, Member, Piece, Server};
use support::at_last;
use tokio::sync::mpsc::unbounded_channel;

/// As many backups as may be under way.
const MOST: usize = 8;

/// Starts a member, runs `work`, and stops the member.
fn run<F>(directory: &Path, work: impl Fn(Arc<Member>) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()>,
{
    let (failures, mut failed) = unbounded_channel();
    let config = Config { no_fsync: true, ..Config::new(directory.join("data")) };
    let mut server = Server::start(config, failures).unwrap();
    let member = Arc::clone(server.member());
    let (done, finished) = std::sync::mpsc::channel();
    server
        .serve(move |_| {
            let (work, done, member) = (work.clone(), done.clone(), Arc::clone(&member));
            async move {
                member.ready().await;
                work(member).await;
                done.send(()).unwrap();
            }
        })
        .unwrap();
    let ended = finished.recv();
    server.stop();
    if let Ok(failure) = failed.try_recv() {
        panic!("{failure}");
    }
    ended.unwrap();
}

async fn put(member: &Member, number: usize) {
    let (key, value) = (format!("k{number:05}").into(), vec![b'v'; 1_000].into());
    member.propose(PutRequest { key, value, ..PutRequest::default() }).await.unwrap().unwrap();
}

/// All of a backup: the database, and what was told beside it.
async fn take_in(mut backup: Backup) -> (Vec<u8>, String) {
    let (mut database, mut digest) = (Vec::new(), Digest::default());
    let mut expected = None;
    while let Some(piece) = backup.recv().await {
        let Piece { bytes, remaining, version } = piece.unwrap();
        if expected == Some(0) {
            assert_eq!((&bytes[..], remaining), (&digest.finish()[..], 0));
            assert!(backup.recv().await.is_none());
            return (database, version);
        }
        assert!(bytes.len() == 32 * 1024 || remaining == 0, "{} bytes in a piece", bytes.len());
        let left = expected.unwrap_or(bytes.len() as u64 + remaining);
        assert_eq!(left, bytes.len() as u64 + remaining);
        expected = Some(remaining);
        digest.update(&bytes);
        database.extend_from_slice(&bytes);
    }
    panic!("a backup without an end");
}

/// The main revisions of all rows, and the names of all buckets.
fn rows(database: Vec<u8>) -> Vec<i64> {
    let mut reader = bolt::Reader::open(Cursor::new(database)).unwrap();
    assert!(reader.buckets().any(|bucket| bucket == b"authUsers"), "empty ones are there as well");
    let mut pairs = reader.pairs(b"key").unwrap();
    let mut rows = Vec::new();
    while let Some((key, _)) = pairs.next().unwrap() {
        rows.push(i64::from_be_bytes(key[..8].try_into().unwrap()));
    }
    rows
}

fn files(member: &Member) -> usize {
    fs::read_dir(member.config().snapshot_dir()).unwrap().count()
}

#[test]
fn a_backup_is_of_one_revision_whatever_is_written_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), |member| async move {
        let grant = LeaseGrantRequest { id: 7, ttl: 600 };
        member.propose(grant).await.unwrap().unwrap();
        for number in 0..1_000 {
            put(&member, number).await;
        }
        let backup = member.backup().unwrap();
        let writing = async {
            for number in 0..500 {
                put(&member, number).await;
            }
        };
        let ((database, version), ()) = tokio::join!(take_in(backup), writing);
        assert_eq!((version.as_str(), files(&member)), ("3.7.0", 0));
        let rows = rows(database);
        assert!(rows.len() >= 1_000);
        // Every revision up to the last one, and none twice.
        assert!(rows.iter().copied().eq(2..2 + rows.len() as i64));
    });
}

#[test]
fn a_client_that_goes_away_or_stands_still_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), |member| async move {
        for number in 0..3_000 {
            put(&member, number).await;
        }
        let silent: Vec<Backup> = (0..MOST).map(|_| member.backup().unwrap()).collect();
        assert!(matches!(member.backup(), Err(BackupError::TooMany)));
        put(&member, 0).await;
        drop(silent);
        // Their threads see it when they have something to say.
        let next = at_last("room for a backup", async || member.backup().ok()).await;
        let (database, _) = take_in(next).await;
        assert_eq!((rows(database).len(), files(&member)), (3_001, 0));
    });
}

#[test]
fn a_downgrade_begins_lowers_the_version_outlives_a_restart_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let short = |version: &str| Ok(version.to_owned());
    run(directory.path(), move |member| async move {
        assert_eq!(member.cancel_downgrade().await, Err(DowngradeError::NotUnderWay));
        assert_eq!(member.validate_downgrade("3.5").await, Err(DowngradeError::Target));
        assert_eq!(member.enable_downgrade("3.7.0").await, Err(DowngradeError::Target));
        assert_eq!(member.enable_downgrade("none").await, Err(DowngradeError::Format));
        assert_eq!(member.validate_downgrade("3.6").await, short("3.7"));
        assert_eq!(member.cluster().downgrade, None, "it was only asked");
        assert_eq!(member.enable_downgrade("3.6.0").await, short("3.7"));
        assert_eq!(member.enable_downgrade("3.6").await, Err(DowngradeError::UnderWay));
        assert_eq!(member.validate_downgrade("3.6").await, Err(DowngradeError::UnderWay));
    });
    run(directory.path(), move |member| async move {
        let downgrade = member.cluster().downgrade.clone().unwrap();
        assert_eq!((downgrade.enabled, downgrade.target_version.as_str()), (true, "3.6.0"));
        version_becomes(&member, "3.6.0").await;
        // The layout follows, for whoever reads a backup.
        let (_, version) = take_in(member.backup().unwrap()).await;
        assert_eq!((version.as_str(), member.cluster().storage_version()), ("3.6.0", "3.6.0"));
        assert_eq!(member.cancel_downgrade().await, short("3.6"));
        assert!(!member.cluster().downgrade.as_ref().unwrap().enabled);
    });
    run(directory.path(), |member| async move { version_becomes(&member, "3.7.0").await });
}

async fn version_becomes(member: &Member, version: &str) {
    let is_so = async || (member.cluster().version.as_deref() == Some(version)).then_some(());
    at_last("the cluster's version", is_so).await;
}

/// Nobody has to call Defragment: what a compaction frees goes back to the file system.
#[test]
fn space_is_given_back_after_a_compaction() {
    const KEYS: usize = 40;
    const ROUNDS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), |member| async move {
        let mut revision = 0;
        for _ in 0..ROUNDS {
            for number in 0..KEYS {
                let (key, value) = (format!("k{number}").into(), vec![b'v'; 1 << 20].into());
                let put = PutRequest { key, value, ..PutRequest::default() };
                revision = member.propose(put).await.unwrap().unwrap().revision;
            }
        }
        member.backend().flush_all().unwrap();
        let full = member.backend().size();
        assert!(full >= (ROUNDS * KEYS) as u64 * (1 << 20), "{full}");
        let compaction = CompactionRequest { revision, physical: false };
        member.propose(compaction).await.unwrap().unwrap();
        member.wake_compactor();
        at_last("the space", async || (member.backend().size() <= full / 2).then_some(())).await;
    });
}
