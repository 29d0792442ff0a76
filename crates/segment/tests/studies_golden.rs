//! Correspondences, co-occurrence and colours against other implementations: PyTorch, scikit-learn and scikit-image on small data kept in the
//! repository (`tests/golden/segment/make_studies.py`).

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

#[path = "../../../tests/reference/mod.rs"]
mod reference;

use std::path::Path;

use ndarray::{Array, Array2, Array3};
use reference::File;
use segment::co_occurrence::{Void, cosine_scores, label_matches, point_colours, point_labels};
use segment::stego::CrfLoss;
use segment::{ScoredPairs, correspondence_maps, correspondence_picture, lab, query_colours};

fn golden() -> File {
    File::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/segment/studies.safetensors"))
}

fn floats(file: &File, name: &str) -> Array2<f32> {
    file.matrix(name).mapv(|x| x as f32)
}

fn points(file: &File, name: &str) -> Vec<[f32; 2]> {
    floats(file, name).rows().into_iter().map(|row| [row[0], row[1]]).collect()
}

fn image(file: &File) -> Array3<u8> {
    let (shape, values) = file.get("image");
    let bytes = values.iter().map(|&x| x as u8).collect();
    Array::from_shape_vec((shape[0], shape[1], shape[2]), bytes).unwrap()
}

fn close<'a>(got: impl IntoIterator<Item = &'a f32>, want: &[f64], tolerance: f64, what: &str) {
    let got: Vec<f64> = got.into_iter().map(|&x| f64::from(x)).collect();
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{what}: off by {worst}");
}

#[test]
fn correspondences_are_pytorchs() {
    let file = golden();
    let (features, other, queries) =
        (floats(&file, "features"), floats(&file, "other"), points(&file, "queries"));
    let maps = correspondence_maps(features.view(), (5, 6), &queries, other.view()).unwrap();
    close(&maps, &file.vector("maps"), 1e-6, "maps");
    let maps = maps.into_shape_with_order((4, 4, 7)).unwrap();
    let picture = correspondence_picture(image(&file).view(), maps.view(), &query_colours(4)).unwrap();
    let picture = picture.mapv(f32::from);
    close(&picture, &file.vector("picture"), 0.51, "picture");
}

#[test]
fn pairs_are_pytorchs() {
    let file = golden();
    let (ours, theirs) = (points(&file, "points1"), points(&file, "points2"));
    let features = floats(&file, "features");
    let cosine = cosine_scores(features.view(), (5, 6), [&ours, &theirs]).unwrap();
    close(&cosine, &file.vector("cosine"), 1e-5, "cosines");

    let labels = file.matrix("labels").mapv(|x| if x == 4.0 { 255 } else { x as u8 });
    let read = |points: &[[f32; 2]], void| point_labels(labels.view(), points, void).unwrap();
    let matches = label_matches(&read(&ours, Void::Class), &read(&theirs, Void::Class));
    let whole = file.vector("whole");
    assert!(matches.iter().zip(&whole).all(|(is, &whole)| *is == Some(whole == 1.0)));
    let some = whole.iter().filter(|&&whole| whole == 1.0).count();
    assert!(some > 50 && some < whole.len() / 2, "{some} of {}", whole.len());
    let counted = label_matches(&read(&ours, Void::LeftOut), &read(&theirs, Void::LeftOut));
    assert!(counted.iter().zip(&matches).all(|(one, all)| one.is_none() || one == all));

    let pixels = image(&file);
    let (h, w, _) = pixels.dim();
    let pixels = pixels.mapv(|byte| f32::from(byte) / 255.0).into_shape_with_order((h * w, 3)).unwrap();
    let colours = |points: &[[f32; 2]]| point_colours(pixels.view(), (h, w), points).unwrap();
    let (a, b) = (colours(&ours), colours(&theirs));
    let kernel = CrfLoss::co_occurrence().kernel((&ours, a.view()), (&theirs, b.view())).unwrap();
    close(&kernel, &file.vector("kernel"), 2e-5, "kernel");
}

#[test]
fn precision_and_recall_are_scikit_learns() {
    let file = golden();
    let (scores, matches) = (file.vector("scores"), file.vector("matches"));
    let row = (1, scores.len());
    let mut pairs = ScoredPairs::new();
    let scores = Array2::from_shape_vec(row, scores.iter().map(|&x| x as f32).collect()).unwrap();
    let matches = Array2::from_shape_vec(row, matches.iter().map(|&x| Some(x == 1.0)).collect()).unwrap();
    pairs.push(scores.view(), matches.view()).unwrap();
    let found = pairs.precision_recall().unwrap();
    assert!((found.average_precision - file.vector("average_precision")[0]).abs() < 1e-12);
    let (precision, recall) = (file.vector("precision"), file.vector("recall"));
    assert_eq!(found.curve.len(), precision.len());
    for (point, (precision, recall)) in found.curve.iter().zip(precision.iter().zip(&recall)) {
        assert!((point.precision - precision).abs() < 1e-12 && (point.recall - recall).abs() < 1e-12);
    }
}

#[test]
fn colours_are_scikit_images() {
    let file = golden();
    let rgb = file.matrix("rgb").mapv(|x| x as u8);
    let got: Vec<f32> = rgb.rows().into_iter().flat_map(|row| lab([row[0], row[1], row[2]])).collect();
    close(&got, &file.vector("lab"), 1e-4, "L*a*b*");
}
