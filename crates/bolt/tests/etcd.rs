//! The file beside the real thing: etcd writes one and we read it, we write one and etcd reads it.
//!
//! Needs etcd, etcdctl and etcdutl; `CAIRN_ETCD_BIN_DIR` names the directory they are in. Without it
//! the tests say so and pass.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bolt::{Error, Reader, Writer, digest};

fn binaries() -> Option<PathBuf> {
    let found = std::env::var_os("CAIRN_ETCD_BIN_DIR").filter(|directory| !directory.is_empty());
    if found.is_none() {
        eprintln!("SKIPPED: CAIRN_ETCD_BIN_DIR is not set; see scripts/install-etcd");
    }
    found.map(PathBuf::from)
}

fn run(program: &Path, arguments: &[&str]) -> String {
    let out = Command::new(program).env("ETCDCTL_API", "3").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{} {arguments:?}: {text}", program.display());
    String::from_utf8(out.stdout).unwrap()
}

struct Etcd {
    process: Child,
    endpoint: String,
    binaries: PathBuf,
    /// Kept open: etcd stops when no one reads what it logs.
    _log: BufReader<std::process::ChildStderr>,
}

impl Etcd {
    fn start(binaries: &Path, data: &Path, name: &str) -> Etcd {
        // Both ports are held until they are known to be different.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = listeners.map(|socket| format!("http://{}", socket.local_addr().unwrap()));
        let mut process = Command::new(binaries.join("etcd"))
            .args(["--name", name, "--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
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
        Etcd { process, endpoint: client, binaries: binaries.to_owned(), _log: log }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let endpoint = format!("--endpoints={}", self.endpoint);
        run(&self.binaries.join("etcdctl"), &[&[&endpoint[..]], arguments].concat())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Field `wanted` of a protobuf message that has bytes there.
fn field(mut message: &[u8], wanted: u64) -> Vec<u8> {
    let number = |message: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    while !message.is_empty() {
        let tag = number(&mut message);
        let length = number(&mut message);
        if tag & 7 == 2 {
            let (bytes, rest) = message.split_at(length as usize);
            if tag >> 3 == wanted {
                return bytes.to_vec();
            }
            message = rest;
        }
    }
    Vec::new()
}

/// The live keys in the bucket `key`, where mvcc keeps every version: key and value.
fn live<F: std::io::Read + std::io::Seek>(reader: &mut Reader<F>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut newest = std::collections::BTreeMap::new();
    let note = |revision: &[u8], record: &[u8]| {
        let (key, value) = (field(record, 1), field(record, 5));
        // A tombstone's revision has a mark behind its 17 bytes.
        newest.insert(key, (revision.len() == 17).then_some(value));
        Ok::<_, Error>(())
    };
    reader.for_each(b"key", note).unwrap();
    newest.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

#[test]
fn what_etcd_wrote_is_read() {
    let Some(binaries) = binaries() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (data, saved) = (directory.path().join("data"), directory.path().join("saved.db"));
    let etcd = Etcd::start(&binaries, &data, "one");
    let large = "v".repeat(100_000);
    for n in 0..120 {
        etcd.ctl(&["put", &format!("key{:03}", n * 7 % 120), &format!("value {n}")]);
    }
    for n in 0..5 {
        etcd.ctl(&["put", &format!("large{n}"), &large[..20_000 * n + 1]]);
    }
    etcd.ctl(&["del", "key05", "--prefix"]);
    etcd.ctl(&["put", "empty", ""]);
    etcd.ctl(&["snapshot", "save", saved.to_str().unwrap()]);
    let listed = etcd.ctl(&["get", "", "--prefix"]);
    let hash = etcd.ctl(&["endpoint", "hashkv", "--write-out", "json"]);
    drop(etcd);

    // A pair is two lines; only these keys' values have no newline.
    let lines: Vec<&[u8]> = listed.lines().map(str::as_bytes).collect();
    let expected: Vec<_> = lines.chunks(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec())).collect();
    assert_eq!(expected.len(), 110 + 5 + 1);

    let mut file = File::open(&saved).unwrap();
    let size = digest::verify(&mut file).unwrap();
    let mut reader = Reader::open(file).unwrap();
    assert_eq!(reader.size(), size);
    assert_eq!(live(&mut reader), expected);

    // The stopped member's own file has free pages, and its list of them is not stored.
    let mut reader = Reader::open(File::open(data.join("member/snap/db")).unwrap()).unwrap();
    assert_eq!(live(&mut reader), expected);
    let buckets: Vec<_> = reader.buckets().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let all = "alarm auth authRoles authUsers cluster key lease members members_removed meta";
    assert_eq!(buckets.join(" "), all);
    let mut index = Vec::new();
    let note = |key: &[u8], value: &[u8]| {
        if key == b"consistent_index" {
            index = value.to_vec();
        }
        Ok::<_, Error>(())
    };
    reader.for_each(b"meta", note).unwrap();
    assert_eq!(index.len(), 8);
    assert!(hash.contains("hash"), "{hash}");

    // A copy that we write is the same database to etcdutl: its hash is over buckets, keys and values.
    let copy = directory.path().join("copy.db");
    let mut writer = Writer::create(File::create(&copy).unwrap()).unwrap();
    let mut reader = Reader::open(File::open(&saved).unwrap()).unwrap();
    let buckets: Vec<_> = reader.buckets().map(<[u8]>::to_vec).collect();
    for bucket in buckets {
        writer.bucket(&bucket).unwrap();
        reader.for_each(&bucket, |key, value| writer.put(&bucket, key, value)).unwrap();
    }
    writer.finish().unwrap();
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&copy).unwrap();
    digest::append(&mut file).unwrap();
    let [theirs, ours] = [&saved, &copy].map(|path| status(&binaries, path));
    assert_eq!(theirs[..3], ours[..3], "hash, revision, keys");

    // And a member starts from it.
    let restored = directory.path().join("restored");
    let arguments = ["snapshot", "restore", copy.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()];
    run(&binaries.join("etcdutl"), &arguments);
    let etcd = Etcd::start(&binaries, &restored, "default");
    assert_eq!(etcd.ctl(&["get", "", "--prefix"]), listed);
    etcd.ctl(&["put", "one more", "1"]);
    etcd.ctl(&["del", "key", "--prefix"]);
    etcd.ctl(&["defrag"]);
    assert_eq!(etcd.ctl(&["get", "one more", "--print-value-only"]), "1\n");
}

/// What `etcdutl snapshot status` prints: hash, revision, keys, size.
fn status(binaries: &Path, file: &Path) -> Vec<String> {
    let printed = run(&binaries.join("etcdutl"), &["snapshot", "status", file.to_str().unwrap()]);
    printed.trim().split(", ").map(str::to_owned).collect()
}

/// A protobuf field of bytes.
fn bytes_field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

/// As many keys as give three levels of pages, and values of every size around a page's.
#[test]
fn what_we_wrote_is_read_by_etcd() {
    let Some(binaries) = binaries() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ours.db");
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut writer = Writer::create(file).unwrap();
    let keys = 60_000u64;
    for n in 0..keys {
        // A revision: main, `_`, sub.
        let revision = [&(n + 2).to_be_bytes()[..], b"_", &[0; 8]].concat();
        let size = if n % 100 == 0 { n as usize % 12_000 } else { n as usize % 50 };
        let mut record = Vec::new();
        bytes_field(&mut record, 1, format!("key{n:06}").as_bytes());
        let version = n as u8 % 0x7f + 1;
        record.extend_from_slice(&[0x10, version, 0x18, version, 0x20, 1]);
        bytes_field(&mut record, 5, &vec![b'v'; size]);
        writer.put(b"key", &revision, &record).unwrap();
    }
    writer.put(b"meta", b"consistent_index", &7u64.to_be_bytes()).unwrap();
    let mut file = writer.finish().unwrap();
    digest::append(&mut file).unwrap();
    drop(file);

    let status = status(&binaries, &path);
    assert_eq!(status[1..3], [(keys + 1).to_string(), (keys + 1).to_string()], "revision, pairs");
    let restored = directory.path().join("restored");
    let arguments = ["snapshot", "restore", path.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()];
    run(&binaries.join("etcdutl"), &arguments);
    let etcd = Etcd::start(&binaries, &restored, "default");
    let listed = etcd.ctl(&["get", "", "--prefix", "--keys-only"]);
    assert_eq!(listed.lines().filter(|line| !line.is_empty()).count() as u64, keys);
    let value = etcd.ctl(&["get", "key011900", "--print-value-only"]);
    assert_eq!(value.trim_end().len(), 11_900);
    etcd.ctl(&["del", "key0", "--prefix"]);
    etcd.ctl(&["put", "key0", "again"]);
    etcd.ctl(&["compaction", &(keys + 2).to_string()]);
    etcd.ctl(&["defrag"]);
    assert_eq!(etcd.ctl(&["get", "", "--prefix", "--print-value-only"]), "again\n");
}
