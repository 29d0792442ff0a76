//! Just enough SVG: shapes with CSS classes, tooltips, scales and round tick values.
//!
//! Why not a plotting library: plotters, the one at hand, writes colours into every shape (no dark mode), whole-pixel
//! coordinates, no `<title>` tooltips, and no legend mark for a dashed line. What a sweep's figures need is lines, areas, nine markers
//! and two kinds of axis, and that fits in this file. Colours are literal in the style sheet inside, not variables: a figure that is a
//! file of its own is also read by programs that know no variables.
//! Coordinates are pixels, y downwards, as in SVG itself. All text goes through [`escape`].

use std::fmt::Write as _;

/// A point in pixels.
pub(super) type Px = (f64, f64);

/// Text made safe inside elements and double-quoted attributes of HTML and XML.
///
/// Control characters that XML cannot carry, not even escaped, become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t' | '\r') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Maps values to pixels, evenly (or evenly in their binary logarithm).
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Values at the two ends.
    pub(super) domain: (f64, f64),
    /// Pixels at the two ends.
    pub(super) range: (f64, f64),
    /// Whether doubling the value is one step.
    pub(super) log2: bool,
}

impl Scale {
    /// Pixel of a value; the middle of the range if the domain is a single value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log2 { v.log2() } else { v };
        let (from, to) = (f(self.domain.0), f(self.domain.1));
        let share = if to > from { (f(value) - from) / (to - from) } else { 0.5 };
        self.range.0 + share * (self.range.1 - self.range.0)
    }
}

/// Round values (steps of 1, 2 or 5 times a power of ten) that enclose `[lo, hi]`, about `most` of them.
pub(super) fn ticks(lo: f64, hi: f64, most: usize) -> Vec<f64> {
    let rough = ((hi - lo) / most as f64).max(1e-9);
    let decade = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|s| *s >= rough).unwrap_or(10.0 * decade);
    let (first, last) = ((lo / step + 1e-9).floor() as i64, (hi / step - 1e-9).ceil() as i64);
    (first..=last.max(first + 1)).map(|i| i as f64 * step).collect()
}

/// Number of series styles and markers; series beyond that start again.
pub(super) const STYLES: usize = 8;

/// The marker of what a CRF refined, whatever it refined: a triangle that stands on its tip.
pub(super) const REFINED: usize = usize::MAX;

fn points(points: &[Px]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// An SVG document under construction.
#[derive(Debug)]
pub(super) struct Svg {
    size: Px,
    label: String,
    body: String,
}

impl Svg {
    /// An empty drawing; `label` is what a screen reader says.
    pub(super) fn new(size: Px, label: &str) -> Self {
        let mut svg = Self { size, label: escape(label), body: String::new() };
        svg.rect((0.0, 0.0), size, "paper");
        svg
    }

    /// Text whose anchor is set by its class: start, or `mid` or `end`.
    pub(super) fn text(&mut self, (x, y): Px, class: &str, text: &str) {
        self.push(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    /// Text that reads upwards from the point, or centred on it with the class `mid`.
    pub(super) fn text_up(&mut self, (x, y): Px, class: &str, text: &str) {
        let text = escape(text);
        self.push(format_args!(
            "<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\">{text}</text>"
        ));
    }

    /// A filled rectangle from its top left corner.
    pub(super) fn rect(&mut self, (x, y): Px, (w, h): Px, class: &str) {
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A line through points.
    pub(super) fn polyline(&mut self, points: &[Px], class: &str) {
        self.push(format_args!("<polyline points=\"{}\" class=\"{class}\"/>", self::points(points)));
    }

    /// The area between two lines over the same places, each from left to right.
    pub(super) fn area(&mut self, upper: &[Px], lower: &[Px], class: &str) {
        let outline: Vec<Px> = upper.iter().chain(lower.iter().rev()).copied().collect();
        self.push(format_args!("<polygon points=\"{}\" class=\"{class}\"/>", points(&outline)));
    }

    /// A square of a matrix, filled to a share of its colour, with a tooltip.
    pub(super) fn cell(&mut self, (x, y): Px, size: f64, share: f64, tooltip: &str) {
        let tooltip = escape(tooltip);
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{size:.1}\" height=\"{size:.1}\" class=\"cell\" \
             fill-opacity=\"{share:.3}\"><title>{tooltip}</title></rect>"
        ));
    }

    /// Shapes that share a class and, unless it is empty, a tooltip.
    pub(super) fn group(&mut self, class: &str, tooltip: &str, draw: impl FnOnce(&mut Self)) {
        self.push(format_args!("<g class=\"{class}\">"));
        if !tooltip.is_empty() {
            self.push(format_args!("<title>{}</title>", escape(tooltip)));
        }
        draw(self);
        self.push(format_args!("</g>"));
    }

    /// Shapes that are shown and hidden together, in the legend and in all panels.
    pub(super) fn series(&mut self, class: &str, name: &str, draw: impl FnOnce(&mut Self)) {
        self.push(format_args!("<g class=\"{class}\" data-series=\"{}\">", escape(name)));
        draw(self);
        self.push(format_args!("</g>"));
    }

    /// The marker of a style: told apart by shape as well as by colour. [`REFINED`] is one of its own.
    pub(super) fn marker(&mut self, (x, y): Px, style: usize, scale: f64) {
        let corners: &[Px] = match if style == REFINED { style } else { style % STYLES } {
            0 => {
                return self.push(format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" class=\"mark\"/>",
                    4.0 * scale
                ));
            }
            REFINED => &[(0.0, 5.0), (4.8, -3.6), (-4.8, -3.6)],
            1 => &[(-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)],
            2 => &[(0.0, -4.8), (4.6, 3.6), (-4.6, 3.6)],
            3 => &[(0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)],
            4 => &[
                (-1.6, -5.0),
                (1.6, -5.0),
                (1.6, -1.6),
                (5.0, -1.6),
                (5.0, 1.6),
                (1.6, 1.6),
                (1.6, 5.0),
                (-1.6, 5.0),
                (-1.6, 1.6),
                (-5.0, 1.6),
                (-5.0, -1.6),
                (-1.6, -1.6),
            ],
            5 => &[(0.0, -4.8), (4.6, -1.5), (2.8, 3.9), (-2.8, 3.9), (-4.6, -1.5)],
            6 => &[
                (0.0, -5.2),
                (1.6, -1.6),
                (5.2, 0.0),
                (1.6, 1.6),
                (0.0, 5.2),
                (-1.6, 1.6),
                (-5.2, 0.0),
                (-1.6, -1.6),
            ],
            _ => &[
                (-4.2, -4.2),
                (0.0, -1.6),
                (4.2, -4.2),
                (1.6, 0.0),
                (4.2, 4.2),
                (0.0, 1.6),
                (-4.2, 4.2),
                (-1.6, 0.0),
            ],
        };
        let corners: Vec<Px> = corners.iter().map(|(dx, dy)| (x + scale * dx, y + scale * dy)).collect();
        self.push(format_args!("<polygon points=\"{}\" class=\"mark\"/>", points(&corners)));
    }

    /// The document, with its style sheet inside.
    pub(super) fn finish(self) -> String {
        let Self { size: (w, h), label, body } = self;
        let style = include_str!("figure.css");
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fl\" viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" \
             height=\"{h:.0}\" role=\"img\" aria-label=\"{label}\">\n<style>\n{style}</style>\n{body}</svg>\n"
        )
    }

    fn push(&mut self, piece: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{piece}").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_characters_are_escaped() {
        assert_eq!(escape("<a href=\"x\">'&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;\u{fffd}");
        assert_eq!(escape("Straße → 3 µm\n"), "Straße → 3 µm\n");
    }

    #[test]
    fn scales_hit_their_ends_and_log_steps_are_even() {
        let scale = Scale { domain: (4.0, 64.0), range: (0.0, 400.0), log2: true };
        assert_eq!([4.0, 8.0, 16.0, 32.0, 64.0].map(|v| scale.at(v)), [0.0, 100.0, 200.0, 300.0, 400.0]);
        let flipped = Scale { domain: (0.0, 10.0), range: (100.0, 0.0), log2: false };
        assert_eq!([0.0, 2.5, 10.0].map(|v| flipped.at(v)), [100.0, 75.0, 0.0]);
        assert_eq!(Scale { domain: (5.0, 5.0), range: (0.0, 10.0), log2: true }.at(5.0), 5.0);
    }

    #[test]
    fn ticks_are_round_and_enclose() {
        assert_eq!(ticks(13.0, 58.0, 5), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(ticks(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!(ticks(7.0, 7.0, 5).len() >= 2);
    }

    #[test]
    fn documents_carry_style_tooltip_and_label() {
        let mut svg = Svg::new((100.0, 50.0), "a < b");
        svg.group("s0", "pca & 3", |g| (0..=STYLES).for_each(|style| g.marker((10.0, 10.0), style, 1.0)));
        svg.polyline(&[(0.0, 1.0), (2.0, 3.0)], "line");
        svg.series("s1", "p<ca", |g| g.area(&[(0.0, 1.0), (2.0, 1.0)], &[(0.0, 3.0), (2.0, 3.0)], "band"));
        svg.cell((1.0, 2.0), 3.0, 0.5, "a > b");
        let text = svg.finish();
        assert!(text.contains("aria-label=\"a &lt; b\"") && text.contains("<title>pca &amp; 3</title>"));
        assert!(text.contains("prefers-color-scheme") && text.contains("points=\"0.0,1.0 2.0,3.0\""));
        assert!(text.contains("data-series=\"p&lt;ca\"") && text.contains("0.0,1.0 2.0,1.0 2.0,3.0 0.0,3.0"));
        assert!(text.contains("fill-opacity=\"0.500\"><title>a &gt; b</title></rect>"));
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
    }
}
