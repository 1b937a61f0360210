//! A database file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bolt::fuzzing::database(input));
