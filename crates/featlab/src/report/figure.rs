//! The figures of a report: mIoU and accuracy over target dimension, Fig. 4 of the studies, and the list of all figures.
//!
//! Scores are drawn per probe in panels of their own, one series per reduction, the unreduced features as a level. mIoU carries the
//! mean of the seeds' 95 % intervals over images as an area and one standard deviation over seeds as a bar: another sample of
//! images and another seed are different questions. Accuracy and boundary IoU have no interval of their own. What was published on
//! the same data set ([`published`](super::published)) is drawn thin and hollow. `chart` does the drawing.

use super::aggregate::{BASELINE, SummaryRow, distinct, summary};
use super::backbones;
use super::chart::{Axis, Chart, Kind, Level, Panel, Point, Series};
use super::confusion::confusions;
use super::published::{DINO, Published, on};
use super::table::percent;
use super::variance::variance;
use crate::study::Study;

/// One figure of a report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// File name below `figures/`.
    pub(crate) file: String,
    /// What it shows, for pages that link to it.
    pub(crate) title: String,
    /// The drawing, a document of its own.
    pub(crate) svg: String,
    /// Section of the page that it stands in.
    pub(super) section: Section,
}

/// Where a figure stands on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// Above the results.
    Results,
    /// Among the confusion matrices.
    Confusion,
    /// Under explained variance.
    Variance,
}

/// Beginnings of the names of all figures there can be: a file that begins so and is no figure of this report is an old one.
pub(super) const NAMES: [&str; 5] =
    ["miou-over-", "miou-by-", "accuracy-over-", "boundary-iou-over-", "explained-variance"];

/// Methods that have a colour and a marker of their own, so that the figures of two studies can be read together.
const KNOWN: [&str; 7] = ["pca", "rp", "rp-sparse", "hnne", "umap", "stego", "stego-nested"];

/// Style of the unreduced features where they are a point and not a level.
const UNREDUCED: usize = 7;

/// The figures: mIoU and accuracy over dimension, boundary IoU and explained variance where the study has them, and confusion
/// matrices.
pub(crate) fn figures(study: &Study) -> Vec<Figure> {
    let of_score = |score: &Score| Figure {
        file: score.file.to_owned(),
        title: score.title.to_owned(),
        svg: scores(study, score).draw(),
        section: Section::Results,
    };
    let mut figures: Vec<Figure> = SCORES.iter().filter(|score| (score.shown)(study)).map(of_score).collect();
    figures.extend(backbones::chart(study).map(|chart| Figure {
        file: "miou-by-backbone.svg".to_owned(),
        title: chart.title.clone(),
        svg: chart.draw(),
        section: Section::Results,
    }));
    figures.extend(variance(study).map(|chart| Figure {
        file: "explained-variance.svg".to_owned(),
        title: chart.title.clone(),
        svg: chart.draw(),
        section: Section::Variance,
    }));
    figures.extend(confusions(study));
    figures
}

/// One score, as a figure sees it. All values are fractions.
struct Score {
    file: &'static str,
    title: &'static str,
    y_title: &'static str,
    shown: fn(&Study) -> bool,
    value: fn(&SummaryRow) -> f64,
    interval: fn(&SummaryRow) -> Option<(f64, f64)>,
    std: fn(&SummaryRow) -> Option<f64>,
    /// Whether values of this score were published.
    published: bool,
}

const MIOU: Score = Score {
    file: "miou-over-dimension.svg",
    title: "Mean IoU over target dimension",
    y_title: "mIoU in %",
    shown: |_| true,
    value: |row| row.miou,
    interval: |row| Some((row.miou_lo, row.miou_hi)),
    std: |row| row.miou_std,
    published: true,
};

const ACCURACY: Score = Score {
    file: "accuracy-over-dimension.svg",
    title: "Pixel accuracy over target dimension",
    y_title: "accuracy in %",
    shown: |_| true,
    value: |row| row.accuracy,
    interval: |_| None,
    std: |row| row.accuracy_std,
    published: false,
};

const BOUNDARY: Score = Score {
    file: "boundary-iou-over-dimension.svg",
    title: "Mean boundary IoU over target dimension",
    y_title: "boundary IoU in %",
    shown: |study| study.runs.iter().any(|run| run.boundary_iou.is_some()),
    value: |row| row.boundary_iou.unwrap_or(f64::NAN),
    interval: |_| None,
    std: |_| None,
    published: false,
};

const SCORES: [Score; 3] = [MIOU, ACCURACY, BOUNDARY];

impl Score {
    /// Value, interval, spread, images and protocol in one line.
    fn tooltip(&self, row: &SummaryRow, study: &Study) -> String {
        let ends = (self.interval)(row)
            .map_or(String::new(), |(lo, hi)| format!(" [{}, {}]", percent(lo), percent(hi)));
        let seeds = match (self.std)(row) {
            Some(std) => format!("± {} over {} seeds", percent(std), row.seeds),
            None if row.seeds == 1 => "1 seed".to_owned(),
            None => format!("mean of {} seeds", row.seeds),
        };
        format!(
            "{}, {} probe, k = {}: {} %{ends}, {seeds}; {} images, {}",
            row.label(),
            row.probe,
            row.dim,
            percent((self.value)(row)),
            study.images.1,
            study.protocol
        )
    }

    fn point(&self, row: &SummaryRow, study: &Study) -> Point {
        let value = (self.value)(row);
        Point {
            x: row.dim.max(1) as f64,
            value: 100.0 * value,
            band: (self.interval)(row).map(|(lo, hi)| (100.0 * lo, 100.0 * hi)),
            bar: (self.std)(row).map(|std| (100.0 * (value - std), 100.0 * (value + std))),
            tooltip: Some(self.tooltip(row, study)),
        }
    }

    fn level(&self, row: &SummaryRow, study: &Study) -> Level {
        let value = (self.value)(row);
        Level {
            name: format!("{BASELINE} (all {} dimensions)", row.dim),
            value: 100.0 * value,
            band: (self.interval)(row).map(|(lo, hi)| (100.0 * lo, 100.0 * hi)),
            label: format!("{BASELINE}: {} %", percent(value)),
            tooltip: self.tooltip(row, study),
            published: false,
        }
    }

    /// What areas and bars are, as far as there are any.
    fn subtitle(&self, rows: &[SummaryRow], published: bool) -> String {
        let any = |f: &dyn Fn(&SummaryRow) -> bool| rows.iter().any(f);
        let seeds = any(&|row| row.seeds > 1);
        let area = match seeds {
            true => "area: 95 % interval over images, mean over seeds",
            false => "area: 95 % interval over images",
        };
        let area = any(&|row| (self.interval)(row).is_some()).then_some(area);
        let bar = any(&|row| (self.std)(row).is_some()).then_some("bar: ± 1 standard deviation over seeds");
        let crf = any(&|row| row.crf).then_some("▼ after a CRF");
        let published = published.then_some("dotted: published, see the tables");
        [area, bar, crf, published].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

fn scores(study: &Study, score: &Score) -> Chart {
    let rows: Vec<SummaryRow> = summary(study).into_iter().filter(|row| !row.compared).collect(); // they stand in the table
    let published = on(&study.dataset).filter(|_| score.published);
    let styles =
        with_styles(distinct(rows.iter().filter(|r| r.method != BASELINE).map(|r| r.method.clone())));
    let is_level = |row: &SummaryRow| row.is_baseline() && !row.crf;
    let panel = |probe: String| {
        let mine: Vec<&SummaryRow> =
            rows.iter().filter(|row| row.probe == probe && (score.value)(row).is_finite()).collect();
        let labels = distinct(
            mine.iter().filter(|row| !is_level(row)).map(|row| (row.label(), row.method.clone(), row.crf)),
        );
        let own = labels.into_iter().map(|(name, method, crf)| Series {
            points: mine.iter().filter(|r| r.label() == name).map(|r| score.point(r, study)).collect(),
            style: styles.iter().find(|(_, known)| *known == method).map_or(UNREDUCED, |(style, _)| *style),
            kind: if crf { Kind::Refined } else { Kind::Own },
            name,
        });
        let mut panel = Panel {
            series: own.collect(),
            levels: mine.iter().filter(|row| is_level(row)).map(|row| score.level(row, study)).collect(),
            title: format!("{probe} probe"),
        };
        if let Some(published) = published {
            overlay(&mut panel, published, &probe);
        }
        panel
    };
    let panels = distinct(study.runs.iter().map(|run| run.probe.clone())).into_iter().map(panel).collect();
    Chart {
        title: score.title.to_owned(),
        subtitle: score.subtitle(&rows, published.is_some() && !rows.is_empty()),
        y_title: score.y_title.to_owned(),
        axis: Axis::dimensions(&drawn_dims(&rows, published)),
        panels,
    }
}

/// Dimensions that something is drawn at: those reduced to, the full one, and those published.
fn drawn_dims(rows: &[SummaryRow], published: Option<&Published>) -> Vec<usize> {
    let own = distinct(rows.iter().map(|row| row.dim));
    let theirs = published.filter(|_| !rows.is_empty()).into_iter().flat_map(|p| {
        let curves = p.curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0));
        curves.chain(p.points.iter().map(|point| point.1))
    });
    distinct(own.into_iter().chain(theirs))
}

/// Puts the published curves of a probe into its panel.
fn overlay(panel: &mut Panel, published: &Published, probe: &str) {
    let pick: fn(f64, f64) -> f64 = match probe {
        "linear" => |linear, _| linear,
        "cluster" => |_, cluster| cluster,
        _ => return,
    };
    let point = |name: &str, dim: usize, value: f64| Point {
        x: dim as f64,
        value,
        tooltip: Some(format!("published, {}: {name}, {probe} probe, k = {dim}: {value} %", published.title)),
        ..Point::default()
    };
    for curve in published.curves {
        let name = if curve.method == "stego" { "STEGO retrained" } else { curve.method };
        panel.series.push(Series {
            name: format!("published: {name}"),
            style: KNOWN.iter().position(|known| *known == curve.method).unwrap_or(UNREDUCED),
            kind: Kind::Published,
            points: curve.points.iter().map(|(dim, l, c)| point(name, *dim, pick(*l, *c))).collect(),
        });
    }
    for (name, dim, linear, cluster) in published.points {
        let value = pick(*linear, *cluster);
        let shown = format!("published: {name}");
        if *name == DINO {
            let tooltip = point(name, *dim, value).tooltip.unwrap_or_default();
            panel.levels.push(Level { name: shown, value, tooltip, published: true, ..Level::default() });
        } else {
            let style = if name.starts_with("STEGO") { 5 } else { UNREDUCED };
            let points = vec![point(name, *dim, value)];
            let kind = if name.ends_with("+ CRF") { Kind::PublishedRefined } else { Kind::Published };
            panel.series.push(Series { name: shown, style, kind, points });
        }
    }
}

/// Known methods keep their style; the others, in order, get those that are left.
fn with_styles(methods: Vec<String>) -> Vec<(usize, String)> {
    let own = |method: &String| KNOWN.iter().position(|known| known == method);
    let taken: Vec<usize> = methods.iter().filter_map(own).collect();
    let mut free = (0..).filter(|style| !taken.contains(style));
    let styled = |method| (own(&method).or_else(|| free.next()).unwrap_or(0), method);
    methods.into_iter().map(styled).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_panel_per_probe_a_series_per_method_a_mark_per_setting() {
        let study = sample::study();
        let chart = scores(&study, &MIOU);
        let titles: Vec<&str> = chart.panels.iter().map(|p| p.title.as_str()).collect();
        assert_eq!(titles, ["linear probe", "cluster probe"]);
        let series: Vec<(usize, &str)> =
            chart.panels[0].series.iter().map(|s| (s.style, s.name.as_str())).collect();
        assert_eq!(series, [(0, "pca"), (1, "rp")]);
        assert_eq!(chart.axis.ends, (3.0, 384.0));
        assert!(
            chart.panels.iter().all(|p| p.series.iter().all(|s| s.points.len() == 8) && p.levels.len() == 1)
        );
        let first = &chart.panels[0].series[0].points[0];
        let row = summary(&study).into_iter().find(|r| (r.method.as_str(), r.dim) == ("pca", 3)).unwrap();
        assert_eq!(first.band, Some((100.0 * row.miou_lo, 100.0 * row.miou_hi)));
        let (lo, hi) = first.bar.unwrap();
        assert!(((hi - lo) / 2.0 - 100.0 * row.miou_std.unwrap()).abs() < 1e-9);
        let tooltip = first.tooltip.as_deref().unwrap();
        assert!(tooltip.contains("± 0.6 over 3 seeds; 101 images, stego-train"), "{tooltip}");
    }

    #[test]
    fn the_level_shows_its_value() {
        let svg = &figures(&sample::study())[0].svg;
        assert!(svg.contains("none: 62.0 %") && svg.contains("none: 29.0 %"));
    }

    #[test]
    fn figures_are_well_formed_for_odd_studies() {
        for (what, study) in sample::odd_studies() {
            for Figure { file, svg, .. } in figures(&study) {
                assert!(!svg.contains("NaN"), "{what}: {file}");
                assert_eq!(sample::unbalanced(&svg), None, "{what}: {file}");
            }
        }
    }

    #[test]
    fn every_method_has_its_style_whatever_else_was_swept() {
        let styles = |labels: &[&str]| -> Vec<usize> {
            with_styles(labels.iter().map(|l| (*l).to_owned()).collect()).into_iter().map(|s| s.0).collect()
        };
        assert_eq!(styles(&["rp", "pca"]), [1, 0]);
        assert_eq!(styles(&["yours", "pca", "mine", "rp"]), [2, 0, 3, 1]);
        assert_eq!(styles(&KNOWN), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn refined_scores_share_the_colour_of_what_they_refine() {
        let study = sample::full_study();
        let chart = scores(&study, &MIOU);
        let find = |name: &str| chart.panels[0].series.iter().find(|s| s.name == name).unwrap();
        assert_eq!((find("pca + crf").style, find("pca + crf").kind), (find("pca").style, Kind::Refined));
        assert_eq!((find("none + crf").points.len(), find("none + crf").style), (1, UNREDUCED));
        assert!(chart.subtitle.contains("▼ after a CRF"), "{}", chart.subtitle);
    }

    #[test]
    fn published_curves_stand_beside_their_own_data_set_only() {
        let mut study = sample::study();
        let published = |study: &Study, score: &Score| -> usize {
            let chart = scores(study, score);
            chart.panels.iter().flat_map(|p| &p.series).filter(|s| s.kind.published()).count()
        };
        assert_eq!(published(&study, &MIOU), 0);
        study.dataset = "cocostuff27".to_owned();
        assert_eq!(published(&study, &MIOU), 2 * 6);
        assert_eq!(published(&study, &ACCURACY), 0);
        let chart = scores(&study, &MIOU);
        assert_eq!(chart.axis.ends, (3.0, 768.0), "the axis reaches as far as theirs");
        assert!(chart.panels[0].levels.iter().any(|l| l.published && l.value == 39.6));
        // Another probe has nothing published.
        study.runs.iter_mut().for_each(|run| run.probe = "knn".to_owned());
        assert_eq!(published(&study, &MIOU), 0);
    }

    #[test]
    fn subtitles_explain_the_bars_that_are_drawn() {
        let mut study = sample::study();
        let both = "area: 95 % interval over images, mean over seeds; bar: ± 1 standard deviation over seeds";
        assert_eq!(scores(&study, &MIOU).subtitle, both);
        study.runs.retain(|run| run.seed == 0);
        assert_eq!(scores(&study, &MIOU).subtitle, "area: 95 % interval over images");
        assert_eq!(scores(&study, &ACCURACY).subtitle, "");
    }

    #[test]
    fn figures_are_those_that_the_study_has_numbers_for() {
        let files = |study: &Study| -> Vec<String> {
            let drawn = figures(study).into_iter().filter(|f| f.section != Section::Confusion);
            drawn.map(|f| f.file).collect()
        };
        let mut study = sample::study();
        let mut expected =
            vec!["miou-over-dimension.svg", "accuracy-over-dimension.svg", "explained-variance.svg"];
        assert_eq!(files(&study), expected);
        study.variance = None;
        expected.pop();
        assert_eq!(files(&study), expected);
        study.runs[0].boundary_iou = Some(0.4);
        expected.push("boundary-iou-over-dimension.svg");
        assert_eq!(files(&study), expected);
    }
}
