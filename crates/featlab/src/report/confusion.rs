//! Confusion matrices: per probe, the unreduced features and the best reduction; row = truth, column = prediction.
//!
//! Counts are summed over the seeds of a setting and normalised by row, so that a cell says which share of a class's pixels was
//! taken for another. Clusters are renamed to the classes they were matched to, each seed by its own assignment; what no class
//! owns is one more column. The shade is the share; the number is in the cell where it fits and in its tooltip always.

use super::aggregate::{SummaryRow, distinct, summary};
use super::chart::text_width;
use super::figure::{Figure, Section};
use super::svg::Svg;
use super::table::percent;
use crate::study::{RunRecord, Study};

/// Beginning of the file names.
pub(super) const NAME: &str = "confusion-";

const TOP: f64 = 52.0;
const LEFT: f64 = 34.0;
const LEAST_WIDTH: f64 = 380.0;
/// Letters of a class name that are shown.
const LETTERS: usize = 18;
/// From this size on a cell has room for its number.
const NUMBER_ROOM: f64 = 24.0;

/// The matrices of a study as figures.
pub(super) fn confusions(study: &Study) -> Vec<Figure> {
    let rows = chosen(&summary(study));
    rows.iter().filter_map(|row| Some(figure(study, row, &Matrix::of(study, row)?))).collect()
}

/// Per probe the unreduced features, then the reduction with the highest mean IoU; neither refined nor of another backbone.
fn chosen(rows: &[SummaryRow]) -> Vec<SummaryRow> {
    let plain = || rows.iter().filter(|row| !row.crf && !row.compared);
    let mut chosen = Vec::new();
    for probe in distinct(rows.iter().map(|row| &row.probe)) {
        let mine = || plain().filter(|row| row.probe == *probe);
        chosen.extend(mine().find(|row| row.is_baseline()).cloned());
        let reduced = mine().filter(|row| !row.is_baseline() && row.miou.is_finite());
        chosen.extend(reduced.max_by(|a, b| a.miou.total_cmp(&b.miou)).cloned());
    }
    chosen
}

/// Pixel counts by class.
#[derive(Debug, PartialEq)]
struct Matrix {
    /// `[c, c]`, or `[c, c + 1]` where some cluster has no class.
    counts: Vec<Vec<u64>>,
}

impl Matrix {
    /// The matrix of a setting, if its records count any pixel.
    fn of(study: &Study, row: &SummaryRow) -> Option<Self> {
        let c = study.classes.len();
        let mut counts = vec![vec![0_u64; c + 1]; c];
        for run in study.runs.iter().filter(|run| row.covers(run)) {
            for (sum, from) in counts.iter_mut().zip(&run.confusion) {
                for (column, pixels) in from.iter().enumerate() {
                    sum[class_of(run, column, c)] += pixels;
                }
            }
        }
        if counts.iter().all(|row| row[c] == 0) {
            counts.iter_mut().for_each(|row| row.truncate(c));
        }
        counts.iter().flatten().any(|&pixels| pixels > 0).then_some(Self { counts })
    }

    /// The share of true class `i` that was predicted as `j`; `None` if the class does not occur.
    fn share(&self, i: usize, j: usize) -> Option<f64> {
        let total: u64 = self.counts[i].iter().sum();
        (total > 0).then(|| self.counts[i][j] as f64 / total as f64)
    }
}

/// The class that a column of a run's confusion stands for; `classes` for none.
fn class_of(run: &RunRecord, column: usize, classes: usize) -> usize {
    let class = match &run.class_of_cluster {
        Some(classes) => classes.get(column).copied().flatten(),
        None => Some(column),
    };
    class.filter(|class| *class < classes).unwrap_or(classes)
}

fn figure(study: &Study, row: &SummaryRow, matrix: &Matrix) -> Figure {
    let title = format!("{} probe, {}, k = {}", row.probe, row.label(), row.dim);
    let name: String = format!("{}-{}-{}", row.probe, row.label(), row.dim)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    Figure {
        file: format!("{NAME}{name}.svg"),
        svg: draw(study, row, matrix, &title),
        title: format!("Confusion, {title}"),
        section: Section::Confusion,
    }
}

fn draw(study: &Study, row: &SummaryRow, matrix: &Matrix, title: &str) -> String {
    let (c, m) = (matrix.counts.len(), matrix.counts.first().map_or(0, Vec::len));
    let size = if c <= 12 {
        27.0
    } else if c <= 32 {
        17.0
    } else {
        11.0
    };
    let names: Vec<String> =
        (0..m).map(|j| study.classes.get(j).map_or("(no class)", |s| s.as_str())).map(short).collect();
    let label = names.iter().map(|name| text_width(name)).fold(0.0, f64::max) + 8.0;
    let (left, top) = (LEFT + label, TOP + label);
    let width = (left + m as f64 * size + 12.0).max(LEAST_WIDTH);
    let mut svg = Svg::new((width, top + c as f64 * size + 12.0), &format!("Confusion matrix, {title}"));
    svg.text((12.0, 20.0), "title", title);
    let seeds = if row.seeds == 1 { "1 seed".to_owned() } else { format!("{} seeds", row.seeds) };
    let sub = format!("% of each true class, {seeds}; mIoU {} %", percent(row.miou));
    svg.text((12.0, 37.0), "sub", &sub);
    svg.text_up((16.0, top + c as f64 * size / 2.0), "mid sub", "truth");
    svg.text((left - 10.0, top - 6.0), "end sub", "predicted");
    for (j, name) in names.iter().enumerate() {
        svg.text_up((left + (j as f64 + 0.5) * size + 4.0, top - 6.0), "", name);
    }
    for (i, name) in names.iter().take(c).enumerate() {
        svg.text((left - 8.0, top + (i as f64 + 0.5) * size + 4.0), "end", name);
    }
    for i in 0..c {
        for j in 0..m {
            let Some(share) = matrix.share(i, j).filter(|share| *share > 0.0) else { continue };
            let (x, y) = (left + j as f64 * size, top + i as f64 * size);
            let (truth, said) = (&study.classes[i], study.classes.get(j).map_or("no class", |name| name));
            let tooltip =
                format!("{truth} taken for {said}: {} % ({} pixels)", percent(share), matrix.counts[i][j]);
            svg.cell((x, y), size, share, &tooltip);
            if size >= NUMBER_ROOM && share >= 0.005 {
                let class = if share > 0.5 { "mid num on" } else { "mid num" };
                svg.text((x + size / 2.0, y + size / 2.0 + 3.5), class, &format!("{:.0}", 100.0 * share));
            }
        }
    }
    let (right, foot) = (left + m as f64 * size, top + c as f64 * size);
    svg.polyline(&[(left, top), (right, top), (right, foot), (left, foot), (left, top)], "grid");
    svg.finish()
}

/// A class name that leaves room for the matrix.
fn short(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.to_owned();
    }
    name.chars().take(LETTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// Counts of a run and the classes of its clusters.
    type Run<'a> = (&'a [&'a [u64]], Option<&'a [Option<usize>]>);

    /// Two classes, one setting, the runs' counts and assignments as given.
    fn study(runs: &[Run<'_>]) -> Study {
        let run = |(counts, classes): &Run<'_>| RunRecord {
            method: "none".to_owned(),
            probe: "cluster".to_owned(),
            confusion: counts.iter().map(|row| row.to_vec()).collect(),
            class_of_cluster: classes.map(<[_]>::to_vec),
            ..RunRecord::default()
        };
        let classes = vec!["sky".to_owned(), "road".to_owned()];
        Study { classes, runs: runs.iter().map(run).collect(), ..Study::default() }
    }

    fn matrix(study: &Study) -> Option<Matrix> {
        Matrix::of(study, &summary(study)[0])
    }

    #[test]
    fn clusters_are_renamed_by_each_seeds_own_assignment() {
        let study = study(&[
            (&[&[1, 9], &[7, 3]], Some(&[Some(1), Some(0)])),
            (&[&[8, 2], &[0, 10]], Some(&[Some(0), Some(1)])),
        ]);
        let matrix = matrix(&study).unwrap();
        assert_eq!(matrix.counts, [[17, 3], [3, 17]]);
        assert_eq!(matrix.share(0, 0), Some(0.85));
    }

    #[test]
    fn what_no_class_owns_is_a_column_of_its_own() {
        let study = study(&[(&[&[4, 1, 5], &[0, 10, 0]], Some(&[Some(0), Some(1), None]))]);
        assert_eq!(matrix(&study).unwrap().counts, [[4, 1, 5], [0, 10, 0]]);
        assert!(confusions(&study)[0].svg.contains("sky taken for no class: 50.0 % (5 pixels)"));
    }

    #[test]
    fn classes_that_do_not_occur_have_no_share_and_empty_matrices_no_figure() {
        let one = study(&[(&[&[4, 1], &[0, 0]], None)]);
        assert_eq!(matrix(&one).unwrap().share(1, 0), None);
        assert!(matrix(&study(&[(&[&[0, 0], &[0, 0]], None)])).is_none());
        assert!(confusions(&study(&[(&[], None)])).is_empty());
    }

    #[test]
    fn each_probe_has_its_full_and_its_best_setting() {
        let figures = confusions(&sample::study());
        let files: Vec<&str> = figures.iter().map(|f| f.file.as_str()).collect();
        let expected = ["linear-none-384", "linear-pca-384", "cluster-none-384", "cluster-pca-384"];
        assert_eq!(files, expected.map(|name| format!("{NAME}{name}.svg")));
        assert!(figures[0].svg.contains("mIoU 62.0 %") && figures[0].title.contains("none, k = 384"));
    }

    #[test]
    fn names_are_shortened_and_file_names_plain() {
        assert_eq!(short("furniture-things-and-more"), "furniture-things-…");
        assert_eq!(short("Straße"), "Straße");
        let mut study = study(&[(&[&[1, 0], &[0, 1]], None)]);
        study.runs[0].method = "../<pca>".to_owned();
        assert_eq!(confusions(&study)[0].file, "confusion-cluster-----pca--0.svg");
    }
}
