//! Any bytes as GFF3 or GTF: features that hold a base, or an error; attributes can be asked for.
#![no_main]

use genomill::source::annotation::Reader;
use genomill::source::input::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = Input::new("fuzzed", std::io::Cursor::new(bytes.to_vec())) else { return };
    let mut reader = Reader::new(input);
    while let Ok(Some(feature)) = reader.next_feature() {
        assert!(!feature.interval.is_empty());
        drop(feature.attribute("ID"));
        drop(feature.attribute("gene_id"));
    }
});
