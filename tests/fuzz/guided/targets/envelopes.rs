//! The coverage-guided fuzzer of the target `envelopes`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::redis::check_envelope(bytes);
});
