//! A made-up study for tests: eleven classes, two reductions at eight dimensions, both probes, three seeds.
//!
//! The numbers are smooth functions of the setting, not results. Names carry markup characters on purpose: a report
//! that forgets to escape one of them shows it here.

use crate::study::{ClassScore, GalleryItem, RunRecord, Study, VarianceCurve};

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
        confusion: vec![vec![1; CLASSES.len()]; CLASSES.len()],
    }
}

fn item(id: &str) -> GalleryItem {
    let titles = ["Image", "Label", "Linear", "Cluster", "PCA → RGB"];
    let panel = |title: &&str| {
        ((*title).to_owned(), format!("gallery/{id}-{}.png", title.to_lowercase().replace(" → ", "-")))
    };
    GalleryItem { image_id: id.to_owned(), panels: titles.iter().map(panel).collect() }
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
    }
}

/// The first tag that is closed out of turn or never, in markup whose void elements are `img` or end in `/>`.
pub(crate) fn unbalanced(markup: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for tag in markup.split('<').skip(1).filter_map(|piece| piece.split('>').next()) {
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(closed) if open.pop() != Some(closed) => return Some(tag.to_owned()),
            None if !tag.ends_with('/') && name != "img" => open.push(name),
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
        change("nothing", |s| {
            (s.runs, s.classes, s.palette) = (Vec::new(), Vec::new(), Vec::new());
            (s.variance, s.notes, s.skipped) = (None, Vec::new(), Vec::new());
        }),
    ]
}
