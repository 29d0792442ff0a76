//! The studies' Tables 1 and 2, filled with our own numbers; what they printed stands in tables of its own below.
//!
//! Table 1 is how things were trained, Table 2 the unreduced features and STEGO, with and without CRF. The second is made only
//! where the study has runs that the first figures do not show as well: refined ones, or STEGO's.

use super::aggregate::{BASELINE, Grid, SummaryRow, distinct, summary};
use super::details::table;
use super::published::{Published, on};
use super::svg::escape;
use super::table::{percent, with_spread};
use crate::study::Study;

/// Settings of the sweep file that Table 1 has, `(name, section, key)`.
const TRAINING: [(&str, &str, &str); 16] = [
    ("training resolution", "features", "train_res"),
    ("scored resolution", "features", "val_res"),
    ("training crop", "features", "train_crop"),
    ("resizing", "features", "resize"),
    ("block", "features", "layer"),
    ("facet", "features", "facet"),
    ("methods", "reduce", "methods"),
    ("dimensions", "reduce", "dims"),
    ("scaling", "reduce", "scaler"),
    ("probes", "probe", "probes"),
    ("seeds", "probe", "seeds"),
    ("steps", "probe", "steps"),
    ("batch size", "probe", "batch_size"),
    ("learning rate", "probe", "learning_rate"),
    ("extra clusters", "probe", "extra_clusters"),
    ("clusters matched on", "eval", "hungarian"),
];

/// How the probes were trained, beside how the studies did it on the same data set.
pub(super) fn training(study: &Study) -> String {
    let config: toml::Table = study.config.parse().unwrap_or_default();
    let ours = TRAINING.iter().filter_map(|(name, section, key)| {
        Some(((*name).to_owned(), spelled(config.get(*section)?.get(key)?)))
    });
    let mut ours: Vec<(String, String)> = ours.collect();
    if ours.is_empty() {
        return String::new();
    }
    ours.insert(0, ("backbone".to_owned(), study.backbone.clone()));
    ours.insert(1, ("classes".to_owned(), study.classes.len().to_string()));
    let Some(published) = on(&study.dataset) else {
        let rows = ours.iter().map(|(name, value)| vec![escape(name), escape(value)]);
        return table(&["setting", "value"], &[1], rows);
    };
    let theirs =
        |name: &str| published.training.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let only_theirs =
        published.training.iter().filter(|(name, _)| ours.iter().all(|(known, _)| known != name));
    let rows = (ours
        .iter()
        .map(|(name, value)| vec![escape(name), escape(value), escape(theirs(name).unwrap_or("–"))]))
    .chain(only_theirs.map(|(name, value)| vec![escape(name), "–".to_owned(), escape(value)]));
    let head = format!("the studies, {}", escape(published.title));
    table(&["setting", "this sweep", &head], &[1, 2], rows)
}

/// A TOML value as a reader writes it: lists without quotes.
fn spelled(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(spelled).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The unreduced features and STEGO, plain and refined; empty if the study has neither STEGO nor a CRF.
pub(super) fn with_crf(study: &Study, grid: &Grid) -> String {
    let rows: Vec<SummaryRow> = summary(study).into_iter().filter(|row| !row.compared).collect();
    if !rows.iter().any(|row| row.crf || is_stego(row)) {
        return String::new();
    }
    let lines =
        distinct(rows.iter().filter(|row| row.crf || row.is_baseline() || is_stego(row)).map(setting));
    // A refined setting is read against the same one without CRF.
    let wanted =
        distinct(lines.iter().flat_map(|(method, dim, _)| [false, true].map(|crf| (*method, *dim, crf))));
    let cells = wanted.iter().filter_map(|wanted| {
        let mine: Vec<&SummaryRow> = rows.iter().filter(|row| setting(row) == *wanted).collect();
        let label = mine.first()?.label();
        let mut cells = vec![escape(&label), wanted.1.to_string()];
        for probe in &grid.probes {
            let row = mine.iter().find(|row| row.probe == *probe);
            cells.push(row.map_or("–".to_owned(), |r| with_spread(r.accuracy, r.accuracy_std)));
            cells.push(row.map_or("–".to_owned(), |r| with_spread(r.miou, r.miou_std)));
        }
        Some(cells)
    });
    let mut heads = vec!["method".to_owned(), "dim".to_owned()];
    for probe in &grid.probes {
        heads.extend([format!("{} accuracy %", escape(probe)), format!("{} mIoU %", escape(probe))]);
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    format!(
        "<h3>With and without CRF</h3>\n{}<p class=\"caption\">The studies' Table 2 with this sweep's numbers: <code>{BASELINE}</code> \
         is the features as they are.</p>\n",
        table(&heads, &[], cells)
    )
}

fn setting(row: &SummaryRow) -> (&str, usize, bool) {
    (row.method.as_str(), row.dim, row.crf)
}

fn is_stego(row: &SummaryRow) -> bool {
    row.method.starts_with("stego")
}

/// What was published on the study's data set; empty for any other.
pub(super) fn published(study: &Study) -> String {
    let Some(published) = on(&study.dataset) else { return String::new() };
    format!(
        "<p>Other people's numbers on {}, for orientation: none of them is in this sweep's tables or files. All in percent.</p>\n\
         <h3>Released STEGO and baselines</h3>\n{}<h3>mIoU over dimension, without CRF</h3>\n{}\
         <p class=\"caption\">[F]: Fig. 4 of \u{201c}Uncovering the Inner Workings of STEGO for Safe Unsupervised Semantic \
         Segmentation\u{201d} (2023, arXiv 2304.07314), read off the published image to about ±0.1 (±0.2 where markers overlap). \
         [P]: STEGO (ICLR 2022) as listed by Papers with Code. [I3], [I39]: issues of the STEGO repository. [R]: read-me of the \
         stego-studies repository. The DINO rows without CRF are validation values of the training script. A dash is a value that \
         the sources do not give.</p>\n",
        escape(published.title),
        table2(published),
        curves(published),
    )
}

fn table2(published: &Published) -> String {
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:?}"));
    let rows = published.rows.iter().map(|row| {
        vec![
            row.name.to_owned(),
            if row.crf { "yes" } else { "no" }.to_owned(),
            number(row.linear_accuracy),
            number(row.linear_miou),
            number(row.cluster_accuracy),
            number(row.cluster_miou),
            row.source.to_owned(),
        ]
    });
    let heads =
        ["method", "CRF", "linear accuracy", "linear mIoU", "cluster accuracy", "cluster mIoU", "source"];
    table(&heads, &[1, 6], rows)
}

fn curves(published: &Published) -> String {
    let mut heads = vec!["dim".to_owned()];
    for probe in ["linear", "cluster"] {
        heads.extend(published.curves.iter().map(|curve| format!("{probe}, {}", curve.method)));
    }
    let dims = published.curves.first().map_or(&[][..], |curve| curve.points).iter().map(|point| point.0);
    let rows = dims.map(|dim| {
        let at = |pick: fn(&(usize, f64, f64)) -> f64| {
            let values =
                published.curves.iter().map(move |curve| curve.points.iter().find(|p| p.0 == dim).map(pick));
            values.map(|value| value.map_or("–".to_owned(), |v| format!("{v:.1}")))
        };
        std::iter::once(dim.to_string()).chain(at(|p| p.1)).chain(at(|p| p.2)).collect()
    });
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    table(&heads, &[], rows)
}

/// A line that says what the best reduction of each probe keeps of the unreduced features' score.
pub(super) fn kept(grid: &Grid) -> String {
    let sentence = |(i, probe): (usize, &String)| {
        let cells = || grid.lines.iter().filter_map(move |line| Some((line, line.cells[i].as_ref()?)));
        let plain = || cells().filter(|(_, row)| !row.crf && !row.compared && row.miou.is_finite());
        let (_, full) = plain().find(|(line, _)| line.baseline)?;
        let reduced = plain().filter(|(line, row)| !line.baseline && row.dim < full.dim);
        let (_, best) = reduced.max_by(|a, b| a.1.miou.total_cmp(&b.1.miou))?;
        Some(format!(
            "{} probe: {} % with all {} dimensions, at best {} % with fewer ({}, k = {}).",
            escape(probe),
            percent(full.miou),
            full.dim,
            percent(best.miou),
            escape(&best.label()),
            best.dim
        ))
    };
    let sentences: Vec<String> = grid.probes.iter().enumerate().filter_map(sentence).collect();
    if sentences.is_empty() {
        String::new()
    } else {
        format!("<p class=\"lead\">{}</p>\n", sentences.join("<br>\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn published_numbers_stand_apart_and_only_on_their_data_set() {
        let mut study = sample::full_study();
        assert_eq!(published(&study), "");
        assert!(!training(&study).contains("the studies"));
        let before = super::super::results_csv(&study);
        study.dataset = "cocostuff27".to_owned();
        let text = published(&study);
        assert!(text.contains("41.07") && text.contains("<td>26.8</td>") && text.contains("[I3]"));
        assert!(training(&study).contains("the studies, CocoStuff-27"));
        assert_eq!(super::super::results_csv(&study), before, "runs keep the names they were recorded with");
    }

    #[test]
    fn settings_are_read_off_the_configuration() {
        let text = training(&sample::study());
        assert!(
            text.contains(
                "<th scope=\"row\">dimensions</th><td class=\"text\">3, 8, 16, 32, 64, 128, 256, full</td>"
            ),
            "{text}"
        );
        let mut study = sample::study();
        study.config = "not = [toml".to_owned();
        assert_eq!(training(&study), "");
    }

    #[test]
    fn refined_settings_stand_below_what_they_refine() {
        let study = sample::full_study();
        let grid = Grid::of(&study);
        let text = with_crf(&study, &grid);
        let labels: Vec<&str> =
            text.split("<th scope=\"row\">").skip(1).filter_map(|piece| piece.split('<').next()).collect();
        assert_eq!(labels, ["none", "none + crf", "pca", "pca + crf"]);
        let plain = sample::study();
        assert_eq!(with_crf(&plain, &Grid::of(&plain)), "");
    }

    #[test]
    fn what_is_kept_is_said_in_one_line_per_probe() {
        let text = kept(&Grid::of(&sample::study()));
        assert!(
            text.contains(
                "linear probe: 62.0 % with all 384 dimensions, at best 59.8 % with fewer (pca, k = 256)."
            ),
            "{text}"
        );
        for (_, study) in sample::odd_studies() {
            kept(&Grid::of(&study));
        }
    }
}
