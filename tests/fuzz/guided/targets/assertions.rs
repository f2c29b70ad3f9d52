//! The coverage-guided fuzzer of the target `assertions`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::reports::check_assertion(bytes);
});
