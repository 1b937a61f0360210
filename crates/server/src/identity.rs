//! Member and cluster ids, computed as etcd computes them so that the same flags give the same ids.

use sha1::{Digest, Sha1};

/// The id of a member of a new cluster: a hash over its sorted peer URLs and the cluster's token
/// (etcd `membership.NewMember`).
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url.as_bytes());
    }
    hash.update(token.as_bytes());
    first_eight(&hash.finalize())
}

/// The id of a new cluster: a hash over its members' sorted ids (etcd `RaftCluster.genID`).
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.to_be_bytes());
    }
    first_eight(&hash.finalize())
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that every etcd started without flags has.
    #[test]
    fn default_flags_give_etcds_well_known_ids() {
        let member = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn the_order_of_urls_does_not_matter() {
        let urls = ["http://b:2380".to_owned(), "http://a:2380".to_owned()];
        let turned = ["http://a:2380".to_owned(), "http://b:2380".to_owned()];
        assert_eq!(member_id(&urls, "t"), member_id(&turned, "t"));
        assert_eq!(cluster_id(&[1, 2]), cluster_id(&[2, 1]));
    }
}
