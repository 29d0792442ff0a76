//! What was published on the studies' three data sets, to stand beside our own numbers and never among them.
//!
//! All values are percent. Sources, as `[tag]`s in the tables:
//!
//! - `[F]`: Fig. 4 of *Uncovering the Inner Workings of STEGO for Safe Unsupervised Semantic Segmentation* (2023,
//!   arXiv 2304.07314), measured on its published image; reading error about ±0.1, ±0.2 where markers overlap. Its linear and
//!   cluster probes read features of DINO ViT-B/8 (CocoStuff, Cityscapes) or ViT-S/8 (Potsdam) through STEGO's head retrained at
//!   that dimension, PCA or random projection, without CRF and without flip averaging.
//! - `[P]`: *Unsupervised Semantic Segmentation by Distilling Feature Correspondences* (STEGO, ICLR 2022) as listed by Papers
//!   with Code.
//! - `[I3]`, `[I39]`: issues 3 and 39 of the STEGO repository, where its authors and users give digits behind the rounding.
//! - `[R]`: read-me of the stego-studies repository.
//!
//! The DINO rows without CRF are validation values of the training script; the other single rows are those of the evaluation
//! script. Reductions were picked at the step with the best cluster mIoU, so their linear values are those of the same step.

/// Everything published on one data set.
#[derive(Debug)]
pub(super) struct Published {
    /// Name as the studies print it.
    pub(super) title: &'static str,
    /// Curves over the dimension, per probe.
    pub(super) curves: &'static [Curve],
    /// Mean IoU of single settings, `(name, dimension, linear, cluster)`; some are drawn as a level.
    pub(super) points: &'static [(&'static str, usize, f64, f64)],
    /// Rows of the studies' Table 2 and what stands beside them.
    pub(super) rows: &'static [Row],
    /// The studies' Table 1: how they were trained.
    pub(super) training: &'static [(&'static str, &'static str)],
}

/// Mean IoU over the dimension.
#[derive(Debug)]
pub(super) struct Curve {
    /// Method as we spell it: `stego`, `pca`, `rp`.
    pub(super) method: &'static str,
    /// `(dimension, linear, cluster)`, ascending.
    pub(super) points: &'static [(usize, f64, f64)],
}

/// Scores of one setting; `None` where the sources say nothing.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) crf: bool,
    pub(super) linear_miou: Option<f64>,
    pub(super) linear_accuracy: Option<f64>,
    pub(super) cluster_miou: Option<f64>,
    pub(super) cluster_accuracy: Option<f64>,
    pub(super) source: &'static str,
}

/// Name of the unreduced features among [`Published::points`].
pub(super) const DINO: &str = "DINO";

/// What was published on a data set of ours, by its name.
pub(super) fn on(dataset: &str) -> Option<&'static Published> {
    match dataset {
        "cocostuff27" => Some(&COCOSTUFF),
        "cityscapes27" | "cityscapes" => Some(&CITYSCAPES),
        "potsdam3" | "potsdam" => Some(&POTSDAM),
        _ => None,
    }
}

const fn row(name: &'static str, crf: bool, scores: [Option<f64>; 4], source: &'static str) -> Row {
    let [linear_miou, linear_accuracy, cluster_miou, cluster_accuracy] = scores;
    Row { name, crf, linear_miou, linear_accuracy, cluster_miou, cluster_accuracy, source }
}

static COCOSTUFF: Published = Published {
    title: "CocoStuff-27",
    curves: &[
        Curve {
            method: "stego",
            points: &[
                (3, 11.2, 13.1),
                (6, 20.4, 19.7),
                (12, 30.8, 23.4),
                (24, 36.0, 25.4),
                (48, 39.9, 26.8),
                (90, 40.7, 26.1),
                (96, 39.3, 26.4),
                (192, 39.6, 27.2),
                (384, 36.7, 25.7),
                (768, 33.7, 24.0),
            ],
        },
        Curve {
            method: "pca",
            points: &[
                (3, 6.2, 5.2),
                (6, 10.3, 8.5),
                (12, 14.7, 9.6),
                (24, 20.6, 12.7),
                (48, 26.1, 12.0),
                (90, 30.8, 12.6),
                (96, 31.1, 13.3),
                (192, 34.8, 12.2),
                (384, 37.4, 10.9),
                (768, 40.4, 14.4),
            ],
        },
        Curve {
            method: "rp",
            points: &[
                (3, 2.0, 2.4),
                (6, 2.9, 3.3),
                (12, 5.3, 4.5),
                (24, 9.3, 5.8),
                (48, 15.3, 6.5),
                (90, 21.3, 9.0),
                (96, 21.8, 8.7),
                (192, 29.0, 10.6),
                (384, 34.1, 12.6),
                (768, 39.2, 12.6),
            ],
        },
    ],
    points: &[
        (DINO, 768, 39.6, 12.7),
        ("DINO + CRF", 768, 44.3, 13.0),
        ("STEGO released", 90, 39.5, 26.8),
        ("STEGO released + CRF", 90, 41.0, 28.1),
    ],
    rows: &[
        row("STEGO released, ViT-B/8", true, [Some(41.07), Some(76.13), Some(28.19), Some(56.93)], "[I3]"),
        row("STEGO released, ViT-B/8", false, [Some(39.5), None, Some(26.8), None], "[F]"),
        row("DINO, ViT-B/8", true, [Some(44.3), None, Some(13.0), None], "[F]"),
        row("DINO, ViT-B/8", false, [Some(39.6), None, Some(12.7), None], "[F]"),
        row("PiCIE + H", false, [None, None, None, Some(49.99)], "[P]"),
    ],
    training: &[
        ("backbone", "ViT-B/8"),
        ("dimension of STEGO's head", "90"),
        ("classes", "27"),
        ("steps", "7000"),
        ("batch size", "32"),
        ("training crop", "five (0.5)"),
        ("training resolution", "224"),
        ("scored resolution", "320"),
    ],
};

static CITYSCAPES: Published = Published {
    title: "Cityscapes",
    curves: &[
        Curve {
            method: "stego",
            points: &[
                (3, 10.6, 11.3),
                (6, 15.5, 14.3),
                (12, 19.7, 16.1),
                (24, 21.9, 18.2),
                (48, 25.1, 18.9),
                (96, 28.3, 19.7),
                (100, 28.2, 19.8),
                (192, 27.3, 19.2),
                (384, 30.4, 18.6),
                (768, 24.6, 19.4),
            ],
        },
        Curve {
            method: "pca",
            points: &[
                (3, 9.8, 6.8),
                (6, 11.1, 10.5),
                (12, 17.0, 11.7),
                (24, 20.6, 13.2),
                (48, 24.0, 13.8),
                (96, 29.6, 13.8),
                (100, 29.5, 15.4),
                (192, 33.7, 12.5),
                (384, 32.8, 12.7),
                (768, 34.7, 13.7),
            ],
        },
        Curve {
            method: "rp",
            points: &[
                (3, 3.6, 2.4),
                (6, 6.5, 4.6),
                (12, 10.4, 6.6),
                (24, 15.8, 9.0),
                (48, 21.4, 10.5),
                (96, 24.9, 10.8),
                (100, 25.5, 10.7),
                (192, 27.5, 12.1),
                (384, 31.6, 11.8),
                (768, 32.3, 12.1),
            ],
        },
    ],
    points: &[
        (DINO, 768, 34.2, 14.5),
        ("DINO + CRF", 768, 34.9, 15.2),
        ("STEGO released", 100, 27.1, 19.65),
        ("STEGO released + CRF", 100, 27.9, 21.0),
    ],
    rows: &[
        row("STEGO released, ViT-B/8", true, [Some(27.9), None, Some(21.0), Some(73.2)], "[F], accuracy [P]"),
        row("STEGO released, ViT-B/8", false, [Some(27.1), None, Some(19.65), None], "[F]"),
        row("DINO, ViT-B/8", true, [Some(34.9), None, Some(15.2), None], "[F]"),
        row("DINO, ViT-B/8", false, [Some(34.2), None, Some(14.5), None], "[F]"),
        row("PiCIE", false, [None, None, Some(12.3), Some(65.5)], "[P]"),
    ],
    training: &[
        ("backbone", "ViT-B/8"),
        ("dimension of STEGO's head", "100"),
        ("classes", "27"),
        ("steps", "7000"),
        ("batch size", "32"),
        ("training crop", "five (0.5)"),
        ("training resolution", "224"),
        ("scored resolution", "320"),
    ],
};

static POTSDAM: Published = Published {
    title: "Potsdam",
    curves: &[
        Curve {
            method: "stego",
            points: &[
                (3, 60.0, 58.7),
                (6, 63.3, 61.6),
                (12, 64.7, 58.4),
                (24, 67.7, 52.2),
                (48, 67.4, 45.4),
                (70, 71.6, 40.4),
                (96, 72.2, 37.8),
                (192, 65.1, 37.3),
                (384, 67.4, 41.7),
            ],
        },
        Curve {
            method: "pca",
            points: &[
                (3, 43.2, 35.4),
                (6, 46.6, 36.4),
                (12, 49.8, 36.1),
                (24, 51.6, 36.1),
                (48, 53.3, 36.4),
                (70, 53.9, 36.3),
                (96, 55.0, 36.1),
                (192, 56.9, 42.1),
                (384, 59.7, 42.1),
            ],
        },
        Curve {
            method: "rp",
            points: &[
                (3, 17.6, 21.8),
                (6, 21.0, 22.5),
                (12, 30.2, 25.0),
                (24, 36.8, 26.9),
                (48, 42.7, 29.6),
                (70, 46.7, 29.7),
                (96, 49.4, 32.7),
                (192, 54.6, 36.4),
                (384, 59.2, 35.9),
            ],
        },
    ],
    points: &[
        (DINO, 384, 66.4, 46.57),
        ("DINO + CRF", 384, 72.8, 54.2),
        ("STEGO released", 70, 69.7, 58.6),
        ("STEGO released + CRF", 70, 74.83, 62.57),
    ],
    rows: &[
        row("STEGO released, ViT-S/8", true, [Some(74.83), Some(85.85), Some(62.57), Some(77.03)], "[I39]"),
        row("STEGO released, ViT-S/8", false, [Some(69.7), None, Some(58.6), None], "[F]"),
        row("DINO, ViT-S/8", true, [Some(72.8), None, Some(54.2), None], "[F]"),
        row("DINO, ViT-S/8", false, [Some(66.4), None, Some(46.57), None], "[F], cluster [R]"),
    ],
    training: &[
        ("backbone", "ViT-S/8"),
        ("dimension of STEGO's head", "70"),
        ("classes", "3"),
        ("steps", "5000"),
        ("batch size", "16"),
        ("training crop", "none"),
        ("training resolution", "224"),
        ("scored resolution", "320"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_our_data_sets_find_theirs() {
        assert_eq!(on("cocostuff27").map(|p| p.title), Some("CocoStuff-27"));
        assert_eq!(on("cityscapes").map(|p| p.title), on("cityscapes27").map(|p| p.title));
        assert_eq!(on("potsdam").map(|p| p.title), on("potsdam3").map(|p| p.title));
        assert!(on("camvid").is_none() && on("scenes").is_none());
    }

    #[test]
    fn values_are_percent_and_dimensions_ascend() {
        for published in [&COCOSTUFF, &CITYSCAPES, &POTSDAM] {
            let percent = |v: f64| (0.0..=100.0).contains(&v);
            for curve in published.curves {
                assert!(curve.points.windows(2).all(|w| w[0].0 < w[1].0), "{}", published.title);
                assert!(curve.points.iter().all(|p| percent(p.1) && percent(p.2)));
            }
            assert_eq!(published.curves.iter().map(|c| c.method).collect::<Vec<_>>(), ["stego", "pca", "rp"]);
            let dims = |i: usize| published.curves[i].points.iter().map(|p| p.0).collect::<Vec<_>>();
            assert!(dims(0) == dims(1) && dims(1) == dims(2), "one row of the table for each dimension");
        }
    }

    #[test]
    fn readings_worth_reproducing_hold() {
        let best =
            |p: &Published, i: usize| p.curves[i].points.iter().max_by(|a, b| a.2.total_cmp(&b.2)).unwrap().0;
        assert_eq!(best(&POTSDAM, 0), 6, "STEGO's clusters are best at 6 dimensions on Potsdam");
        assert!((48..=192).contains(&best(&COCOSTUFF, 0)) && (48..=192).contains(&best(&CITYSCAPES, 0)));
        // DINO with CRF beats STEGO with CRF on the linear probe, but on Potsdam.
        let linear = |p: &Published, name: &str| p.points.iter().find(|p| p.0 == name).unwrap().2;
        for (published, wins) in [(&COCOSTUFF, true), (&CITYSCAPES, true), (&POTSDAM, false)] {
            let (dino, stego) = (linear(published, "DINO + CRF"), linear(published, "STEGO released + CRF"));
            assert_eq!(dino > stego, wins, "{}", published.title);
        }
    }
}
