//! The loss of upsampled logits against its definition in double precision, at every level of this machine: odd and even
//! factors, flat and steep logits, NaN, pixels that do not count, and the label's share.

use kernels::{Level, Spans, UpsampledSoftmax};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One map of logits, labels above it, and a weight for each label.
struct Case {
    grid: (usize, usize),
    factor: (usize, usize),
    classes: usize,
    logits: Vec<f32>, // [c, gh, gw]
    labels: Vec<u8>,  // [h, w]
    weights: [f32; 256],
}

impl Case {
    fn random(
        rng: &mut ChaCha8Rng,
        grid: (usize, usize),
        factor: (usize, usize),
        classes: usize,
        reach: f32,
    ) -> Self {
        let logits = (0..classes * grid.0 * grid.1).map(|_| rng.random_range(-reach..reach)).collect();
        let pixels = grid.0 * factor.0 * grid.1 * factor.1;
        let labels = (0..pixels).map(|_| rng.random_range(0..classes as u8 + 1)).collect();
        let mut weights = [0.0; 256];
        (0..classes).for_each(|class| weights[class] = 0.5 + class as f32);
        Self { grid, factor, classes, logits, labels, weights }
    }

    fn size(&self) -> (usize, usize) {
        (self.grid.0 * self.factor.0, self.grid.1 * self.factor.1)
    }

    /// Loss without the label's part, its gradient `[c, gh, gw]`, and the label's part of the gradient.
    fn exact(&self) -> (f64, Vec<f64>, Vec<f64>) {
        let ((gh, gw), (h, w), c) = (self.grid, self.size(), self.classes);
        let taps = |i: usize, factor: usize, g: usize| {
            let at = ((i as f64 + 0.5) / factor as f64 - 0.5).max(0.0);
            let low = (at.floor() as usize).min(g - 1);
            [(low, 1.0 - (at - low as f64)), ((low + 1).min(g - 1), at - low as f64)]
        };
        let (mut loss, mut gradient, mut mass) = (0.0, vec![0.0; c * gh * gw], vec![0.0; c * gh * gw]);
        for y in 0..h {
            for x in 0..w {
                let label = self.labels[y * w + x];
                let weight = f64::from(self.weights[usize::from(label)]);
                let mut places = Vec::new();
                for (i, a) in taps(y, self.factor.0, gh) {
                    for (j, b) in taps(x, self.factor.1, gw) {
                        places.push((i * gw + j, a * b));
                    }
                }
                let logit = |class: usize| -> f64 {
                    places.iter().map(|&(t, share)| share * f64::from(self.logits[class * gh * gw + t])).sum()
                };
                let logits: Vec<f64> = (0..c).map(logit).collect();
                let top = logits.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = logits.iter().map(|u| (u - top).exp()).sum();
                loss += weight * (top + sum.ln());
                for class in 0..c {
                    let p = weight * (logits[class] - top).exp() / sum;
                    places.iter().for_each(|&(t, share)| gradient[class * gh * gw + t] += share * p);
                }
                if usize::from(label) < c {
                    let at = usize::from(label) * gh * gw;
                    places.iter().for_each(|&(t, share)| mass[at + t] += share * weight);
                }
            }
        }
        (loss, gradient, mass)
    }

    /// The same by the kernels.
    fn run(&self, level: Level) -> (f64, Vec<f32>, Vec<f32>) {
        let spans = Spans::new(self.grid, self.size()).expect("whole factors");
        let mut scores = vec![0.0; spans.scores_len(self.classes)];
        let (gh, gw) = self.grid;
        for class in 0..self.classes {
            for i in 0..gh {
                let row = &self.logits[(class * gh + i) * gw..][..gw];
                scores[spans.tokens(i, class, self.classes)].copy_from_slice(row);
            }
        }
        spans.repeat_outermost(&mut scores);
        let mut weights = vec![f32::NAN; spans.weights_len()];
        spans.pack_weights(&self.labels, &self.weights, &mut weights);
        let (mut gradient, mut mass) = (vec![f32::NAN; scores.len()], vec![f32::NAN; scores.len()]);
        spans.label_mass(&self.labels, &self.weights, self.classes, &mut mass);
        let loss =
            UpsampledSoftmax::default().run(level, spans, self.classes, &scores, &weights, &mut gradient);
        let tokens = |map: &[f32]| {
            let row = |class: usize, i: usize| map[spans.tokens(i, class, self.classes)].to_vec();
            (0..self.classes).flat_map(|class| (0..gh).flat_map(move |i| row(class, i))).collect()
        };
        (loss, tokens(&gradient), tokens(&mass))
    }
}

#[test]
fn equals_the_definition_at_every_level() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (grid, factor) in [
        ((3, 5), (8, 8)),
        ((1, 1), (4, 2)),
        ((2, 17), (7, 3)),
        ((4, 3), (16, 14)),
        ((5, 31), (1, 1)),
        ((2, 2), (6, 5)),
    ] {
        for reach in [0.01, 5.0, 30.0, 120.0, 1000.0] {
            for classes in [1, 2, 11] {
                let case = Case::random(&mut rng, grid, factor, classes, reach);
                let (loss, gradient, mass) = case.exact();
                for level in Level::available() {
                    let what = format!("{grid:?} {factor:?} ±{reach} {classes} classes, {level:?}");
                    let got = case.run(level);
                    assert!((got.0 - loss).abs() < 2e-6 * loss.abs() + 1e-3, "{what}: {} for {loss}", got.0);
                    let most = gradient.iter().copied().fold(0.0, f64::max);
                    for (got, want) in got.1.iter().zip(&gradient) {
                        assert!((f64::from(*got) - want).abs() < 2e-5 * most, "{what}: {got} for {want}");
                    }
                    for (got, want) in got.2.iter().zip(&mass) {
                        assert!(
                            (f64::from(*got) - want).abs() < 1e-5 * most.max(1.0),
                            "{what}: {got} for {want}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_broken_logit_shows_in_the_loss() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for broken in [f32::NAN, f32::INFINITY] {
        let mut case = Case::random(&mut rng, (3, 4), (8, 8), 5, 3.0);
        case.logits[17] = broken;
        for level in Level::available() {
            assert!(!case.run(level).0.is_finite(), "{broken} at {level:?}");
        }
    }
}

#[test]
fn no_pixel_no_loss() {
    let mut case = Case::random(&mut ChaCha8Rng::seed_from_u64(3), (3, 4), (8, 8), 5, 3.0);
    case.labels.fill(255);
    for level in Level::available() {
        let (loss, gradient, mass) = case.run(level);
        assert_eq!(loss, 0.0);
        assert!(gradient.iter().chain(&mass).all(|&x| x == 0.0));
    }
}

#[test]
fn sizes_that_are_no_multiple_have_no_spans() {
    assert!(Spans::new((3, 4), (24, 33)).is_none() && Spans::new((3, 4), (25, 32)).is_none());
    assert!(Spans::new((0, 4), (0, 32)).is_none() && Spans::new((3, 4), (0, 0)).is_none());
    assert!(Spans::new((3, 4), (24, 32)).is_some());
}
