//! How long writes rest when a leader goes: killed without warning, and asked to end.
//!
//! Both systems run with their default timers. While a leader goes, a put leaves for every other
//! member every few milliseconds, whatever became of the ones before; one that is not answered soon is
//! given up, as a careful client does. What counts is the longest time without an acknowledged write,
//! from the signal on: a hand-over that leaves a hole after the old leader's last answer shows, too.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::etcdserverpb::PutRequest;
use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Connection, converse};
use crate::process::{Program, Server};
use crate::random::Random;

/// Between two puts through one member.
const EVERY: Duration = Duration::from_millis(2);
/// A put is given up after this long.
const GIVE_UP: Duration = Duration::from_millis(200);
/// Writes are watched for at least this long after the signal.
const AT_LEAST: Duration = Duration::from_millis(1500);
/// No cluster takes longer than this to elect a leader.
const LIMIT: Duration = Duration::from_secs(60);

/// What is asked of the longest rest after `kill -9`, in seconds, and after SIGTERM.
const AFTER_KILL: f64 = 1.5;
const AFTER_TERM: f64 = 0.1;

/// A measurement to do.
pub(crate) struct Task {
    /// Names and programs.
    pub(crate) systems: Vec<(&'static str, Program)>,
    /// Leaders to end, in each of the two ways.
    pub(crate) times: usize,
}

/// How a leader goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Killed,
    AskedToEnd,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Killed => "kill -9",
            Way::AskedToEnd => "SIGTERM",
        }
    }
}

/// Measures and prints; the figures.
///
/// # Errors
/// When a cluster does not start, or does not come back.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut figures = serde_json::Map::new();
    println!("the longest time without an acknowledged write when the leader goes, default timers");
    println!("{:<8} {:<8} {:>5} {:>9} {:>9} {:>9}  target", "", "", "times", "median", "mean", "worst");
    for (name, program) in &task.systems {
        let mut ways = serde_json::Map::new();
        for (way, target) in [(Way::Killed, AFTER_KILL), (Way::AskedToEnd, AFTER_TERM)] {
            let mut rests =
                rests(program, way, task.times).with_context(|| format!("{name}, {}", way.name()))?;
            rests.sort_by(f64::total_cmp);
            let (median, worst) = (rests[rests.len() / 2], rests[rests.len() - 1]);
            let mean = rests.iter().sum::<f64>() / rests.len() as f64;
            let verdict = if worst <= target { "pass" } else { "FALLS SHORT" };
            let verdict = if *name == crate::compare::CAIRN { verdict } else { "" };
            println!(
                "{name:<8} {:<8} {:>5} {:>6.0} ms {:>6.0} ms {:>6.0} ms  worst <= {:.0} ms {verdict}",
                way.name(),
                rests.len(),
                median * 1e3,
                mean * 1e3,
                worst * 1e3,
                target * 1e3,
            );
            ways.insert(way.name().to_owned(), json!({ "median": median, "worst": worst, "seconds": rests }));
        }
        figures.insert((*name).to_owned(), Value::Object(ways));
    }
    Ok(Value::Object(figures))
}

/// The longest rests of so many departures, in seconds.
fn rests(program: &Program, way: Way, times: usize) -> Result<Vec<f64>> {
    let mut server = Server::start(program)?;
    let mut random = Random::new(times as u64);
    let mut rests = Vec::new();
    for _ in 0..times {
        let leader = server.leader()?;
        // Heartbeats and timers are met at whatever point they are.
        std::thread::sleep(Duration::from_millis(300 + random.below(1000)));
        ensure!(server.leader()? == leader, "the leader changed by itself");
        rests.push(rest(&mut server, leader, way)?.as_secs_f64());
        server.start_member(leader)?;
    }
    Ok(rests)
}

/// An acknowledged put.
#[derive(Clone, Copy)]
struct Acknowledged {
    asked: Instant,
    at: Instant,
}

/// Ends the leader under load; the longest time without an acknowledged write.
fn rest(server: &mut Server, leader: usize, way: Way) -> Result<Duration> {
    let others: Vec<SocketAddr> =
        (0..server.size()).filter(|member| *member != leader).map(|member| server.address(member)).collect();
    let (begun, acknowledged) = converse(async {
        let acknowledged = Rc::new(RefCell::new(Vec::new()));
        let writers: Vec<_> = others
            .iter()
            .map(|&address| tokio::task::spawn_local(write(address, acknowledged.clone())))
            .collect();
        let seen = |since: Instant| acknowledged.borrow().iter().any(|put: &Acknowledged| put.asked >= since);
        let warm = Instant::now();
        while !seen(warm) {
            ensure!(warm.elapsed() < LIMIT, "no write is acknowledged before the leader goes");
            tokio::time::sleep(EVERY).await;
        }
        let begun = Instant::now();
        match way {
            Way::Killed => server.kill_member(leader),
            Way::AskedToEnd => server.signal(leader, Signal::TERM)?,
        }
        let mut ended = None;
        // Until something that was asked when the leader was gone is acknowledged.
        while ended.is_none_or(|ended| !seen(ended)) || begun.elapsed() < AT_LEAST {
            ensure!(begun.elapsed() < LIMIT, "writes do not resume");
            if ended.is_none() && server.has_ended(leader)? {
                ended = Some(Instant::now());
            }
            tokio::time::sleep(EVERY).await;
        }
        writers.into_iter().for_each(|writer| writer.abort());
        let acknowledged = acknowledged.borrow().clone();
        Ok((begun, acknowledged))
    })?;
    Ok(longest_rest(begun, acknowledged.into_iter().map(|put| put.at)))
}

/// The longest time between two moments, from `begun` on.
fn longest_rest(begun: Instant, moments: impl Iterator<Item = Instant>) -> Duration {
    let mut moments: Vec<Instant> = moments.filter(|at| *at > begun).collect();
    moments.sort();
    let from = std::iter::once(begun).chain(moments.iter().copied());
    from.zip(&moments).map(|(from, to)| to.duration_since(from)).max().unwrap_or_default()
}

/// Puts through one member on a schedule, whatever becomes of them.
async fn write(address: SocketAddr, acknowledged: Rc<RefCell<Vec<Acknowledged>>>) {
    let mut schedule = tokio::time::interval(EVERY);
    loop {
        let Ok(connection) = Connection::open(address).await else {
            schedule.tick().await;
            continue;
        };
        let lost = Rc::new(RefCell::new(false));
        while !*lost.borrow() {
            schedule.tick().await;
            let (mut kv, lost, acknowledged) = (connection.kv(), lost.clone(), acknowledged.clone());
            tokio::task::spawn_local(async move {
                let asked = Instant::now();
                let (key, value) = (Bytes::from_static(b"failover"), Bytes::from_static(b"value"));
                let put = kv.put(PutRequest { key, value, ..Default::default() });
                match tokio::time::timeout(GIVE_UP, put).await {
                    Ok(Ok(_)) => acknowledged.borrow_mut().push(Acknowledged { asked, at: Instant::now() }),
                    // The connection itself is gone.
                    Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                        *lost.borrow_mut() = true
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_begins_at_the_signal_or_at_an_answer() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let rest =
            |moments: &[u64]| longest_rest(begun, moments.iter().map(|&millis| at(millis))).as_millis();
        assert_eq!(rest(&[700, 702, 705]), 700);
        assert_eq!(rest(&[2, 90, 4, 91]), 86);
        assert_eq!(rest(&[]), 0);
    }
}
