//! One runtime thread's part of the member.
//!
//! A connection lives on one thread from accept to close (design §10), and so does all that its
//! requests wait for: the table of waiters, the read round that they share, the watchers. Nothing
//! here is locked; requests reach the member's other threads, and answers come back, in batches
//! that one task per shard, the dispatcher, posts and collects.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use node::Proposal;
use tokio::sync::oneshot;
use watch::{Hub, StreamId};

use crate::error::Error;
use crate::mailbox::Mail;
use crate::member::Member;
use crate::proposal::{Answer, RequestId};
use crate::reads::{LOST, Reads};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// How often waiters that have waited too long are looked for.
const SWEEP: Duration = Duration::from_millis(100);

/// How often the dispatcher looks for more before the thread's other tasks have their turn.
const TURNS: usize = 16;

/// The bytes of requests that may wait for a leader before further ones are refused.
const MAX_POSTPONED_BYTES: usize = 32 << 20;

pub(crate) struct Shard {
    number: usize,
    member: Arc<Member>,
    local: RefCell<Local>,
}

struct Local {
    next_request: u64,
    outbox: Vec<Proposal>,
    waiters: HashMap<RequestId, Waiter>,
    /// Requests that wait for a leader, and about how many bytes they hold.
    postponed: Vec<RequestId>,
    postponed_bytes: usize,
    reads: Reads,
    hub: Hub,
    woken: Vec<StreamId>,
    stream_wakers: HashMap<StreamId, Waker>,
    dispatcher: Option<Waker>,
    scheduled: bool,
    stopping: bool,
    swept: Instant,
    /// What the gauges of watchers say of this hub.
    told: watch::Counts,
}

struct Waiter {
    since: Instant,
    /// What was proposed: shared with the log until it is applied.
    proposal: Proposal,
    answer: oneshot::Sender<Answer>,
}

impl Shard {
    /// The shard of the calling thread.
    ///
    /// Panics outside the member's runtime threads: there is no request there to serve.
    pub(crate) fn with<T>(f: impl FnOnce(&Shard) -> T) -> T {
        CURRENT.with(|current| {
            let shard = current.borrow().clone();
            f(&shard.expect("called on one of the member's runtime threads"))
        })
    }

    /// Makes the calling thread shard `number` of the member and serves its mailbox, until it is
    /// dropped.
    pub(crate) async fn serve(member: Arc<Member>, number: usize, first_request: u64) {
        let shard = Rc::new(Self {
            number,
            local: RefCell::new(Local {
                next_request: first_request,
                outbox: Vec::new(),
                waiters: HashMap::new(),
                postponed: Vec::new(),
                postponed_bytes: 0,
                reads: Reads::default(),
                hub: Hub::with_options(
                    member.store().current_revision(),
                    hub_options(&member, first_request),
                ),
                woken: Vec::new(),
                stream_wakers: HashMap::new(),
                dispatcher: None,
                scheduled: false,
                stopping: false,
                swept: Instant::now(),
                told: watch::Counts::default(),
            }),
            member,
        });
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&shard)));
        let mut mail = Mail::default();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        std::future::poll_fn(|context| {
            while sweep.poll_tick(context).is_ready() {
                shard.sweep();
            }
            shard.poll(&mut mail, context);
            Poll::<()>::Pending
        })
        .await;
    }

    fn poll(&self, mail: &mut Mail, context: &mut Context<'_>) {
        self.local.borrow_mut().dispatcher = Some(context.waker().clone());
        let mut gathers = None;
        for _ in 0..TURNS {
            if self.member.mailbox(self.number).take(mail, context.waker()) {
                self.open(mail);
            } else if !self.flush(&mut gathers) {
                if gathers == Some(true) {
                    // After all that is ready, on this thread and on its sockets.
                    let _: Poll<()> = pin!(tokio::task::yield_now()).poll(context);
                }
                return;
            }
        }
        context.waker().wake_by_ref();
    }

    /// Gives each piece of mail to whoever waits for it.
    fn open(&self, mail: &mut Mail) {
        let local = &mut *self.local.borrow_mut();
        for (id, answer) in mail.answers.drain(..) {
            if matches!(answer, Answer::Postponed) {
                local.postpone(id);
            } else if let Some(waiter) = local.waiters.remove(&id) {
                // A waiter that has gone away meant its client did: nobody to tell.
                let _ = waiter.answer.send(answer);
            }
        }
        for (id, result) in mail.reads.drain(..) {
            local.reads.finish(id, result);
        }
        for batch in mail.events.drain(..) {
            local.hub.publish(&batch);
        }
        if let Some(revision) = mail.skipped_to.take() {
            local.hub.skip_to(revision);
        }
        mail.waiting_bytes = 0;
        if std::mem::take(&mut mail.leader) {
            local.ask_again(Duration::ZERO);
        }
        local.wake_streams();
        if std::mem::take(&mut mail.stopping) {
            // What is under way is still answered; streams end, and nothing new is taken.
            local.stopping = true;
            for (_, waker) in local.stream_wakers.drain() {
                waker.wake();
            }
        }
    }

    /// Posts what this thread's requests have asked for since the last time, if anything, and lets
    /// raft have it. `gathers`: whether a read round is put off to the next turn, once it is known.
    fn flush(&self, gathers: &mut Option<bool>) -> bool {
        {
            let local = &mut *self.local.borrow_mut();
            local.scheduled = false;
            if !self.post(local, gathers) {
                return false;
            }
        }
        self.member.drive();
        true
    }

    fn post(&self, local: &mut Local, gathers: &mut Option<bool>) -> bool {
        let mut round = None;
        // The clock is read only where there may be a round to begin.
        if local.reads.waits() {
            let now = Instant::now();
            // A lone voter confirms its rounds itself, on the spot.
            let is_free = self.member.raft().is_alone();
            if is_free || !*gathers.get_or_insert_with(|| local.reads.gathers(now)) {
                round = local.reads.start(self.number, now);
            }
        }
        if local.outbox.is_empty() && round.is_none() {
            return false;
        }
        if let Err(error) = self.member.inbox().ask(&mut local.outbox, round) {
            for proposal in local.outbox.drain(..) {
                if let Some(waiter) = local.waiters.remove(&RequestId(proposal.id)) {
                    let _ = waiter.answer.send(Answer::Failed(error));
                }
            }
        }
        true
    }

    /// Tells those that have waited longer than a request may that their outcome is unknown.
    fn sweep(&self) {
        let now = Instant::now();
        let local = &mut *self.local.borrow_mut();
        let limit = self.member.request_timeout();
        local.ask_again(LOST);
        local.hub.tick(now.duration_since(self.member.started()));
        self.tell(local);
        local.wake_streams();
        if now.duration_since(local.swept) < Duration::from_secs(1) {
            return;
        }
        local.swept = now;
        local.waiters.retain(|_, waiter| !waiter.answer.is_closed());
        let late = local.waiters.extract_if(|_, waiter| now.duration_since(waiter.since) > limit);
        for (_, waiter) in late {
            let _ = waiter.answer.send(Answer::Failed(self.member.timeout(waiter.since)));
        }
        local.reads.expire(now, limit, self.member.leadership().changed());
    }

    /// Hands an encoded request to the log; the answer comes once it is applied.
    pub(crate) fn propose(
        &self,
        encode: impl FnOnce(RequestId) -> Result<Proposal, Error>,
    ) -> Result<oneshot::Receiver<Answer>, Error> {
        let local = &mut *self.local.borrow_mut();
        if local.stopping {
            return Err(Error::Stopped);
        }
        let id = RequestId::new(local.next_request, self.number);
        local.next_request = RequestId::next(local.next_request);
        let proposal = encode(id)?;
        let (answer, receiver) = oneshot::channel();
        local.outbox.push(proposal.clone());
        local.waiters.insert(id, Waiter { since: Instant::now(), proposal, answer });
        local.schedule();
        Ok(receiver)
    }

    /// Joins the next read round of this thread.
    pub(crate) fn read(&self) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let local = &mut *self.local.borrow_mut();
        if local.stopping {
            return Err(Error::Stopped);
        }
        let receiver = local.reads.join(Instant::now());
        local.schedule();
        Ok(receiver)
    }

    /// Uses this thread's watchers, then wakes the streams that have something to send.
    pub(crate) fn hub<T>(&self, f: impl FnOnce(&mut Hub) -> T) -> T {
        let local = &mut *self.local.borrow_mut();
        let result = f(&mut local.hub);
        self.tell(local);
        local.wake_streams();
        result
    }

    /// Keeps the gauges of watchers up to date, and says whether events are wanted here at all.
    fn tell(&self, local: &mut Local) {
        let counts = local.hub.counts();
        let before = std::mem::replace(&mut local.told, counts);
        self.member.metrics().move_watchers(before, counts);
        let (had, has) = (before.streams > 0, counts.streams > 0);
        if had != has {
            self.member.mailbox(self.number).set_watched(has);
            // What was missed is taken in before the first watcher is told anything.
            local.schedule();
        }
    }

    /// Takes the next frame of a stream, or leaves `context`'s waker to be woken when there is one.
    pub(crate) fn poll_stream(
        &self,
        stream: StreamId,
        context: &mut Context<'_>,
    ) -> Poll<Option<watch::Frame>> {
        let local = &mut *self.local.borrow_mut();
        if local.stopping {
            return Poll::Ready(None);
        }
        local.hub.set_identity(self.member.identity());
        match local.hub.next(stream, self.member.store()) {
            Ok(Some(frame)) => Poll::Ready(Some(frame)),
            Err(error) => {
                tracing::error!(%error, "a watch stream ends, because history cannot be read");
                Poll::Ready(None)
            }
            Ok(None) => {
                if local.hub.has_more(stream) {
                    // A bounded step of catching up produced nothing for this stream: let others
                    // run, then go on.
                    context.waker().wake_by_ref();
                } else {
                    local.stream_wakers.insert(stream, context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Forgets a stream and its watchers.
    pub(crate) fn close_stream(&self, stream: StreamId) {
        let local = &mut *self.local.borrow_mut();
        local.hub.close_stream(stream);
        self.tell(local);
        local.stream_wakers.remove(&stream);
    }
}

impl Local {
    /// Has the dispatcher run once the tasks that are ready now have run: what they ask for goes
    /// out together.
    fn schedule(&mut self) {
        if !self.scheduled {
            self.scheduled = true;
            if let Some(dispatcher) = &self.dispatcher {
                dispatcher.wake_by_ref();
            }
        }
    }

    /// Keeps a request that entered nobody's log, to propose it again (A9: only such a one).
    fn postpone(&mut self, id: RequestId) {
        let Some(waiter) = self.waiters.get(&id) else { return };
        if self.postponed_bytes > MAX_POSTPONED_BYTES {
            if let Some(waiter) = self.waiters.remove(&id) {
                let _ = waiter.answer.send(Answer::Failed(Error::TooManyRequests));
            }
            return;
        }
        self.postponed_bytes += waiter.proposal.data.len();
        self.postponed.push(id);
    }

    /// Proposes again what was postponed, and asks again for a round that came to nothing or is
    /// `patience` old.
    fn ask_again(&mut self, patience: Duration) {
        let resumed = self.reads.resume();
        let again = self.reads.give_up(Instant::now(), patience);
        let postponed = !self.postponed.is_empty();
        self.postponed_bytes = 0;
        for id in self.postponed.drain(..) {
            self.outbox.extend(self.waiters.get(&id).map(|waiter| waiter.proposal.clone()));
        }
        if resumed || again || postponed {
            self.schedule();
        }
    }

    fn wake_streams(&mut self) {
        self.hub.take_woken(&mut self.woken);
        for stream in self.woken.drain(..) {
            if let Some(waker) = self.stream_wakers.remove(&stream) {
                waker.wake();
            }
        }
    }
}

fn hub_options(member: &Member, seed: u64) -> watch::Options {
    watch::Options {
        fragment_bytes: member.config().max_request_bytes.saturating_add(crate::member::REQUEST_OVERHEAD),
        progress_interval: member.config().progress_interval,
        seed,
        ..watch::Options::default()
    }
}
