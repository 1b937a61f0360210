//! A log file that begins anew when it is full.
//!
//! The names are those that etcd's library gives, so that whatever collects etcd's logs finds these: of
//! `etcd.log`, the full one becomes `etcd-2026-11-20T05-46-02.123.log`, after the moment of its end, and
//! `etcd-2026-11-20T05-46-02.123.log.gz` if it is to be compressed. What is to be removed or compressed is looked
//! for at the start and after each change of files, on a thread of its own: the log goes on meanwhile.
//!
//! A log that cannot be written has nowhere to say so. When a change of files fails, the old one just gets longer,
//! and the change is tried again with the next line; what upkeep could not do, it does the next time.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::rules::Rules;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What a new log lets others do: nothing. etcd's are made so.
const MODE: u32 = 0o600;

/// A log file under [`Rules`].
pub(super) struct Rotating {
    path: PathBuf,
    rules: Rules,
    file: File,
    /// Bytes in `file`.
    size: u64,
    /// Wakes upkeep; none where there is nothing to do.
    upkeep: Option<SyncSender<()>>,
}

impl Rotating {
    /// Goes on with the file at `path`, or makes it, and the directories on the way.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(path: &Path, rules: Rules) -> io::Result<Rotating> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = append(path, MODE)?;
        let size = file.metadata()?.len();
        let upkeep = upkeep(path.to_owned(), rules.clone());
        Ok(Rotating { path: path.to_owned(), rules, file, size, upkeep })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let full = Names::of(&self.path).unused(SystemTime::now(), self.rules.local_time);
        match fs::rename(&self.path, &full) {
            // Somebody took it away: there is nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        let mode = self.file.metadata().map_or(MODE, |metadata| metadata.permissions().mode() & 0o777);
        match append(&self.path, mode) {
            Ok(file) => (self.file, self.size) = (file, 0),
            Err(error) => {
                let _ = fs::rename(&full, &self.path);
                return Err(error);
            }
        }
        if let Some(upkeep) = &self.upkeep {
            // One that is awake, and one waking, see to this one too.
            let _ = upkeep.try_send(());
        }
        Ok(())
    }
}

impl Write for Rotating {
    /// Takes as many whole lines as the file has room for; one line at least, however long.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = |size: u64| self.rules.max_bytes.saturating_sub(size);
        let mut take = whole_lines(bytes, room(self.size));
        if take == 0 && self.size > 0 {
            take = whole_lines(bytes, room(0));
            if self.rotate().is_err() {
                take = 0;
            }
        }
        if take == 0 {
            take = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        }
        let written = self.file.write(&bytes[..take])?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// How many bytes of whole lines fit into `room`.
fn whole_lines(bytes: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if bytes.len() <= room {
        return bytes.len();
    }
    bytes[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

/// How full files are called: `etcd-<moment>.log` for `etcd.log`.
struct Names {
    directory: PathBuf,
    prefix: String,
    suffix: String,
}

impl Names {
    fn of(path: &Path) -> Names {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let suffix = match path.extension() {
            Some(extension) => format!(".{}", extension.to_string_lossy()),
            None => String::new(),
        };
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Names { directory, prefix: text(path.file_stem()) + "-", suffix }
    }

    /// A name that no file has, for one that is full now.
    fn unused(&self, now: SystemTime, local_time: bool) -> PathBuf {
        let taken = |path: &PathBuf| path.exists() || packed(path).exists();
        let name = |millis| {
            let at = moment(now + Duration::from_millis(millis), local_time);
            self.directory.join(format!("{}{at}{}", self.prefix, self.suffix))
        };
        (0..1000).map(name).find(|path| !taken(path)).unwrap_or_else(|| name(0))
    }

    /// The moment in the name of a full file, compressed or not.
    fn moment<'a>(&self, name: &'a str) -> Option<&'a str> {
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let at = name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        let shape = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
        at.bytes().map(shape).eq(*b"0000-00-00T00-00-00.000").then_some(at)
    }
}

/// As in the names of files. Of two moments the later has the greater text, hours that a clock is put back aside.
fn moment(at: SystemTime, local_time: bool) -> String {
    const SHAPE: &str = "%Y-%m-%dT%H-%M-%S%.3f";
    match local_time {
        true => DateTime::<Local>::from(at).format(SHAPE).to_string(),
        false => DateTime::<Utc>::from(at).format(SHAPE).to_string(),
    }
}

/// Starts the thread that sees to full files, now and whenever it is woken; none where all stay as they are.
fn upkeep(path: PathBuf, rules: Rules) -> Option<SyncSender<()>> {
    if rules.max_days.is_none() && rules.max_files.is_none() && !rules.compress {
        return None;
    }
    let (wake, woken) = sync_channel(1);
    let _ = wake.try_send(());
    let tend = move || {
        while woken.recv().is_ok() {
            tend(&path, &rules, SystemTime::now());
        }
    };
    // Without a thread the files pile up; the log goes on.
    let _ = std::thread::Builder::new().name("log-upkeep".to_owned()).spawn(tend);
    Some(wake)
}

/// Removes the full files that are too many or too old, and compresses the others if that is wanted.
fn tend(path: &Path, rules: &Rules, now: SystemTime) {
    let names = Names::of(path);
    let here = if names.directory.as_os_str().is_empty() { Path::new(".") } else { &names.directory };
    let Ok(entries) = fs::read_dir(here) else { return };
    let mut full: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| {
            Some((names.moment(&entry.file_name().to_string_lossy())?.to_owned(), entry.path()))
        })
        .collect();
    // Newest first.
    full.sort_by(|a, b| b.cmp(a));
    let too_old = rules
        .max_days
        .and_then(|days| now.checked_sub(DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))))
        .map(|oldest| moment(oldest.max(SystemTime::UNIX_EPOCH), rules.local_time));
    let mut kept: Vec<String> = Vec::new();
    for (at, path) in full {
        // One that is being compressed is there twice, and counts once.
        if kept.last() != Some(&at) {
            kept.push(at.clone());
        }
        let too_many = rules.max_files.is_some_and(|most| kept.len() as u64 > most);
        if too_many || too_old.as_ref().is_some_and(|oldest| at < *oldest) {
            let _ = fs::remove_file(&path);
        } else if rules.compress && path.extension().is_none_or(|extension| extension != "gz") {
            let _ = compress(&path);
        }
    }
}

/// Puts `x.gz` in the place of `x`. A half one, left by a process that ended meanwhile, is made again.
fn compress(path: &Path) -> io::Result<()> {
    let mut plain = File::open(path)?;
    let mode = plain.metadata()?.permissions().mode() & 0o777;
    let target = packed(path);
    let pack = |plain: &mut File| {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&target)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        let mut encoder = GzEncoder::new(file, Compression::default());
        io::copy(plain, &mut encoder)?;
        encoder.finish()
    };
    match pack(&mut plain) {
        Ok(_) => fs::remove_file(path),
        Err(error) => {
            let _ = fs::remove_file(&target);
            Err(error)
        }
    }
}

fn packed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
