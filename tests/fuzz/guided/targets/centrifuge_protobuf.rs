//! The coverage-guided fuzzer of the target `centrifuge_protobuf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    curfew_fuzz::centrifuge::check_protobuf(bytes);
});
