//! Charts as inline SVG: axes, ticks, a legend, and marks for lines, bars, dots and intervals.
//!
//! Colours come from the page's style sheet by class (`s1` .. `s6`, `rule`), so that charts follow light and dark. All
//! charts are drawn 480 units wide: two stand side by side on a wide page, and one fills a telephone.

use std::fmt::Write;

use super::axis::Axis;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 48.0;
const LEGEND_ROW: f64 = 19.0;
/// Width of the mark of a legend's entry and of the room around it.
const LEGEND_MARK: f64 = 38.0;
/// Width of a letter of the tick labels, on the generous side.
const LETTER: f64 = 6.6;
/// More points than this are thinned out before they are drawn.
const POINTS: usize = 500;

/// A point in the units of the axes.
pub(super) type Point = (f64, f64);

/// The colour of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Series {
    First,
    Second,
    Third,
    Fourth,
    Fifth,
    Sixth,
}

/// Every colour that a series can have.
pub(super) const SERIES: [Series; 6] =
    [Series::First, Series::Second, Series::Third, Series::Fourth, Series::Fifth, Series::Sixth];

impl Series {
    const fn class(self) -> &'static str {
        match self {
            Self::First => "s1",
            Self::Second => "s2",
            Self::Third => "s3",
            Self::Fourth => "s4",
            Self::Fifth => "s5",
            Self::Sixth => "s6",
        }
    }
}

/// A chart under way; marks are drawn in the order in which they are added.
pub(super) struct Chart {
    title: String,
    description: String,
    x: Axis,
    y: Axis,
    left: f64,
    top: f64,
    marks: String,
    legend: Vec<(&'static str, &'static str, String)>,
}

impl Chart {
    /// An empty chart. `legend_rows` rows are kept free above it.
    pub(super) fn new(title: &str, description: &str, x: Axis, y: Axis, legend_rows: u32) -> Self {
        let longest = y.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        Self {
            title: title.to_owned(),
            description: description.to_owned(),
            x,
            y,
            left: 34.0 + LETTER * longest as f64,
            top: 10.0 + LEGEND_ROW * f64::from(legend_rows),
            marks: String::new(),
            legend: Vec::new(),
        }
    }

    /// A line through points; points without a number interrupt nothing and are left out.
    pub(super) fn line(&mut self, series: Series, points: &[Point]) -> &mut Self {
        let points = thinned(points);
        let mut path = String::new();
        for (index, point) in points.iter().enumerate() {
            let (x, y) = self.at(*point);
            put(&mut path, format_args!("{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" }));
        }
        self.mark(format_args!(r#"<path class="line {}" d="{path}"/>"#, series.class()))
    }

    /// A dot at each point, with a text for who points at it.
    pub(super) fn dots(&mut self, series: Series, points: &[(Point, String)]) -> &mut Self {
        for (point, text) in points.iter().filter(|(point, _)| is_number(point)) {
            let ((x, y), text) = (self.at(*point), escape(text));
            let class = series.class();
            self.mark(format_args!(
                r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="4"><title>{text}</title></circle>"#
            ));
        }
        self
    }

    /// A diamond, so that a series of one stands out by its shape as well.
    pub(super) fn diamond(&mut self, series: Series, point: Point, text: &str) -> &mut Self {
        if !is_number(&point) {
            return self;
        }
        let ((x, y), class, text) = (self.at(point), series.class(), escape(text));
        self.mark(format_args!(
            r#"<path class="dot {class}" d="M{x:.1} {:.1}l6 6l-6 6l-6 -6Z"><title>{text}</title></path>"#,
            y - 6.0
        ))
    }

    /// A bar from the bottom, between two values of x.
    pub(super) fn bar(
        &mut self,
        series: Series,
        (from, to): (f64, f64),
        value: f64,
        text: &str,
    ) -> &mut Self {
        let ((left, y), (right, bottom)) = (self.at((from, value)), self.at((to, f64::NEG_INFINITY)));
        let (width, class, text) = ((right - left - 0.8).max(0.8), series.class(), escape(text));
        let height = bottom - y;
        self.mark(format_args!(
            r#"<rect class="bar {class}" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{text}</title></rect>"#
        ))
    }

    /// An interval at x, with caps.
    pub(super) fn interval(&mut self, series: Series, x: f64, (low, high): (f64, f64)) -> &mut Self {
        let ((x, top), (_, bottom)) = (self.at((x, high)), self.at((x, low)));
        let (class, left, right) = (series.class(), x - 5.0, x + 5.0);
        self.mark(format_args!(
            r#"<path class="line {class}" d="M{left:.1} {top:.1}H{right:.1}M{x:.1} {top:.1}V{bottom:.1}M{left:.1} {bottom:.1}H{right:.1}"/>"#
        ))
    }

    /// A dashed line across the chart at a value of y.
    pub(super) fn rule(&mut self, class: &str, value: f64) -> &mut Self {
        let (_, y) = self.at((f64::NEG_INFINITY, value));
        let (left, right) = (self.left, WIDTH - RIGHT);
        self.mark(format_args!(r#"<path class="line {class} dashed" d="M{left:.1} {y:.1}H{right:.1}"/>"#))
    }

    /// An entry of the legend: `line`, `dashed` or `block`, in the colour of a class.
    pub(super) fn legend(&mut self, shape: &'static str, series: Option<Series>, text: &str) -> &mut Self {
        self.legend.push((shape, series.map_or("rule", Series::class), text.to_owned()));
        self
    }

    /// Rows that a legend of these texts takes at most.
    pub(super) fn legend_rows<'a>(texts: impl Iterator<Item = &'a str>) -> u32 {
        let widest = WIDTH - RIGHT - 80.0;
        let (mut rows, mut x) = (1, 0.0);
        for text in texts {
            let width = LEGEND_MARK + LETTER * text.chars().count() as f64;
            if x > 0.0 && x + width > widest {
                (rows, x) = (rows + 1, 0.0);
            }
            x += width;
        }
        rows
    }

    /// The finished chart.
    pub(super) fn svg(&self) -> String {
        let (title, description) = (escape(&self.title), escape(&self.description));
        let (axes, legend, marks) = (self.axes(), self.legend_entries(), &self.marks);
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
             <title>{title}</title><desc>{description}</desc>{axes}{marks}{legend}</svg>"
        )
    }

    fn mark(&mut self, mark: std::fmt::Arguments<'_>) -> &mut Self {
        put(&mut self.marks, mark);
        self
    }

    /// Where a point lies on the drawing; infinite values lie on the edge.
    fn at(&self, (x, y): Point) -> (f64, f64) {
        let place =
            |axis: &Axis, value: f64| if value == f64::NEG_INFINITY { 0.0 } else { axis.place(value) };
        let (width, height) = (WIDTH - RIGHT - self.left, HEIGHT - BOTTOM - self.top);
        (self.left + width * place(&self.x, x), self.top + height * (1.0 - place(&self.y, y)))
    }

    fn axes(&self) -> String {
        let mut svg = String::new();
        let (left, right, bottom) = (self.left, WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, text) in &self.y.ticks {
            let (_, y) = self.at((f64::NEG_INFINITY, *value));
            put(&mut svg, format_args!(r#"<path class="grid" d="M{left:.1} {y:.1}H{right:.1}"/>"#));
            put(
                &mut svg,
                format_args!(
                    r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                    left - 7.0,
                    y + 4.0,
                    escape(text)
                ),
            );
        }
        for (value, text) in &self.x.ticks {
            let (x, _) = self.at((*value, f64::NEG_INFINITY));
            put(&mut svg, format_args!(r#"<path class="axis" d="M{x:.1} {bottom:.1}v4"/>"#));
            put(
                &mut svg,
                format_args!(
                    r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                    bottom + 18.0,
                    escape(text)
                ),
            );
        }
        put(&mut svg, format_args!(r#"<path class="axis" d="M{left:.1} {bottom:.1}H{right:.1}"/>"#));
        self.axis_labels(&mut svg);
        svg
    }

    fn axis_labels(&self, svg: &mut String) {
        let across = f64::midpoint(self.left, WIDTH - RIGHT);
        let middle = f64::midpoint(self.top, HEIGHT - BOTTOM);
        let (x, y) = (escape(&self.x.label), escape(&self.y.label));
        put(
            svg,
            format_args!(
                r#"<text class="label" x="{across:.1}" y="{:.1}" text-anchor="middle">{x}</text>"#,
                HEIGHT - 8.0
            ),
        );
        put(
            svg,
            format_args!(
                r#"<text class="label" transform="translate(14 {middle:.1}) rotate(-90)" text-anchor="middle">{y}</text>"#
            ),
        );
    }

    /// The legend, from left to right, on as many rows as it takes.
    fn legend_entries(&self) -> String {
        let (mut svg, mut x, mut y) = (String::new(), self.left, 14.0);
        for (shape, class, text) in &self.legend {
            let width = LEGEND_MARK + LETTER * text.chars().count() as f64;
            if x > self.left && x + width > WIDTH {
                (x, y) = (self.left, y + LEGEND_ROW);
            }
            put(&mut svg, format_args!("{}", swatch(shape, class, x, y)));
            put(
                &mut svg,
                format_args!(
                    r#"<text class="tick" x="{:.1}" y="{:.1}">{}</text>"#,
                    x + 22.0,
                    y + 4.0,
                    escape(text)
                ),
            );
            x += width;
        }
        svg
    }
}

fn swatch(shape: &str, class: &str, x: f64, y: f64) -> String {
    match shape {
        "block" => format!(
            r#"<rect class="bar {class}" x="{:.1}" y="{:.1}" width="12" height="10"/>"#,
            x + 2.0,
            y - 5.0
        ),
        "dot" => format!(r#"<circle class="dot {class}" cx="{:.1}" cy="{y:.1}" r="4"/>"#, x + 8.0),
        "diamond" => {
            format!(r#"<path class="dot {class}" d="M{:.1} {:.1}l6 6l-6 6l-6 -6Z"/>"#, x + 8.0, y - 6.0)
        }
        dash => format!(r#"<path class="line {class} {dash}" d="M{x:.1} {y:.1}h17"/>"#),
    }
}

/// At most about [`POINTS`] points: of each stretch the lowest and the highest, so that the line looks the same.
fn thinned(points: &[Point]) -> Vec<Point> {
    let points: Vec<Point> = points.iter().copied().filter(is_number).collect();
    if points.len() <= POINTS {
        return points;
    }
    let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
    let ends = |stretch: &[Point]| {
        let mut ends: Vec<Point> = [stretch.iter().min_by(by_value), stretch.iter().max_by(by_value)]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        ends
    };
    points.chunks(points.len().div_ceil(POINTS / 2)).flat_map(ends).collect()
}

fn is_number(&(x, y): &Point) -> bool {
    x.is_finite() && y.is_finite()
}

/// Appends formatted text.
pub(super) fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    svg.write_fmt(text).unwrap_or_default();
}

/// Text that stands for itself in HTML and SVG, in quotation marks as well.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart::new("a < b", "c & d", Axis::tight("x", 0.0, 10.0), Axis::linear("y", 0.0, 1.0), 1)
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape(r#"<a href="x">'&'</a>"#), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
        let svg =
            chart().dots(Series::First, &[((1.0, 0.5), "<script>".into())]).legend("line", None, "<b>").svg();
        assert!(svg.contains("<title>a &lt; b</title><desc>c &amp; d</desc>"));
        assert!(!svg.contains("<script>") && !svg.contains("<b>"));
    }

    #[test]
    fn marks_lie_inside_the_axes() {
        let chart = chart();
        let (left, bottom) = chart.at((0.0, 0.0));
        let (right, top) = chart.at((10.0, 1.0));
        assert_eq!((left, bottom), (chart.left, HEIGHT - BOTTOM));
        assert_eq!((right, top), (WIDTH - RIGHT, chart.top));
        assert_eq!(chart.at((99.0, -9.0)), (right, bottom));
    }

    #[test]
    fn values_that_are_no_numbers_are_not_drawn() {
        let mut chart = chart();
        chart.line(Series::First, &[(0.0, 0.1), (1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 0.2)]);
        chart.dots(Series::First, &[((f64::NAN, 0.5), String::new())]);
        chart.diamond(Series::First, (1.0, f64::NAN), "");
        let svg = chart.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("<circle"));
        assert_eq!(svg.matches('L').count(), 1);
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let mut points: Vec<Point> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[5_003].1 = 99.0;
        points[7_777].1 = -99.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.contains(&(5_003.0, 99.0)) && thin.contains(&(7_777.0, -99.0)));
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn long_legends_take_another_row() {
        let mut chart = chart();
        chart.legend("line", None, &"a".repeat(40)).legend("block", None, &"b".repeat(40));
        let entries = chart.legend_entries();
        assert!(entries.contains(r#"y="18.0""#) && entries.contains(r#"y="37.0""#), "{entries}");
    }
}
