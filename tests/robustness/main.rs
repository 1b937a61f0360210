//! The server as a process: under `kill -9`, under slow, many and hostile clients, with full quotas,
//! damaged directories and every way to start and to end it.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod behind;
mod data_directory;
mod disk;
mod expiry;
mod http;
mod kill;
mod mass_expiry;
mod quota;
mod settings;
mod shutdown;
mod slow_watcher;
mod support;
