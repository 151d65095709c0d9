//! Any bytes as BED: intervals that hold a base, or an error.
#![no_main]

use genomill::source::bed::Reader;
use genomill::source::input::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = Input::new("fuzzed", std::io::Cursor::new(bytes.to_vec())) else { return };
    let mut reader = Reader::new(input);
    while let Ok(Some(line)) = reader.next_line() {
        assert!(!line.interval.is_empty() && !line.sequence.is_empty());
    }
});
