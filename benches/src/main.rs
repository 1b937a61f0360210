//! Load driver: measures an etcd-compatible server from outside, and Cairn beside etcd.
//!
//! A claim such as "twice etcd's puts per CPU second" only means something when both were measured
//! in one run, on one machine, by one client. So `compare` starts etcd and Cairn by turns, each on an
//! empty directory of its own, does the same to both, and prints medians, ratios and whether each
//! target of the project is met:
//!
//! ```text
//! CAIRN_ETCD_BIN_DIR=/path/to/bin cargo run --release -p benches -- compare            # about 20 minutes
//! CAIRN_ETCD_BIN_DIR=/path/to/bin cargo run --release -p benches -- compare --quick    # about 2 minutes
//! CAIRN_ETCD_BIN_DIR=/path/to/bin cargo run --release -p benches -- compare --members 3 --quick
//! CAIRN_ETCD_BIN_DIR=/path/to/bin cargo run --release -p benches -- failover           # about 10 minutes
//! cargo run --release -p benches -- run --endpoint 127.0.0.1:2379                      # whatever serves there
//! cargo run --release -p benches -- rows                                               # what can be measured
//! ```
//!
//! # What a row is
//!
//! One kind of load ([`rows`]). Each run of it has a fresh server, fills it if the load needs data,
//! lets the load run warm, and then opens a window ([`engine`]). Only what happens inside counts:
//! answers, their latencies, and the server's CPU time, read from `/proc` at both ends. Peak memory
//! counts from after the filling (the kernel's high-water mark is reset then), bytes on disk are the
//! blocks allocated when the window closes.
//!
//! The figure that matters most here is operations per server CPU second. Driver and server share the
//! machine, so operations per second say as much about the driver; CPU time is charged to the server
//! alone. Latencies have no such shelter: on a machine that does anything else, p99 is that else. The
//! head of the report names the load average, and `by round` shows how far the rounds lie apart.
//!
//! | load | pace | latency counts from |
//! |---|---|---|
//! | closed ([`load::closed_loop`]) | each caller waits for its answer | the call |
//! | open ([`load::offer`]) | a fixed schedule, whatever the server does | the scheduled moment |
//!
//! With `--members 3` each system is a cluster: clients are spread over all members, a lone client is
//! the leader's, and CPU time, memory and disk are the members' sums. [`failover`] measures something
//! else: how long nobody can write when a leader goes.
//!
//! # What is left out
//!
//! TLS and authentication; networks, since members of a cluster all run on this machine; the driver's own CPU time; and a wait for the
//! disk cache: every server writes to the same file system under the same conditions. A row in which
//! any call fails, or gives a wrong number of keys, is reported as failed and not judged.
//!
//! The third system, `bare`, is tonic's KV service with nothing behind it ([`bare`]): the distance
//! from it is what storing, agreeing and telling watchers costs.

mod bare;
mod cli;
mod client;
mod compare;
mod engine;
mod failover;
mod interrupt;
mod keys;
mod load;
mod metric;
mod process;
mod procfs;
mod random;
mod report;
mod rows;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use cli::{Measure, Task};
use report::Head;

/// Cairn's allocator, so that the bare service is the same stack with nothing behind it; and a driver
/// that allocates cheaply leaves more of the machine to the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = cli::parse().and_then(|task| match task {
        Task::Measure(task) => measure(&task),
        Task::Failover(task, json) => {
            interrupt::watch()?;
            let figures = failover::run(&task)?;
            if let Some(path) = json {
                let text = serde_json::to_string_pretty(&figures)?;
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(true)
        }
        Task::Bare(address, threads) => bare::serve(address, threads).map(|()| true),
        Task::ListRows => {
            rows::ROWS.iter().for_each(|row| println!("{:<22} {}", row.name, row.title));
            Ok(true)
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benches: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs all rows, printing each as it ends; false when `--check` found something wanting.
fn measure(task: &Measure) -> Result<bool> {
    interrupt::watch()?;
    let head = Head { systems: &task.systems, settings: &task.settings, rounds: task.rounds };
    let only_json = task.json.as_deref() == Some(Path::new("-"));
    let say = |text: String| {
        if !only_json && !text.is_empty() {
            println!("{text}");
        }
    };
    say(report::head(&head));
    let mut outcomes = Vec::new();
    for row in &task.rows {
        match compare::run_row(row, &task.systems, task.rounds, &task.settings) {
            Some(outcome) => {
                say(report::row(&outcome));
                outcomes.push(outcome);
            }
            None => say(format!("{}: needs a server started by the driver, left out\n", row.name)),
        }
    }
    say(report::verdicts(&outcomes));
    let (met, judged) = report::score(&outcomes);
    if judged > 0 {
        say(format!("{met} of {judged} targets met"));
    }
    if let Some(path) = &task.json {
        let json = serde_json::to_string_pretty(&report::json(&head, &outcomes))?;
        if only_json {
            println!("{json}");
        } else {
            std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let failed = outcomes.iter().flat_map(|outcome| &outcome.results).any(|result| result.failure.is_some());
    Ok(!task.check || (met == judged && !failed))
}
