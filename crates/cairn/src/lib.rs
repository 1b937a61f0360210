//! The `cairn` binary as a function: flags, environment, YAML, log, and the start of a member.
//!
//! `flags` knows every flag of etcd and how it is written, `config` makes a configuration of what was given,
//! `logging` writes lines as etcd does, `systemd` tells a service manager how far the member is, and `tool` is
//! the work that needs no member. What a member *is* lives in the other rooms; this one reads what the user
//! wants, and says no in etcd's words when it makes no sense.

mod config;
mod doors;
mod flags;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod logging;
mod note;
mod serve;
mod systemd;
mod tool;

use std::io::{self, Write};
use std::net::{IpAddr, UdpSocket};
use std::process::ExitCode;

use config::Config;
use config::load::{Loaded, Verdict, World, load};
use note::{Level, Note};

/// All that the binary does: reads the command line and the environment, then serves or works on files.
pub fn main() -> ExitCode {
    let _log_is_written = logging::Finish;
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(code) = tool::run(&args) {
        return code;
    }
    let env: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let world = World { read: &|path| std::fs::read(path), default_host: &default_host };
    let Loaded { notes, verdict } = load(&args, &env, &world);
    match verdict {
        Verdict::Serve(config) => match logging::start(&config.log) {
            Ok(()) => {
                notes.iter().for_each(logging::note);
                run(*config)
            }
            Err(words) => {
                let refusal = Note::new(Level::Warn, "failed to verify flags").text("error", &words);
                complain(&notes, Some(&refusal));
                ExitCode::FAILURE
            }
        },
        Verdict::Stop { stdout, stderr, code } => {
            complain(&notes, None);
            // Whoever reads may have gone, as in `cairn --help | head`.
            let _ = io::stdout().write_all(stdout.as_bytes());
            let _ = io::stderr().write_all(stderr.as_bytes());
            ExitCode::from(code)
        }
    }
}

/// Logs why there will be no member, where etcd would: to stderr, since no other output is known to be good.
fn complain(notes: &[Note], last: Option<&Note>) {
    if notes.is_empty() && last.is_none() {
        return;
    }
    if logging::start(&logging::Options::default()).is_ok() {
        notes.iter().chain(last).for_each(logging::note);
    }
}

/// Starts the member and serves until it is told to stop.
fn run(config: Config) -> ExitCode {
    logging::note(&config.note());
    serve::serve(&config)
}

/// The address that this machine would reach others from. No packet is sent: connecting a datagram socket only
/// asks the routing table. The address asked about is one of those set aside for documentation.
fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let host = socket.local_addr().ok()?.ip();
    (!host.is_unspecified()).then_some(host)
}
