//! The two servers of a comparison, as alike as their flags can make them: one member each, or a
//! cluster each.

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::{Cluster, Plan, Server, System, connect, until};

/// Lone members take their ids from these, so that ids and lists of members are equal. Nobody connects
/// to them: the URLs that the servers listen on are their own.
const IDENTITY: [&str; 6] = [
    "--initial-advertise-peer-urls",
    "http://127.0.0.1:2380",
    "--initial-cluster",
    "default=http://127.0.0.1:2380",
    "--advertise-client-urls",
    "http://127.0.0.1:2379",
];

/// Members of a cluster are found at their URLs, so their ids and URLs differ between the two systems.
/// These are put in their places, one for each member, from 0.
pub(crate) const MEMBER: u64 = 0x5eed_1000_0000_0000;

/// Real etcd and Cairn, both new and empty; they end with this value.
pub(crate) struct Pair {
    pub(crate) etcd: Party,
    pub(crate) cairn: Party,
    _servers: Servers,
}

/// One of the two.
#[derive(Clone, Default)]
pub(crate) struct Party {
    /// Where its members serve clients; the first one leads.
    pub(crate) endpoints: Vec<String>,
    /// Its own member ids, in the same order; empty if they are the same for both.
    pub(crate) ids: Vec<u64>,
    /// What else is its own, and what stands for it.
    own: Vec<(String, String)>,
}

impl Party {
    /// Puts what stands for it in the place of each id and URL.
    pub(crate) fn hide(&self, text: &str) -> String {
        if self.own.is_empty() {
            return text.to_owned();
        }
        let text = self.own.iter().fold(text.to_owned(), |text, (own, neutral)| text.replace(own, neutral));
        // How many elections there were is no difference; where etcdctl prints one, it may be in the
        // middle of much else.
        ["\"raft_term\":", "\"RaftTerm\" : "]
            .into_iter()
            .fold(text, |text, marker| without_number(&text, marker))
    }
}

/// Removes the number behind each occurrence of a marker.
fn without_number(text: &str, marker: &str) -> String {
    let mut pieces = text.split(marker);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{text}{marker}0{rest}")
    })
}

enum Servers {
    Lone { _servers: [Server; 2], _directory: TempDir },
    Several { _clusters: [Cluster; 2] },
}

/// How many members each of the two has: `CAIRN_TEST_MEMBERS`, or one.
pub(crate) fn members() -> usize {
    tests::support::count("CAIRN_TEST_MEMBERS", 1)
}

impl Pair {
    /// Starts both. What they store matters here, not that it survives, so neither waits for a disk.
    pub(crate) fn start(flags: &[&str]) -> Result<Self> {
        if members() > 1 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(Self::start_clusters(flags));
        }
        let directory = tempfile::tempdir()?;
        let flags: Vec<&str> =
            IDENTITY.into_iter().chain(["--unsafe-no-fsync"]).chain(flags.iter().copied()).collect();
        let (etcd, cairn) = std::thread::scope(|scope| {
            let etcd = scope.spawn(|| Server::start_etcd(&directory.path().join("etcd"), &flags));
            let cairn = Server::start(&directory.path().join("cairn"), &flags);
            (etcd.join().expect("starting does not panic"), cairn)
        });
        let servers = [etcd?, cairn?];
        let [etcd, cairn] =
            servers.each_ref().map(|server| Party { endpoints: vec![server.endpoint()], ..Party::default() });
        Ok(Self { etcd, cairn, _servers: Servers::Lone { _servers: servers, _directory: directory } })
    }

    async fn start_clusters(flags: &[&str]) -> Result<Self> {
        let plan = |system| {
            // An election on a busy machine would be a difference.
            let plan = Plan::of(members()).flags(&["--unsafe-no-fsync"]).flags(flags).calm();
            Plan { systems: vec![system; members()], ..plan }
        };
        let (etcd, cairn) = tokio::join!(party(plan(System::Etcd)), party(plan(System::Cairn)));
        let ((etcd, etcds), (cairn, cairns)) = (etcd.context("etcd")?, cairn.context("cairn")?);
        Ok(Self { etcd, cairn, _servers: Servers::Several { _clusters: [etcds, cairns] } })
    }
}

/// Starts a cluster whose first member leads.
async fn party(plan: Plan) -> Result<(Party, Cluster)> {
    let mut cluster = Cluster::start(plan).await?;
    let places: Vec<usize> = cluster.places().collect();
    let leader = cluster.leader().await?;
    if leader != 0 {
        cluster.client(&[leader]).await?.move_leader(cluster.id(0)).await?;
        until("the first member leads", async || (cluster.leader().await.ok()? == 0).then_some(())).await?;
    }
    // What a start does on its own must be over, or revisions of the log would differ for a while:
    // every member has made itself known, and the cluster's version is set.
    let mut client = cluster.client(&places).await?;
    until("all members are known", async || {
        let list = client.member_list().await.ok()?;
        list.members().iter().all(|member| !member.client_urls().is_empty()).then_some(())
    })
    .await?;
    let cluster_id = client.member_list().await?.header().context("a header")?.cluster_id();

    let endpoints = cluster.endpoints(&places);
    let ids: Vec<u64> = places.iter().map(|&place| cluster.id(place)).collect();
    let mut own = Vec::new();
    let mut add = |id: u64, neutral: u64| {
        own.push((id.to_string(), neutral.to_string()));
        own.push((format!("{id:x}"), format!("{neutral:x}")));
    };
    add(cluster_id, MEMBER - 1);
    ids.iter().zip(MEMBER..).for_each(|(&id, neutral)| add(id, neutral));
    for place in places {
        own.push((cluster.endpoint(place), format!("CLIENTS-OF-{place}")));
        own.push((cluster.advertised_peer(place), format!("MEMBERS-OF-{place}")));
    }
    Ok((Party { endpoints, ids, own }, cluster))
}

/// What is told to who shows no token where one is needed.
const NOBODY: &str = "etcdserver: user name is empty";

/// Makes whatever was acknowledged visible at a member: what it tells without asking the others may
/// lag, on each system by another moment.
pub(crate) async fn catch_up(endpoint: &str) -> Result<()> {
    match connect(&[endpoint.to_owned()], tests::PATIENCE).await?.get("?", None).await {
        // With authentication on it is told nothing, but only after the read round.
        Err(etcd_client::Error::GRpcStatus(status)) if status.message() == NOBODY => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}
