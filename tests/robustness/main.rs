//! The server as a process: under `kill -9`, under slow, many and hostile clients, with full quotas,
//! damaged directories and every way to start and to end it.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod behind;
mod beside;
mod data_directory;
mod disk;
mod expiry;
mod extremes;
mod floods;
mod foreigners;
mod forgers;
mod frames;
mod http;
mod kill;
mod mass_expiry;
mod quota;
mod settings;
mod shutdown;
mod slow;
mod slow_watcher;
mod support;

/// Fails if anything in the server has panicked.
fn no_panics(server: &tests::Server) {
    let panics: Vec<String> = server.log().into_iter().filter(|line| line.contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}
