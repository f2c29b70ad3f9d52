//! The coverage-guided fuzzer of the target `tokens`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::tokens::check(bytes);
});
