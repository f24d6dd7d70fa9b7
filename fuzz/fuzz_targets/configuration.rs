#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twemproxy_testkit::fuzz::configuration(bytes));
