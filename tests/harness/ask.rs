//! Questions to members, wherever they are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, ConnectOptions, StatusResponse};

use crate::until::{PATIENCE, until_within};

/// Waits until the members at these endpoints have the same data, by their own hash of all of it, and
/// gives the revision at which they were compared.
///
/// # Errors
/// When they have not.
pub async fn same_data(endpoints: &[String]) -> Result<i64> {
    let mut clients = Vec::new();
    for endpoint in endpoints {
        clients.push((endpoint, connect(std::slice::from_ref(endpoint), Duration::from_secs(10)).await?));
    }
    let head = clients.first_mut().context("at least one endpoint")?.1.get("?", None).await?;
    let revision = head.header().context("a header")?.revision();
    let mut last = BTreeMap::new();
    let same = until_within(PATIENCE, "all members have the same data", async || {
        for (endpoint, client) in &mut clients {
            let hashed = client.hash_kv(revision).await;
            let told = hashed.map(|hashed| (hashed.hash(), hashed.compact_version()));
            last.insert(endpoint.clone(), told.map_err(|error| error.to_string()));
        }
        let told: Vec<(u32, i64)> = last.values().filter_map(|told| told.as_ref().ok().copied()).collect();
        let (hash, compacted) = *told.first()?;
        // Who has compacted to the same revision and has other data will never have the same.
        let parted = told.iter().any(|&(other, at)| at == compacted && other != hash);
        let same = told.len() == clients.len() && told.iter().all(|other| *other == (hash, compacted));
        (parted || same).then_some(same)
    });
    let same = same.await.with_context(|| format!("at revision {revision}: {last:x?}"))?;
    ensure!(same, "members part ways at revision {revision}: {last:x?}");
    Ok(revision)
}

/// A client of some endpoints.
///
/// # Errors
/// When it cannot connect to the first.
pub async fn connect(endpoints: &[String], limit: Duration) -> Result<Client> {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(2)).with_timeout(limit);
    Ok(Client::connect(endpoints, Some(options)).await?)
}

/// What the member at an endpoint says of itself, if it says anything within a second.
pub async fn status(endpoint: &str) -> Option<StatusResponse> {
    let second = Duration::from_secs(1);
    let asked = async { connect(&[endpoint.to_owned()], second).await.ok()?.status().await.ok() };
    tokio::time::timeout(second, asked).await.ok().flatten()
}

/// Which of the members at these endpoints leads all of them, and in which term, if they agree.
pub async fn agree(endpoints: &[String]) -> Option<(usize, u64)> {
    let mut told = Vec::new();
    for endpoint in endpoints {
        let status = status(endpoint).await?;
        told.push((status.header()?.member_id(), status.leader(), status.raft_term()));
    }
    let &(_, leader, term) = told.first()?;
    if !told.iter().all(|&(_, other, at)| (other, at) == (leader, term)) {
        return None;
    }
    told.iter().position(|&(id, _, _)| id == leader).map(|at| (at, term))
}
