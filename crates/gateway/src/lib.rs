//! The client and peer ports: who listens, which thread serves a connection, and what answers that
//! is not gRPC.
//!
//! A port speaks HTTP/1.1 and HTTP/2 at once; a request whose content type is gRPC's goes to
//! `grpc`, everything else to [`http`](self) paths: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`. The first
//! runtime thread accepts and deals connections out in turn, and a connection stays where it was
//! dealt (design §10).
//!
//! | module | what it is |
//! |---|---|
//! | `listen` | sockets, bound before anything else starts, so that a taken port is told at once |
//! | `connections` | accepting, dealing out, serving, and ending in order |
//! | `endpoints` | paths of the client port |
//! | `health` | what makes a member healthy, in etcd's words |
//! | `traffic` | the count of bytes |
//! | `probes` | `/livez` and `/readyz` |
//! | `peer` | paths of the peer port that are not raft's |

mod connections;
mod endpoints;
mod health;
mod listen;
mod peer;
mod probes;
mod traffic;

pub use connections::{Gateway, Http2};
pub use listen::{Listeners, bind};
