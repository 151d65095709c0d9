//! Sequences as rows of tokens, and rows as tensors.

use tch::{Device, Kind, TchError, Tensor};

use super::Error;
use crate::evaluate::protocol::{Ambiguous, Given, Inputs, Long, Pooling};
use crate::model::device::sent;
use crate::sequence::kmer::spread;
use crate::tokenizer::Tokenizer;

/// A sequence's tokens, special ones included, and the bases that each stands for (0 for special ones).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Bases of each.
    pub bases: Vec<u32>,
}

/// Rows of one length, filled up at their ends: B rows, T tokens.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, `[B, T]`.
    pub ids: Tensor,
    /// Whether there is a token and no filling, `[B, T]`.
    pub valid: Tensor,
    /// 1 where a token stands for bases and else 0, `[B, T]`.
    pub counted: Tensor,
    /// The last token of each row that stands for bases, `[B]`.
    last: Tensor,
    /// For each base the token that it belongs to, and 0 in filling, `[B, bases]`; the row's bases.
    of_bases: Vec<Vec<i64>>,
}

/// What stands around a sequence, and how much room there is.
pub(super) struct Frame<'a> {
    pub tokenizer: &'a dyn Tokenizer,
    pub before: &'a [u32],
    pub after: &'a [u32],
    /// Tokens of a row at most.
    pub room: Option<usize>,
}

impl Frame<'_> {
    /// The row of a sequence; what happened to it goes into `given`.
    pub(super) fn row(&self, sequence: &[u8], inputs: &Inputs, given: &mut Given) -> Result<Row, Error> {
        let settled = settled(sequence, inputs.ambiguous, given);
        let mut ids = Vec::new();
        self.tokenizer.encode_into(settled.as_deref().unwrap_or(sequence), &mut ids);
        let (length, known) = (sequence.len() as u64, self.tokenizer.bases_of(&ids));
        given.sequences += 1;
        given.bases += length;
        given.unknown_bases += length.saturating_sub(known);
        let special = self.before.len() + self.after.len();
        let room = self.room.map(|room| room.saturating_sub(special)).filter(|room| ids.len() > *room);
        if let Some(room) = room {
            if inputs.long == Long::Refuse {
                let (found, room) = (ids.len() + special, room + special);
                return Err(Error::Long { bases: sequence.len(), found, room });
            }
            given.cut += 1;
            given.bases_cut += self.tokenizer.bases_of(&ids[room..]);
            ids.truncate(room);
        }
        let inner = ids.iter().map(|id| self.tokenizer.bases(*id));
        let bases: Vec<u32> =
            self.before.iter().map(|_| 0).chain(inner).chain(self.after.iter().map(|_| 0)).collect();
        given.tokens += bases.iter().filter(|bases| **bases > 0).count() as u64;
        Ok(Row { ids: [self.before, &ids, self.after].concat(), bases })
    }
}

/// The sequence without codes other than A, C, G and T, where it has any and they are not kept.
fn settled(sequence: &[u8], ambiguous: Ambiguous, given: &mut Given) -> Option<Vec<u8>> {
    let is_code = |base: &u8| !b"ACGT".contains(base);
    let codes = sequence.iter().filter(|base| is_code(base)).count() as u64;
    given.ambiguous += u64::from(codes > 0);
    given.ambiguous_bases += codes;
    if codes == 0 || ambiguous == Ambiguous::Keep {
        return None;
    }
    let draw = |(at, base): (usize, &u8)| {
        if is_code(base) { b"ACGT"[(spread(at as u64) % 4) as usize] } else { *base }
    };
    Some(sequence.iter().enumerate().map(draw).collect())
}

impl Batch {
    /// Rows, one under the other, on `device`. An empty row becomes one token of filling.
    pub fn new(rows: &[&Row], device: Device) -> Result<Self, TchError> {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0).max(1);
        let mut ids = vec![0_i64; rows.len() * longest];
        let (mut valid, mut counted) = (vec![false; ids.len()], vec![0.0_f32; ids.len()]);
        for (at, row) in rows.iter().enumerate() {
            for (place, (id, bases)) in row.ids.iter().zip(&row.bases).enumerate() {
                let place = at * longest + place;
                (ids[place], valid[place]) = (i64::from(*id), true);
                counted[place] = if *bases > 0 { 1.0 } else { 0.0 };
            }
        }
        let last = |row: &&Row| signed(row.bases.iter().rposition(|bases| *bases > 0).unwrap_or(0));
        let shape = [signed(rows.len()), signed(longest)];
        Ok(Self {
            ids: sent(&Tensor::f_from_slice(&ids)?, device)?.f_view(shape)?,
            valid: sent(&Tensor::f_from_slice(&valid)?, device)?.f_view(shape)?,
            counted: sent(&Tensor::f_from_slice(&counted)?, device)?.f_view(shape)?,
            last: sent(&Tensor::f_from_slice(&rows.iter().map(last).collect::<Vec<_>>())?, device)?,
            of_bases: rows.iter().map(|row| row.of_bases()).collect(),
        })
    }

    /// One embedding of each row: `[B, T, d]` to `[B, d]`; zeros for the mean over no token.
    pub fn pool(&self, hidden: &Tensor, pooling: Pooling) -> Result<Tensor, TchError> {
        match pooling {
            Pooling::Mean => {
                let counted = self.counted.f_unsqueeze(-1)?;
                let count =
                    counted.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?.f_clamp_min(1.0)?;
                hidden
                    .f_mul(&counted)?
                    .f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?
                    .f_div(&count)
            }
            Pooling::Cls | Pooling::Pooler => hidden.f_select(1, 0),
            Pooling::Last => {
                let place = self.last.f_view([-1, 1, 1])?.f_expand([-1, 1, hidden.size()[2]], false)?;
                hidden.f_gather(1, &place, false)?.f_squeeze_dim(1)
            }
        }
    }

    /// The hidden values of each base's token, `[B, T, d]` to `[B, bases, d]`, and 1 where there is a base, `[B, bases]`.
    pub fn per_base(&self, hidden: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let longest = self.of_bases.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let filled = |row: &Vec<i64>| {
            row.iter().copied().chain(std::iter::repeat(0)).take(longest).collect::<Vec<_>>()
        };
        let places = self.of_bases.iter().flat_map(filled).collect::<Vec<_>>();
        let there = self
            .of_bases
            .iter()
            .flat_map(|row| (0..longest).map(|at| if at < row.len() { 1.0_f32 } else { 0.0 }));
        let shape = [signed(self.of_bases.len()), signed(longest)];
        let (there, device) = (Tensor::f_from_slice(&there.collect::<Vec<_>>())?, hidden.device());
        let there = sent(&there, device)?.f_view(shape)?;
        let places = sent(&Tensor::f_from_slice(&places)?, device)?.f_view(shape)?.f_unsqueeze(-1)?;
        let width = hidden.size()[2];
        let values = hidden.f_gather(1, &places.f_expand([-1, -1, width], false)?, false)?;
        Ok((values.f_mul(&there.f_unsqueeze(-1)?)?, there))
    }
}

impl Row {
    /// For each base the token that it belongs to.
    fn of_bases(&self) -> Vec<i64> {
        let tokens = self.bases.iter().enumerate();
        tokens.flat_map(|(token, bases)| std::iter::repeat_n(signed(token), *bases as usize)).collect()
    }
}

/// A length as torch has it.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::kmer::{Config, Kmer};
    use crate::tokenizer::nucleotide::Nucleotide;

    fn row(
        tokenizer: &dyn Tokenizer,
        room: Option<usize>,
        sequence: &[u8],
        inputs: &Inputs,
    ) -> (Result<Row, Error>, Given) {
        let mut given = Given::default();
        let row = Frame { tokenizer, before: &[0], after: &[1], room }.row(sequence, inputs, &mut given);
        (row, given)
    }

    #[test]
    fn what_happens_to_sequences_is_counted() {
        let (all, known) = (Nucleotide::new(), Nucleotide::hyena());
        let keep = Inputs::default();
        let random = Inputs { ambiguous: Ambiguous::Random, ..keep };
        let cases: [(&dyn Tokenizer, _, &[u8], _, _); 6] = [
            // tokens, cut, bases cut, ambiguous, their bases, unknown
            (&all, None, b"ACGT", keep, [4, 0, 0, 0, 0, 0]),
            (&all, Some(5), b"ACGTT", keep, [3, 1, 2, 0, 0, 0]),
            (&all, None, b"ANNR", keep, [4, 0, 0, 1, 3, 0]),
            (&known, None, b"ANNR", keep, [3, 0, 0, 1, 3, 1]),
            (&known, None, b"ANNR", random, [4, 0, 0, 1, 3, 0]),
            (&all, Some(1), b"AC", keep, [0, 1, 2, 0, 0, 0]),
        ];
        for (tokenizer, room, sequence, inputs, expected) in cases {
            let (row, found) = row(tokenizer, room, sequence, &inputs);
            let found = [
                found.tokens,
                found.cut,
                found.bases_cut,
                found.ambiguous,
                found.ambiguous_bases,
                found.unknown_bases,
            ];
            assert_eq!(found, expected, "{sequence:?}");
            let row = row.unwrap();
            assert_eq!((row.ids[0], *row.ids.last().unwrap(), row.ids.len()), (0, 1, row.bases.len()));
        }
        let refuse = Inputs { long: Long::Refuse, ..keep };
        let error = row(&all, Some(5), b"ACGTT", &refuse).0.unwrap_err().to_string();
        assert_eq!(
            error,
            "a sequence of 5 bases has 7 tokens, the model takes 5: let it be cut (`long: cut`)"
        );
    }

    #[test]
    fn pooling_takes_what_it_says() {
        let kmer = Kmer::new(Config { k: 3, overlapping: false }).unwrap();
        let rows =
            [&b"ACGTTGA"[..], b"ACG"].map(|bases| row(&kmer, None, bases, &Inputs::default()).0.unwrap());
        let batch = Batch::new(&[&rows[0], &rows[1]], Device::Cpu).unwrap();
        assert_eq!(batch.ids.size(), [2, 5], "two words, a base and two special tokens");
        let hidden = Tensor::arange(10, (Kind::Float, Device::Cpu)).view([2, 5, 1]).square() * 3.0;
        let pooled =
            |pooling| Vec::<f32>::try_from(batch.pool(&hidden, pooling).unwrap().view([-1])).unwrap();
        assert_eq!(pooled(Pooling::Mean), [14.0, 108.0]);
        assert_eq!(pooled(Pooling::Last), [27.0, 108.0]);
        assert_eq!(pooled(Pooling::Cls), [0.0, 75.0]);
        let (values, there) = batch.per_base(&hidden).unwrap();
        let flat = |tensor: Tensor| Vec::<f32>::try_from(tensor.view([-1])).unwrap();
        assert_eq!(flat(values), [3., 3., 3., 12., 12., 12., 27., 108., 108., 108., 0., 0., 0., 0.]);
        assert_eq!(flat(there), [1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 0., 0., 0., 0.]);
    }

    #[test]
    fn an_empty_row_pools_to_zeros() {
        let (empty, full) = (Row::default(), Row { ids: vec![7], bases: vec![1] });
        let batch = Batch::new(&[&empty, &full], Device::Cpu).unwrap();
        let hidden = Tensor::ones([2, 1, 3], (Kind::Float, Device::Cpu));
        let mean = batch.pool(&hidden, Pooling::Mean).unwrap();
        assert_eq!(Vec::<f32>::try_from(mean.view([-1])).unwrap(), [0., 0., 0., 1., 1., 1.]);
        assert_eq!(batch.per_base(&hidden).unwrap().0.size(), [2, 1, 3]);
    }
}
