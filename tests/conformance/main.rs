//! The same commands and requests to real etcd and to Cairn, every answer compared.
//!
//! Three parts. `commands.txt` is a list of etcdctl command lines, run one after the other against
//! both servers: what they print and their exit codes must be equal. Sequences are some hundred
//! requests each that a seed chooses, sent as they are over gRPC: every field of every answer and
//! every error must be equal. `json.txt` is a list of requests to the JSON gateway. What may differ stands in `differences.txt`, each with its reason;
//! anything else fails, and what stands there without need is reported.
//!
//! With `CAIRN_TEST_MEMBERS=3` both are clusters, and each request goes to the next member of them;
//! what is a member's own (ids, URLs) is hidden, and `differences-cluster.txt` allows a little more.
//!
//! `scripts/conformance` runs all of it. Without `CAIRN_ETCD_BIN_DIR` there is no etcd to compare
//! with, and this test says so and does nothing.

#![allow(clippy::unwrap_used)]

mod call;
mod commands;
mod dice;
mod edges;
mod fields;
mod generate;
mod json;
mod pair;
mod rules;
mod sequence;
mod watching;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rules::Rules;

/// What the command line asks for.
struct Options {
    seeds: u64,
    operations: usize,
    /// One sequence alone, telling each of its requests.
    seed: Option<u64>,
    commands: bool,
    /// Everything runs, so a rule that nothing needs is one too many.
    all: bool,
}

/// How many sequences are all.
const ALL: u64 = 220;
/// The same with several members, where each sequence starts six processes.
const ALL_OF_SEVERAL: u64 = 30;

const USAGE: &str = "options: --seeds N, --operations N, --seed N (one alone, told in full), --no-commands";

fn main() -> ExitCode {
    fields::check();
    if tests::etcd_directory().is_none() {
        eprintln!("SKIPPED: nothing was compared with etcd. scripts/conformance installs etcd and compares.");
        return ExitCode::SUCCESS;
    }
    match options().and_then(|options| run(&options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The few seeds of a plain `cargo test` are a first look; the script asks for all.
fn options() -> Result<Options> {
    let mut options = Options { seeds: 12, operations: 300, seed: None, commands: true, all: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> { Ok(arguments.next().context(USAGE)?.parse()?) };
        match argument.as_str() {
            "--seeds" => options.seeds = number()?,
            "--operations" => options.operations = number()? as usize,
            "--seed" => options.seed = Some(number()?),
            "--all" if pair::members() > 1 => (options.all, options.seeds) = (true, ALL_OF_SEVERAL),
            "--all" => (options.all, options.seeds) = (true, ALL),
            "--no-commands" => options.commands = false,
            // What cargo passes to every test, such as --quiet or a filter.
            _ => {}
        }
    }
    Ok(options)
}

/// Runs what is asked for; how many comparisons failed.
fn run(options: &Options) -> Result<usize> {
    let rules = Rules::read();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(seed) = options.seed {
        let ended = runtime.block_on(sequence::run(seed, options.operations, &rules, true))?;
        return Ok(ended.parted.iter().inspect(|parted| tell(seed, options, parted)).count());
    }
    let mut commands = commands::Report::default();
    if options.commands {
        commands = commands::run(&rules)?;
    }
    let mut json = json::Report::default();
    // What one member answers is what any does, and numbers would differ more with several.
    if options.commands && pair::members() == 1 {
        json = json::run()?;
    }
    let mut failed = 0;
    let mut operations = 0;
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    runtime.block_on(sequence::run_all(
        0..options.seeds,
        options.operations,
        &rules,
        |seed, ended| match ended {
            Ok(ended) => {
                operations += ended.operations;
                if let Some(parted) = &ended.parted {
                    failed += 1;
                    tell(seed, options, parted);
                    *places.entry(parted.differences[0].place.clone()).or_default() += 1;
                }
            }
            Err(error) => {
                failed += 1;
                println!("seed {seed}: {error:#}");
            }
        },
    ));
    for (place, count) in places {
        println!("{count:>5} × {place}");
    }
    if options.all && options.commands {
        for idle in rules.idle() {
            println!("allowed, but did not occur: {idle}");
        }
    }
    failed += commands.failed + json.failed;
    println!(
        "{} command lines, {} JSON requests, {} seeds, {operations} operations, {failed} differences",
        commands.commands, json.requests, options.seeds
    );
    Ok(failed)
}

fn tell(seed: u64, options: &Options, parted: &sequence::Parted) {
    let shorten = |text: &str| text.chars().take(1_500).collect::<String>();
    println!("seed {seed}, operation {}: {}", parted.operation, shorten(&parted.call));
    for difference in parted.differences.iter().take(6) {
        println!("   {}", shorten(&difference.to_string()));
    }
    let members = match pair::members() {
        1 => String::new(),
        members => format!("--members {members} "),
    };
    println!("   again: scripts/conformance {members}--seed {seed} --operations {}", options.operations);
}
