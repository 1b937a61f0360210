//! One number over everything durable, for the Hash RPC.

use crate::Backend;
use crate::error::{Error, failed};
use crate::tables::{CONSISTENT_INDEX, STORAGE_VERSION, TERM, Table, unwrap_row};
use redb::ReadableTable;

impl Backend {
    /// CRC-32C over all tables in the order of etcd's bucket names, each as its name, then its
    /// keys and values; what members may differ in (how far the log is reflected) is left out.
    /// Everything sealed is flushed first, and the hash is of one redb transaction.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn hash_tables(&self) -> Result<u32, Error> {
        self.flush_all()?;
        let durable = self.shared.picture.read().durable.clone();
        self.shared.health.guard(|| {
            let mut hash = 0;
            let mut rows_done = false;
            for table in Table::ALL {
                if !rows_done && table.name() > "key" {
                    hash = hash_rows(hash, &durable.rows)?;
                    rows_done = true;
                }
                hash = crc32c::crc32c_append(hash, table.name().as_bytes());
                for entry in durable.table(table)?.iter().map_err(failed)? {
                    let (key, value) = entry.map_err(failed)?;
                    let local = [CONSISTENT_INDEX, TERM, STORAGE_VERSION].contains(&key.value());
                    if table != Table::Meta || !local {
                        hash = crc32c::crc32c_append(hash, key.value());
                        hash = crc32c::crc32c_append(hash, value.value());
                    }
                }
            }
            Ok(hash)
        })
    }
}

fn hash_rows(
    mut hash: u32,
    rows: &impl ReadableTable<&'static crate::RowKey, &'static [u8]>,
) -> Result<u32, Error> {
    hash = crc32c::crc32c_append(hash, b"key");
    for entry in rows.iter().map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (tombstone, record) = unwrap_row(key.value(), value.value())?;
        hash = crc32c::crc32c_append(hash, key.value());
        if tombstone {
            hash = crc32c::crc32c_append(hash, b"t");
        }
        hash = crc32c::crc32c_append(hash, record);
    }
    Ok(hash)
}
