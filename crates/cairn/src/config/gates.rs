//! etcd's feature gates: names for behaviours that a release offers but does not insist on.
//!
//! Some of them are simply how Cairn works, or concern what is inside etcd; those may be switched either way.
//! The others promise something that is not there yet and must stay off. One is on unless it is switched off,
//! where etcd has it off: `CompactHashCheck`, which costs next to nothing here.

/// What switching a gate does here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// What etcd does.
    Active,
    /// Nothing, and nothing needs to be done: the text that would explain it is in [`GATES`].
    Either,
    /// It must stay at `false`.
    Off,
}

/// Every gate of etcd 3.7.1.
const GATES: [(&str, Gate); 11] = [
    // They would switch on what is `Off` below, or off what is `Either`.
    ("AllAlpha", Gate::Off),
    ("AllBeta", Gate::Either),
    ("CompactHashCheck", Gate::Active),
    ("InitialCorruptCheck", Gate::Active),
    // A renewal never waits for the log here.
    ("FastLeaseKeepAlive", Gate::Either),
    // Remaining times of leases are always checkpointed, and always kept.
    ("LeaseCheckpoint", Gate::Either),
    ("LeaseCheckpointPersist", Gate::Either),
    ("PriorityRequest", Gate::Off),
    ("SetMemberLocalAddr", Gate::Off),
    ("StopGRPCServiceOnDefrag", Gate::Active),
    // A detail of etcd's read buffer.
    ("TxnModeWriteWithSharedBuffer", Gate::Either),
];

/// Reads a list of gates. The last mention of a gate wins.
///
/// # Errors
/// etcd's words about a list that cannot be read, or a gate that does not exist.
pub(crate) fn parse(text: &str) -> Result<Vec<(&'static str, bool)>, String> {
    let mut switched = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => return Err(format!("missing bool value for {}", item.trim())),
        };
        let on = crate::flags::number::boolean(value).map_err(|_| {
            format!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
            )
        })?;
        let Some((known, _)) = GATES.iter().find(|(known, _)| *known == name) else {
            return Err(format!("unrecognized feature gate: {name}"));
        };
        switched.retain(|(other, _)| other != known);
        switched.push((*known, on));
    }
    Ok(switched)
}

/// # Errors
/// When a gate is switched on that does nothing here, or one without the other that it needs.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let switched = parse(text)?;
    let on = |name: &str| switched.iter().any(|(other, on)| *other == name && *on);
    if let Some((name, _)) = GATES.iter().find(|(name, gate)| *gate == Gate::Off && on(name)) {
        return Err(format!(
            "--feature-gates: {name}=true has no effect yet; leave it out or set it to false"
        ));
    }
    if on("LeaseCheckpointPersist") && !on("LeaseCheckpoint") {
        return Err("enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                    LeaseCheckpoint"
            .to_owned());
    }
    Ok(())
}

/// Whether a gate that is off unless switched on is on.
pub(crate) fn is_on(text: &str, gate: &str) -> bool {
    parse(text).is_ok_and(|switched| switched.contains(&(gate, true)))
}

/// Whether an alpha gate that is on unless switched off is on.
pub(crate) fn stays_on(text: &str, gate: &str) -> bool {
    let switched = parse(text).unwrap_or_default();
    let value = |name: &str| switched.iter().find(|(other, _)| *other == name).map(|(_, on)| *on);
    value(gate).or(value("AllAlpha")).unwrap_or(true)
}
