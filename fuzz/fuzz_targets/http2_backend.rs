#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate::proxy::fuzzing::http2_backend(bytes));
