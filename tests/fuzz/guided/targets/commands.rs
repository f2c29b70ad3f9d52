//! The coverage-guided fuzzer of the target `commands`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::json::check_command(bytes);
});
