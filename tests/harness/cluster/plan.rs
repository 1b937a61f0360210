//! What a cluster is to be like.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// What a member runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The binary under test.
    Cairn,
    /// Real etcd, from the directory that `CAIRN_ETCD_BIN_DIR` names.
    Etcd,
}

impl System {
    /// What `CAIRN_TEST_SYSTEM` asks for; Cairn unless it says `etcd`.
    pub fn under_test() -> Self {
        match std::env::var("CAIRN_TEST_SYSTEM").as_deref() {
            Ok("etcd") => System::Etcd,
            _ => System::Cairn,
        }
    }

    /// The executable.
    ///
    /// # Errors
    /// When it cannot be found or built.
    pub fn binary(self) -> Result<PathBuf> {
        match self {
            System::Cairn => Ok(crate::binary().to_owned()),
            System::Etcd => {
                Ok(crate::etcd_directory().context("CAIRN_ETCD_BIN_DIR is not set")?.join("etcd"))
            }
        }
    }
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What each member runs; as many as the cluster has members.
    pub systems: Vec<System>,
    /// Flags for every member, after the usual ones.
    pub flags: Vec<String>,
    /// Whether the links between members can be set ([`Cluster::links`](super::Cluster::links)).
    pub links: bool,
    /// Where `ca.crt`, `member.crt` and `member.key` lie, if members are to speak TLS with each other, and to
    /// serve clients at another port where those have to show a certificate.
    pub security: Option<PathBuf>,
}

impl Plan {
    /// So many members of the system under test.
    pub fn of(size: usize) -> Self {
        Self { systems: vec![System::under_test(); size], flags: Vec::new(), links: false, security: None }
    }

    /// With these flags, too.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// With links that can be set.
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// With TLS, by what lies there.
    pub fn security(mut self, directory: PathBuf) -> Self {
        self.security = Some(directory);
        self
    }

    /// With election timers so long that a busy machine causes no election.
    pub fn calm(self) -> Self {
        self.flags(&["--heartbeat-interval", "500", "--election-timeout", "10000"])
    }
}
