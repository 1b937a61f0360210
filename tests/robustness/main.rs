//! The server under `kill -9`, under slow clients and under many expiring leases.
#![allow(clippy::unwrap_used)]

mod expiry;
mod kill;
mod slow_watcher;
