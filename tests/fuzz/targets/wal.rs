//! A write-ahead log.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wal::fuzzing::log(input));
