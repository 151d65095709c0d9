//! Any bytes as GenBank: blocks add up to what each record says, or an error.
#![no_main]

use genomill::source::fasta::Event;
use genomill::source::genbank::Reader;
use genomill::source::input::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = Input::new("fuzzed", std::io::Cursor::new(bytes.to_vec())) else { return };
    let mut reader = Reader::new(input, 1000);
    let mut seen = 0;
    while let Ok(Some(event)) = reader.next_event() {
        match event {
            Event::Record(_) => seen = 0,
            Event::Bases(bases) => seen += bases.len() as u64,
            Event::End { bases } => assert_eq!(bases, seen),
        }
    }
});
