//! A cluster of real processes, broken in every way that processes and networks break.
//!
//! `CAIRN_TEST_SYSTEM=etcd` runs the same on real etcd (see `tests::Cluster`): a test that etcd passes
//! expects the right thing.
#![allow(clippy::unwrap_used)]

mod backup;
mod handover;
mod leases;
mod load;
mod members;
mod membership;
mod mixed;
mod namespaces;
mod partitions;
mod processes;
mod reads;
mod tls;
mod watches;
