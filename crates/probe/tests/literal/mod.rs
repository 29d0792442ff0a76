//! The evaluation as published: features are upsampled to every pixel `[h, w, d]`, and then asked; all in 64-bit, and by
//! formulas of its own.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use probe::{BankCell, BankProbe};

/// Two scores this near each other, relative to the largest of the pixel, are a tie.
const TIE: f64 = 1e-5;

/// Pixels in which the two evaluations were held together.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Agreement {
    pub(crate) pixels: usize,
    /// Those whose two best literal scores are a tie.
    pub(crate) ties: usize,
    /// Those of them in which the evaluations chose differently.
    pub(crate) turned: usize,
}

impl Agreement {
    /// Holds the label maps `[h, w]` that a cell predicts against its literal evaluation on tokens `[t, K]` of one image.
    ///
    /// # Panics
    /// If they differ at a pixel that is no tie.
    pub(crate) fn add(
        &mut self,
        (cell, probe): (BankCell, &BankProbe),
        tokens: ArrayView2<'_, f32>,
        grid: (usize, usize),
        predicted: &[Array2<u8>],
    ) {
        let (h, w) = predicted[0].dim();
        let seen = tokens.slice(ndarray::s![.., ..cell.dim]).mapv(|x| f64::from(x * cell.scale)); // [t, k]
        let (rows, columns) = (taps(grid.0, h), taps(grid.1, w));
        for (y, &row) in rows.iter().enumerate() {
            for (x, &column) in columns.iter().enumerate() {
                let scores = scores(probe, &feature(&seen, grid.1, row, column));
                let (best, second) = two_best(&scores);
                let near = TIE * scores.fold(0.0, |most: f64, score| most.max(score.abs()));
                let tie = scores[best] - scores[second] <= near;
                self.pixels += 1;
                self.ties += usize::from(tie);
                for map in predicted {
                    let got = usize::from(map[[y, x]]);
                    self.turned += usize::from(got != best);
                    assert!(
                        got == best || tie && scores[best] - scores[got] <= near,
                        "{cell:?} at ({y}, {x}) of {h} × {w}: {got} has {}, {best} has {}",
                        scores[got],
                        scores[best]
                    );
                }
            }
        }
    }

    /// Prints the counts; ties must be rare, or the comparison says little.
    pub(crate) fn conclude(self, what: &str) {
        let Self { pixels, ties, turned } = self;
        println!("{what}: {pixels} pixels, {ties} ties, {turned} of them decided the other way");
        assert!(pixels > 0 && ties * 1000 < pixels, "{what}: {ties} ties of {pixels} pixels");
    }
}

/// Where output pixels lie between input pixels: the two neighbours and the weight of the second (half-pixel centres).
fn taps(input: usize, output: usize) -> Vec<(usize, usize, f64)> {
    let at = |i: usize| {
        let place = ((i as f64 + 0.5) * input as f64 / output as f64 - 0.5).clamp(0.0, (input - 1) as f64);
        let lower = place.floor() as usize;
        (lower, (lower + 1).min(input - 1), place - place.floor())
    };
    (0..output).map(at).collect()
}

/// The feature `[k]` of one pixel.
fn feature(
    tokens: &Array2<f64>,
    gw: usize,
    (top, bottom, down): (usize, usize, f64),
    (left, right, across): (usize, usize, f64),
) -> Array1<f64> {
    let token = |i: usize, j: usize| tokens.index_axis(Axis(0), i * gw + j);
    let upper = &token(top, left) * (1.0 - across) + &token(top, right) * across;
    let lower = &token(bottom, left) * (1.0 - across) + &token(bottom, right) * across;
    upper * (1.0 - down) + lower * down
}

/// `W x + b`, or the cosine of `x` with every centre.
fn scores(probe: &BankProbe, x: &Array1<f64>) -> Array1<f64> {
    match probe {
        BankProbe::Linear(probe) => probe.weight.mapv(f64::from).dot(x) + probe.bias.mapv(f64::from),
        BankProbe::Cluster(probe) => {
            let centres = probe.centres.mapv(f64::from);
            let lengths = centres.map_axis(Axis(1), |centre| centre.dot(&centre).sqrt());
            centres.dot(x) / lengths / x.dot(x).sqrt()
        }
    }
}

/// The places of the largest score and of the next one; the first of equals.
fn two_best(scores: &Array1<f64>) -> (usize, usize) {
    let best_but = |but: Option<usize>| {
        let others = (0..scores.len()).filter(|&i| Some(i) != but);
        others.reduce(|best, i| if scores[i] > scores[best] { i } else { best })
    };
    let best = best_but(None).expect("a score");
    (best, best_but(Some(best)).expect("two scores"))
}
