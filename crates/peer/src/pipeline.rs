//! Messages one by one: a POST for each, several under way at a time. The way to peers that have not
//! dialled us yet, or cannot.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use parking_lot::Mutex;
use raft::Message;
use tokio::time::timeout;

use crate::channel::Take;
use crate::client;
use crate::codec;
use crate::connect::connect;
use crate::hub::Hub;
use crate::identity;
use crate::link::{Link, count};
use crate::verdict::{Verdict, verdict};

/// Requests under way to one peer, etcd's figure.
const AT_ONCE: usize = 4;

/// The longest answer that is read, bytes.
const LONGEST: usize = 64 << 10;

/// Sends what is put into the link's pipeline.
pub(crate) async fn run(hub: Arc<Hub>, link: Arc<Link>, generation: u64) {
    let idle = Mutex::new(Vec::new());
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            message = next(&link, generation), if under_way.len() < AT_ONCE => match message {
                Some(message) => under_way.push(send(&hub, &link, &idle, message)),
                None => return,
            },
            Some(()) = under_way.next() => {}
        }
    }
}

async fn next(link: &Link, generation: u64) -> Option<Message> {
    let mut one = VecDeque::with_capacity(1);
    poll_fn(|context| match link.pipeline.take(generation, 1, &mut one, context) {
        Take::Some => Poll::Ready(one.pop_front()),
        Take::Nothing => Poll::Pending,
        Take::Over => Poll::Ready(None),
    })
    .await
}

type Idle = Mutex<Vec<SendRequest<Full<Bytes>>>>;

async fn send(hub: &Arc<Hub>, link: &Link, idle: &Idle, message: Message) {
    let mut body = BytesMut::new();
    codec::put_message(&mut body, &message);
    let body = body.freeze();
    // A connection that has rested may be closed at the other end: that is seen only by using it, and
    // raft does not mind a message that comes twice.
    let rested = idle.lock().pop().filter(|sender| sender.is_ready());
    let mut sent = Err(String::new());
    if let Some(sender) = rested {
        sent = post(hub, link, idle, Some(sender), body.clone()).await;
    }
    if sent.is_err() {
        sent = post(hub, link, idle, None, body.clone()).await;
    }
    match sent {
        Ok(Verdict::Taken) => count(&link.counters.sent_bytes, body.len()),
        Ok(Verdict::RemovedHere) => {
            hub.lost(link);
            hub.events.removed_here();
        }
        Ok(Verdict::Declined(why)) | Err(why) => {
            tracing::debug!("remote-peer-id" = format!("{:x}", link.id), error = why, "message not sent");
            hub.lost(link);
        }
    }
}

async fn post(
    hub: &Arc<Hub>,
    link: &Link,
    idle: &Idle,
    sender: Option<SendRequest<Full<Bytes>>>,
    body: Bytes,
) -> Result<Verdict, String> {
    let settings = &hub.settings;
    let address = link.address().ok_or("no address")?;
    let mut headers = identity::introduction(settings);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    let request = client::request(Method::POST, &address, "/raft", headers, Full::new(body));
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async {
        let mut sender = match sender {
            Some(sender) => sender,
            None => {
                let connection = connect(&address, settings).await.map_err(|error| error.to_string())?;
                let (sender, connection) =
                    http1::handshake(connection).await.map_err(|error| error.to_string())?;
                // Ends with the sender.
                hub.spawn(async move { drop(connection.await) });
                sender
            }
        };
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = Limited::new(response.into_body(), LONGEST).collect().await;
        let text = text.map_err(|error| error.to_string())?.to_bytes();
        idle.lock().push(sender);
        Ok(verdict(status, &text))
    };
    // Dialling has a limit of its own.
    let limit = settings.dial_timeout + settings.read_timeout;
    let sent = timeout(limit, exchange).await.unwrap_or_else(|_| Err("timed out".to_owned()));
    if !matches!(sent, Ok(Verdict::Taken)) {
        link.failed_at(&address);
    }
    sent
}
