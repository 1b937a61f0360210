//! `cargo run -p sim -- 7301` runs life 7301 and every crash of it, and says what it tried.

use std::process::ExitCode;

use sim::checker::Effort;
use sim::{Check, Plan};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "core") {
        return sim::core::main(&args[1..]);
    }
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (seed, commands) = match (numbers.next(), numbers.next()) {
        (Some(Ok(seed)), None) => (seed, 40),
        (Some(Ok(seed)), Some(Ok(commands))) => (seed, commands),
        _ => {
            eprintln!("usage: sim SEED [COMMANDS]");
            return ExitCode::from(2);
        }
    };
    println!("seed {seed}, {commands} commands");
    let mut check = Check::new(Plan::default());
    let effort = Effort { images: 8, calls: 1, again: 40, singles: false };
    match check.life(seed, commands, effort) {
        Ok(()) => {
            println!("{} crash images, {} of them of a second crash: all well", check.images, check.second);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
