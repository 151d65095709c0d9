//! The workflow as a drawing: stages in layers from top to bottom, edges from what is read to who reads it.
//!
//! A stage lies one layer below the lowest of those that it reads from. An edge that passes layers runs in a lane beside
//! their boxes; edges from the same stage share a lane. On the page the expansions of a matrix stage are one box; a
//! drawing of its own has a box for each.

use std::collections::{BTreeMap, BTreeSet};

use super::chart::{escape, put};
use super::number;
use super::{Stage, Status};

const BOX_WIDTH: f64 = 156.0;
const BOX_HEIGHT: f64 = 44.0;
const LANE_WIDTH: f64 = 10.0;
const GAP: f64 = 12.0;
const LAYER: f64 = 76.0;
const MARGIN: f64 = 6.0;
/// Letters of a name and of the line below it that fit into a box.
const NAME_LETTERS: usize = 18;
const KIND_LETTERS: usize = 23;
/// The same for drawings of their own, whose boxes grow with the longest text.
const STANDALONE_LETTERS: usize = 48;
const LETTER_WIDTH: f64 = 8.6;
/// Sweeps over the layers; more do not change workflows of some dozens of stages.
const SWEEPS: usize = 24;

/// Draws the stages for the page; nothing when there are none.
pub(super) fn svg(stages: &[Stage]) -> Option<String> {
    let (stages, numbers): (Vec<Stage>, Vec<usize>) = folded(stages).into_iter().unzip();
    let boxes = |index: usize, layout: &Layout| drawn_stage(numbers[index], &stages[index], layout, index);
    drawing(&stages, BOX_WIDTH, r#"class="dag""#, "", boxes)
}

/// Draws stages that need not have run as an SVG file of its own, light or dark as the reader likes it; nothing when there
/// are none. Of each stage the name, the kind and the inputs are shown.
pub fn standalone(stages: &[Stage]) -> Option<String> {
    let letters = |stage: &Stage| stage.name.chars().count().max(stage.kind.chars().count());
    let most = stages.iter().map(letters).max().unwrap_or(0).min(STANDALONE_LETTERS);
    let width = BOX_WIDTH.max(LETTER_WIDTH * most as f64 + 2.0 * GAP);
    let boxes = |index: usize, layout: &Layout| {
        let stage = &stages[index];
        let full = escape(&format!("{} ({})", stage.name, stage.kind));
        let [name, kind] =
            [&stage.name, &stage.kind].map(|text| escape(&shortened(text, STANDALONE_LETTERS)));
        format!("<g><title>{full}</title>{}</g>", boxed(layout, index, "stage", &name, &kind))
    };
    let style = format!("<style>{}</style>", include_str!("graph.css").trim());
    drawing(stages, width, r#"xmlns="http://www.w3.org/2000/svg""#, &style, boxes)
}

/// The picture: a head, the edges, and what `boxes` draws of each stage.
fn drawing(
    stages: &[Stage],
    box_width: f64,
    attributes: &str,
    style: &str,
    boxes: impl Fn(usize, &Layout) -> String,
) -> Option<String> {
    if stages.is_empty() {
        return None;
    }
    let edges = edges(stages);
    let layout = Layout::new(stages.len(), &edges, box_width);
    let (width, height) = layout.size();
    let mut svg = String::new();
    let edge_count = edges.len();
    put(
        &mut svg,
        format_args!(
            "<svg {attributes} viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\" \
             aria-label=\"The stages of the workflow\"><title>The stages of the workflow</title>\
             <desc>{} stages from top to bottom, {edge_count} edges from what is read to who reads it.</desc>{style}\
             <defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path class=\"arrow\" d=\"M0 0.5L8 4L0 7.5Z\"/></marker></defs>",
            stages.len()
        ),
    );
    for &(from, to) in &edges {
        let class = if is_implied(&edges, from, to) { "edge implied" } else { "edge" };
        let route = layout.route(from, to);
        put(&mut svg, format_args!(r#"<path class="{class}" marker-end="url(#arrow)" d="{route}"/>"#));
    }
    (0..stages.len()).for_each(|index| svg.push_str(&boxes(index, &layout)));
    svg.push_str("</svg>");
    Some(svg)
}

/// What an expansion `stage@axis=value` is one of.
fn base(name: &str) -> &str {
    name.split_once('@').map_or(name, |(stage, _)| stage)
}

/// The stages with the expansions of each in one, and the number of its first on the page.
fn folded(stages: &[Stage]) -> Vec<(Stage, usize)> {
    let mut folded: Vec<(Stage, usize)> = Vec::new();
    for (number, stage) in (1..).zip(stages) {
        let inputs = stage.inputs.iter().map(|name| base(name).to_owned()).collect();
        let stage = Stage { name: base(&stage.name).to_owned(), inputs, ..stage.clone() };
        match folded.iter_mut().find(|(other, _)| other.name == stage.name) {
            Some((other, _)) => fold(other, stage),
            None => folded.push((stage, number)),
        }
    }
    for (stage, _) in &mut folded {
        let times = stages.iter().filter(|other| base(&other.name) == stage.name).count();
        if times > 1 {
            stage.kind = format!("{times} × {}", stage.kind);
        }
    }
    folded
}

fn fold(into: &mut Stage, stage: Stage) {
    let seconds = [into.wall_seconds, stage.wall_seconds].into_iter().flatten();
    into.wall_seconds = seconds.reduce(|a, b| a + b);
    into.inputs.extend(stage.inputs);
    if stage.status == Status::Ran {
        into.status = Status::Ran;
    }
}

/// Pairs of stages (read from, reader), by index, once each and forward only.
fn edges(stages: &[Stage]) -> Vec<(usize, usize)> {
    let by_name: BTreeMap<&str, usize> =
        stages.iter().enumerate().map(|(index, stage)| (&*stage.name, index)).collect();
    let inputs = |(to, stage): (usize, &Stage)| {
        let known = stage.inputs.iter().filter_map(|name| by_name.get(&**name));
        known.map(|&from| (from, to)).filter(|(from, to)| from != to).collect::<Vec<_>>()
    };
    let all: BTreeSet<(usize, usize)> = stages.iter().enumerate().flat_map(inputs).collect();
    let all: Vec<(usize, usize)> = all.into_iter().collect();
    let depths = depths(stages.len(), &all);
    // Only a cycle, which a workflow does not have, makes an edge go up.
    all.into_iter().filter(|&(from, to)| depths[from] < depths[to]).collect()
}

/// Whether a longer path leads along an edge as well.
fn is_implied(edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let mut reached: BTreeSet<usize> = after(edges, from).filter(|&next| next != to).collect();
    let mut open: Vec<usize> = reached.iter().copied().collect();
    while let Some(stage) = open.pop() {
        open.extend(after(edges, stage).filter(|&next| reached.insert(next)));
    }
    reached.contains(&to)
}

/// The stages that read from a stage.
fn after(edges: &[(usize, usize)], stage: usize) -> impl Iterator<Item = usize> {
    edges.iter().filter(move |edge| edge.0 == stage).map(|edge| edge.1)
}

/// The layer of each stage: the length of the longest path to it.
fn depths(stages: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut depths = vec![0; stages];
    for _ in 0..stages {
        for &(from, to) in edges {
            depths[to] = depths[to].max(depths[from] + 1).min(stages - 1);
        }
    }
    depths
}

/// What takes room in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Stage(usize),
    /// Where the edges of a stage pass a layer.
    Lane(usize, usize),
}

impl Item {
    fn is_lane(self) -> bool {
        matches!(self, Self::Lane(..))
    }
}

/// Items in layers, from left to right, and the middle of each.
struct Layout {
    box_width: f64,
    depths: Vec<usize>,
    layers: Vec<Vec<Item>>,
    middles: BTreeMap<Item, f64>,
}

impl Layout {
    fn new(stages: usize, edges: &[(usize, usize)], box_width: f64) -> Self {
        let depths = depths(stages, edges);
        let mut layers: Vec<Vec<Item>> =
            vec![Vec::new(); depths.iter().max().map_or(0, |deepest| deepest + 1)];
        for (stage, &depth) in depths.iter().enumerate() {
            layers[depth].push(Item::Stage(stage));
        }
        let lanes =
            |&(from, to): &(usize, usize)| (depths[from] + 1..depths[to]).map(move |layer| (from, layer));
        for (from, layer) in edges.iter().flat_map(lanes).collect::<BTreeSet<_>>() {
            layers[layer].push(Item::Lane(from, layer));
        }
        let mut layout = Self { box_width, depths, layers, middles: BTreeMap::new() };
        layout.arrange(edges);
        layout
    }

    /// Orders the layers, then draws items towards their neighbours, back and forth.
    fn arrange(&mut self, edges: &[(usize, usize)]) {
        let neighbours = self.neighbours(edges);
        for layer in 0..self.layers.len() {
            self.spread(layer, &BTreeMap::new());
        }
        for sweep in 0..SWEEPS {
            let layers: Vec<usize> = (0..self.layers.len()).collect();
            for layer in if sweep % 2 == 0 { layers } else { layers.into_iter().rev().collect() } {
                let wished = self.wishes(layer, &neighbours);
                if sweep < SWEEPS / 2 {
                    let key = |item: &Item| wished.get(item).copied().unwrap_or(0.0);
                    self.layers[layer].sort_by(|a, b| key(a).total_cmp(&key(b)));
                }
                self.spread(layer, &wished);
            }
        }
        let leftmost = self
            .middles
            .iter()
            .map(|(&item, middle)| middle - self.width(item) / 2.0)
            .fold(f64::INFINITY, f64::min);
        self.middles.values_mut().for_each(|middle| *middle += MARGIN - leftmost);
    }

    /// The items that each is joined to by one step of an edge.
    fn neighbours(&self, edges: &[(usize, usize)]) -> BTreeMap<Item, BTreeSet<Item>> {
        let mut neighbours: BTreeMap<Item, BTreeSet<Item>> = BTreeMap::new();
        for &(from, to) in edges {
            for pair in self.path(from, to).windows(2) {
                neighbours.entry(pair[0]).or_default().insert(pair[1]);
                neighbours.entry(pair[1]).or_default().insert(pair[0]);
            }
        }
        neighbours
    }

    /// Where the items of a layer would like to be: in the middle of their neighbours, those of their own kind counting
    /// most, so that chains of boxes and lanes run straight.
    fn wishes(&self, layer: usize, neighbours: &BTreeMap<Item, BTreeSet<Item>>) -> BTreeMap<Item, f64> {
        let wish = |&item: &Item| {
            let weights = neighbours.get(&item)?.iter().map(|&other| {
                let weight = if item.is_lane() == other.is_lane() { 8.0 } else { 1.0 };
                (weight, weight * self.middle(other))
            });
            let (weight, sum) = weights.fold((0.0, 0.0), |(weight, sum), (w, s)| (weight + w, sum + s));
            Some((item, sum / weight))
        };
        self.layers[layer].iter().filter_map(wish).collect()
    }

    /// Places a layer's items in their order, without overlap, as near to their wishes as that allows.
    fn spread(&mut self, layer: usize, wished: &BTreeMap<Item, f64>) {
        let items = &self.layers[layer];
        let wishes: Vec<f64> = items.iter().map(|item| wished.get(item).copied().unwrap_or(0.0)).collect();
        let apart = |i: usize| f64::midpoint(self.width(items[i]), self.width(items[i + 1])) + GAP;
        let (mut from_left, mut from_right) = (wishes.clone(), wishes);
        for i in 1..items.len() {
            from_left[i] = from_left[i].max(from_left[i - 1] + apart(i - 1));
        }
        for i in (1..items.len()).rev() {
            from_right[i - 1] = from_right[i - 1].min(from_right[i] - apart(i - 1));
        }
        for (i, &item) in items.iter().enumerate() {
            self.middles.insert(item, f64::midpoint(from_left[i], from_right[i]));
        }
    }

    /// The items that an edge passes, its ends included.
    fn path(&self, from: usize, to: usize) -> Vec<Item> {
        let lanes = (self.depths[from] + 1..self.depths[to]).map(|layer| Item::Lane(from, layer));
        [Item::Stage(from)].into_iter().chain(lanes).chain([Item::Stage(to)]).collect()
    }

    fn width(&self, item: Item) -> f64 {
        if item.is_lane() { LANE_WIDTH } else { self.box_width }
    }

    fn middle(&self, item: Item) -> f64 {
        self.middles.get(&item).copied().unwrap_or(0.0)
    }

    /// The middle of an item, and its top.
    fn place(&self, item: Item) -> (f64, f64) {
        let layer = match item {
            Item::Stage(stage) => self.depths[stage],
            Item::Lane(_, layer) => layer,
        };
        (self.middle(item), MARGIN + LAYER * layer as f64)
    }

    fn size(&self) -> (f64, f64) {
        let right =
            self.middles.iter().map(|(&item, middle)| middle + self.width(item) / 2.0).fold(0.0, f64::max);
        (right + MARGIN, LAYER * (self.layers.len() - 1) as f64 + BOX_HEIGHT + 2.0 * MARGIN)
    }

    /// The path of an edge: curves between layers, straight lines in lanes.
    fn route(&self, from: usize, to: usize) -> String {
        let path = self.path(from, to);
        let (x, y) = self.place(path[0]);
        let mut route = format!("M{x:.1} {:.1}", y + BOX_HEIGHT);
        let mut bottom = y + BOX_HEIGHT;
        for (index, &item) in path.iter().enumerate().skip(1) {
            let (before, _) = self.place(path[index - 1]);
            let (x, top) = self.place(item);
            let bend = f64::midpoint(bottom, top);
            put(&mut route, format_args!("C{before:.1} {bend:.1} {x:.1} {bend:.1} {x:.1} {top:.1}"));
            bottom = top + BOX_HEIGHT;
            if item.is_lane() {
                put(&mut route, format_args!("V{bottom:.1}"));
            }
        }
        route
    }
}

/// A box that leads to the stage's details.
fn drawn_stage(number: usize, stage: &Stage, layout: &Layout, index: usize) -> String {
    let (status, class) = match stage.status {
        Status::Ran => (stage.wall_seconds.map_or_else(|| "ran".to_owned(), number::seconds), "ran"),
        Status::Reused => ("reused".to_owned(), "reused"),
    };
    let (name, kind) = (
        escape(&shortened(&stage.name, NAME_LETTERS)),
        escape(&shortened(&format!("{} · {status}", stage.kind), KIND_LETTERS)),
    );
    let full = escape(&format!("{} ({}), {status}", stage.name, stage.kind));
    let drawn = boxed(layout, index, &format!("stage {class}"), &name, &kind);
    format!("<a href=\"#stage-{number}\"><title>{full}</title>{drawn}</a>")
}

/// A box with two lines of text, which are escaped already.
fn boxed(layout: &Layout, index: usize, class: &str, name: &str, kind: &str) -> String {
    let (middle, top) = layout.place(Item::Stage(index));
    let (width, left) = (layout.box_width, middle - layout.box_width / 2.0);
    format!(
        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"5\"/>\
         <text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\
         <text class=\"kind\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{kind}</text>",
        top + 18.0,
        top + 34.0
    )
}

fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(edges: &[(&str, &[&str])]) -> Vec<Stage> {
        let stage = |(name, inputs): &(&str, &[&str])| Stage {
            name: (*name).to_owned(),
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            ..Stage::default()
        };
        edges.iter().map(stage).collect()
    }

    fn diamond() -> Vec<Stage> {
        stages(&[
            ("a", &[]),
            ("b", &["a"]),
            ("c", &["a", "a", "gone"]),
            ("d", &["b", "c"]),
            ("e", &["d", "a"]),
        ])
    }

    #[test]
    fn stages_lie_below_what_they_read() {
        let edges = edges(&diamond());
        assert_eq!(edges, [(0, 1), (0, 2), (0, 4), (1, 3), (2, 3), (3, 4)]);
        assert_eq!(depths(5, &edges), [0, 1, 1, 2, 3]);
    }

    #[test]
    fn items_of_a_layer_do_not_overlap() {
        for stages in [diamond(), stages(&[("a", &[]), ("b", &[]), ("c", &[]), ("d", &["a", "b", "c"])])] {
            let layout = Layout::new(stages.len(), &edges(&stages), BOX_WIDTH);
            for layer in &layout.layers {
                for pair in layer.windows(2) {
                    let apart = layout.middle(pair[1]) - layout.middle(pair[0]);
                    assert!(
                        apart >= f64::midpoint(layout.width(pair[0]), layout.width(pair[1])) + GAP - 1e-6,
                        "{pair:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn expansions_are_one_box() {
        let stages = stages(&[("a", &[]), ("b@x=1", &["a"]), ("b@x=2", &["a"]), ("c", &["b@x=1", "b@x=2"])]);
        let folded = folded(&stages);
        let names: Vec<(&str, usize)> =
            folded.iter().map(|(stage, number)| (&*stage.name, *number)).collect();
        assert_eq!(names, [("a", 1), ("b", 2), ("c", 4)]);
        assert!(folded[1].0.kind.starts_with("2 × "), "{}", folded[1].0.kind);
        let drawn = svg(&stages).unwrap();
        assert_eq!(drawn.matches("<rect").count(), 3);
        assert!(drawn.contains("2 edges from"), "{drawn}");
    }

    #[test]
    fn long_edges_run_in_lanes() {
        let layout = Layout::new(5, &edges(&diamond()), BOX_WIDTH);
        assert_eq!(layout.path(0, 4), [Item::Stage(0), Item::Lane(0, 1), Item::Lane(0, 2), Item::Stage(4)]);
    }

    #[test]
    fn edges_beside_a_longer_path_are_implied() {
        let edges = edges(&diamond());
        let implied: Vec<_> = edges.iter().filter(|&&(from, to)| is_implied(&edges, from, to)).collect();
        assert_eq!(implied, [&(0, 4)]);
    }

    #[test]
    fn cycles_and_strangers_are_survived() {
        for stages in
            [stages(&[("a", &["b"]), ("b", &["a"])]), stages(&[("a", &["a"])]), stages(&[("a", &["x"])])]
        {
            assert!(svg(&stages).unwrap().contains("</svg>"));
        }
        assert_eq!(svg(&[]), None);
    }

    #[test]
    fn names_are_escaped_and_shortened() {
        let drawn = svg(&stages(&[("<script>alert(1)</script>", &[])])).unwrap();
        assert!(!drawn.contains("<script") && drawn.contains("&lt;script&gt;alert(1)&lt;…"), "{drawn}");
    }

    #[test]
    fn a_drawing_of_its_own_has_every_expansion_and_its_colours() {
        let long = format!("c@x={}", "9".repeat(60));
        let stages = stages(&[("a", &[]), ("b@x=1", &["a"]), ("b@x=2", &["a"]), (long.as_str(), &["b@x=1"])]);
        let drawn = standalone(&stages).unwrap();
        assert!(drawn.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 4);
        for part in [">b@x=1</text>", ">b@x=2</text>", "prefers-color-scheme: dark", "9…</text>"] {
            assert!(drawn.contains(part), "{part}: {drawn}");
        }
        assert_eq!(standalone(&[]), None);
    }
}
