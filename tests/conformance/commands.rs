//! Command lines for etcdctl, out of `commands.txt`, run against both servers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::fields::Fields;
use crate::pair::{self, Pair, Party};
use crate::rules::{Difference, Rules};

const SCRIPT: &str = include_str!("commands.txt");

/// How long a command may take that ends by itself, or a watcher to print what it has to.
const PATIENCE: Duration = Duration::from_secs(15);

/// One line of the script.
struct Line {
    number: usize,
    arguments: Vec<String>,
    input: String,
    /// To be ended after so many lines of output.
    until: Option<usize>,
}

/// What running the script found.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) commands: usize,
    pub(crate) failed: usize,
}

/// What a command did.
struct Outcome {
    /// It did not come to an end, or not to the lines that were to come.
    late: bool,
    output: String,
    /// The last thing on standard error that is not a line of etcdctl's own log.
    error: String,
    code: Option<i32>,
}

/// One server, and what is its own: ids in the order in which it gave them away, and where files may lie.
struct Side {
    party: Party,
    /// The member that is asked next.
    at: usize,
    leases: Vec<String>,
    members: Vec<String>,
    files: tempfile::TempDir,
}

/// Runs the whole script.
pub(crate) fn run(rules: &Rules) -> Result<Report> {
    let mut report = Report::default();
    for part in parts()? {
        let pair = Pair::start(&[])?;
        let (mut etcd, mut cairn) = (Side::new(&pair.etcd)?, Side::new(&pair.cairn)?);
        for line in part {
            if pair::members() > 1 && line.arguments.iter().any(|argument| argument == "protobuf") {
                // Ids are in there, and cannot be taken out of the bytes.
                continue;
            }
            [&mut etcd, &mut cairn].into_iter().for_each(Side::turn);
            report.commands += 1;
            let (was, is) = std::thread::scope(|scope| {
                let was = scope.spawn(|| etcd.run(&line));
                let is = cairn.run(&line);
                (was.join().expect("running a command does not panic"), is)
            });
            let (was, is) = (was?, is?);
            let late = [was.late, is.late];
            let (was, is) = (etcd.fields(&line, was), cairn.fields(&line, is));
            let mut differences = rules.compare(&was, &is);
            if late.contains(&true) {
                let [etcd, cairn] = late.map(|late| if late { "waited in vain" } else { "" }.to_owned());
                let place = format!("does not come to an end, or not to its lines: {was:?}");
                differences.push(Difference { place, etcd, cairn });
            }
            if !differences.is_empty() {
                report.failed += 1;
                tell(&line, &differences);
            }
        }
    }
    Ok(report)
}

fn tell(line: &Line, differences: &[Difference]) {
    println!("commands.txt:{}: {}", line.number, line.arguments.join(" "));
    for difference in differences.iter().take(6) {
        println!("   {difference}");
    }
}

/// The script, cut where new servers are wanted.
fn parts() -> Result<Vec<Vec<Line>>> {
    let mut parts: Vec<Vec<Line>> = Vec::new();
    for (at, text) in SCRIPT.lines().enumerate() {
        let number = at + 1;
        let wrong = || format!("commands.txt:{number}: {text}");
        if let Some(input) = text.strip_prefix("  |") {
            let line = parts.last_mut().and_then(|part| part.last_mut()).with_context(wrong)?;
            line.input.push_str(input.strip_prefix(' ').unwrap_or(input));
            line.input.push('\n');
        } else if text.starts_with("== ") {
            parts.push(Vec::new());
        } else if !text.is_empty() && !text.starts_with('#') {
            let (until, text) = match text.strip_prefix('[') {
                Some(rest) => {
                    let (count, text) = rest.split_once("] ").with_context(wrong)?;
                    (Some(count.parse()?), text)
                }
                None => (None, text),
            };
            let arguments = words(text).with_context(wrong)?;
            let line = Line { number, arguments, input: String::new(), until };
            parts.last_mut().with_context(wrong)?.push(line);
        }
    }
    Ok(parts)
}

/// Splits as a shell does, as far as quotes and the braces of leases go.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => {
                quote = None;
                if open == '}' {
                    word.get_or_insert_default().push(c);
                }
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'') => {
                quote = Some('\'');
                word.get_or_insert_default();
            }
            (None, '{') => {
                quote = Some('}');
                word.get_or_insert_default().push('{');
            }
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

impl Side {
    fn new(party: &Party) -> Result<Side> {
        let (leases, members) = Default::default();
        Ok(Side { party: party.clone(), at: 0, leases, members, files: tempfile::tempdir()? })
    }

    /// Has the next command go to the next member.
    fn turn(&mut self) {
        self.at = (self.at + 1) % self.party.endpoints.len();
    }

    fn endpoint(&self) -> String {
        self.party.endpoints[self.at].replace("http://", "")
    }

    fn run(&mut self, line: &Line) -> Result<Outcome> {
        if self.party.endpoints.len() > 1 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(pair::catch_up(&self.party.endpoints[self.at]))?;
        }
        let binaries = tests::etcd_directory().context("CAIRN_ETCD_BIN_DIR is not set")?;
        let arguments = line.arguments.iter().map(|argument| self.with_own(argument));
        let mut child = Command::new(binaries.join("etcdctl"))
            .env("ETCDCTL_ENDPOINTS", self.endpoint())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("a pipe")?;
        // It may end without having read it.
        let _ = input.write_all(line.input.as_bytes());
        // A watcher that reads commands goes on until its input ends, so keep that.
        let _input = line.until.map(|_| input);
        let mut errors = child.stderr.take().context("a pipe")?;
        let errors = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = errors.read_to_end(&mut all);
            String::from_utf8_lossy(&all).into_owned()
        });
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let mut seen = Vec::new();
        let mut late = false;
        let ended = loop {
            if line.until.is_some_and(|count| seen.len() >= count) {
                break false;
            }
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break true,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    late = true;
                    break false;
                }
            }
        };
        if !ended {
            child.kill()?;
        }
        let code = child.wait()?.code();
        let Ok(errors) = errors.join() else { bail!("reading standard error panics") };
        let own_log = |line: &&str| line.starts_with("{\"level\"") || line.trim().is_empty();
        let error = errors.lines().rev().find(|line| !own_log(line)).unwrap_or_default().to_owned();
        let outcome = Outcome { late, output: seen.join("\n"), error, code: code.filter(|_| ended) };
        self.learn(line, &outcome.output);
        Ok(outcome)
    }

    /// Remembers the id that a grant, or an addition of a member, has printed.
    fn learn(&mut self, line: &Line, output: &str) {
        let (ids, before) = match line.arguments.get(..2).unwrap_or_default() {
            [lease, grant] if lease == "lease" && grant == "grant" => (&mut self.leases, "lease "),
            [member, add] if member == "member" && add == "add" => (&mut self.members, "Member "),
            _ => return,
        };
        let decimal = |text: &str| text.parse::<u64>().ok().map(|id| format!("{id:016x}"));
        let json = serde_json::from_str::<Value>(output).ok();
        let id = if let Some(json) = json {
            let id = json.get("ID").or_else(|| json.get("member")?.get("ID"));
            id.and_then(|id| decimal(&id.to_string()))
        } else if let Some(id) = output.lines().find_map(|line| line.strip_prefix("\"ID\" : ")) {
            decimal(id)
        } else {
            let word = output.strip_prefix(before).and_then(|rest| rest.split(' ').next());
            word.map(|id| format!("{id:0>16}"))
        };
        ids.extend(id);
    }

    /// Puts this server's ids and files in.
    fn with_own(&self, argument: &str) -> String {
        let mut text = argument.to_owned();
        for (at, id) in self.leases.iter().enumerate() {
            text = text.replace(&format!("{{lease {}}}", at + 1), id);
        }
        for (at, id) in self.members.iter().enumerate() {
            text = text.replace(&format!("{{member {}}}", at + 1), id);
        }
        match text.strip_prefix("{file ").and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => self.files.path().join(name).display().to_string(),
            None => text,
        }
    }

    /// Takes what is this server's own out: its address, ids and files.
    fn without_own(&self, text: &str) -> String {
        // The whole URL is in lists of members only, where it says whose it is.
        let text = self.party.hide(text).replace(&self.endpoint(), "ENDPOINT");
        let text = text.replace(&self.files.path().display().to_string(), "FILES");
        let leases = self.leases.iter().enumerate().map(|(at, id)| (format!("LEASE{}", at + 1), id));
        let members = self.members.iter().enumerate().map(|(at, id)| (format!("MEMBER{}", at + 1), id));
        leases.chain(members).fold(text, |text, (name, id)| {
            let decimal = u64::from_str_radix(id, 16).unwrap_or_default().to_string();
            text.replace(&decimal, &name).replace(id, &name).replace(id.trim_start_matches('0'), &name)
        })
    }

    /// What a command did as values with names, as the rules want them.
    fn fields(&self, line: &Line, outcome: Outcome) -> Fields {
        let command: Vec<&str> = line
            .arguments
            .iter()
            .map(String::as_str)
            .take_while(|word| word.chars().all(char::is_alphabetic))
            .collect();
        let words =
            if matches!(command[..], ["endpoint" | "lease" | "member" | "alarm", _, ..]) { 2 } else { 1 };
        let command = command[..words.min(command.len())].join(" ");
        let output = self.without_own(&outcome.output);
        let mut fields = read(&output);
        fields.push(("error".to_owned(), without_chance(&self.without_own(&outcome.error))));
        fields.push(("exit code".to_owned(), format!("{:?}", outcome.code)));
        fields.into_iter().map(|(place, value)| (format!("etcdctl {command}: {place}"), value)).collect()
    }
}

/// Takes output apart, whichever of etcdctl's formats it is in.
fn read(output: &str) -> Fields {
    let mut fields = Fields::new();
    // What stands for the id of a lease or a member stands where JSON wants a number.
    let quoted = quoted(&quoted(output, ":LEASE"), ":MEMBER");
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&quoted).into_iter().collect();
    match documents {
        Ok(documents) if output.starts_with(['{', '[']) => {
            documents
                .iter()
                .enumerate()
                .for_each(|(at, json)| flatten(&format!("json {at}"), json, &mut fields));
        }
        _ => {
            let mut heads: Vec<String> = Vec::new();
            for (at, line) in output.lines().enumerate() {
                let cells: Vec<&str> = match line.trim().strip_prefix('|') {
                    Some(row) => row.trim_end_matches('|').split('|').map(str::trim).collect(),
                    None => Vec::new(),
                };
                if line.starts_with("+-") {
                    // The border is as long as the longest value.
                } else if !cells.is_empty() && heads.is_empty() {
                    heads = cells.into_iter().map(str::to_owned).collect();
                } else if !cells.is_empty() {
                    let named = heads.iter().zip(cells);
                    fields
                        .extend(named.map(|(head, cell)| (format!("column {head}, {at}"), cell.to_owned())));
                } else if line.starts_with("ENDPOINT, ") {
                    let cells = line.split(", ").enumerate();
                    fields.extend(
                        cells.map(|(cell, text)| (format!("line {at}, value {cell}"), text.to_owned())),
                    );
                } else if let Some((name, value)) = line.split_once("\" : ") {
                    fields.push((format!("line {at}, {}", name.trim_start_matches('"')), value.to_owned()));
                } else {
                    fields.push((format!("line {at}"), without_chance(line)));
                }
            }
        }
    }
    fields
}

/// Puts quotes around each word that begins with a marker, but for its colon.
fn quoted(text: &str, marker: &str) -> String {
    let mut pieces = text.split(marker);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = &piece[..piece.len() - rest.len()];
        format!("{text}:\"{}{number}\"{rest}", &marker[1..])
    })
}

fn flatten(place: &str, value: &Value, fields: &mut Fields) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flatten(&format!("{place}.{name}"), value, fields));
        }
        Value::Array(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(at, value)| flatten(&format!("{place}[{at}]"), value, fields));
        }
        value => fields.push((place.to_owned(), value.to_string())),
    }
}

/// Words such as `took = 1.5ms` and `remaining(599s)` lose their number, and the keys of a lease the
/// order in which a map of etcd's has them.
fn without_chance(line: &str) -> String {
    let mut line = line.to_owned();
    for (marker, end) in [("took = ", None), ("took ", None), ("remaining(", Some("s)"))] {
        if let Some((before, rest)) = line.split_once(marker) {
            let after = end.and_then(|end| rest.split_once(end)).map_or("", |(_, after)| after);
            line = format!("{before}{marker}DURATION {after}");
        }
    }
    if let Some((before, keys)) = line.split_once("attached keys([") {
        let mut keys: Vec<&str> = keys.trim_end_matches("])").split(' ').collect();
        keys.sort_unstable();
        line = format!("{before}attached keys {}", keys.join(" "));
    }
    line
}
