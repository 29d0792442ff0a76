//! IoU per class as shaded tables: per probe, a row per class, a column per (method, dim).
//!
//! Values are means over the seeds in which the class has an IoU. The shade is the value itself (0 % no colour, 100 %
//! full colour), the same in all tables, so that they can be compared by eye; the number stays in every cell. A table is cut
//! between methods before it is too wide for a page of paper.

use super::aggregate::{Grid, Line, SummaryRow, class_means};
use super::svg::escape;
use super::table::percent;
use crate::study::Study;

/// Columns of one table, unless a single method has more.
const COLUMNS: usize = 14;

type Column<'a> = (&'a Line, &'a SummaryRow);

/// The tables of a study; empty if it has no classes or no runs.
pub(super) fn class_tables(study: &Study, grid: &Grid) -> String {
    if study.classes.is_empty() || grid.lines.is_empty() {
        return String::new();
    }
    let tables: String = (0..grid.probes.len()).map(|probe| of_probe(study, grid, probe)).collect();
    format!(
        "{tables}<p class=\"caption\">IoU in %, mean over seeds; shade from 0 % to 100 %. A dash marks a class that occurs in \
         neither truth nor prediction. Share is the class's part of the labelled pixels.</p>\n"
    )
}

fn of_probe(study: &Study, grid: &Grid, probe: usize) -> String {
    let columns: Vec<Column<'_>> =
        grid.lines.iter().filter_map(|line| Some((line, line.cells[probe].as_ref()?))).collect();
    let tables: String = pages(&columns).iter().map(|page| class_table(study, page)).collect();
    format!("<h3>{} probe</h3>\n{tables}", escape(&grid.probes[probe]))
}

/// The columns in parts of at most [`COLUMNS`], methods whole.
fn pages<'a>(columns: &[Column<'a>]) -> Vec<Vec<Column<'a>>> {
    let mut pages: Vec<Vec<Column<'a>>> = Vec::new();
    for method in columns.chunk_by(|a, b| a.0.label == b.0.label) {
        match pages.last_mut() {
            Some(page) if page.len() + method.len() <= COLUMNS => page.extend(method),
            _ => pages.push(method.to_vec()),
        }
    }
    pages
}

fn class_table(study: &Study, columns: &[Column<'_>]) -> String {
    let means: Vec<Vec<Option<f64>>> = columns.iter().map(|(_, row)| class_means(study, row)).collect();
    let dims: String =
        columns.iter().map(|(line, _)| format!("<th scope=\"col\">{}</th>", line.dim)).collect();
    let shares = shares(study);
    let line = |c: usize| {
        let cells: String = means
            .iter()
            .zip(columns)
            .map(|(m, (line, _))| heat(m[c], &of(&study.classes[c], line)))
            .collect();
        let share = shares[c].map_or("–".to_owned(), percent);
        format!("<tr><th scope=\"row\">{}</th><td>{share}</td>{cells}</tr>\n", chip(study, c))
    };
    let mean: String = columns
        .iter()
        .map(|(line, row)| heat(Some(row.miou).filter(|v| v.is_finite()), &of("mean of the classes", line)))
        .collect();
    format!(
        "<div class=\"scroll\"><table class=\"heat\">\n<thead>\n<tr><th></th><th></th>{}</tr>\n\
         <tr><th scope=\"col\">class</th><th scope=\"col\">share %</th>{dims}</tr>\n</thead>\n<tbody>\n{}</tbody>\n\
         <tfoot><tr><th scope=\"row\">mIoU</th><td></td>{mean}</tr></tfoot>\n</table></div>\n",
        method_heads(columns),
        (0..study.classes.len()).map(line).collect::<String>(),
    )
}

/// What a cell is about: a wide table's head may be out of sight.
fn of(class: &str, line: &Line) -> String {
    format!("{class}: {}, k = {}", line.label, line.dim)
}

/// Headings that span the columns of one method.
fn method_heads(columns: &[Column<'_>]) -> String {
    let head = |group: &[Column<'_>]| {
        format!("<th colspan=\"{}\" scope=\"colgroup\">{}</th>", group.len(), escape(&group[0].0.label))
    };
    columns.chunk_by(|a, b| a.0.label == b.0.label).map(head).collect()
}

/// Each class's part of the labelled pixels, as the first run that counts any has it.
fn shares(study: &Study) -> Vec<Option<f64>> {
    let total_of = |run: &crate::study::RunRecord| run.per_class.iter().map(|c| c.pixels).sum::<u64>();
    let run = study.runs.iter().find(|run| total_of(run) > 0);
    let share =
        |c: usize| run.and_then(|run| Some(run.per_class.get(c)?.pixels as f64 / total_of(run) as f64));
    (0..study.classes.len()).map(share).collect()
}

fn heat(iou: Option<f64>, what: &str) -> String {
    iou.map_or("<td>–</td>".to_owned(), |iou| {
        let shade = 100.0 * iou.clamp(0.0, 1.0);
        format!(
            "<td style=\"--heat:{shade:.0}%\" title=\"{}: {} %\">{}</td>",
            escape(what),
            percent(iou),
            percent(iou)
        )
    })
}

/// A class's name behind a dot of its colour.
pub(super) fn chip(study: &Study, class: usize) -> String {
    let [r, g, b] = study.palette.get(class).copied().unwrap_or([128; 3]);
    format!(
        "<span class=\"chip\"><i style=\"background:rgb({r},{g},{b})\"></i>{}</span>",
        escape(&study.classes[class])
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_row_per_class_and_a_column_per_setting() {
        let study = sample::study();
        let text = class_tables(&study, &Grid::of(&study));
        // Baseline and one method fit into a table, the other one begins a second.
        assert_eq!(text.matches("<table").count(), 2 * 2);
        assert_eq!(text.matches("<th scope=\"row\"><span").count(), 2 * 2 * 11);
        // 17 settings for each probe: the class without IoU has a dash in each.
        assert_eq!(text.matches("<td>–</td>").count(), 2 * 17);
        assert!(text.contains("<th colspan=\"8\" scope=\"colgroup\">pca</th>"));
        assert!(text.contains("&lt;bicyclist&gt;") && text.contains("sign &amp; symbol"));
    }

    #[test]
    fn tables_are_cut_between_methods() {
        let study = sample::study();
        let grid = Grid::of(&study);
        let columns: Vec<Column<'_>> =
            grid.lines.iter().filter_map(|line| Some((line, line.cells[0].as_ref()?))).collect();
        let lengths: Vec<usize> = pages(&columns).iter().map(Vec::len).collect();
        assert_eq!(lengths, [9, 8]);
        assert!(pages(&[]).is_empty());
    }

    #[test]
    fn shade_is_the_value() {
        assert_eq!(heat(Some(0.423), "a<b"), "<td style=\"--heat:42%\" title=\"a&lt;b: 42.3 %\">42.3</td>");
        assert_eq!(heat(None, ""), "<td>–</td>");
    }

    #[test]
    fn shares_sum_to_one_and_colours_may_be_missing() {
        let mut study = sample::study();
        let total: f64 = shares(&study).into_iter().flatten().sum();
        assert!((total - 1.0).abs() < 1e-12);
        study.palette.clear();
        assert!(chip(&study, 0).contains("rgb(128,128,128)"));
    }
}
