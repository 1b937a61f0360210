//! A token, and a key file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| auth::fuzzing::token(input));
