//! Hashing of passwords, which is slow on purpose: on threads of its own, a bounded number of
//! passwords at a time, so that nobody who guesses them keeps the member from its work.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread::available_parallelism;

use bcrypt::Version;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::Error;

/// Passwords that may wait for a thread; further ones are refused.
const MAX_WAITING: usize = 1_024;

/// Costs that bcrypt knows.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// etcd's default for `--bcrypt-cost`, also for one that bcrypt does not know.
pub(crate) const DEFAULT_COST: u32 = 10;

/// bcrypt looks at no more bytes of a password than this.
const LONGEST: usize = 72;

/// Why a password was not hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// It is longer than bcrypt looks at.
    TooLong,
    /// There is no room, or no chance to draw a salt by.
    Failed(Error),
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // In the words of Go's library, which etcd passes on.
            Self::TooLong => write!(f, "bcrypt: password length exceeds {LONGEST} bytes"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PasswordError {}

type Job = Box<dyn FnOnce() + Send>;

/// The threads that hash, started when there is something to hash.
pub(crate) struct Passwords {
    cost: u32,
    threads: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    running: usize,
    idle: usize,
    closed: bool,
}

impl Passwords {
    /// `cost`: of new hashes.
    pub(crate) fn new(cost: u32) -> Self {
        let cost = if COSTS.contains(&cost) { cost } else { DEFAULT_COST };
        // One core is left to the member's other threads.
        let threads = available_parallelism().map_or(1, |cores| cores.get() - 1).clamp(1, 8);
        Self { cost, threads, shared: Arc::default() }
    }

    /// The hash of a password, with a fresh salt.
    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        if password.len() > LONGEST {
            return Err(PasswordError::TooLong);
        }
        let cost = self.cost;
        let hashed = self.run(move || {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).ok()?;
            let parts = bcrypt::hash_with_salt(password, cost, salt).ok()?;
            Some(parts.format_for_version(Version::TwoA))
        });
        // What is left to go wrong is the system's source of chance.
        hashed.await.map_err(PasswordError::Failed)?.ok_or(PasswordError::Failed(Error::Stopped))
    }

    /// Whether a password is the one that was hashed. Without a hash it is not, and finding that out takes
    /// no less time: always that of the costliest of all hashes there are, which is `costliest` if it is more
    /// than that of new ones.
    pub(crate) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
        costliest: u32,
    ) -> Result<bool, Error> {
        let ceiling = self.cost.max(costliest);
        self.run(move || {
            compare(hash.as_deref(), ceiling, |hash| bcrypt::verify(&password, hash).unwrap_or(false))
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (answer, receiver) = oneshot::channel();
        self.post(Box::new(move || {
            // A client that has gone is no reason to spend the time.
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        }))?;
        receiver.await.map_err(|_| Error::Stopped)
    }

    fn post(&self, job: Job) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        if state.jobs.len() >= MAX_WAITING {
            return Err(Error::TooManyRequests);
        }
        state.jobs.push_back(job);
        if state.idle > 0 || state.running == self.threads {
            drop(state);
            self.shared.wake.notify_one();
            return Ok(());
        }
        state.running += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name("password".into()).spawn(move || shared.work());
        if spawned.is_err() {
            let mut state = self.shared.state.lock();
            state.running -= 1;
            if state.running == 0 {
                // Nobody will ever come to it.
                state.jobs.clear();
            }
        }
        Ok(())
    }
}

/// The cost of a hash; none if it is no hash.
pub(crate) fn cost_of(hash: &str) -> Option<u32> {
    let cost = hash.parse::<bcrypt::HashParts>().ok()?.get_cost();
    COSTS.contains(&cost).then_some(cost)
}

/// A hash of no password: verifying it takes as long as any other of this cost.
fn nobodys(cost: u32) -> String {
    format!("$2a${cost:02}${}{}", ".".repeat(22), ".".repeat(31))
}

/// Holds a password against a hash, with as many rounds as a hash of cost `ceiling` has, whatever this one's
/// cost is and whether there is one: one of cost `n` has two to the `n`, and those of all costs from there to
/// below the ceiling have the rest together.
fn compare(hash: Option<&str>, ceiling: u32, mut is_of: impl FnMut(&str) -> bool) -> bool {
    match hash.and_then(|hash| Some((hash, cost_of(hash)?))) {
        Some((hash, cost)) => {
            let is_right = is_of(hash);
            (cost..ceiling).for_each(|cost| _ = is_of(&nobodys(cost)));
            is_right
        }
        None => {
            is_of(&nobodys(ceiling));
            false
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                self.wake.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_password_is_known_by_its_hash_and_no_other_is() {
        let passwords = Passwords::new(4);
        let hash = wait(passwords.hash("secret".into())).unwrap();
        assert!(hash.starts_with("$2a$04$"), "the form that Go's library writes: {hash}");
        assert_eq!(hash.len(), 60);
        assert_ne!(hash, wait(passwords.hash("secret".into())).unwrap(), "a salt of its own");
        for (password, hash, is_right) in [
            ("secret", Some(hash.clone()), true),
            ("secret ", Some(hash), false),
            ("secret", None, false),
            ("", None, false),
            ("secret", Some(String::new()), false),
            // Written by etcd 3.5.1, of cost 4.
            ("", Some("$2a$04$..CmCwVQ5bk9nRFKPjUjIe".to_owned()), false),
        ] {
            assert_eq!(wait(passwords.verify(password.into(), hash.clone(), 5)), Ok(is_right), "{hash:?}");
        }
    }

    #[test]
    fn what_stands_for_nobody_is_a_hash_that_takes_its_time() {
        for cost in [4, 7] {
            assert_eq!(cost_of(&nobodys(cost)), Some(cost));
            assert!(!bcrypt::verify("secret", &nobodys(cost)).unwrap());
        }
        assert_eq!(Passwords::new(3).cost, DEFAULT_COST);
        assert_eq!(Passwords::new(32).cost, DEFAULT_COST);
    }

    /// Counted in rounds, not measured: users hashed at any cost, those whose hash is none, and those who do
    /// not exist, all cost the same.
    #[test]
    fn every_password_costs_as_much_as_the_costliest() {
        let rounds = |hash: Option<&str>, ceiling: u32| {
            let mut rounds = 0_u64;
            compare(hash, ceiling, |hash| {
                rounds += 1 << cost_of(hash).unwrap();
                false
            });
            rounds
        };
        for ceiling in [4, 10, 12, 31] {
            let whole = 1 << ceiling;
            for cost in 4..=ceiling {
                assert_eq!(rounds(Some(&nobodys(cost)), ceiling), whole, "of cost {cost}");
            }
            for hash in [None, Some(""), Some("$2a$04$..CmCwVQ5bk9nRFKPjUjIe"), Some("$2a$99$x")] {
                assert_eq!(rounds(hash, ceiling), whole, "{hash:?}");
            }
        }
        let hash = wait(Passwords::new(4).hash("secret".into())).unwrap();
        assert!(compare(Some(&hash), 6, |hash| bcrypt::verify("secret", hash).unwrap()));
    }

    #[test]
    fn a_password_that_is_cut_off_is_refused() {
        let passwords = Passwords::new(4);
        assert!(wait(passwords.hash("p".repeat(72))).is_ok());
        let refusal = wait(passwords.hash("p".repeat(73))).unwrap_err();
        assert_eq!(refusal.to_string(), "bcrypt: password length exceeds 72 bytes");
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let passwords = Passwords::new(4);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let mut refused = 0;
        for _ in 0..MAX_WAITING + 2 * passwords.threads {
            let held = Arc::clone(&held);
            let post = passwords.post(Box::new(move || _ = held.lock().recv()));
            refused += usize::from(post == Err(Error::TooManyRequests));
        }
        // Those that are under way do not wait; how many that are is up to the threads.
        assert!((passwords.threads..=2 * passwords.threads).contains(&refused), "{refused} refused");
        drop(hold);
    }
}
