//! Members that join and leave.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, MemberAddOptions};

use super::{Cluster, System};
use crate::until::until;

impl Cluster {
    /// Adds a member, a voter or a learner, and prepares it; it does not run yet. Its place.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub async fn add(&mut self, system: System, learner: bool) -> Result<usize> {
        let through = self.running();
        let place = self.new_member(system, "existing")?;
        let advertised = self.members[place].advertised();
        let options = MemberAddOptions::new();
        let options = if learner { options.with_is_learner() } else { options };
        let added = self
            .accepted(&through, async |client| {
                client.member_add([advertised.clone()], Some(options.clone())).await
            })
            .await;
        let added = match added {
            Ok(added) => added,
            Err(error) => {
                self.members.truncate(place);
                return Err(error);
            }
        };
        self.know(place, added.member().context("a member was added")?.id());
        // One that has not been started has no name yet, and nobody but itself needs it.
        let named = added.member_list().iter().map(|member| {
            let of = |id| self.place(id).map(|place| self.members[place].name.clone());
            (of(member.id()).unwrap_or_else(|| member.name().to_owned()), member.peer_urls().to_vec())
        });
        let founders =
            named.flat_map(|(name, urls)| urls.into_iter().map(move |url| format!("{name}={url}")));
        self.members[place].founders = founders.collect::<Vec<_>>().join(",");
        Ok(place)
    }

    /// Makes the data of a member that has none from a backup, by its own system's tool.
    ///
    /// # Errors
    /// When the tool refuses; what it said.
    pub fn restore(&self, place: usize, backup: &Path, flags: &[&str]) -> Result<()> {
        let member = &self.members[place];
        let program = match member.system {
            System::Cairn => member.system.binary()?,
            System::Etcd => member.system.binary()?.with_file_name("etcdutl"),
        };
        let output = Command::new(program)
            .args(["snapshot", "restore"])
            .arg(backup)
            .arg("--data-dir")
            .arg(&member.directory)
            .args(["--name", &member.name, "--initial-cluster", &member.founders])
            .args(["--initial-cluster-token", &self.token])
            .args(["--initial-advertise-peer-urls", &member.advertised()])
            .args(flags)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Removes a member through another one; what becomes of its process is its own affair.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove(&mut self, place: usize) -> Result<()> {
        let through: Vec<usize> = self.running().into_iter().filter(|other| *other != place).collect();
        let id = self.id(place);
        self.accepted(&through, async |client| client.member_remove(id).await).await.map(drop)
    }

    /// Asks for a change of the members until the others have been connected for long enough (etcd
    /// wants five seconds); any other refusal is an error.
    async fn accepted<T>(
        &mut self,
        through: &[usize],
        mut ask: impl AsyncFnMut(&mut Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T> {
        // A change that is asked for while the leader changes may be lost, and nobody would tell.
        let running = self.running();
        self.leader_of(&running).await?;
        let mut client = self.client(through).await?;
        until("the members are connected for long enough", async || match ask(&mut client).await {
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("unhealthy cluster") => {
                None
            }
            answer => Some(answer),
        })
        .await?
        .map_err(Into::into)
    }
}
