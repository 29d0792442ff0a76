//! STEGO against other implementations: the losses against automatic differentiation on small data kept in the repository
//! (`tests/golden/segment/make_stego.py`), the head and the correspondence loss against the reference cases `03_*`, the neighbours against `09_*`, of `$FEATLAB_GOLDEN` (default
//! `../shared/golden` beside the workspace), where that folder is.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on panics; one that skips says so

#[path = "../../../tests/reference/mod.rs"]
mod reference;

use std::path::Path;

use ndarray::{Array, Array3, Array4, ArrayD, ArrayView2, Axis};
use reference::{File, cases};
use segment::stego::{
    CorrespondenceGradient, CorrespondenceParams, CorrespondenceSide, CrfLoss, Decoder, Head, HeadKind,
    HeadShape, Masks, Points, nearest_neighbours, pooled_directions, without_fixed_points,
};

/// A case's tensors with the conventions of this crate.
struct Case {
    input: File,
    expected: File,
    about: serde_json::Value,
    tolerance: f64,
}

impl Case {
    fn number(&self, name: &str) -> f64 {
        self.about["params"][name].as_f64().unwrap()
    }

    fn size(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    /// `[b, c, h, w]` as tokens `[b, h w, c]`.
    fn tokens(file: &File, name: &str) -> Array3<f32> {
        let (shape, values) = file.get(name);
        let [b, c, h, w] = shape.try_into().unwrap();
        let values = values.iter().map(|&x| x as f32).collect();
        let maps = Array::from_shape_vec((b, c, h * w), values).unwrap();
        maps.permuted_axes([0, 2, 1]).as_standard_layout().into_owned()
    }

    /// The better of the two references.
    fn best(&self, name: &str) -> Vec<f64> {
        let exact = format!("{name}.f64");
        let name = if self.expected.names().contains(&exact) { exact } else { name.to_owned() };
        self.expected.vector(&name)
    }

    /// Tokens `[b, t, c]` against maps `[b, c, h, w]`.
    fn same_maps(&self, got: &Array3<f32>, name: &str) {
        let turned = got.view().permuted_axes([0, 2, 1]);
        self.same(turned.iter().map(|&x| f64::from(x)).collect(), name);
    }

    fn same(&self, got: Vec<f64>, name: &str) {
        let want = self.best(name);
        assert_eq!(got.len(), want.len(), "{name}");
        let most = want.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let worst = got.iter().zip(&want).fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{name}: {:.1e} of the largest", worst / most);
        assert!(worst <= self.tolerance * most + 1e-7, "{name}: off by {worst} of {most}");
    }

    fn head(&self) -> Head {
        let kind = match self.about["params"]["projection"].as_str().unwrap() {
            "nonlinear" => HeadKind::Nonlinear,
            _ => HeadKind::Linear,
        };
        let shape = HeadShape { embed_dim: self.size("C"), code_dim: self.size("dim"), kind };
        let mut parameters = Vec::new();
        for tensor in shape.tensors() {
            let (sizes, values) = self.input.get(&format!("head.{}", tensor.name));
            assert_eq!(sizes, tensor.shape);
            parameters.extend(values.iter().map(|&x| x as f32));
        }
        Head::from_parameters(shape, parameters).unwrap()
    }

    fn points(&self, name: &str) -> Vec<Points> {
        let (shape, values) = self.input.get(name);
        let points = Array::from_shape_vec((shape[0], shape[1], shape[2], 2), values).unwrap();
        let grid = (self.size("H"), self.size("W"));
        let points = points.mapv(|x| x as f32);
        points.outer_iter().map(|points| Points::swapped(points, grid).unwrap()).collect()
    }

    fn orders(&self, name: &str) -> Vec<Vec<usize>> {
        let (shape, values) = self.input.get(name);
        values.chunks(shape[1]).map(|row| row.iter().map(|&x| x as usize).collect()).collect()
    }

    fn params(&self, pointwise: bool, zero_clamp: bool, stabalize: bool) -> CorrespondenceParams {
        CorrespondenceParams {
            pos_inter_weight: self.number("pos_inter_weight") as f32,
            pos_intra_weight: self.number("pos_intra_weight") as f32,
            neg_inter_weight: self.number("neg_inter_weight") as f32,
            pos_inter_shift: self.number("pos_inter_shift") as f32,
            pos_intra_shift: self.number("pos_intra_shift") as f32,
            neg_inter_shift: self.number("neg_inter_shift") as f32,
            pointwise,
            zero_clamp,
            stabalize,
            feature_samples: self.size("feature_samples"),
            neg_samples: self.size("neg_samples"),
            ..CorrespondenceParams::default()
        }
    }
}

fn floats(file: &File, name: &str) -> ArrayD<f32> {
    let (shape, values) = file.get(name);
    Array::from_shape_vec(shape, values.iter().map(|&x| x as f32).collect()).unwrap()
}

fn cube(file: &File, name: &str) -> Array3<f32> {
    floats(file, name).into_dimensionality().unwrap()
}

fn near<'a>(file: &File, name: &str, got: impl IntoIterator<Item = &'a f32>) {
    near_f64(file, name, &got.into_iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
}

fn near_f64(file: &File, name: &str, got: &[f64]) {
    let want = file.vector(name);
    assert_eq!(got.len(), want.len(), "{name}");
    let most = want.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let worst = got.iter().zip(&want).fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= 3e-6 * most + 1e-7, "{name}: off by {worst} of {most}");
}

#[test]
fn own_numbers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/segment/stego.safetensors");
    let file = File::read(&path);
    let grid = (4, 5);
    let [features, features_pos, codes, codes_pos] =
        ["features", "features_pos", "codes", "codes_pos"].map(|name| cube(&file, name));
    let points = ["points1", "points2"].map(|name| {
        let of_image = |image: ArrayView2<'_, f32>| {
            let points: Vec<_> = image.outer_iter().map(|point| [point[0], point[1]]).collect();
            Points::new(&points, grid).unwrap()
        };
        cube(&file, name).outer_iter().map(of_image).collect::<Vec<_>>()
    });
    let indices = |name| file.matrix(name).mapv(|x| x as usize);
    let negatives: Vec<_> = indices("negatives").outer_iter().map(|row| row.to_vec()).collect();
    let ladder =
        |rungs: &[usize]| CorrespondenceParams { ladder: rungs.to_vec(), ..CorrespondenceParams::default() };
    let variants = (0..8).map(|bits| {
        let [p, z, s] = [4, 2, 1].map(|bit| bits & bit);
        let name = format!("p{}z{}s{s}", p / 4, z / 2);
        let params = CorrespondenceParams {
            pointwise: p != 0,
            zero_clamp: z != 0,
            stabalize: s != 0,
            ..CorrespondenceParams::default()
        };
        (name, params)
    });
    for (name, params) in variants.chain([("ladder".to_owned(), ladder(&[2, 3, 5]))]) {
        let images =
            CorrespondenceSide { features: features.view(), codes: codes.view(), points: &points[0] };
        let (features, codes) = (features_pos.view(), codes_pos.view());
        let neighbours = CorrespondenceSide { features, codes, points: &points[1] };
        let out = params.gradient(images, neighbours, &negatives).unwrap();
        let means = out.value.losses;
        let losses = [means.intra, means.inter, means.negative, out.value.total];
        near_f64(&file, &format!("{name}.losses"), &losses);
        near(&file, &format!("{name}.grad_codes"), &out.grad_codes);
        near(&file, &format!("{name}.grad_codes_pos"), &out.grad_codes_pos);
    }
    let images: Array4<f32> = floats(&file, "images").into_dimensionality().unwrap();
    let pixels: Vec<_> = indices("pixels").outer_iter().map(|pixel| (pixel[0], pixel[1])).collect();
    let crf = CrfLoss { side: 7, ..CrfLoss::default() };
    let out = crf.gradient(images.view(), codes.view(), grid, &pixels).unwrap();
    near_f64(&file, "crf.loss", &[out.loss]);
    near(&file, "crf.grad", &out.grad_codes);
    let [features, codes] = [&features, &codes].map(|array| array.index_axis(Axis(0), 0));
    let decoder = Decoder::from_parameters(8, 5, floats(&file, "decoder").into_iter().collect()).unwrap();
    let out = decoder.gradient(features, codes).unwrap();
    near_f64(&file, "rec.loss", &[out.loss]);
    near(&file, "rec.grad", &out.grad_codes);
    near(&file, "rec.grad_decoder", &out.grad_parameters);
    let shape = HeadShape { embed_dim: 8, code_dim: 5, kind: HeadKind::Nonlinear };
    let head = Head::from_parameters(shape, floats(&file, "head").into_iter().collect()).unwrap();
    near(&file, "head.code", &head.code(features).unwrap());
    near(&file, "head.grad", &head.gradient(features, &Masks::default(), codes).unwrap());
}

#[test]
fn head_and_correspondence_loss() {
    for (folder, about) in cases("03_") {
        let case = Case {
            input: File::read(&folder.join("input.safetensors")),
            expected: File::read(&folder.join("expected.safetensors")),
            tolerance: about["tolerance"]["rel_to_max"].as_f64().unwrap(),
            about,
        };
        println!("{}", folder.display());
        let [features, features_pos] = ["feats", "feats_pos"].map(|name| Case::tokens(&case.input, name));
        let head = case.head();
        let code = |features: &Array3<f32>| {
            let (b, t, d) = features.dim();
            let rows = features.view().into_shape_with_order((b * t, d)).unwrap();
            head.code(rows).unwrap().into_shape_with_order((b, t, head.shape().code_dim)).unwrap()
        };
        let [codes, codes_pos] = [&features, &features_pos].map(code);
        case.same_maps(&codes, "code");
        case.same_maps(&codes_pos, "code_pos");
        let raw = case.orders("perms_raw");
        let negatives: Vec<_> = raw.into_iter().map(without_fixed_points).collect();
        assert_eq!(negatives, case.orders("perms"));
        let points = ["coords1", "coords2"].map(|name| case.points(name));
        let mut variants = 0;
        for bits in 0..8 {
            let [p, z, s] = [4, 2, 1].map(|bit| bits & bit != 0);
            let name = format!("p{}z{}s{}", i32::from(p), i32::from(z), i32::from(s));
            if !case.expected.names().contains(&format!("{name}.losses")) {
                continue;
            }
            variants += 1;
            let out = case
                .params(p, z, s)
                .gradient(
                    CorrespondenceSide { features: features.view(), codes: codes.view(), points: &points[0] },
                    CorrespondenceSide {
                        features: features_pos.view(),
                        codes: codes_pos.view(),
                        points: &points[1],
                    },
                    &negatives,
                )
                .unwrap();
            check_loss(&case, &name, &out);
            if name == "p1z1s0" {
                check_head(&case, &head, [&features, &features_pos], &out);
            }
        }
        assert_eq!(variants, 8);
    }
}

fn check_loss(case: &Case, name: &str, out: &CorrespondenceGradient) {
    let means = out.value.losses;
    case.same(vec![means.intra, means.inter, means.negative, out.value.total], &format!("{name}.losses"));
    let mean = |tensor: &str| {
        let values = case.best(tensor);
        values.iter().sum::<f64>() / values.len() as f64
    };
    let cosines = out.value.cosines;
    for (got, tensor) in
        [(cosines.intra, "pos_intra_cd"), (cosines.inter, "pos_inter_cd"), (cosines.negative, "neg_inter_cd")]
    {
        assert!((got - mean(tensor)).abs() < 1e-5, "{tensor}");
    }
    if case.expected.names().contains(&format!("{name}.grad_code")) {
        case.same_maps(&out.grad_codes, &format!("{name}.grad_code"));
        case.same_maps(&out.grad_codes_pos, &format!("{name}.grad_code_pos"));
    }
}

/// Gradients of the head's parameters, through the codes of images and of neighbours.
fn check_head(case: &Case, head: &Head, features: [&Array3<f32>; 2], out: &CorrespondenceGradient) {
    let mut grads = vec![0.0; head.parameters().len()];
    for (features, slopes) in features.into_iter().zip([&out.grad_codes, &out.grad_codes_pos]) {
        for (features, slopes) in features.outer_iter().zip(slopes.outer_iter()) {
            let part = head.gradient(features, &Masks::default(), slopes).unwrap();
            grads.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
    }
    for tensor in head.shape().tensors() {
        let got = grads[tensor.range.clone()].iter().map(|&x| f64::from(x)).collect();
        case.same(got, &format!("grad_head.{}", tensor.name));
    }
}

#[test]
fn neighbours() {
    for (folder, about) in cases("09_") {
        let (input, expected) =
            (File::read(&folder.join("input.safetensors")), File::read(&folder.join("expected.safetensors")));
        let pooled = pooled_directions(Case::tokens(&input, "fmaps").view()).unwrap();
        let atol = about["tolerance"]["sims"]["atol"].as_f64().unwrap();
        for (got, want) in pooled.iter().zip(expected.vector("normed_pool")) {
            assert!((f64::from(*got) - want).abs() < 1e-6);
        }
        // One token per image: its direction is the pooled one's.
        let rows = input.matrix("pooled").mapv(|x| x as f32).insert_axis(Axis(1));
        let (k, n) = (about["params"]["k"].as_u64().unwrap() as usize, rows.dim().0);
        let got = nearest_neighbours(pooled_directions(rows.view()).unwrap().view(), k).unwrap();
        let (nns, sims) = (expected.matrix("nns"), expected.matrix("sims"));
        let mut close = 0;
        for i in 0..n {
            for rank in 0..k {
                assert!((f64::from(got.similarities[[i, rank]]) - sims[[i, rank]]).abs() <= atol);
                let apart = |a: usize, b: usize| sims[[i, a]] - sims[[i, b]] > 1e-6;
                if (rank == 0 || apart(rank - 1, rank)) && apart(rank, rank + 1) {
                    assert_eq!(f64::from(got.indices[[i, rank]]), nns[[i, rank]], "image {i}, rank {rank}");
                } else {
                    close += 1;
                }
            }
        }
        println!("{}: {} neighbours agree, {close} are too close to tell", folder.display(), n * k - close);
    }
}
