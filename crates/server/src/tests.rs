//! The hand-over between threads, with the real threads of a member.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use api::etcdserverpb::PutRequest;
use node::{Proposal, ReadId};
use tokio::sync::mpsc::unbounded_channel;

use crate::mailbox::Mail;
use crate::proposal::{Answer, RequestId};
use crate::{Config, Member, Server};

/// Far more than any of these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member with so many mailboxes, for tests to empty in place of its runtime threads.
fn config(directory: &Path, shards: usize) -> Config {
    Config {
        // The clock's ticks turn raft too, and would hide a letter that is left lying.
        heartbeat: Duration::from_secs(3_600),
        election_timeout: Duration::from_secs(36_000),
        compaction_sleep: Duration::from_millis(1),
        no_fsync: true,
        shards,
        ..Config::new(directory.join("data"))
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Reads a shard's mail on the calling thread until `enough` says that there is no more to come.
fn read_mail(member: &Member, shard: usize, mut enough: impl FnMut(&mut Mail) -> bool) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut mail = Mail::default();
    loop {
        if member.mailbox(shard).take(&mut mail, &waker) {
            if enough(&mut mail) {
                return;
            }
            mail = Mail::default();
        } else {
            let slept = Instant::now();
            thread::park_timeout(PATIENCE);
            assert!(slept.elapsed() < PATIENCE, "shard {shard} waits for mail that does not come");
        }
    }
}

/// Every thread asks and then reads its mail, again and again, with one request on its way: if a
/// letter were left lying, or an answer, the thread would wait for ever.
#[test]
fn no_letter_is_left_lying_and_no_answer_is_lost() {
    const SHARDS: usize = 4;
    const ROUNDS: u64 = 500;
    let directory = tempfile::tempdir().unwrap();
    let (failures, mut failed) = unbounded_channel();
    let server = Server::start(config(directory.path(), SHARDS), failures).unwrap();
    let member = server.member();
    thread::scope(|scope| {
        for shard in 0..SHARDS {
            scope.spawn(move || {
                let mut number = RequestId::first(0, member.id());
                let mut put = 0;
                while put < ROUNDS {
                    number = RequestId::next(number);
                    let id = RequestId::new(number, shard);
                    let request = PutRequest { key: format!("k{shard}").into(), ..PutRequest::default() };
                    let data = api::raft_request::encode(id.0, &request).into();
                    let proposal = Proposal { id: id.0, kind: raft::EntryKind::Normal, data, only_in: None };
                    member.inbox().ask(&mut vec![proposal], Some(ReadId(id.0))).unwrap();
                    member.drive();
                    let (mut answered, mut confirmed) = (None, None);
                    read_mail(member, shard, |mail| {
                        for (of, answer) in mail.answers.drain(..) {
                            assert_eq!((of, answered), (id, None), "one answer to each request");
                            answered = Some(matches!(answer, Answer::Applied(Ok(_), _)));
                        }
                        for (of, result) in mail.reads.drain(..) {
                            assert_eq!((of, confirmed), (id.0, None), "one end of each round");
                            confirmed = Some(result.is_ok());
                        }
                        answered.is_some() && confirmed.is_some()
                    });
                    // Before there is a leader both come to nothing, which is an answer too.
                    put += u64::from(answered == Some(true));
                }
            });
        }
    });
    assert_eq!(member.store().current_revision(), 1 + (SHARDS as u64 * ROUNDS) as i64);
    assert!(failed.try_recv().is_err());
    server.stop();
}
