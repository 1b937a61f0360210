//! The look at the quota before a request that takes space becomes a proposal.

use std::sync::Arc;

use api::error::Error as Etcd;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType};
use server::Member;
use tonic::Status;

use crate::status;

/// Refuses a request that would take `cost` bytes more than the quota has left, and raises the
/// NOSPACE alarm through the log as etcd does.
pub(crate) async fn check(member: &Arc<Member>, cost: u64) -> Result<(), Status> {
    if member.has_room(cost) {
        return Ok(());
    }
    let raised = member.alarms().get(AlarmType::Nospace.into()).any(|alarm| alarm.member_id == member.id());
    if raised {
        // One more entry in the log would only make a full disk fuller.
        return Err(status::etcd(Etcd::NoSpace));
    }
    let alarm = AlarmRequest {
        member_id: member.id(),
        action: AlarmAction::Activate.into(),
        alarm: AlarmType::Nospace.into(),
    };
    // Whether or not the alarm could be raised just now, the request is refused for lack of space.
    let _ = member.propose(alarm).await;
    Err(status::etcd(Etcd::NoSpace))
}
