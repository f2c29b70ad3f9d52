//! `redis_names`, guided by coverage.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::redis::check_name(bytes);
});
