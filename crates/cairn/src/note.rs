//! A line for the log, made before there is a log: how a member reads its configuration decides where and how
//! it logs, and yet reading it has things to say.

use std::io;
use std::panic::Location;

use serde_json::Value;

/// How much a line matters, least first. The names are those of zap, etcd's logging library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// For those who look for a fault.
    Debug,
    /// The course of events.
    Info,
    /// Odd, but it goes on.
    Warn,
    /// Something failed.
    Error,
    /// A bug showed itself.
    Panic,
    /// The member cannot go on.
    Fatal,
}

impl Level {
    /// As it stands in a line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    /// Reads the value of `--log-level`; the empty text means info.
    ///
    /// # Errors
    /// zap's words about everything else.
    pub(crate) fn parse(text: &str) -> Result<Level, String> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Ok(Level::Debug),
            "info" | "" => Ok(Level::Info),
            "warn" => Ok(Level::Warn),
            "error" => Ok(Level::Error),
            "dpanic" | "panic" => Ok(Level::Panic),
            "fatal" => Ok(Level::Fatal),
            _ => Err(format!("unrecognized level: {text:?}")),
        }
    }
}

/// A line to be logged.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// The particulars, in order.
    pub fields: Vec<(&'static str, Value)>,
    /// Where in the source it was made.
    pub at: &'static Location<'static>,
}

impl Note {
    /// A line without particulars.
    #[track_caller]
    pub(crate) fn new(level: Level, message: &str) -> Note {
        Note { level, message: message.to_owned(), fields: Vec::new(), at: Location::caller() }
    }

    /// Adds a particular.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Note {
        self.fields.push((name, value.into()));
        self
    }

    /// Adds a particular that is text.
    pub(crate) fn text(self, name: &'static str, value: &str) -> Note {
        self.with(name, value)
    }
}

/// The system's words for an error, as Go puts them: in lower case and without the number.
pub(crate) fn system_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
