//! The log beside the real thing: etcd writes one and we read it, we write one and etcd reads it.
//!
//! Needs etcd and etcdctl; `CAIRN_ETCD_BIN_DIR` names the directory they are in. Without it the test says so
//! and passes.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use raft::{EntryKind, Index};
use wal::{Options, RealDisk, Recovered, Wal, WalError};

struct Etcd {
    process: Child,
    endpoint: String,
    ctl: PathBuf,
    /// Kept open: etcd stops when no one reads what it logs.
    _log: BufReader<std::process::ChildStderr>,
}

impl Etcd {
    fn start(bin: &Path, data: &Path) -> Etcd {
        // Both ports are held until they are known to be different.
        let (client, peer) = (free_port(), free_port());
        let url = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let (client_url, peer_url) = (url(&client), url(&peer));
        drop((client, peer));
        let mut process = Command::new(bin.join("etcd"))
            .args(["--name", "one", "--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "etcd ended:\n{seen}");
            if line.contains("ready to serve client requests") {
                break;
            }
            seen += &line;
        }
        Etcd { process, endpoint: client_url, ctl: bin.join("etcdctl"), _log: log }
    }

    fn ctl(&self, args: &[&str]) -> String {
        let out = Command::new(&self.ctl)
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint))
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // As if the power went: what was acknowledged must be in the log.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn read(dir: &Path) -> Result<Recovered, WalError> {
    Wal::open(Arc::new(RealDisk), dir, Index(0)).map(|(_, recovered)| recovered)
}

fn holds(recovered: &Recovered, value: &str) -> bool {
    recovered.entries.iter().any(|e| e.data.windows(value.len()).any(|w| w == value.as_bytes()))
}

#[test]
fn etcd_reads_what_we_write_and_we_read_what_etcd_writes() {
    let Some(bin) = std::env::var_os("CAIRN_ETCD_BIN_DIR").map(PathBuf::from) else {
        eprintln!("SKIPPED: CAIRN_ETCD_BIN_DIR is not set, so the log was NOT compared with etcd's");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let wal_dir = data.join("member/wal");

    let etcd = Etcd::start(&bin, &data);
    for i in 0..50 {
        etcd.ctl(&["put", &format!("key-{i:03}"), &format!("first-{i:03}").repeat(1 + i * 20)]);
    }
    let keys = etcd.ctl(&["get", "", "--prefix"]);
    assert!(matches!(read(&wal_dir), Err(WalError::Locked(_))), "etcd is running on it");
    drop(etcd);

    // Theirs, read by us.
    let theirs = read(&wal_dir).unwrap();
    assert_eq!(theirs.repaired, None);
    assert_eq!(theirs.entries[0].kind, EntryKind::ConfChange, "a cluster begins by adding its members");
    assert_eq!(theirs.entries[0].index, Index(1));
    for i in 0..50 {
        assert!(holds(&theirs, &format!("first-{i:03}")), "key {i} is missing");
    }

    // Ours, read by them: the same entries in our batches and over several small segments.
    std::fs::rename(&wal_dir, dir.path().join("theirs")).unwrap();
    let options = Options { segment_bytes: 40_000 };
    let mut ours = Wal::create_with(Arc::new(RealDisk), &wal_dir, &theirs.metadata, options).unwrap();
    for batch in theirs.entries.chunks(7) {
        let mut state = theirs.hard_state;
        state.term = batch[batch.len() - 1].term;
        state.commit = batch[batch.len() - 1].index;
        ours.append(Some(&state), batch).unwrap();
        ours.sync().unwrap();
        ours.prepare().unwrap();
    }
    assert!(ours.segment_count() > 2, "{} segments", ours.segment_count());
    drop(ours);
    let etcd = Etcd::start(&bin, &data);
    assert_eq!(etcd.ctl(&["get", "", "--prefix"]), keys);
    etcd.ctl(&["put", "after", "written by etcd behind our records"]);
    drop(etcd);

    // Both in one log, read by us.
    let both = read(&wal_dir).unwrap();
    assert!(both.entries.starts_with(&theirs.entries));
    assert!(holds(&both, "written by etcd behind our records"));
}
