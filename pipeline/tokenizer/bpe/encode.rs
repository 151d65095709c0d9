//! Exact BPE encoding.
//!
//! The input is cut at bytes that no merge reaches (N, other codes, white space, special tokens): each is looked up.
//! The runs between them are merged exactly as the list of merges says: [`heap`] does so for any alphabet, [`automaton`]
//! for A, C, G and T, in one pass, whatever the size of the vocabulary.

use std::cell::RefCell;
use std::collections::HashMap;

use super::Parts;
use crate::tokenizer::{Error, IUPAC};

mod automaton;
mod hash;
mod heap;
mod rules;

/// What a byte is to the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A letter with this id that takes part in merges.
    Merges(u32),
    /// A letter with this id that stands alone.
    Alone(u32),
    /// White space between words.
    Dropped,
    /// Not in the vocabulary.
    Unknown,
}

/// Everything that encoding needs, prepared.
#[derive(Debug, Clone)]
pub struct Encoder {
    classes: Box<[Class; 256]>,
    merges: heap::Merges,
    /// For runs of A, C, G and T, where it is small enough.
    automaton: Option<automaton::Automaton>,
    unknown: Option<u32>,
    fuse_unknown: bool,
    /// Texts of special tokens, longest first.
    special: Vec<(Box<[u8]>, u32)>,
}

impl Encoder {
    /// Prepares the tables.
    ///
    /// # Errors
    /// See [`super::Bpe::new`].
    pub fn new(parts: &Parts) -> Result<Self, Error> {
        let merges = resolve(parts)?;
        let classes = classify(parts);
        refuse_dropped_codes(parts, &classes)?;
        Ok(Self {
            automaton: automaton_of(parts, &classes),
            classes,
            merges,
            unknown: parts.unknown,
            fuse_unknown: parts.fuse_unknown,
            special: special_texts(parts),
        })
    }

    /// Appends the ids of `bases`.
    pub fn encode_into(&self, bases: &[u8], ids: &mut Vec<u32>) {
        SCRATCH.with_borrow_mut(|scratch| self.encode_with(bases, scratch, ids));
    }

    fn encode_with(&self, bases: &[u8], scratch: &mut automaton::Scratch, ids: &mut Vec<u32>) {
        let mut at = 0;
        while at < bases.len() {
            let rest = &bases[at..];
            if let Some((run, automaton)) = self.base_run(rest) {
                automaton.encode_into(run, scratch, ids);
                at += run.len();
            } else if let run @ 1.. = self.merging_run(rest) {
                self.merges.encode_into(&rest[..run], |byte| self.letter(byte), ids);
                at += run;
            } else {
                at += self.encode_other(rest, ids);
            }
        }
    }

    /// The run of A, C, G and T at the start of `bases` and what encodes it, unless it merges with what follows.
    fn base_run<'a>(&self, bases: &'a [u8]) -> Option<(&'a [u8], &automaton::Automaton)> {
        let run = base_run(bases);
        let alone = bases.get(run).is_none_or(|&byte| !self.merging(byte));
        self.automaton.as_ref().filter(|_| run > 0 && alone).map(|automaton| (&bases[..run], automaton))
    }

    /// Length of the run of merging letters at the start of `bases`.
    fn merging_run(&self, bases: &[u8]) -> usize {
        bases.iter().take_while(|&&byte| self.merging(byte)).count()
    }

    fn merging(&self, byte: u8) -> bool {
        matches!(self.classes[usize::from(byte)], Class::Merges(_))
    }

    fn letter(&self, byte: u8) -> u32 {
        match self.classes[usize::from(byte)] {
            Class::Merges(id) | Class::Alone(id) => id,
            Class::Dropped | Class::Unknown => self.unknown.unwrap_or_default(),
        }
    }

    /// Appends what stands at the start of `bases`, which no merge reaches; returns its length in bytes.
    fn encode_other(&self, bases: &[u8], ids: &mut Vec<u32>) -> usize {
        match self.classes[usize::from(bases[0])] {
            Class::Merges(id) | Class::Alone(id) => ids.push(id),
            Class::Dropped => {}
            Class::Unknown => return self.encode_unknown(bases, ids),
        }
        1
    }

    fn encode_unknown(&self, bases: &[u8], ids: &mut Vec<u32>) -> usize {
        if let Some((text, id)) = self.special.iter().find(|(text, _)| bases.starts_with(text)) {
            ids.push(*id);
            return text.len();
        }
        ids.extend(self.unknown);
        if self.fuse_unknown { self.unknown_length(bases) } else { 1 }
    }

    /// Length of the run of unknown bytes at the start of `bases`, up to a special token.
    fn unknown_length(&self, bases: &[u8]) -> usize {
        let goes_on = |at: &usize| {
            let rest = &bases[*at..];
            self.classes[usize::from(rest[0])] == Class::Unknown
                && !self.special.iter().any(|(text, _)| rest.starts_with(text))
        };
        1 + (1..bases.len()).take_while(goes_on).count()
    }
}

/// Number of A, C, G and T at the start of `bases`; whole chunks at once.
fn base_run(bases: &[u8]) -> usize {
    let whole = |chunk: &&[u8]| chunk.iter().fold(true, |all, &b| all & is_base(b));
    let chunks = bases.chunks_exact(64).take_while(whole).count() * 64;
    chunks + bases[chunks..].iter().take_while(|&&b| is_base(b)).count()
}

const fn is_base(byte: u8) -> bool {
    matches!(byte, b'A' | b'C' | b'G' | b'T')
}

/// The automaton of the merges among A, C, G and T; `None` where they are not as a trainer makes them, or where other
/// letters merge and one of the four does not, so that it is no part of the runs of those.
fn automaton_of(parts: &Parts, classes: &[Class; 256]) -> Option<automaton::Automaton> {
    let merges = |byte: u8| matches!(classes[usize::from(byte)], Class::Merges(_));
    if !rules::LETTERS.into_iter().all(merges) && (0..=u8::MAX).any(|byte| !is_base(byte) && merges(byte)) {
        return None;
    }
    let vocabulary = &parts.vocabulary;
    let mut ids: Vec<u32> = Vec::with_capacity(parts.merges.len() + 4);
    for base in rules::LETTERS {
        ids.push(vocabulary.id(std::str::from_utf8(&[base]).ok()?)?);
    }
    let mut numbers: HashMap<u32, u32> = ids.iter().copied().zip(0..).collect();
    let mut merges = Vec::with_capacity(parts.merges.len());
    for &(left, right) in &parts.merges {
        let whole = vocabulary.text(left)?.to_owned() + vocabulary.text(right)?;
        if whole.bytes().all(is_base) {
            let id = vocabulary.id(&whole)?;
            let number = u32::try_from(ids.len()).ok()?;
            merges.push([*numbers.get(&left)?, *numbers.get(&right)?]);
            if numbers.insert(id, number).is_some() {
                return None;
            }
            ids.push(id);
        }
    }
    automaton::Automaton::new(&rules::Rules::new(&merges)?, &ids)
}

thread_local! {
    static SCRATCH: RefCell<automaton::Scratch> = RefCell::default();
}

/// The merges with their results; refuses those without.
fn resolve(parts: &Parts) -> Result<heap::Merges, Error> {
    let vocabulary = &parts.vocabulary;
    let mut table = hash::Map::default();
    for (rank, &(left, right)) in (0_u32..).zip(&parts.merges) {
        let text = |id| vocabulary.text(id).unwrap_or_default().to_owned();
        let whole = text(left) + &text(right);
        let (index, left_text, right_text) = (rank as usize, text(left), text(right));
        let Some(id) = vocabulary.id(&whole) else {
            return Err(Error::MergeOfUnknown { index, left: left_text, right: right_text, missing: whole });
        };
        if table.insert((left, right), heap::Merge { rank, id }).is_some() {
            return Err(Error::MergeTwice { index, left: left_text, right: right_text });
        }
    }
    Ok(heap::Merges::new(table))
}

fn classify(parts: &Parts) -> Box<[Class; 256]> {
    let mut classes = Box::new([Class::Unknown; 256]);
    if parts.drop_whitespace {
        for byte in (0..=u8::MAX).filter(|byte| byte.is_ascii_whitespace() || *byte == 0x0b) {
            classes[usize::from(byte)] = Class::Dropped;
        }
    }
    for (id, (text, special)) in (0..).zip(parts.vocabulary.iter()) {
        if let ([byte], false) = (text.as_bytes(), special)
            && classes[usize::from(*byte)] == Class::Unknown
        {
            classes[usize::from(*byte)] = Class::Alone(id);
        }
    }
    mark_merging(parts, &mut classes);
    classes
}

/// Marks the letters that stand in the result of a merge.
fn mark_merging(parts: &Parts, classes: &mut [Class; 256]) {
    let ids = parts.merges.iter().flat_map(|&(left, right)| [left, right]);
    for byte in ids.filter_map(|id| parts.vocabulary.text(id)).flat_map(str::bytes) {
        if let Class::Alone(id) = classes[usize::from(byte)] {
            classes[usize::from(byte)] = Class::Merges(id);
        }
    }
}

fn refuse_dropped_codes(parts: &Parts, classes: &[Class; 256]) -> Result<(), Error> {
    let missing = IUPAC.iter().find(|&&code| classes[usize::from(code)] == Class::Unknown);
    match missing {
        Some(&code) if parts.unknown.is_none() => Err(Error::Field {
            field: "model.unk_token".into(),
            found: format!("null, and no token is `{}`, which would be dropped", char::from(code)),
            expected: "a token for what the vocabulary lacks".into(),
        }),
        _ => Ok(()),
    }
}

fn special_texts(parts: &Parts) -> Vec<(Box<[u8]>, u32)> {
    let special = (0..).zip(parts.vocabulary.iter()).filter(|(_, (_, special))| *special);
    let mut texts: Vec<(Box<[u8]>, u32)> =
        special.map(|(id, (text, _))| (text.as_bytes().into(), id)).collect();
    texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    texts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::automaton::{Automaton, Scratch};
    use super::rules::{LETTERS, Rules};
    use super::{hash, heap};

    /// Pairs of tokens that were made before, each pair once.
    fn merges() -> impl Strategy<Value = Vec<[u32; 2]>> {
        prop::collection::vec(any::<[u32; 2]>(), 0..60).prop_map(|picks| {
            let (mut merges, mut lengths) = (Vec::new(), vec![1; 4]);
            for pick in picks {
                let pair @ [left, right] =
                    pick.map(|number| number % (u32::try_from(merges.len()).unwrap() + 4));
                let length = lengths[left as usize] + lengths[right as usize];
                if length < 100 && !merges.contains(&pair) {
                    merges.push(pair);
                    lengths.push(length);
                }
            }
            merges
        })
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let part = (prop::collection::vec(prop::sample::select(&LETTERS[..]), 1..30), 1_usize..40);
        let part = part.prop_map(|(unit, times)| unit.repeat(times));
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    /// What the definition gives, for tokens numbered as in [`Rules`].
    fn expected(merges: &[[u32; 2]], text: &[u8]) -> Vec<u32> {
        let mut table = hash::Map::default();
        for (rank, &[left, right]) in (0..).zip(merges) {
            table.insert((left, right), heap::Merge { rank, id: rank + 4 });
        }
        let letter = |byte| (0_u32..).zip(LETTERS).find(|(_, other)| *other == byte).unwrap().0;
        let mut ids = Vec::new();
        heap::Merges::new(table).encode_into(text, letter, &mut ids);
        ids
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn automata_of_either_width_give_what_the_heap_gives(merges in merges(), text in text()) {
            let rules = Rules::new(&merges).unwrap();
            let ids: Vec<u32> = rules.tokens().collect();
            let expected = expected(&merges, &text);
            for automaton in [Automaton::new(&rules, &ids), Automaton::wide(&rules, &ids)] {
                let mut found = Vec::new();
                automaton.unwrap().encode_into(&text, &mut Scratch::default(), &mut found);
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
