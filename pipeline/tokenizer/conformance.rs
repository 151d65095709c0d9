//! One case table for every tokenizer, and the oracles of BPE: ten naive lines, and Hugging Face's library.

use std::path::PathBuf;

use proptest::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::tokenizer::Tokenizer as Oracle;
use tokenizers::{AddedToken, Trainer as _};

use super::bpe::train::{Alphabet, Config, Trainer};
use super::bpe::{Bpe, Parts};
use super::kmer::{self, Kmer};
use super::nucleotide::Nucleotide;
use super::vocabulary::Vocabulary;
use super::{Error, IUPAC, Tokenizer, hf_json};
use crate::observer::Stop;

fn train(config: Config, pieces: &[&[u8]], threads: usize) -> Bpe {
    let mut trainer = Trainer::new(config).unwrap();
    for piece in pieces {
        trainer.push(piece);
    }
    trainer.finish(threads, &mut |_, _| {}, &Stop::new()).unwrap()
}

fn sized(vocabulary_size: u32) -> Config {
    Config { vocabulary_size, ..Config::default() }
}

fn encode(tokenizer: &dyn Tokenizer, bases: &[u8]) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode_into(bases, &mut ids);
    ids
}

/// The merges that Hugging Face's trainer learns, as texts.
fn oracle_merges(config: &Config, pieces: &[&[u8]]) -> Vec<(String, String)> {
    let words =
        pieces.iter().flat_map(|piece| piece.split(|b| !b"ACGT".contains(b))).filter(|w| !w.is_empty());
    let words: Vec<String> = words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect();
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(config.vocabulary_size as usize)
        .min_frequency(config.min_frequency)
        // Hugging Face's limit is exclusive.
        .max_token_length(config.max_token_length.map(|length| length as usize + 1))
        .special_tokens(
            config.special_tokens.iter().map(|text| AddedToken::from(text.clone(), true)).collect(),
        )
        .initial_alphabet(config.alphabet.letters().iter().map(|&b| char::from(b)).collect())
        .build();
    trainer.feed(words.iter(), |word| Ok(vec![word.to_owned()])).unwrap();
    let mut model = BPE::default();
    trainer.train(&mut model).unwrap();
    let json: serde_json::Value = serde_json::to_value(&model).unwrap();
    serde_json::from_value(json["merges"].clone()).unwrap()
}

fn our_merges(bpe: &Bpe) -> Vec<(String, String)> {
    bpe.merges().map(|(left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// BPE as it is defined, in ten lines.
fn naive(bpe: &Bpe, bases: &[u8]) -> Vec<u32> {
    let vocabulary = &bpe.parts().vocabulary;
    let text = |id: u32| vocabulary.text(id).unwrap();
    let mut ids: Vec<u32> =
        bases.iter().map(|&base| vocabulary.id(&char::from(base).to_string()).unwrap()).collect();
    for &(left, right) in &bpe.parts().merges {
        let whole = vocabulary.id(&(text(left).to_owned() + text(right))).unwrap();
        let mut at = 0;
        while at + 1 < ids.len() {
            if (ids[at], ids[at + 1]) == (left, right) {
                ids.splice(at..at + 2, [whole]);
            }
            at += 1;
        }
    }
    ids
}

fn oracle(tokenizer: &dyn Tokenizer) -> Oracle {
    tokenizer.to_json().parse().unwrap()
}

fn oracle_ids(oracle: &Oracle, bases: &[u8], special: bool) -> Vec<u32> {
    oracle.encode(std::str::from_utf8(bases).unwrap(), special).unwrap().get_ids().to_vec()
}

/// Sequence that repeats itself, so that merges are many and pairs tie.
fn bases() -> impl Strategy<Value = Vec<u8>> {
    let unit = |letters: &'static str| proptest::string::string_regex(letters).unwrap();
    let part = prop_oneof![
        4 => unit("[ACGT]{0,40}"),
        2 => (unit("[ACGT]{1,4}"), 1_usize..20).prop_map(|(unit, times)| unit.repeat(times)),
        1 => unit("[ABCDGHKMNRSTUVWY]{0,8}"),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn training_equals_the_oracle(
        pieces in prop::collection::vec(bases(), 1..8),
        size in 23_u32..700,
        min_frequency in 0_u64..4,
        max_token_length in prop::option::of(2_u32..20),
        threads in 1_usize..5,
    ) {
        let config = Config { max_token_length, min_frequency, ..sized(size) };
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assume!(pieces.iter().any(|piece| piece.iter().any(|b| b"ACGT".contains(b))));
        let expected = oracle_merges(&config, &pieces);
        prop_assert_eq!(our_merges(&train(config, &pieces, threads)), expected);
    }

    #[test]
    fn encoding_equals_naive_bpe_and_comes_back(text in bases(), others in prop::collection::vec(bases(), 1..4)) {
        let pieces: Vec<&[u8]> = others.iter().map(Vec::as_slice).chain([&b"ACGT"[..]]).collect();
        let bpe = train(sized(120), &pieces, 1);
        let ids = encode(&bpe, &text);
        prop_assert_eq!(&ids, &naive(&bpe, &text));
        prop_assert_eq!(bpe.bases_of(&ids), text.len() as u64);
        let mut back = Vec::new();
        bpe.decode_into(&ids, &mut back).unwrap();
        prop_assert_eq!(back, text);
    }
}

/// One of every kind, with a name for messages.
fn everyone() -> Vec<(String, Box<dyn Tokenizer>)> {
    let mut all: Vec<(String, Box<dyn Tokenizer>)> = vec![("nucleotide".into(), Box::new(Nucleotide::new()))];
    for k in 1..=kmer::MAX_K {
        for overlapping in [false, true] {
            let kmer = Kmer::new(kmer::Config { k, overlapping }).unwrap();
            all.push((format!("kmer {k} {overlapping}"), Box::new(kmer)));
        }
    }
    let text = mixed(20_000);
    for size in [23, 24, 64, 600] {
        all.push((format!("bpe {size}"), Box::new(train(sized(size), &[&text], 1))));
    }
    all
}

/// Sequence without a pattern, always the same.
fn mixed(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"ACGT"[(state >> 62) as usize]
    };
    (0..length).map(|_| next()).collect()
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("one base", b"G".to_vec()),
        ("every code", IUPAC.to_vec()),
        ("only N", vec![b'N'; 1000]),
        ("homopolymer", vec![b'A'; 1001]),
        ("two bases in turn", b"AT".repeat(501)),
        ("three bases in turn", b"CAG".repeat(333)),
        ("N between bases", b"ACGTNACGTNNRACGTTTTGACA".to_vec()),
        ("mixed", mixed(5000)),
    ]
}

#[test]
fn every_tokenizer_passes_the_same_cases() {
    for (name, tokenizer) in everyone() {
        let reread = hf_json::read(&tokenizer.to_json()).unwrap();
        assert_eq!(reread.fingerprint(), tokenizer.fingerprint(), "{name}");
        for (case, text) in cases() {
            let ids = encode(&*tokenizer, &text);
            let mut back = Vec::new();
            tokenizer.decode_into(&ids, &mut back).unwrap();
            assert_eq!(back, text, "{name}: {case}");
            assert_eq!(tokenizer.bases_of(&ids), text.len() as u64, "{name}: {case}");
            assert_eq!(encode(&*reread, &text), ids, "{name}: {case}");
        }
        for special in ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "[BOS]", "[EOS]"] {
            assert!(tokenizer.special(special).is_some(), "{name} {special}");
        }
        let size = tokenizer.vocabulary_size();
        let error = tokenizer.decode_into(&[size], &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::UnknownToken { found, .. } if found == size), "{name}");
    }
}

#[test]
fn files_give_the_oracle_equal_ids() {
    for (name, tokenizer) in everyone().into_iter().filter(|(name, _)| !name.ends_with("true")) {
        let oracle = oracle(&*tokenizer);
        for (case, text) in cases() {
            assert_eq!(oracle_ids(&oracle, &text, false), encode(&*tokenizer, &text), "{name}: {case}");
        }
    }
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("workflows/data").join(name)
}

/// Text of a file, gzipped or not.
fn text_of(name: &str) -> String {
    use std::io::Read;
    if std::path::Path::new(name).extension().is_none_or(|ending| ending != "gz") {
        return std::fs::read_to_string(data(name)).unwrap();
    }
    let mut text = String::new();
    let file = std::fs::File::open(data(name)).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// Sequence lines of a gzipped FASTA, upper-case.
fn genome(name: &str) -> Vec<Vec<u8>> {
    let text = text_of(name);
    let records = text.split('>').skip(1);
    let sequence =
        |record: &str| record.lines().skip(1).collect::<String>().to_ascii_uppercase().into_bytes();
    records.map(sequence).collect()
}

#[test]
fn genomes_give_the_merges_and_ids_of_the_oracle() {
    for (name, size, most) in [
        ("phage_lambda.fa.gz", 512, 50_000),
        ("ecoli_k12_mg1655.fa.gz", 4096, 1_000_000),
        ("yeast_sacCer3.fa.gz", 300, 1_000_000),
    ] {
        let genome = genome(name).concat();
        let genome = &genome[..genome.len().min(most)];
        let pieces: Vec<&[u8]> = genome.chunks(1000).collect();
        let config = sized(size);
        let bpe = train(config.clone(), &pieces, 2);
        assert_eq!(our_merges(&bpe), oracle_merges(&config, &pieces), "{name}");
        let oracle = oracle(&bpe);
        for piece in [&genome[..20_000.min(genome.len())], &genome[genome.len() / 2..]] {
            assert_eq!(encode(&bpe, piece), oracle_ids(&oracle, piece, false), "{name}");
        }
    }
}

#[test]
fn published_files_give_the_ids_of_the_oracle() {
    let genome = genome("yeast_sacCer3.fa.gz").concat();
    for name in ["dnabert2_tokenizer.json", "gena_lm_bpe32k_tokenizer.json.gz"] {
        let text = text_of(name);
        let ours = hf_json::read(&text).unwrap();
        let oracle: Oracle = text.parse().unwrap();
        let cases: [&[u8]; 6] =
            [&genome[..100_000], b"", b"N", b"ACGTNNNNACG", b"ACG[MASK]ACGT[SEP]", b"acgtACGT ACGT"];
        for text in cases {
            let mut ids = Vec::new();
            ours.encode_with_special_tokens_into(text, &mut ids);
            assert_eq!(ids, oracle_ids(&oracle, text, true), "{name}");
            assert_eq!(encode(&*ours, text), oracle_ids(&oracle, text, false), "{name}");
        }
        let rewritten: Oracle = ours.to_json().parse().unwrap();
        let [text, ..] = cases;
        assert_eq!(oracle_ids(&rewritten, text, true), oracle_ids(&oracle, text, true), "{name}");
    }
}

#[test]
fn ten_megabases_without_a_boundary_are_one_piece() {
    let genome = genome("yeast_sacCer3.fa.gz").concat();
    let text = &genome[..10_000_000];
    let bpe = train(sized(300), &[text], 3);
    assert_eq!(our_merges(&bpe), our_merges(&train(sized(300), &[text], 1)));
    let ids = encode(&bpe, text);
    let mut back = Vec::new();
    bpe.decode_into(&ids, &mut back).unwrap();
    assert!(back == text);
    // The oracle takes a minute for all of it. An end of the text shows in the few tokens beside it only.
    let start = oracle_ids(&oracle(&bpe), &text[..500_000], false);
    assert_eq!(ids[..start.len() - 100], start[..start.len() - 100]);
}

#[test]
fn small_alphabets_lose_other_codes_to_unk() {
    for (alphabet, text, expected) in [
        (Alphabet::Acgt, "ANR", "A [UNK] [UNK]"),
        (Alphabet::Acgtn, "ANR", "A N [UNK]"),
        (Alphabet::Iupac, "ANR", "A N R"),
    ] {
        let bpe = train(Config { alphabet, ..sized(23) }, &[b"ACGT"], 1);
        let texts: Vec<&str> =
            encode(&bpe, text.as_bytes()).iter().map(|&id| bpe.text(id).unwrap()).collect();
        assert_eq!(texts.join(" "), expected);
    }
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let whole = include_str!("hf_json/small.json");
    assert!(hf_json::read(whole).is_ok());
    for (from, to, expected) in [
        ("\"AC\": 5", "\"AC\": 7", "no token has id 5, though ids go up to 7"),
        ("\"AC\": 5", "\"AC\": 4", "tokens `AC` and `T` share id 4"),
        ("[\"A\", \"C\"]", "[\"A\", \"X\"]", "merge 0 (`A` `X`) names `X`, which is not in the vocabulary"),
        ("[\"A\", \"C\"]", "[\"A\", \"G\"]", "merge 0 (`A` `G`) names `AG`, which is not in the vocabulary"),
        ("[\"AC\", \"G\"]", "[\"A\", \"C\"]", "merge 1 (`A` `C`) stands in the list twice"),
        (
            "\"dropout\": null",
            "\"dropout\": 0.1",
            "`model.dropout` is 0.1; expected null: encoding must not depend on chance",
        ),
        (
            "\"unk_token\": \"[UNK]\"",
            "\"unk_token\": null",
            "`model.unk_token` is null, and no token is `B`, which would be dropped; expected a token for what the vocabulary lacks",
        ),
        (
            "\"unk_token\": \"[UNK]\"",
            "\"unk_token\": \"?\"",
            "`model.unk_token` is `?`, which is no token; expected a token or null",
        ),
        (
            "\"type\": \"BPE\"",
            "\"type\": \"Unigram\"",
            "`model.type` is `Unigram`; expected `BPE` or `WordLevel`",
        ),
        (
            "\"normalizer\": null",
            "\"normalizer\": {\"type\": \"Lowercase\"}",
            "`normalizer` is {\"type\":\"Lowercase\"}; expected null: letters must stay as they are",
        ),
        (
            "\"content\": \"[UNK]\"",
            "\"content\": \"A\"",
            "`added_tokens[`A`]` is text of sequence; expected a mark, such as `[PAD]`",
        ),
    ] {
        assert!(whole.contains(from), "{from}");
        let Err(error) = hf_json::read(&whole.replacen(from, to, 1)) else { panic!("accepted {to}") };
        assert_eq!(error.to_string(), expected);
    }
    let cut = hf_json::read(&whole[..whole.len() / 2]).err().unwrap().to_string();
    assert!(cut.starts_with("no tokenizer.json: EOF while parsing"), "{cut}");
}

#[test]
fn options_that_cannot_be_honoured_are_refused() {
    for (config, expected) in [
        (sized(22), "`vocabulary_size` is 22; expected 23 (7 special tokens and 16 letters) to 65536"),
        (sized(65_537), "`vocabulary_size` is 65537; expected 23 (7 special tokens and 16 letters) to 65536"),
        (
            Config { max_token_length: Some(1), ..sized(99) },
            "`max_token_length` is below 2; expected 2 bases or more",
        ),
        (
            Config { special_tokens: vec!["[A]".into(), "[A]".into()], ..sized(99) },
            "`special_tokens` is `[A]`; expected texts that differ and hold a character that is no letter, such as `[PAD]`",
        ),
    ] {
        assert_eq!(Trainer::new(config).unwrap_err().to_string(), expected);
    }
    let trainer = Trainer::new(sized(99)).unwrap();
    let error = trainer.finish(1, &mut |_, _| {}, &Stop::new()).unwrap_err();
    assert_eq!(error.to_string(), "nothing to train on: no A, C, G or T among 0 pieces");
}

#[test]
fn a_request_stops_training() {
    let mut trainer = Trainer::new(sized(99)).unwrap();
    trainer.push(&mixed(1000));
    let stop = Stop::new();
    stop.request();
    assert!(matches!(trainer.finish(1, &mut |_, _| {}, &stop), Err(Error::Stopped)));
}

#[test]
fn both_strands_are_counted_when_asked() {
    let text = mixed(5000);
    let reverse: Vec<u8> =
        text.iter().rev().map(|&b| b"TGCA"[b"ACGT".iter().position(|&c| c == b).unwrap()]).collect();
    let both = train(sized(200), &[&text, &reverse], 1);
    let config = Config { reverse_complement: true, ..sized(200) };
    assert_eq!(our_merges(&train(config, &[&text], 1)), our_merges(&both));
}

#[test]
fn letters_that_merge_with_others_are_exact_too() {
    let texts = ["[UNK]", "\n", "A", "C", "A\n", "AA", "CA"].map(Into::into).to_vec();
    let parts = Parts {
        vocabulary: Vocabulary::new(texts, &[0]).unwrap(),
        merges: vec![(2, 1), (2, 2), (3, 2)],
        unknown: Some(0),
        ..Parts::default()
    };
    let bpe = Bpe::new(parts).unwrap();
    for text in ["AA\nCAA\n\nA", "CAAAA\nGCA", "\n"] {
        assert_eq!(
            encode(&bpe, text.as_bytes()),
            oracle_ids(&oracle(&bpe), text.as_bytes(), false),
            "{text:?}"
        );
    }
}
