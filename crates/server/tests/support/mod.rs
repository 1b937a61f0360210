//! Whole members in one process, that speak to each other over the loopback interface.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::PutRequest;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use mvcc::{KeyRange, RangeQuery};
use server::{ClusterState, Config, Error, Member, Server, StartError, ThreadFailure};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Far more than anything here takes, also where other work keeps both cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

type Work = Box<dyn FnOnce(Arc<Member>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Where a member is to be found and what it has on disk; it need not run.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub url: String,
    address: std::net::SocketAddr,
    pub data_dir: PathBuf,
}

impl Place {
    /// A port that nobody has now: it is bound again when the member starts.
    pub fn new(directory: &Path, name: &str) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let place = Self {
            name: name.to_owned(),
            url: format!("http://{address}"),
            address,
            data_dir: directory.join(name),
        };
        (place, listener)
    }

    /// The same port once more.
    pub fn listen(&self) -> TcpListener {
        // The standard library sets SO_REUSEADDR, so connections that linger do not matter.
        TcpListener::bind(self.address).unwrap_or_else(|error| panic!("{}: {error}", self.url))
    }

    /// Settings with short timers.
    pub fn config(&self, cluster: &[Place]) -> Config {
        Config {
            name: self.name.clone(),
            peer_urls: vec![self.url.clone()],
            client_urls: vec![format!("http://{}.invalid:2379", self.name)],
            initial_cluster: cluster
                .iter()
                .map(|place| (place.name.clone(), vec![place.url.clone()]))
                .collect::<BTreeMap<_, _>>(),
            heartbeat: Duration::from_millis(20),
            election_timeout: Duration::from_millis(400),
            compaction_sleep: Duration::from_millis(1),
            no_fsync: true,
            ..Config::new(self.data_dir.clone())
        }
    }
}

/// A member that runs.
pub struct Running {
    pub place: Place,
    server: Server,
    work: UnboundedSender<Work>,
    failures: UnboundedReceiver<ThreadFailure>,
}

impl Running {
    pub fn start(place: &Place, listener: TcpListener, config: Config) -> Result<Self, StartError> {
        let (report, failures) = unbounded_channel();
        let mut server = Server::start(config, report)?;
        let (work, to_do) = unbounded_channel::<Work>();
        let member = Arc::clone(server.member());
        let to_do = Arc::new(parking_lot::Mutex::new(Some((to_do, listener))));
        server
            .serve(move |shard| {
                let (member, taken) = (Arc::clone(&member), to_do.lock().take());
                async move {
                    assert_eq!(shard, 0, "these members have one shard");
                    let Some((mut to_do, listener)) = taken else { return };
                    let (ask, questions) = mpsc::channel(16);
                    member.peers().serve(listener, ask);
                    tokio::spawn(answer(Arc::clone(&member), questions));
                    loop {
                        tokio::select! {
                            Some(work) = to_do.recv() => {
                                tokio::spawn(work(Arc::clone(&member)));
                            }
                            () = member.stopping() => return,
                        }
                    }
                }
            })
            .unwrap();
        Ok(Self { place: place.clone(), server, work, failures })
    }

    pub fn member(&self) -> &Arc<Member> {
        self.server.member()
    }

    pub fn id(&self) -> u64 {
        self.member().id()
    }

    /// Begins something on the member's runtime thread; what it comes to arrives on the channel.
    pub fn begin<T, F>(
        &self,
        work: impl FnOnce(Arc<Member>) -> F + Send + 'static,
    ) -> std::sync::mpsc::Receiver<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let (done, result) = std::sync::mpsc::channel();
        let work: Work = Box::new(move |member| {
            Box::pin(async move {
                let _ = done.send(work(member).await);
            })
        });
        self.work.send(work).ok().unwrap();
        result
    }

    /// Does something on the member's runtime thread and waits for it.
    pub fn run<T, F>(&self, work: impl FnOnce(Arc<Member>) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        self.begin(work).recv_timeout(PATIENCE).unwrap()
    }

    pub fn put(&self, key: &str, value: &str) -> Result<i64, Error> {
        let request = put(key, value);
        self.run(move |member| async move {
            member.propose(request).await.map(|outcome| outcome.unwrap().revision)
        })
    }

    /// A linearizable read.
    pub fn get(&self, key: &str) -> Result<Option<String>, Error> {
        let key = key.to_owned();
        self.run(move |member| async move {
            member.linearize().await?;
            Ok(find(&member, &key))
        })
    }

    /// Waits until a thread of the member says why it cannot go on.
    pub fn failure(&mut self) -> String {
        let mut failure = None;
        until("the member fails", || {
            failure = self.failures.try_recv().ok();
            failure.is_some()
        });
        failure.unwrap().to_string()
    }

    /// Stops a member that has failed.
    pub fn give_up(self) {
        self.server.stop();
    }

    pub fn stop(mut self) -> Place {
        let place = self.place.clone();
        self.server.stop();
        if let Ok(failure) = self.failures.try_recv() {
            panic!("{}: {failure}", place.name);
        }
        place
    }
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() }
}

/// What this member alone knows.
pub fn find(member: &Member, key: &str) -> Option<String> {
    let found = member.store().range(&RangeQuery::new(KeyRange::Key(key.to_owned().into()))).unwrap();
    let value = found.records.first()?.decode().value;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

/// As much of the peer port as members ask each other about here.
async fn answer(member: Arc<Member>, mut questions: mpsc::Receiver<peer::Other>) {
    while let Some((request, answer)) = questions.recv().await {
        let response = match request.uri().path() {
            server::HASH_KV => member.tell_hash(&request).await,
            _ => reply(&member, &request),
        };
        let _ = answer.send(response);
    }
}

fn reply(member: &Member, request: &Request<Bytes>) -> Response<Bytes> {
    let cluster = member.cluster();
    let body = match request.uri().path() {
        "/members" => apply::to_json(&cluster.members.values().collect::<Vec<_>>()),
        "/version" => {
            let version = cluster.version.clone().unwrap_or_else(|| "not_decided".to_owned());
            format!(r#"{{"etcdserver":"{}","etcdcluster":"{version}"}}"#, server::ETCD_VERSION).into()
        }
        "/downgrade/enabled" => Bytes::from_static(b"false"),
        _ => {
            let nothing = Response::builder().status(StatusCode::NOT_FOUND).body(Bytes::new());
            return nothing.unwrap();
        }
    };
    let id = format!("{:x}", member.cluster_id());
    Response::builder().header("x-etcd-cluster-id", id).body(body).unwrap()
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for an answer on a member's runtime thread, and asks again as long as there is none.
pub async fn at_last<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Founds a cluster of members with these names.
pub fn found(directory: &Path, names: &[&str]) -> Vec<Running> {
    found_with(directory, names, |config| config)
}

/// The same, with settings of their own.
pub fn found_with(directory: &Path, names: &[&str], settings: impl Fn(Config) -> Config) -> Vec<Running> {
    let (places, listeners): (Vec<_>, Vec<_>) = names.iter().map(|name| Place::new(directory, name)).unzip();
    let started: Vec<Running> = places
        .iter()
        .zip(listeners)
        .map(|(place, listener)| Running::start(place, listener, settings(place.config(&places))).unwrap())
        .collect();
    ready(&started);
    started
}

/// Waits until all of them serve.
pub fn ready(members: &[Running]) {
    for running in members {
        running.run(|member| async move { member.ready().await });
        until("there is a leader", || running.member().raft().leader() != 0);
    }
}

/// Starts a member again, on the disk that it left.
pub fn restart(place: &Place) -> Running {
    Running::start(place, place.listen(), place.config(&[])).unwrap()
}

/// Which of them leads.
pub fn leader(members: &[Running]) -> usize {
    let mut found = None;
    until("one of them leads", || {
        found = members.iter().position(|running| running.member().raft().is_leader());
        found.is_some()
    });
    found.unwrap()
}

/// Makes a member join, as one that has been added already.
pub fn join(place: &Place, listener: TcpListener, cluster: &[Place]) -> Result<Running, StartError> {
    let config = Config { cluster_state: ClusterState::Existing, ..place.config(cluster) };
    Running::start(place, listener, config)
}
