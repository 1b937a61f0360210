//! Damaged files: an error or an answer, never a panic, never without end.
#![allow(clippy::unwrap_used)]

use bolt::{Error, PAGE, Reader, Writer, digest};
use std::io::Cursor;

/// Everything in a file.
type Pairs = Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>;

fn read(file: &[u8]) -> Result<Pairs, Error> {
    let mut reader = Reader::open(Cursor::new(file))?;
    let mut all = Pairs::new();
    let buckets: Vec<Vec<u8>> = reader.buckets().map(<[u8]>::to_vec).collect();
    for bucket in buckets {
        reader.for_each(&bucket, |key, value| {
            all.push((bucket.clone(), key.to_vec(), value.to_vec()));
            Ok::<_, Error>(())
        })?;
    }
    Ok(all)
}

/// Inline and normal buckets, overflow, two levels of branches: 15 pages.
fn small_file() -> Vec<u8> {
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    writer.bucket(b"alarm").unwrap();
    for letter in b'a'..=b'f' {
        let mut key = vec![letter; 1200];
        key[0] = letter;
        writer.put(b"key", &key, &[letter; 1500]).unwrap();
    }
    writer.put(b"key", b"g", &[7; 9000]).unwrap();
    writer.put(b"meta", b"consistent_index", &[0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    writer.put(b"meta", b"term", b"").unwrap();
    writer.finish().unwrap().into_inner()
}

/// Runs `damage` on the file for each of its bytes; how often it was noticed.
fn each_byte(file: &[u8], damage: impl Fn(u8) -> u8) -> (usize, usize, usize) {
    let whole = read(file).unwrap();
    let bound: usize = whole.iter().map(|(_, key, value)| key.len() + value.len()).sum();
    let (mut same, mut other, mut refused) = (0, 0, 0);
    let mut damaged = file.to_vec();
    for at in 0..file.len() {
        damaged[at] = damage(file[at]);
        match read(&damaged) {
            Ok(pairs) if pairs == whole => same += 1,
            Ok(pairs) => {
                // Keys and values have no checksum, but a page has no more of them than fit into it.
                let bytes: usize = pairs.iter().map(|(_, key, value)| key.len() + value.len()).sum();
                assert!(bytes <= bound + 2 * PAGE, "byte {at}: {bytes} bytes from {bound}");
                other += 1;
            }
            Err(_) => refused += 1,
        }
        damaged[at] = file[at];
    }
    (same, other, refused)
}

#[test]
fn every_byte_changed() {
    let file = small_file();
    for bit in 0..8 {
        each_byte(&file, |byte| byte ^ (1 << bit));
    }
    let (same, other, refused) = each_byte(&file, |byte| !byte);
    println!("{} bytes inverted: {same} without effect, {other} changed data, {refused} refused", file.len());
    // Keys and values are 25 kB of this file; headers and elements must not pass.
    assert!(refused > 300, "{refused}");
    each_byte(&file, |_| 0);
    each_byte(&file, |_| 255);
}

#[test]
fn every_byte_changed_is_noticed_by_the_digest() {
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    writer.put(b"key", b"a", b"1").unwrap();
    let mut file = writer.finish().unwrap();
    digest::append(&mut file).unwrap();
    let file = file.into_inner();
    // Not all of them: each takes a hash of the whole file.
    for at in (0..file.len()).filter(|at| at % 11 == 0 || at + 48 > file.len()) {
        let mut damaged = file.clone();
        damaged[at] ^= 0x40;
        assert!(
            matches!(
                digest::verify(&mut Cursor::new(damaged)),
                Err(Error::Digest(_) | Error::Mismatch { .. })
            ),
            "byte {at}"
        );
    }
}

#[test]
fn cut_anywhere() {
    let file = small_file();
    let whole = read(&file).unwrap();
    for length in 0..file.len() {
        assert!(read(&file[..length]).is_err(), "{length} bytes");
    }
    let mut longer = file.clone();
    longer.extend_from_slice(&[0xa5; 1000]);
    assert_eq!(read(&longer).unwrap(), whole);
}

/// The same numbers in random places, a few at a time: pages that refer to each other.
#[test]
fn several_numbers_changed() {
    let file = small_file();
    let mut state = 1u64;
    let mut random = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for _ in 0..30_000 {
        let mut damaged = file.clone();
        for _ in 0..1 + random(4) {
            // The heads of pages, behind the meta pages: where the structure is.
            let page = 2 + random(file.len() / PAGE - 2);
            let at = page * PAGE + random(24) * 4;
            let number = [0, 1, 2, 3, 16, 17, PAGE as u32, u32::MAX, u32::MAX / 2, random(20) as u32];
            damaged[at..at + 4].copy_from_slice(&number[random(number.len())].to_le_bytes());
        }
        drop(read(&damaged));
    }
}

fn meta_page(root: u64, free_list: u64, pages: u64, transaction: u64) -> Vec<u8> {
    let mut meta = vec![0; 64];
    meta[..4].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
    meta[4] = 2;
    meta[8..12].copy_from_slice(&(PAGE as u32).to_le_bytes());
    meta[16..24].copy_from_slice(&root.to_le_bytes());
    meta[32..40].copy_from_slice(&free_list.to_le_bytes());
    meta[40..48].copy_from_slice(&pages.to_le_bytes());
    meta[48..56].copy_from_slice(&transaction.to_le_bytes());
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let checksum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    meta[56..].copy_from_slice(&checksum.to_le_bytes());
    meta
}

fn set_meta(file: &mut [u8], page: usize, meta: &[u8]) {
    file[page * PAGE + 16..page * PAGE + 80].copy_from_slice(meta);
}

#[test]
fn the_later_meta_page_counts() {
    let mut file = small_file();
    let whole = read(&file).unwrap();
    let pages = (file.len() / PAGE) as u64;
    // An empty leaf behind everything else: a later state without any bucket.
    let mut leaf = vec![0; PAGE];
    leaf[..8].copy_from_slice(&pages.to_le_bytes());
    leaf[8] = 2;
    file.extend_from_slice(&leaf);
    let none = u64::MAX;
    set_meta(&mut file, 1, &meta_page(pages, none, pages + 1, 1));
    assert_eq!(read(&file).unwrap(), whole);
    set_meta(&mut file, 1, &meta_page(pages, none, pages + 1, 3));
    assert_eq!(read(&file).unwrap(), []);
    // Torn while it was written: the one before it counts.
    file[PAGE + 16 + 20] ^= 1;
    assert_eq!(read(&file).unwrap(), whole);
    // Only the second one is whole.
    set_meta(&mut file, 1, &meta_page(pages, none, pages + 1, 3));
    file[16] ^= 1;
    assert_eq!(read(&file).unwrap(), []);
    file[PAGE + 16] ^= 1;
    assert!(matches!(read(&file), Err(Error::NotADatabase(_))));
}

#[test]
fn impossible_numbers_of_a_meta_page() {
    let file = small_file();
    let pages = (file.len() / PAGE) as u64;
    let good = (pages - 2, pages - 1, pages, 9);
    let open = |(root, free_list, pages, transaction)| {
        let mut file = file.clone();
        set_meta(&mut file, 0, &meta_page(root, free_list, pages, transaction));
        file[PAGE..2 * PAGE].fill(0);
        read(&file)
    };
    open(good).unwrap();
    for root in [0, 1, pages, u64::MAX, good.1] {
        assert!(matches!(open((root, good.1, pages, 9)), Err(Error::Damaged { .. })), "root {root}");
    }
    for free_list in [0, 1, pages, u64::MAX - 1, good.0] {
        assert!(
            matches!(open((good.0, free_list, pages, 9)), Err(Error::Damaged { .. })),
            "list {free_list}"
        );
    }
    for pages in [pages + 1, u64::MAX] {
        assert!(matches!(open((good.0, good.1, pages, 9)), Err(Error::NotADatabase(_))), "{pages} pages");
    }
}

/// A file whose root bucket is `leaf` at page 2, the other pages as given.
fn file_of(pages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0; 2 * PAGE];
    let count = pages.len() as u64 + 2;
    for page in 0..2 {
        file[page * PAGE] = page as u8;
        file[page * PAGE + 8] = 4;
        set_meta(&mut file, page, &meta_page(2, u64::MAX, count, 5));
    }
    for page in pages {
        let mut page = page.clone();
        page.resize(PAGE, 0);
        file.extend_from_slice(&page);
    }
    file
}

fn page(id: u64, flags: u16, elements: &[[u32; 4]], data: &[u8]) -> Vec<u8> {
    let mut page = id.to_le_bytes().to_vec();
    page.extend_from_slice(&flags.to_le_bytes());
    page.extend_from_slice(&(elements.len() as u16).to_le_bytes());
    page.extend_from_slice(&[0; 4]);
    elements.iter().flatten().for_each(|number| page.extend_from_slice(&number.to_le_bytes()));
    page.extend_from_slice(data);
    page
}

/// The root leaf with one bucket `b` at page 3.
fn root() -> Vec<u8> {
    let mut data = b"b".to_vec();
    data.extend_from_slice(&3u64.to_le_bytes());
    data.extend_from_slice(&[0; 8]);
    page(2, 2, &[[1, 16, 1, 16]], &data)
}

#[test]
fn shapes_that_no_bbolt_writes() {
    let refused = |pages: &[Vec<u8>], why: &str| {
        let error = read(&file_of(pages)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    assert_eq!(read(&file_of(&[root(), page(3, 2, &[], b"")])).unwrap(), []);
    let leaf = |id| page(id, 2, &[[0, 16, 1, 1]], b"kv");
    assert_eq!(read(&file_of(&[root(), leaf(3)])).unwrap().len(), 1);
    // A branch element is position, key length, page in two halves.
    refused(&[root(), page(3, 1, &[[16, 1, 3, 0]], b"a")], "part of two pages");
    refused(&[root(), page(3, 1, &[[16, 1, 2, 0]], b"a")], "nested buckets are not supported");
    refused(&[root(), page(3, 1, &[[32, 1, 4, 0], [17, 1, 4, 0]], b"ax"), leaf(4)], "part of two pages");
    refused(&[root(), page(3, 1, &[], b"")], "without children");
    refused(&[root(), page(3, 1, &[[32, 1, 4, 0], [17, 1, 5, 0]], b"ak"), leaf(4), leaf(5)], "out of order");
    refused(&[root(), page(3, 1, &[[32, 1, 4, 0], [17, 1, 5, 0]], b"ba"), leaf(4), leaf(5)], "out of order");
    refused(&[root(), page(3, 1, &[[16, 1, 4, 0]], b"l"), leaf(4)], "out of order");
    // "b" leads to keys that are all greater, but "k" to its left is greater than "b".
    let last = page(5, 2, &[[0, 16, 1, 1]], b"zv");
    let branch = page(3, 1, &[[32, 1, 4, 0], [17, 1, 5, 0]], b"ab");
    refused(&[root(), branch, leaf(4), last], "branch keys out of order");
    refused(&[root(), page(3, 2, &[[0, 32, 1, 0], [0, 17, 1, 0]], b"aa")], "out of order");
    refused(&[root(), page(3, 2, &[[0, 32, 1, 0], [0, 16, 1, 0]], b"ab")], "outside its page");
    refused(&[root(), page(3, 2, &[[0, 16, 0, 1]], b"v")], "impossible length");
    refused(&[root(), page(3, 2, &[[1, 16, 1, 16]], &[b'n'; 17])], "nested buckets are not supported");
    refused(&[root(), page(3, 2, &[[4, 16, 1, 1]], b"kv")], "unknown flags");
    refused(&[root(), page(3, 16, &[], b"")], "neither a branch nor a leaf");
    refused(&[root(), page(4, 2, &[], b"")], "another page's id");
    refused(&[page(2, 2, &[[0, 16, 1, 1]], b"kv")], "a pair outside any bucket");
    refused(&[page(2, 2, &[[1, 16, 1, 1]], b"kv")], "header is too short");
    refused(&[page(2, 2, &[[1, 16, 1, 17]], &[b'k'; 18])], "a root page and an inline one");
    refused(&[page(2, 2, &[[1, 16, 1, 16]], &[&b"k"[..], &[0; 16]].concat())], "too short");
    // A tower: every branch has one child, the next page.
    let mut tower = vec![root()];
    tower.extend((3..100).map(|id| page(id, 1, &[[16, 1, id as u32 + 1, 0]], b"a")));
    tower.push(leaf(100));
    refused(&tower, "too many levels");
}
