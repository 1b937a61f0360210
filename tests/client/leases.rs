//! Leases through the calls themselves: many on one keep-alive stream, unknown and ended ones, and
//! what may be asked about them.

use anyhow::Result;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use etcd_client::{PutOptions, WatchOptions};
use tests::Server;

use crate::channel;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_keeps_many_leases_alive_and_answers_in_order() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let mut client = LeaseClient::new(channel(&server).await?);
    for id in 1..=50 {
        client.lease_grant(LeaseGrantRequest { id, ttl: 100 + id }).await?;
    }
    // Some that nobody has ever granted are between them: an answer of 0 is not an error.
    let asked: Vec<i64> = (1..=50).chain([999]).cycle().take(300).collect();
    let requests = tokio_stream::iter(asked.clone().into_iter().map(|id| LeaseKeepAliveRequest { id }));
    let mut answers = client.lease_keep_alive(requests).await?.into_inner();
    for id in asked {
        let answer = answers.message().await?.expect("an answer to every request");
        assert_eq!((answer.id, answer.ttl), (id, if id == 999 { 0 } else { 100 + id }));
        assert!(answer.header.is_some());
    }
    assert!(answers.message().await?.is_none(), "the stream ends when the client has ended its side");

    let mut listed: Vec<i64> = client
        .lease_leases(LeaseLeasesRequest {})
        .await?
        .into_inner()
        .leases
        .iter()
        .map(|lease| lease.id)
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, (1..=50).collect::<Vec<i64>>());
    client.lease_revoke(LeaseRevokeRequest { id: 7 }).await?;
    assert_eq!(client.lease_leases(LeaseLeasesRequest {}).await?.into_inner().leases.len(), 49);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_lease_is_as_if_it_had_never_been() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut keys = server.client().await?;
    let mut client = LeaseClient::new(channel(&server).await?);
    client.lease_grant(LeaseGrantRequest { id: 5, ttl: 1 }).await?;
    keys.put("k1", "v", Some(PutOptions::new().with_lease(5))).await?;
    keys.put("k2", "v", Some(PutOptions::new().with_lease(5))).await?;
    let left = client.lease_time_to_live(LeaseTimeToLiveRequest { id: 5, keys: true }).await?.into_inner();
    assert_eq!(left.keys, ["k1", "k2"]);
    assert!(left.ttl <= left.granted_ttl && left.ttl >= 0, "{left:?}");
    let bare = client.lease_time_to_live(LeaseTimeToLiveRequest { id: 5, keys: false }).await?.into_inner();
    assert!(bare.keys.is_empty());

    let mut watch = keys.watch("k1", Some(WatchOptions::new().with_start_revision(2))).await?;
    let mut deleted = false;
    while !deleted {
        let message = watch.message().await?.expect("the watch goes on");
        deleted = message.events().iter().any(|event| event.event_type() == etcd_client::EventType::Delete);
    }
    let left = client.lease_time_to_live(LeaseTimeToLiveRequest { id: 5, keys: true }).await?.into_inner();
    assert_eq!((left.ttl, left.granted_ttl, left.keys.len()), (-1, 0, 0));
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: 5 }]);
    let answer = client.lease_keep_alive(requests).await?.into_inner().message().await?.unwrap();
    assert_eq!((answer.id, answer.ttl), (5, 0));
    let status = client.lease_revoke(LeaseRevokeRequest { id: 5 }).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::NotFound, "etcdserver: requested lease not found")
    );
    Ok(())
}
