//! A command line, an environment and a configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cairn::fuzzing::start(input));
