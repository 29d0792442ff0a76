//! Layouts beside the original programs': quality bands of umap-learn (`13_umap_quality`) and, with the feature `hnne`, the
//! hierarchy and places of h-NNE (`13_hnne`), in `$FEATLAB_GOLDEN`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on panics; one that skips says so

#[path = "../../../tests/reference/mod.rs"]
mod reference;

use dimred::{Metric, NeighbourSet, Projection, Scaler, UmapParams, trustworthiness};
use ndarray::{Array2, ArrayView2, s};
use reference::{File, cases};

/// Share of `queries` whose label is that of most of their 10 nearest among `known`.
fn label_accuracy(
    known: ArrayView2<'_, f32>,
    labels: &[f64],
    queries: ArrayView2<'_, f32>,
    truth: &[f64],
) -> f64 {
    let set = NeighbourSet::new(known, Metric::Euclidean).unwrap();
    let near = set.nearest(queries, 10).unwrap().indices;
    let right = near.rows().into_iter().zip(truth).filter(|(near, truth)| {
        let mut votes = std::collections::BTreeMap::new();
        for &j in near {
            *votes.entry(labels[j as usize] as i64).or_insert(0) += 1;
        }
        let most = votes.iter().max_by_key(|&(label, &count)| (count, -label)).unwrap();
        *most.0 == **truth as i64
    });
    right.count() as f64 / truth.len() as f64
}

/// Trustworthiness by cosine and by distance at k = 15, and label accuracy from the first half to the second.
fn quality(z: &Array2<f32>, labels: &[f64], projected: ArrayView2<'_, f32>) -> [f64; 3] {
    let half = labels.len() / 2;
    [
        trustworthiness(z.view(), projected, 15, Metric::Cosine).unwrap(),
        trustworthiness(z.view(), projected, 15, Metric::Euclidean).unwrap(),
        label_accuracy(
            projected.slice(s![..half, ..]),
            &labels[..half],
            projected.slice(s![half.., ..]),
            &labels[half..],
        ),
    ]
}

#[test]
fn umap_is_as_good_as_the_reference() {
    for (case, about) in cases("13_umap_quality") {
        let input = File::read(&case.join("input.safetensors"));
        let expected = File::read(&case.join("expected.safetensors")).matrix("rows");
        let (z, new) = (input.matrix("z").mapv(|x| x as f32), input.matrix("new_z").mapv(|x| x as f32));
        let (labels, new_labels) = (input.vector("labels"), input.vector("new_labels"));
        for k in [2, 8] {
            let mut sums = [0.0; 4];
            for seed in 0..3 {
                let params =
                    UmapParams { n_components: k, seed, scaler: Scaler::None, ..UmapParams::default() };
                let umap = params.fit(z.view()).unwrap();
                let [cosine, distance, accuracy] = quality(&z, &labels, umap.embedding().view());
                let placed = umap.transform(new.view()).unwrap();
                let joined = label_accuracy(umap.embedding().view(), &labels, placed.view(), &new_labels);
                sums.iter_mut()
                    .zip([cosine, distance, accuracy, joined])
                    .for_each(|(sum, x)| *sum += x / 3.0);
            }
            println!(
                "UMAP to {k}: trustworthiness {:.4} {:.4}, labels {:.4} {:.4}",
                sums[0], sums[1], sums[2], sums[3]
            );
            let own: Vec<_> = expected.rows().into_iter().filter(|row| row[0] == k as f64).collect();
            assert!(!own.is_empty(), "{}: no reference for {k}", about["name"]);
            for (i, (sum, allowed)) in sums.iter().zip([0.01, 0.01, 0.02, 0.02]).enumerate() {
                let least = own.iter().map(|row| row[i + 1]).fold(f64::INFINITY, f64::min);
                assert!(*sum >= least - allowed, "k {k} figure {i}: {sum}, the reference's least is {least}");
            }
        }
    }
}

#[cfg(feature = "hnne")]
#[test]
fn hnne_is_the_reference_s() {
    for (case, about) in cases("13_hnne") {
        let input = File::read(&case.join("input.safetensors"));
        let expected = File::read(&case.join("expected.safetensors"));
        let (z, new) = (input.matrix("z").mapv(|x| x as f32), input.matrix("new_z").mapv(|x| x as f32));
        let labels = input.vector("labels");
        for k in [2, 3, 8] {
            let params = dimred::HnneParams { n_components: k, scaler: Scaler::None, ..Default::default() };
            let found = params.fit(z.view()).unwrap();
            let partitions = expected.matrix("partitions");
            assert_eq!(found.partitions.dim(), partitions.dim());
            for (level, (own, theirs)) in
                found.partitions.columns().into_iter().zip(partitions.columns()).enumerate()
            {
                let (mut there, mut back) =
                    (std::collections::HashMap::new(), std::collections::HashMap::new());
                for (&a, &b) in own.iter().zip(theirs) {
                    let b = b as i64;
                    assert!(
                        *there.entry(a).or_insert(b) == b && *back.entry(b).or_insert(a) == a,
                        "level {level}"
                    );
                }
                assert_eq!(there.len() as f64, expected.vector("partition_sizes")[level]);
            }
            let figures = quality(&z, &labels, found.embedding.view());
            println!(
                "h-NNE to {k}: trustworthiness {:.4} {:.4}, labels {:.4}",
                figures[0], figures[1], figures[2]
            );
            // Where we leave the original's angles out, we must not be worse; elsewhere the same.
            for (got, want) in figures.iter().zip(expected.vector(&format!("quality.{k}"))) {
                assert!(*got >= want - 0.01, "k {k}: {got}, the reference has {want}");
                assert!(k < 4 || (got - want).abs() <= 0.01, "k {k}: {got}, the reference has {want}");
            }
            if k < 4 {
                continue;
            }
            let tolerance = about["tolerance"]["projection_8"]["rel_to_max"].as_f64().unwrap();
            let placed = found.hnne.transform(new.view()).unwrap();
            for (got, name) in [(&found.embedding, "projection.8"), (&placed, "new.8")] {
                let want = expected.matrix(name);
                let largest = want.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                for (got, want) in got.columns().into_iter().zip(want.columns()) {
                    let off = |sign: f64| {
                        got.iter()
                            .zip(want)
                            .map(|(&g, &w)| (f64::from(g) - sign * w).abs())
                            .fold(0.0, f64::max)
                    };
                    assert!(off(1.0).min(off(-1.0)) <= tolerance * largest, "{name}");
                }
            }
        }
    }
}
