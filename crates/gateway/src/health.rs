//! Whether a member is healthy, asked the ways etcd can be asked.

use std::sync::Arc;

use api::etcdserverpb::AlarmType;
use mvcc::{KeyRange, RangeQuery};
use serde::Serialize;
use server::Member;

/// The answer of `/health`.
#[derive(Serialize)]
pub(crate) struct Health {
    health: &'static str,
    reason: String,
}

impl Health {
    pub(crate) fn is_good(&self) -> bool {
        self.health == "true"
    }
}

/// Alarms that are not excluded, a leader, and a read that goes through; the last two of the whole
/// cluster, unless `serializable` asks for this member alone.
pub(crate) async fn check(member: &Arc<Member>, excluded: &[String], serializable: bool) -> Health {
    let reason = match alarm(member, excluded) {
        Some(reason) => reason.to_owned(),
        None if !serializable && member.raft().leader() == 0 => "RAFT NO LEADER".to_owned(),
        None => match read(member, serializable).await {
            Ok(()) => String::new(),
            Err(error) => format!("RANGE ERROR:{error}"),
        },
    };
    let counter =
        if reason.is_empty() { &member.metrics().health_success } else { &member.metrics().health_failures };
    counter.inc();
    Health { health: if reason.is_empty() { "true" } else { "false" }, reason }
}

fn alarm(member: &Member, excluded: &[String]) -> Option<&'static str> {
    member.alarms().get(AlarmType::None.into()).find_map(|alarm| {
        let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
        if excluded.iter().any(|name| name == kind.as_str_name()) {
            return None;
        }
        Some(match kind {
            AlarmType::Nospace => "ALARM NOSPACE",
            AlarmType::Corrupt => "ALARM CORRUPT",
            AlarmType::None => "ALARM UNKNOWN",
        })
    })
}

/// A look at one key, of this member alone or of the whole cluster.
pub(crate) async fn read(member: &Arc<Member>, serializable: bool) -> Result<(), String> {
    if !serializable {
        // A quorum may be without this one, and its reads good; what it is asked to write would hang.
        if let Some(waited) = member.disk_silence() {
            return Err(format!("the disk of the write-ahead log has not answered for {waited:.1?}"));
        }
        member.linearize().await.map_err(|error| error.to_string())?;
    }
    let mut query = RangeQuery::new(KeyRange::all());
    query.keys_only = true;
    query.limit = 1;
    member.store().range(&query).map(|_| ()).map_err(|error| error.to_string())
}
