//! Who asks, and for what.

/// Who asks, as a request says that travels through the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name; empty for nobody.
    pub user: String,
    /// The revision of users and roles at which the caller was found out; 0 for nobody.
    pub revision: u64,
}

impl Caller {
    /// Whether nobody is named.
    pub fn is_nobody(&self) -> bool {
        self.user.is_empty() && self.revision == 0
    }
}

/// What is done to a key, or to each of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its value, its revisions, or whether it exists become known.
    Read,
    /// It is put or deleted.
    Write,
}
