//! The merges among A, C, G and T, and which tokens may stand side by side.
//!
//! Tokens are numbered in the order of their making: 0 to 3 are the letters, in the order of [`LETTERS`], 4 is the result
//! of the first merge. A sequence of tokens is the encoding of its text exactly when every two neighbours are the
//! encoding of theirs; [`Rules::neighbours`] tells for one token which may follow it.
//!
//! Memory: one bit for every pair of tokens while the rows are read, 2 MB for 4,096 tokens.

/// The letters in the order of their numbers, which is that of bits 1 and 2 of their bytes.
pub const LETTERS: [u8; 4] = *b"ACTG";
/// No token, no node.
pub const NONE: u32 = u32::MAX;

/// The number of a letter.
pub const fn letter(byte: u8) -> usize {
    (byte >> 1 & 3) as usize
}

/// Merges by number of their result.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a token was made of; a letter of itself.
    parts: Vec<[u32; 2]>,
    /// By left part, the right parts and the results.
    by_left: Vec<Vec<[u32; 2]>>,
}

impl Rules {
    /// From pairs in the order of merging; `None` when a part is made after it is used, or a pair is used twice.
    pub fn new(merges: &[[u32; 2]]) -> Option<Self> {
        let mut rules = Self { parts: (0..4).map(|id| [id; 2]).collect(), by_left: vec![Vec::new(); 4] };
        for (id, &[left, right]) in (4..).zip(merges) {
            if left >= id || right >= id || rules.result(left, right) != NONE {
                return None;
            }
            rules.parts.push([left, right]);
            rules.by_left.push(Vec::new());
            rules.by_left[left as usize].push([right, id]);
        }
        Some(rules)
    }

    /// Number of tokens.
    pub const fn len(&self) -> usize {
        self.parts.len()
    }

    /// Number of tokens, as a token number.
    fn end(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(NONE)
    }

    fn result(&self, left: u32, right: u32) -> u32 {
        self.by_left[left as usize].iter().find(|pair| pair[0] == right).map_or(NONE, |pair| pair[1])
    }

    /// Whether the text of a token is encoded as that token.
    pub fn stands(&self, token: u32) -> bool {
        let [left, right] = self.parts[token as usize];
        token < 4 || self.apart(left, right, token)
    }

    /// Whether no merge before `limit` crosses from `left` to `right`.
    ///
    /// Their merges are undone from the last on: what then faces the other across the gap stood there until that merge,
    /// and a pair that is merged earlier would have been merged across.
    fn apart(&self, mut left: u32, mut right: u32, mut limit: u32) -> bool {
        loop {
            if self.result(left, right) < limit {
                return false;
            }
            let later = left.max(right);
            if later < 4 {
                return true;
            }
            if left > right {
                limit = later;
                left = self.parts[left as usize][1];
            } else {
                // Of overlapping equal pairs the left one is merged, which is the one across the gap.
                limit = later + 1;
                right = self.parts[right as usize][0];
            }
        }
    }

    /// The letters of a token, as numbers.
    pub fn text(&self, token: u32) -> Vec<u8> {
        let (mut text, mut stack) = (Vec::new(), vec![token]);
        while let Some(token) = stack.pop() {
            match (u8::try_from(token), self.parts[token as usize]) {
                (Ok(letter), _) if letter < 4 => text.push(letter),
                (_, [left, right]) => stack.extend([right, left]),
            }
        }
        text
    }

    /// For every token a row of bits: bit `i` says whether `order[i]` may follow it.
    ///
    /// The row of a token follows from the row of its right part (for tokens made before it) and from itself (for a
    /// later token, from that token's left part): see `apart`, of which every step is shared between pairs.
    pub fn neighbours(&self, order: &[u32]) -> Matrix {
        let lefts: Vec<u32> = self.parts.iter().map(|parts| parts[0]).collect();
        let mut open = Matrix::new(self.len(), self.len());
        let mut follows = Matrix::new(self.len(), order.len());
        // By follower: whether no merge crosses from the current token, once the later of the two is undone.
        let mut row = vec![false; self.len()];
        for token in 0..self.end() {
            self.start_row(token, &open, &mut row);
            let merging = self.grow_row(token, &lefts, &mut row);
            follows.set_row(token, order.iter().map(|&other| row[other as usize]));
            for other in merging {
                row[other as usize] = true;
            }
            open.set_row(token, row.iter().copied());
        }
        follows
    }

    /// The row of `token` for followers made before it (or letters).
    fn start_row(&self, token: u32, open: &Matrix, row: &mut [bool]) {
        if token < 4 {
            return row[..4].fill(true);
        }
        let right = self.parts[token as usize][1];
        open.read_row(right, &mut row[..token as usize]);
        for &[other, _] in self.by_left[right as usize].iter().filter(|pair| pair[1] < token) {
            row[other as usize] = false;
        }
    }

    /// The row of `token` for followers made after it. Returns those open followers that it merges with: they are
    /// closed from that merge on, and so is what is made of them later.
    fn grow_row(&self, token: u32, lefts: &[u32], row: &mut [bool]) -> Vec<u32> {
        let mut merging = Vec::new();
        let mut grown = token.max(4) as usize;
        for &[other, merge] in &self.by_left[token as usize] {
            grow(grown, merge as usize, lefts, row);
            grown = grown.max(merge as usize);
            if std::mem::take(&mut row[other as usize]) {
                merging.push(other);
            }
        }
        grow(grown, self.len(), lefts, row);
        merging
    }
}

/// What begins with something closed is closed.
fn grow(from: usize, to: usize, lefts: &[u32], row: &mut [bool]) {
    for other in from..to {
        row[other] = row[lefts[other] as usize];
    }
}

/// Rows of bits.
#[derive(Debug, Clone)]
pub struct Matrix {
    words: Vec<u64>,
    per_row: usize,
}

impl Matrix {
    fn new(rows: usize, columns: usize) -> Self {
        let per_row = columns.div_ceil(64);
        Self { words: vec![0; rows * per_row], per_row }
    }

    fn row(&self, row: u32) -> &[u64] {
        &self.words[row as usize * self.per_row..][..self.per_row]
    }

    fn set_row(&mut self, row: u32, mut bits: impl ExactSizeIterator<Item = bool>) {
        for word in &mut self.words[row as usize * self.per_row..][..self.per_row] {
            *word = bits.by_ref().take(64).zip(0..).fold(0, |word, (bit, at)| word | u64::from(bit) << at);
        }
    }

    fn read_row(&self, row: u32, bits: &mut [bool]) {
        for (bits, word) in bits.chunks_mut(64).zip(self.row(row)) {
            bits.iter_mut().zip(0..).for_each(|(bit, at)| *bit = word >> at & 1 == 1);
        }
    }

    /// One bit.
    pub fn get(&self, row: u32, column: usize) -> bool {
        self.words[row as usize * self.per_row + column / 64] >> (column % 64) & 1 == 1
    }

    /// Up to 64 bits from `column` on.
    pub fn bits(&self, row: u32, column: usize, count: usize) -> u64 {
        let row = self.row(row);
        let (word, shift) = (column / 64, column % 64);
        let high = row.get(word + 1).map_or(0, |next| next << 1 << (63 - shift));
        (row[word] >> shift | high) & (u64::MAX >> (64 - count))
    }
}
