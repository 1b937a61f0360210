//! gRPC's own reflection service, by which generic clients (grpcurl and its kind) learn what there is to
//! call. etcd has none; its descriptors are public, so everybody is answered, with authentication too.
//!
//! Both versions are served: v1, and v1alpha, which older clients ask for.

use std::convert::Infallible;

use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic_reflection::server::Builder;
use tower::util::BoxCloneSyncService;

/// What the names of the service begin with.
pub(crate) const PREFIX: &str = "grpc.reflection.";

/// The longest question, in bytes: a name, or a few numbers.
const LONGEST: usize = 64 * 1024;

type Service = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The service in both versions.
#[derive(Clone)]
pub(crate) struct Reflection {
    v1: Service,
    v1alpha: Service,
}

impl Reflection {
    /// Everything that `proto/` describes.
    pub(crate) fn new() -> Self {
        let builder = || Builder::configure().register_encoded_file_descriptor_set(api::DESCRIPTORS);
        let v1 = builder().build_v1().expect("descriptors as the build has written them");
        let v1alpha = builder().build_v1alpha().expect("descriptors as the build has written them");
        Self {
            v1: Service::new(v1.max_decoding_message_size(LONGEST)),
            v1alpha: Service::new(v1alpha.max_decoding_message_size(LONGEST)),
        }
    }

    /// Serves a call of either; an unknown version or method is told so by the generated service.
    pub(crate) async fn call(&self, service: &str, request: http::Request<Body>) -> http::Response<Body> {
        let version = if service.starts_with("grpc.reflection.v1alpha.") { &self.v1alpha } else { &self.v1 };
        match version.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
