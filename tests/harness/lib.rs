//! Runs the real binary for tests that look at it from outside, as its users do.
//!
//! A [`Server`] is a process of its own with its own data directory and ports that the system chose;
//! it ends when it is dropped. Nothing here sleeps to wait: readiness is the log line that scripts
//! wait for, and the end of a process is waited for by its id.
//!
//! Suites that compare with real etcd start it the same way, from the directory that
//! `CAIRN_ETCD_BIN_DIR` names (see `scripts/install-etcd`).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to become ready before a test fails: far more than it ever needs.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A running server.
pub struct Server {
    program: PathBuf,
    child: Child,
    directory: PathBuf,
    client_port: u16,
    peer_port: u16,
    flags: Vec<String>,
}

impl Server {
    /// Starts a server on a data directory, with more flags after the usual ones.
    pub fn start(directory: &Path, flags: &[&str]) -> Result<Self> {
        Self::start_program(binary(), directory, flags)
    }

    /// Starts real etcd in the same way.
    pub fn start_etcd(directory: &Path, flags: &[&str]) -> Result<Self> {
        let binaries = etcd_directory().context("CAIRN_ETCD_BIN_DIR is not set")?;
        Self::start_program(&binaries.join("etcd"), directory, flags)
    }

    fn start_program(program: &Path, directory: &Path, flags: &[&str]) -> Result<Self> {
        let (client_port, peer_port) = free_ports()?;
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self::launch(program.to_owned(), directory.to_owned(), client_port, peer_port, flags)
    }

    fn launch(
        program: PathBuf,
        directory: PathBuf,
        client_port: u16,
        peer_port: u16,
        flags: Vec<String>,
    ) -> Result<Self> {
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut child = Command::new(&program)
            .arg("--data-dir")
            .arg(&directory)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(&flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the server")?;
        let lines = follow(&mut child);
        let mut server = Self { program, child, directory, client_port, peer_port, flags };
        let mut seen = Vec::new();
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains("ready to serve client requests") => return Ok(server),
                Ok(line) => seen.push(line),
                Err(_) => {
                    let end = server.child.try_wait();
                    bail!("the server did not become ready ({end:?}):\n{}", seen.join("\n"));
                }
            }
        }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// A client of this server.
    pub async fn client(&self) -> Result<etcd_client::Client> {
        Ok(etcd_client::Client::connect([self.endpoint()], None).await?)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process, and to it alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(mut self) -> Result<Stopped> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(self.stopped())
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) -> Result<(Stopped, ExitStatus)> {
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        Ok((self.stopped(), status))
    }

    fn stopped(&self) -> Stopped {
        Stopped {
            program: self.program.clone(),
            directory: self.directory.clone(),
            client_port: self.client_port,
            peer_port: self.peer_port,
            flags: self.flags.clone(),
        }
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
    program: PathBuf,
    directory: PathBuf,
    client_port: u16,
    peer_port: u16,
    flags: Vec<String>,
}

impl Stopped {
    /// Starts it again on the same directory and ports.
    pub fn start(self) -> Result<Server> {
        Server::launch(self.program, self.directory, self.client_port, self.peer_port, self.flags)
    }
}

/// Two ports that nobody listens on at the moment.
fn free_ports() -> Result<(u16, u16)> {
    let (client, peer) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((client.local_addr()?.port(), peer.local_addr()?.port()))
}

/// Reads the log to its end, so that the server never waits for its reader.
fn follow(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    if let Some(log) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(std::io::Result::ok) {
                // Once it is ready nobody listens; the log is read all the same.
                let _ = sender.send(line);
            }
        });
    }
    lines
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
