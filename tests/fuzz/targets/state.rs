//! A database of any rows, taken in as a snapshot or a backup is.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| apply::fuzzing::state(input));
