//! The Cluster service: who is a member, and who is to be.

use std::sync::Arc;

use api::etcdserverpb::cluster_server::Cluster;
use api::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use server::{Credentials, Member};
use tonic::{Request, Response, Status};

use crate::{access, status};

/// Who is in the cluster.
pub(crate) struct ClusterService {
    pub(crate) member: Arc<Member>,
}

impl ClusterService {
    /// Who is a member is no matter of the keys' revisions, and etcd tells none with it.
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: 0, ..self.member.header(0) })
    }
}

fn messages<'a>(members: impl IntoIterator<Item = &'a apply::Member>) -> Vec<MemberMessage> {
    members.into_iter().map(MemberMessage::from).collect()
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let added = self.member.add_member(&peer_ur_ls, is_learner).await;
        let (added, members) = added.map_err(status::change)?;
        Ok(Response::new(MemberAddResponse {
            header: self.header(),
            member: Some(MemberMessage::from(&added)),
            members: messages(&members),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let members = self.member.remove_member(request.into_inner().id).await.map_err(status::change)?;
        Ok(Response::new(MemberRemoveResponse { header: self.header(), members: messages(&members) }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let members = self.member.update_member(id, &peer_ur_ls).await.map_err(status::change)?;
        Ok(Response::new(MemberUpdateResponse { header: self.header(), members: messages(&members) }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        if request.linearizable {
            self.member.linearize().await.map_err(status::server)?;
        }
        let caller = access::caller(&self.member, &extensions)?;
        self.member.require_somebody(&caller).map_err(status::auth)?;
        let members = messages(self.member.cluster().members.values());
        Ok(Response::new(MemberListResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let token = extensions.get::<Credentials>().and_then(|credentials| credentials.token.as_deref());
        let members = self.member.promote_member(request.id, token).await.map_err(status::change)?;
        Ok(Response::new(MemberPromoteResponse { header: self.header(), members: messages(&members) }))
    }
}
