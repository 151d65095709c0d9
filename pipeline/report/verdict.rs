//! What an evaluation shows, in words: no better and no worse than the numbers are.

use super::number::{count, fixed, percent, signed};
use super::{Evaluation, Markov, ModelScore};

/// A Markov model of an [`Evaluation`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// Bases of context.
    pub order: u64,
    /// Whether it is blended with the orders below.
    pub blended: bool,
    /// Its bits per base.
    pub bits_per_base: f64,
}

impl Baseline {
    /// `order 11, blended`.
    pub fn name(&self) -> String {
        format!("order {}{}", self.order, if self.blended { ", blended" } else { "" })
    }
}

impl Markov {
    /// All models, those of one order together.
    pub fn baselines(&self) -> impl Iterator<Item = Baseline> {
        self.orders.iter().flat_map(|of| {
            let plain = Baseline { order: of.order, blended: false, bits_per_base: of.plain };
            let blended = of.blended.map(|bits_per_base| Baseline { blended: true, bits_per_base, ..plain });
            [Some(plain), blended].into_iter().flatten()
        })
    }

    /// The model with the fewest bits per base; the first of equals.
    pub fn best(&self) -> Option<Baseline> {
        let numbers = self.baselines().filter(|baseline| baseline.bits_per_base.is_finite());
        numbers.min_by(|a, b| a.bits_per_base.total_cmp(&b.bits_per_base))
    }
}

/// One sentence or more on an evaluation; `None` when nothing was scored.
pub(super) fn verdict(evaluation: &Evaluation) -> Option<String> {
    let best = evaluation.markov.as_ref().and_then(Markov::best);
    match (&evaluation.model, best) {
        (Some(model), _) if !model.bits_per_base.is_finite() => {
            Some(format!("The score of {} is not a number: its training has diverged.", model.name))
        }
        (Some(model), Some(best)) => {
            let markov = evaluation.markov.as_ref()?;
            Some(comparison(model, &best) + &orders_beaten(model, markov) + uniform(model))
        }
        (Some(model), None) => Some(format!(
            "{} needs {} bits per base.{}",
            model.name,
            fixed(model.bits_per_base, 3),
            uniform(model)
        )),
        (None, Some(best)) => Some(format!(
            "The best Markov baseline ({}) needs {} bits per base.",
            best.name(),
            fixed(best.bits_per_base, 3)
        )),
        (None, None) => None,
    }
}

fn comparison(model: &ModelScore, best: &Baseline) -> String {
    let (bits, baseline) = (fixed(model.bits_per_base, 3), fixed(best.bits_per_base, 3));
    let gap =
        model.difference.map_or(model.bits_per_base - best.bits_per_base, |difference| difference.value);
    let interval = model.difference.map_or_else(String::new, |difference| {
        let (low, high) = (signed(difference.low, 3), signed(difference.high, 3));
        format!(
            " ({} interval {low} to {high}, {} rows paired)",
            percent(difference.level).replace(".0", ""),
            count(difference.rows)
        )
    });
    let figures =
        format!("{bits} against {baseline} bits per base, a difference of {}{interval}", signed(gap, 3));
    let (name, best) = (&model.name, best.name());
    match Outcome::of(model, gap) {
        Outcome::Better => format!("{name} beats the best Markov baseline ({best}): {figures}."),
        Outcome::Worse => format!("{name} does not beat the best Markov baseline ({best}): {figures}."),
        Outcome::Unclear => {
            format!("{name} and the best Markov baseline ({best}) cannot be told apart: {figures}.")
        }
    }
}

/// How a model compares with the best baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Better,
    Worse,
    Unclear,
}

impl Outcome {
    /// By the interval of the difference where there is one.
    fn of(model: &ModelScore, gap: f64) -> Self {
        let (low, high) = model.difference.map_or((gap, gap), |difference| (difference.low, difference.high));
        if high < 0.0 {
            Self::Better
        } else if low > 0.0 || (low >= 0.0 && high <= 0.0) {
            Self::Worse
        } else {
            Self::Unclear
        }
    }
}

/// How many of the plain orders the model scores below.
fn orders_beaten(model: &ModelScore, markov: &Markov) -> String {
    let beaten = markov.orders.iter().filter(|order| model.bits_per_base < order.plain).count();
    match (beaten, markov.orders.len()) {
        (0, 1) => String::new(),
        (0, all) => format!(" It scores above all {all} plain orders."),
        (beaten, all) if beaten == all => format!(
            " It scores below {}.",
            if all == 1 { "the plain order".to_owned() } else { format!("all {all} plain orders") }
        ),
        (beaten, all) => format!(" It scores below {beaten} of the {all} plain orders."),
    }
}

/// A warning when guessing does as well.
fn uniform(model: &ModelScore) -> &'static str {
    if model.bits_per_base >= 2.0 {
        " Guessing every base with equal odds costs 2 bits, no more than this model."
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::interval::Estimate;
    use crate::report::MarkovOrder;

    fn evaluation(model: Option<f64>, difference: Option<(f64, f64)>, orders: &[f64]) -> Evaluation {
        let order = |(order, &plain): (u64, &f64)| MarkovOrder {
            order,
            plain,
            blended: Some(plain - 0.001),
            pseudo_count: None,
        };
        let estimate = |(low, high)| Estimate {
            value: f64::midpoint(low, high),
            low,
            high,
            level: 0.95,
            rows: 1_234,
            resamples: 9,
        };
        let model = model.map(|bits_per_base| ModelScore {
            name: "olmo".into(),
            trained_on: String::new(),
            bits_per_base,
            interval: None,
            difference: difference.map(estimate),
        });
        let orders: Vec<MarkovOrder> = (0..).zip(orders).map(order).collect();
        let markov = (!orders.is_empty()).then(|| Markov { orders, ..Markov::default() });
        Evaluation { model, markov, ..Evaluation::default() }
    }

    #[test]
    fn words_follow_the_numbers() {
        for (model, difference, orders, expected) in [
            (
                Some(1.9),
                Some((-0.05, -0.02)),
                &[1.97, 1.95][..],
                Some(
                    "beats the best Markov baseline (order 1, blended): 1.900 against 1.949 bits per base, a difference of −0.035 (95 % interval −0.050 to −0.020, 1,234 rows paired). It scores below all 2 plain orders.",
                ),
            ),
            (
                Some(1.96),
                Some((0.01, 0.02)),
                &[1.97, 1.95],
                Some("does not beat the best Markov baseline (order 1, blended)"),
            ),
            (
                Some(1.96),
                None,
                &[1.97, 1.95],
                Some("a difference of +0.011. It scores below 1 of the 2 plain orders."),
            ),
            (Some(1.9), Some((-0.1, 0.1)), &[1.95], Some("cannot be told apart")),
            (Some(1.949), None, &[1.95], Some("does not beat")),
            (Some(2.1), None, &[1.97, 1.95], Some("It scores above all 2 plain orders. Guessing every base")),
            (Some(1.9), None, &[], Some("olmo needs 1.900 bits per base.")),
            (
                None,
                None,
                &[1.97, 1.95],
                Some("The best Markov baseline (order 1, blended) needs 1.949 bits per base."),
            ),
            (Some(f64::NAN), None, &[1.95], Some("not a number")),
            (None, None, &[], None),
        ] {
            let found = verdict(&evaluation(model, difference, orders));
            assert_eq!(found.is_some(), expected.is_some());
            assert!(
                found.as_deref().unwrap_or("").contains(expected.unwrap_or("")),
                "{found:?}, expected {expected:?}"
            );
        }
    }

    #[test]
    fn best_is_the_first_of_equals_and_a_number() {
        let order = |order, plain| MarkovOrder { order, plain, ..MarkovOrder::default() };
        let markov =
            Markov { orders: vec![order(0, f64::NAN), order(1, 1.9), order(2, 1.9)], ..Markov::default() };
        assert_eq!(markov.best().map(|best| best.order), Some(1));
        assert_eq!(Markov::default().best(), None);
    }
}
