//! The coverage-guided fuzzer of the target `frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::frames::check(bytes);
});
