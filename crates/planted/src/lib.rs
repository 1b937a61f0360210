//! Bugs to be planted on purpose, one at a time, to see that the simulator finds them.
//!
//! A line of shipping code that a promise rests on asks [`is`] whether that promise is to be broken.
//! Without the feature `armed`, which only the simulator turns on, the answer is `false` at compile
//! time and the question costs nothing. With it, the environment variable `PLANTED` names the bug.
#![forbid(unsafe_code)]

/// Whether the bug called `name` is planted in this process.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}

/// Whether the bug called `name` is planted in this process.
#[cfg(feature = "armed")]
pub fn is(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("PLANTED").ok()).as_deref() == Some(name)
}
