//! When something was written: the clock of the store, and the key of every stored row.

use std::fmt;

use backend::RowKey;

/// The moment of one change: the transaction that made it, and its place within that transaction.
///
/// The order of the fields is the order of time, and it is also the order of the bytes on disk, so a scan of
/// the stored rows reads history in the order in which it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction. All changes of one transaction share it; the next writing transaction gets the next.
    pub main: i64,
    /// The change within the transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The revision with these two parts.
    pub const fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    /// The key of the row that was written at this revision: eight bytes, an underscore, eight bytes, both
    /// numbers big endian.
    pub fn to_row_key(self) -> RowKey {
        debug_assert!(self.main >= 0 && self.sub >= 0, "a negative revision has no row: {self}");
        let mut key = [b'_'; 17];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The smallest revision after this one.
    pub(crate) const fn next(self) -> Revision {
        Revision { main: self.main, sub: self.sub + 1 }
    }

    /// The revision of the row with this key.
    pub fn from_row_key(key: &RowKey) -> Revision {
        let part = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key[at..at + 8]);
            i64::from_be_bytes(bytes)
        };
        Revision { main: part(0), sub: part(9) }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_time_is_the_order_of_bytes() {
        let mains = [0, 1, 255, 256, 1 << 32, i64::MAX];
        let all: Vec<Revision> =
            mains.iter().flat_map(|&main| [0, 1, 256].map(|sub| Revision { main, sub })).collect();
        for pair in all.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_row_key() < pair[1].to_row_key());
            assert_eq!(Revision::from_row_key(&pair[1].to_row_key()), pair[1]);
        }
        assert_eq!(&Revision::new(1, 2).to_row_key(), b"\0\0\0\0\0\0\0\x01_\0\0\0\0\0\0\0\x02");
    }
}
