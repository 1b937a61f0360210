//! How far away a peer is, and how far its clock: a small question every few seconds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{self, beside};
use crate::clock;
use crate::connect::{Address, connect};
use crate::events::Measured;
use crate::hub::Hub;
use crate::link::Link;

/// What the path is called.
pub(crate) const PATH: &str = "/raft/probing";

/// A clock that is off by more than this is worth a word.
const DRIFT: Duration = Duration::from_secs(1);

/// The answer to a probe.
pub(crate) fn answer() -> String {
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", clock::format(clock::now()))
}

/// Asks for as long as the peer is one. etcd asks a second before its connections would time out.
pub(crate) async fn run(hub: Arc<Hub>, link: Arc<Link>) {
    let read_timeout = hub.settings.read_timeout;
    let period = read_timeout.saturating_sub(Duration::from_secs(1)).max(read_timeout / 5);
    let mut wrong_clock = false;
    loop {
        sleep(period).await;
        let Some(address) = link.address() else { return };
        let asked = timeout(hub.settings.dial_timeout + read_timeout, ask(&hub, &address)).await;
        let Ok(Ok((round_trip, theirs))) = asked else { continue };
        // etcd's smoothing.
        let round_trip = match link.round_trip() {
            Some(before) => before.mul_f64(0.875) + round_trip.mul_f64(0.125),
            None => round_trip,
        };
        let there = theirs + round_trip.as_nanos() as i128 / 2;
        let apart = (clock::now() - there).unsigned_abs();
        let apart = Duration::from_nanos(u64::try_from(apart).unwrap_or(u64::MAX));
        link.measured(round_trip, apart);
        hub.events.measured(link.id, Measured::RoundTrip(round_trip));
        if apart > DRIFT && !wrong_clock {
            tracing::warn!(
                "remote-peer-id" = format!("{:x}", link.id),
                "clock-drift" = ?apart,
                rtt = ?round_trip,
                "prober found high clock drift"
            );
        }
        wrong_clock = apart > DRIFT;
    }
}

/// The time an answer took, not counting the dial, and the other side's clock.
async fn ask(hub: &Hub, address: &Address) -> Result<(Duration, i128), String> {
    const LONGEST: usize = 4096;
    let settings = &hub.settings;
    let connection = connect(address, settings).await;
    let connection = connection.map_err(|error| error.to_string())?;
    let handshake = http1::handshake::<_, Empty<Bytes>>(connection).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let request = client::request(Method::GET, address, PATH, Default::default(), Empty::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = async {
        let start = Instant::now();
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = Limited::new(response.into_body(), LONGEST).collect().await;
        let text = text.map_err(|error| error.to_string())?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("status {status}"));
        }
        let took = start.elapsed();
        let health: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let now = health["Now"].as_str().and_then(clock::parse);
        Ok((took, now.filter(|_| health["OK"] == true).ok_or("not a healthy answer")?))
    };
    beside(connection, answer).await
}
