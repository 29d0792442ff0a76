//! Several backbones under the same reductions: whose features survive compression?
//!
//! There is something to show where reductions were applied to other backbones as well (`features.compare_methods`). The figure has a
//! panel per probe and reduction and a series per backbone, which ends in its features as they are where the reduction stops short of
//! them; the table says which part of the score with all features each dimension keeps.

use super::aggregate::{BASELINE, SummaryRow, distinct, summary};
use super::chart::{Axis, Chart, Point, Series};
use super::details::table;
use super::svg::escape;
use super::table::percent;
use crate::study::{Study, short_name};

/// Rows without a CRF, if reductions of several backbones are among them.
fn rows(study: &Study) -> Option<Vec<SummaryRow>> {
    let rows: Vec<SummaryRow> = summary(study).into_iter().filter(|row| !row.crf).collect();
    rows.iter().any(|row| row.compared && row.method != BASELINE).then_some(rows)
}

/// Backbones with their names, the study's own first.
fn backbones(rows: &[SummaryRow]) -> Vec<(&str, String)> {
    let mut names = distinct(rows.iter().map(|row| (row.compared, row.backbone.as_str())));
    names.sort_by_key(|(compared, _)| *compared);
    names.into_iter().map(|(_, backbone)| (backbone, short_name(backbone))).collect()
}

/// `(probe, method)` of the reductions, in plan order.
fn reductions(study: &Study) -> Vec<(&str, &str)> {
    let reduced = study.runs.iter().filter(|run| run.method != BASELINE);
    distinct(reduced.map(|run| (run.probe.as_str(), run.method.as_str())))
}

/// A backbone's rows of a probe and reduction by rising dimension, and its features as they are where the reduction has no such
/// dimension.
fn curve<'a>(rows: &'a [SummaryRow], backbone: &str, (probe, method): (&str, &str)) -> Vec<&'a SummaryRow> {
    let own = |wanted: &str| -> Vec<&'a SummaryRow> {
        let fits = |row: &&SummaryRow| {
            (row.backbone.as_str(), row.probe.as_str(), row.method.as_str()) == (backbone, probe, wanted)
        };
        rows.iter().filter(fits).filter(|row| row.miou.is_finite()).collect()
    };
    let mut curve = own(method);
    let full = own(BASELINE).into_iter().filter(|full| curve.iter().all(|row| row.dim < full.dim));
    curve.extend(full.collect::<Vec<_>>());
    curve.sort_by_key(|row| row.dim);
    curve
}

/// Mean IoU over dimension, a series per backbone; `None` where there is one backbone.
pub(super) fn chart(study: &Study) -> Option<Chart> {
    let rows = rows(study)?;
    let series = |(probe, method): (&str, &str)| -> Vec<Series> {
        let of = |(style, (backbone, name)): (usize, (&str, String))| Series {
            points: curve(&rows, backbone, (probe, method))
                .into_iter()
                .map(|row| point(row, &name))
                .collect(),
            name,
            style,
            ..Series::default()
        };
        backbones(&rows).into_iter().enumerate().map(of).collect()
    };
    let ends_as_it_is = reductions(study).into_iter().any(|reduction| {
        let last =
            |backbone: &str| curve(&rows, backbone, reduction).last().map(|row| row.method == BASELINE);
        backbones(&rows).iter().any(|(backbone, _)| last(backbone) == Some(true))
    });
    let panels = reductions(study).into_iter().map(|(probe, method)| super::chart::Panel {
        title: format!("{probe} probe, {method}"),
        series: series((probe, method)),
        levels: Vec::new(),
    });
    Some(Chart {
        title: "Mean IoU over target dimension, by backbone".to_owned(),
        subtitle: format!(
            "area: 95 % interval over images; bar: ± 1 standard deviation over the probes' seeds{}",
            if ends_as_it_is { "; the last mark: features as they are" } else { "" }
        ),
        y_title: "mIoU in %".to_owned(),
        axis: Axis::dimensions(&distinct(rows.iter().map(|row| row.dim))),
        panels: panels.collect(),
    })
}

fn point(row: &SummaryRow, backbone: &str) -> Point {
    let value = 100.0 * row.miou;
    let what = if row.method == BASELINE { "all features" } else { &row.method };
    Point {
        x: row.dim.max(1) as f64,
        value,
        band: Some((100.0 * row.miou_lo, 100.0 * row.miou_hi)),
        bar: row.miou_std.map(|std| (value - 100.0 * std, value + 100.0 * std)),
        tooltip: Some(format!(
            "{backbone}, {what}, {} probe, k = {}: {} % [{}, {}]",
            row.probe,
            row.dim,
            percent(row.miou),
            percent(row.miou_lo),
            percent(row.miou_hi)
        )),
    }
}

/// Which part of the score with all features each dimension keeps; empty where there is one backbone.
pub(super) fn survival(study: &Study) -> String {
    let Some(rows) = rows(study) else { return String::new() };
    let mut dims = distinct(rows.iter().filter(|row| row.method != BASELINE).map(|row| row.dim));
    dims.sort_unstable();
    let mut lines = Vec::new();
    for reduction in reductions(study) {
        for (backbone, name) in backbones(&rows) {
            let full = rows
                .iter()
                .find(|row| row.backbone == backbone && row.probe == reduction.0 && row.method == BASELINE);
            let Some(full) = full.filter(|full| full.miou > 0.0) else { continue };
            let curve = curve(&rows, backbone, reduction);
            let share = |dim: &usize| {
                let row = curve.iter().find(|row| row.dim == *dim && row.method != BASELINE);
                row.map_or("–".to_owned(), |row| format!("{:.0}", 100.0 * row.miou / full.miou))
            };
            let head =
                [escape(&name), escape(reduction.0), escape(reduction.1), percent(full.miou)].into_iter();
            lines.push(head.chain(dims.iter().map(share)).collect());
        }
    }
    let mut heads = ["backbone", "probe", "reduction", "all features, mIoU %"].map(str::to_owned).to_vec();
    heads.extend(dims.iter().map(|dim| format!("k = {dim}")));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    format!(
        "<h3>What survives compression</h3>\n{}<p class=\"caption\">Percent of the mean IoU with all features that is left at k \
         dimensions; above 100 where reducing helps. A backbone that has little to lose keeps much of it: read it beside the score itself.</p>\n",
        table(&heads, &[1, 2], lines.into_iter())
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn two_backbones() -> Study {
        let mut study = sample::study();
        let others = study.runs.iter().filter(|run| run.dim != 3).cloned().map(|mut run| {
            run.backbone = "runs/dino-tiny/backbone.safetensors".to_owned();
            run.miou /= 2.0;
            run
        });
        let others: Vec<_> = others.collect();
        study.runs.extend(others);
        study
    }

    #[test]
    fn a_panel_per_reduction_a_series_per_backbone() {
        assert!(chart(&sample::study()).is_none() && survival(&sample::study()).is_empty());
        let chart = chart(&two_backbones()).unwrap();
        let titles: Vec<&str> = chart.panels.iter().map(|panel| panel.title.as_str()).collect();
        let expected = ["linear probe, pca", "cluster probe, pca", "linear probe, rp", "cluster probe, rp"];
        assert_eq!(titles, expected);
        for panel in &chart.panels {
            let [own, other] = &panel.series[..] else { panic!("two series") };
            assert_eq!((own.name.as_str(), other.name.as_str()), ("dinov2-vit-s14", "dino-tiny"));
            assert_eq!((own.style, other.style), (0, 1));
            assert!(
                own.points[0].x == 3.0 && other.points[0].x > 3.0 && own.points.is_sorted_by_key(|p| p.x)
            );
        }
        assert_eq!(sample::unbalanced(&chart.draw()), None);
        let ends = chart.panels[0].series[0].points.last().unwrap().tooltip.as_deref().unwrap().to_owned();
        assert_eq!(ends.contains("all features"), chart.subtitle.contains("as they are"), "{ends}");
    }

    #[test]
    fn shares_are_of_a_backbones_own_score() {
        let text = survival(&two_backbones());
        let lines: Vec<Vec<&str>> = text
            .split("<tr>")
            .map(|line| line.split("<td").skip(3).filter_map(|cell| cell.split(['>', '<']).nth(1)).collect())
            .collect();
        let numbers: Vec<&Vec<&str>> = lines.iter().filter(|line| line.len() > 4).collect();
        assert_eq!(numbers.len(), 8, "{text}");
        // Halved scores keep the same shares; dimension 3 was not asked of the second backbone.
        assert_eq!(numbers[0][2..], numbers[1][2..], "{numbers:?}");
        assert_eq!((numbers[0][1], numbers[1][1]), ("67", "–"));
        assert!(text.contains("dino-tiny"));
    }
}
