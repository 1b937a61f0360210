//! Clients that watch, and hold every response against all of history.

use api::etcdserverpb::WatchResponse;
use api::mvccpb;
use api::mvccpb::event::EventType;
use bytes::Bytes;
use mvcc::KeyRange;
use watch::{Filters, StreamId, WatchRequest};

use super::checks::{Change, Checked, Checks, ensure};
use super::member::Who;
use crate::random::Random;

/// One watcher, which goes from member to member.
pub(crate) struct Watcher {
    number: usize,
    range: KeyRange,
    filters: Filters,
    prev_kv: bool,
    progress_notify: bool,
    /// It has everything below this; 0 before it was ever told a revision.
    pub(crate) next: i64,
    pub(crate) at: Option<(Who, StreamId)>,
    pub(crate) step: u64,
    /// What it asked its present member for.
    start: i64,
    /// Whether its stream has said that it exists.
    created: bool,
    /// Responses that were looked at.
    pub(crate) responses: u64,
}

impl Watcher {
    pub(crate) fn new(number: usize, random: &mut Random) -> Watcher {
        let range = match random.below(3) {
            0 => KeyRange::From(Bytes::from_static(b"\0")),
            1 => KeyRange::Range { start: Bytes::from_static(b"k"), end: Bytes::from_static(b"k4") },
            _ => KeyRange::Key(Bytes::from_static(b"k1")),
        };
        let filters = Filters { no_put: random.one_in(6), no_delete: random.one_in(6) };
        Watcher {
            number,
            range,
            filters,
            prev_kv: random.one_in(2),
            progress_notify: random.one_in(2),
            next: random.below(3) as i64,
            at: None,
            step: 0,
            start: 0,
            created: false,
            responses: 0,
        }
    }

    /// What to ask of the next member.
    pub(crate) fn request(&mut self) -> WatchRequest {
        (self.created, self.start) = (false, self.next);
        WatchRequest {
            start_revision: self.next,
            filters: self.filters,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            ..WatchRequest::new(self.range.clone())
        }
    }

    fn wants(&self, change: &Change) -> bool {
        let inside = match &self.range {
            KeyRange::Key(key) => change.key == *key,
            KeyRange::Range { start, end } => (start..end).contains(&&change.key),
            KeyRange::From(start) => change.key >= *start,
            KeyRange::Empty => false,
        };
        inside && !(if change.tombstone { self.filters.no_delete } else { self.filters.no_put })
    }

    /// What it must have been sent of these revisions.
    fn due<'a>(&'a self, from: i64, to: i64, checks: &'a Checks) -> impl Iterator<Item = &'a Change> {
        let to = to.max(from - 1);
        checks
            .changes
            .range(from..to + 1)
            .flat_map(|(_, changes)| changes)
            .filter(|change| self.wants(change))
    }

    /// Looks at a response; whether the watcher goes on.
    pub(crate) fn receive(
        &mut self,
        response: &WatchResponse,
        checks: &Checks,
    ) -> Result<bool, super::checks::Violation> {
        self.responses += 1;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let who = format!("watcher {} from {} on at {:?}", self.number, self.next, self.at);
        if response.created {
            ensure!(!self.created && !response.canceled, "{who}: {response:?}");
            self.created = true;
            if self.next == 0 {
                self.next = revision + 1;
            }
            return Ok(true);
        }
        ensure!(self.created, "{who}: before it was created: {response:?}");
        if response.canceled {
            let compacted = response.compact_revision;
            ensure!(
                compacted > self.next && compacted <= checks.compacted,
                "{who}: canceled with {response:?}; compacted is {}",
                checks.compacted
            );
            self.next = compacted;
            return Ok(false);
        }
        if response.events.is_empty() {
            ensure!(revision <= checks.revision(), "{who}: told of revision {revision}, which nobody has");
            if let Some(missed) = self.due(self.next, revision, checks).next() {
                ensure!(false, "{who}: progress to {revision} is told before {missed:?}");
            }
            // It may be told again, also behind events that came meanwhile, but nothing below the start.
            ensure!(
                revision + 1 >= self.start,
                "{who}: progress to {revision}, below the start {}",
                self.start
            );
            self.next = self.next.max(revision + 1);
            return Ok(true);
        }
        let modified = |event: &mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let last = response.events.last().map_or(0, modified);
        ensure!(revision >= last, "{who}: header {revision} below {last}");
        let due: Vec<&Change> = self.due(self.next, last, checks).collect();
        ensure!(
            due.len() == response.events.len(),
            "{who}: {} events up to {last}, due are {}: {:?}; {due:?}",
            response.events.len(),
            due.len(),
            response.events
        );
        for (event, change) in response.events.iter().zip(due) {
            self.same(event, change, checks)?;
        }
        self.next = last + 1;
        Ok(true)
    }

    fn same(&self, event: &mvccpb::Event, change: &Change, checks: &Checks) -> Checked {
        let kv = event.kv.clone().unwrap_or_default();
        let tombstone = event.r#type == i32::from(EventType::Delete);
        ensure!(
            tombstone == change.tombstone && kv == change.kv,
            "watcher {}: is told {event:?}, it was {change:?}",
            self.number
        );
        if !self.prev_kv {
            ensure!(event.prev_kv.is_none(), "watcher {}: did not ask for {:?}", self.number, event.prev_kv);
            return Ok(());
        }
        let before = checks.before(&change.key, kv.mod_revision);
        let compacted = kv.mod_revision - 1 < checks.compacted;
        ensure!(
            event.prev_kv.as_ref() == before || event.prev_kv.is_none() && compacted,
            "watcher {}: is told that before {change:?} it was {:?}; it was {before:?}",
            self.number,
            event.prev_kv
        );
        Ok(())
    }

    /// Whether there is nothing that it has not been sent.
    pub(crate) fn has_all(&self, checks: &Checks) -> Checked {
        let missed = self.due(self.next.max(1), checks.revision(), checks).next();
        ensure!(missed.is_none(), "watcher {} at {:?} was never sent {missed:?}", self.number, self.at);
        Ok(())
    }
}
