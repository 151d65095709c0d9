//! Learns from the first half of the input, encodes the second: it comes back, and equals what merging by rank gives.
#![no_main]

use genomill::observer::Stop;
use genomill::tokenizer::Tokenizer;
use genomill::tokenizer::bpe::Bpe;
use genomill::tokenizer::bpe::train::{Config, Trainer};
use libfuzzer_sys::fuzz_target;

const CODES: &[u8; 16] = b"ACGTACGTACGTACGN";

fuzz_target!(|bytes: &[u8]| {
    let bases: Vec<u8> =
        bytes.iter().flat_map(|b| [CODES[usize::from(b >> 4)], CODES[usize::from(b & 15)]]).collect();
    let (learned, text) = bases.split_at(bases.len() / 2);
    let mut trainer =
        Trainer::new(Config { vocabulary_size: 300, ..Config::default() }).expect("valid options");
    learned.chunks(100).for_each(|piece| trainer.push(piece));
    let Ok(bpe) = trainer.finish(1, &mut |_, _| {}, &Stop::new()) else { return };
    let (mut ids, mut back) = (Vec::new(), Vec::new());
    bpe.encode_into(text, &mut ids);
    bpe.decode_into(&ids, &mut back).expect("own ids");
    assert_eq!(back, text);
    assert_eq!(ids, by_rank(&bpe, text));
});

fn by_rank(bpe: &Bpe, text: &[u8]) -> Vec<u32> {
    let vocabulary = &bpe.parts().vocabulary;
    let letter = |&b: &u8| vocabulary.id(char::from(b).encode_utf8(&mut [0; 4])).expect("a letter");
    let mut ids: Vec<u32> = text.iter().map(letter).collect();
    for &(left, right) in &bpe.parts().merges {
        let whole = [left, right].map(|id| vocabulary.text(id).expect("a token")).concat();
        let whole = vocabulary.id(&whole).expect("a token");
        let mut at = 0;
        while at + 1 < ids.len() {
            if ids[at..at + 2] == [left, right] {
                ids.splice(at..at + 2, [whole]);
            }
            at += 1;
        }
    }
    ids
}
