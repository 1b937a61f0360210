//! `/debug/pprof/`: where this process spends its time, in the format of Go's `pprof`.
//!
//! A timer interrupts whatever thread uses the CPU a hundred times a second of CPU time, and the stack that is
//! found there is counted; while nobody asks, there is no timer. Of what else Go tells below that path, most is
//! of Go's runtime (goroutines, its heap and its scheduler), which is not here: those paths say so.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, StatusCode, header};
use pprof::{ProfilerGuard, ProfilerGuardBuilder, Report};
use prost::Message as _;

use crate::endpoints::{TEXT, error, not_found, reply};

/// Where they are.
pub(crate) const PREFIX: &str = "/debug/pprof";

/// Looks per second of CPU time (Go's number).
const FREQUENCY: i32 = 100;

/// How long a profile lasts for which no time is given (Go's number), and the longest.
const USUAL: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);

/// What Go has and Cairn does not.
const ABSENT: [&str; 8] =
    ["allocs", "block", "goroutine", "heap", "mutex", "symbol", "threadcreate", "trace"];

/// Whether a profile is being made: there is one timer.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Answers a path below [`PREFIX`], which is cut off.
pub(crate) async fn answer(path: &str, seconds: Option<&str>) -> Response<Bytes> {
    match path {
        "" | "/" => index(),
        "/cmdline" => {
            let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
            reply(StatusCode::OK, TEXT, words.collect::<Vec<_>>().join("\0"))
        }
        "/profile" => cpu(length(seconds)).await,
        other if ABSENT.contains(&other.trim_start_matches('/')) => error(
            StatusCode::NOT_IMPLEMENTED,
            "Cairn has no such profile: there is no Go runtime in it to tell of. See profile and cmdline.",
        ),
        _ => not_found(),
    }
}

fn length(seconds: Option<&str>) -> Duration {
    let seconds = seconds.and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(USUAL, Duration::from_secs).min(LONGEST)
}

fn index() -> Response<Bytes> {
    let mut page = String::from("<html><head><title>/debug/pprof/</title></head><body>\n");
    for (name, what) in [
        ("profile?seconds=30", "where the time of the CPU goes, for the given number of seconds"),
        ("cmdline", "the command line of the process"),
    ] {
        let _ = writeln!(page, "<p><a href=\"{name}\">{name}</a>: {what}</p>");
    }
    page.push_str("</body></html>\n");
    reply(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// The one profile that is being made.
struct Running {
    guard: ProfilerGuard<'static>,
    _turn: Turn,
}

struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        BUSY.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok().then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Whoever goes before the end takes the profile with them.
async fn cpu(length: Duration) -> Response<Bytes> {
    let refused = |why: &str| {
        error(StatusCode::INTERNAL_SERVER_ERROR, &format!("Could not enable CPU profiling: {why}"))
    };
    let Some(turn) = Turn::take() else { return refused("cpu profiling already in use") };
    // A stack that is being unwound in these would be unwound by them.
    let builder = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"]);
    let guard = match builder.build() {
        Ok(guard) => guard,
        Err(failure) => return refused(&failure.to_string()),
    };
    let running = Arc::new(Running { guard, _turn: turn });
    let began = SystemTime::now();
    tokio::time::sleep(length).await;
    // Names are looked up in the debugging information, which takes a while.
    let made = tokio::task::spawn_blocking(move || {
        let report = running.guard.report().build().map_err(|failure| failure.to_string())?;
        compressed(&profile(&report, began, length)).map_err(|failure| failure.to_string())
    });
    match made.await {
        Ok(Ok(bytes)) => {
            let mut response = reply(StatusCode::OK, "application/octet-stream", bytes);
            let name = HeaderValue::from_static("attachment; filename=\"profile\"");
            response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
            response
        }
        Ok(Err(why)) => refused(&why),
        Err(_) => refused("it was interrupted"),
    }
}

fn compressed(profile: &Profile) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&profile.encode_to_vec())?;
    encoder.finish()
}

/// Things that are named by numbers, each once.
struct Numbered<T>(HashMap<T, usize>);

impl<T: Eq + Hash> Numbered<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// The number of a thing, from 0 on.
    fn of(&mut self, thing: T) -> usize {
        let next = self.0.len();
        *self.0.entry(thing).or_insert(next)
    }

    fn in_order(self) -> Vec<T> {
        let mut things: Vec<(T, usize)> = self.0.into_iter().collect();
        things.sort_by_key(|(_, number)| *number);
        things.into_iter().map(|(thing, _)| thing).collect()
    }
}

fn profile(report: &Report, began: SystemTime, length: Duration) -> Profile {
    let stacks = report.data.iter().map(|(frames, count)| {
        let frames = frames.frames.iter().map(|inlined| {
            let line = |symbol: &pprof::Symbol| Place {
                function: symbol.name(),
                file: symbol.filename().into_owned(),
                line: symbol.lineno().into(),
            };
            inlined.iter().map(line).collect()
        });
        (frames.collect(), *count as i64)
    });
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Profile { time_nanos: nanos(began), duration_nanos: nanos(length), ..of_stacks(stacks.collect()) }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A line of a source file.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    function: String,
    file: String,
    line: i64,
}

/// What was found where: stacks, innermost frames first, each with what was inlined into it, innermost first;
/// and how often.
fn of_stacks(stacks: Vec<(Vec<Vec<Place>>, i64)>) -> Profile {
    let mut words = Numbered::new();
    // The format has the empty string first.
    words.of(String::new());
    let (mut functions, mut locations) = (Numbered::new(), Numbered::new());
    let period = 1_000_000_000 / i64::from(FREQUENCY);
    let samples = stacks.into_iter().map(|(frames, count)| {
        let location_id = frames.into_iter().map(|frame| locations.of(frame) as u64 + 1).collect();
        Sample { location_id, value: vec![count, count.saturating_mul(period)] }
    });
    let sample = samples.collect();
    let location = locations.in_order().into_iter().zip(1..).map(|(frame, id)| {
        let line = frame.into_iter().map(|Place { function, file, line }| {
            let function = (words.of(function) as i64, words.of(file) as i64);
            Line { function_id: functions.of(function) as u64 + 1, line }
        });
        Location { id, line: line.collect() }
    });
    let location = location.collect();
    let function = functions.in_order().into_iter().zip(1..).map(|((name, filename), id)| Function {
        id,
        name,
        system_name: name,
        filename,
    });
    let function = function.collect();
    let mut kind = |kind: &str, unit: &str| ValueType {
        r#type: words.of(kind.to_owned()) as i64,
        unit: words.of(unit.to_owned()) as i64,
    };
    let (samples, cpu) = (kind("samples", "count"), kind("cpu", "nanoseconds"));
    Profile {
        sample_type: vec![samples, cpu],
        sample,
        location,
        function,
        string_table: words.in_order(),
        period_type: Some(cpu),
        period,
        ..Profile::default()
    }
}

// What is used here of the messages of perftools.profiles.

#[derive(Clone, PartialEq, prost::Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use super::*;

    fn place(function: &str) -> Place {
        Place { function: function.to_owned(), file: "a.rs".to_owned(), line: 7 }
    }

    #[test]
    fn what_stands_in_two_stacks_is_written_once() {
        let outer = vec![place("outer")];
        let inner = vec![place("inlined"), place("inner")];
        let profile = of_stacks(vec![(vec![inner, outer.clone()], 3), (vec![outer], 1)]);
        assert_eq!((profile.location.len(), profile.function.len()), (2, 3));
        assert_eq!(profile.string_table[0], "");
        let name = |function: &Function| profile.string_table[function.name as usize].as_str();
        let stack: Vec<Vec<&str>> = profile.sample[0]
            .location_id
            .iter()
            .map(|id| profile.location.iter().find(|location| location.id == *id).unwrap())
            .map(|location| {
                let of = |line: &Line| profile.function.iter().find(|f| f.id == line.function_id).unwrap();
                location.line.iter().map(|line| name(of(line))).collect()
            })
            .collect();
        assert_eq!(stack, [vec!["inlined", "inner"], vec!["outer"]]);
        assert_eq!(profile.sample[0].value, [3, 30_000_000]);
        let kind = |kind: &ValueType| profile.string_table[kind.r#type as usize].as_str();
        assert_eq!(profile.sample_type.iter().map(kind).collect::<Vec<_>>(), ["samples", "cpu"]);
    }

    #[test]
    fn seconds_are_go_s_unless_they_are_given() {
        assert_eq!(length(Some("2")), Duration::from_secs(2));
        assert_eq!(length(Some("99999999")), LONGEST);
        for odd in [None, Some("0"), Some("-1"), Some("x")] {
            assert_eq!(length(odd), USUAL);
        }
    }

    /// A thread that is busy is found in the profile by name.
    #[test]
    fn a_profile_names_who_was_busy() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let busy = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    spin_for_the_profile()
                }
            })
        };
        let (first, second) = runtime
            .block_on(async { tokio::join!(answer("/profile", Some("1")), answer("/profile", Some("1"))) });
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR));
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&first.body()[..]).read_to_end(&mut bytes).unwrap();
        let profile = Profile::decode(bytes.as_slice()).unwrap();
        let named = |name: &String| name.contains("spin_for_the_profile");
        assert!(profile.string_table.iter().any(named), "{:?}", profile.string_table);
    }

    #[inline(never)]
    fn spin_for_the_profile() {
        std::hint::black_box((0..1000_u64).fold(0, |sum: u64, n| sum.wrapping_mul(31).wrapping_add(n)));
    }

    #[test]
    fn what_go_alone_has_is_said_not_to_be_there() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let status = |path| runtime.block_on(answer(path, None)).status();
        assert_eq!(status("/heap"), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(status("/guess"), StatusCode::NOT_FOUND);
        assert_eq!((status(""), status("/cmdline")), (StatusCode::OK, StatusCode::OK));
    }
}
