//! Data directories that a server must not start on, must not touch, or must repair.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result};
use etcd_client::GetOptions;
use tests::{Server, Stopped};

/// Every file below a directory with its bytes, but for reserved space at the end.
fn tree(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(tree(&path)?);
        } else {
            files.insert(path.clone(), written(&path)?);
        }
    }
    Ok(files)
}

/// The bytes of a file up to the last that is not zero.
fn written(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(path)?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(bytes)
}

/// The only segment of a small log.
fn segment(stopped: &Stopped) -> Result<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(stopped.directory().join("member/wal"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    segments.sort();
    segments.into_iter().next().context("a segment")
}

/// A refusal: not by success and not by a crash, with these words in the last line of the log.
fn refused((status, log): (ExitStatus, String), words: &[&str]) {
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} are not all in {last}");
    assert!(!log.contains("panic"), "{log}");
}

/// A server that has been killed just after some puts that are in its log alone.
async fn killed_after_puts(directory: &Path) -> Result<Stopped> {
    let server = Server::start(directory, &[])?;
    let mut client = server.client().await?;
    for number in 0..199 {
        client.put(format!("k{number:03}"), "some value", None).await?;
    }
    // The last one is larger than the sectors that a disk writes at once.
    client.put("k199", vec![b'x'; 4_096], None).await?;
    server.kill()
}

async fn puts_found(server: &Server) -> Result<i64> {
    let counted = GetOptions::new().with_prefix().with_count_only();
    Ok(server.client().await?.get("k", Some(counted)).await?.count())
}

#[tokio::test]
async fn one_in_use_is_refused_and_its_user_goes_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    server.client().await?.put("k1", "v", None).await?;
    refused(Server::refusal(directory.path(), &[])?, &["in use by another process"]);
    server.client().await?.put("k2", "v", None).await?;
    assert_eq!(puts_found(&server).await?, 2);
    let server = server.kill()?.start()?;
    assert_eq!(puts_found(&server).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_file_is_not_a_directory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("file");
    fs::write(&file, "somebody's file")?;
    refused(Server::refusal(&file, &[])?, &["file", "not a directory"]);
    assert_eq!(fs::read_to_string(&file)?, "somebody's file");
    Ok(())
}

#[tokio::test]
async fn a_directory_of_real_etcd_is_left_alone() -> Result<()> {
    if tests::etcd_directory().is_none() {
        eprintln!("SKIPPED: CAIRN_ETCD_BIN_DIR does not name real etcd's binaries");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let etcd = Server::start_etcd(directory.path(), &[])?;
    etcd.client().await?.put("k", "v", None).await?;
    let (stopped, _) = etcd.terminate()?;
    let before = tree(directory.path())?;
    refused(Server::refusal(directory.path(), &[])?, &["belongs to etcd"]);
    assert!(before == tree(directory.path())?, "etcd's files have been touched");
    let etcd = stopped.start()?;
    assert_eq!(puts_found(&etcd).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_used_database_without_its_log_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    server.client().await?.put("k", "v", None).await?;
    let (stopped, _) = server.terminate()?;
    let log = directory.path().join("member/wal");
    let aside = directory.path().join("aside");
    fs::rename(&log, &aside)?;
    for _ in 0..2 {
        refused(stopped.refusal()?, &["write-ahead log", "member/wal"]);
        assert!(!log.exists(), "a new log has been made beside the used database");
    }
    fs::rename(&aside, &log)?;
    assert_eq!(puts_found(&stopped.start()?).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let stopped = killed_after_puts(directory.path()).await?;
    fs::remove_file(directory.path().join("member/cairn.redb"))?;
    let before = tree(directory.path())?;
    refused(stopped.refusal()?, &["write-ahead log", "cairn.redb"]);
    assert!(before == tree(directory.path())?, "files have been touched");
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_in_the_middle_of_the_log_is_refused_with_its_place() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let stopped = killed_after_puts(directory.path()).await?;
    let path = segment(&stopped)?;
    let mut bytes = fs::read(&path)?;
    let put = bytes.windows(4).position(|window| window == b"k100").context("a put in the log")?;
    bytes[put] ^= 0x10;
    fs::write(&path, &bytes)?;
    let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
    for _ in 0..2 {
        refused(stopped.refusal()?, &["write-ahead log", name, "damaged at byte"]);
        assert!(fs::read(&path)? == bytes, "the log has been touched");
    }
    // It was the byte, and nothing else.
    bytes[put] ^= 0x10;
    fs::write(&path, &bytes)?;
    assert_eq!(puts_found(&stopped.start()?).await?, 200);
    Ok(())
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let stopped = killed_after_puts(directory.path()).await?;
    let path = segment(&stopped)?;
    let mut bytes = fs::read(&path)?;
    // The last put was still on its way when the power went: one of its sectors is not written.
    let put = bytes.windows(512).position(|window| window == [b'x'; 512]).context("the last put")?;
    let sector = put.next_multiple_of(512);
    bytes[sector..sector + 512].fill(0);
    fs::write(&path, &bytes)?;
    let server = stopped.start()?;
    assert_eq!(puts_found(&server).await?, 199);
    let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
    assert!(
        server.log().iter().any(|line| line.contains("\"warn\"") && line.contains(name)),
        "the log tells nothing of a repair: {:#?}",
        server.log()
    );
    server.client().await?.put("k200", "v", None).await?;
    let server = server.kill()?.start()?;
    assert_eq!(puts_found(&server).await?, 200);
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_refused_before_the_directory_is_touched() -> Result<()> {
    let (directory, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(directory.path(), &[])?;
    let url = server.endpoint();
    let taken = ["--listen-client-urls", url.as_str()];
    refused(Server::refusal(other.path(), &taken)?, &["listen tcp", "in use"]);
    assert!(tree(other.path())?.is_empty());
    Ok(())
}
