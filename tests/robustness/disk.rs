//! Disks that are full, have become read-only, or do not answer: real file systems, in a mount namespace of
//! their own that goes with the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{Cluster, Plan, Server, until};

use crate::support::get;

/// A file system that only this test sees.
struct Disk {
    holder: Child,
    /// Its end is the holder's.
    hold: Option<ChildStdin>,
    mounted: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    /// Mounts one with `mount`, a shell command that finds the directory in `$1` and room beside it in `$2`;
    /// nothing where that is not permitted.
    fn mount(mount: &str) -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        let mounted = directory.path().join("disk");
        std::fs::create_dir(&mounted)?;
        // What is frozen must be thawed before it can go; whoever waits for it cannot be killed.
        let script = format!(
            "trap '' TERM INT HUP; {mount} && echo mounted && cat; fsfreeze -u \"$1\" 2> /dev/null; umount \"$1\""
        );
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
            .args([&mounted, &directory.path().join("image")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut holder = match holder {
            Ok(holder) => holder,
            Err(error) => return Self::skip(&format!("unshare: {error}")),
        };
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("a pipe")?).read_line(&mut line)?;
        if line.trim() != "mounted" {
            let words = std::io::read_to_string(holder.stderr.take().context("a pipe")?)?;
            holder.wait()?;
            return Self::skip(&words);
        }
        let hold = holder.stdin.take();
        Ok(Some(Self { holder, hold, mounted, _directory: directory }))
    }

    fn skip(words: &str) -> Result<Option<Self>> {
        if std::env::var_os("CAIRN_TEST_NAMESPACES").is_some_and(|needed| needed != "0") {
            bail!("no file system can be mounted: {words}");
        }
        println!("SKIPPED: mounting a file system needs root and Linux: {words}");
        Ok(None)
    }

    /// Of so many KiB, in memory.
    fn small(kib: u32) -> Result<Option<Self>> {
        Self::mount(&format!("mount -t tmpfs -o size={kib}k tmpfs \"$1\""))
    }

    /// A disk as machines have it.
    fn usual() -> Result<Option<Self>> {
        Self::mount("truncate -s 200M \"$2\" && mkfs.ext4 -q -F \"$2\" && mount -o loop \"$2\" \"$1\"")
    }

    /// Where this process and those it starts find it.
    fn path(&self) -> PathBuf {
        let inside = self.mounted.strip_prefix("/").unwrap_or(&self.mounted);
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    /// Runs a command in its namespace, on its directory.
    fn run(&self, command: &[&str]) -> Result<()> {
        let mut entering = Command::new("nsenter");
        entering.args(["--mount", "--target", &self.holder.id().to_string(), "--"]);
        let status = entering.args(command).arg(&self.mounted).status()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    }

    /// Leaves so many KiB.
    fn fill(&self, leave_kib: usize) -> Result<()> {
        let mut file = std::fs::File::create(self.path().join("filler"))?;
        while file.write_all(&[1; 64 << 10]).is_ok() {}
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub((leave_kib as u64) << 10))?;
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path().join("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.hold.take());
        let _ = self.holder.wait();
    }
}

/// Puts keys of so many bytes until one is not acknowledged; how many were.
async fn put_until_refused(server: &Server, bytes: usize) -> Result<usize> {
    let mut client = server.client().await?;
    for number in 0..2_000 {
        if client.put(format!("k{number:04}"), vec![b'v'; bytes], None).await.is_err() {
            return Ok(number);
        }
    }
    bail!("everything was acknowledged")
}

async fn all_there(server: &Server, acknowledged: usize, bytes: usize) -> Result<()> {
    let mut client = server.client().await?;
    for number in 0..acknowledged {
        let found = client.get(format!("k{number:04}"), None).await?;
        ensure!(found.kvs().first().is_some_and(|kv| kv.value().len() == bytes), "key {number} is not there");
    }
    client.put("k-again", "v", None).await?;
    Ok(())
}

fn one(data: &Path, wal: &Path) -> Result<Server> {
    Server::start_configured(data, |client, peer| {
        let text = |path: &Path| path.display().to_string();
        let flags = [
            ("--data-dir", text(data)),
            ("--wal-dir", text(wal)),
            ("--listen-client-urls", client.to_owned()),
            ("--advertise-client-urls", client.to_owned()),
            ("--listen-peer-urls", peer.to_owned()),
            ("--initial-advertise-peer-urls", peer.to_owned()),
            ("--initial-cluster", format!("default={peer}")),
        ];
        (flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(), Vec::new())
    })
}

/// What is written until the disk is `unwell` is there once it is well again, and the end says what was wrong.
async fn stops_and_comes_back(
    server: Server,
    bytes: usize,
    words: &str,
    heal: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let acknowledged = put_until_refused(&server, bytes).await?;
    let (stopped, status, log) = server.fails().await?;
    assert_eq!(status.code(), Some(1), "{status}");
    let last = log.last().context("a log")?;
    assert!(last.contains("the member cannot go on") && last.contains(words), "{last}");
    heal()?;
    let server = stopped.start()?;
    all_there(&server, acknowledged, bytes).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_a_full_disk_stops_the_member_and_loses_nothing() -> Result<()> {
    let Some(disk) = Disk::small(32 << 10)? else { return Ok(()) };
    let wal = tempfile::tempdir()?;
    let server = one(&disk.path().join("data"), &wal.path().join("wal"))?;
    disk.fill(512)?;
    stops_and_comes_back(server, 256 << 10, "No space left on device", || disk.empty()).await
}

/// The log has reserved its first segment, and has to begin a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_full_disk_stops_the_member_and_loses_nothing() -> Result<()> {
    // 64,000,000 bytes for the first one, and little more.
    let Some(disk) = Disk::small(64 << 10)? else { return Ok(()) };
    let data = tempfile::tempdir()?;
    let server = one(&data.path().join("data"), &disk.path().join("wal"))?;
    let bigger = ["mount", "-o", "remount,size=256m"];
    stops_and_comes_back(server, 1 << 20, "No space left on device", || disk.run(&bigger)).await
}

/// What ext4 does by itself where the device fails beneath it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_stops_the_member_and_loses_nothing() -> Result<()> {
    let Some(disk) = Disk::usual()? else { return Ok(()) };
    let server = one(&disk.path().join("data"), &disk.path().join("wal"))?;
    let mut client = server.client().await?;
    client.put("k0000", vec![b'v'; 9], None).await?;
    disk.run(&["mount", "-o", "remount,abort"])?;
    assert!(client.put("k0001", "v", None).await.is_err(), "nothing is acknowledged");
    let (stopped, status, log) = server.fails().await?;
    assert_eq!(status.code(), Some(1), "{status}");
    let last = log.last().context("a log")?;
    assert!(last.contains("the member cannot go on") && last.contains("Read-only file system"), "{last}");
    // It cannot be used before somebody has looked after it.
    let (status, log) = stopped.refusal()?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("Read-only file system"), "{log}");
    disk.run(&["sh", "-c", "umount \"$0\" && mount -o loop \"$(dirname \"$0\")/image\" \"$0\""])?;
    let server = stopped.start()?;
    all_there(&server, 1, 9).await?;
    Ok(())
}

/// Nobody can tell a slow disk from one that will never answer; the leader does not wait to find out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_does_not_answer_hands_over() -> Result<()> {
    let mut cluster = Cluster::prepare(Plan::of(3))?;
    // Goes first, also where this fails: who waits for a frozen disk cannot be killed.
    let Some(disk) = Disk::usual()? else { return Ok(()) };
    std::fs::create_dir(disk.path().join("data"))?;
    std::os::unix::fs::symlink(disk.path().join("data"), cluster.data_directory(0))?;
    for place in cluster.places() {
        cluster.start_member(place)?;
    }
    let leader = cluster.ready().await?;
    if leader != 0 {
        cluster.client(&[leader]).await?.move_leader(cluster.id(0)).await?;
    }
    until("the one with the disk leads", async || (cluster.leader().await.ok()? == 0).then_some(())).await?;
    let mut client = cluster.client(&cluster.others(0)).await?;
    client.put("before", "v", None).await?;
    disk.run(&["fsfreeze", "--freeze"])?;
    let others = cluster.others(0);
    // The first is committed by the other two, and shows the leader that its disk is silent.
    let written = client.put("during", "v", None).await;
    until("another one leads", async || (cluster.leader_of(&others).await.ok()? != 0).then_some(())).await?;
    let mut client = cluster.client(&others).await?;
    client.put("after", "v", None).await?;
    let found = client.get("during", None).await?.count();
    assert!(written.is_err() || found == 1, "what was acknowledged is there");
    until("the log tells of the disk", async || {
        cluster.log(0).contains("the disk of the write-ahead log does not answer").then_some(())
    })
    .await?;
    let port = cluster.endpoint(0).rsplit(':').next().context("a port")?.parse()?;
    let ready = tokio::task::spawn_blocking(move || get(port, "/readyz")).await??;
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(ready.body.contains("[-]linearizable_read failed"), "{}", ready.body);
    disk.run(&["fsfreeze", "--unfreeze"])?;
    cluster.same_data(&[0, 1, 2]).await?;
    assert!(cluster.log(0).contains("the disk of the write-ahead log answers again"));
    Ok(())
}
