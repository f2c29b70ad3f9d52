//! The coverage-guided fuzzer of the target `node_messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::redis::check_message(bytes);
});
