//! One line of the log, as zap writes it for etcd.
//!
//! ```text
//! {"level":"info","ts":"2026-11-20T05:46:02.123456Z","caller":"server/run.rs:42","msg":"…","name":"default"}
//! 2026-11-20T05:46:02.123456Z    info    server/run.rs:42    …    {"name": "default"}
//! ```
//!
//! (The columns of the second have tabs between them.)

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Format;
use crate::note::Level;

/// Crates whose events below level warn are about their own insides.
const FOREIGN: [&str; 10] =
    ["axum", "h2", "hyper", "hyper_util", "mio", "redb", "rustls", "tokio", "tonic", "tower"];

/// Whether an event's target is a dependency and not one of our rooms.
pub(super) fn is_foreign(target: &str) -> bool {
    let krate = target.split("::").next().unwrap_or_default();
    FOREIGN.contains(&krate)
}

/// A line in the making: head first, then the message, then the fields.
pub(super) struct Line {
    format: Format,
    head: String,
    message: String,
    /// The fields as the inside of a JSON object.
    fields: String,
}

impl Line {
    /// Begins a line. `file` is the source file as the compiler names it.
    pub(super) fn new(format: Format, level: Level, at: SystemTime, file: &str, line: u32) -> Line {
        let (level, at, caller) = (level.name(), timestamp(at), format!("{}:{line}", short(file)));
        let head = match format {
            Format::Json => {
                format!("{{\"level\":\"{level}\",\"ts\":\"{at}\",\"caller\":{},\"msg\":", json(&caller))
            }
            Format::Console => format!("{at}\t{level}\t{caller}\t"),
        };
        Line { format, head, message: String::new(), fields: String::new() }
    }

    /// Sets the message.
    pub(super) fn message(&mut self, message: &str) {
        message.clone_into(&mut self.message);
    }

    /// Adds a field that is text. The field `message` is what `tracing` calls the message.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        if name == "message" {
            self.message(value);
        } else {
            self.field(name, value.into());
        }
    }

    /// Adds a field.
    pub(super) fn field(&mut self, name: &str, value: Value) {
        let (colon, comma) = match self.format {
            Format::Json => (":", ","),
            Format::Console => (": ", ", "),
        };
        if !self.fields.is_empty() {
            self.fields.push_str(comma);
        }
        self.fields.push_str(&json(name));
        self.fields.push_str(colon);
        match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(Value::to_string).collect();
                let _ = write!(self.fields, "[{}]", items.join(comma));
            }
            value => {
                let _ = write!(self.fields, "{value}");
            }
        }
    }

    /// The finished line, with its newline.
    pub(super) fn end(self) -> String {
        let Line { format, mut head, message, fields } = self;
        match format {
            Format::Json => {
                head.push_str(&json(&message));
                if !fields.is_empty() {
                    head.push(',');
                    head.push_str(&fields);
                }
                head.push_str("}\n");
            }
            Format::Console => {
                head.push_str(&message.replace('\n', "\\n"));
                if !fields.is_empty() {
                    let _ = write!(head, "\t{{{fields}}}");
                }
                head.push('\n');
            }
        }
        head
    }
}

fn json(text: &str) -> String {
    Value::from(text).to_string()
}

/// `server/run.rs` for `crates/server/src/run.rs`: the room and the file. A dependency's path is cut to its
/// last two parts, as zap does.
fn short(file: &str) -> String {
    let parts: Vec<&str> = file.split(['/', '\\']).filter(|part| *part != "src").collect();
    match parts.iter().rposition(|part| *part == "crates") {
        Some(at) => parts[at + 1..].join("/"),
        None => parts[parts.len().saturating_sub(2)..].join("/"),
    }
}

/// Microseconds since 1970 in UTC, as `2026-11-20T05:46:02.123456Z`.
pub(super) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// The time that the `Debug` form of a `SystemTime` is of.
pub(super) fn time_of(text: &str) -> Option<SystemTime> {
    let (seconds, nanos) = text.strip_prefix("SystemTime { tv_sec: ")?.split_once(", tv_nsec: ")?;
    let (seconds, nanos) = (seconds.parse().ok()?, nanos.strip_suffix(" }")?.parse().ok()?);
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// The count is moved to 0000-03-01, so that leap days come last in their year: then 146,097 days are always 400
/// years, and the months from March on have lengths that one linear formula gives.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> Line {
        let at = UNIX_EPOCH + Duration::from_micros(1_795_153_562_123_456);
        Line::new(format, Level::Info, at, "crates/server/src/run.rs", 42)
    }

    #[test]
    fn a_json_line_has_zaps_keys_in_zaps_order() {
        let mut line = line(Format::Json);
        line.message("a \"quoted\"\nmessage");
        line.text("name", "default");
        line.field("args", serde_json::json!(["a", "b"]));
        line.field("count", 3.into());
        assert_eq!(
            line.end(),
            concat!(
                r#"{"level":"info","ts":"2026-11-20T05:46:02.123456Z","caller":"server/run.rs:42","#,
                r#""msg":"a \"quoted\"\nmessage","name":"default","args":["a","b"],"count":3}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_console_line_has_tabs_and_its_fields_last() {
        let mut with = line(Format::Console);
        with.message("started");
        with.text("name", "default");
        with.field("args", serde_json::json!(["a", "b"]));
        let expected = "2026-11-20T05:46:02.123456Z\tinfo\tserver/run.rs:42\tstarted\t\
                        {\"name\": \"default\", \"args\": [\"a\", \"b\"]}\n";
        assert_eq!(with.end(), expected);

        let mut bare = line(Format::Console);
        bare.message("two\nlines");
        assert_eq!(bare.end(), "2026-11-20T05:46:02.123456Z\tinfo\tserver/run.rs:42\ttwo\\nlines\n");
    }

    #[test]
    fn a_time_is_known_by_its_form() {
        let now = SystemTime::now();
        assert_eq!(time_of(&format!("{now:?}")), Some(now));
        assert_eq!(time_of("SystemTime { tv_sec: x, tv_nsec: 1 }"), None);
        assert_eq!(time_of("5ms"), None);
    }

    #[test]
    fn callers_name_the_room() {
        assert_eq!(short("crates/wal/src/segment/writer.rs"), "wal/segment/writer.rs");
        assert_eq!(short("/home/x/crates/cairn/src/main.rs"), "cairn/main.rs");
        assert_eq!(short("/registry/tonic-0.14.9/src/server.rs"), "tonic-0.14.9/server.rs");
    }

    #[test]
    fn days_become_dates_across_leap_years() {
        let cases = [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (20_777, (2026, 11, 20)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ];
        for (days, expected) in cases {
            assert_eq!(date(days), expected, "day {days}");
        }
    }

    #[test]
    fn dependencies_are_foreign_and_rooms_are_not() {
        assert!(is_foreign("h2::codec::framed_read"));
        assert!(is_foreign("hyper"));
        assert!(!is_foreign("server::run"));
        assert!(!is_foreign("h2o"));
    }
}
