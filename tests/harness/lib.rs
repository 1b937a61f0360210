//! Runs the real binary for tests that look at it from outside, as its users do.
//!
//! A [`Server`] is a process of its own with its own data directory and ports that the system chose;
//! it ends when it is dropped. Nothing here sleeps to wait: readiness is the log line that scripts
//! wait for, and the end of a process is waited for by its id.
//!
//! A [`Cluster`] is several of them, with links between them that can be cut.
//!
//! Suites that compare with real etcd start it the same way, from the directory that
//! `CAIRN_ETCD_BIN_DIR` names (see `scripts/install-etcd`).

mod ask;
mod cluster;
mod links;
mod ports;
mod process;
#[cfg(test)]
mod reference;
pub mod support;
mod until;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, kill_process, prlimit};

pub use ask::{agree, connect, same_data, status};
pub use cluster::{Cluster, Plan, System};
pub use links::{Link, Links};
pub use ports::Port;
pub use rustix::process::Signal;
pub use until::{PATIENCE, until, until_within};

use process::Start;

/// The binary under test: `CAIRN_BIN`, or the one that cargo has built beside the running test,
/// or, where there is none yet, the one that it builds now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| find_binary().expect("the cairn binary can be found or built"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CAIRN_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("a test lies in target/<profile>/deps")?;
    // Cargo does nothing if it is up to date, which it is in a run of the whole workspace.
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "cairn", "--bin", "cairn"]);
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    if !build.status()?.success() {
        bail!("cairn does not build");
    }
    Ok(profile.join("cairn"))
}

/// Where the binaries of real etcd are (`etcd`, `etcdctl`), if this machine has them.
pub fn etcd_directory() -> Option<PathBuf> {
    std::env::var_os("CAIRN_ETCD_BIN_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// How a server was started, so that it can be started again in the same way.
#[derive(Clone)]
struct Launch {
    program: PathBuf,
    directory: PathBuf,
    client: Arc<Port>,
    peer: Arc<Port>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// The usual arguments, with `flags` behind them.
    fn usual(program: &Path, directory: &Path, flags: &[&str]) -> Result<Self> {
        let (client_port, peer_port) = (Port::reserve()?, Port::reserve()?);
        let (client, peer) = (client_port.url(), peer_port.url());
        let founders = format!("default={peer}");
        let usual = [
            "--data-dir",
            directory.to_str().context("a data directory has a printable name")?,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &founders,
        ];
        Ok(Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            client: Arc::new(client_port),
            peer: Arc::new(peer_port),
            arguments: usual.iter().chain(flags).map(|&argument| argument.to_owned()).collect(),
            environment: Vec::new(),
        })
    }

    /// Members of one cluster, each with the usual arguments. The one that clients are to use comes
    /// first: another one each time.
    fn several(members: usize, directory: &Path, flags: &[&str]) -> Result<Vec<Self>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut launches = (0..members)
            .map(|number| Self::usual(binary(), &directory.join(format!("m{number}")), &[]))
            .collect::<Result<Vec<_>>>()?;
        let founders = launches.iter().enumerate();
        let founders: Vec<String> =
            founders.map(|(number, launch)| format!("m{number}={}", launch.peer.url())).collect();
        for (number, launch) in launches.iter_mut().enumerate() {
            let own = ["--name".to_owned(), format!("m{number}")];
            let all = ["--initial-cluster".to_owned(), founders.join(",")];
            // The last of a repeated flag counts.
            launch.arguments.extend(own.into_iter().chain(all));
            launch.arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        }
        launches.rotate_left(NEXT.fetch_add(1, Ordering::Relaxed) % members);
        Ok(launches)
    }

    fn spawn(&self) -> Result<Child> {
        let start = Start {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            log: Stdio::piped(),
        };
        start.spawn()
    }
}

/// How many members a [`Server::start`] starts: `CAIRN_TEST_MEMBERS`, or one. With several, the server
/// of a test is one of them, of each test another, and the rest is there to agree with it.
fn members() -> usize {
    support::count("CAIRN_TEST_MEMBERS", 1).max(1)
}

/// A running server.
pub struct Server {
    launch: Launch,
    child: Child,
    log: Log,
    /// The other members.
    companions: Vec<Server>,
}

/// The lines that a server has logged so far.
type Log = Arc<Mutex<Vec<String>>>;

impl Server {
    /// Starts a server on a data directory, with more flags after the usual ones.
    pub fn start(directory: &Path, flags: &[&str]) -> Result<Self> {
        match members() {
            1 => Self::launch(Launch::usual(binary(), directory, flags)?),
            members => Self::launch_all(Launch::several(members, directory, flags)?),
        }
    }

    /// Starts real etcd in the same way.
    pub fn start_etcd(directory: &Path, flags: &[&str]) -> Result<Self> {
        let binaries = etcd_directory().context("CAIRN_ETCD_BIN_DIR is not set")?;
        Self::launch(Launch::usual(&binaries.join("etcd"), directory, flags)?)
    }

    /// Starts a server with the arguments and the environment that `configure` makes of the URLs for
    /// clients and for peers, and with nothing else.
    pub fn start_configured(
        directory: &Path,
        configure: impl FnOnce(&str, &str) -> (Vec<String>, Vec<(String, String)>),
    ) -> Result<Self> {
        let usual = Launch::usual(binary(), directory, &[])?;
        let (arguments, environment) = configure(&usual.client.url(), &usual.peer.url());
        Self::launch(Launch { arguments, environment, ..usual })
    }

    /// Runs a server that is expected to refuse to start: its exit status and its log.
    pub fn refusal(directory: &Path, flags: &[&str]) -> Result<(ExitStatus, String)> {
        Launch::usual(binary(), directory, flags)?.refusal()
    }

    fn launch(launch: Launch) -> Result<Self> {
        Self::launch_all(vec![launch])
    }

    /// Starts members, none of which is ready before most of them run; the first is the server.
    fn launch_all(launches: Vec<Launch>) -> Result<Self> {
        let mut started = Vec::new();
        for launch in launches {
            let mut child = launch.spawn()?;
            let log = Log::default();
            let ready = follow(&mut child, Arc::clone(&log));
            started.push((Self { launch, child, log, companions: Vec::new() }, ready));
        }
        let mut servers = Vec::new();
        for (mut server, ready) in started {
            if ready.recv_timeout(PATIENCE).is_err() {
                let end = server.child.try_wait();
                bail!("the server did not become ready ({end:?}):\n{}", server.log().join("\n"));
            }
            servers.push(server);
        }
        let mut servers = servers.into_iter();
        let mut server = servers.next().context("one server at least")?;
        server.companions = servers.collect();
        Ok(server)
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> String {
        self.launch.client.url()
    }

    /// The port that clients connect to.
    pub fn client_port(&self) -> u16 {
        self.launch.client.number()
    }

    /// The port that other members would connect to.
    pub fn peer_port(&self) -> u16 {
        self.launch.peer.number()
    }

    /// A client of this server.
    pub async fn client(&self) -> Result<etcd_client::Client> {
        Ok(etcd_client::Client::connect([self.endpoint()], None).await?)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no reader of the log panics").clone()
    }

    /// Sends a signal to the process, and to it alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Limits the files and connections that the process may have open from now on.
    pub fn limit_open_files(&self, most: u64) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("a process has an id")?;
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(pid), Resource::Nofile, limit)?;
        Ok(())
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(self) -> Result<Stopped> {
        self.end(Signal::KILL).map(|(stopped, _)| stopped)
    }

    /// Waits until it has ended by itself: also its exit status and its log.
    pub async fn fails(mut self) -> Result<(Stopped, ExitStatus, Vec<String>)> {
        let child = &mut self.child;
        let status = until("the server ends", async || child.try_wait().ok().flatten()).await;
        let status = status.with_context(|| self.log().join("\n"))?;
        // Its log ends with it; whoever reads it may be a moment behind.
        until("its log is read", async || (Arc::strong_count(&self.log) == 1).then_some(())).await?;
        let companions = self.companions.iter().map(|companion| companion.launch.clone()).collect();
        Ok((Stopped { launch: self.launch.clone(), companions }, status, self.log()))
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(self) -> Result<(Stopped, ExitStatus)> {
        self.end(Signal::TERM)
    }

    /// Sends it a signal and waits until it has ended by itself.
    pub fn end(mut self, signal: Signal) -> Result<(Stopped, ExitStatus)> {
        self.signal(signal)?;
        self.companions.iter().try_for_each(|companion| companion.signal(signal))?;
        let status = self.child.wait()?;
        let mut companions = Vec::new();
        for companion in &mut self.companions {
            companion.child.wait()?;
            companions.push(companion.launch.clone());
        }
        Ok((Stopped { launch: self.launch.clone(), companions }, status))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already, or to be gone now; a test that fails must not leave it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that has ended and can be started again where it was.
pub struct Stopped {
    launch: Launch,
    companions: Vec<Launch>,
}

impl Stopped {
    /// Starts it again on the same directory and ports.
    pub fn start(self) -> Result<Server> {
        Server::launch_all(std::iter::once(self.launch).chain(self.companions).collect())
    }

    /// Runs it again where it is expected to refuse to start: its exit status and its log.
    pub fn refusal(&self) -> Result<(ExitStatus, String)> {
        self.launch.refusal()
    }

    /// Its data directory.
    pub fn directory(&self) -> &Path {
        &self.launch.directory
    }
}

impl Launch {
    fn refusal(&self) -> Result<(ExitStatus, String)> {
        let mut child = self.spawn()?;
        let log = Log::default();
        let ready = follow(&mut child, Arc::clone(&log));
        // The sender goes with the end of the log, which is the end of the process.
        if ready.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Disconnected) {
            child.kill()?;
            child.wait()?;
            bail!("the server does not refuse to start");
        }
        let log = log.lock().expect("no reader of the log panics").join("\n");
        Ok((child.wait()?, log))
    }
}

/// Reads the log to its end, so that the server never waits for its reader. What is returned tells
/// of readiness once; it is disconnected where the log ends first.
fn follow(child: &mut Child, log: Log) -> Receiver<()> {
    let (sender, ready) = channel();
    if let Some(lines) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(std::io::Result::ok) {
                let is_ready = line.contains("ready to serve client requests");
                log.lock().expect("no reader of the log panics").push(line);
                if is_ready {
                    // Once it is ready nobody listens; the log is read all the same.
                    let _ = sender.send(());
                }
            }
        });
    }
    ready
}

/// The bytes of memory that a process has resident, from `/proc`.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = BufReader::new(File::open(format!("/proc/{pid}/status"))?);
    for line in status.lines() {
        if let Some(rest) = line?.strip_prefix("VmRSS:") {
            let kilobytes: u64 = rest.trim().trim_end_matches("kB").trim().parse()?;
            return Ok(kilobytes * 1024);
        }
    }
    bail!("/proc/{pid}/status has no VmRSS")
}
