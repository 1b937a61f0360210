//! What to ask next: requests about few keys, at revisions around the edges, some of them wrong.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::*;
use bytes::Bytes;

use crate::call::{Call, SERVER_CHOSEN, Watch};
use crate::dice::Dice;
use crate::edges;
use crate::pair;
use crate::sequence::Known;

/// So few that they meet each other, with the smallest and the largest there is among them. No more
/// than six: so many etcd 3.5 sorts stably, and which of equals comes first is otherwise chance.
const KEYS: [&[u8]; 6] = [b"a", b"aa", b"b", b"c", b"\0", b"\xff"];

/// Ends that, after one of the keys, make prefixes, everything from a key, nothing, and less.
const ENDS: [&[u8]; 8] = [b"\0", b"b", b"c", b"d", b"aa", b"a\0", b"e", b"\xff\xff"];

/// Ids that clients choose for leases, and one that nobody grants.
const LEASES: [i64; 5] = [1, 2, 77, i64::MAX, 4242];

/// What `--max-request-bytes` is in these runs, more or less.
const LARGE: usize = 4096;

/// How deep transactions are nested.
const DEPTH: usize = 3;

/// The requests of one seed. Those of seed 0 begin with [`edges`].
pub(crate) struct Generator {
    dice: Dice,
    /// What comes before anything is left to chance.
    script: std::vec::IntoIter<Call>,
    /// Ids that servers choose differ, and so does the hash of keys with such leases: a sequence
    /// has either.
    attach_server_chosen: bool,
    /// Watchers are asked for no more than this often.
    watches: usize,
    /// An alarm that is on, and how soon it goes.
    alarm: Option<(i32, usize)>,
    /// Whether a transaction may delete, or else may put what needs a key to be there: to delete a
    /// key and to count on it then ends etcd.
    deletes: bool,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let watches = dice.pick(&[0, 10, 40]);
        let script = if seed == 0 { edges::calls() } else { Vec::new() }.into_iter();
        Self { script, dice, attach_server_chosen: seed % 4 == 3, watches, alarm: None, deletes: false }
    }

    pub(crate) fn next(&mut self, known: &Known) -> Call {
        if let Some(call) = self.script.next() {
            return call;
        }
        if let Some((alarm, left)) = &mut self.alarm {
            if *left == 0 {
                let alarm = *alarm;
                self.alarm = None;
                return self.alarm(alarm, alarm_request::AlarmAction::Deactivate, known);
            }
            *left -= 1;
        }
        let watches = self.watches;
        match self.dice.weighted(&[
            (120, "range"),
            (160, "put"),
            (40, "delete"),
            (130, "txn"),
            (8, "compact"),
            (16, "grant"),
            (8, "revoke"),
            (10, "time to live"),
            (5, "leases"),
            (8, "keep alive"),
            (10, "hash kv"),
            (1, "hash"),
            (2, "alarm"),
            (2, "alarm on"),
            (2, "members"),
            (3, "status"),
            (1, "defragment"),
            (watches, "watch"),
        ]) {
            "range" => {
                let mut request = self.range(known);
                if self.dice.percent(2) {
                    // An order that there is not. A target that there is not would end etcd 3.5.1,
                    // and in a transaction the two versions' histories would part.
                    request.sort_order = self.dice.pick(&[3, -1]);
                    request.revision = 0;
                }
                Call::Range(request)
            }
            "put" => Call::Put(self.put(known, 5)),
            "delete" => Call::DeleteRange(self.delete()),
            "txn" => {
                self.deletes = self.dice.percent(50);
                // While there is no space, 3.5 lets puts in nested transactions through.
                let depth = if self.alarm.is_some() { 1 } else { DEPTH };
                Call::Txn(self.txn(known, depth))
            }
            "compact" => {
                let revision = match self.dice.percent(70) {
                    true => {
                        known.compacted
                            + self.dice.below((known.revision - known.compacted).max(1) as usize) as i64
                    }
                    false => self.revision(known),
                };
                Call::Compact(CompactionRequest { revision, physical: self.dice.percent(50) })
            }
            "grant" => self.grant(),
            "revoke" => Call::LeaseRevoke(LeaseRevokeRequest { id: self.lease(known, true) }),
            "time to live" => {
                let request =
                    LeaseTimeToLiveRequest { id: self.lease(known, true), keys: self.dice.percent(60) };
                Call::LeaseTimeToLive(request)
            }
            "leases" => Call::LeaseLeases,
            "keep alive" => {
                let count = 1 + self.dice.below(3);
                Call::LeaseKeepAlive((0..count).map(|_| self.lease(known, true)).collect())
            }
            "hash kv" if !self.attach_server_chosen => {
                Call::HashKv(HashKvRequest { revision: self.revision(known) })
            }
            "hash" => Call::Hash,
            "alarm" => Call::Alarm(AlarmRequest {
                action: self.dice.pick(&[0, 0, 2]),
                member_id: self.dice.pick(&[0, known.member]),
                alarm: self.dice.pick(&[0, 1, 2]),
            }),
            "alarm on" if self.alarm.is_none() => {
                let alarm = self.dice.pick(&[1, 1, 2]);
                self.alarm = Some((alarm, 3 + self.dice.below(12)));
                self.alarm(alarm, alarm_request::AlarmAction::Activate, known)
            }
            "members" => Call::MemberList(MemberListRequest { linearizable: self.dice.percent(50) }),
            "defragment" => Call::Defragment,
            "watch" => Call::Watch(self.watch(known)),
            _ => Call::Status,
        }
    }

    fn alarm(&mut self, alarm: i32, action: alarm_request::AlarmAction, known: &Known) -> Call {
        Call::Alarm(AlarmRequest { action: action.into(), member_id: known.member, alarm })
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(if self.dice.percent(1) { b"" } else { self.dice.pick(&KEYS) })
    }

    /// A key alone, or a range.
    fn keys(&mut self) -> (Bytes, Bytes) {
        match self.dice.below(4) {
            0 | 1 => (self.key(), Bytes::new()),
            2 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            _ => (self.key(), Bytes::from_static(self.dice.pick(&ENDS))),
        }
    }

    /// Mostly now; else somewhere from before the compacted revision to after the current one.
    fn revision(&mut self, known: &Known) -> i64 {
        let (first, last) = (known.compacted, known.revision);
        match self.dice.below(8) {
            0 => first + self.dice.pick(&[-1, 0, 1]),
            1 => last + self.dice.pick(&[-1, 0, 1, 2]),
            2 | 3 => first + self.dice.below((last - first + 1) as usize) as i64,
            4 => self.dice.pick(&[0, -1, 1, i64::MIN, i64::MAX, 0, 0]),
            _ => 0,
        }
    }

    /// No bound as a rule: a revision that some key may have.
    fn bound(&mut self, known: &Known) -> i64 {
        if self.dice.percent(85) { 0 } else { self.dice.below(known.revision as usize + 2) as i64 - 1 }
    }

    fn range(&mut self, known: &Known) -> RangeRequest {
        let (key, range_end) = self.keys();
        let plain = self.dice.percent(40);
        let mut request =
            RangeRequest { key, range_end, revision: self.revision(known), ..Default::default() };
        request.serializable = self.dice.percent(30);
        request.limit = self.dice.pick(&[0, 0, 0, 1, 2, 3, 100, -1]);
        if plain {
            return request;
        }
        request.sort_order = self.dice.below(3) as i32;
        request.sort_target = self.dice.below(5) as i32;
        request.keys_only = self.dice.percent(20);
        request.count_only = self.dice.percent(15);
        request.min_mod_revision = self.bound(known);
        request.max_mod_revision = self.bound(known);
        request.min_create_revision = self.bound(known);
        request.max_create_revision = self.bound(known);
        request
    }

    fn value(&mut self) -> Bytes {
        let size = match self.dice.below(60) {
            // Around the limit: what is counted is the request as it is logged, with its id, which is a
            // byte longer with some members' ids than with others'. Those of two clusters differ.
            0 if pair::members() > 1 => LARGE - 256 - self.dice.below(64),
            0 => LARGE - self.dice.below(64),
            1 => LARGE + self.dice.below(1000),
            2 => 1 + self.dice.below(600),
            _ => return Bytes::from_static(self.dice.pick(&[b"", b"x", b"y", b"z", b"\0\xff{", b"10"])),
        };
        Bytes::from(vec![b'v'; size])
    }

    fn lease(&mut self, known: &Known, server_chosen: bool) -> i64 {
        let granted: Vec<i64> = known
            .leases
            .iter()
            .copied()
            .filter(|id| server_chosen || *id < SERVER_CHOSEN || *id == i64::MAX)
            .collect();
        match self.dice.percent(80) && !granted.is_empty() {
            true => self.dice.pick(&granted),
            false => self.dice.pick(&LEASES),
        }
    }

    /// A put, wrong in so many cases of a hundred.
    fn put(&mut self, known: &Known, wrong: usize) -> PutRequest {
        let mut request =
            PutRequest { key: self.key(), prev_kv: self.dice.percent(30), ..Default::default() };
        request.ignore_value = self.dice.percent(10);
        request.ignore_lease = self.dice.percent(10);
        if !request.ignore_value || self.dice.percent(wrong) {
            request.value = self.value();
        }
        if self.dice.percent(25) && (!request.ignore_lease || self.dice.percent(wrong)) {
            request.lease = self.lease(known, self.attach_server_chosen);
        }
        request
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = match self.dice.percent(60) {
            true => (self.key(), Bytes::new()),
            false => self.keys(),
        };
        DeleteRangeRequest { key, range_end, prev_kv: self.dice.percent(40) }
    }

    fn grant(&mut self) -> Call {
        let id = self.dice.pick(&[0, 0, 1, 2, 77, i64::MAX]);
        // Far apart, so that a list in the order of expiry is the same whatever time takes.
        let ttl = self.dice.pick(&[600, 6_000, 60_000, 9_000_000_000, 9_000_000_001, 0, -1]);
        let ttl = if ttl <= 0 && self.dice.percent(90) { 600 } else { ttl };
        // What would expire soon is revoked at once, which takes a known id.
        let id = if ttl <= 0 { i64::MAX } else { id };
        Call::LeaseGrant(LeaseGrantRequest { ttl, id })
    }

    fn txn(&mut self, known: &Known, depth: usize) -> TxnRequest {
        let compares = self.dice.pick(&[0, 1, 1, 2, 3]);
        let compare = (0..compares).map(|_| self.compare(known)).collect();
        let success = self.ops(known, depth);
        let failure = self.ops(known, depth);
        TxnRequest { compare, success, failure }
    }

    fn ops(&mut self, known: &Known, depth: usize) -> Vec<RequestOp> {
        let count = match self.dice.below(50) {
            0 => 8,
            1 => 9,
            _ => self.dice.pick(&[0, 1, 1, 2, 2, 3]),
        };
        let mut ops: Vec<RequestOp> = Vec::new();
        let mut put = Vec::new();
        for _ in 0..count {
            let request = match self.dice.below(if depth > 1 { 10 } else { 8 }) {
                0..3 => Request::RequestRange(self.range(known)),
                3..6 => {
                    let mut put = self.put(known, 1);
                    put.ignore_value &= !self.deletes;
                    put.ignore_lease &= !self.deletes;
                    Request::RequestPut(put)
                }
                6 | 7 if !self.deletes => continue,
                6 | 7 => Request::RequestDeleteRange(self.delete()),
                _ => Request::RequestTxn(self.txn(known, depth - 1)),
            };
            if let Request::RequestPut(request) = &request {
                // The same key twice is refused, which is good to see, but not all the time.
                if put.contains(&request.key) && self.dice.percent(90) {
                    continue;
                }
                put.push(request.key.clone());
            }
            ops.push(RequestOp { request: Some(request) });
        }
        if self.dice.below(200) == 0 {
            ops.push(RequestOp { request: None });
        }
        ops
    }

    fn compare(&mut self, known: &Known) -> Compare {
        let mut compare = Compare { key: self.key(), ..Default::default() };
        if self.dice.percent(25) {
            compare.range_end = Bytes::from_static(self.dice.pick(&ENDS));
        }
        let target = self.dice.below(5);
        compare.target = target as i32;
        let number = self.dice.pick(&[0, 0, 1, 1, 2, 3, -1]);
        let revision = self.dice.pick(&[0, known.revision, known.revision - 1, known.revision / 2]);
        let lease = self.lease(known, self.attach_server_chosen);
        // The value of another kind than the target's, or none, is odd but allowed.
        let of = if self.dice.percent(2) { self.dice.below(6) } else { target };
        compare.target_union = match of {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(revision)),
            2 => Some(TargetUnion::ModRevision(revision)),
            3 => Some(TargetUnion::Value(Bytes::from_static(self.dice.pick(&[b"", b"x", b"y", b"z"])))),
            4 => Some(TargetUnion::Lease(self.dice.pick(&[0, 1, lease]))),
            _ => None,
        };
        let results =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        compare.result = self.dice.pick(&results).into();
        if self.dice.percent(1) {
            compare.result = 9;
        }
        if self.dice.percent(1) {
            compare.target = CompareTarget::Lease as i32 + 3;
        }
        compare
    }

    fn watch(&mut self, known: &Known) -> Watch {
        let stream = 1 + self.dice.below(3);
        let open: Vec<i64> = known
            .watchers
            .iter()
            .filter(|watcher| watcher.stream == stream)
            .map(|watcher| watcher.id)
            .collect();
        match self.dice.below(16) {
            0..9 => Watch::Create(stream, self.watch_request(known)),
            9..11 if !open.is_empty() => Watch::Cancel(stream, self.dice.pick(&open)),
            11 => Watch::Cancel(stream, self.dice.pick(&[0, 1, 5, 99, -1])),
            12 if known.tells_progress(stream) => Watch::Progress(stream),
            13 => Watch::Close(stream),
            _ => Watch::Settle,
        }
    }

    fn watch_request(&mut self, known: &Known) -> WatchCreateRequest {
        let (key, range_end) = self.keys();
        let (first, last) = (known.compacted, known.revision);
        let start_revision = match self.dice.below(8) {
            0 => first + self.dice.pick(&[-1, 0, 1]),
            1 => last + self.dice.pick(&[-1, 0, 1, 2, 10]),
            2..5 => first + self.dice.below((last - first + 1) as usize) as i64,
            _ => 0,
        };
        let forgotten = known.tombstones_at_compacted && start_revision == first;
        let start_revision = if forgotten { first + 1 } else { start_revision };
        WatchCreateRequest {
            key,
            range_end,
            start_revision: start_revision.max(0),
            progress_notify: self.dice.percent(10),
            filters: self.dice.weighted(&[
                (8, vec![]),
                (1, vec![FilterType::Noput.into()]),
                (1, vec![FilterType::Nodelete.into()]),
                (1, vec![FilterType::Noput.into(), FilterType::Nodelete.into()]),
            ]),
            prev_kv: self.dice.percent(40),
            watch_id: self.dice.pick(&[0, 0, 0, 0, 1, 5, 6, -2]),
            fragment: self.dice.percent(30),
        }
    }
}
