//! Any bytes as FASTQ: as many qualities as bases, or an error; the record after a bad one can be read.
#![no_main]

use genomill::source::fastq::Reader;
use genomill::source::input::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = Input::new("fuzzed", std::io::Cursor::new(bytes.to_vec())) else { return };
    let mut reader = Reader::new(input);
    loop {
        match reader.next_read() {
            Ok(Some(read)) => assert_eq!(read.bases.len(), read.qualities.len()),
            Ok(None) => break,
            Err(error) if error.is_of_one_record() => {}
            Err(_) => break,
        }
    }
});
