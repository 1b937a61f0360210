//! The real binary as clients use it: one pass over what the public library `etcd-client` offers, and
//! the calls and streams that it does not have, through the generated client.
#![allow(clippy::unwrap_used)]

mod leases;
mod range_stream;

use anyhow::Result;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    WatchOptions,
};
use tests::Server;
use tonic::transport::{Channel, Endpoint};

/// A connection for generated clients.
async fn channel(server: &Server) -> Result<Channel> {
    Ok(Endpoint::from_shared(server.endpoint())?.connect().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    for (key, value) in [("k1", "b"), ("k2", "a"), ("k3", "c")] {
        client.put(key, value, None).await?;
    }
    let sorted =
        GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Descend).with_limit(2);
    let found = client.get("k", Some(sorted)).await?;
    let values: Vec<&str> = found.kvs().iter().map(|kv| kv.value_str().unwrap()).collect();
    assert_eq!((values, found.more(), found.count()), (vec!["c", "b"], true, 3));

    let previous = client.put("k1", "d", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(previous.prev_key().unwrap().value(), b"b");
    let old = client.get("k1", Some(GetOptions::new().with_revision(2))).await?;
    assert_eq!(old.kvs()[0].value(), b"b");
    let gone = client.delete("k", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?;
    assert_eq!((gone.deleted(), gone.prev_kvs().len()), (3, 3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    let swap = |from: &str, to: &str| {
        Txn::new()
            .when([Compare::value("k", CompareOp::Equal, from)])
            .and_then([TxnOp::put("k", to, None), TxnOp::get("k", None)])
            .or_else([TxnOp::get("k", None)])
    };
    client.put("k", "1", None).await?;
    assert!(client.txn(swap("1", "2")).await?.succeeded());
    assert!(!client.txn(swap("1", "3")).await?.succeeded());
    assert_eq!(client.get("k", None).await?.kvs()[0].value(), b"2");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_from_the_past_and_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    client.put("w", "1", None).await?;
    client.put("w", "2", None).await?;
    let mut watch = client.watch("w", Some(WatchOptions::new().with_start_revision(2))).await?;
    client.put("w", "3", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let message = watch.message().await?.expect("the watch goes on");
        seen.extend(message.events().iter().map(|event| event.kv().unwrap().value_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ["1", "2", "3"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_members_and_status() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    let lease = client.lease_grant(60, None).await?.id();
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.unwrap().ttl(), 60);
    assert_eq!(client.leases().await?.leases().len(), 1);
    assert_eq!(client.member_list().await?.members().len(), tests::support::count("CAIRN_TEST_MEMBERS", 1));
    let status = client.status().await?;
    assert_eq!(status.version(), "3.7.1");
    assert_ne!(status.leader(), 0);
    Ok(())
}
