//! The coverage-guided fuzzer of the target `heads`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::heads::check(bytes);
});
