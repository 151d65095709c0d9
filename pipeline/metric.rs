//! Numbers only, no tensors: bits per base, Markov baselines, intervals.
//!
//! Code lengths are in bits, losses in nats, lengths in bases. A figure that is not defined (nothing was scored) is
//! `None`, never 0 and never NaN.

pub mod interval;
pub mod markov;

/// Bits per base of `nats` of code length over `bases` bases; `None` when no base was scored.
pub fn bits_per_base(nats: f64, bases: u64) -> Option<f64> {
    (bases > 0).then(|| nats / std::f64::consts::LN_2 / bases as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_per_base_counts_bases() {
        let four = 4.0_f64.ln();
        for (nats, bases, expected) in
            [(four, 1, Some(2.0)), (3.0 * four, 6, Some(1.0)), (0.0, 3, Some(0.0)), (1.0, 0, None)]
        {
            let found = bits_per_base(nats, bases);
            assert_eq!(found.map(|bits| (bits * 1e9).round()), expected.map(|bits| bits * 1e9));
        }
    }
}
