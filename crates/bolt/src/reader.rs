//! A database read in one pass, with every byte in doubt.

use std::io::{Read, Seek};

use crate::error::Error;
use crate::page::{BUCKET, FREE_LIST, HEADER, Header, IS_BUCKET, META, META_PAGE, Meta};
use crate::page::{NO_FREE_LIST, u64_at};
use crate::source::Source;
use crate::walk::{Found, Start, Walk};

/// Page sizes that there are: bbolt takes that of the machine it was run on.
const PAGE_SIZES: [u32; 7] = [1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16];
/// More buckets than this are not read; etcd has about a dozen.
const MAX_BUCKETS: usize = 1024;

/// A database file, opened for reading.
///
/// Nothing in the file is believed: a damaged one gives [`Error::Damaged`] (or [`Error::Io`] where it
/// ends too early), never a panic, an endless loop, or an allocation larger than the file. Values have
/// no checksum, though: that a file is what was sent is for [`digest`](crate::digest) to say.
///
/// Memory: for each level of the tree one page, the largest pair, and a bit for each page.
#[derive(Debug)]
pub struct Reader<F: Read + Seek> {
    source: Source<F>,
    meta: Meta,
    /// Name and place of each bucket, in order.
    buckets: Vec<(Vec<u8>, Start)>,
}

impl<F: Read + Seek> Reader<F> {
    /// Opens the database that begins at the first byte of `file`. It may be followed by other bytes,
    /// as in the file of `etcdctl snapshot save`.
    ///
    /// # Errors
    /// [`Error::NotADatabase`], [`Error::Damaged`], [`Error::NestedBucket`] or [`Error::Io`].
    pub fn open(file: F) -> Result<Reader<F>, Error> {
        let mut source = Source::new(file)?;
        let meta = find_meta(&mut source)?;
        check_free_list(&mut source, &meta)?;
        let buckets = list_buckets(&mut source, &meta)?;
        Ok(Reader { source, meta, buckets })
    }

    /// The names of all buckets, in ascending order.
    pub fn buckets(&self) -> impl Iterator<Item = &[u8]> {
        self.buckets.iter().map(|(name, _)| &name[..])
    }

    /// Bytes that the database takes: what follows them in the file is not part of it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_size)
    }

    /// The pairs of a bucket, in ascending order of their keys.
    ///
    /// # Errors
    /// [`Error::NoBucket`].
    pub fn pairs(&mut self, bucket: &[u8]) -> Result<Pairs<'_, F>, Error> {
        let place = self.buckets.binary_search_by(|(name, _)| name[..].cmp(bucket));
        let Ok(place) = place else { return Err(Error::NoBucket(bucket.to_vec())) };
        let (name, start) = &self.buckets[place];
        let walk = Walk::new(*start, &self.meta);
        Ok(Pairs { source: &mut self.source, walk, bucket: name, value: Vec::new() })
    }

    /// Shows every pair of a bucket to `each`, in ascending order of their keys, until it fails. A
    /// bucket that does not exist has no pairs.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NestedBucket`], [`Error::Io`], or the error of `each`.
    pub fn for_each<E: From<Error>>(
        &mut self,
        bucket: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pairs = match self.pairs(bucket) {
            Err(Error::NoBucket(_)) => return Ok(()),
            pairs => pairs?,
        };
        while let Some((key, value)) = pairs.next()? {
            each(key, value)?;
        }
        Ok(())
    }

    /// The file, at no particular position.
    pub fn into_inner(self) -> F {
        self.source.into_inner()
    }
}

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// The pairs of one bucket: see [`Reader::pairs`].
#[derive(Debug)]
pub struct Pairs<'r, F: Read + Seek> {
    source: &'r mut Source<F>,
    walk: Walk,
    bucket: &'r [u8],
    value: Vec<u8>,
}

impl<F: Read + Seek> Pairs<'_, F> {
    /// The next pair. Not an [`Iterator`]: key and value are lent until the next call. After an error
    /// there is nothing more to be had.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NestedBucket`] or [`Error::Io`].
    #[allow(clippy::should_implement_trait, reason = "a lending iterator")]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, Error> {
        let Some(Found { flags, value_at, value_length, .. }) = self.walk.next(self.source)? else {
            return Ok(None);
        };
        if flags & IS_BUCKET != 0 {
            let (bucket, key) = (self.bucket.to_vec(), self.walk.key().to_vec());
            return Err(Error::NestedBucket { bucket, key });
        }
        self.source.read_to(value_at, value_length, &mut self.value)?;
        Ok(Some((self.walk.key(), &self.value)))
    }
}

/// The whole meta page of the latest transaction, its numbers checked against the file.
fn find_meta<F: Read + Seek>(source: &mut Source<F>) -> Result<Meta, Error> {
    let first = read_meta(source, 0, 0);
    let second = match &first {
        Ok(first) => read_meta(source, u64::from(first.page_size), 1),
        // Where the second one begins is what the first one would have told.
        Err(_) => {
            let mut found = Err("no second meta page");
            for size in PAGE_SIZES {
                let meta = read_meta(source, u64::from(size), 1);
                if meta.is_ok_and(|meta| meta.page_size == size) {
                    found = meta;
                    break;
                }
            }
            found
        }
    };
    match (first, second) {
        (Ok(first), Ok(second)) if second.transaction > first.transaction => Ok(second),
        (Ok(meta), _) | (Err(_), Ok(meta)) => Ok(meta),
        (Err(why), Err(_)) => Err(Error::NotADatabase(why)),
    }
}

fn read_meta<F: Read + Seek>(source: &mut Source<F>, at: u64, id: u64) -> Result<Meta, &'static str> {
    let mut bytes = [0; HEADER + META];
    source.read_at(at, &mut bytes).map_err(|_| "too short, or not readable")?;
    let header = Header::decode(&bytes);
    if header.flags != META_PAGE || header.id != id {
        return Err("no meta page where one must be");
    }
    let meta = Meta::decode(&bytes[HEADER..])?;
    if !PAGE_SIZES.contains(&meta.page_size) {
        return Err("no usual page size");
    }
    let fits = meta.pages <= source.length() / u64::from(meta.page_size);
    if !fits {
        return Err("shorter than its meta page says");
    }
    Ok(meta)
}

fn check_free_list<F: Read + Seek>(source: &mut Source<F>, meta: &Meta) -> Result<(), Error> {
    if meta.free_list == NO_FREE_LIST {
        return Ok(());
    }
    let page = meta.free_list;
    let damaged = |what| Err(Error::Damaged { page, what });
    if page < 2 || page >= meta.pages {
        return damaged("a free list outside the file");
    }
    let mut bytes = [0; HEADER];
    source.read_at(page * u64::from(meta.page_size), &mut bytes)?;
    let header = Header::decode(&bytes);
    if header.id != page || header.flags != FREE_LIST {
        return damaged("not the free list that the meta page says it is");
    }
    if u64::from(header.overflow) >= meta.pages - page {
        return damaged("a free list that leaves the file");
    }
    Ok(())
}

fn list_buckets<F: Read + Seek>(source: &mut Source<F>, meta: &Meta) -> Result<Vec<(Vec<u8>, Start)>, Error> {
    let mut buckets = Vec::new();
    let mut walk = Walk::new(Start::Page(meta.root), meta);
    while let Some(Found { page, flags, value_at, value_length }) = walk.next(source)? {
        let damaged = |what| Err(Error::Damaged { page, what });
        if flags & IS_BUCKET == 0 {
            return damaged("a pair outside any bucket");
        }
        if buckets.len() == MAX_BUCKETS {
            return damaged("more than 1024 buckets");
        }
        if value_length < BUCKET {
            return damaged("a bucket's header is too short");
        }
        let mut header = [0; BUCKET];
        source.read_at(value_at, &mut header)?;
        let start = match u64_at(&header, 0) {
            0 => {
                let (at, length) = (value_at + BUCKET as u64, value_length - BUCKET);
                Start::Inline { page, at, length }
            }
            _ if value_length != BUCKET => return damaged("a bucket with a root page and an inline one"),
            root => Start::Page(root),
        };
        buckets.push((walk.key().to_vec(), start));
    }
    Ok(buckets)
}
