//! A made-up study for tests: eleven classes, two reductions at eight dimensions, both probes, three seeds.
//!
//! The numbers are smooth functions of the setting, not results. Names carry markup characters on purpose: a report
//! that forgets to escape one of them shows it here.

use crate::study::{
    ClassScore, Comparison, FeatureGeometry, GalleryItem, Majority, RunRecord, StageCost, Study,
    VarianceCurve,
};

const CLASSES: [&str; 11] = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign & symbol",
    "fence",
    "car",
    "pedestrian",
    "<bicyclist>",
];

fn run(method: &str, dim: usize, probe: &str, seed: u64) -> RunRecord {
    let loss = if method == "none" { 0.0 } else { 0.35 / (dim as f64).sqrt() };
    let lag = if method == "rp" { 0.03 } else { 0.0 };
    let top = if probe == "linear" { 0.62 } else { 0.29 };
    let miou = top - loss - lag + 0.006 * (seed as f64 - 1.0);
    let score = |(i, name): (usize, &&str)| ClassScore {
        name: (*name).to_owned(),
        iou: (i != 2).then_some((miou * (1.4 - 0.08 * i as f64)).clamp(0.0, 1.0)),
        pixels: 40_000 / (i as u64 + 1),
    };
    RunRecord {
        key: format!("{method}-{dim}-{probe}-{seed}"),
        dataset: "camvid".to_owned(),
        split: "val".to_owned(),
        backbone: "dinov2-vit-s14".to_owned(),
        cache_id: "c0ffee0123456789".to_owned(),
        train_cache_id: "beef0123456789ab".to_owned(),
        method: method.to_owned(),
        dim,
        probe: probe.to_owned(),
        seed,
        protocol: "stego-train".to_owned(),
        crf: false,
        steps: 1000,
        miou,
        accuracy: 0.4 + 0.8 * miou,
        miou_lo: miou - 0.025,
        miou_hi: miou + 0.02,
        wall_s: 12.5,
        per_class: CLASSES.iter().enumerate().map(score).collect(),
        class_of_cluster: (probe == "cluster").then(|| (0..CLASSES.len()).map(Some).collect()),
        confusion: (0..CLASSES.len()).map(|i| confused(i, miou)).collect(),
        ..RunRecord::default()
    }
}

/// Pixels of class `truth` by prediction: most right, the others on its neighbours; the class without IoU has none.
fn confused(truth: usize, miou: f64) -> Vec<u64> {
    let share = |said: usize| match truth.abs_diff(said) {
        0 => 1.3 * miou,
        far => (1.0 - 1.3 * miou) / (1 << far) as f64,
    };
    let pixels = |said| (40_000.0 / (truth + 1) as f64 * share(said)) as u64;
    (0..CLASSES.len()).map(|said| if truth == 2 { 0 } else { pixels(said) }).collect()
}

fn item(id: &str) -> GalleryItem {
    let titles = ["Image", "Label", "Linear", "Cluster", "PCA → RGB"];
    let panel = |title: &&str| {
        ((*title).to_owned(), format!("gallery/{id}-{}.png", title.to_lowercase().replace(" → ", "-")))
    };
    GalleryItem {
        image_id: id.to_owned(),
        panels: titles.iter().map(panel).collect(),
        ..GalleryItem::default()
    }
}

/// The sample.
pub(crate) fn study() -> Study {
    let reduced = ["pca", "rp"].into_iter().flat_map(|m| [3, 8, 16, 32, 64, 128, 256, 384].map(|k| (m, k)));
    let arms = reduced.chain([("none", 384)]);
    let cells = arms.flat_map(|(m, k)| ["linear", "cluster"].map(|p| (m, k, p)));
    let runs = cells.flat_map(|(m, k, p)| [0, 1, 2].map(|seed| run(m, k, p, seed))).collect();
    Study {
        name: "Dimension <sweep> & \"probes\"".to_owned(),
        dataset: "camvid".to_owned(),
        backbone: "dinov2-vit-s14".to_owned(),
        notes: vec!["The weights are random: the numbers say that the program works, no more.".to_owned()],
        classes: CLASSES.iter().map(|c| (*c).to_owned()).collect(),
        palette: (0..11u8).map(|i| [i * 23, 255 - i * 19, 90 + i * 15]).collect(),
        full_dim: 384,
        images: (367, 101),
        protocol: "stego-train".to_owned(),
        skipped: vec![("val/0042.png".to_owned(), "truncated: expected <1024> bytes".to_owned())],
        runs,
        variance: Some(VarianceCurve {
            cumulative: (1..=384)
                .map(|k| 1.0 - (1.0 - f64::from(k) / 384.0) * (-f64::from(k) / 40.0).exp())
                .collect(),
            scaler: "train".to_owned(),
        }),
        gallery: ["0001TP", "0002TP", "0003TP", "0004TP"].map(item).to_vec(),
        config: "name = \"<sweep>\"\n\n[reduce]\ndims = [3, 8, 16, 32, 64, 128, 256, \"full\"]\n".to_owned(),
        version: "0.1.0".to_owned(),
        ..Study::default()
    }
}

/// The sample with everything that a sweep may know: refined runs, further scores, comparisons, geometry, costs.
pub(crate) fn full_study() -> Study {
    let mut study = study();
    for run in &mut study.runs {
        run.boundary_iou = Some(0.7 * run.miou);
        run.majority = (run.probe == "cluster").then_some(Majority { miou: 1.1 * run.miou, coverage: 0.75 });
    }
    let refined: Vec<RunRecord> = (study.runs.iter())
        .filter(|run| run.method == "none" || (run.method == "pca" && run.dim == 64))
        .map(|run| RunRecord {
            key: format!("{}-crf", run.key),
            crf: true,
            miou: run.miou + 0.03,
            miou_lo: run.miou_lo + 0.03,
            miou_hi: run.miou_hi + 0.03,
            ..run.clone()
        })
        .collect();
    study.runs.extend(refined);
    let comparison = |second: &str, difference, interval, p| Comparison {
        probe: "linear".to_owned(),
        first: "pca, 64".to_owned(),
        second: second.to_owned(),
        difference,
        interval,
        p,
        test: "paired bootstrap over 101 images".to_owned(),
    };
    study.comparisons = vec![
        comparison("rp, 64", 0.03, Some((0.01, 0.05)), Some(0.000_4)),
        comparison("none, 384", -0.004, None, None),
    ];
    study.geometry = Some(FeatureGeometry {
        intrinsic_dim: vec![("TwoNN".to_owned(), 14.2), ("maximum likelihood".to_owned(), 15.9)],
        condition_number: Some(1.25e5),
        effective_rank: Some(48.3),
        tokens: 10_000,
    });
    let stage = |name: &str, wall_s, bytes_read, bytes_written, detail: &str| StageCost {
        name: name.to_owned(),
        wall_s,
        bytes_read,
        bytes_written,
        detail: detail.to_owned(),
    };
    study.stages = vec![
        stage("extract train", 30.0, 80 << 20, 3 << 29, "367 images, <12> images/s"),
        stage("fit pca", 10.0, 3 << 29, 1_572_864, ""),
        stage("probes", 20.0, 0, 900, "102 runs"),
    ];
    study.wall_s = Some(60.0);
    study.versions = vec![("instruction set".to_owned(), "avx512".to_owned())];
    study.gallery.iter_mut().for_each(|item| {
        item.refined = [2, 3].map(|i| (i, item.panels[i].1.replace(".png", "-crf.png"))).to_vec();
    });
    study
}

/// The first tag that is closed out of turn or never, in markup whose void elements are `br`, `img`, `input` or end in `/>`.
pub(crate) fn unbalanced(markup: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for tag in markup.split('<').skip(1).filter_map(|piece| piece.split('>').next()) {
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(closed) if open.pop() != Some(closed) => return Some(tag.to_owned()),
            None if !tag.ends_with('/') && !["br", "img", "input"].contains(&name) => open.push(name),
            _ => {}
        }
    }
    open.pop().map(str::to_owned)
}

/// Studies that lack something, each with what it lacks.
pub(crate) fn odd_studies() -> Vec<(&'static str, Study)> {
    let change = |what, change: fn(&mut Study)| {
        let mut study = study();
        change(&mut study);
        (what, study)
    };
    vec![
        change("one seed", |s| s.runs.retain(|r| r.seed == 0)),
        change("one probe", |s| s.runs.retain(|r| r.probe == "cluster")),
        change("no baseline", |s| s.runs.retain(|r| r.method != "none")),
        change("only a baseline", |s| s.runs.retain(|r| r.method == "none")),
        change("one dimension", |s| s.runs.retain(|r| r.dim == 8)),
        change("no gallery", |s| s.gallery.clear()),
        change("no IoU", |s| s.runs.iter_mut().flat_map(|r| &mut r.per_class).for_each(|c| c.iou = None)),
        change("uneven cells", |s| s.runs.retain(|r| r.probe == "linear" || r.dim > 100)),
        change("no scores", |s| s.runs.iter_mut().for_each(|r| (r.miou, r.miou_lo) = (f64::NAN, f64::NAN))),
        ("everything", full_study()),
        ("everything, published", Study { dataset: "potsdam3".to_owned(), ..full_study() }),
        change("misfits", |s| {
            s.gallery[0].refined = vec![(99, "x.png".to_owned())];
            s.runs.iter_mut().for_each(|r| {
                r.confusion = vec![vec![1; 30]; 30];
                r.class_of_cluster = Some(vec![Some(99), None]);
                r.dim = 0;
            });
        }),
        change("nothing", |s| {
            (s.runs, s.classes, s.palette) = (Vec::new(), Vec::new(), Vec::new());
            (s.variance, s.notes, s.skipped) = (None, Vec::new(), Vec::new());
        }),
    ]
}
