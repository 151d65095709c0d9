//! Axes: from values to places, with round ticks.

use super::number;

/// How values spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// A tick: its value and what is written there.
pub(super) type Tick = (f64, String);

/// An axis from `low` to `high`.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) ticks: Vec<Tick>,
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// A linear axis that begins and ends at round values around those given.
    pub(super) fn linear(label: &str, low: f64, high: f64) -> Self {
        let (low, high) = if low < high { (low, high) } else { (low - 0.5, low + 0.5) };
        let step = round_step((high - low) / 5.0);
        let (first, last) = ((low / step).floor(), (high / step - 1e-9).ceil());
        let ticks: Vec<Tick> =
            counting(first, last).map(|i| (i * step, linear_text(i * step, step, last * step))).collect();
        Self { label: label.to_owned(), ticks, scale: Scale::Linear, low: first * step, high: last * step }
    }

    /// A linear axis that ends exactly at the values given, with round ticks between.
    pub(super) fn tight(label: &str, low: f64, high: f64) -> Self {
        let mut axis = Self::linear(label, low, high);
        if low < high {
            (axis.low, axis.high) = (low, high);
            axis.ticks.retain(|&(value, _)| low <= value && value <= high);
        }
        axis
    }

    /// A logarithmic axis that ends exactly at the values given (positive), with ticks at powers of ten.
    pub(super) fn logarithmic(label: &str, low: f64, high: f64) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        let high = if low < high { high } else { low * 10.0 };
        let ticks = log_ticks(low, high).into_iter().map(|value| (value, log_text(value))).collect();
        Self { label: label.to_owned(), ticks, scale: Scale::Logarithmic, low, high }
    }

    /// A logarithmic axis with ticks at the values given (positive, ascending) where they are few, and some room at both
    /// ends.
    pub(super) fn logarithmic_at(label: &str, values: &[f64]) -> Self {
        let (low, high) =
            (values.first().map_or(1.0, |low| low / 1.4), values.last().map_or(10.0, |high| high * 1.4));
        let mut axis = Self::logarithmic(label, low, high);
        let spread = values.windows(2).all(|pair| axis.place(pair[1]) - axis.place(pair[0]) >= 0.09);
        if spread {
            axis.ticks = values.iter().map(|&value| (value, power_text(value))).collect();
        }
        axis
    }

    /// An axis of names at the values given, ascending.
    pub(super) fn named(label: &str, names: Vec<Tick>) -> Self {
        let (low, high) = (names.first().map_or(0.0, |name| name.0), names.last().map_or(0.0, |name| name.0));
        Self { label: label.to_owned(), ticks: names, scale: Scale::Linear, low: low - 0.6, high: high + 0.6 }
    }

    /// Where a value lies: 0 at the low end, 1 at the high end; values beyond lie at the ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let decade = 10_f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * decade >= step * 0.999);
    digit.unwrap_or(10.0) * decade
}

/// `first`, `first + 1` .. `last`.
fn counting(first: f64, last: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(first), |i| Some(i + 1.0)).take_while(move |&i| i <= last)
}

fn linear_text(value: f64, step: f64, largest: f64) -> String {
    if largest >= 1e5 {
        return if value == 0.0 { "0".to_owned() } else { trim_zeros(&number::short(value)) };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9")]
    let places = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    number::fixed(value, places)
}

/// `1.00 M` to `1 M`, `950 ` to `950`.
fn trim_zeros(text: &str) -> String {
    let (digits, unit) = text.split_once('\u{a0}').unwrap_or((text, ""));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    if unit.is_empty() { digits.to_owned() } else { format!("{digits}\u{a0}{unit}") }
}

/// Powers of ten, at most about seven of them; 2 and 5 as well where there are fewer than three.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor(), high.log10().ceil());
    let stride = ((last - first) / 7.0).ceil().max(1.0);
    let inside = |value: &f64| *value >= low * 0.999 && *value <= high * 1.001;
    let powers: Vec<f64> =
        counting(first, last).filter(|i| i.rem_euclid(stride) == 0.0).map(|i| 10_f64.powf(i)).collect();
    let ticks: Vec<f64> = powers.iter().copied().filter(inside).collect();
    if ticks.len() > 2 {
        return ticks;
    }
    powers.iter().flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * power)).filter(inside).collect()
}

/// `4 k` or `65 k` where a value is about a round number of thousands, as powers of two are; else in full.
fn power_text(value: f64) -> String {
    if value >= 1000.0 {
        format!("{}\u{a0}k", number::fixed((value / 1000.0).floor(), 0))
    } else {
        number::fixed(value, 0)
    }
}

fn log_text(value: f64) -> String {
    if value < 1.0 { format!("{value}") } else { trim_zeros(&number::short(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        for (low, high, expected) in [
            (0.0, 97.0, &["0", "20", "40", "60", "80", "100"][..]),
            (1.8731, 2.0, &["1.85", "1.90", "1.95", "2.00"]),
            (0.0, 0.001, &["0.0000", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010"]),
            (0.0, 1_500_000.0, &["0", "500\u{a0}k", "1\u{a0}M", "1.5\u{a0}M"]),
            (3.0, 3.0, &["2.4", "2.6", "2.8", "3.0", "3.2", "3.4", "3.6"]),
        ] {
            let axis = Axis::linear("", low, high);
            assert_eq!(texts(&axis), expected, "{low} {high}");
            assert!(axis.low <= low && axis.high >= high, "{low} {high}");
        }
    }

    #[test]
    fn tight_axes_end_where_they_are_told() {
        let axis = Axis::tight("", 0.0, 97.0);
        assert_eq!((axis.place(97.0), axis.place(48.5), axis.place(200.0)), (1.0, 0.5, 1.0));
        assert_eq!(texts(&axis).last(), Some(&"80"));
    }

    #[test]
    fn log_ticks_are_powers_of_ten() {
        for (low, high, expected) in [
            (1.0, 4096.0, &["1", "10", "100", "1\u{a0}k"][..]),
            (40.0, 900.0, &["50", "100", "200", "500"]),
            (7.0, 7.0, &["10", "20", "50"]),
        ] {
            assert_eq!(texts(&Axis::logarithmic("", low, high)), expected, "{low} {high}");
        }
        assert!(Axis::logarithmic("", 1.0, 1e12).ticks.len() < 9);
    }

    #[test]
    fn log_ticks_stand_at_the_values_where_they_fit() {
        let powers = [16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];
        let axis = Axis::logarithmic_at("", &powers);
        assert_eq!(texts(&axis), ["16", "64", "256", "1\u{a0}k", "4\u{a0}k", "16\u{a0}k", "65\u{a0}k"]);
        assert!(axis.place(16.0) > 0.02 && axis.place(65_536.0) < 0.98);
        let near: Vec<f64> = (0..40).map(|i| 100.0 + f64::from(i)).collect();
        assert!(texts(&Axis::logarithmic_at("", &near)).len() < 9);
    }

    #[test]
    fn log_places_ratios_evenly() {
        let axis = Axis::logarithmic("", 1.0, 10_000.0);
        let places = [1.0, 100.0, 10_000.0, 0.0].map(|value| number::fixed(axis.place(value), 6));
        assert_eq!(places, ["0.000000", "0.500000", "1.000000", "0.000000"]);
    }

    #[test]
    fn names_stand_apart_from_the_ends() {
        let axis = Axis::named("", vec![(0.0, "a".into()), (1.0, "b".into())]);
        assert!(axis.place(0.0) > 0.2 && axis.place(1.0) < 0.8);
    }
}
