//! The coverage-guided fuzzer of the target `channels`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::channels::check(bytes);
});
