//! What is shared with other suites.

pub(crate) use tests::support::{Answer, Dice, count, get, refusal, request};
