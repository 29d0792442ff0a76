//! The report as one HTML page that works offline: style, script, figures and pictures are all inside.
//!
//! A page is a list of sections, each a function from the study to markup and empty where there is nothing to show.
//! Every text that comes from data, names as well as reasons and configuration, passes through `escape`.
//! The script only sorts the results table: without it the page says the same.

use std::path::Path;

use anyhow::Result;

use super::aggregate::{Grid, Line, SummaryRow};
use super::class_table::class_tables;
use super::figure::{VARIANCE_FILE, figures};
use super::gallery::gallery;
use super::svg::escape;
use super::table::{facts, interval, percent, with_spread};
use crate::study::Study;

/// The page; gallery pictures are read below `root` and left out, with a note, where they are missing.
///
/// # Errors
/// None at present; reading pictures is reported on the page.
pub(crate) fn html(study: &Study, root: &Path) -> Result<String> {
    let grid = Grid::of(study);
    let sections = [
        section("results", "Results", &(figure_pair(study) + &results(&grid))),
        section("classes", "IoU per class", &class_tables(study, &grid)),
        section("gallery", "Gallery", &gallery(study, root)),
        section("variance", "Explained variance", &variance(study)),
        section("skipped", "Skipped inputs", &skipped(study)),
        section("reproduce", "How to reproduce", &reproduce(study)),
    ];
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n\
         <body>\n{header}<main>\n{sections}</main>\n<footer>Made by featlab {version}.</footer>\n\
         <script>\n{script}</script>\n</body>\n</html>\n",
        title = escape(&study.name),
        style = include_str!("style.css"),
        header = header(study),
        sections = sections.concat(),
        version = escape(&study.version),
        script = include_str!("script.js"),
    ))
}

/// A titled section, or nothing if it has no content.
fn section(id: &str, title: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n")
}

fn header(study: &Study) -> String {
    let fact =
        |(name, value): (&str, String)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value));
    let facts: String = facts(study).into_iter().map(fact).collect();
    let notes: String = study.notes.iter().map(|note| format!("<p>{}</p>\n", escape(note))).collect();
    let notice = if notes.is_empty() {
        String::new()
    } else {
        format!("<aside class=\"notice\" role=\"note\">\n<strong>Read this first</strong>\n{notes}</aside>\n")
    };
    format!("<header>\n<h1>{}</h1>\n<dl>\n{facts}</dl>\n{notice}</header>\n", escape(&study.name))
}

/// The score figures; the variance has a section of its own.
fn figure_pair(study: &Study) -> String {
    if study.runs.is_empty() {
        return String::new();
    }
    let shown: String =
        figures(study).iter().filter(|(name, _)| name != VARIANCE_FILE).map(|(_, svg)| framed(svg)).collect();
    format!(
        "{shown}<p class=\"caption\">Each panel has its own vertical axis, which need not begin at 0.</p>\n"
    )
}

fn variance(study: &Study) -> String {
    let figures = figures(study);
    figures.iter().find(|(name, _)| name == VARIANCE_FILE).map_or(String::new(), |(_, svg)| framed(svg))
}

fn framed(svg: &str) -> String {
    format!("<figure class=\"chart\">\n{svg}</figure>\n")
}

fn results(grid: &Grid) -> String {
    if grid.lines.is_empty() {
        return "<p>No run is finished yet.</p>\n".to_owned();
    }
    let group = |probe: &String| format!("<th colspan=\"4\" scope=\"colgroup\">{} probe</th>", escape(probe));
    let columns = ["mIoU %", "95 % interval", "accuracy %", "s / run"].map(sortable).concat();
    let lines: String = grid.lines.iter().map(|line| results_line(grid, line)).collect();
    let seeds = if grid.has_seeds() { " ± is the standard deviation over seeds." } else { "" };
    format!(
        "<div class=\"scroll\"><table class=\"sortable\">\n<thead>\n<tr><th colspan=\"2\"></th>{groups}</tr>\n\
         <tr>{method}{dim}{columns}</tr>\n</thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n\
         <p class=\"caption\">Best value of each column in bold. Intervals are 95 % bootstrap intervals over images, \
         averaged over seeds.{seeds} Click a heading to sort.</p>\n",
        groups = grid.probes.iter().map(group).collect::<String>(),
        method = sortable("method"),
        dim = sortable("dim"),
        columns = columns.repeat(grid.probes.len()),
    )
}

fn sortable(title: &str) -> String {
    format!("<th scope=\"col\"><button type=\"button\">{title}</button></th>")
}

fn results_line(grid: &Grid, line: &Line) -> String {
    let class = if line.baseline { " class=\"baseline\"" } else { "" };
    let label = escape(&line.label);
    let cells: String =
        line.cells.iter().enumerate().map(|(i, cell)| results_cells(grid, i, cell.as_ref())).collect();
    let dim = number(line.dim as f64, &line.dim.to_string(), false);
    format!("<tr{class}><th scope=\"row\" data-value=\"{label}\">{label}</th>{dim}{cells}</tr>\n")
}

fn results_cells(grid: &Grid, probe: usize, row: Option<&SummaryRow>) -> String {
    let Some(row) = row else { return "<td>–</td>".repeat(4) };
    let is_best = |score: fn(&SummaryRow) -> f64| grid.best(probe, score) == Some(score(row));
    [
        number(row.miou, &with_spread(row.miou, row.miou_std), is_best(|r| r.miou)),
        number(row.miou_lo, &interval(row), false),
        number(row.accuracy, &with_spread(row.accuracy, row.accuracy_std), is_best(|r| r.accuracy)),
        number(row.wall_s, &format!("{:.1}", row.wall_s), false),
    ]
    .concat()
}

/// A cell that sorts by its value, not by how it is written.
fn number(value: f64, text: &str, best: bool) -> String {
    let class = if best { " class=\"best\"" } else { "" };
    format!("<td{class} data-value=\"{value}\">{text}</td>")
}

fn skipped(study: &Study) -> String {
    if study.skipped.is_empty() {
        return String::new();
    }
    let line = |(input, reason): &(String, String)| {
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td></tr>\n",
            escape(input),
            escape(reason)
        )
    };
    let lines: String = study.skipped.iter().map(line).collect();
    format!(
        "<p>{} left out and not scored.</p>\n<div class=\"scroll\"><table>\n<thead><tr>\
         <th scope=\"col\">input</th><th scope=\"col\" class=\"text\">reason</th></tr></thead>\n<tbody>\n{lines}</tbody>\n\
         </table></div>\n",
        counted(study.skipped.len(), "input was", "inputs were"),
    )
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn reproduce(study: &Study) -> String {
    let best = Grid::of(study).best(0, |row| row.miou).map_or(String::new(), |best| {
        format!(" The best mIoU in the first results column should read {} again.", percent(best))
    });
    format!(
        "<p>Save the configuration below as <code>config.toml</code> and run this with featlab {}:</p>\n\
         <pre><code>featlab sweep config.toml --out sweep-again</code></pre>\n\
         <p>The same configuration on the same machine gives the same scores.{best} One row per run is in \
         <code>results.csv</code> and <code>results.parquet</code>, IoU per class in <code>per_class.parquet</code>, \
         beside this page.</p>\n<details>\n<summary>Resolved configuration</summary>\n<pre><code>{}</code></pre>\n</details>\n",
        escape(&study.version),
        escape(&study.config),
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn page(study: &Study) -> String {
        html(study, Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let text = page(&sample::study());
        for attribute in ["src=\"", "href=\"", "url(", "@import"] {
            let rest = text.split(attribute).skip(1);
            assert!(rest.clone().all(|value| value.starts_with("data:")), "{attribute}");
        }
        // The one address is the name of the SVG namespace, which nothing is fetched from.
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("http"));
    }

    #[test]
    fn data_cannot_become_markup() {
        let mut study = sample::study();
        let evil = "</title><script>alert('1')</script>\"&".to_owned();
        (study.name, study.dataset, study.backbone) = (evil.clone(), evil.clone(), evil.clone());
        (study.protocol, study.config, study.version) = (evil.clone(), evil.clone(), evil.clone());
        study.notes = vec![evil.clone()];
        study.skipped = vec![(evil.clone(), evil.clone())];
        study.classes.fill(evil.clone());
        study.gallery[0].image_id.clone_from(&evil);
        study.gallery[0].panels[0] = (evil.clone(), evil.clone());
        study.variance.as_mut().unwrap().scaler.clone_from(&evil);
        for run in &mut study.runs {
            (run.method, run.probe) = (format!("{}{evil}", run.method), format!("{}{evil}", run.probe));
        }
        let text = page(&study);
        assert_eq!(text.matches("<script>").count(), 1);
        assert!(!text.contains("alert('1')") && text.contains("&lt;/title&gt;&lt;script&gt;"));
    }

    #[test]
    fn page_says_what_was_run() {
        let text = page(&sample::study());
        for part in [
            "dinov2-vit-s14 (384 dimensions)",
            "367 trained on, 101 scored",
            "stego-train",
            "The weights are random",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(
            text.contains("featlab sweep config.toml --out")
                && text.contains("truncated: expected &lt;1024&gt; bytes")
        );
        assert!(text.contains("Made by featlab 0.1.0.") && text.contains("class=\"notice\""));
        assert_eq!(text.matches("<svg ").count(), 3);
    }

    #[test]
    fn best_of_each_column_is_marked() {
        let text = page(&sample::study());
        assert!(text.contains("<td class=\"best\""));
        let bests = results(&Grid::of(&sample::study())).matches("class=\"best\"").count();
        assert_eq!(bests, 4);
    }

    #[test]
    fn odd_studies_make_pages() {
        for (what, study) in sample::odd_studies() {
            let text = page(&study);
            assert!(text.ends_with("</html>\n"), "{what}");
            let body = &text[text.find("<main>").unwrap()..text.find("<script>").unwrap()];
            assert_eq!(sample::unbalanced(body), None, "{what}");
            assert_eq!(text.matches("<section ").count(), text.matches("</section>").count(), "{what}");
            assert_eq!(text.matches("<table").count(), text.matches("</table>").count(), "{what}");
        }
    }

    #[test]
    fn same_study_same_page() {
        assert_eq!(page(&sample::study()), page(&sample::study()));
    }
}
