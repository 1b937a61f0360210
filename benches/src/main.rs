//! Load driver: measures an etcd-compatible server from outside, and Cairn beside etcd.
fn main() {}
