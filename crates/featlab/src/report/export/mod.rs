//! The runs of a study in the file formats of experiment trackers, for those who keep all their results in one.
//!
//! [`tensorboard`] writes event files, [`mlflow`] the plain folders of MLflow's file store. Both are written without a network and
//! without the trackers' own libraries. Weights & Biases documents no file format for offline runs, and its client no longer
//! reads event files (0.31): `featlab report --help` shows the lines of Python that log `results.csv` with its own library. MLflow
//! reads its file store, but recent versions (3.17) only if told to, or after a migration. Scores stay fractions, as in `results.csv`.

mod mlflow;
mod tensorboard;

pub(crate) use mlflow::mlflow;
pub(crate) use tensorboard::tensorboard;

use crate::study::RunRecord;

/// The numbers of one run that a tracker plots; those that are none are left out.
fn metrics(run: &RunRecord) -> Vec<(&'static str, f64)> {
    let known = [
        ("miou", Some(run.miou)),
        ("miou_lo", Some(run.miou_lo)),
        ("miou_hi", Some(run.miou_hi)),
        ("accuracy", Some(run.accuracy)),
        ("boundary_iou", run.boundary_iou),
        ("majority_miou", run.majority.map(|m| m.miou)),
        ("majority_coverage", run.majority.map(|m| m.coverage)),
        ("wall_s", Some(run.wall_s)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value.filter(|v| v.is_finite())?))).collect()
}

/// A name that is a file name on every system and a metric's name in every tracker: no separators, no markup.
fn plain(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ') { c } else { '_' })
        .collect();
    let plain = plain.trim_matches(['.', ' ']);
    if plain.is_empty() { "unnamed".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let mut run = sample::full_study().runs[0].clone();
        assert_eq!(metrics(&run).len(), 6, "a linear probe has no majority mapping");
        run.miou = f64::NAN;
        assert!(metrics(&run).iter().all(|(name, value)| *name != "miou" && value.is_finite()));
    }

    #[test]
    fn names_leave_no_folder() {
        assert_eq!(
            ["../x", "a/b", "sign & symbol", "..", ""].map(plain),
            ["_x", "a_b", "sign _ symbol", "unnamed", "unnamed"]
        );
    }
}
