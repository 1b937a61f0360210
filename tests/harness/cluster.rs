//! A cluster of real processes on 127.0.0.1, to be killed, paused, cut off, and watched.
//!
//! Members are named by their place, from 0. Each has reserved ports, a data directory and a log of
//! its own. Which server they run is `CAIRN_TEST_SYSTEM` (`cairn` or `etcd`): a suite that real etcd
//! passes too has its expectations right.

mod membership;
mod plan;

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, StatusResponse};
pub use plan::{Plan, System};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::ask::{agree, connect, same_data, status};
use crate::links::Links;
use crate::ports::Port;
use crate::process::Start;
use crate::until::until;

/// One member, running or not.
#[derive(Debug)]
struct Member {
    system: System,
    name: String,
    directory: PathBuf,
    client: Port,
    peer: Port,
    /// Where it serves clients with a certificate, and what lies where, if members have certificates.
    secure: Option<(Port, PathBuf)>,
    /// What it advertises to the others, if links can be set.
    front: Option<Port>,
    /// `new`, or `existing` for one that joins.
    state: &'static str,
    /// What it is told of the others when it starts for the first time.
    founders: String,
    /// Known once it has been asked.
    id: Option<u64>,
    child: Option<Child>,
    paused: bool,
}

impl Member {
    fn advertised(&self) -> String {
        self.of_peers(self.front.as_ref().unwrap_or(&self.peer))
    }

    fn of_peers(&self, port: &Port) -> String {
        if self.secure.is_some() { port.url().replacen("http", "https", 1) } else { port.url() }
    }

    /// Where it serves clients; all of it for one who speaks TLS.
    fn client_urls(&self) -> String {
        let plain = self.client.url();
        match &self.secure {
            Some((port, _)) => format!("{plain},https://127.0.0.1:{}", port.number()),
            None => plain,
        }
    }

    /// What it is told of certificates.
    fn security(&self) -> Vec<String> {
        let Some((_, directory)) = &self.secure else { return Vec::new() };
        let files = [("trusted-ca-file", "ca.crt"), ("cert-file", "member.crt"), ("key-file", "member.key")];
        ["", "peer-"]
            .iter()
            .flat_map(|family| {
                let file = |(flag, name): &(&str, &str)| {
                    format!("--{family}{flag}={}", directory.join(name).display())
                };
                let files = files.iter().map(file).collect::<Vec<_>>();
                files.into_iter().chain([format!("--{family}client-cert-auth")])
            })
            .collect()
    }

    fn log(&self) -> PathBuf {
        self.directory.with_extension("log")
    }

    /// The process, if it still runs.
    fn running(&mut self) -> Option<&mut Child> {
        if self.child.as_mut()?.try_wait().ok()?.is_some() {
            return None;
        }
        self.child.as_mut()
    }
}

/// Members that end, with their data, when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    links: Option<Links>,
    flags: Vec<String>,
    security: Option<PathBuf>,
    token: String,
    directory: Option<TempDir>,
}

impl Cluster {
    /// Starts a new cluster and waits until all its members follow one leader.
    ///
    /// # Errors
    /// When a process cannot be started, or there is no leader in time.
    pub async fn start(plan: Plan) -> Result<Self> {
        let mut cluster = Self::prepare(plan)?;
        for place in 0..cluster.size() {
            cluster.start_member(place)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Chooses ports and directories of a new cluster; nothing runs yet.
    ///
    /// # Errors
    /// When there are no ports or directories to be had.
    pub fn prepare(plan: Plan) -> Result<Self> {
        let directory = TempDir::with_prefix("cairn-cluster-")?;
        let token = directory.path().file_name().map(|name| name.to_string_lossy().into_owned());
        let mut cluster = Self {
            members: Vec::new(),
            links: plan.links.then(Links::new).transpose()?,
            flags: plan.flags,
            security: plan.security,
            token: token.context("a directory has a name")?,
            directory: Some(directory),
        };
        for system in plan.systems {
            cluster.new_member(system, "new")?;
        }
        let founders =
            cluster.members.iter().map(|member| format!("{}={}", member.name, member.advertised()));
        let founders = founders.collect::<Vec<_>>().join(",");
        cluster.members.iter_mut().for_each(|member| member.founders.clone_from(&founders));
        Ok(cluster)
    }

    fn new_member(&mut self, system: System, state: &'static str) -> Result<usize> {
        let place = self.members.len();
        let name = format!("m{place}");
        let peer = Port::reserve()?;
        let secure = match &self.security {
            Some(directory) => Some((Port::reserve()?, directory.clone())),
            None => None,
        };
        let front = self.links.is_some().then(Port::reserve).transpose()?;
        if let (Some(links), Some(front)) = (&self.links, &front) {
            links.add_front(place, front, &peer)?;
        }
        self.members.push(Member {
            system,
            directory: self.directory().join(&name),
            name,
            client: Port::reserve()?,
            peer,
            secure,
            front,
            state,
            founders: String::new(),
            id: None,
            child: None,
            paused: false,
        });
        Ok(place)
    }

    /// How many members there ever were.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// All places.
    pub fn places(&self) -> std::ops::Range<usize> {
        0..self.size()
    }

    /// All places but one.
    pub fn others(&self, than: usize) -> Vec<usize> {
        self.places().filter(|place| *place != than).collect()
    }

    /// Where the data and the logs of all members are.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("present until it is dropped").path()
    }

    /// The data directory of a member.
    pub fn data_directory(&self, place: usize) -> &Path {
        &self.members[place].directory
    }

    /// Where a member serves clients.
    pub fn endpoint(&self, place: usize) -> String {
        self.members[place].client.url()
    }

    /// Where a member serves clients that show a certificate.
    ///
    /// # Panics
    /// When the plan did not ask for it.
    pub fn secure_endpoint(&self, place: usize) -> String {
        let (port, _) = self.members[place].secure.as_ref().expect("the plan asks for certificates");
        format!("https://127.0.0.1:{}", port.number())
    }

    /// Where some members serve clients.
    pub fn endpoints(&self, places: &[usize]) -> Vec<String> {
        places.iter().map(|&place| self.endpoint(place)).collect()
    }

    /// Where a member serves other members, without its front.
    pub fn peer_endpoint(&self, place: usize) -> String {
        self.members[place].peer.url()
    }

    /// What a member tells the others that it can be found at.
    pub fn advertised_peer(&self, place: usize) -> String {
        self.members[place].advertised()
    }

    /// What a member runs.
    pub fn system(&self, place: usize) -> System {
        self.members[place].system
    }

    /// Has a member run something else from its next start on.
    pub fn set_system(&mut self, place: usize, system: System) {
        self.members[place].system = system;
    }

    /// The flags that every member gets at its next start, to be changed.
    pub fn flags_mut(&mut self) -> &mut Vec<String> {
        &mut self.flags
    }

    /// The links between the members.
    ///
    /// # Panics
    /// When the plan did not ask for any.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("the plan asks for links")
    }

    /// Starts a member that does not run, without waiting for anything.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_member(&mut self, place: usize) -> Result<()> {
        let (token, flags) = (self.token.clone(), self.flags.clone());
        let member = &mut self.members[place];
        ensure!(member.running().is_none(), "member {place} runs already");
        let directory = member.directory.to_str().context("a data directory has a printable name")?;
        let usual = [
            ("--name", member.name.clone()),
            ("--data-dir", directory.to_owned()),
            ("--listen-client-urls", member.client_urls()),
            ("--advertise-client-urls", member.client.url()),
            ("--listen-peer-urls", member.of_peers(&member.peer)),
            ("--initial-advertise-peer-urls", member.advertised()),
            ("--initial-cluster", member.founders.clone()),
            ("--initial-cluster-token", token),
            ("--initial-cluster-state", member.state.to_owned()),
        ];
        let usual = usual.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let log = File::options().create(true).append(true).open(member.log())?;
        let start = Start {
            program: member.system.binary()?,
            arguments: usual.chain(member.security()).chain(flags).collect(),
            environment: Vec::new(),
            log: Stdio::from(log),
        };
        member.child = Some(start.spawn()?);
        member.paused = false;
        Ok(())
    }

    /// Waits until every running member follows the same leader; its place.
    ///
    /// # Errors
    /// When that does not come to pass.
    pub async fn ready(&mut self) -> Result<usize> {
        let running = self.running();
        let leader = self.leader_of(&running).await?;
        self.identify().await?;
        Ok(leader)
    }

    /// Learns the ids of running members, and tells the links.
    async fn identify(&mut self) -> Result<()> {
        for place in self.running() {
            if self.members[place].id.is_none() {
                let status = self.status(place).await.context("a member that was asked before")?;
                self.know(place, status.header().context("a header")?.member_id());
            }
        }
        Ok(())
    }

    fn know(&mut self, place: usize, id: u64) {
        self.members[place].id = Some(id);
        if let Some(links) = &self.links {
            links.identify(id, place);
        }
    }

    /// The places of the members that run and are not paused.
    pub fn running(&mut self) -> Vec<usize> {
        let members = self.members.iter_mut().enumerate();
        let running = members.filter_map(|(place, member)| {
            let goes_on = !member.paused && member.running().is_some();
            goes_on.then_some(place)
        });
        running.collect()
    }

    /// A member's id.
    ///
    /// # Panics
    /// When it never was ready.
    pub fn id(&self, place: usize) -> u64 {
        self.members[place].id.expect("asked only after it was ready")
    }

    /// The place of the member with an id.
    pub fn place(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.id == Some(id))
    }

    /// The process id of a member that runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn pid(&mut self, place: usize) -> Result<u32> {
        let child = self.members[place].running().with_context(|| format!("member {place} does not run"))?;
        Ok(child.id())
    }

    /// Sends a signal to one member, and to it alone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, place: usize, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid(place)?.try_into()?).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Ends a member as a crash would; its port is closed when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, place: usize) -> Result<()> {
        self.signal(place, Signal::KILL)?;
        if let Some(mut child) = self.members[place].child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Stops a member in its tracks, its connections open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self, place: usize) -> Result<()> {
        self.signal(place, Signal::STOP)?;
        self.members[place].paused = true;
        Ok(())
    }

    /// Lets a paused member go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self, place: usize) -> Result<()> {
        self.signal(place, Signal::CONT)?;
        self.members[place].paused = false;
        Ok(())
    }

    /// Asks a member to end, and waits until it has, in order.
    ///
    /// # Errors
    /// When it does not run, does not end, or ends with a failure.
    pub async fn terminate(&mut self, place: usize) -> Result<()> {
        self.signal(place, Signal::TERM)?;
        let status = self.ended(place).await?;
        let in_order = match self.members[place].system {
            System::Cairn => status.success(),
            // When all is done it sends itself the same signal again.
            System::Etcd => status.signal() == Some(Signal::TERM.as_raw()),
        };
        ensure!(in_order, "member {place} ended with {status}: {}", self.last_words());
        Ok(())
    }

    /// Waits until a member has ended by itself.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn ended(&mut self, place: usize) -> Result<ExitStatus> {
        let mut child =
            self.members[place].child.take().with_context(|| format!("member {place} never ran"))?;
        let status = until("a member ends", async || child.try_wait().ok().flatten()).await;
        if status.is_err() {
            // It is still this one's to end.
            self.members[place].child = Some(child);
        }
        status.with_context(|| self.last_words())
    }

    /// Starts a member again and waits until it follows the others' leader.
    ///
    /// # Errors
    /// When it cannot be started, or does not find the others.
    pub async fn restart(&mut self, place: usize) -> Result<()> {
        self.start_member(place)?;
        self.ready().await.map(drop)
    }

    /// Removes the data of a member that does not run.
    ///
    /// # Errors
    /// When it runs, or the data cannot be removed.
    pub fn wipe(&mut self, place: usize) -> Result<()> {
        ensure!(self.members[place].running().is_none(), "member {place} runs");
        Ok(std::fs::remove_dir_all(&self.members[place].directory)?)
    }

    /// What a member has logged, all its lives.
    pub fn log(&self, place: usize) -> String {
        std::fs::read_to_string(self.members[place].log()).unwrap_or_default()
    }

    /// A client of some members, for requests of at most ten seconds.
    ///
    /// # Errors
    /// When the first of them does not accept a connection.
    pub async fn client(&self, places: &[usize]) -> Result<Client> {
        self.client_within(places, Duration::from_secs(10)).await
    }

    /// A client of some members, for requests that take no longer than `limit`.
    ///
    /// # Errors
    /// As [`Cluster::client`].
    pub async fn client_within(&self, places: &[usize], limit: Duration) -> Result<Client> {
        let endpoints = self.endpoints(places);
        connect(&endpoints, limit).await
    }

    /// What a member says of itself, if it says anything within a second.
    pub async fn status(&self, place: usize) -> Option<StatusResponse> {
        status(&self.endpoint(place)).await
    }

    /// Waits until these members all follow one of them in the same term; its place.
    ///
    /// # Errors
    /// When that does not come to pass.
    pub async fn leader_of(&mut self, places: &[usize]) -> Result<usize> {
        self.leader_and_term_of(places).await.map(|(leader, _)| leader)
    }

    /// As [`Cluster::leader_of`], with the term.
    ///
    /// # Errors
    /// When that does not come to pass.
    pub async fn leader_and_term_of(&mut self, places: &[usize]) -> Result<(usize, u64)> {
        let endpoints = self.endpoints(places);
        let members = &mut self.members;
        let agreed = until("members follow one leader", async || {
            if let Some(place) = places.iter().find(|&&place| members[place].running().is_none()) {
                return Some(Err(anyhow::anyhow!("member {place} does not run")));
            }
            agree(&endpoints).await.map(Ok)
        });
        let (at, term) = agreed.await.and_then(|agreed| agreed).with_context(|| self.last_words())?;
        Ok((places[at], term))
    }

    /// Waits until all running members follow one leader; its place.
    ///
    /// # Errors
    /// When that does not come to pass.
    pub async fn leader(&mut self) -> Result<usize> {
        let running = self.running();
        self.leader_of(&running).await
    }

    /// [`same_data`] of these members.
    ///
    /// # Errors
    /// When they have not the same.
    pub async fn same_data(&self, places: &[usize]) -> Result<i64> {
        same_data(&self.endpoints(places)).await.with_context(|| self.last_words())
    }

    /// The ends of all logs, for a failure to be understood.
    pub fn last_words(&self) -> String {
        let words = self.places().map(|place| {
            let log = self.log(place);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
            format!("the log of member {place} ends:\n  {tail}")
        });
        words.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.kill();
        }
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.wait();
        }
        if std::env::var_os("CAIRN_TEST_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}
