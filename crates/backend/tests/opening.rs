//! What `open` and `defragment` do to files: ours, another's, half made, in use.
#![allow(clippy::unwrap_used)]

use backend::{Backend, Error, Options, Row, Seal, Storage, row_key};
use bytes::Bytes;
use std::path::Path;

fn open(path: &Path) -> Result<Backend, Error> {
    Backend::open(Storage::File(path.to_owned()), Options::default())
}

fn fill(store: &Backend, mains: std::ops::Range<i64>, size: usize) {
    for main in mains.clone() {
        store.insert_row(row_key(main, 0), Row { tombstone: false, record: Bytes::from(vec![1; size]) });
    }
    store.seal(Seal { index: mains.end as u64, term: 1, ..Seal::default() });
    store.flush_all().unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn another_programs_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut bolt = vec![0; 8192];
    bolt[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    let cases: [(&[u8], &str); 4] = [
        (b"", "not a redb file"),
        (b"some notes of mine", "not a redb file"),
        (&bolt, "bbolt"),
        (&[0; 4096], "not a redb file"),
    ];
    for (content, word) in cases {
        std::fs::write(&path, content).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(&error, Error::NotOurs(what) if what.contains(word)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(names(directory.path()), ["db"]);
    }
}

#[test]
fn another_programs_redb_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let table = redb::TableDefinition::<u64, u64>::new("theirs");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(table).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    let error = open(&path).err().unwrap();
    assert!(matches!(&error, Error::NotOurs(what) if what.contains("another program")), "{error}");
    assert!(before == std::fs::read(&path).unwrap(), "the file was changed");
}

#[test]
fn another_format_of_ours_is_refused_with_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    drop(open(&path).unwrap());
    let own = redb::TableDefinition::<&str, &[u8]>::new("cairn");
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(own).unwrap().insert("format", b"2".as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = open(&path).err().unwrap();
    assert!(matches!(&error, Error::NotOurs(what) if what.contains("format \"2\"")), "{error}");
}

#[test]
fn damage_is_told_from_another_programs_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = open(&path).unwrap();
    fill(&store, 1..1000, 300);
    drop(store);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8192).unwrap();
    let error = open(&path).err().unwrap();
    assert!(matches!(&error, Error::Corrupt(what) if what.contains("db")), "{error}");
}

#[test]
fn a_store_is_opened_once_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = open(&path).unwrap();
    fill(&store, 1..10, 10);
    assert!(matches!(open(&path), Err(Error::InUse(_))));
    // Also when a defragmentation has put another file in its place.
    store.defragment().unwrap();
    assert!(matches!(open(&path), Err(Error::InUse(_))));
    drop(store);
    open(&path).unwrap();
}

#[test]
fn what_a_crash_left_half_made_is_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    std::fs::write(directory.path().join("db.creating"), "half a store").unwrap();
    std::fs::write(directory.path().join("lost+found"), "not ours").unwrap();
    let store = open(&path).unwrap();
    fill(&store, 1..10, 10);
    drop(store);
    std::fs::write(directory.path().join("db.defragmenting"), "half a copy").unwrap();
    let store = open(&path).unwrap();
    assert_eq!(names(directory.path()), ["db", "lost+found"]);
    // A copy that an attempt in this process left does not disturb the next one either.
    std::fs::write(directory.path().join("db.defragmenting"), "half a copy").unwrap();
    store.defragment().unwrap();
    assert_eq!(names(directory.path()), ["db", "lost+found"]);
    assert_eq!(store.get(&row_key(5, 0)).unwrap().unwrap().len(), 10);
}

#[test]
fn a_failed_defragmentation_leaves_the_old_file_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = open(&path).unwrap();
    fill(&store, 1..100, 100);
    // A directory that is not empty under the copy's name: it can be neither made nor removed.
    std::fs::create_dir_all(directory.path().join("db.defragmenting/x")).unwrap();
    for _ in 0..2 {
        assert!(matches!(store.defragment(), Err(Error::Storage(_))));
        assert_eq!(store.get(&row_key(50, 0)).unwrap().unwrap().len(), 100);
    }
    fill(&store, 100..200, 100);
    std::fs::remove_dir_all(directory.path().join("db.defragmenting")).unwrap();
    store.defragment().unwrap();
    fill(&store, 200..300, 100);
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(store.consistent().index, 300);
    assert_eq!(store.get(&row_key(299, 0)).unwrap().unwrap().len(), 100);
}

/// What a file takes on the disk; its length may be more, with nothing behind it.
fn allocated(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

#[test]
fn freed_space_comes_back_when_there_is_enough_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = open(&path).unwrap();
    assert!(!store.reclaim().unwrap());
    fill(&store, 1..12_000, 9_000);
    assert!(!store.reclaim().unwrap(), "nothing was freed");
    let full = store.size();
    store.delete_rows((1..11_990).map(|main| row_key(main, 0)).collect());
    store.flush_all().unwrap();
    let freed = store.size_in_use();
    assert!(store.reclaim().unwrap());
    assert!(store.size() < full / 20, "{} of {full} bytes are left", store.size());
    assert_eq!(allocated(&path), store.size());
    assert_eq!(store.size_in_use(), freed);
    assert!(!store.reclaim().unwrap(), "once is enough");
    fill(&store, 12_000..13_000, 9_000);
    assert_eq!(allocated(&path), store.size(), "the size of another file");
}

/// Every byte in turn that belongs to the rows is damaged: no read answers with other bytes.
#[test]
fn a_rotten_row_is_an_error_and_never_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = open(&path).unwrap();
    let record = |main: i64| Bytes::from(vec![main as u8; 40]);
    for main in 1..=20 {
        store.insert_row(row_key(main, 0), Row { tombstone: false, record: record(main) });
    }
    store.seal(Seal { index: 1, term: 1, ..Seal::default() });
    store.flush_all().unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let found = whole.windows(40).position(|bytes| bytes == record(7)).unwrap();
    let mut refused = 0;
    for at in found - 5..found + 40 {
        let mut rotten = whole.clone();
        rotten[at] ^= 4;
        std::fs::write(&path, &rotten).unwrap();
        let store = open(&path).unwrap();
        match store.get(&row_key(7, 0)) {
            Ok(answer) => assert_eq!(answer, Some(record(7)), "byte {at}"),
            Err(error) => {
                assert!(matches!(error, Error::Corrupt(_)), "{error}");
                assert!(matches!(store.get(&row_key(8, 0)), Err(Error::Poisoned(_))));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 45);
}
