//! A B+tree built from left to right: leaves first, each level's pages as soon as they are full.

use std::io::Write;

use crate::error::Error;
use crate::page::{BRANCH, ELEMENT, HEADER, Header, LEAF};
use crate::writer::{PAGE, Pages};

/// One bucket's tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    leaf: Leaf,
    /// Branch levels, the lowest first.
    levels: Vec<Level>,
    last_key: Vec<u8>,
}

/// What a finished tree comes down to.
pub(crate) enum Root {
    /// One leaf, not written yet.
    Leaf(Leaf),
    /// A written page.
    Page(u64),
}

impl Tree {
    /// Adds a pair behind all others.
    pub(crate) fn push<F: Write>(
        &mut self,
        pages: &mut Pages<F>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Error> {
        // No key is empty, so the first one lies behind an empty last key.
        if key <= &self.last_key[..] {
            return Err(Error::OutOfOrder { before: self.last_key.clone(), given: key.to_vec() });
        }
        if !self.leaf.is_empty() && self.leaf.size() + ELEMENT + key.len() + value.len() > PAGE {
            self.write_leaf(pages)?;
        }
        self.leaf.push(flags, key, value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    fn write_leaf<F: Write>(&mut self, pages: &mut Pages<F>) -> Result<(), Error> {
        let leaf = std::mem::take(&mut self.leaf);
        let page = leaf.write(pages)?;
        self.add_child(pages, 0, leaf.first_key(), page)
    }

    /// Tells level `level` of a page below it, and the levels above of pages that this completes.
    fn add_child<F: Write>(
        &mut self,
        pages: &mut Pages<F>,
        mut level: usize,
        key: &[u8],
        mut page: u64,
    ) -> Result<(), Error> {
        let mut key = key.to_vec();
        loop {
            if level == self.levels.len() {
                self.levels.push(Level::default());
            }
            let Some(full) = self.levels[level].add(&key, page) else { return Ok(()) };
            page = full.write(pages)?;
            key = full.into_first_key();
            level += 1;
        }
    }

    pub(crate) fn finish<F: Write>(mut self, pages: &mut Pages<F>) -> Result<Root, Error> {
        if self.levels.is_empty() {
            return Ok(Root::Leaf(self.leaf));
        }
        self.write_leaf(pages)?;
        let mut level = 0;
        loop {
            let (first, second) = std::mem::take(&mut self.levels[level]).finish();
            let is_top = level + 1 == self.levels.len();
            let page = first.write(pages)?;
            match second {
                None if is_top => return Ok(Root::Page(page)),
                None => self.add_child(pages, level + 1, &first.into_first_key(), page)?,
                Some(second) => {
                    self.add_child(pages, level + 1, &first.into_first_key(), page)?;
                    let page = second.write(pages)?;
                    self.add_child(pages, level + 1, &second.into_first_key(), page)?;
                }
            }
            level += 1;
        }
    }
}

/// A leaf page in the making.
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    /// Flags, key length and value length of each element.
    elements: Vec<(u32, u32, u32)>,
    /// Key, value, key, value, ...
    data: Vec<u8>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn push(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.elements.push((flags, key.len() as u32, value.len() as u32));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn first_key(&self) -> &[u8] {
        &self.data[..self.elements[0].1 as usize]
    }

    /// Bytes of this page, its header included.
    pub(crate) fn size(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.data.len()
    }

    fn encode_elements(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.elements.len() * ELEMENT);
        let mut offset = 0;
        for (place, (flags, key, value)) in self.elements.iter().enumerate() {
            let position = ((self.elements.len() - place) * ELEMENT) as u32 + offset;
            for number in [*flags, position, *key, *value] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            offset += key + value;
        }
        bytes
    }

    pub(crate) fn write<F: Write>(&self, pages: &mut Pages<F>) -> Result<u64, Error> {
        pages.append(LEAF, self.elements.len() as u16, &[&self.encode_elements(), &self.data])
    }

    /// Appends this leaf as an inline bucket has it: a page without an id and without padding.
    pub(crate) fn encode_inline(&self, bytes: &mut Vec<u8>) {
        let count = self.elements.len() as u16;
        bytes.extend_from_slice(&Header { id: 0, flags: LEAF, count, overflow: 0 }.encode());
        bytes.extend_from_slice(&self.encode_elements());
        bytes.extend_from_slice(&self.data);
    }
}

/// One level of branch pages. The page before the last is held back until the last one has found two
/// children: bbolt knows no branch with a single child.
#[derive(Debug, Default)]
struct Level {
    previous: Option<Branch>,
    current: Branch,
}

impl Level {
    /// Adds a child, and gives back the page that this completes, if any.
    fn add(&mut self, key: &[u8], page: u64) -> Option<Branch> {
        let mut full = None;
        if self.current.children.len() >= 2 && self.current.size() + ELEMENT + key.len() > PAGE {
            full = self.previous.replace(std::mem::take(&mut self.current));
        }
        self.current.push(key, page);
        full
    }

    /// The last page or two of this level, each with two children or more.
    fn finish(self) -> (Branch, Option<Branch>) {
        let Level { previous, mut current } = self;
        let Some(mut previous) = previous else { return (current, None) };
        if current.children.len() > 1 {
            return (previous, Some(current));
        }
        if previous.children.len() > 2 {
            let (key, page) = previous.pop();
            let (last_key, last_page) = current.pop();
            current.push(&key, page);
            current.push(&last_key, last_page);
            return (previous, Some(current));
        }
        // Three children with keys so long that two fill a page: one page with overflow.
        let (key, page) = current.pop();
        previous.push(&key, page);
        (previous, None)
    }
}

/// A branch page in the making.
#[derive(Debug, Default)]
struct Branch {
    /// Key length and page of each child.
    children: Vec<(u32, u64)>,
    keys: Vec<u8>,
}

impl Branch {
    fn push(&mut self, key: &[u8], page: u64) {
        self.children.push((key.len() as u32, page));
        self.keys.extend_from_slice(key);
    }

    /// Takes the last child away; there is one.
    fn pop(&mut self) -> (Vec<u8>, u64) {
        let (length, page) = self.children.pop().expect("a branch has children");
        let key = self.keys.split_off(self.keys.len() - length as usize);
        (key, page)
    }

    fn into_first_key(mut self) -> Vec<u8> {
        self.keys.truncate(self.children[0].0 as usize);
        self.keys
    }

    fn size(&self) -> usize {
        HEADER + self.children.len() * ELEMENT + self.keys.len()
    }

    fn write<F: Write>(&self, pages: &mut Pages<F>) -> Result<u64, Error> {
        let mut elements = Vec::with_capacity(self.children.len() * ELEMENT);
        let mut offset = 0;
        for (place, (length, page)) in self.children.iter().enumerate() {
            let position = ((self.children.len() - place) * ELEMENT) as u32 + offset;
            elements.extend_from_slice(&position.to_le_bytes());
            elements.extend_from_slice(&length.to_le_bytes());
            elements.extend_from_slice(&page.to_le_bytes());
            offset += length;
        }
        pages.append(BRANCH, self.children.len() as u16, &[&elements, &self.keys])
    }
}
