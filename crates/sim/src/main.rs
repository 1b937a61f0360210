//! The simulator's command line.
//!
//! ```text
//! sim SEED                                  the cluster of this seed, once more
//! sim run [--seeds N] [--from S] [--jobs J] [--seconds T]   many of them, summed up
//! sim planted [NAME] [--seconds T]          planted bugs, and within how many seeds each is found
//! sim hunt [--seeds N] [--jobs J] [--seconds T]   many seeds, until something is wrong
//! sim core ...                              raft and node alone
//! sim life SEED [COMMANDS]                  one member, and every crash of it
//! ```

use std::process::ExitCode;
use std::time::Duration;

use sim::checker::Effort;
use sim::cluster::many::{self, Bounds};
use sim::{Check, Plan};

const USAGE: &str = "usage: sim SEED | run [--seeds N] [--from S] [--jobs J] [--seconds T] | \
                     planted [NAME] [--seconds T] | hunt [--seeds N] [--jobs J] [--seconds T] | \
                     core ... | life SEED [COMMANDS]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["core", ..] => return sim::core::main(&args[1..]),
        ["run", ..] => run(&words[1..]),
        ["planted", ..] => planted(&words[1..]),
        ["hunt", ..] => hunt(&words[1..]),
        ["life", seed] => number(seed).map(|seed| life(seed, 40)),
        ["life", seed, commands] => number(seed).zip(number(commands)).map(|(seed, n)| life(seed, n)),
        [seed] => number(seed).map(once),
        _ => None,
    };
    match done {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// The values of `--name value` pairs, in the order of `names`.
fn options(words: &[&str], names: &[&str]) -> Option<Vec<Option<u64>>> {
    let mut values = vec![None; names.len()];
    let mut rest = words.chunks_exact(2);
    for pair in &mut rest {
        let at = names.iter().position(|name| *name == pair[0])?;
        values[at] = Some(number(pair[1])?);
    }
    rest.remainder().is_empty().then_some(values)
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn once(seed: u64) -> bool {
    println!("seed {seed}");
    match sim::cluster::run(seed) {
        Ok(report) => {
            println!("{report:#?}");
            true
        }
        Err(what) => {
            println!("failed: {what}");
            false
        }
    }
}

fn run(words: &[&str]) -> Option<bool> {
    let values = options(words, &["--seeds", "--from", "--jobs", "--seconds"])?;
    let bounds = Bounds {
        from: values[1].unwrap_or(1),
        seeds: values[0].unwrap_or(if values[3].is_some() { u64::MAX } else { 1000 }),
        jobs: values[2].unwrap_or_else(cores) as usize,
        time: values[3].map(Duration::from_secs),
        failures: 10,
    };
    println!("seeds from {}", bounds.from);
    let summary = many::run(bounds);
    print!("{summary}");
    Some(summary.failures.is_empty())
}

fn hunt(words: &[&str]) -> Option<bool> {
    let values = options(words, &["--seeds", "--jobs", "--seconds"])?;
    let bounds = Bounds {
        from: 1,
        seeds: values[0].unwrap_or(u64::MAX),
        jobs: values[1].unwrap_or_else(cores) as usize,
        time: Some(Duration::from_secs(values[2].unwrap_or(60))),
        failures: 1,
    };
    let found = many::hunt(bounds);
    if let Some((seeds, what)) = &found {
        let line = what.lines().next().unwrap_or_default();
        println!("found within {seeds} seeds: {line}");
    }
    Some(found.is_some())
}

fn planted(words: &[&str]) -> Option<bool> {
    let (only, words) = match words {
        [name, rest @ ..] if !name.starts_with("--") => (Some(*name), rest),
        all => (None, all),
    };
    let values = options(words, &["--seconds"])?;
    Some(many::planted(only, values[0].unwrap_or(60)))
}

/// One member, from a seed, and every crash of it.
fn life(seed: u64, commands: u64) -> bool {
    println!("seed {seed}, {commands} commands");
    let mut check = Check::new(Plan::default());
    let effort = Effort { images: 8, calls: 1, again: 40, singles: false };
    match check.life(seed, commands, effort) {
        Ok(()) => {
            println!("{} crash images, {} of them of a second crash: all well", check.images, check.second);
            true
        }
        Err(error) => {
            println!("{error}");
            false
        }
    }
}
