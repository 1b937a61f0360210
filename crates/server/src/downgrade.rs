//! The way of a cluster to the version below its own.
//!
//! Whether a downgrade is under way, and to which version, is part of the replicated state. While it is,
//! the leader lowers the version that all members speak (see `versions`), members of the target version may
//! join or be started in the place of newer ones, and when the last of them runs it, it is over.

use api::membershippb::DowngradeInfoSetRequest;
use apply::Rejection;

use crate::error::Error;
use crate::member::Member;
use crate::versions::Version;

/// Why a downgrade is not begun, or not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DowngradeError {
    /// The target is no version.
    Format,
    /// The target is not the version right below the cluster's.
    Target,
    /// The cluster has not agreed on its own version yet.
    NoVersion,
    /// There is one under way already.
    UnderWay,
    /// There is none to be cancelled.
    NotUnderWay,
    /// The member itself failed.
    Failed(Error),
    /// The cluster refused.
    Rejected(Rejection),
}

impl From<Error> for DowngradeError {
    fn from(error: Error) -> Self {
        DowngradeError::Failed(error)
    }
}

impl Member {
    /// Whether a downgrade to `target` (`major.minor`, whatever may follow) could begin; what the cluster
    /// speaks now.
    ///
    /// # Errors
    /// Why not.
    pub async fn validate_downgrade(&self, target: &str) -> Result<String, DowngradeError> {
        let target = read(target)?;
        // etcd looks before it has made sure of knowing the newest.
        self.spoken()?;
        self.linearize().await?;
        self.check(target)?;
        self.spoken()
    }

    /// Begins a downgrade to `target`; what the cluster speaks at that moment.
    ///
    /// # Errors
    /// Why not.
    pub async fn enable_downgrade(&self, target: &str) -> Result<String, DowngradeError> {
        let version = read(target)?;
        self.linearize().await?;
        self.check(version)?;
        self.set_downgrade(Some(version)).await?;
        tracing::info!("target-version" = %version, "the cluster is to be downgraded");
        self.spoken()
    }

    /// Ends the downgrade under way: the cluster's version rises again to what its members speak. Returns
    /// what it speaks at that moment.
    ///
    /// # Errors
    /// Why not. (etcd 3.7 only writes that into its log; 3.5 and 3.6 tell, as this does.)
    pub async fn cancel_downgrade(&self) -> Result<String, DowngradeError> {
        self.linearize().await?;
        if !self.is_downgrading() {
            return Err(DowngradeError::NotUnderWay);
        }
        self.set_downgrade(None).await?;
        self.spoken()
    }

    /// Has the log say to which version a downgrade leads, or that there is none.
    pub(crate) async fn set_downgrade(&self, target: Option<Version>) -> Result<(), DowngradeError> {
        let ver = target.map(|target| target.to_string()).unwrap_or_default();
        let request = DowngradeInfoSetRequest { enabled: target.is_some(), ver };
        self.propose(request).await?.map(|_| ()).map_err(DowngradeError::Rejected)
    }

    pub(crate) fn is_downgrading(&self) -> bool {
        self.cluster().downgrade.as_ref().is_some_and(|downgrade| downgrade.enabled)
    }

    fn check(&self, target: Version) -> Result<(), DowngradeError> {
        let current = self.cluster().version.as_deref().and_then(Version::parse);
        check(current, target, self.is_downgrading())
    }

    /// `major.minor` of what the cluster speaks.
    fn spoken(&self) -> Result<String, DowngradeError> {
        let version = self.cluster().version.as_deref().and_then(Version::parse);
        Ok(version.ok_or(DowngradeError::NoVersion)?.short())
    }
}

/// A version with or without its patch, which makes no difference.
fn read(text: &str) -> Result<Version, DowngradeError> {
    Version::parse(text).or_else(|| Version::parse(&format!("{text}.0"))).ok_or(DowngradeError::Format)
}

fn check(current: Option<Version>, target: Version, is_under_way: bool) -> Result<(), DowngradeError> {
    let current = current.ok_or(DowngradeError::NoVersion)?;
    if !target.is_one_below(current) {
        return Err(DowngradeError::Target);
    }
    if is_under_way { Err(DowngradeError::UnderWay) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_target_is_the_version_right_below_and_there_is_one_downgrade_at_a_time() {
        let of = |text: &str| read(text).unwrap();
        let current = Some(of("3.7"));
        assert_eq!(check(current, of("3.6"), false), Ok(()));
        for target in ["3.5", "3.7", "3.8", "4.6", "2.6"] {
            assert_eq!(check(current, of(target), false), Err(DowngradeError::Target), "{target}");
        }
        assert_eq!(check(current, of("3.6"), true), Err(DowngradeError::UnderWay));
        assert_eq!(check(current, of("3.5"), true), Err(DowngradeError::Target), "etcd's order");
        assert_eq!(check(None, of("3.6"), false), Err(DowngradeError::NoVersion));
    }

    #[test]
    fn patches_may_be_left_out_and_make_no_difference() {
        for text in ["3.6", "3.6.0", "3.6.9", "3.6.1-rc.1"] {
            assert_eq!(read(text).map(|version| version.to_string()), Ok("3.6.0".to_owned()), "{text}");
        }
        for text in ["", "3", "x", "v3.6", "3.6.x", "3.6-rc", "3.6.0.1"] {
            assert_eq!(read(text), Err(DowngradeError::Format), "{text}");
        }
    }
}
