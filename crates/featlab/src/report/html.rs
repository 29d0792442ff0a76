//! The report as one HTML page that works offline: style, script, figures and pictures are all inside.
//!
//! A page is a list of sections, each a function from the study to markup and empty where there is nothing to show.
//! Every text that comes from data, names as well as reasons and configuration, passes through `escape`.
//! The script sorts the results table, reads figures out under the pointer, hides series and saves figures: without it the page says
//! the same. Tooltips, the gallery's switch and its enlarged pictures need none.

use std::path::Path;

use anyhow::Result;

use super::aggregate::{Grid, Line, SummaryRow};
use super::backbones::survival;
use super::class_table::class_tables;
use super::details::{comparisons, costs, definitions, further_scores, geometry};
use super::figure::{Figure, Section, figures};
use super::gallery::gallery;
use super::study_tables::{kept, published, training, with_crf};
use super::svg::escape;
use super::table::{facts, interval, intervals, percent, with_spread};
use crate::study::Study;

/// What a browser lets the page do: be styled, run the script inside, show pictures inside. It can load nothing and send nothing.
const POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// Probes side by side in the results; more of them go below, so that a table fits a page of paper.
const ABREAST: usize = 3;

/// The page; gallery pictures are read below `root` and left out, with a note, where they are missing.
///
/// # Errors
/// None at present; reading pictures is reported on the page.
pub(crate) fn html(study: &Study, root: &Path) -> Result<String> {
    let grid = Grid::of(study);
    let figures = figures(study);
    let results = kept(&grid) + &score_figures(study, &figures) + &results(&grid, &intervals(study));
    let sections = [
        ("results", "Results", results + &survival(study) + &with_crf(study, &grid) + &further_scores(&grid)),
        ("comparisons", "Paired comparisons", comparisons(study)),
        ("classes", "IoU per class", class_tables(study, &grid)),
        ("confusion", "Confusion", confusion(&figures)),
        ("gallery", "Gallery", gallery(study, root)),
        ("features", "Features", geometry(study) + &framed(&figures, Section::Variance)),
        ("published", "Published numbers", published(study)),
        ("training", "Training", training(study)),
        ("cost", "Time and bytes", costs(study)),
        ("skipped", "Skipped inputs", skipped(study)),
        ("reproduce", "How to reproduce", reproduce(study)),
    ];
    let shown = || sections.iter().filter(|(_, _, content)| !content.is_empty());
    let links: String = shown().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>\n")).collect();
    let content: String = shown().map(|(id, title, content)| section(id, title, content)).collect();
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{style}</style>\n</head>\n\
         <body>\n{header}<nav aria-label=\"Sections\">\n{links}</nav>\n<main>\n{content}</main>\n\
         <footer>Made by featlab {version}.</footer>\n<script>\n{script}</script>\n</body>\n</html>\n",
        title = escape(&study.name),
        style = include_str!("style.css"),
        header = header(study),
        version = escape(&study.version),
        script = include_str!("script.js"),
    ))
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n")
}

fn header(study: &Study) -> String {
    let facts = definitions(facts(study).into_iter().map(|(name, value)| (name.to_owned(), value)));
    let notes: String = study.notes.iter().map(|note| format!("<p>{}</p>\n", escape(note))).collect();
    let notice = if notes.is_empty() {
        String::new()
    } else {
        format!("<aside class=\"notice\" role=\"note\">\n<strong>Read this first</strong>\n{notes}</aside>\n")
    };
    format!("<header>\n<h1>{}</h1>\n{facts}{notice}</header>\n", escape(&study.name))
}

fn score_figures(study: &Study, figures: &[Figure]) -> String {
    if study.runs.is_empty() {
        return String::new();
    }
    format!(
        "{}<p class=\"caption\">Each panel has its own vertical axis, which need not begin at 0.<span class=\"scripted\"> Point at a \
         mark to read it; click a name in the legend to hide what it names.</span></p>\n",
        framed(figures, Section::Results)
    )
}

fn confusion(figures: &[Figure]) -> String {
    let drawn = framed(figures, Section::Confusion);
    if drawn.is_empty() {
        return drawn;
    }
    format!(
        "<div class=\"matrices\">\n{drawn}</div>\n<p class=\"caption\">Row: true class; column: prediction, clusters under the class \
         that they were matched to. Unreduced features and, per probe, the reduction with the highest mIoU; pixels of all seeds. \
         Point at a cell for its share and its pixels.</p>\n"
    )
}

/// The figures of a section, each in a frame.
fn framed(figures: &[Figure], section: Section) -> String {
    let mine = figures.iter().filter(|figure| figure.section == section);
    mine.map(|figure| {
        let name = escape(figure.file.trim_end_matches(".svg"));
        format!(
            "<figure class=\"chart\" data-name=\"{name}\">\n<div class=\"scroll\">\n{}</div>\n</figure>\n",
            figure.svg
        )
    })
    .collect()
}

fn results(grid: &Grid, intervals: &str) -> String {
    if grid.lines.is_empty() {
        return "<p>No run is finished yet.</p>\n".to_owned();
    }
    let probes: Vec<usize> = (0..grid.probes.len()).collect();
    let tables: String = probes.chunks(ABREAST).map(|probes| results_table(grid, probes)).collect();
    let seeds = if grid.has_seeds() { " ± is the standard deviation over seeds." } else { "" };
    format!(
        "{tables}<p class=\"caption\">Best value of each column in bold. Each is a 95 % {intervals} over images, \
         averaged over seeds.{seeds}<span class=\"scripted\"> Click a heading to sort.</span></p>\n"
    )
}

fn results_table(grid: &Grid, probes: &[usize]) -> String {
    let group =
        |i: &usize| format!("<th colspan=\"4\" scope=\"colgroup\">{} probe</th>", escape(&grid.probes[*i]));
    let columns = ["mIoU %", "95 % interval", "accuracy %", "s / run"].map(sortable).concat();
    let lines: String = grid.lines.iter().map(|line| results_line(grid, line, probes)).collect();
    format!(
        "<div class=\"scroll\"><table class=\"sortable\">\n<thead>\n<tr><th colspan=\"2\"></th>{groups}</tr>\n\
         <tr>{method}{dim}{columns}</tr>\n</thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n",
        groups = probes.iter().map(group).collect::<String>(),
        method = sortable("method"),
        dim = sortable("dim"),
        columns = columns.repeat(probes.len()),
    )
}

fn sortable(title: &str) -> String {
    format!("<th scope=\"col\"><button type=\"button\">{title}</button></th>")
}

fn results_line(grid: &Grid, line: &Line, probes: &[usize]) -> String {
    let class = if line.baseline { " class=\"baseline\"" } else { "" };
    let label = escape(&line.label);
    let cells: String = probes.iter().map(|&i| results_cells(grid, i, line.cells[i].as_ref())).collect();
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

/// A cell that sorts by its value, not by how it is written; what is no number sorts last.
fn number(value: f64, text: &str, best: bool) -> String {
    let class = if best { " class=\"best\"" } else { "" };
    let value = if value.is_finite() { format!(" data-value=\"{value}\"") } else { String::new() };
    format!("<td{class}{value}>{text}</td>")
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
    let versions =
        std::iter::once(("featlab".to_owned(), study.version.clone())).chain(study.versions.iter().cloned());
    format!(
        "{}<p>Save the configuration below as <code>config.toml</code> and run this with featlab {}:</p>\n\
         <pre><code>featlab sweep config.toml --out sweep-again</code></pre>\n\
         <p>The same configuration on the same machine gives the same scores.{best} One row per run is in \
         <code>results.csv</code> and <code>results.parquet</code>, IoU per class in <code>per_class.parquet</code>, the figures \
         in <code>figures/</code>, beside this page.</p>\n\
         <details>\n<summary>Resolved configuration</summary>\n<pre><code>{}</code></pre>\n</details>\n",
        definitions(versions),
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
        let text = page(&sample::full_study());
        for attribute in ["src=\"", "href=\"", "url(", "@import"] {
            let rest = text.split(attribute).skip(1);
            assert!(
                rest.clone().all(|value| value.starts_with("data:") || value.starts_with('#')),
                "{attribute}"
            );
        }
        // The one address is the name of the SVG namespace, which nothing is fetched from.
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("://"));
        assert!(text.contains("default-src 'none'"), "a browser is told so as well");
    }

    #[test]
    fn data_cannot_become_markup() {
        let mut study = sample::full_study();
        let evil = "</title><script>alert('1')</script>\"&".to_owned();
        (study.name, study.dataset, study.backbone) = (evil.clone(), evil.clone(), evil.clone());
        (study.protocol, study.config, study.version) = (evil.clone(), evil.clone(), evil.clone());
        study.notes = vec![evil.clone()];
        study.skipped = vec![(evil.clone(), evil.clone())];
        study.classes.fill(evil.clone());
        study.gallery[0].image_id.clone_from(&evil);
        study.gallery[0].panels[0] = (evil.clone(), evil.clone());
        study.variance.as_mut().unwrap().scaler.clone_from(&evil);
        study.versions = vec![(evil.clone(), evil.clone())];
        study.geometry.as_mut().unwrap().intrinsic_dim[0].0.clone_from(&evil);
        for stage in &mut study.stages {
            (stage.name, stage.detail) = (evil.clone(), evil.clone());
        }
        for c in &mut study.comparisons {
            (c.first, c.second, c.probe, c.test) = (evil.clone(), evil.clone(), evil.clone(), evil.clone());
        }
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
        assert_eq!(text.matches("<svg ").count(), 3 + 4);
    }

    #[test]
    fn sections_are_those_with_content_and_are_linked() {
        let ids = |study: &Study| -> Vec<String> {
            let text = page(study);
            let ids =
                text.split("<section id=\"").skip(1).map(|piece| piece.split('"').next().unwrap().to_owned());
            let ids: Vec<String> = ids.collect();
            assert!(ids.iter().all(|id| text.contains(&format!("<a href=\"#{id}\">"))));
            ids
        };
        let plain =
            ["results", "classes", "confusion", "gallery", "features", "training", "skipped", "reproduce"];
        assert_eq!(ids(&sample::study()), plain);
        let full = ids(&sample::full_study());
        assert!(["comparisons", "cost"].iter().all(|id| full.iter().any(|known| known == id)), "{full:?}");
        let theirs = Study { dataset: "potsdam".to_owned(), ..sample::study() };
        assert!(ids(&theirs).contains(&"published".to_owned()));
    }

    #[test]
    fn more_probes_than_fit_a_page_go_below() {
        let mut study = sample::study();
        for name in ["knn", "ridge"] {
            let more: Vec<_> = study.runs.iter().filter(|r| r.probe == "linear").cloned().collect();
            study.runs.extend(
                more.into_iter().map(|run| crate::study::RunRecord { probe: name.to_owned(), ..run }),
            );
        }
        assert_eq!(results(&Grid::of(&study), "interval").matches("<table").count(), 2);
    }

    #[test]
    fn best_of_each_column_is_marked() {
        let text = page(&sample::study());
        assert!(text.contains("<td class=\"best\""));
        let bests = results(&Grid::of(&sample::study()), "interval").matches("class=\"best\"").count();
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
            assert!(!body.contains("NaN"), "{what}");
        }
    }

    #[test]
    fn same_study_same_page() {
        assert_eq!(page(&sample::study()), page(&sample::study()));
    }
}
