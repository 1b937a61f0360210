//! Who may listen in and who may speak: TLS for clients and for peers, on TCP and on Unix sockets.
//!
//! [`Settings`] are what one family of etcd's flags says (`--cert-file` and so on, or `--peer-cert-file` and so
//! on). A [`Server`] makes a TLS connection of an accepted one, a [`Client`] of one that was dialled; both read
//! their files again whenever they have changed, so that nobody has to restart anything to renew a certificate.
//!
//! | who | checks |
//! |---|---|
//! | server | its own pair; a client's certificate against the authorities, the allowed names, the remote address (peers only) and the list of revoked ones |
//! | client | its own pair; a server's certificate against the authorities, the name in the URL and the allowed names |
//!
//! Sessions are not resumed: each connection proves anew what it has to prove, and connections live long.
//!
//! TLS 1.2 and 1.3 are spoken, and nothing older, as in etcd 3.7. Certificates made for an authority
//! (`CA:TRUE`) prove somebody's identity only if they are themselves among those that are trusted.
//!
//! | module | what it is |
//! |---|---|
//! | `settings` | what the flags say |
//! | `cipher` | the suites by Go's names |
//! | `material` | certificates, keys, authorities and revocation lists in files |
//! | `reload` | what is read from files, for as long as they stay the same |
//! | `certificate` | what a certificate says |
//! | `verify` | whether it is believed |
//! | `address` | whether it is its bearer's |
//! | `server`, `client` | the two sides |
//! | `handshakes` | connections that are not yet proved, few enough |
//! | `listener`, `stream` | where others connect, and a connection of any kind |
//! | `self_signed` | `--auto-tls` |

mod address;
mod certificate;
mod cipher;
mod client;
mod error;
mod handshakes;
mod listener;
mod material;
mod reload;
mod self_signed;
mod server;
mod settings;
mod stream;
mod verify;

pub use cipher::Ciphers;
pub use client::Client;
pub use error::Error;
pub use handshakes::Handshakes;
pub use listener::{Guest, Listener, Listening};
pub use self_signed::self_signed;
pub use server::{Door, Rejection, Server};
pub use settings::{Settings, Version, Versions};
pub use stream::{Socket, Stream};
