//! A log of any commands and requests, applied.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| apply::fuzzing::commands(input));
