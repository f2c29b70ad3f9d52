//! The coverage-guided fuzzer of the target `forwarded`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::proxies::check_forwarded(bytes);
});
