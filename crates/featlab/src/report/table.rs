//! The results as text: an aligned table for terminals and a Markdown page.
//!
//! One line per (method, dim), baseline first; per probe the mIoU with its 95 % interval over images and the accuracy,
//! in percent. `±` is the standard deviation over seeds, shown where there is more than one.
//! Widths are counted in characters before colour is put on, so colour never moves a column.

use std::fmt::Write as _;
use std::ops::Range;

use super::aggregate::{Grid, Line, SummaryRow, class_means};
use super::figure::{Figure, Section, figures};
use crate::study::Study;

const BOLD: &str = "\u{1b}[1m";
const FAINT: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";

/// A fraction as percent with one decimal; a dash for what is no number.
pub(super) fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.1}", 100.0 * fraction) } else { "–".to_owned() }
}

/// `61.2` or, over several seeds, `61.2 ±0.4`.
pub(super) fn with_spread(value: f64, std: Option<f64>) -> String {
    percent(value) + &std.map_or(String::new(), |std| format!(" ±{}", percent(std)))
}

/// `[58.9, 63.4]`.
pub(super) fn interval(row: &SummaryRow) -> String {
    format!("[{}, {}]", percent(row.miou_lo), percent(row.miou_hi))
}

/// Widest line of a terminal table.
const COLUMNS: usize = 100;
/// Probes side by side; more of them go below.
const ABREAST: usize = 2;

/// The results for a terminal, at most 100 columns wide, with a line break at the end.
///
/// Notes stand above the numbers: a table that is piped into a file keeps them.
pub(crate) fn text_table(study: &Study, color: bool) -> String {
    let grid = Grid::of(study);
    if grid.lines.is_empty() {
        return "no results yet\n".to_owned();
    }
    let paint = Paint { color };
    let (train, scored) = study.images;
    let facts = format!(
        "{}: {}, {}, {train} train and {scored} scored images, {}",
        study.name, study.dataset, study.backbone, study.protocol
    );
    let mut out = String::new();
    wrapped(&facts).iter().for_each(|line| push_line(&mut out, &paint.on(BOLD, line)));
    for note in &study.notes {
        wrapped(&format!("note: {note}")).iter().for_each(|line| push_line(&mut out, line));
    }
    for first in (0..grid.probes.len()).step_by(ABREAST) {
        out.push('\n');
        block(&mut out, &grid, first..(first + ABREAST).min(grid.probes.len()), paint);
    }
    let spread = if grid.has_seeds() { "± standard deviation over seeds; " } else { "" };
    push_line(&mut out, &paint.on(FAINT, &format!("{spread}[ ] 95 % {} over images", intervals(study))));
    out
}

/// What the intervals of a study are called.
pub(super) fn intervals(study: &Study) -> String {
    // Before there was a choice, all were percentiles of redrawn scores.
    format!("{} interval", if study.interval.is_empty() { "percentile bootstrap" } else { &study.interval })
}

/// Puts colour on, or not.
#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn on(self, style: &str, text: &str) -> String {
        if self.color { format!("{style}{text}{RESET}") } else { text.to_owned() }
    }
}

/// Text in lines of at most [`COLUMNS`], broken at spaces; a longer word keeps a line of its own.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The table of some of the probes.
fn block(out: &mut String, grid: &Grid, probes: Range<usize>, paint: Paint) {
    let (mut over, mut head) = (vec![String::new(); 2], vec!["method".to_owned(), "dim".to_owned()]);
    for probe in &grid.probes[probes.clone()] {
        over.extend([format!("{probe} probe"), String::new()]);
        head.extend(["mIoU % [95 %]".to_owned(), "acc %".to_owned()]);
    }
    let body: Vec<Vec<String>> = grid.lines.iter().map(|line| text_line(line, probes.clone())).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|i| body.iter().chain([&head, &over]).map(|line| line[i].chars().count()).max().unwrap_or(0))
        .collect();
    let rule = paint.on(FAINT, &"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
    for line in [&over, &head] {
        push_line(out, &paint.on(BOLD, aligned(line, &widths, |_, cell| cell).trim_end()));
    }
    push_line(out, &rule);
    for (i, (line, cells)) in grid.lines.iter().zip(&body).enumerate() {
        let best = |column: usize| column >= 2 && is_best(grid, line, column + 2 * probes.start);
        let bold = |column, cell: String| if best(column) { paint.on(BOLD, &cell) } else { cell };
        push_line(out, &aligned(cells, &widths, bold));
        if line.baseline && grid.lines.get(i + 1).is_some_and(|next| !next.baseline) {
            push_line(out, &rule);
        }
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

/// Cells of one line; values keep the width of `99.9`, so that points stand below points.
fn text_line(line: &Line, probes: Range<usize>) -> Vec<String> {
    let mut cells = vec![line.label.clone(), line.dim.to_string()];
    for cell in &line.cells[probes] {
        cells.extend(cell.as_ref().map_or(["–".to_owned(), "–".to_owned()], |row| {
            let (lo, hi) = (padded(percent(row.miou_lo)), padded(percent(row.miou_hi)));
            let miou = padded(with_spread(row.miou, row.miou_std));
            [format!("{miou} [{lo}, {hi}]"), padded(with_spread(row.accuracy, row.accuracy_std))]
        }));
    }
    cells
}

/// A number moved to the right if it has one digit before the point.
fn padded(number: String) -> String {
    if number.find('.') == Some(1) { format!(" {number}") } else { number }
}

/// Cells padded to their columns: the dimension to the right, all else to the left.
fn aligned(cells: &[String], widths: &[usize], paint: impl Fn(usize, String) -> String) -> String {
    let pad = |(i, (cell, width)): (usize, (&String, &usize))| {
        paint(i, if i == 1 { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
    };
    cells.iter().zip(widths).enumerate().map(pad).collect::<Vec<_>>().join("  ")
}

/// Whether a cell of [`text_line`] holds the best score of its column.
fn is_best(grid: &Grid, line: &Line, column: usize) -> bool {
    let Some(column) = column.checked_sub(2) else { return false };
    let score: fn(&SummaryRow) -> f64 = if column % 2 == 0 { |row| row.miou } else { |row| row.accuracy };
    line.cells[column / 2].as_ref().is_some_and(|row| grid.best(column / 2, score) == Some(score(row)))
}

/// The report as Markdown: what was run, the results, IoU per class of the baseline and of each method's best setting.
pub(crate) fn markdown(study: &Study) -> String {
    let mut out = format!("# {}\n\n", plain(&study.name));
    for note in &study.notes {
        push(&mut out, format_args!("> **Note:** {}\n", plain(note)));
    }
    push(&mut out, format_args!("| | |\n|---|---|"));
    for (name, value) in facts(study) {
        push(&mut out, format_args!("| {name} | {} |", plain(&value)));
    }
    let grid = Grid::of(study);
    if !grid.lines.is_empty() {
        push(&mut out, format_args!(""));
        for Figure { file, title, .. } in figures(study).iter().filter(|f| f.section != Section::Confusion) {
            push(&mut out, format_args!("![{title}](figures/{file})"));
        }
    }
    markdown_results(&mut out, &grid);
    markdown_classes(&mut out, study, &grid);
    if !study.skipped.is_empty() {
        push(&mut out, format_args!("\n## Skipped inputs\n"));
        for (input, reason) in &study.skipped {
            push(&mut out, format_args!("- {}: {}", plain(input), plain(reason)));
        }
    }
    push(&mut out, format_args!("\n## Configuration\n\n{}", fenced(&study.config)));
    push(&mut out, format_args!("featlab {}", plain(&study.version)));
    out
}

/// What was run, as `(name, value)`; also the header of the HTML page.
pub(super) fn facts(study: &Study) -> Vec<(&'static str, String)> {
    let (train, scored) = study.images;
    vec![
        ("Data set", study.dataset.clone()),
        ("Backbone", format!("{} ({} dimensions)", study.backbone, study.full_dim)),
        ("Images", format!("{train} trained on, {scored} scored")),
        ("Classes", study.classes.len().to_string()),
        ("Protocol", study.protocol.clone()),
        ("Runs", study.runs.len().to_string()),
    ]
}

fn markdown_results(out: &mut String, grid: &Grid) {
    let (mut head, mut rule) = ("| method | dim |".to_owned(), "|---|---:|".to_owned());
    for probe in grid.probes.iter().map(|probe| plain(probe)) {
        head += &format!(" {probe} mIoU % | 95 % interval | {probe} accuracy % |");
        rule += "---:|---:|---:|";
    }
    push(out, format_args!("\n## Results\n\n{head}\n{rule}"));
    for line in &grid.lines {
        let mut text = format!("| {} | {} |", plain(&line.label), line.dim);
        for (i, cell) in line.cells.iter().enumerate() {
            text += &cell.as_ref().map_or(" – | – | – |".to_owned(), |row| {
                let strong = |text: String, best| if best { format!("**{text}**") } else { text };
                let miou = strong(with_spread(row.miou, row.miou_std), is_best(grid, line, 2 + 2 * i));
                let accuracy =
                    strong(with_spread(row.accuracy, row.accuracy_std), is_best(grid, line, 3 + 2 * i));
                format!(" {miou} | {} | {accuracy} |", interval(row))
            });
        }
        push(out, format_args!("{text}"));
    }
}

fn markdown_classes(out: &mut String, study: &Study, grid: &Grid) {
    let mut columns: Vec<&SummaryRow> = Vec::new();
    for row in grid.lines.iter().flat_map(|line| line.cells.iter().flatten()) {
        match columns.iter_mut().find(|c| (c.label(), &c.probe) == (row.label(), &row.probe)) {
            Some(best) if row.miou > best.miou => *best = row,
            Some(_) => {}
            None => columns.push(row),
        }
    }
    if columns.is_empty() || study.classes.is_empty() {
        return;
    }
    let head: String =
        columns.iter().map(|r| format!(" {} {} {} |", plain(&r.probe), plain(&r.label()), r.dim)).collect();
    push(out, format_args!("\n## IoU per class in %, best dimension per method\n\n| class |{head}"));
    push(out, format_args!("|---|{}", "---:|".repeat(columns.len())));
    let means: Vec<Vec<Option<f64>>> = columns.iter().map(|row| class_means(study, row)).collect();
    for (c, class) in study.classes.iter().enumerate() {
        let cells: String =
            means.iter().map(|m| format!(" {} |", m[c].map_or("–".to_owned(), percent))).collect();
        push(out, format_args!("| {} |{cells}", plain(class)));
    }
}

/// Text that Markdown shows as it is, also inside a table: on one line, markup characters escaped.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// A code block whose fence is longer than any run of backticks inside.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}toml\n{}\n{fence}\n", text.trim_end())
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::study::RunRecord;

    fn uncoloured(text: &str) -> String {
        [BOLD, FAINT, RESET].iter().fold(text.to_owned(), |text, code| text.replace(code, ""))
    }

    #[test]
    fn numbers_become_percent() {
        assert_eq!([percent(0.6123), percent(1.0), percent(f64::NAN)], ["61.2", "100.0", "–"]);
        assert_eq!(with_spread(0.5, None), "50.0");
        assert_eq!(with_spread(0.5, Some(0.0123)), "50.0 ±1.2");
    }

    #[test]
    fn table_fits_terminals_and_sets_the_baseline_apart() {
        let text = text_table(&sample::study(), false);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("Dimension <sweep>") && lines[1].starts_with("note: The weights are random"),
            "{text}"
        );
        assert!(lines[6].starts_with("none    384  62.0 ±0.6 [59.5, 64.0]"), "{text}");
        assert!(
            lines[5].starts_with('─') && lines[7].starts_with('─') && lines[8].starts_with("pca"),
            "{text}"
        );
        assert_eq!(lines.len(), 8 + 16 + 1);
        assert!(!text.contains('\u{1b}') && text.contains("  5.8 ±0.6 [ 3.3,  7.8]"), "{text}");
    }

    #[test]
    fn more_probes_go_below_and_long_notes_wrap() {
        let mut study = sample::study();
        let more: Vec<_> = study.runs.iter().filter(|r| r.probe == "linear").cloned().collect();
        study.runs.extend(more.into_iter().map(|run| RunRecord { probe: "knn".to_owned(), ..run }));
        study.notes = vec!["word ".repeat(60)];
        let text = text_table(&study, false);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert_eq!(text.matches("method").count(), 2);
        assert_eq!(text.matches("word").count(), 60);
        let below = text_table(&study, true);
        let below = below.split("knn probe").nth(1).unwrap();
        assert!(below.contains(&format!("{BOLD}62.0 ±0.6 [59.5, 64.0]")), "{below}");
    }

    #[test]
    fn colour_only_adds_codes() {
        let (plain, coloured) = (text_table(&sample::study(), false), text_table(&sample::study(), true));
        assert_ne!(plain, coloured);
        let trimmed = |t: &str| t.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(trimmed(&uncoloured(&coloured)), trimmed(&plain));
    }

    #[test]
    fn one_seed_shows_no_spread() {
        let mut study = sample::study();
        study.runs.retain(|run| run.seed == 0);
        assert!(!text_table(&study, false).contains('±') && !markdown(&study).contains('±'));
    }

    #[test]
    fn odd_studies_still_print() {
        for (what, study) in sample::odd_studies() {
            assert!(text_table(&study, true).ends_with('\n') && markdown(&study).starts_with("# "), "{what}");
        }
    }

    #[test]
    fn markdown_escapes_and_keeps_its_columns() {
        let mut study = sample::study();
        study.classes[0] = "a|b <i>*c*".to_owned();
        study.config = "x = \"```\"".to_owned();
        let text = markdown(&study);
        assert!(text.contains("| a\\|b &lt;i>\\*c\\* |") && text.contains("````toml"));
        assert!(text.contains("# Dimension &lt;sweep> &amp; \"probes\""));
        let results: Vec<&str> =
            text.lines().filter(|l| l.starts_with("| pca |") || l.starts_with("| method")).collect();
        assert!(results.iter().all(|l| l.matches('|').count() == 9), "{results:?}");
        assert!(text.contains("![Mean IoU over target dimension](figures/miou-over-dimension.svg)"));
    }
}
