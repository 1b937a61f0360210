//! The client and peer ports: who listens, which thread serves a connection, and what answers that
//! is not gRPC.
//!
//! A port speaks HTTP/1.1 and HTTP/2 at once; a request whose content type is gRPC's goes to
//! `grpc`, everything else to [`http`](self) paths: `/v3/…`, `/health`, `/livez`, `/readyz`, `/version`, `/metrics`,
//! `/debug/vars`, `/debug/pprof/`. The first
//! runtime thread accepts and deals connections out in turn, and a connection stays where it was
//! dealt (design §10).
//!
//! | module | what it is |
//! |---|---|
//! | `listen` | sockets, bound before anything else starts, so that a taken port is told at once |
//! | `connections` | accepting, dealing out, serving, and ending in order |
//! | `coalesce` | small answers that are ready together leave together |
//! | `endpoints` | paths of the client port |
//! | `json` | the API as JSON, below `/v3/` |
//! | `access` | which hosts and origins are let in |
//! | `greeting` | who is silent at first is cut off |
//! | `health` | what makes a member healthy, in etcd's words |
//! | `traffic` | the count of bytes |
//! | `pings` | clients that ping too often |
//! | `probes` | `/livez` and `/readyz` |
//! | `vars` | `/debug/vars` |
//! | `profile` | `/debug/pprof/` |
//! | `peer` | paths of the peer port that are not raft's |

mod access;
mod coalesce;
mod connections;
mod endpoints;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod greeting;
mod health;
mod json;
mod listen;
mod peer;
mod pings;
mod probes;
mod profile;
mod traffic;
mod vars;

pub use access::{Access, Names};
pub use connections::{Gateway, Http2, Settings};
pub use listen::{Listeners, bind};
