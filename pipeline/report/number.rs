//! Numbers as they are printed: thousands separators, units, a true minus sign.

/// `12,157,105`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234.50`, `−0.02`; a dash when there is no number to print.
pub(super) fn fixed(value: f64, places: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.places$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), count);
    let zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let sign = if value < 0.0 && !zero { "−" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// `+0.021`, `−0.021`.
pub(super) fn signed(value: f64, places: usize) -> String {
    let text = fixed(value, places);
    if value > 0.0 { format!("+{text}") } else { text }
}

/// `38.2 %` of a share from 0 to 1.
pub(super) fn percent(share: f64) -> String {
    let share = share * 100.0;
    let places = if share != 0.0 && share.abs() < 0.1 { 3 } else { 1 };
    format!("{} %", fixed(share, places))
}

/// `0.42 s`, `12.3 s`, `3 min 12 s`, `2 h 05 min`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round();
    match seconds {
        s if s < 9.995 => format!("{} s", fixed(s, 2)),
        s if s < 59.95 => format!("{} s", fixed(s, 1)),
        _ if whole < 3600.0 => format!("{:.0} min {:02.0} s", (whole / 60.0).floor(), whole % 60.0),
        _ => format!("{} h {:02.0} min", fixed((whole / 3600.0).floor(), 0), (whole % 3600.0 / 60.0).floor()),
    }
}

/// `11.6 MB`: bytes in powers of a thousand.
pub fn bytes(n: u64) -> String {
    if n < 1000 { format!("{n} B") } else { format!("{}B", short(n as f64)) }
}

/// `9.59 G`, `12.2 M`, `950`: three digits and a prefix.
pub(super) fn short(value: f64) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // A value that would round up to 1000 takes the next prefix.
    let prefix = prefixes.into_iter().find(|&(size, _)| value.abs() >= size * 0.999_5);
    prefix.map_or_else(
        || format!("{}\u{a0}", fixed(value, 0)),
        |(size, letter)| {
            format!("{}\u{a0}{letter}", fixed(value / size, places_for_three_digits(value / size)))
        },
    )
}

fn places_for_three_digits(value: f64) -> usize {
    match value.abs() {
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_separated() {
        for (n, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_157_105, "12,157,105"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(n), expected);
        }
    }

    #[test]
    fn decimals_keep_their_places() {
        for (value, places, expected) in [
            (1234.5, 2, "1,234.50"),
            (-0.0213, 3, "−0.021"),
            (-0.0001, 2, "0.00"),
            (2.0, 0, "2"),
            (f64::NAN, 2, "–"),
            (1e21, 0, "1000000000000000000000"),
        ] {
            assert_eq!(fixed(value, places), expected);
        }
        assert_eq!(
            (signed(0.5, 1), signed(-0.5, 1), signed(0.0, 1)),
            ("+0.5".into(), "−0.5".into(), "0.0".into())
        );
    }

    #[test]
    fn shares_are_percents() {
        for (share, expected) in [(0.382, "38.2 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (0.000_05, "0.005 %")]
        {
            assert_eq!(percent(share), expected);
        }
    }

    #[test]
    fn times_suit_their_size() {
        for (time, expected) in [
            (0.0, "0.00 s"),
            (0.424, "0.42 s"),
            (12.34, "12.3 s"),
            (59.97, "1 min 00 s"),
            (192.4, "3 min 12 s"),
            (3599.6, "1 h 00 min"),
            (7_500.0, "2 h 05 min"),
        ] {
            assert_eq!(seconds(time), expected);
        }
    }

    #[test]
    fn sizes_have_prefixes() {
        for (n, expected) in [
            (17, "17 B"),
            (1_000, "1.00\u{a0}kB"),
            (11_600_000, "11.6\u{a0}MB"),
            (999_999, "1.00\u{a0}MB"),
            (64 << 30, "68.7\u{a0}GB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
        assert_eq!((short(950.0), short(0.0)), ("950\u{a0}".into(), "0\u{a0}".into()));
    }
}
