//! The log: one line an event, shaped like etcd's, so that whatever reads etcd's log can read this one.
//!
//! Every room logs through `tracing`. What arrives here is written as zap would write it (`line.rs`): JSON with
//! `level`, `ts`, `caller`, `msg` and the event's fields, or the `console` format with tabs. A thread of its own
//! does the writing (`queue.rs`), so that a terminal that is stopped, or a pipe that nobody empties, does not
//! stop the server with it.
//!
//! Four conventions hold for events. A field whose `Debug` output is a list of JSON values, such as `?urls` for
//! a `Vec<String>`, becomes a JSON list, and a `SystemTime` a time as `ts` is. The targets [`FATAL`] and [`PANIC`] turn an error event into a line of
//! that level. And a dependency's own events are only written from level warn on: what hyper thinks of a frame
//! is no news to an operator.

mod journal;
mod line;
mod queue;
mod rotate;
mod rules;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::flags::Given;
use crate::note::{Level, Note};
use journal::Journal;
use line::Line;
use queue::Queue;
use rotate::Rotating;
use rules::Rules;

/// The target of events that say why the process is about to end.
pub(crate) const FATAL: &str = "fatal";
/// The target of events that report a panic.
pub(crate) const PANIC: &str = "panic";

/// The output that stands for systemd's journal.
const JOURNAL: &str = "systemd/journal";

/// How many bytes of log may wait for a slow reader before lines are dropped.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Where and how to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The least a line must matter.
    pub level: Level,
    /// How lines look.
    pub format: Format,
    /// Where they go: `stderr`, `stdout`, `systemd/journal` alone, or paths of files.
    pub outputs: Vec<String>,
    /// When to begin a new file; none for never.
    pub rotation: Option<Rules>,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object a line.
    Json,
    /// Columns with tabs between them, the fields as JSON in the last.
    Console,
}

impl Default for Options {
    /// What etcd does before it knows better.
    fn default() -> Options {
        Options {
            level: Level::Info,
            format: Format::Json,
            outputs: vec!["stderr".to_owned()],
            rotation: None,
        }
    }
}

impl Options {
    /// What the flags ask for.
    ///
    /// # Errors
    /// etcd's words about what it does not offer.
    pub(crate) fn new(given: &Given) -> Result<Options, String> {
        match given.text("logger").as_str() {
            "zap" => {}
            "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_owned()),
            other => return Err(format!("unknown logger option {other:?}")),
        }
        let mut outputs = given.words("log-outputs");
        if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
            return Err("multi logoutput for \"default\" is not supported yet".to_owned());
        }
        if outputs.is_empty() {
            outputs = vec!["default".to_owned()];
        }
        let rotation = match given.bool("enable-log-rotation") {
            true => Some(Rules::new(&outputs, &given.text("log-rotation-config-json"))?),
            false => None,
        };
        if outputs.len() > 1 && outputs.iter().any(|output| output == JOURNAL) {
            // In etcd's words, which show them as Go shows lists.
            let outputs = outputs.iter().map(|output| format!("{output:?}")).collect::<Vec<_>>().join(" ");
            return Err(format!(
                "running with systemd/journal but other '--log-outputs' values ([{outputs}]) are configured with \
                 'default'; override 'default' value with something else"
            ));
        }
        if outputs == ["default"] {
            outputs = vec!["stderr".to_owned()];
        }
        // One output that swallows everything swallows it for the others too.
        if outputs.iter().any(|output| output == "/dev/null") {
            outputs = vec!["/dev/null".to_owned()];
        }
        let level = Level::parse(&given.text("log-level"))?;
        let format = match given.text("log-format").as_str() {
            "json" | "" => Format::Json,
            "console" => Format::Console,
            other => return Err(format!("unknown log format: {other}, supported values json, console")),
        };
        Ok(Options { level, format, outputs, rotation })
    }

    fn open(&self) -> Result<Vec<Box<dyn Write + Send>>, String> {
        let open = |output: &String| -> Result<Box<dyn Write + Send>, String> {
            match output.as_str() {
                "stderr" => Ok(Box::new(io::stderr())),
                "stdout" => Ok(Box::new(io::stdout())),
                JOURNAL => match Journal::open() {
                    Ok(journal) => Ok(Box::new(journal)),
                    Err(error) => Err(format!("can't find journal ({})", crate::note::system_words(&error))),
                },
                path => match self.open_file(Path::new(path)) {
                    Ok(file) => Ok(file),
                    Err(error) => {
                        let words = crate::note::system_words(&error);
                        Err(format!("couldn't open sink {path:?}: open {path}: {words}"))
                    }
                },
            }
        };
        self.outputs.iter().map(open).collect()
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn Write + Send>> {
        // A pipe or a device is never full, and must not be renamed.
        let is_file = std::fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        match &self.rotation {
            Some(rules) if is_file => Ok(Box::new(Rotating::open(path, rules.clone())?)),
            _ => Ok(Box::new(OpenOptions::new().append(true).create(true).open(path)?)),
        }
    }
}

/// The log of this process. There is one, since `tracing` has one subscriber and the panic hook is one.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    options: Options,
    queue: Queue,
}

/// Starts the log: from here on `tracing` events and panics arrive in it.
///
/// # Errors
/// An output that cannot be opened, or a second call.
pub(crate) fn start(options: &Options) -> Result<(), String> {
    let outputs = options.open()?;
    let log = Log { options: options.clone(), queue: Queue::start(outputs, QUEUE_BYTES) };
    if LOG.set(log).is_err() {
        return Err("the log was started twice".to_owned());
    }
    let layer = ToLog { level: options.level, format: options.format, sink: push };
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message =
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = Backtrace::capture();
        let stacktrace = match backtrace.status() {
            BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        };
        tracing::error!(target: PANIC, at = place, thread, stacktrace, "{message}");
    }));
    Ok(())
}

fn push(line: String) {
    if let Some(log) = LOG.get() {
        log.queue.push(line);
    }
}

/// Writes a line that was made before there was a log.
pub(crate) fn note(note: &Note) {
    if let Some(log) = LOG.get().filter(|log| note.level >= log.options.level) {
        log.queue.push(noted(note, log.options.format, SystemTime::now()));
    }
}

fn noted(note: &Note, format: Format, at: SystemTime) -> String {
    let mut line = Line::new(format, note.level, at, note.at.file(), note.at.line());
    line.message(&note.message);
    for (name, value) in &note.fields {
        line.field(name, value.clone());
    }
    line.end()
}

/// Keeps the end of the process waiting until everything logged so far is written, or the log's reader has shown
/// for some seconds that it is not going to take it. To be held by `main`, so that a panic waits too.
pub(crate) struct Finish;

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some(log) = LOG.get() {
            log.queue.drain();
        }
    }
}

/// The end of every `tracing` event.
struct ToLog<F> {
    level: Level,
    format: Format,
    sink: F,
}

impl<S: Subscriber, F: Fn(String) + 'static> Layer<S> for ToLog<F> {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let level = level_of(metadata);
        level >= self.level && (level >= Level::Warn || !line::is_foreign(metadata.target()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::Panic | Level::Fatal => LevelFilter::ERROR,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let (file, number) = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        let mut line = Line::new(self.format, level_of(metadata), SystemTime::now(), file, number);
        event.record(&mut Fields(&mut line));
        (self.sink)(line.end());
    }
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match (*metadata.level(), metadata.target()) {
        (tracing::Level::ERROR, FATAL) => Level::Fatal,
        (tracing::Level::ERROR, PANIC) => Level::Panic,
        (tracing::Level::ERROR, _) => Level::Error,
        (tracing::Level::WARN, _) => Level::Warn,
        (tracing::Level::INFO, _) => Level::Info,
        _ => Level::Debug,
    }
}

/// Hands an event's fields to a line.
struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.field(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.field(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.field(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.field(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.text(field.name(), &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        if let Some(at) = line::time_of(&text) {
            return self.0.text(field.name(), &line::timestamp(at));
        }
        match text.starts_with('[').then(|| serde_json::from_str(&text)) {
            Some(Ok(list)) => self.0.field(field.name(), list),
            _ => self.0.text(field.name(), &text),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use super::*;

    /// The lines that `events` leave behind, without what changes from run to run: the time and the place.
    fn lines(level: Level, events: impl FnOnce()) -> Vec<String> {
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let got = Arc::clone(&got);
            move |line: String| got.lock().unwrap().push(line)
        };
        let layer = ToLog { level, format: Format::Json, sink };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let lines = got.lock().unwrap();
        lines
            .iter()
            .map(|line| {
                let (head, rest) = line.split_once(",\"ts\":\"").unwrap();
                let (caller, rest) = rest.split_once("\"caller\":\"").unwrap().1.split_once("\",").unwrap();
                assert!(caller.starts_with("cairn/logging.rs:"), "{line}");
                format!("{head} {}", rest.trim_end())
            })
            .collect()
    }

    #[test]
    fn events_become_lines_of_etcds_shape() {
        let urls = vec!["http://a:1".to_owned(), "http://b:1".to_owned()];
        let error = io::Error::other("broken");
        let lines = lines(Level::Info, || {
            tracing::info!("member-id" = %"8e9e", took = ?std::time::Duration::from_millis(5), "started");
            tracing::warn!(?urls, count = 3, part = 0.5, ready = true, "list");
            tracing::error!(error = &error as &dyn std::error::Error, "failed");
            tracing::error!(target: FATAL, "gone");
            tracing::error!(target: PANIC, "bug");
            tracing::debug!("not asked for");
        });
        assert_eq!(
            lines,
            [
                r#"{"level":"info" "msg":"started","member-id":"8e9e","took":"5ms"}"#,
                r#"{"level":"warn" "msg":"list","urls":["http://a:1","http://b:1"],"count":3,"part":0.5,"ready":true}"#,
                r#"{"level":"error" "msg":"failed","error":"broken"}"#,
                r#"{"level":"fatal" "msg":"gone"}"#,
                r#"{"level":"panic" "msg":"bug"}"#,
            ]
        );
    }

    #[test]
    fn the_level_is_the_least_that_is_written() {
        let log = |level| {
            lines(level, || {
                tracing::debug!("1");
                tracing::info!("2");
                tracing::warn!("3");
                tracing::error!("4");
                tracing::error!(target: PANIC, "5");
                tracing::error!(target: FATAL, "6");
            })
            .len()
        };
        let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Panic, Level::Fatal];
        assert_eq!(levels.map(log), [6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn a_dependency_is_heard_only_when_it_warns() {
        let lines = lines(Level::Debug, || {
            tracing::debug!(target: "h2::codec", "a frame");
            tracing::info!(target: "hyper", "a connection");
            tracing::warn!(target: "tonic", "something odd");
            tracing::debug!(target: "server::run", "ours");
        });
        assert_eq!(lines, [r#"{"level":"warn" "msg":"something odd"}"#, r#"{"level":"debug" "msg":"ours"}"#]);
    }

    #[test]
    fn notes_become_lines_too() {
        let at = SystemTime::UNIX_EPOCH;
        let note = Note::new(Level::Warn, "odd").text("key", "a").with("list", vec!["b"]);
        let line = noted(&note, Format::Json, at);
        assert!(line.starts_with(
            r#"{"level":"warn","ts":"1970-01-01T00:00:00.000000Z","caller":"cairn/logging.rs:"#
        ));
        assert!(line.ends_with("\"msg\":\"odd\",\"key\":\"a\",\"list\":[\"b\"]}\n"), "{line}");
    }
}
