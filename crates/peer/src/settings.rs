//! What a member's peers have to know before they start.

use std::path::PathBuf;
use std::time::Duration;

/// What stays the same for as long as the peers run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member.
    pub id: u64,
    /// The cluster; whoever names another one is turned away.
    pub cluster_id: u64,
    /// The peer URLs that this member advertises, `http://host:port` or the like.
    pub urls: Vec<String>,
    /// The etcd version spoken, `major.minor.patch`.
    pub version: &'static str,
    /// The oldest version of a member that may take part.
    pub min_cluster_version: &'static str,
    /// Where databases that were sent to this member end up. Made if it is missing.
    pub snapshot_dir: PathBuf,
    /// How those behind `https` and `unixs` are believed, and what they are shown.
    pub tls: tls::Client,
    /// How long a connection may take to come about.
    pub dial_timeout: Duration,
    /// A stream that says nothing for this long is given up. Writers say something three times as
    /// often.
    pub read_timeout: Duration,
    /// A peer that takes nothing for this long is given up.
    pub write_timeout: Duration,
    /// The rest between two attempts to reach a peer that cannot be reached.
    pub retry: Duration,
}

impl Settings {
    /// etcd's figures; `election_timeout` as configured.
    pub fn new(
        id: u64,
        cluster_id: u64,
        urls: Vec<String>,
        snapshot_dir: PathBuf,
        election_timeout: Duration,
    ) -> Settings {
        Settings {
            id,
            cluster_id,
            urls,
            version: "3.7.1",
            min_cluster_version: "3.0.0",
            snapshot_dir,
            tls: tls::Client::default(),
            dial_timeout: Duration::from_secs(1) + election_timeout,
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            retry: Duration::from_millis(100),
        }
    }
}
