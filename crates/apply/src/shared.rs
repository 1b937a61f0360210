//! What readers on other threads hold of the machine.

use std::sync::Arc;

use auth::Auth;
use lease::Lessor;
use mvcc::Store;
use parking_lot::{Mutex, RwLock};

use crate::alarms::Alarms;
use crate::cluster::Cluster;
use crate::quota::Quota;

/// The replicated state, for reading; clones share it. Only the apply thread changes it.
#[derive(Clone)]
pub struct Shared {
    /// Keys and values.
    pub store: Store,
    /// Leases. Readers and the primary's clockwork take the lock for short looks; grants and
    /// revocations come through the log alone.
    pub lessor: Arc<Mutex<Lessor>>,
    /// Users and roles, whether requests are checked, and simple tokens.
    pub auth: Auth,
    /// Members and the cluster's version.
    pub cluster: Published<Cluster>,
    /// The raised alarms.
    pub alarms: Published<Alarms>,
    /// The bound on the bytes in use, to ask before proposing.
    pub quota: Quota,
}

/// A value that changes rarely and is replaced as a whole.
#[derive(Debug, Default)]
pub struct Published<T>(Arc<RwLock<Arc<T>>>);

impl<T> Published<T> {
    pub(crate) fn new(value: T) -> Self {
        Published(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn set(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published(Arc::clone(&self.0))
    }
}
