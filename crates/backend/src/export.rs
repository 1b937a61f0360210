//! One consistent state, written out as etcd's backend file.
//!
//! The state is a redb read transaction: rows, tables, consistent index, term and configuration of
//! one commit, whatever is written meanwhile. It is walked once, in order, straight into the sink,
//! so memory is bounded and no lock is held. What it costs is pages: those that flushes free while
//! an export lives cannot be used again before it is dropped.

use crate::Backend;
use crate::error::{Error, failed};
use crate::health::Health;
use crate::open;
use crate::tables::{Consistent, RowKey, STORAGE_VERSION, Table, unwrap_row};
use crate::view::Durable;
use bytes::Bytes;
use redb::ReadableTable as _;
use std::io::{Seek, Write};
use std::sync::Arc;

/// The name of etcd's bucket for rows.
pub(crate) const ROW_BUCKET: &str = "key";

/// What etcd appends to the revision of a deletion.
pub(crate) const TOMBSTONE_MARK: u8 = b't';

/// A state of the store that stays as it is, to be written out. Drop it soon.
pub struct Export {
    durable: Arc<Durable>,
    consistent: Consistent,
    health: Arc<Health>,
}

impl Backend {
    /// Everything sealed when this was called, flushed first; later batches may be among it, whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn export(&self) -> Result<Export, Error> {
        // Planted: W11, the state is an older one than the configuration that is sent with it.
        let newest =
            planted::is("newest-conf-in-snapshot").then(|| self.shared.queue.lock().newest_conf_state());
        if newest.is_none() {
            self.flush_all()?;
        }
        let durable = self.shared.picture.read().durable.clone();
        // Not what the handle knows: the position that this very transaction holds.
        let mut consistent = self.shared.health.guard(|| open::position(durable.transaction()))?;
        consistent.conf_state = newest.flatten().or(consistent.conf_state);
        Ok(Export { durable, consistent, health: self.shared.health.clone() })
    }
}

impl Export {
    /// The position in the log of exactly this state.
    pub fn consistent(&self) -> &Consistent {
        &self.consistent
    }

    /// Writes the state as a bbolt database with etcd's buckets and hands the sink back, not synced.
    ///
    /// # Errors
    /// [`Error::Sink`] when the sink fails; anything else is the store's own failure.
    pub fn write_to<F: Write + Seek>(&self, sink: F) -> Result<F, Error> {
        self.write_with(None, sink)
    }

    /// The same, with `storage_version` in it as the version of the layout, which is noted nowhere else.
    ///
    /// # Errors
    /// As those of [`Export::write_to`].
    pub fn write_with<F: Write + Seek>(&self, storage_version: Option<&str>, sink: F) -> Result<F, Error> {
        let mut writer = bolt::Writer::create(sink).map_err(sink_failed)?;
        self.fill(&mut writer, storage_version)?;
        writer.finish().map_err(sink_failed)
    }

    /// Finds out what [`Export::stream`] needs to know: reads everything once.
    ///
    /// # Errors
    /// The store's own failure.
    pub fn measure(&self, storage_version: Option<&str>) -> Result<bolt::Layout, Error> {
        let mut writer = bolt::Writer::measure().map_err(sink_failed)?;
        self.fill(&mut writer, storage_version)?;
        Ok(writer.end().map_err(sink_failed)?.1)
    }

    /// As [`Export::write_with`], to where one cannot go back. `layout` comes from [`Export::measure`] of
    /// this state with the same version.
    ///
    /// # Errors
    /// As those of [`Export::write_to`].
    pub fn stream<F: Write>(
        &self,
        storage_version: Option<&str>,
        layout: &bolt::Layout,
        sink: F,
    ) -> Result<F, Error> {
        let mut writer = bolt::Writer::stream(sink, layout).map_err(sink_failed)?;
        self.fill(&mut writer, storage_version)?;
        let (sink, written) = writer.end().map_err(sink_failed)?;
        if written != *layout {
            return Err(Error::Sink("the state is not the one that was measured".to_owned()));
        }
        Ok(sink)
    }

    fn fill<F: Write>(
        &self,
        writer: &mut bolt::Writer<F>,
        storage_version: Option<&str>,
    ) -> Result<(), Error> {
        let mut rows_done = false;
        for table in Table::ALL {
            if !rows_done && table.name() > ROW_BUCKET {
                self.write_rows(writer)?;
                rows_done = true;
            }
            let version = storage_version.filter(|_| table == Table::Meta);
            self.write_table(writer, table, version)?;
        }
        Ok(())
    }

    /// A value of a table in this state.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn table_get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.read(|| {
            let stored = self.durable.table(table)?.get(key).map_err(failed)?;
            Ok(stored.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    /// Visits every entry of a table of this state in key order: `(key, value)`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn scan_table(&self, table: Table, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        self.read(|| {
            for entry in self.durable.table(table)?.iter().map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                visit(key.value(), value.value());
            }
            Ok(())
        })
    }

    fn write_rows<F: Write>(&self, writer: &mut bolt::Writer<F>) -> Result<(), Error> {
        let bucket = ROW_BUCKET.as_bytes();
        writer.bucket(bucket).map_err(sink_failed)?;
        let mut name = [TOMBSTONE_MARK; size_of::<RowKey>() + 1];
        for entry in self.read(|| self.durable.rows.iter().map_err(failed))? {
            let (key, value) = self.read(|| entry.map_err(failed))?;
            let key = key.value();
            let (tombstone, record) = self.read(|| unwrap_row(key, value.value()))?;
            name[..key.len()].copy_from_slice(key);
            let name = if tombstone { &name[..] } else { &name[..key.len()] };
            writer.put(bucket, name, record).map_err(sink_failed)?;
        }
        Ok(())
    }

    fn write_table<F: Write>(
        &self,
        writer: &mut bolt::Writer<F>,
        table: Table,
        mut storage_version: Option<&str>,
    ) -> Result<(), Error> {
        let bucket = table.name().as_bytes();
        writer.bucket(bucket).map_err(sink_failed)?;
        let entries = self.read(|| self.durable.table(table))?;
        for entry in self.read(|| entries.iter().map_err(failed))? {
            let (key, value) = self.read(|| entry.map_err(failed))?;
            if key.value() >= STORAGE_VERSION
                && let Some(version) = storage_version.take()
            {
                writer.put(bucket, STORAGE_VERSION, version.as_bytes()).map_err(sink_failed)?;
            }
            if key.value() != STORAGE_VERSION {
                writer.put(bucket, key.value(), value.value()).map_err(sink_failed)?;
            }
        }
        if let Some(version) = storage_version {
            writer.put(bucket, STORAGE_VERSION, version.as_bytes()).map_err(sink_failed)?;
        }
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.health.guard(read)
    }
}

fn sink_failed(error: bolt::Error) -> Error {
    Error::Sink(error.to_string())
}
