//! A database written in one pass.

use std::io::{BufWriter, Seek, SeekFrom, Sink, Write};

use crate::error::Error;
use crate::page::{BUCKET, ELEMENT, FREE_LIST, HEADER, Header, IS_BUCKET, META, META_PAGE, Meta};
use crate::tree::{Root, Tree};

/// Bytes of a page in every file written here.
pub const PAGE: usize = 4096;
/// The longest key or bucket name, in bytes.
pub const MAX_KEY: usize = 32 * 1024;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = (1 << 31) - 2;

/// A bucket up to this many bytes is stored within the root bucket, as bbolt would.
const INLINE: usize = PAGE / 4;
/// The state of the file belongs to this transaction. It is even, so that the next one overwrites the
/// other meta page.
const TRANSACTION: u64 = 2;

/// Writes a database from pairs in order: bucket after bucket in ascending order of their names, in
/// each bucket the keys in ascending order, each once.
///
/// Memory: for each level of the tree two pages, and the largest pair.
///
/// ```
/// # fn main() -> Result<(), bolt::Error> {
/// let mut writer = bolt::Writer::create(std::io::Cursor::new(Vec::new()))?;
/// writer.bucket(b"alarm")?;
/// writer.put(b"key", b"a", b"1")?;
/// writer.put(b"key", b"b", b"")?;
/// let mut reader = bolt::Reader::open(writer.finish()?)?;
/// assert_eq!(reader.buckets().collect::<Vec<_>>(), [&b"alarm"[..], b"key"]);
/// let mut pairs = reader.pairs(b"key")?;
/// assert_eq!(pairs.next()?, Some((&b"a"[..], &b"1"[..])));
/// assert_eq!(pairs.next()?, Some((&b"b"[..], &b""[..])));
/// assert_eq!(pairs.next()?, None);
/// # Ok(())
/// # }
/// ```
///
/// The meta pages, at the beginning of the file, say where the pages lie that are written last. Where
/// one cannot go back, a pipe for instance, the same pairs are put twice: into [`Writer::measure`], and
/// then, with the [`Layout`] that came of it, into [`Writer::stream`].
#[derive(Debug)]
pub struct Writer<F: Write> {
    pages: Pages<F>,
    /// The tree of buckets.
    buckets: Tree,
    /// The bucket that is being filled: the last one.
    current: Option<(Vec<u8>, Tree)>,
}

/// What the meta pages say of a database. It follows from the lengths of its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    root: u64,
    free_list: u64,
    pages: u64,
}

impl Layout {
    /// The size of the file, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.pages * PAGE as u64
    }

    fn meta_pages(&self) -> [u8; 2 * PAGE] {
        let mut bytes = [0; 2 * PAGE];
        let Layout { root, free_list, pages } = *self;
        for (id, transaction) in [(0, TRANSACTION), (1, TRANSACTION - 1)] {
            let meta = Meta { page_size: PAGE as u32, root, free_list, pages, transaction };
            let header = Header { id, flags: META_PAGE, count: 0, overflow: 0 };
            let page = &mut bytes[id as usize * PAGE..][..HEADER + META];
            page[..HEADER].copy_from_slice(&header.encode());
            page[HEADER..].copy_from_slice(&meta.encode());
        }
        bytes
    }
}

impl<F: Write + Seek> Writer<F> {
    /// A writer to `file`, which must be empty.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(mut file: F) -> Result<Writer<F>, Error> {
        file.seek(SeekFrom::Start(0))?;
        // Whoever opens this file before it is finished finds no meta page.
        Writer::begin(file, &[0; 2 * PAGE])
    }

    /// Writes what is left and the meta pages, and gives the file back. Everything has been handed to
    /// it; syncing is its owner's part.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<F, Error> {
        let (mut file, layout) = self.end()?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&layout.meta_pages())?;
        Ok(file)
    }
}

impl Writer<Sink> {
    /// A writer that only finds out the layout: see [`Writer::end`].
    ///
    /// # Errors
    /// None in fact.
    pub fn measure() -> Result<Writer<Sink>, Error> {
        Writer::begin(std::io::sink(), &[0; 2 * PAGE])
    }
}

impl<F: Write> Writer<F> {
    /// A writer to `sink`, from the first byte to the last, of pairs with this layout.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stream(sink: F, layout: &Layout) -> Result<Writer<F>, Error> {
        Writer::begin(sink, &layout.meta_pages())
    }

    fn begin(file: F, meta_pages: &[u8; 2 * PAGE]) -> Result<Writer<F>, Error> {
        let mut pages = Pages { file: BufWriter::with_capacity(64 * 1024, file), next: 2 };
        pages.file.write_all(meta_pages)?;
        Ok(Writer { pages, buckets: Tree::default(), current: None })
    }

    /// Begins the bucket `name`, or does nothing if it is the one that is being filled. It exists even
    /// if no pair follows.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::Empty`], [`Error::TooLong`] or [`Error::Io`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        if let Some((current, _)) = &self.current {
            if current == name {
                return Ok(());
            }
            if &current[..] > name {
                return Err(Error::OutOfOrder { before: current.clone(), given: name.to_vec() });
            }
        }
        check_key(name)?;
        self.close_bucket()?;
        self.current = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// Adds a pair to the bucket `bucket`, which begins if it is not the last one already.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] unless `key` lies behind the last key of this bucket, [`Error::Empty`],
    /// [`Error::TooLong`] past [`MAX_KEY`] or [`MAX_VALUE`], [`Error::Io`].
    pub fn put(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.bucket(bucket)?;
        check_key(key)?;
        if value.len() > MAX_VALUE {
            return Err(Error::TooLong(value.len(), MAX_VALUE));
        }
        let (_, tree) = self.current.as_mut().expect("a bucket has just begun");
        tree.push(&mut self.pages, 0, key, value)
    }

    /// Writes what is left, and gives back where it went and the layout. A database that was streamed is
    /// whole if it is the layout that it began with.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn end(mut self) -> Result<(F, Layout), Error> {
        self.close_bucket()?;
        let buckets = std::mem::take(&mut self.buckets);
        let root = match buckets.finish(&mut self.pages)? {
            Root::Page(page) => page,
            Root::Leaf(leaf) => leaf.write(&mut self.pages)?,
        };
        let free_list = self.pages.append(FREE_LIST, 0, &[])?;
        let pages = self.pages.next;
        let file = self.pages.file.into_inner().map_err(|error| Error::Io(error.into_error()))?;
        Ok((file, Layout { root, free_list, pages }))
    }

    fn close_bucket(&mut self) -> Result<(), Error> {
        let Some((name, tree)) = self.current.take() else { return Ok(()) };
        let mut value = Vec::with_capacity(BUCKET);
        match tree.finish(&mut self.pages)? {
            Root::Leaf(leaf) if leaf.size() <= INLINE => {
                value.extend_from_slice(&[0; BUCKET]);
                leaf.encode_inline(&mut value);
            }
            root => {
                let page = match root {
                    Root::Page(page) => page,
                    Root::Leaf(leaf) => leaf.write(&mut self.pages)?,
                };
                value.extend_from_slice(&page.to_le_bytes());
                value.extend_from_slice(&0u64.to_le_bytes());
            }
        }
        self.buckets.push(&mut self.pages, IS_BUCKET, &name, &value)
    }
}

fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::Empty),
        length if length > MAX_KEY => Err(Error::TooLong(length, MAX_KEY)),
        _ => Ok(()),
    }
}

/// Where finished pages go: one behind the other.
#[derive(Debug)]
pub(crate) struct Pages<F: Write> {
    file: BufWriter<F>,
    /// The next page's id.
    next: u64,
}

impl<F: Write> Pages<F> {
    /// Appends a page that holds `parts` behind its header, with as much overflow as that takes, and
    /// says its id.
    pub(crate) fn append(&mut self, flags: u16, count: u16, parts: &[&[u8]]) -> Result<u64, Error> {
        let size = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
        let taken = size.div_ceil(PAGE);
        let overflow = u32::try_from(taken - 1).expect("a value has at most 2 GiB");
        let id = self.next;
        self.file.write_all(&Header { id, flags, count, overflow }.encode())?;
        for part in parts {
            self.file.write_all(part)?;
        }
        let mut rest = taken * PAGE - size;
        while rest > 0 {
            let zeros = rest.min(ZEROS.len());
            self.file.write_all(&ZEROS[..zeros])?;
            rest -= zeros;
        }
        self.next += taken as u64;
        Ok(id)
    }
}

static ZEROS: [u8; PAGE] = [0; PAGE];

const _: () = assert!(ELEMENT == 16 && HEADER == 16, "sizes that Go gives these structures");
