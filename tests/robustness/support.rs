//! What is shared with other suites.

pub(crate) use tests::support::{Dice, count, get, refusal, request};
