//! Any bytes as FASTA: blocks add up to what each record says, or an error; bad records can be passed.
#![no_main]

use genomill::source::fasta::{Event, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let block = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    let mut reader = Reader::new("fuzzed", bytes).with_block_bases(block);
    let mut seen = 0;
    loop {
        match reader.next_event() {
            Ok(Some(Event::Record(_))) => seen = 0,
            Ok(Some(Event::Bases(bases))) => {
                assert!(!bases.is_empty() && bases.len() <= block);
                seen += bases.len() as u64;
            }
            Ok(Some(Event::End { bases })) => assert_eq!(bases, seen),
            Ok(None) => break,
            Err(error) if error.is_of_one_record() => {
                if reader.skip_record().is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
});
