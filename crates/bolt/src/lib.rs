//! etcd's snapshot file, read and written: a bbolt database.
#![forbid(unsafe_code)]
