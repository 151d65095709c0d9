//! Merges that no trainer would make, taken from the input, and a text: the encoder gives what merging by rank gives.
#![no_main]

use genomill::tokenizer::Tokenizer;
use genomill::tokenizer::bpe::{Bpe, Parts};
use genomill::tokenizer::vocabulary::Vocabulary;
use libfuzzer_sys::fuzz_target;

const LETTERS: [&str; 5] = ["A", "C", "G", "T", "N"];
/// The first token that a merge may use: 0 is `[UNK]`.
const FIRST: usize = 1;
const MOST_BASES: usize = 200;

fuzz_target!(|input: (Vec<(u16, u16)>, Vec<u8>)| {
    let (pairs, text) = input;
    let (texts, merges) = learn(&pairs);
    let vocabulary = Vocabulary::new(texts.iter().map(|text| text.as_str().into()).collect(), &[0]).expect("texts differ");
    let parts = Parts { vocabulary, merges, unknown: Some(0), ..Parts::default() };
    let Ok(bpe) = Bpe::new(parts) else { return };
    let text: Vec<u8> = text
        .iter()
        .flat_map(|byte| (0..4).map(move |i| if *byte == 255 { b'N' } else { b"ACGT"[usize::from(byte >> (2 * i) & 3)] }))
        .collect();
    let mut ids = Vec::new();
    bpe.encode_into(&text, &mut ids);
    assert_eq!(ids, by_rank(&bpe, &texts, &text));
});

/// Tokens and the merges that make them. Now and then a merge makes a token that another made before.
fn learn(pairs: &[(u16, u16)]) -> (Vec<String>, Vec<(u32, u32)>) {
    let mut texts: Vec<String> = std::iter::once("[UNK]").chain(LETTERS).map(str::to_owned).collect();
    let mut merges = Vec::new();
    for &(left, right) in pairs {
        // N stands alone.
        let pick = |number: u16| {
            let at = FIRST + usize::from(number) % (texts.len() - FIRST);
            if at == FIRST + 4 { FIRST } else { at }
        };
        let (left, right) = (pick(left), pick(right));
        let whole = texts[left].clone() + &texts[right];
        let pair = (left as u32, right as u32);
        if whole.len() <= MOST_BASES && !merges.contains(&pair) {
            merges.push(pair);
            if !texts.contains(&whole) {
                texts.push(whole);
            }
        }
    }
    (texts, merges)
}

fn by_rank(bpe: &Bpe, texts: &[String], text: &[u8]) -> Vec<u32> {
    let id = |text: &str| texts.iter().position(|other| other == text).expect("a token") as u32;
    let mut ids: Vec<u32> = text.iter().map(|&b| id(char::from(b).encode_utf8(&mut [0; 4]))).collect();
    // By pair, not by result: of all pairs that stand somewhere the one of lowest rank, everywhere from the left.
    loop {
        let rank = |pair: &[u32]| bpe.parts().merges.iter().position(|&(a, b)| [a, b] == pair);
        let Some(lowest) = ids.windows(2).filter_map(rank).min() else { return ids };
        let (left, right) = bpe.parts().merges[lowest];
        let whole = id(&(texts[left as usize].clone() + &texts[right as usize]));
        let mut at = 0;
        while at + 1 < ids.len() {
            if ids[at..at + 2] == [left, right] {
                ids.splice(at..at + 2, [whole]);
            }
            at += 1;
        }
    }
}
