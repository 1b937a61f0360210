//! One bucket's tree, walked from left to right.

use std::io::{Read, Seek};

use crate::error::Error;
use crate::page::{BRANCH, ELEMENT, HEADER, Header, IS_BUCKET, LEAF, Meta, u32_at, u64_at};
use crate::source::Source;
use crate::writer::{MAX_KEY, MAX_VALUE};

/// A tree of more levels is damaged: with two children to a branch this is more pages than any disk has.
const MAX_DEPTH: usize = 48;
/// A branch page is larger than its page size only if four of its keys are.
const MAX_BRANCH: u64 = 1 << 20;

/// Where a bucket's tree begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// At its root page.
    Page(u64),
    /// At byte `at`, within the value of `length` bytes that page `page` holds.
    Inline { page: u64, at: u64, length: usize },
}

/// An element of a leaf: its key is the walk's, its value still in the file.
#[derive(Debug)]
pub(crate) struct Found {
    /// The page that holds it.
    pub(crate) page: u64,
    pub(crate) flags: u32,
    pub(crate) value_at: u64,
    pub(crate) value_length: usize,
}

/// The road through a tree.
///
/// Invariants: no page is entered twice; every key is greater than the one before it, and no smaller
/// than the branch element that led to it.
#[derive(Debug)]
pub(crate) struct Walk {
    start: Option<Start>,
    page_size: u64,
    /// Pages in use.
    pages: u64,
    /// A bit for each page that was entered.
    seen: Vec<u64>,
    /// From the root down to the leaf's parent.
    branches: Vec<Branch>,
    leaf: Option<Leaf>,
    /// The last key that was found; empty before the first one.
    key: Vec<u8>,
    /// The branch element that led to this leaf.
    floor: Vec<u8>,
    /// Space for the next key.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Branch {
    page: u64,
    /// The whole page.
    bytes: Vec<u8>,
    count: usize,
    next: usize,
}

#[derive(Debug)]
struct Leaf {
    page: u64,
    /// Where its header begins, in bytes of the file.
    at: u64,
    /// Where it ends.
    end: u64,
    elements: Vec<u8>,
    next: usize,
    /// Where the bytes of the last element end: the next one's must not begin earlier.
    used: u64,
}

impl Walk {
    pub(crate) fn new(start: Start, meta: &Meta) -> Walk {
        Walk {
            start: Some(start),
            page_size: u64::from(meta.page_size),
            pages: meta.pages,
            seen: Vec::new(),
            branches: Vec::new(),
            leaf: None,
            key: Vec::new(),
            floor: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The key of what [`next`](Walk::next) has found last.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The next element of a leaf. After an error there is nothing more.
    pub(crate) fn next<F: Read + Seek>(&mut self, source: &mut Source<F>) -> Result<Option<Found>, Error> {
        let found = self.advance(source);
        if found.is_err() {
            (self.leaf, self.start) = (None, None);
            self.branches.clear();
        }
        found
    }

    fn advance<F: Read + Seek>(&mut self, source: &mut Source<F>) -> Result<Option<Found>, Error> {
        match self.start.take() {
            Some(Start::Page(root)) => self.enter(source, root)?,
            Some(Start::Inline { page, at, length }) => self.enter_inline(source, page, at, length)?,
            None => {}
        }
        loop {
            if let Some(leaf) = &mut self.leaf
                && leaf.next * ELEMENT < leaf.elements.len()
            {
                let found = leaf.take(source, &mut self.spare)?;
                if self.spare <= self.key || self.spare < self.floor {
                    return Err(Error::Damaged { page: found.page, what: "keys out of order" });
                }
                std::mem::swap(&mut self.key, &mut self.spare);
                return Ok(Some(found));
            }
            self.leaf = None;
            let Some(branch) = self.branches.last_mut() else { return Ok(None) };
            if branch.next == branch.count {
                self.branches.pop();
                continue;
            }
            let (page, child) = (branch.page, branch.take(&mut self.spare)?);
            // A key that was already found would have belonged to the right of this element.
            if self.spare < self.floor || (!self.key.is_empty() && self.spare <= self.key) {
                return Err(Error::Damaged { page, what: "branch keys out of order" });
            }
            std::mem::swap(&mut self.floor, &mut self.spare);
            self.enter(source, child)?;
        }
    }

    /// Goes down to a page of the tree.
    fn enter<F: Read + Seek>(&mut self, source: &mut Source<F>, page: u64) -> Result<(), Error> {
        let damaged = |what| Err(Error::Damaged { page, what });
        if page < 2 || page >= self.pages {
            return damaged("a page outside the file");
        }
        let at = page * self.page_size;
        let mut header = [0; HEADER];
        source.read_at(at, &mut header)?;
        let header = Header::decode(&header);
        if header.id != page {
            return damaged("another page's id");
        }
        if u64::from(header.overflow) >= self.pages - page {
            return damaged("an overflow that leaves the file");
        }
        let taken = u64::from(header.overflow) + 1;
        if !self.mark(page, taken) {
            return damaged("part of two pages");
        }
        let size = taken * self.page_size;
        match header.flags {
            LEAF => {
                self.leaf = Some(Leaf::read(source, page, at, size, header.count)?);
                Ok(())
            }
            BRANCH if self.branches.len() == MAX_DEPTH => damaged("a tree of too many levels"),
            BRANCH if size > MAX_BRANCH => damaged("a branch page of more than 1 MiB"),
            BRANCH if header.count == 0 => damaged("a branch without children"),
            BRANCH => {
                let count = usize::from(header.count);
                if HEADER + count * ELEMENT > size as usize {
                    return damaged("more elements than the page has room for");
                }
                let mut bytes = Vec::new();
                source.read_to(at, size as usize, &mut bytes)?;
                self.branches.push(Branch { page, bytes, count, next: 0 });
                Ok(())
            }
            _ => damaged("neither a branch nor a leaf"),
        }
    }

    fn enter_inline<F: Read + Seek>(
        &mut self,
        source: &mut Source<F>,
        page: u64,
        at: u64,
        length: usize,
    ) -> Result<(), Error> {
        let damaged = |what| Err(Error::Damaged { page, what });
        if length < HEADER {
            return damaged("an inline bucket is too short");
        }
        let mut header = [0; HEADER];
        source.read_at(at, &mut header)?;
        let header = Header::decode(&header);
        if header.flags != LEAF || header.id != 0 || header.overflow != 0 {
            return damaged("an inline bucket that is no leaf");
        }
        self.leaf = Some(Leaf::read(source, page, at, length as u64, header.count)?);
        Ok(())
    }

    /// Notes that `count` pages from `first` on are part of this tree; false if one of them was already.
    fn mark(&mut self, first: u64, count: u64) -> bool {
        for page in first..first + count {
            let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
            if word >= self.seen.len() {
                self.seen.resize(word + 1, 0);
            }
            if self.seen[word] & bit != 0 {
                return false;
            }
            self.seen[word] |= bit;
        }
        true
    }
}

impl Branch {
    /// The next child; its key goes to `key`.
    fn take(&mut self, key: &mut Vec<u8>) -> Result<u64, Error> {
        let element = HEADER + self.next * ELEMENT;
        let position = u32_at(&self.bytes, element) as usize;
        let length = u32_at(&self.bytes, element + 4) as usize;
        let begin = element + position;
        let elements_end = HEADER + self.count * ELEMENT;
        if begin < elements_end || length == 0 || length > MAX_KEY || begin + length > self.bytes.len() {
            return Err(Error::Damaged { page: self.page, what: "a branch key outside its page" });
        }
        key.clear();
        key.extend_from_slice(&self.bytes[begin..begin + length]);
        self.next += 1;
        Ok(u64_at(&self.bytes, element + 8))
    }
}

impl Leaf {
    /// The leaf of `size` bytes whose header lies at `at`.
    fn read<F: Read + Seek>(
        source: &mut Source<F>,
        page: u64,
        at: u64,
        size: u64,
        count: u16,
    ) -> Result<Leaf, Error> {
        let length = usize::from(count) * ELEMENT;
        let used = at + (HEADER + length) as u64;
        if used > at + size {
            return Err(Error::Damaged { page, what: "more elements than the page has room for" });
        }
        let mut elements = Vec::new();
        source.read_to(at + HEADER as u64, length, &mut elements)?;
        Ok(Leaf { page, at, end: at + size, elements, next: 0, used })
    }

    /// The next element, which there is; its key goes to `key`.
    fn take<F: Read + Seek>(&mut self, source: &mut Source<F>, key: &mut Vec<u8>) -> Result<Found, Error> {
        let page = self.page;
        let damaged = |what| Err(Error::Damaged { page, what });
        let offset = self.next * ELEMENT;
        let [flags, position, key_length, value_length] =
            [0, 4, 8, 12].map(|field| u32_at(&self.elements, offset + field));
        let begin = self.at + (HEADER + offset) as u64 + u64::from(position);
        let value_at = begin + u64::from(key_length);
        let end = value_at + u64::from(value_length);
        // bbolt writes keys and values in the order of their elements. To insist on it is what keeps
        // the bytes that come out of a page within the bytes that the page has.
        if begin < self.used || end > self.end {
            return damaged("a key or value outside its page");
        }
        if flags & !IS_BUCKET != 0 {
            return damaged("unknown flags of an element");
        }
        if key_length == 0 || key_length as usize > MAX_KEY || value_length as usize > MAX_VALUE {
            return damaged("a key or value of impossible length");
        }
        source.read_to(begin, key_length as usize, key)?;
        self.used = end;
        self.next += 1;
        Ok(Found { page, flags, value_at, value_length: value_length as usize })
    }
}
