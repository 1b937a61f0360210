//! Which of etcd's feature gates are on, for whoever looks at the numbers.

use server::Feature;

use super::gates;

/// Every gate with its stage in etcd 3.7.1, and whether it is on unless it is switched: as there, but for
/// `CompactHashCheck`.
const STAGES: [(&str, &str, bool); 11] = [
    ("AllAlpha", "ALPHA", false),
    ("AllBeta", "BETA", false),
    ("CompactHashCheck", "ALPHA", true),
    ("FastLeaseKeepAlive", "BETA", true),
    ("InitialCorruptCheck", "ALPHA", false),
    ("LeaseCheckpoint", "ALPHA", false),
    ("LeaseCheckpointPersist", "ALPHA", false),
    ("PriorityRequest", "ALPHA", false),
    ("SetMemberLocalAddr", "ALPHA", false),
    ("StopGRPCServiceOnDefrag", "ALPHA", false),
    ("TxnModeWriteWithSharedBuffer", "BETA", true),
];

/// All gates, as a list of them switches them. A gate's own mention counts for more than that of its stage.
///
/// # Errors
/// As [`gates::parse`].
pub(crate) fn list(text: &str) -> Result<Vec<Feature>, String> {
    let switched = gates::parse(text)?;
    let switch = |name: &str| switched.iter().find(|(other, _)| *other == name).map(|(_, on)| *on);
    let feature = |(name, stage, usual)| {
        let of_stage = match stage {
            "ALPHA" => switch("AllAlpha"),
            _ => switch("AllBeta"),
        };
        Feature { name, stage, is_on: switch(name).or(of_stage).unwrap_or(usual) }
    };
    Ok(STAGES.map(feature).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(text: &str) -> Vec<&'static str> {
        let features = list(text).unwrap_or_default();
        features.iter().filter(|feature| feature.is_on).map(|feature| feature.name).collect()
    }

    #[test]
    fn a_gate_is_as_its_own_mention_says_or_that_of_its_stage() {
        assert_eq!(on(""), ["CompactHashCheck", "FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"]);
        assert_eq!(on("AllBeta=false"), ["CompactHashCheck"]);
        assert_eq!(on("AllBeta=false,AllAlpha=false"), [""; 0]);
        assert_eq!(
            on("AllBeta=false,FastLeaseKeepAlive=true,LeaseCheckpoint=true"),
            ["CompactHashCheck", "FastLeaseKeepAlive", "LeaseCheckpoint"]
        );
        assert!(list("Guess=true").is_err());
    }

    #[test]
    fn every_gate_has_a_stage() {
        for (name, _, _) in STAGES {
            assert!(list(&format!("{name}=true")).is_ok(), "{name}");
        }
    }
}
