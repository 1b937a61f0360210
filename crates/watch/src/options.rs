//! The bounds of a hub, all of them in one place.

use std::time::Duration;

/// Bounds and intervals of a [`Hub`](crate::Hub). The defaults are what a member runs with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of undelivered events that one stream may hold before its watchers fall back to history.
    /// Events that several watchers of the stream wait for count once.
    pub stream_bytes: usize,
    /// Undelivered (event group × watcher) entries that one stream may hold before its watchers fall back.
    pub stream_entries: usize,
    /// Bytes of undelivered events in all streams of the hub together, shared ones counted once. Above it
    /// only streams that hold less than [`Options::spared_bytes`] accept more.
    pub hub_bytes: usize,
    /// What a stream may hold even while the hub is above [`Options::hub_bytes`], in bytes: a stream that
    /// keeps up is not made to read history because others do not.
    pub spared_bytes: usize,
    /// The size in bytes that several revisions are gathered up to in one response. A single revision is
    /// never split by this.
    pub response_bytes: usize,
    /// How many events several revisions are gathered up to in one response.
    pub response_events: usize,
    /// The encoded size of a response, in bytes, from which it is split for watchers that asked for
    /// fragments: the request size limit and etcd's allowance for gRPC, 512 KiB.
    pub fragment_bytes: usize,
    /// Rows of history that one step of catching up looks at, more or less: this bounds how long the step
    /// keeps the thread.
    pub step_rows: usize,
    /// Bytes of events that one step of catching up gathers, more or less.
    pub step_bytes: usize,
    /// While news keeps a stream's line from ever being empty, its watchers that are behind get a step after
    /// so many frames.
    pub frames_per_step: usize,
    /// Control responses (created, canceled) waiting on a stream from which it counts as backed up.
    pub control_backlog: usize,
    /// The time between two progress notifications to an idle watcher. Every stream adds a part of a tenth
    /// of it, so that streams opened together do not notify together.
    pub progress_interval: Duration,
    /// What the streams' additions to the interval are drawn from.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            stream_bytes: 8 << 20,
            stream_entries: 256 << 10,
            hub_bytes: 128 << 20,
            spared_bytes: 64 << 10,
            response_bytes: 1 << 20,
            response_events: 1_000,
            fragment_bytes: (1536 << 10) + (512 << 10),
            step_rows: 1_000,
            step_bytes: 1 << 20,
            frames_per_step: 64,
            control_backlog: 16,
            progress_interval: Duration::from_secs(600),
            seed: 0,
        }
    }
}
