//! The Cluster service: for now it only lists.

use std::sync::Arc;

use api::etcdserverpb::cluster_server::Cluster;
use api::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use server::Member;
use tonic::{Request, Response, Status};

use crate::status;

/// Who is in the cluster.
pub(crate) struct ClusterService {
    pub(crate) member: Arc<Member>,
}

/// Answers what a cluster of one member does not do yet.
fn later(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not supported by this version of Cairn"))
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(later("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(later("MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(later("MemberUpdate"))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.member.linearize().await.map_err(status::server)?;
        }
        let members = self
            .member
            .cluster()
            .members
            .values()
            .map(|member| MemberMessage {
                id: member.id,
                name: member.name.clone(),
                peer_ur_ls: member.peer_urls.clone(),
                client_ur_ls: member.client_urls.clone(),
                is_learner: member.is_learner,
            })
            .collect();
        // Who is a member is no matter of the keys' revisions, and etcd tells none with it.
        let header = ResponseHeader { revision: 0, ..self.member.header(0) };
        Ok(Response::new(MemberListResponse { header: Some(header), members }))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(later("MemberPromote"))
    }
}
