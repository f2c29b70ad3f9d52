//! The coverage-guided fuzzer of the target `redis_names`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::redis::check_name(bytes);
});
