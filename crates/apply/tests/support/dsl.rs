//! Requests, written down.
//!
//! ```text
//! put a 1 lease=5 prev keep-value keep-lease        (a value of - is none)
//! get a   get a..c   get a..     rev= limit= sort=mod:desc keys count min-mod= max-mod= ...
//! delete a..c prev
//! txn if value a = 1, mod b..c > 0 { put a 2; get a } else { delete a; txn { } }
//! ```

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

pub struct Tokens<'a>(std::iter::Peekable<std::vec::IntoIter<&'a str>>);

pub fn tokens(line: &str) -> Tokens<'_> {
    let words = line.split_whitespace().flat_map(|word| word.split_inclusive(['{', '}', ';', ',']));
    let parts = words.flat_map(|word| match word.strip_suffix(['{', '}', ';', ',']) {
        Some(head) => [head, &word[head.len()..]],
        None => [word, ""],
    });
    Tokens(parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().into_iter().peekable())
}

impl<'a> Tokens<'a> {
    pub fn next(&mut self) -> &'a str {
        self.0.next().expect("one word more")
    }

    pub fn rest(&mut self) -> Vec<&'a str> {
        self.0.by_ref().collect()
    }

    pub fn number(&mut self) -> i64 {
        self.next().parse().unwrap()
    }

    fn take(&mut self, word: &str) -> bool {
        self.0.next_if(|next| *next == word).is_some()
    }

    /// The next word, if it belongs to the operation at hand.
    fn option(&mut self) -> Option<(&'a str, &'a str)> {
        let word = self.0.next_if(|next| !["{", "}", ";", ","].contains(next))?;
        Some(word.split_once('=').unwrap_or((word, "")))
    }

    pub fn op(&mut self) -> Request {
        match self.next() {
            "put" => Request::RequestPut(self.put()),
            "get" => Request::RequestRange(self.get()),
            "delete" => Request::RequestDeleteRange(self.delete()),
            "txn" => Request::RequestTxn(self.txn()),
            other => panic!("no such operation: {other}"),
        }
    }

    pub fn put(&mut self) -> PutRequest {
        let mut put = PutRequest { key: bytes(self.next()), value: bytes(self.next()), ..Default::default() };
        while let Some((name, value)) = self.option() {
            match name {
                "lease" => put.lease = value.parse().unwrap(),
                "prev" => put.prev_kv = true,
                "keep-value" => put.ignore_value = true,
                "keep-lease" => put.ignore_lease = true,
                other => panic!("no such option: {other}"),
            }
        }
        put
    }

    pub fn get(&mut self) -> RangeRequest {
        let (key, range_end) = range(self.next());
        let mut get = RangeRequest { key, range_end, ..Default::default() };
        while let Some((name, value)) = self.option() {
            let number = || value.parse::<i64>().unwrap();
            match name {
                "rev" => get.revision = number(),
                "limit" => get.limit = number(),
                "serializable" => get.serializable = true,
                "keys" => get.keys_only = true,
                "count" => get.count_only = true,
                "min-mod" => get.min_mod_revision = number(),
                "max-mod" => get.max_mod_revision = number(),
                "min-create" => get.min_create_revision = number(),
                "max-create" => get.max_create_revision = number(),
                "sort" => {
                    let (target, order) = value.split_once(':').unwrap_or((value, "none"));
                    get.sort_target =
                        SortTarget::from_str_name(&target.to_uppercase()).map_or(99, |t| t as i32);
                    get.sort_order = match order {
                        "none" => SortOrder::None as i32,
                        "asc" => SortOrder::Ascend as i32,
                        "desc" => SortOrder::Descend as i32,
                        _ => 99,
                    };
                }
                other => panic!("no such option: {other}"),
            }
        }
        get
    }

    pub fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = range(self.next());
        let mut delete = DeleteRangeRequest { key, range_end, prev_kv: false };
        while let Some((name, _)) = self.option() {
            assert_eq!(name, "prev");
            delete.prev_kv = true;
        }
        delete
    }

    pub fn txn(&mut self) -> TxnRequest {
        let mut txn = TxnRequest::default();
        if self.take("if") {
            txn.compare.push(self.compare());
            while self.take(",") {
                txn.compare.push(self.compare());
            }
        }
        txn.success = self.block();
        if self.take("else") {
            txn.failure = self.block();
        }
        txn
    }

    fn block(&mut self) -> Vec<RequestOp> {
        let mut ops = Vec::new();
        assert!(self.take("{"), "a block begins with {{");
        while !self.take("}") {
            let request = if self.take("nothing") { None } else { Some(self.op()) };
            ops.push(RequestOp { request });
            self.take(";");
        }
        ops
    }

    fn compare(&mut self) -> Compare {
        let target = self.next();
        let (key, range_end) = range(self.next());
        let result = match self.next() {
            "=" => CompareResult::Equal,
            "!=" => CompareResult::NotEqual,
            ">" => CompareResult::Greater,
            "<" => CompareResult::Less,
            other => panic!("no such comparison: {other}"),
        };
        let value = self.next();
        let number = || value.parse::<i64>().unwrap();
        let (target, union) = match target {
            "version" => (CompareTarget::Version, TargetUnion::Version(number())),
            "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number())),
            "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number())),
            "lease" => (CompareTarget::Lease, TargetUnion::Lease(number())),
            "value" => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
            other => panic!("no such target: {other}"),
        };
        let (result, target) = (result as i32, target as i32);
        Compare { result, target, key, range_end, target_union: Some(union) }
    }
}

fn range(word: &str) -> (Bytes, Bytes) {
    match word.split_once("..") {
        Some((key, "")) => (bytes(key), Bytes::from_static(b"\0")),
        Some((key, end)) => (bytes(key), bytes(end)),
        None => (bytes(word), Bytes::new()),
    }
}

fn bytes(word: &str) -> Bytes {
    if word == "-" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) }
}
