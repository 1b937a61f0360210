//! The two servers of a comparison, as alike as their flags can make them.

use anyhow::Result;
use tempfile::TempDir;
use tests::Server;

/// Both take their ids from these, so that ids and lists of members are equal. Nobody connects to
/// them: the URLs that the servers listen on are their own.
const IDENTITY: [&str; 6] = [
    "--initial-advertise-peer-urls",
    "http://127.0.0.1:2380",
    "--initial-cluster",
    "default=http://127.0.0.1:2380",
    "--advertise-client-urls",
    "http://127.0.0.1:2379",
];

/// Real etcd and Cairn, both new and empty; they end with this value.
pub(crate) struct Pair {
    pub(crate) etcd: Server,
    pub(crate) cairn: Server,
    _directory: TempDir,
}

impl Pair {
    /// Starts both. What they store matters here, not that it survives, so neither waits for a disk.
    pub(crate) fn start(flags: &[&str]) -> Result<Self> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::try_start(flags) {
                // Somebody took a port between its choice and the server's start.
                Err(error) if attempts < 5 && error.to_string().contains("ddress already in use") => {}
                started => return started,
            }
        }
    }

    fn try_start(flags: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let flags: Vec<&str> =
            IDENTITY.into_iter().chain(["--unsafe-no-fsync"]).chain(flags.iter().copied()).collect();
        let (etcd, cairn) = std::thread::scope(|scope| {
            let etcd = scope.spawn(|| Server::start_etcd(&directory.path().join("etcd"), &flags));
            let cairn = Server::start(&directory.path().join("cairn"), &flags);
            (etcd.join().expect("starting does not panic"), cairn)
        });
        Ok(Self { etcd: etcd?, cairn: cairn?, _directory: directory })
    }
}
