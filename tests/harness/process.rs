//! Processes that end with the one that started them.
//!
//! Whoever holds a [`Child`] ends it when dropped, also while a test panics. But a test process may
//! itself be killed, and nobody must find a hundred servers running the next morning. So, where the
//! system can do that (Linux, through `setpriv`), each server is started under the kernel's promise to
//! kill it when its parent ends. The kernel means the parent's *thread*, and threads of a runtime come
//! and go; so one thread that lives as long as the process starts them all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context as _, Result, bail};

/// A process to be started. It has nothing on its standard input, and its standard output goes
/// nowhere.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Where the log goes.
    pub(crate) log: Stdio,
}

impl Start {
    /// Starts it.
    pub(crate) fn spawn(self) -> Result<Child> {
        // Through `setpriv` a program that is not there would look like one that ended at once.
        if self.program.is_absolute() && !self.program.exists() {
            bail!("{} does not exist", self.program.display());
        }
        let mut command = match setpriv() {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log);
        parent(command).with_context(|| format!("starting {}", self.program.display()))
    }
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Has the lasting thread start it.
fn parent(command: Command) -> Result<Child> {
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, received) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, started) = channel();
    orders
        .lock()
        .expect("sending does not panic")
        .send((command, answer))
        .ok()
        .context("the starter ended")?;
    Ok(started.recv().context("the starter ended")??)
}

fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let paths = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin"));
            let found = std::env::split_paths(&paths).map(|directory| directory.join("setpriv"));
            found.filter(|path| path.is_file()).find(|path| {
                let asked = Command::new(path).args(["--pdeathsig", "KILL", "--", "true"]).output();
                asked.is_ok_and(|output| output.status.success())
            })
        })
        .as_deref()
}
