//! Size, age, number and compression of log files.
#![allow(clippy::unwrap_used)]

use std::io::Read;

use super::*;

/// What is in a directory, by name.
fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn at(day: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * u32::try_from(day).unwrap()
}

/// Full files of the first `days` days of 1970, and names that only look like them.
fn filled(days: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for day in 0..days {
        let name = format!("a-{}.log", moment(at(day), false));
        fs::write(directory.path().join(name), format!("day {day}\n")).unwrap();
    }
    for other in ["a.log", "a-b.log", "a-1970-01-01T00-00-00.log", "ab-1970-01-01T00-00-00.000.log"] {
        fs::write(directory.path().join(other), "").unwrap();
    }
    directory
}

/// The days of the full files that are left, with `.gz` where that is how.
fn left(directory: &Path) -> Vec<String> {
    let names = Names::of(Path::new("a.log"));
    let full = listing(directory).into_iter().filter(|name| names.moment(name).is_some());
    full.map(|name| name[10..12].to_owned() + if name.ends_with(".gz") { ".gz" } else { "" }).collect()
}

fn rules(max_bytes: u64) -> Rules {
    Rules { max_bytes, ..Rules::default() }
}

#[test]
fn a_file_that_is_full_is_set_aside_and_no_line_is_cut_or_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/a.log");
    let mut log = Rotating::open(&path, rules(100)).unwrap();
    let line = |n: u32| format!("line {n:04}\n");
    // Ten bytes each: ten to a file, however many come at once.
    let text: String = (0..37).map(line).collect();
    log.write_all(&text.as_bytes()[..200]).unwrap();
    log.write_all(&text.as_bytes()[200..]).unwrap();
    let names = listing(path.parent().unwrap());
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(names[3], "a.log");
    let read = |name: &String| fs::read_to_string(path.with_file_name(name)).unwrap();
    assert_eq!(names.iter().map(|name| read(name).len()).collect::<Vec<_>>(), [100, 100, 100, 70]);
    assert_eq!(names.iter().map(read).collect::<String>(), text);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // Another process goes on where this one ended.
    let mut log = Rotating::open(&path, rules(100)).unwrap();
    log.write_all(b"to the brim, thirty bytes long\n"[1..].as_ref()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 100);
    log.write_all(b"x\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "x\n");
    assert_eq!(listing(path.parent().unwrap()).len(), 5);
}

#[test]
fn a_line_longer_than_a_file_has_one_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let mut log = Rotating::open(&path, rules(4)).unwrap();
    log.write_all(b"1\nlong line\n2\n3\n").unwrap();
    let names = listing(directory.path());
    let texts: Vec<String> =
        names.iter().map(|name| fs::read_to_string(directory.path().join(name)).unwrap()).collect();
    // `a` sorts before `a-…`.
    assert_eq!(texts, ["2\n3\n", "1\n", "long line\n"]);
}

#[test]
fn a_file_that_cannot_be_set_aside_goes_on_and_one_that_was_taken_away_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in/a.log");
    let mut log = Rotating::open(&path, rules(2)).unwrap();
    log.write_all(b"1\n").unwrap();
    fs::remove_file(&path).unwrap();
    log.write_all(b"2\n").unwrap();
    assert_eq!(
        (fs::read_to_string(&path).unwrap().as_str(), listing(path.parent().unwrap()).len()),
        ("2\n", 1)
    );
    // Neither the old file nor a new one can be had where the directory is gone.
    fs::rename(directory.path().join("in"), directory.path().join("out")).unwrap();
    log.write_all(b"3\n4\n").unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("out/a.log")).unwrap(), "2\n3\n4\n");
}

#[test]
fn names_tell_the_moment() {
    let names = Names::of(Path::new("/var/log/etcd.log"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_153_562_123_456);
    let full = names.unused(now, false);
    assert_eq!(full, Path::new("/var/log/etcd-2026-11-20T05-46-02.123.log"));
    assert_eq!(names.moment("etcd-2026-11-20T05-46-02.123.log.gz"), Some("2026-11-20T05-46-02.123"));
    // Whatever zone the test runs in, it is a moment of the same shape, no more than a day away.
    let local = moment(now, true);
    assert_eq!(names.moment(&format!("etcd-{local}.log")), Some(local.as_str()));
    assert!(moment(now - DAY, false) < local && local < moment(now + DAY, false), "{local}");

    // Two in one millisecond do not overwrite each other, nor one that is compressed already.
    let directory = tempfile::tempdir().unwrap();
    let names = Names::of(&directory.path().join("a.log"));
    let name = |millis: &str| directory.path().join(format!("a-2026-11-20T05-46-02.{millis}.log"));
    fs::write(name("123"), "").unwrap();
    fs::write(packed(&name("124")), "").unwrap();
    assert_eq!(names.unused(now, false), name("125"));
}

#[test]
fn the_newest_are_kept_and_others_files_are_left_alone() {
    let directory = filled(5);
    let path = directory.path().join("a.log");
    // One of them is being compressed.
    let newest = directory.path().join(format!("a-{}.log", moment(at(4), false)));
    fs::copy(&newest, packed(&newest)).unwrap();
    let before = listing(directory.path()).len();
    tend(&path, &rules(1), at(1000));
    assert_eq!(listing(directory.path()).len(), before, "without limits all are kept");
    tend(&path, &Rules { max_files: Some(2), ..rules(1) }, at(1000));
    assert_eq!(left(directory.path()), ["04", "05", "05.gz"]);
    assert_eq!(listing(directory.path()).len(), before - 3);
}

#[test]
fn those_past_their_age_go() {
    let directory = filled(5);
    let path = directory.path().join("a.log");
    let rules = Rules { max_days: Some(2), ..rules(1) };
    tend(&path, &rules, at(4));
    assert_eq!(left(directory.path()), ["03", "04", "05"], "two days old is not too old");
    tend(&path, &rules, at(4) + Duration::from_millis(1));
    assert_eq!(left(directory.path()), ["04", "05"]);
    // An age beyond the beginning of time.
    tend(&path, &Rules { max_days: Some(u64::MAX), ..rules }, at(4));
    assert_eq!(left(directory.path()), ["04", "05"]);
}

#[test]
fn those_that_stay_are_compressed_and_a_half_one_is_made_again() {
    let directory = filled(3);
    let path = directory.path().join("a.log");
    let newest = directory.path().join(format!("a-{}.log", moment(at(2), false)));
    fs::write(packed(&newest), "half").unwrap();
    tend(&path, &Rules { max_files: Some(2), compress: true, ..rules(1) }, at(1000));
    assert_eq!(left(directory.path()), ["02.gz", "03.gz"]);
    let mut text = String::new();
    flate2::read::GzDecoder::new(File::open(packed(&newest)).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "day 2\n");
    assert_eq!(fs::read(&path).unwrap(), b"", "the log itself is left alone");
}

#[test]
fn upkeep_begins_with_the_log_and_follows_each_change_of_files() {
    let directory = filled(3);
    let path = directory.path().join("a.log");
    let mut log = Rotating::open(&path, Rules { max_files: Some(1), compress: true, ..rules(2) }).unwrap();
    log.write_all(b"1\n2\n3\n").unwrap();
    // What is left in the end is one file, compressed; the thread gets there in its own time.
    let done = |names: &[String]| names.len() == 1 && names[0].ends_with(".gz");
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !done(&left(directory.path())) {
        assert!(std::time::Instant::now() < until, "{:?}", listing(directory.path()));
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "3\n");
}
