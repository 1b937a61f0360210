//! Members in network namespaces: real packets that are lost, late, doubled and out of order, and
//! links that are really gone. `scripts/cluster --namespaces` does the work; it needs root.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tests::support::count;
use tests::{System, agree, until};

use crate::load::Load;

const SOME: u64 = 300;

/// The script, at the members' prompt.
struct Network {
    script: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// By number, from 1; the first is nobody's.
    endpoints: Vec<String>,
    _directory: tempfile::TempDir,
}

impl Network {
    /// Starts three members; nothing where that is not permitted.
    fn start() -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cluster"))
            .args(["--namespaces", "--driven", "--binary"])
            .arg(System::under_test().binary()?)
            .arg("--data-dir")
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let commands = script.stdin.take();
        let answers = BufReader::new(script.stdout.take().context("a pipe")?);
        let mut network =
            Self { script, commands, answers, endpoints: vec![String::new()], _directory: directory };
        loop {
            let line = network.line()?;
            if line.is_empty() {
                let error = std::io::read_to_string(network.script.stderr.take().context("a pipe")?)?;
                if error.contains("need root") && count("CAIRN_TEST_NAMESPACES", 0) == 0 {
                    println!("SKIPPED: {error}");
                    return Ok(None);
                }
                bail!("scripts/cluster: {error}");
            }
            if let Some((_, rest)) = line.split_once("  clients ") {
                network.endpoints.push(rest.split(' ').next().context("an endpoint")?.to_owned());
            }
            if line.contains("Ctrl-C stops all members") {
                return Ok(Some(network));
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line)
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands.as_mut().context("it listens until it is dropped")?, "{command}")?;
        loop {
            match self.line()?.trim() {
                "ok" => return Ok(()),
                "" => continue,
                line if line.starts_with("error") => bail!("{command}: {line}"),
                // It tells of members that have ended.
                line => println!("{line}"),
            }
        }
    }

    /// The number of the member that all of these follow.
    async fn leader_of(&self, members: &[usize]) -> Result<usize> {
        let endpoints: Vec<String> = members.iter().map(|&member| self.endpoints[member].clone()).collect();
        until("members follow one leader", async || agree(&endpoints).await.map(|(at, _)| members[at])).await
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The end of its input is the script's sign to stop everything.
        drop(self.commands.take());
        let _ = self.script.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_lost_late_doubled_and_reordered_and_links_go() -> Result<()> {
    let Some(mut network) = Network::start()? else { return Ok(()) };
    let all = [1, 2, 3];
    let load = Load::start_at(&network.endpoints[1..]);
    load.progress(SOME).await?;

    network.tell("slow all all delay=10ms jitter=10ms loss=2% reorder=20% duplicate=2%")?;
    load.progress(SOME).await?;
    network.tell("heal")?;

    let leader = network.leader_of(&all).await?;
    let others: Vec<usize> = all.into_iter().filter(|member| *member != leader).collect();
    network.tell(&format!("isolate {leader}"))?;
    network.leader_of(&others).await?;
    load.progress(SOME).await?;
    network.tell("heal")?;
    load.progress(SOME).await?;

    // What one sends to another is lost, and what comes back is not.
    let leader = network.leader_of(&all).await?;
    for other in all.into_iter().filter(|member| *member != leader) {
        network.tell(&format!("cut-one-way {other} {leader}"))?;
    }
    load.progress(SOME).await?;
    network.tell("heal")?;

    network.tell("kill 1")?;
    load.progress(SOME).await?;
    network.tell("start 1")?;
    network.leader_of(&all).await?;
    load.progress(SOME).await?;
    load.finish_at(&network.endpoints[1..]).await?;
    Ok(())
}
