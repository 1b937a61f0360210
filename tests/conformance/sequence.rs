//! A sequence: the same requests, one after the other, to both servers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::*;
use tokio_stream::StreamExt as _;

use crate::call::{Call, Side, Watch};
use crate::fields::{self, Fields};
use crate::generate::Generator;
use crate::pair::{self, Pair};
use crate::rules::{Difference, Rules};
use crate::watching::{GAUGE, Stream, Watcher};

/// Small limits, so that it takes small requests to go beyond them.
const FLAGS: [&str; 4] = ["--max-request-bytes", "4096", "--max-txn-ops", "8"];

/// What both servers have told so far, as far as the next request or its outcome depends on it.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// Something was deleted at the compacted revision, which 3.5.1 forgets and later versions do not.
    pub(crate) tombstones_at_compacted: bool,
    /// The last compaction was not waited for.
    compacting: bool,
    pub(crate) leases: Vec<i64>,
    pub(crate) server_chosen: i64,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) member: u64,
}

impl Known {
    /// Whether both versions answer a request for progress. 3.7 does not where there is nobody to
    /// tell, nor while a watcher waits for a revision to come; 3.5 always does.
    pub(crate) fn tells_progress(&self, stream: usize) -> bool {
        let mut own = self.watchers.iter().filter(|watcher| watcher.stream == stream).peekable();
        own.peek().is_some() && own.all(|watcher| watcher.start <= self.revision + 1)
    }
}

/// How a sequence ended.
pub(crate) struct Report {
    pub(crate) operations: usize,
    /// Where the servers parted ways, which ends a sequence: what follows would differ as well.
    pub(crate) parted: Option<Parted>,
}

/// A request whose answers differ.
pub(crate) struct Parted {
    pub(crate) operation: usize,
    pub(crate) call: String,
    pub(crate) differences: Vec<Difference>,
}

struct Run<'a> {
    rules: &'a Rules,
    sides: [Side; 2],
    streams: BTreeMap<usize, [Stream; 2]>,
    known: Known,
}

/// Runs the sequence of a seed on a new pair of servers.
pub(crate) async fn run(seed: u64, operations: usize, rules: &Rules, talk: bool) -> Result<Report> {
    let pair = tokio::task::spawn_blocking(|| Pair::start(&FLAGS)).await??;
    let sides = [Side::connect(pair.etcd.clone()).await?, Side::connect(pair.cairn.clone()).await?];
    let mut run = Run { rules, sides, streams: BTreeMap::new(), known: Known::default() };
    run.begin().await?;
    let mut generator = Generator::new(seed);
    for operation in 0..=operations {
        let call = match operation {
            // The last thing is always to wait for what watchers are still to get.
            last if last == operations => Call::Watch(Watch::Settle),
            _ if pair::members() > 1 => askable(generator.next(&run.known)),
            _ => generator.next(&run.known),
        };
        if talk {
            println!("{operation:>4} at revision {}: {call:?}", run.known.revision);
        }
        run.sides.iter_mut().for_each(Side::turn);
        let differences = run.step(&call).await;
        if !differences.is_empty() {
            let parted = Parted { operation, call: format!("{call:?}"), differences };
            return Ok(Report { operations: operation, parted: Some(parted) });
        }
    }
    Ok(Report { operations, parted: None })
}

/// With several members, etcd up to 3.5 leaves out a transaction's reads where it answers nobody. One
/// that reads at a revision which is gone or yet to come then fails on one member and writes on the
/// others, which have different data from there on. So those read at the current revision.
fn askable(mut call: Call) -> Call {
    fn read_now(txn: &mut TxnRequest) {
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut op.request {
                Some(request_op::Request::RequestRange(range)) => range.revision = 0,
                Some(request_op::Request::RequestTxn(txn)) => read_now(txn),
                _ => {}
            }
        }
    }
    if let Call::Txn(txn) = &mut call {
        read_now(txn);
    }
    call
}

impl Run<'_> {
    /// The watcher of everything comes first, and what the servers are.
    async fn begin(&mut self) -> Result<()> {
        self.known.revision = 1;
        let everything = WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            start_revision: 0,
            ..Default::default()
        };
        let differences = self.create(GAUGE, everything).await;
        anyhow::ensure!(differences.is_empty(), "watching everything: {differences:?}");
        let status = self.sides[0].call(&Call::Status).await;
        let member = fields::value(&status, "StatusResponse.header.member_id");
        self.known.member = member.context("a header")?.parse()?;
        Ok(())
    }

    async fn step(&mut self, call: &Call) -> Vec<Difference> {
        match call {
            Call::Watch(Watch::Create(stream, request)) => self.create(*stream, request.clone()).await,
            Call::Watch(Watch::Cancel(stream, id)) => self.cancel(*stream, *id).await,
            Call::Watch(Watch::Progress(stream)) => self.progress(*stream).await,
            Call::Watch(Watch::Close(stream)) => self.close(*stream).await,
            Call::Watch(Watch::Settle) => self.settle().await,
            _ => {
                let mut differences = Vec::new();
                if let Call::Compact(_) = call {
                    // A watcher that lags would be told of the compaction by one server, and get
                    // its events from the other that was faster.
                    differences = self.settle().await;
                    let behind = self.known.watchers.iter().filter(|watcher| watcher.behind);
                    let behind: Vec<(usize, i64)> =
                        behind.map(|watcher| (watcher.stream, watcher.id)).collect();
                    for (stream, id) in behind {
                        differences.extend(self.cancel(stream, id).await);
                    }
                }
                // Nobody waits for what the other members of a cluster remove in their own time.
                let removing = self.known.compacting || pair::members() > 1 && self.known.compacted > 0;
                if matches!(call, Call::HashKv(_)) && removing {
                    // Where no key is left, etcd's hash tells how far the compaction has come. To
                    // compact once more is refused, but only after the one before is over.
                    let revision = self.known.compacted;
                    let (_, found) =
                        self.send(&Call::Compact(CompactionRequest { revision, physical: true })).await;
                    differences.extend(found);
                    self.known.compacting = false;
                }
                let (cairn, found) = self.send(call).await;
                differences.extend(found);
                if let Call::LeaseGrant(request) = call
                    && request.ttl < 60
                {
                    // It would end at some time during the sequence, at another on each server.
                    let (_, found) =
                        self.send(&Call::LeaseRevoke(LeaseRevokeRequest { id: request.id })).await;
                    differences.extend(found);
                }
                if let Call::Range(request) = call {
                    differences.extend(self.stream(request, &cairn).await);
                }
                differences
            }
        }
    }

    /// Sends a request to both; what Cairn said, and what was different.
    async fn send(&mut self, call: &Call) -> (Fields, Vec<Difference>) {
        let [etcd, cairn] = &mut self.sides;
        let (etcd, cairn) = tokio::join!(etcd.call(call), cairn.call(call));
        self.learn(call, &etcd);
        let differences = self.rules.compare(&etcd, &cairn);
        (cairn, differences)
    }

    fn learn(&mut self, call: &Call, answer: &Fields) {
        let refused = answer.iter().any(|(place, _)| place.contains("error."));
        let revision = answer.iter().find(|(place, _)| {
            place.split('.').nth(1) == Some("header") && place.ends_with("header.revision")
        });
        if let Some((_, revision)) = revision {
            self.known.revision = self.known.revision.max(revision.parse().unwrap_or_default());
        }
        match call {
            Call::Compact(request) if !refused => {
                self.known.compacted = request.revision;
                self.known.compacting = !request.physical;
                self.known.tombstones_at_compacted = self.streams[&GAUGE][0].deletes_at(request.revision);
            }
            Call::LeaseGrant(request) if !refused => {
                let id = match request.id {
                    0 => {
                        self.known.server_chosen += 1;
                        crate::call::SERVER_CHOSEN + self.known.server_chosen - 1
                    }
                    id => id,
                };
                self.known.leases.push(id);
            }
            Call::LeaseRevoke(request) if !refused => self.known.leases.retain(|id| *id != request.id),
            _ => {}
        }
    }

    /// 3.5 has no `RangeStream`: what it says is held against what `Range` just said.
    async fn stream(&self, request: &RangeRequest, whole: &Fields) -> Vec<Difference> {
        let answer = match self.sides[1].range_stream(request.clone()).await {
            Ok(answer) => self.sides[1].hide(fields::of(&answer)),
            // Only what it does not offer at all may be refused by it alone.
            Err(status) if status.code() == tonic::Code::Unimplemented => return Vec::new(),
            Err(status) => {
                let told = fields::of_error(&status).into_iter();
                told.map(|(place, value)| (format!("Range.{place}"), value)).collect()
            }
        };
        let named = |fields: &Fields| {
            fields.iter().map(|(place, value)| (format!("(stream) {place}"), value.clone())).collect()
        };
        self.rules.compare(&named(whole), &named(&answer))
    }

    fn open(&mut self, stream: usize) -> &mut [Stream; 2] {
        let [etcd, cairn] = &self.sides;
        let channels = [etcd, cairn].map(|side| side.channel_of(stream));
        self.streams.entry(stream).or_insert_with(|| channels.map(Stream::open))
    }

    /// Sends the same on both sides of a stream, and waits for the notice that answers it.
    async fn ask(&mut self, stream: usize, request: RequestUnion) -> [Option<WatchResponse>; 2] {
        for side in &self.sides {
            side.catch_up(side.channel_of(stream)).await;
        }
        let [etcd, cairn] = self.open(stream);
        let counts = [etcd.notices(), cairn.notices()];
        etcd.send(request.clone());
        cairn.send(request);
        let (etcd, cairn) =
            tokio::join!(etcd.await_notices(counts[0] + 1), cairn.await_notices(counts[1] + 1));
        [etcd, cairn]
    }

    async fn create(&mut self, stream: usize, request: WatchCreateRequest) -> Vec<Difference> {
        let begin = self.open(stream).each_ref().map(Stream::len);
        let answers = self.ask(stream, RequestUnion::CreateRequest(request.clone())).await;
        let differences = self.compare_notices(&answers);
        if let [Some(answer), _] = answers
            && !answer.canceled
            && differences.is_empty()
        {
            let start =
                if request.start_revision == 0 { self.known.revision + 1 } else { request.start_revision };
            let doomed = request.start_revision != 0 && start < self.known.compacted;
            let behind = start <= self.known.revision;
            let id = answer.watch_id;
            self.known.watchers.push(Watcher { stream, id, request, start, doomed, begin, behind });
            if doomed {
                // The notice of that must not be taken for the answer to the next request.
                return self.settle().await;
            }
        }
        differences
    }

    async fn cancel(&mut self, stream: usize, id: i64) -> Vec<Difference> {
        let mut differences = self.settle().await;
        if self.known.watchers.iter().any(|watcher| watcher.stream == stream && watcher.id == id) {
            let answers =
                self.ask(stream, RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id })).await;
            differences.extend(self.compare_notices(&answers));
            self.known.watchers.retain(|watcher| (watcher.stream, watcher.id) != (stream, id));
        } else {
            // Nobody answers this; what is asked next shows that nobody did.
            for side in self.open(stream) {
                side.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }));
            }
            if self.known.tells_progress(stream) {
                differences.extend(self.progress(stream).await);
            }
        }
        differences
    }

    async fn progress(&mut self, stream: usize) -> Vec<Difference> {
        // 3.5.1 answers before events that are on their way, later versions after them.
        let mut differences = self.settle().await;
        let answers = self.ask(stream, RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
        differences.extend(self.compare_notices(&answers));
        differences
    }

    async fn close(&mut self, stream: usize) -> Vec<Difference> {
        let mut differences = self.settle().await;
        self.known.watchers.retain(|watcher| watcher.stream != stream);
        if let Some([mut etcd, mut cairn]) = self.streams.remove(&stream) {
            etcd.close();
            cairn.close();
            let (etcd, cairn) = tokio::join!(etcd.await_end(), cairn.await_end());
            differences.extend(self.rules.compare(&etcd, &cairn));
        }
        differences
    }

    async fn settle(&mut self) -> Vec<Difference> {
        let revision = self.known.revision;
        let [etcd, cairn] = &self.streams[&GAUGE];
        tokio::join!(etcd.await_revision(revision), cairn.await_revision(revision));
        let history = etcd.history();
        let mut differences = Vec::new();
        for watcher in &mut self.known.watchers {
            let expected = watcher.expects(&history);
            watcher.behind &= expected == 0;
            for (side, stream) in self.streams[&watcher.stream].iter().enumerate() {
                if !stream.await_events(watcher, side, expected).await {
                    let server = ["etcd", "cairn"][side];
                    let place = format!("{server} does not tell this watcher what it must: {watcher:?}");
                    let wanted = if watcher.doomed {
                        "a cancellation".to_owned()
                    } else {
                        format!("{expected} events")
                    };
                    differences.push(Difference { place, etcd: wanted.clone(), cairn: wanted });
                }
            }
        }
        differences.extend(self.compare_streams());
        self.known.watchers.retain(|watcher| !watcher.doomed);
        differences
    }

    /// Holds the watchers' answers since the last time against each other.
    fn compare_streams(&mut self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (number, [etcd, cairn]) in &mut self.streams {
            let both = [etcd.uncompared(), cairn.uncompared()];
            let [of_etcd, of_cairn] = &self.sides;
            let hide = |side: &Side, id: &i64, answers: &BTreeMap<i64, Vec<Fields>>| {
                side.hide(line_up(*number, *id, answers.get(id)))
            };
            let ids = both.iter().flat_map(BTreeMap::keys).collect::<std::collections::BTreeSet<_>>();
            for id in ids {
                let (etcd, cairn) = (hide(of_etcd, id, &both[0]), hide(of_cairn, id, &both[1]));
                differences.extend(self.rules.compare(&etcd, &cairn));
            }
            for (server, stream) in [("etcd", etcd), ("cairn", cairn)] {
                if let Some(disorder) = stream.disorder() {
                    let place = format!("{server}'s answers on stream {number} are out of order");
                    differences.push(Difference { place, etcd: disorder.clone(), cairn: disorder });
                }
            }
        }
        differences
    }

    fn compare_notices(&self, answers: &[Option<WatchResponse>; 2]) -> Vec<Difference> {
        let taken_apart = |side: usize| match &answers[side] {
            Some(answer) => self.sides[side].hide(fields::of(answer)),
            None => vec![("WatchResponse".to_owned(), "none".to_owned())],
        };
        let [etcd, cairn] = [taken_apart(0), taken_apart(1)];
        self.rules.compare(&etcd, &cairn)
    }
}

/// One watcher's answers as one list of fields, each with its number.
fn line_up(stream: usize, id: i64, answers: Option<&Vec<Fields>>) -> Fields {
    let answers = answers.into_iter().flatten().enumerate();
    let placed = |at: usize, place: &str| format!("watcher {id} on stream {stream}, answer {at}: {place}");
    answers
        .flat_map(|(at, fields)| fields.iter().map(move |(place, value)| (placed(at, place), value.clone())))
        .collect()
}

/// Runs the sequences of many seeds, several at a time.
pub(crate) async fn run_all(
    seeds: impl Iterator<Item = u64>,
    operations: usize,
    rules: &Rules,
    mut report: impl FnMut(u64, Result<Report>),
) {
    // Starting etcd is mostly waiting, so a few more than there are processors.
    let at_once = if pair::members() > 1 { 3 } else { 8 };
    let runs = seeds.map(|seed| async move { (seed, run(seed, operations, rules, false).await) });
    let mut runs = std::pin::pin!(futures(runs, at_once));
    while let Some((seed, ended)) = runs.next().await {
        report(seed, ended);
    }
}

fn futures<F: Future>(
    all: impl Iterator<Item = F>,
    at_once: usize,
) -> impl tokio_stream::Stream<Item = F::Output> {
    futures_util::StreamExt::buffer_unordered(tokio_stream::iter(all), at_once)
}
