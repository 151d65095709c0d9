//! For every token a trie of the tokens that may follow it. What tries have in common is kept once, so that two nodes
//! are the same node exactly when the same tokens go on from them.
//!
//! The trie of a token is that of the part that it ends in, as it stood when the token was made, less what the token's
//! own merges close. So every merge is taken off one trie, once, and of a trie only the paths to what changes are copied;
//! what the same merges left of the same node is remembered.
//!
//! Memory: about 40 bytes a node, of which there are some four a token; their number and the time are limited.

use std::ops::Range;

use super::super::hash::{Map, Numbers};
use super::super::rules::{Beginnings, NONE, Rules};

/// The most nodes of a trie, and of all tries.
const MAX_NODES: usize = 1 << 22;
/// The most nodes that are looked at.
const MAX_VISITS: usize = 1 << 26;

/// Where a base leads from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(u32);

impl Link {
    /// To nothing.
    const NOTHING: Self = Self(NONE);
    /// Set in links to a token that nothing goes on from; such ends are no nodes.
    const END: u32 = 1 << 31;

    /// The node that is linked to.
    pub fn node(self) -> Option<u32> {
        (self.0 & Self::END == 0).then_some(self.0)
    }

    /// The token that is linked to and that nothing goes on from.
    pub fn end(self) -> Option<u32> {
        (self.node().is_none() && self != Self::NOTHING).then_some(self.0 & !Self::END)
    }
}

/// A node of a trie; something goes on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// By base.
    pub next: [Link; 4],
    /// The token that ends here; `NONE` for none.
    pub token: u32,
    /// Bases from the root.
    pub depth: u32,
}

/// The tries of all tokens.
pub struct Followers {
    nodes: Vec<Node>,
    numbers: Numbers,
    /// What is left of a link without tokens that begin alike, by the link and the end of their range.
    known: Map<(u32, u32), Link>,
    visits: usize,
    /// Of what may begin a text.
    first: Link,
    /// By token, of what may follow it.
    roots: Vec<Link>,
}

/// A node of the trie of all tokens that stand.
struct Place {
    next: [u32; 4],
    token: u32,
    depth: u32,
    /// The sorted tokens from here on, as a range.
    range: (u32, u32),
}

/// What the tries are made from.
struct Source<'a> {
    rules: &'a Rules,
    beginnings: Beginnings,
    trie: Vec<Place>,
    /// Place of a token among the sorted, by token.
    sorted: Vec<u32>,
    /// By token, the tokens that stand and end in it.
    ending: Vec<Vec<u32>>,
}

impl Followers {
    /// From the texts of the tokens and whether each stands; `None` where there would be too many nodes.
    pub fn new(rules: &Rules, texts: &[Vec<u8>], stands: &[bool]) -> Option<Self> {
        let source = Source::new(rules, texts, stands)?;
        let mut followers = Self {
            nodes: Vec::new(),
            numbers: Numbers::new(),
            known: Map::default(),
            visits: 0,
            first: Link::NOTHING,
            roots: vec![Link::NOTHING; rules.len()],
        };
        followers.first = followers.copy(&source.trie, 0);
        followers.roots.fill(followers.first);
        for token in rules.tokens().filter(|&token| stands[token as usize]) {
            followers.close_after(token, &source);
            if followers.nodes.len() > MAX_NODES || followers.visits > MAX_VISITS {
                return None;
            }
        }
        Some(followers)
    }

    /// The root of what may follow a token, or of what may begin a text for `NONE`.
    pub fn root(&self, token: u32) -> Option<u32> {
        self.roots.get(token as usize).unwrap_or(&self.first).node()
    }

    /// A node by its number.
    pub fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    /// Makes the trie of `token` from the one that it has from its right part, and hands to the tokens that end in it
    /// what its merges had left when each was made.
    fn close_after(&mut self, token: u32, source: &Source) {
        let mut root = self.roots[token as usize];
        let mut merges = source.rules.made_of(token);
        for &ending in &source.ending[token as usize] {
            let before = merges.partition_point(|&merge| merge < ending);
            let earlier = merges.split_off(..before).unwrap_or_default();
            root = self.close(root, earlier, source);
            self.roots[ending as usize] = root;
        }
        self.roots[token as usize] = self.close(root, merges, source);
    }

    /// The trie `root` less what `merges` close.
    fn close(&mut self, root: Link, merges: &[u32], source: &Source) -> Link {
        let mut closed: Vec<Range<u32>> =
            merges.iter().map(|&merge| source.beginnings.closed(source.rules, merge)).collect();
        closed.retain(|range| !range.is_empty());
        closed.sort_unstable_by_key(|range| source.first(range));
        self.close_below(0, root, &closed, source)
    }

    /// What is left of `link`, which lies at `at` in the trie, without some ranges of tokens that begin alike, sorted by
    /// what they begin with.
    fn close_below(&mut self, at: u32, link: Link, closed: &[Range<u32>], source: &Source) -> Link {
        self.visits += 1;
        let place = &source.trie[at as usize];
        let Some(range) = closed.first().filter(|_| link != Link::NOTHING) else { return link };
        let this_too = place.token != NONE && source.first(range) == place.range.0;
        let link = if this_too { self.close_here(at, link, range, source) } else { link };
        let Some(node) = link.node() else { return link };
        let mut left = self.nodes[node as usize];
        let mut rest = &closed[usize::from(this_too)..];
        for (next, link) in place.next.into_iter().zip(&mut left.next).filter(|(next, _)| *next != NONE) {
            let end = source.trie[next as usize].range.1;
            let (below, others) = rest.split_at(rest.partition_point(|range| source.first(range) < end));
            if !below.is_empty() {
                *link = self.close_below(next, *link, below, source);
            }
            rest = others;
        }
        self.link(left)
    }

    /// What is left of `link` without tokens that begin with the token at `at`, where it lies; worked out once.
    fn close_here(&mut self, at: u32, link: Link, range: &Range<u32>, source: &Source) -> Link {
        // Different places have different links, so the link says where the range begins.
        if let Some(&known) = self.known.get(&(link.0, range.end)) {
            return known;
        }
        let tokens = source.beginnings.tokens(range.clone());
        let mut closed: Vec<u32> = tokens.iter().map(|&token| source.sorted[token as usize]).collect();
        closed.sort_unstable();
        let left = self.remove(&source.trie, at, link, &closed);
        self.known.insert((link.0, range.end), left);
        left
    }

    fn copy(&mut self, trie: &[Place], at: u32) -> Link {
        let place = &trie[at as usize];
        let next = place.next.map(|next| if next == NONE { Link::NOTHING } else { self.copy(trie, next) });
        self.link(Node { next, token: place.token, depth: place.depth })
    }

    /// What is left of `link`, which lies at `at` in the trie, without the sorted tokens `closed`, which lie below.
    fn remove(&mut self, trie: &[Place], at: u32, link: Link, closed: &[u32]) -> Link {
        self.visits += 1;
        let place = &trie[at as usize];
        if closed.is_empty() || link == Link::NOTHING {
            return link;
        }
        if closed.len() == (place.range.1 - place.range.0) as usize {
            return Link::NOTHING;
        }
        let this_too = place.token != NONE && closed[0] == place.range.0;
        let Some(node) = link.node() else { return if this_too { Link::NOTHING } else { link } };
        let mut left = self.nodes[node as usize];
        if this_too {
            left.token = NONE;
        }
        let mut rest = &closed[usize::from(this_too)..];
        for (next, link) in place.next.into_iter().zip(&mut left.next).filter(|(next, _)| *next != NONE) {
            let end = trie[next as usize].range.1;
            let (below, others) = rest.split_at(rest.partition_point(|&sorted| sorted < end));
            if !below.is_empty() {
                *link = self.remove(trie, next, *link, below);
            }
            rest = others;
        }
        self.link(left)
    }

    /// A link to a node like this one, which is kept if it is new.
    fn link(&mut self, node: Node) -> Link {
        if node.next == [Link::NOTHING; 4] {
            return Link(node.token | Link::END);
        }
        let [a, c, t, g] = node.next.map(|link| link.0);
        let number = self.numbers.of(&[a, c, t, g, node.token], |other| self.nodes[other as usize] == node);
        if number as usize == self.nodes.len() {
            self.nodes.push(node);
        }
        Link(number)
    }
}

impl<'a> Source<'a> {
    /// Place among the sorted tokens of the one that the others of a range begin with.
    fn first(&self, range: &Range<u32>) -> u32 {
        self.sorted[self.beginnings.tokens(range.clone())[0] as usize]
    }

    fn new(rules: &'a Rules, texts: &[Vec<u8>], stands: &[bool]) -> Option<Self> {
        let standing = || rules.tokens().filter(|&token| stands[token as usize]);
        let mut order: Vec<u32> = standing().collect();
        order.sort_unstable_by_key(|&token| &texts[token as usize]);
        let mut sorted = vec![NONE; rules.len()];
        (0..).zip(&order).for_each(|(at, &token)| sorted[token as usize] = at);
        let mut ending = vec![Vec::new(); rules.len()];
        for token in standing() {
            if let Some([_, right]) = rules.parts(token) {
                ending[right as usize].push(token);
            }
        }
        let trie = grow(&order, texts)?;
        Some(Self { rules, beginnings: Beginnings::new(rules, stands), trie, sorted, ending })
    }
}

/// The trie of sorted tokens.
fn grow(order: &[u32], texts: &[Vec<u8>]) -> Option<Vec<Place>> {
    let place = |at, depth| Place { next: [NONE; 4], token: NONE, depth, range: (at, at) };
    let mut trie = vec![place(0, 0)];
    for (at, &token) in (0..).zip(order) {
        let mut here = 0;
        trie[here].range.1 = at + 1;
        for (depth, &base) in (1..).zip(&texts[token as usize]) {
            let mut next = trie[here].next[usize::from(base)];
            if next == NONE {
                next = u32::try_from(trie.len()).ok()?;
                trie[here].next[usize::from(base)] = next;
                trie.push(place(at, depth));
            }
            here = next as usize;
            trie[here].range.1 = at + 1;
        }
        trie[here].token = token;
        if trie.len() > MAX_NODES {
            return None;
        }
    }
    Some(trie)
}
