//! The coverage-guided fuzzer of the target `revocations`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::revocations::check(bytes);
});
