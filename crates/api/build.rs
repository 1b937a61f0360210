//! Compiles `proto/` with protox, so that a machine without protoc can build Cairn.

use std::path::PathBuf;

/// Every file that a message or a service of etcd's API lives in.
const FILES: [&str; 12] = [
    "authpb/auth.proto",
    "etcdserverpb/etcdserver.proto",
    "etcdserverpb/raft_internal.proto",
    "etcdserverpb/rpc.proto",
    "leasepb/lease.proto",
    "membershippb/membership.proto",
    "mvccpb/kv.proto",
    "raftpb/raft.proto",
    "snappb/snap.proto",
    "v3electionpb/v3election.proto",
    "v3lockpb/v3lock.proto",
    "walpb/record.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    let descriptors = protox::compile(&files, [&root])?;
    write_descriptors(descriptors.clone())?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(true)
        .build_server(true)
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Leaves the descriptors beside the generated code, without the comments of the files.
fn write_descriptors(
    mut descriptors: protox::prost_reflect::prost_types::FileDescriptorSet,
) -> Result<(), Box<dyn std::error::Error>> {
    use protox::prost_reflect::prost::Message as _;
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let to = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(to, descriptors.encode_to_vec())?;
    Ok(())
}
