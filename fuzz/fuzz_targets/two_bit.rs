//! Any bytes as 2bit: blocks add up to what each record says, or an error.
#![no_main]

use std::io::Write;

use genomill::source::fasta::Event;
use genomill::source::two_bit::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("written");
    let Ok(mut reader) = Reader::open(file.path(), 1000) else { return };
    let mut seen = 0;
    while let Ok(Some(event)) = reader.next_event() {
        match event {
            Event::Record(_) => seen = 0,
            Event::Bases(bases) => seen += bases.len() as u64,
            Event::End { bases } => assert_eq!(bases, seen),
        }
    }
});
