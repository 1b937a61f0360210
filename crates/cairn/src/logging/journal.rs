//! The journal of systemd as a place for the log: a datagram for each line, in the journal's own protocol.
//!
//! As etcd's, a line is the message as it stands, and is taken apart only for its level, which becomes the
//! journal's priority, and the room that it is from. What the journal does not take goes to stderr.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    /// The name of the program.
    name: String,
    /// Of a line whose end has not come.
    rest: Vec<u8>,
}

impl Journal {
    /// Connects to the journal of this machine.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let name = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { socket, name, rest: Vec::new() })
    }

    fn send(&self, line: &str) -> io::Result<()> {
        let Head { priority, room } = Head::of(line);
        let mut entry = Vec::with_capacity(line.len() + 96);
        for (field, value) in
            [("PRIORITY", priority), ("PACKAGE", room), ("SYSLOG_IDENTIFIER", &self.name), ("MESSAGE", line)]
        {
            // The form for values of several lines, which does for any.
            entry.extend_from_slice(field.as_bytes());
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
            entry.extend_from_slice(value.as_bytes());
            entry.push(b'\n');
        }
        self.socket.send(&entry).map(drop)
    }
}

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(bytes.len()) };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in String::from_utf8_lossy(&lines).lines() {
            if self.send(line).is_err() {
                // A line that is too long for a datagram, or the journal is gone.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the journal wants to know of a line.
struct Head<'a> {
    /// syslog's number for the level.
    priority: &'static str,
    /// The directory of the source file.
    room: &'a str,
}

impl<'a> Head<'a> {
    /// Of a line of either format: the level and the caller are early in both.
    fn of(line: &'a str) -> Self {
        let (level, caller) = match line.strip_prefix("{\"level\":\"") {
            Some(rest) => (
                rest.split('"').next(),
                rest.split_once("\"caller\":\"").and_then(|(_, rest)| rest.split('"').next()),
            ),
            None => {
                let mut columns = line.split('\t').skip(1);
                (columns.next(), columns.next())
            }
        };
        let priority = match level.unwrap_or_default() {
            "debug" => "7",
            "warn" => "4",
            "error" => "3",
            "panic" | "fatal" => "2",
            _ => "6",
        };
        let room = caller.and_then(|caller| caller.rsplit_once('/')).map_or("", |(room, _)| room);
        Self { priority, room }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The fields of an entry as they are on the wire.
    fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(entry[..end].to_vec()).unwrap();
            let (length, rest) = entry[end + 1..].split_at(8);
            let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            fields.push((name, String::from_utf8(rest[..length].to_vec()).unwrap()));
            assert_eq!(rest[length], b'\n');
            entry = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn every_line_is_an_entry_with_its_priority() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::at(&path).unwrap();
        journal.name = "cairn".to_owned();
        let lines = [
            (r#"{"level":"warn","ts":"2026","caller":"server/run.rs:42","msg":"a \n b"}"#, "4", "server"),
            ("2026\tfatal\tcairn/config/load.rs:7\tgone", "2", "cairn/config"),
            (r#"{"level":"debug","ts":"2026","caller":"x","msg":""}"#, "7", ""),
            ("anything", "6", ""),
        ];
        let text: String = lines.iter().map(|(line, _, _)| format!("{line}\n")).collect();
        // However it is cut, lines stay whole.
        let (one, other) = text.split_at(30);
        journal.write_all(one.as_bytes()).unwrap();
        journal.write_all(other.as_bytes()).unwrap();
        let mut buffer = [0; 1024];
        for (line, priority, room) in lines {
            let length = journald.recv(&mut buffer).unwrap();
            let expected = [
                ("PRIORITY", priority),
                ("PACKAGE", room),
                ("SYSLOG_IDENTIFIER", "cairn"),
                ("MESSAGE", line),
            ];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(fields(&buffer[..length]), expected);
        }
    }

    #[test]
    fn without_a_journal_there_is_none_to_write_to() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Journal::at(&directory.path().join("socket")).is_err());
    }
}
