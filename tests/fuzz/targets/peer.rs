//! What another member says, on streams and by requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| peer::fuzzing::said(input));
