//! Sections for what only some sweeps know: further scores, paired comparisons, the features' geometry, time and bytes per stage.
//!
//! Each is empty where the study has nothing of the kind. All text from data passes through `escape`.

use super::aggregate::{Grid, Line, SummaryRow};
use super::svg::escape;
use super::table::percent;
use crate::study::Study;

/// A heading and a table that scrolls by itself; `text` says which columns are words.
pub(super) fn table(heads: &[&str], text: &[usize], rows: impl Iterator<Item = Vec<String>>) -> String {
    let class = |i: usize| if text.contains(&i) { " class=\"text\"" } else { "" };
    let head: String = heads
        .iter()
        .enumerate()
        .map(|(i, head)| format!("<th scope=\"col\"{}>{head}</th>", class(i)))
        .collect();
    let line = |cells: Vec<String>| {
        let cells: String = (cells.iter().enumerate())
            .map(|(i, cell)| match i {
                0 => format!("<th scope=\"row\">{cell}</th>"),
                _ => format!("<td{}>{cell}</td>", class(i)),
            })
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.map(line).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}

/// A score that only some rows have, with its heading.
type Further = (&'static str, fn(&SummaryRow) -> Option<f64>);

/// Boundary IoU and many-to-one cluster scores: a line per setting, of each probe the columns that it has.
pub(super) fn further_scores(grid: &Grid) -> String {
    let scores: [Further; 3] = [
        ("boundary IoU %", |row| row.boundary_iou),
        ("majority mIoU %", |row| row.majority.map(|m| m.miou)),
        ("coverage %", |row| row.majority.map(|m| m.coverage)),
    ];
    let known = |line: &Line, (probe, score): &(usize, usize)| scores[*score].1(line.cells[*probe].as_ref()?);
    let all = (0..grid.probes.len()).flat_map(|probe| (0..scores.len()).map(move |score| (probe, score)));
    let columns: Vec<(usize, usize)> =
        all.filter(|column| grid.lines.iter().any(|line| known(line, column).is_some())).collect();
    if columns.is_empty() {
        return String::new();
    }
    let lines = grid.lines.iter().filter(|line| columns.iter().any(|column| known(line, column).is_some()));
    let cells = lines.map(|line| {
        let mut cells = vec![escape(&line.label), line.dim.to_string()];
        cells.extend(columns.iter().map(|column| known(line, column).map_or("–".to_owned(), percent)));
        cells
    });
    let mut heads = vec!["method".to_owned(), "dim".to_owned()];
    heads.extend(columns.iter().map(|(p, s)| format!("{}<br>{}", escape(&grid.probes[*p]), scores[*s].0)));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    format!(
        "<h3>Further scores</h3>\n{}<p class=\"caption\">Boundary IoU counts only pixels near the edges of regions. Majority \
         maps every cluster to the class that most of its pixels have, so that several may share one; coverage is the share of \
         the classes that then have a cluster. Means over seeds.</p>\n",
        table(&heads, &[], cells)
    )
}

/// Differences between settings that were scored on the same images.
pub(super) fn comparisons(study: &Study) -> String {
    if study.comparisons.is_empty() {
        return String::new();
    }
    let signed = |v: f64| {
        if v.is_finite() { format!("{:+.1}", 100.0 * v).replace('-', "−") } else { "–".to_owned() }
    };
    // Most studies have one test for all pairs: it is said once.
    let first = &study.comparisons[0].test;
    let same = study.comparisons.iter().all(|c| c.test == *first);
    let rows = study.comparisons.iter().map(|c| {
        let clear = c.interval.is_some_and(|(lo, hi)| lo > 0.0 || hi < 0.0);
        let difference = signed(c.difference);
        let mut cells = vec![
            escape(&c.first),
            escape(&c.second),
            escape(&c.probe),
            if clear { format!("<strong>{difference}</strong>") } else { difference },
            c.interval.map_or("–".to_owned(), |(lo, hi)| format!("[{}, {}]", signed(lo), signed(hi))),
            c.p.map_or("–".to_owned(), p_value),
        ];
        cells.extend((!same).then(|| escape(&c.test)));
        cells
    });
    let heads = ["setting", "against", "probe", "difference, points of mIoU", "95 % interval", "p", "test"];
    let heads = if same { &heads[..6] } else { &heads[..] };
    let test = if same { format!(" Test: {}.", escape(first)) } else { String::new() };
    format!(
        "{}<p class=\"caption\">Both settings are scored on the same images, which takes the images' own difficulty out of the \
         difference. In bold where the interval leaves out 0.{test}</p>\n",
        table(heads, &[1, 2, 6], rows)
    )
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "&lt; 0.001".to_owned() } else { format!("{p:.3}") }
}

/// Intrinsic dimension, condition number, effective rank.
pub(super) fn geometry(study: &Study) -> String {
    let Some(geometry) = &study.geometry else { return String::new() };
    let estimate =
        |(name, dim): &(String, f64)| (format!("Intrinsic dimension, {name}"), format!("{dim:.1}"));
    let known = [
        ("Effective rank", geometry.effective_rank.map(|rank| format!("{rank:.1}"))),
        ("Condition number of the covariance", geometry.condition_number.map(|c| format!("{c:.3e}"))),
        ("Tokens they rest on", (geometry.tokens > 0).then(|| geometry.tokens.to_string())),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    definitions(
        std::iter::once(("Dimensions d".to_owned(), study.full_dim.to_string()))
            .chain(geometry.intrinsic_dim.iter().map(estimate))
            .chain(known),
    )
}

/// Names and values side by side.
pub(super) fn definitions(items: impl Iterator<Item = (String, String)>) -> String {
    let items: String = items
        .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(&name), escape(&value)))
        .collect();
    if items.is_empty() { items } else { format!("<dl>\n{items}</dl>\n") }
}

/// Time and bytes per stage, with the share of the whole as a bar.
pub(super) fn costs(study: &Study) -> String {
    if study.stages.is_empty() && study.wall_s.is_none() {
        return String::new();
    }
    let sum: f64 = study.stages.iter().map(|stage| stage.wall_s).sum();
    let whole = study.wall_s.unwrap_or(sum);
    let rows = study.stages.iter().map(|stage| {
        let share = if whole > 0.0 { (100.0 * stage.wall_s / whole).clamp(0.0, 100.0) } else { 0.0 };
        vec![
            escape(&stage.name),
            seconds(stage.wall_s),
            format!("<span class=\"bar\" style=\"--share:{share:.1}%\">{share:.0} %</span>"),
            bytes(stage.bytes_read),
            bytes(stage.bytes_written),
            escape(&stage.detail),
        ]
    });
    let stages = if study.stages.is_empty() {
        String::new()
    } else {
        table(&["stage", "time", "share", "read", "written", "what"], &[2, 5], rows)
    };
    format!(
        "<p>The sweep took {} in all; what an earlier run had left was not computed again.</p>\n{stages}",
        seconds(whole)
    )
}

/// Seconds with a decimal while they are few, then minutes and hours.
fn seconds(seconds: f64) -> String {
    if seconds < 59.95 { format!("{:.1} s", seconds.max(0.0)) } else { crate::progress::duration(seconds) }
}

/// A number of bytes in the unit that leaves few digits; a dash for none.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match (count, unit) {
        (0, _) => "–".to_owned(),
        (_, 0) => format!("{count} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_is_not_known_takes_no_room() {
        let study = sample::study();
        let grid = Grid::of(&study);
        for text in [further_scores(&grid), comparisons(&study), geometry(&study), costs(&study)] {
            assert_eq!(text, "");
        }
    }

    #[test]
    fn what_is_known_is_shown() {
        let study = sample::full_study();
        let grid = Grid::of(&study);
        let scores = further_scores(&grid);
        assert!(scores.contains("boundary IoU") && scores.contains("<td>75.0</td>"), "{scores}");
        let pairs = comparisons(&study);
        assert!(pairs.contains("<strong>+3.0</strong>") && pairs.contains("[+1.0, +5.0]"), "{pairs}");
        assert!(pairs.contains("&lt; 0.001") && pairs.contains("<td>−0.4</td>"), "{pairs}");
        let geometry = geometry(&study);
        assert!(
            geometry.contains("Intrinsic dimension, TwoNN") && geometry.contains("1.250e5"),
            "{geometry}"
        );
        let costs = costs(&study);
        assert!(costs.contains("--share:50.0%") && costs.contains("1.5 MiB"), "{costs}");
    }

    #[test]
    fn seconds_have_a_decimal_while_they_are_few() {
        assert_eq!([0.04, 2.5, 75.0].map(seconds), ["0.0 s", "2.5 s", "1m15s"]);
    }

    #[test]
    fn bytes_have_few_digits() {
        assert_eq!([0, 900, 1536, 3 << 30].map(bytes), ["–", "900 B", "1.5 KiB", "3.0 GiB"]);
    }

    #[test]
    fn a_sweep_that_took_no_time_is_no_division_by_zero() {
        let mut study = sample::full_study();
        study.stages.iter_mut().for_each(|stage| stage.wall_s = 0.0);
        study.wall_s = None;
        assert!(costs(&study).contains("--share:0.0%"));
    }
}
