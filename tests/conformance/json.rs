//! The JSON gateway: the requests of `json.txt`, sent to both servers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::pair::Pair;

/// Before a request that is made in somebody's name.
const NAMED: &str = "as | ";

const SCRIPT: &str = include_str!("json.txt");

/// How long an answer may take to come.
const PATIENCE: Duration = Duration::from_secs(15);

/// What two servers need not agree on: positions in raft's log, which start-up alone makes differ, sizes of
/// another storage engine, and versions.
const OWN: [&str; 10] = [
    "raft_term",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "version",
    "storageVersion",
    "dbSizeQuota",
    "downgradeInfo",
];

/// What running the script found.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) requests: usize,
    pub(crate) failed: usize,
}

/// How the answers to a line are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Equal,
    /// The message is a library's.
    Words,
    /// So many lines of a stream.
    Lines(usize),
    /// A later version of etcd answers with this status.
    Later(u16),
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: String,
    /// A value for each line of a body that is JSON; else the text.
    body: Result<Vec<Value>, String>,
}

impl Answer {
    /// The token in it, which is taken out: it is one server's own.
    fn token(&mut self) -> Option<String> {
        let fields = self.body.as_mut().ok()?.first_mut()?.as_object_mut()?;
        fields.remove("token").and_then(|token| token.as_str().map(str::to_owned))
    }
}

/// Runs the whole script.
pub(crate) fn run() -> Result<Report> {
    let mut report = Report::default();
    let pair = Pair::start(&[])?;
    let mut tokens = [String::new(), String::new()];
    for (index, line) in SCRIPT.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        report.requests += 1;
        let (named, line) = line.strip_prefix(NAMED).map_or((false, line), |line| (true, line));
        let (mode, request) = mode(line).with_context(|| format!("json.txt, line {}", index + 1))?;
        let mut answers = Vec::new();
        for (party, token) in [&pair.etcd, &pair.cairn].into_iter().zip(&mut tokens) {
            let shown = named.then_some(token.as_str());
            let mut answer = ask(&party.endpoints[0], request, mode, shown)
                .with_context(|| format!("{request} at {}", party.endpoints[0]))?;
            if let Some(new) = answer.token() {
                *token = new;
            }
            answers.push(answer);
        }
        let [etcd, cairn] = &answers[..] else { unreachable!("two servers have been asked") };
        if !agree(mode, etcd, cairn) {
            report.failed += 1;
            println!("json.txt, line {}: {line}\n   etcd:  {etcd:?}\n   cairn: {cairn:?}", index + 1);
        }
    }
    Ok(report)
}

fn mode(line: &str) -> Result<(Mode, &str)> {
    let Some((mode, request)) = line.split_once(" | ") else { return Ok((Mode::Equal, line)) };
    let mode = match mode.split_once(' ') {
        None if mode == "words" => Mode::Words,
        Some(("lines", count)) => Mode::Lines(count.parse()?),
        Some(("later", status)) => Mode::Later(status.parse()?),
        _ => anyhow::bail!("no such mode: {mode}"),
    };
    Ok((mode, request))
}

fn agree(mode: Mode, etcd: &Answer, cairn: &Answer) -> bool {
    match mode {
        Mode::Equal | Mode::Lines(_) => etcd == cairn,
        Mode::Words => {
            let code = |answer: &Answer| Some(answer.body.as_ref().ok()?.first()?.get("code")?.clone());
            let is_error = code(etcd).is_some_and(|code| code.is_u64());
            is_error && (etcd.status, code(etcd)) == (cairn.status, code(cairn))
        }
        // Where the older version agrees, it is no difference.
        Mode::Later(status) => cairn.status == status && etcd != cairn,
    }
}

fn ask(endpoint: &str, request: &str, mode: Mode, token: Option<&str>) -> Result<Answer> {
    let mut words = request.splitn(3, ' ');
    let (method, path) = (words.next().context("a method")?, words.next().context("a path")?);
    let body = words.next().unwrap_or_default();
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let authorization = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).context("the headers")?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_ascii_lowercase()),
        }
    }
    let status = head.first().and_then(|line| line.split(' ').nth(1)).context("a status")?.parse()?;
    let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let content_type = header("content-type").unwrap_or_default().to_owned();
    let text = match mode {
        Mode::Lines(count) => {
            let mut lines = String::new();
            while lines.lines().count() < count {
                lines += &chunk(&mut stream).with_context(|| format!("a line after {lines}"))?;
            }
            lines
        }
        _ if header("transfer-encoding") == Some("chunked") => {
            let mut text = String::new();
            loop {
                match chunk(&mut stream)? {
                    piece if piece.is_empty() => break text,
                    piece => text += &piece,
                }
            }
        }
        _ => {
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            text
        }
    };
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let body = values.map_err(|_| text).map(|mut values| {
        values.iter_mut().for_each(|value| hide(value, path.ends_with("timetolive")));
        if matches!(mode, Mode::Lines(_)) {
            values.sort_by_key(Value::to_string);
        }
        values
    });
    Ok(Answer { status, content_type, body })
}

fn chunk(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut length = String::new();
    stream.read_line(&mut length)?;
    let mut piece = vec![0; usize::from_str_radix(length.trim_end(), 16)? + 2];
    stream.read_exact(&mut piece)?;
    piece.truncate(piece.len() - 2);
    Ok(String::from_utf8(piece)?)
}

/// Takes out what is each server's own.
fn hide(value: &mut Value, passing: bool) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !OWN.contains(&name.as_str()));
            if passing && fields.get("TTL").is_some_and(|left| left != "-1") {
                fields.remove("TTL");
            }
            // The library of later versions calls it so; the older one's name is there too.
            if fields.contains_key("grpc_code") {
                fields.remove("code");
            }
            fields.values_mut().for_each(|value| hide(value, passing));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| hide(value, passing)),
        _ => {}
    }
}
