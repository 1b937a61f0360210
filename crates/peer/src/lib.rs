//! etcd's peer protocol: message and append streams, pipeline, snapshot transfer, probing.
