//! The coverage-guided fuzzer of the target `key_sets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::keys::check(bytes);
});
