//! Watchers: streams to both servers, what has come on them, and what must come.
//!
//! When events arrive, and how they are put together to messages, is for each server to decide. So
//! answers are not compared as they come. A watcher of everything, there from the first revision,
//! tells what happened; from it follows how many events each watcher must get. Once both servers
//! have sent that many, the watchers' answers are compared one by one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::*;
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::fields::{self, Fields};

/// How long events may take; etcd looks for watchers that lag ten times a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The stream of the watcher of everything. Sequences use those after it.
pub(crate) const GAUGE: usize = 0;

/// One stream to one server.
pub(crate) struct Stream {
    requests: Option<mpsc::UnboundedSender<WatchRequest>>,
    seen: Arc<Seen>,
    /// How much of each watcher's answers has been compared.
    compared: BTreeMap<i64, usize>,
}

#[derive(Default)]
struct Seen {
    answers: Mutex<Vec<WatchResponse>>,
    end: Mutex<Option<Fields>>,
    news: Notify,
}

/// A watcher that both servers have created.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    pub(crate) stream: usize,
    pub(crate) id: i64,
    pub(crate) request: WatchCreateRequest,
    /// The first revision that it is to see.
    pub(crate) start: i64,
    /// It begins before what compaction has left, so it will be told so.
    pub(crate) doomed: bool,
    /// It began with history, and nothing has come yet that shows that it has read all of it.
    pub(crate) behind: bool,
    /// How many answers its stream had from each server when it was asked for.
    pub(crate) begin: [usize; 2],
}

impl Stream {
    pub(crate) fn open(channel: Channel) -> Self {
        let (requests, queue) = mpsc::unbounded_channel();
        let seen = Arc::new(Seen::default());
        let reader = seen.clone();
        tokio::spawn(async move {
            let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
            let end = match client.watch(UnboundedReceiverStream::new(queue)).await {
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(answer)) => reader.push(answer),
                            Ok(None) => break vec![("end".to_owned(), "ok".to_owned())],
                            Err(status) => break fields::of_error(&status),
                        }
                    }
                }
                Err(status) => fields::of_error(&status),
            };
            *reader.end.lock().expect("nobody panics holding it") = Some(end);
            reader.news.notify_one();
        });
        Self { requests: Some(requests), seen, compared: BTreeMap::new() }
    }

    pub(crate) fn send(&self, request: RequestUnion) {
        if let Some(requests) = &self.requests {
            // A stream that has ended is found to have ended by whoever waits for the answer.
            let _ = requests.send(WatchRequest { request_union: Some(request) });
        }
    }

    pub(crate) fn close(&mut self) {
        self.requests = None;
    }

    /// How many answers have come that are about watchers or progress, not events.
    pub(crate) fn notices(&self) -> usize {
        self.seen.answers().iter().filter(|answer| is_notice(answer)).count()
    }

    /// Waits for the number of notices to become this; says what is the last of them.
    pub(crate) async fn await_notices(&self, count: usize) -> Option<WatchResponse> {
        self.seen.wait(|answers| answers.iter().filter(|answer| is_notice(answer)).count() >= count).await;
        self.seen.answers().iter().filter(|answer| is_notice(answer)).nth(count - 1).cloned()
    }

    /// Waits for the end of the stream.
    pub(crate) async fn await_end(&self) -> Fields {
        self.seen.wait(|_| false).await;
        let end = self.seen.end.lock().expect("nobody panics holding it").clone();
        end.unwrap_or_else(|| vec![("end".to_owned(), "the stream goes on".to_owned())])
    }

    /// Waits until the watcher of everything is at a revision.
    pub(crate) async fn await_revision(&self, revision: i64) {
        let reached = |answers: &[WatchResponse]| {
            events(answers, 0).last().is_some_and(|(_, event)| modified(event) >= revision)
        };
        if revision > 1 {
            self.seen.wait(reached).await;
        }
    }

    /// Waits until a watcher has as many events as it must get, or has been told of compaction.
    pub(crate) async fn await_events(&self, watcher: &Watcher, side: usize, count: usize) -> bool {
        let told = |answers: &[WatchResponse]| {
            let answers = &answers[watcher.begin[side]..];
            let mut own = answers.iter().filter(|answer| answer.watch_id == watcher.id);
            if watcher.doomed {
                own.any(|answer| answer.canceled)
            } else {
                events(answers, watcher.id).count() >= count
            }
        };
        self.seen.wait(told).await
    }

    /// How many answers have come.
    pub(crate) fn len(&self) -> usize {
        self.seen.answers().len()
    }

    /// Whether a key was deleted at a revision.
    pub(crate) fn deletes_at(&self, revision: i64) -> bool {
        let history = self.history();
        history.iter().any(|event| modified(event) == revision && event.r#type() == EventType::Delete)
    }

    /// All events so far, as the watcher of everything has them.
    pub(crate) fn history(&self) -> Vec<Event> {
        events(&self.seen.answers(), 0).map(|(_, event)| event.clone()).collect()
    }

    /// The answers that have not been compared yet, by watcher: a notice or an event each.
    pub(crate) fn uncompared(&mut self) -> BTreeMap<i64, Vec<Fields>> {
        let mut by_watcher: BTreeMap<i64, Vec<Fields>> = BTreeMap::new();
        for answer in self.seen.answers().iter() {
            let list = by_watcher.entry(answer.watch_id).or_default();
            if is_notice(answer) {
                list.push(fields::of(answer));
            }
            for event in &answer.events {
                let mut fields = fields::of(event);
                // How recent a header is depends on what was put together in one message; that
                // it is right all the same is seen to by `disorder`.
                let header = answer.header.map(|header| ResponseHeader { revision: 0, ..header });
                fields.extend(fields::of(&WatchResponse { header, ..Default::default() }));
                list.push(fields);
            }
        }
        for (id, list) in &mut by_watcher {
            let compared = self.compared.entry(*id).or_default();
            let all = list.len();
            list.drain(..*compared);
            *compared = all;
        }
        by_watcher
    }

    /// Rules that hold however events are put together: revisions only grow, no header is older
    /// than the events below it, and none is newer than an event that comes after it, or a client
    /// that goes on from there would miss that event.
    pub(crate) fn disorder(&self) -> Option<String> {
        let mut told: BTreeMap<i64, i64> = BTreeMap::new();
        for answer in self.seen.answers().iter() {
            let told = told.entry(answer.watch_id).or_default();
            if answer.created {
                *told = 0;
            }
            let header = answer.header.map_or(0, |header| header.revision);
            let revisions = answer.events.iter().map(modified);
            if !revisions.clone().is_sorted() || revisions.clone().any(|at| at <= *told || at > header) {
                return Some(format!("after a header with revision {told}: {answer:?}"));
            }
            if !answer.events.is_empty() && !answer.fragment {
                *told = header;
            }
        }
        None
    }
}

impl Seen {
    fn answers(&self) -> std::sync::MutexGuard<'_, Vec<WatchResponse>> {
        self.answers.lock().expect("nobody panics holding it")
    }

    fn push(&self, answer: WatchResponse) {
        self.answers().push(answer);
        self.news.notify_one();
    }

    /// Waits for a condition; false if the stream ends or patience does.
    async fn wait(&self, done: impl Fn(&[WatchResponse]) -> bool) -> bool {
        let waiting = async {
            loop {
                if done(&self.answers()) {
                    return true;
                }
                if self.end.lock().expect("nobody panics holding it").is_some() {
                    return false;
                }
                self.news.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(false)
    }
}

impl Watcher {
    /// How many of the events that happened this watcher must be told.
    pub(crate) fn expects(&self, history: &[Event]) -> usize {
        history.iter().filter(|event| self.wants(event)).count()
    }

    fn wants(&self, event: &Event) -> bool {
        let refused = |filter: FilterType| self.request.filters.contains(&filter.into());
        let filtered = match event.r#type() {
            EventType::Put => refused(FilterType::Noput),
            EventType::Delete => refused(FilterType::Nodelete),
        };
        let key = event.kv.as_ref().map(|kv| kv.key.as_ref()).unwrap_or_default();
        let from = if self.request.key.is_empty() { b"\0".as_ref() } else { &self.request.key };
        let inside = match self.request.range_end.as_ref() {
            b"" => key == from,
            b"\0" => key >= from,
            end => key >= from && key < end,
        };
        !self.doomed && !filtered && inside && modified(event) >= self.start
    }
}

/// Whether an answer says something about a watcher or the stream.
fn is_notice(answer: &WatchResponse) -> bool {
    answer.created || answer.canceled || answer.events.is_empty()
}

fn events(answers: &[WatchResponse], id: i64) -> impl Iterator<Item = (&WatchResponse, &Event)> {
    let own = answers.iter().filter(move |answer| answer.watch_id == id);
    own.flat_map(|answer| answer.events.iter().map(move |event| (answer, event)))
}

fn modified(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
