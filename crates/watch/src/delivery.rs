//! Events on their way to every watcher of a group: gathered once, encoded once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::Event;
use crate::frame::{Body, BodyWriter, element_len};
use crate::history::{History, HistoryError};

/// Some whole revisions' events for one group of watchers.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The revision of the first event.
    pub(crate) first: i64,
    /// The revision of the last event.
    pub(crate) last: i64,
    /// What the header of a response that ends with these events says: the last event's revision for news,
    /// the revision that the hub was at for a stretch of history.
    pub(crate) header: i64,
    /// In order.
    pub(crate) events: Box<[Event]>,
    /// What keeping this costs, in bytes.
    pub(crate) weight: usize,
    plain: OnceLock<Body>,
    with_previous: OnceLock<WithPrevious>,
}

/// The variant for watchers that want the pair as it was before each event.
#[derive(Debug)]
struct WithPrevious {
    pairs: Box<[Option<Bytes>]>,
    body: Body,
}

impl Delivery {
    fn new(events: Vec<Event>, header: Option<i64>) -> Arc<Delivery> {
        let (first, last) = match (events.first(), events.last()) {
            (Some(first), Some(last)) => (first.revision.main, last.revision.main),
            _ => unreachable!("a delivery has events"),
        };
        // Twice the records, because the encoded body holds them once more; the rest is what an event and
        // its allocations take beside them.
        let weight = events.iter().map(|event| 2 * event.record.len() + event.key.len() + 192).sum();
        Arc::new(Delivery {
            first,
            last,
            header: header.unwrap_or(last),
            events: events.into(),
            weight,
            plain: OnceLock::new(),
            with_previous: OnceLock::new(),
        })
    }

    /// Cuts the chosen `events` into deliveries of whole revisions, each of at most `max_bytes` and
    /// `max_events` unless a single revision has more.
    pub(crate) fn cut<'a>(
        events: impl Iterator<Item = &'a Event>,
        header: Option<i64>,
        max_bytes: usize,
        max_events: usize,
    ) -> Vec<Arc<Delivery>> {
        let mut deliveries = Vec::new();
        let (mut whole, mut whole_bytes) = (Vec::new(), 0);
        let (mut revision, mut revision_bytes) = (Vec::<Event>::new(), 0);
        let mut close = |revision: &mut Vec<Event>, revision_bytes: &mut usize| {
            let full = whole_bytes + *revision_bytes > max_bytes || whole.len() + revision.len() > max_events;
            if full && !whole.is_empty() {
                deliveries.push(Delivery::new(std::mem::take(&mut whole), header));
                whole_bytes = 0;
            }
            whole.append(revision);
            whole_bytes += std::mem::take(revision_bytes);
        };
        for event in events {
            // Planted: V6, one revision in several responses.
            let split = planted::is("events-split");
            if revision.last().is_some_and(|last| last.revision.main != event.revision.main || split) {
                close(&mut revision, &mut revision_bytes);
            }
            revision_bytes += element_len(event.tombstone, &event.record, None);
            revision.push(event.clone());
        }
        close(&mut revision, &mut revision_bytes);
        if !whole.is_empty() {
            deliveries.push(Delivery::new(whole, header));
        }
        deliveries
    }

    /// The events from `revision` on, for a watcher that must not see earlier ones.
    pub(crate) fn trimmed(&self, revision: i64) -> Arc<Delivery> {
        let header = Some(self.header);
        let kept = self.events.iter().filter(|event| event.revision.main >= revision).cloned().collect();
        Delivery::new(kept, header)
    }

    /// The encoded events.
    ///
    /// # Errors
    /// When previous pairs are wanted, not known yet, and cannot be read.
    pub(crate) fn body(&self, prev_kv: bool, history: &dyn History) -> Result<&Body, HistoryError> {
        if prev_kv {
            return Ok(&self.with_previous(history)?.body);
        }
        Ok(self.plain.get_or_init(|| {
            let bytes = self.events.iter().map(|e| e.record.len() + 32).sum();
            let mut writer = BodyWriter::with_capacity(bytes);
            self.events.iter().for_each(|event| writer.event(event.tombstone, &event.record, None));
            writer.finish()
        }))
    }

    /// Every event with its previous pair, if that is wanted and known.
    ///
    /// # Errors
    /// As [`Delivery::body`].
    pub(crate) fn elements(
        &self,
        prev_kv: bool,
        history: &dyn History,
    ) -> Result<impl Iterator<Item = (&Event, Option<&Bytes>)>, HistoryError> {
        let pairs = if prev_kv { Some(&self.with_previous(history)?.pairs) } else { None };
        let previous = move |at: usize| pairs.and_then(|pairs| pairs[at].as_ref());
        Ok(self.events.iter().enumerate().map(move |(at, event)| (event, previous(at))))
    }

    fn with_previous(&self, history: &dyn History) -> Result<&WithPrevious, HistoryError> {
        if let Some(known) = self.with_previous.get() {
            return Ok(known);
        }
        let previous = |event: &Event| {
            // A key that was made by this very event had nothing before; everything else had.
            if !event.tombstone && event.create_revision == event.revision.main {
                return Ok(None);
            }
            history.value_at(&event.key, event.revision.main - 1)
        };
        let pairs = self.events.iter().map(previous).collect::<Result<Box<[_]>, _>>()?;
        let bytes = self.events.iter().map(|e| e.record.len() + 40).sum::<usize>()
            + pairs.iter().flatten().map(Bytes::len).sum::<usize>();
        let mut writer = BodyWriter::with_capacity(bytes);
        for (event, pair) in self.events.iter().zip(&pairs) {
            writer.event(event.tombstone, &event.record, pair.as_ref());
        }
        Ok(self.with_previous.get_or_init(|| WithPrevious { pairs, body: writer.finish() }))
    }
}
