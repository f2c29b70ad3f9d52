//! The coverage-guided fuzzer of the target `proxy_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::proxies::check_header(bytes);
});
