//! A change of the configuration, and its bytes.
//!
//! Raft must look into these entries, and into no others: a leader refuses a change that does not
//! fit. The two raftpb messages are so small that reading them here is simpler than asking someone.

use crate::types::{EntryKind, NodeId};
use std::fmt;
use std::sync::Arc;

/// What happens to one member, with raftpb's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Becomes a voter, from outside or from learner.
    #[default]
    AddNode,
    /// Leaves.
    RemoveNode,
    /// Stays what it is; something else about it changes.
    UpdateNode,
    /// Becomes a learner, from outside or from voter.
    AddLearnerNode,
}

/// `raftpb.ConfChangeSingle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What happens.
    pub kind: ChangeKind,
    /// To whom; zero for a change that was refused when it was applied.
    pub node: NodeId,
}

/// `raftpb.ConfChange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// The proposer's name for it.
    pub id: u64,
    /// What happens to whom.
    pub change: Change,
    /// Opaque to Raft.
    pub context: Arc<[u8]>,
}

/// Whether a change goes through a joint configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Only if it has more than one part; then the joint configuration is left by itself.
    #[default]
    Auto,
    /// Yes, and it is left by itself.
    JointImplicit,
    /// Yes, and it is left by another change.
    JointExplicit,
}

/// `raftpb.ConfChangeV2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeV2 {
    /// How.
    pub transition: Transition,
    /// What; nothing leaves a joint configuration.
    pub changes: Vec<Change>,
    /// Opaque to Raft.
    pub context: Arc<[u8]>,
}

/// The bytes of a configuration change cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError;

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed configuration change")
    }
}

impl std::error::Error for DecodeError {}

impl From<Change> for ConfChangeV2 {
    fn from(change: Change) -> ConfChangeV2 {
        ConfChangeV2 { changes: vec![change], ..ConfChangeV2::default() }
    }
}

impl From<ConfChange> for ConfChangeV2 {
    fn from(old: ConfChange) -> ConfChangeV2 {
        ConfChangeV2 { transition: Transition::Auto, changes: vec![old.change], context: old.context }
    }
}

impl ConfChangeV2 {
    /// Whether it leaves a joint configuration.
    pub fn leaves_joint(&self) -> bool {
        self.transition == Transition::Auto && self.changes.is_empty()
    }

    /// Whether it enters one, and if so whether that is left by itself.
    pub fn enters_joint(&self) -> Option<bool> {
        match self.transition {
            Transition::Auto => (self.changes.len() > 1).then_some(true),
            Transition::JointImplicit => Some(true),
            Transition::JointExplicit => Some(false),
        }
    }

    /// Reads the bytes of an entry of this kind.
    ///
    /// # Errors
    /// If they are not what `kind` says; an entry of kind `Normal` or of an unknown one never is.
    pub fn decode(kind: EntryKind, data: &[u8]) -> Result<ConfChangeV2, DecodeError> {
        match kind {
            EntryKind::Normal | EntryKind::Unknown(_) => Err(DecodeError),
            EntryKind::ConfChange => ConfChange::decode(data).map(ConfChangeV2::from),
            EntryKind::ConfChangeV2 => {
                let mut out = ConfChangeV2::default();
                for field in Fields(data) {
                    match field? {
                        (1, Value::Number(n)) => {
                            out.transition = match n {
                                0 => Transition::Auto,
                                1 => Transition::JointImplicit,
                                2 => Transition::JointExplicit,
                                _ => return Err(DecodeError),
                            }
                        }
                        (2, Value::Bytes(bytes)) => out.changes.push(Change::decode(bytes)?),
                        (3, Value::Bytes(bytes)) => out.context = bytes.into(),
                        _ => {}
                    }
                }
                Ok(out)
            }
        }
    }

    /// The bytes of an entry of kind [`EntryKind::ConfChangeV2`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, 1, self.transition as u64);
        for change in &self.changes {
            bytes(&mut out, 2, &change.encode());
        }
        if !self.context.is_empty() {
            bytes(&mut out, 3, &self.context);
        }
        // A plain leave must be the empty message: that is how it is told apart.
        if self.leaves_joint() && self.context.is_empty() { Vec::new() } else { out }
    }
}

impl ConfChange {
    /// Reads the bytes of an entry of kind [`EntryKind::ConfChange`].
    ///
    /// # Errors
    /// If they are not a `raftpb.ConfChange`.
    pub fn decode(data: &[u8]) -> Result<ConfChange, DecodeError> {
        let mut out = ConfChange { id: 0, change: Change::default(), context: Arc::new([]) };
        for field in Fields(data) {
            match field? {
                (1, Value::Number(n)) => out.id = n,
                (2, Value::Number(n)) => out.change.kind = kind(n)?,
                (3, Value::Number(n)) => out.change.node = NodeId(n),
                (4, Value::Bytes(bytes)) => out.context = bytes.into(),
                _ => {}
            }
        }
        Ok(out)
    }

    /// Its bytes as `raftpb.ConfChange`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, 1, self.id);
        number(&mut out, 2, self.change.kind as u64);
        number(&mut out, 3, self.change.node.0);
        if !self.context.is_empty() {
            bytes(&mut out, 4, &self.context);
        }
        out
    }
}

impl Change {
    fn decode(data: &[u8]) -> Result<Change, DecodeError> {
        let mut out = Change::default();
        for field in Fields(data) {
            match field? {
                (1, Value::Number(n)) => out.kind = kind(n)?,
                (2, Value::Number(n)) => out.node = NodeId(n),
                _ => {}
            }
        }
        Ok(out)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, 1, self.kind as u64);
        number(&mut out, 2, self.node.0);
        out
    }
}

fn kind(n: u64) -> Result<ChangeKind, DecodeError> {
    match n {
        0 => Ok(ChangeKind::AddNode),
        1 => Ok(ChangeKind::RemoveNode),
        2 => Ok(ChangeKind::UpdateNode),
        3 => Ok(ChangeKind::AddLearnerNode),
        _ => Err(DecodeError),
    }
}

// Protobuf's wire format, as much as these messages use.

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3);
    varint(out, n);
}

fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(DecodeError)?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError);
            }
            n |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(DecodeError)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), DecodeError> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(DecodeError),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
