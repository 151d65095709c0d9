//! Bases as two-bit codes, and the window of the latest ones.

/// The code of an upper-case base, `None` for any other byte.
pub(super) const fn code(byte: u8) -> Option<usize> {
    match byte {
        b'A' => Some(0),
        b'C' => Some(1),
        b'G' => Some(2),
        b'T' => Some(3),
        _ => None,
    }
}

/// The code of the complement.
pub(super) const fn complement(code: usize) -> usize {
    3 - code
}

/// The bits of `order` bases of context and the base after them.
pub(super) const fn mask(order: usize) -> usize {
    (1 << (2 * (order + 1))) - 1
}

/// The bases since the last boundary, the newest in the lowest two bits.
#[derive(Debug, Default)]
pub(super) struct Window {
    codes: usize,
    length: usize,
}

impl Window {
    /// Takes the next base, or a boundary; tells whether it was a base.
    pub(super) fn push(&mut self, code: Option<usize>) -> bool {
        let Some(code) = code else {
            self.length = 0;
            return false;
        };
        self.codes = self.codes << 2 | code;
        self.length += 1;
        true
    }

    /// Bases of context before the newest base, at most `max_order`.
    pub(super) fn order(&self, max_order: usize) -> usize {
        (self.length - 1).min(max_order)
    }

    /// The newest base after `order` bases of context, as a cell of that order's table.
    pub(super) fn cell(&self, order: usize) -> usize {
        self.codes & mask(order)
    }
}
