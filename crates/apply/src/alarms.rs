//! Alarms: conditions that one member found and all of them heed.

use std::collections::BTreeSet;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType};
use backend::{Table, TableOp};
use bytes::Bytes;
use prost::Message;

use crate::cluster::damage;
use crate::rejection::Failure;
use crate::snapshot::Tables;

/// The raised alarms: which kind, by which member. The kind is etcd's number, so that one that
/// this version does not know is kept and listed all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

impl Alarms {
    /// Whether a member has run out of space.
    pub fn no_space(&self) -> bool {
        self.raised(AlarmType::Nospace)
    }

    /// Whether members' data was found to differ.
    pub fn corrupt(&self) -> bool {
        self.raised(AlarmType::Corrupt)
    }

    fn raised(&self, alarm: AlarmType) -> bool {
        self.get(alarm as i32).next().is_some()
    }

    /// The alarms of one kind, or all of them for `NONE`, ordered by kind and member.
    pub fn get(&self, alarm: i32) -> impl Iterator<Item = AlarmMember> + '_ {
        let (from, to) = if alarm == AlarmType::None as i32 { (i32::MIN, i32::MAX) } else { (alarm, alarm) };
        self.0.range((from, 0)..=(to, u64::MAX)).map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
    }

    /// What the table holds.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub(crate) fn load(tables: &impl Tables) -> Result<Self, Failure> {
        let mut alarms = Alarms::default();
        let mut damaged = None;
        tables.scan(Table::Alarm, &mut |key, _| match AlarmMember::decode(key) {
            Ok(AlarmMember { member_id, alarm }) => _ = alarms.0.insert((alarm, member_id)),
            Err(_) => damaged = Some(damage(Table::Alarm, key)),
        })?;
        damaged.map_or(Ok(alarms), Err)
    }

    /// Carries out a request: the alarms to answer with, and the row to write. Raising an alarm
    /// twice answers as the first time did; lowering one that is not raised answers nothing; and
    /// so does an action that nobody knows.
    pub(crate) fn apply(&mut self, request: &AlarmRequest) -> (Vec<AlarmMember>, Option<TableOp>) {
        let one = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let key = (one.alarm, one.member_id);
        // The whole alarm is the key of its row.
        let row = || Bytes::from(one.encode_to_vec());
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => (self.get(request.alarm).collect(), None),
            Ok(AlarmAction::Activate) if one.alarm == AlarmType::None as i32 => (Vec::new(), None),
            Ok(AlarmAction::Activate) => {
                let op = self.0.insert(key).then(|| TableOp::put(Table::Alarm, row(), Bytes::new()));
                (vec![one], op)
            }
            Ok(AlarmAction::Deactivate) if self.0.remove(&key) => {
                (vec![one], Some(TableOp::delete(Table::Alarm, row())))
            }
            Ok(AlarmAction::Deactivate) | Err(_) => (Vec::new(), None),
        }
    }
}
