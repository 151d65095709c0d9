use std::collections::HashMap;

use super::*;

/// Bases drawn by a fixed linear congruential generator.
fn random_bases(length: usize, mut state: u64) -> Vec<u8> {
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b"ACGT"[(state >> 62) as usize]
        })
        .collect()
}

/// A sequence with short and long repeats, an N run and an IUPAC code: nothing about it is uniform.
fn patterned_bases() -> Vec<u8> {
    let mut bases = b"GATTACAGATTACATTTTTGCGCGCGATTACA".repeat(6);
    bases.extend(b"NNNNACGRTTACG");
    bases.extend(random_bases(400, 11));
    bases.extend(b"CCCTAACCCTAACCCTAANGATTACAGATTACA");
    bases
}

/// The models as the module's documentation defines them, from counts in a map by text.
struct Naive {
    max_order: usize,
    counts: HashMap<Vec<u8>, u64>,
}

impl Naive {
    fn fit(max_order: usize, pieces: &[Vec<u8>]) -> Self {
        let mut counts = HashMap::new();
        for run in pieces.iter().flat_map(|piece| runs(piece)) {
            for end in 1..=run.len() {
                for length in 1..=end.min(max_order + 1) {
                    *counts.entry(run[end - length..end].to_vec()).or_default() += 1;
                }
            }
        }
        Self { max_order, counts }
    }

    fn count(&self, bases: &[u8]) -> f64 {
        self.counts.get(bases).copied().unwrap_or(0) as f64
    }

    /// The probability of the last base after the others; without one occurrence of all when `left_out`.
    fn probability(&self, bases: &[u8], strength: f64, prior: f64, left_out: f64) -> f64 {
        let context = &bases[..bases.len() - 1];
        let total: f64 = b"ACGT".iter().map(|&base| self.count(&[context, &[base]].concat())).sum();
        (self.count(bases) - left_out + strength * prior) / (total - left_out + strength)
    }

    fn blended(&self, bases: &[u8], strengths: &[f64], left_out: f64) -> f64 {
        (1..=bases.len()).fold(0.25, |prior, length| {
            self.probability(&bases[bases.len() - length..], strengths[length - 1], prior, left_out)
        })
    }

    fn best(&self, order: usize, cost: impl Fn(&[u8], f64) -> f64) -> f64 {
        let bits = |strength: f64| -> f64 {
            let cells = self.counts.iter().filter(|(bases, _)| bases.len() == order + 1);
            cells.map(|(bases, &count)| count as f64 * cost(bases, strength)).sum()
        };
        STRENGTHS.into_iter().min_by(|&a, &b| bits(a).total_cmp(&bits(b))).unwrap()
    }

    fn strengths(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut plain, mut blended) = (Vec::new(), Vec::new());
        for order in 0..=self.max_order {
            plain.push(
                self.best(order, |bases, strength| -self.probability(bases, strength, 0.25, 1.0).log2()),
            );
            blended.push(self.best(order, |bases, strength| {
                let all = [&blended[..], &[strength]].concat();
                -self.blended(bases, &all, 1.0).log2()
            }));
        }
        (plain, blended)
    }

    fn score(&self, piece: &[u8]) -> Score {
        let (plain, blended) = self.strengths();
        let mut score = Score::new(self.max_order);
        for run in runs(piece) {
            for end in 1..=run.len() {
                score.bases += 1;
                for order in 0..=self.max_order {
                    let used = order.min(end - 1);
                    let bases = &run[end - used - 1..end];
                    score.plain[order] -= self.probability(bases, plain[used], 0.25, 0.0).log2();
                    score.blended[order] -= self.blended(bases, &blended, 0.0).log2();
                }
            }
        }
        score
    }
}

fn runs(piece: &[u8]) -> Vec<Vec<u8>> {
    piece.split(|byte| !b"ACGT".contains(byte)).filter(|run| !run.is_empty()).map(<[u8]>::to_vec).collect()
}

fn fit(max_order: usize, pieces: &[Vec<u8>]) -> Baselines {
    let mut counts = Counts::new(max_order).unwrap();
    for piece in pieces {
        counts.observe(piece);
    }
    counts.finish()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (order, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs(),
            "order {order}: {found}, expected {expected}"
        );
    }
}

#[test]
fn agrees_with_the_definition() {
    let training = [patterned_bases(), b"ACG".to_vec(), Vec::new(), random_bases(300, 5)];
    let held_out = [b"GATTACAGATTACANTTTTTGCGCacgtA".to_vec(), random_bases(200, 9)].concat();
    for max_order in [0, 1, 4] {
        let (fast, naive) = (fit(max_order, &training), Naive::fit(max_order, &training));
        let (plain, blended) = naive.strengths();
        assert_eq!((&fast.plain, &fast.blended), (&plain, &blended));
        let (found, expected) = (fast.score(&held_out), naive.score(&held_out));
        assert_eq!(found.bases, expected.bases);
        assert_close(&found.plain, &expected.plain, 1e-12);
        assert_close(&found.blended, &expected.blended, 1e-12);
    }
}

#[test]
fn lower_orders_do_not_depend_on_the_maximum() {
    let (low, high) = (fit(3, &[patterned_bases()]), fit(7, &[patterned_bases()]));
    let (low, high) = (low.score(b"GATTACAGGCNTTTACC"), high.score(b"GATTACAGGCNTTTACC"));
    assert_eq!((&low.plain[..], &low.blended[..]), (&high.plain[..4], &high.blended[..4]));
}

#[test]
fn order_zero_scores_the_entropy_of_the_composition() {
    let composition = [(b'A', 50_000), (b'C', 10_000), (b'G', 20_000), (b'T', 20_000)];
    let bases: Vec<u8> = composition.iter().flat_map(|&(base, count)| vec![base; count]).collect();
    let entropy: f64 = composition.iter().map(|&(_, count)| count as f64 / 1e5).map(|p| -p * p.log2()).sum();
    let found = fit(0, std::slice::from_ref(&bases)).score(&bases).plain_bits_per_base().unwrap();
    assert_close(&found, &[entropy], 1e-6);
}

#[test]
fn uniform_bases_cost_two_bits_at_every_order() {
    let score = fit(8, &[random_bases(400_000, 1)]).score(&random_bases(50_000, 2));
    for bits in [score.plain_bits_per_base().unwrap(), score.blended_bits_per_base().unwrap()].concat() {
        assert!((1.99..2.02).contains(&bits), "{bits}");
    }
}

#[test]
fn context_pays_where_there_is_structure() {
    let found =
        fit(4, &[b"AACCGGTT".repeat(500)]).score(&b"AACCGGTT".repeat(20)).plain_bits_per_base().unwrap();
    assert!(found[0] > 1.99 && found[1] < 1.05 && found[2] < 0.05, "{found:?}");
}

#[test]
fn merging_is_associative_and_equals_one_pass() {
    let pieces = [patterned_bases(), random_bases(90, 3), b"TTTNACGT".to_vec()];
    let [a, b, c] = pieces.clone().map(|piece| {
        let mut counts = Counts::new(5).unwrap();
        counts.observe(&piece);
        counts
    });
    let merged = |left: &Counts, right: &Counts| {
        let mut sum = left.clone();
        sum.merge(right).unwrap();
        sum
    };
    let mut one_pass = Counts::new(5).unwrap();
    for piece in &pieces {
        one_pass.observe(piece);
    }
    assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    assert_eq!(merged(&merged(&c, &a), &b), one_pass);
    let bases: usize = pieces.iter().flat_map(|piece| runs(piece)).map(|run| run.len()).sum();
    assert_eq!(one_pass.bases(), bases as u64);
}

#[test]
fn scores_merge_to_the_score_of_both() {
    let models = fit(4, &[patterned_bases()]);
    let mut sum = models.score(b"GATTACA");
    sum.merge(&models.score(b"TTTGCG"));
    let both = models.score(b"GATTACANTTTGCG");
    assert_eq!(sum.bases, both.bases);
    assert_close(&sum.plain, &both.plain, 1e-12);
    assert_close(&sum.blended, &both.blended, 1e-12);
}

#[test]
fn both_strands_count_the_reverse_complement() {
    let mut both = Counts::new(3).unwrap();
    both.observe_both_strands(b"AACGNTTG");
    let mut apart = Counts::new(3).unwrap();
    for piece in [&b"AACG"[..], b"TTG", b"CAA", b"CGTT"] {
        apart.observe(piece);
    }
    assert_eq!(both, apart);
}

#[test]
fn bases_before_the_start_are_context_only() {
    let models = fit(4, &[patterned_bases()]);
    let (all, tail) = (models.score(b"GATTACAGA"), models.score_from(b"GATTACAGA", 3));
    let head = models.score(b"GAT");
    let rest: Vec<f64> = all.plain.iter().zip(&head.plain).map(|(all, head)| all - head).collect();
    assert_eq!((tail.bases, all.bases), (6, 9));
    assert_close(&tail.plain, &rest, 1e-12);
    assert_eq!(models.score_from(b"GAT", 9), Score::new(4));
}

#[test]
fn fit_does_not_depend_on_threads() {
    let training = [patterned_bases(), random_bases(200_000, 4)];
    let at = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit(9, &training))
    };
    assert_eq!(at(1), at(3));
}

#[test]
fn nothing_seen_is_uniform_and_nothing_scored_is_undefined() {
    let models = fit(2, &[b"NNN".to_vec()]);
    assert_close(&models.score(b"ACG").blended_bits_per_base().unwrap(), &[2.0; 3], 1e-12);
    assert_eq!(models.score(b"NacgN").plain_bits_per_base(), None);
}

#[test]
fn memory_is_that_of_the_tables() {
    assert_eq!(memory(0), 16);
    assert_eq!(memory(11) - memory(10), 64 << 20);
    assert!((89_000_000..90_000_000).contains(&memory(11)));
}

#[test]
fn unlike_orders_are_refused() {
    assert_eq!(
        Counts::new(17).unwrap_err().to_string(),
        "cannot fit a Markov model of order 17: expected an order from 0 to 16"
    );
    let mut low = Counts::new(2).unwrap();
    let error = low.merge(&Counts::new(3).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "cannot merge Markov counts up to order 3 into counts up to order 2");
}
