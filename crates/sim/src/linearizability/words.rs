//! Requests and answers in few words.

use std::fmt;

use super::{Body, Compare, KeyValue, Order, Request, Target};

/// Bytes of a key or value that are shown.
const SHOWN: usize = 24;

struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "{}{}", shown.escape_ascii(), if shown.len() < self.0.len() { "..." } else { "" })
    }
}

struct Range<'a>(&'a [u8], Option<&'a Vec<u8>>);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(end) => write!(f, "[{}, {})", Text(self.0), Text(end)),
            None => write!(f, "{}", Text(self.0)),
        }
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            write!(f, "{}{one}", if at > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Range { key, end } => write!(f, "get {}", Range(key, end.as_ref())),
            Request::Put { key, value, lease: 0 } => write!(f, "put {}={}", Text(key), Text(value)),
            Request::Put { key, value, lease } => {
                write!(f, "put {}={} lease {lease}", Text(key), Text(value))
            }
            Request::Delete { key, end } => write!(f, "delete {}", Range(key, end.as_ref())),
            Request::Txn { compare, success, failure } => {
                write!(f, "if {} {{{}}} else {{{}}}", List(compare), List(success), List(failure))
            }
        }
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Equal => "=",
            Order::NotEqual => "!=",
            Order::Less => "<",
            Order::Greater => ">",
        };
        let key = Text(&self.key);
        match &self.target {
            Target::Version(right) => write!(f, "version({key}) {order} {right}"),
            Target::CreateRevision(right) => write!(f, "create({key}) {order} {right}"),
            Target::ModRevision(right) => write!(f, "mod({key}) {order} {right}"),
            Target::Value(right) => write!(f, "value({key}) {order} {}", Text(right)),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Range(found) => write!(f, "({})", List(found)),
            Body::Put { previous: Some(Some(previous)) } => write!(f, "done, was {previous}"),
            Body::Put { previous: Some(None) } => f.write_str("done, was absent"),
            Body::Put { previous: None } => f.write_str("done"),
            Body::Delete { deleted, previous: None } => write!(f, "deleted {deleted}"),
            Body::Delete { deleted, previous: Some(previous) } => {
                write!(f, "deleted {deleted}, was ({})", List(previous))
            }
            Body::Txn { succeeded, bodies } => write!(f, "{succeeded} {{{}}}", List(bodies)),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyValue { key, value, create_revision, mod_revision, version, .. } = self;
        let (key, value) = (Text(key), Text(value));
        write!(f, "{key}={value} created {create_revision} changed {mod_revision} version {version}")
    }
}
