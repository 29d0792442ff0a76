//! What training and scoring probes costs: operations counted, over rates measured on a small bank.
//!
//! A probe of `k` dimensions and `o` outputs multiplies `[t, k]` tokens with `[k, o]` weights, and the gradient does it once more;
//! a linear one also looks at all pixels and classes, `h·w·c`, in training, and both kinds do in scoring. Of these two numbers
//! and their rates the seconds are made. Projections are products as well.

use std::time::Instant;

use anyhow::{Result, anyhow};
use ndarray::{Array2, Array3};
use probe::{Bank, BankCell, BankParams, BankScorer, BankSet, CellKind, RowSet, Schedule};
use rayon::prelude::*;

/// `(gh, gw)`, `(h, w)` and the number of images.
type Images = ((usize, usize), (usize, usize), usize);

/// Dimensions of the probes that are measured, if the features have as many.
const MEASURED_DIM: usize = 96;

/// Probes that are measured together: as in a sweep, they share what is done once for all of them.
const MEASURED_PROBES: u64 = 4;

/// Images of a batch that is measured, at most.
const MEASURED_BATCH: usize = 16;

/// Steps that are measured, after one that warms up.
const MEASURED_STEPS: usize = 3;

/// Probes to be trained and scored.
#[derive(Debug, Clone)]
pub(super) struct ProbeWork {
    train: Images,
    val: Images,
    /// Width `d` of the features.
    full_dim: usize,
    classes: usize,
    pub(super) clusters: usize,
    pub(super) steps: usize,
    pub(super) batch: usize,
    /// Whether clusters are matched on the training images.
    pub(super) match_on_train: bool,
    /// Dimensions `k` of each linear probe.
    pub(super) linear: Vec<usize>,
    /// And of each cluster probe.
    pub(super) cluster: Vec<usize>,
    /// Dimensions `K` of each projection.
    pub(super) projections: Vec<usize>,
}

/// How fast this machine is at it, on all threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// Floating-point operations a second of products.
    products: f64,
    /// Pixels times classes a second, of the cross-entropy with its gradient.
    losses: f64,
    /// Pixels times outputs a second, of label maps.
    maps: f64,
}

impl ProbeWork {
    pub(super) fn new(train: Images, val: Images, full_dim: usize, classes: usize) -> Self {
        Self {
            train,
            val,
            full_dim,
            classes,
            clusters: classes,
            steps: 0,
            batch: 1,
            match_on_train: false,
            linear: Vec::new(),
            cluster: Vec::new(),
            projections: Vec::new(),
        }
    }

    /// Seconds of training and of scoring; projections of the images of either are part of it.
    pub(super) fn seconds(&self, rates: &Rates) -> (f64, f64) {
        let projected = |images: Images| {
            let columns: usize = self.projections.iter().sum();
            images.2 as f64 * product(tokens(images), self.full_dim, columns) / rates.products
        };
        let sum = |dims: &[usize]| dims.iter().sum::<usize>();
        let looks = (self.steps * self.batch.min(self.train.2)) as f64;
        let t = tokens(self.train);
        let products =
            product(t, sum(&self.linear), self.classes) + product(t, sum(&self.cluster), self.clusters);
        let losses = (self.linear.len() * self.classes * pixels(self.train)) as f64;
        let train = looks * (2.0 * products / rates.products + losses / rates.losses) + projected(self.train);

        let mut score = self.scoring(self.val, true, rates) + projected(self.val);
        if self.match_on_train {
            score += self.scoring(self.train, false, rates);
        }
        (train, score)
    }

    /// Seconds of label maps of some images by the cluster probes, and by the linear ones if they are asked as well.
    fn scoring(&self, images: Images, with_linear: bool, rates: &Rates) -> f64 {
        let linear: &[usize] = if with_linear { &self.linear } else { &[] };
        let of = |dims: &[usize], outputs: usize| {
            let products = product(tokens(images), dims.iter().sum(), outputs);
            let maps = (dims.len() * outputs * pixels(images)) as f64;
            products / rates.products + maps / rates.maps
        };
        images.2 as f64 * (of(linear, self.classes) + of(&self.cluster, self.clusters))
    }
}

/// Patches `t` of an image.
fn tokens(((gh, gw), ..): Images) -> usize {
    gh * gw
}

/// Pixels `h·w` of a label map.
fn pixels((_, (h, w), _): Images) -> usize {
    h * w
}

/// Floating-point operations of `[t, k]` times `[k, o]`.
fn product(t: usize, k: usize, outputs: usize) -> f64 {
    2.0 * t as f64 * k as f64 * outputs as f64
}

impl Rates {
    /// Times a few steps of some probes of each kind on random features of the work's shapes, and a few label maps.
    ///
    /// # Errors
    /// If there is nothing that could be trained.
    pub(super) fn measure(work: &ProbeWork) -> Result<Self> {
        let (grid, size, _) = work.train;
        let (dim, batch) = (work.full_dim.min(MEASURED_DIM), work.batch.clamp(1, MEASURED_BATCH));
        let noise = |i: usize| ((i.wrapping_mul(0x9e37_79b9) >> 8) & 0xffff) as f32 / 65536.0 - 0.5;
        let features = (0..batch * grid.0 * grid.1 * dim).map(noise).collect();
        let features = Array3::from_shape_vec((batch, grid.0 * grid.1, dim), features)?;
        let labels = Array3::from_shape_fn((batch, size.0, size.1), |(_, y, x)| {
            ((y / 16 + x / 16) % work.classes) as u8 // patches of one class, as labels have them
        });
        let set = RowSet { tokens: features.view(), grid, labels: labels.view() };
        let cells = |kind| -> Vec<BankCell> {
            (0..MEASURED_PROBES).map(|seed| BankCell { source: 0, dim, scale: 1.0, kind, seed }).collect()
        };
        let (linear, cluster) = (cells(CellKind::Linear), cells(CellKind::Cluster(work.clusters)));

        let of_all = (MEASURED_PROBES as usize * batch) as f64;
        let there_and_back = |outputs: usize| 2.0 * of_all * product(grid.0 * grid.1, dim, outputs);
        let looked_at = of_all * (size.0 * size.1 * work.classes) as f64;
        let products = there_and_back(work.clusters) / step_seconds(&set, &cluster, work.classes)?;
        let step = step_seconds(&set, &linear, work.classes)?;
        // At least half of the step: where both kinds take as long, the difference says nothing.
        let losses = looked_at / (step - there_and_back(work.classes) / products).max(0.5 * step);
        let maps = looked_at / map_seconds(&set, &linear, work)?;
        Ok(Self { products, losses, maps })
    }
}

fn schedule(set: &RowSet<'_>, classes: usize) -> BankParams {
    let schedule = Schedule { steps: 1 + MEASURED_STEPS, batch_size: set.len(), ..Schedule::default() };
    BankParams { schedule, class_weights: vec![1.0; classes] }
}

/// Seconds of a training step of some probes, the best of a few.
fn step_seconds(set: &RowSet<'_>, cells: &[BankCell], classes: usize) -> Result<f64> {
    let mut bank = Bank::new(schedule(set, classes), set, cells)?;
    bank.advance()?;
    let mut best = f64::MAX;
    for _ in 0..MEASURED_STEPS {
        let start = Instant::now();
        bank.advance()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Seconds of the label maps of all images of a set, on all threads.
fn map_seconds(set: &RowSet<'_>, cells: &[BankCell], work: &ProbeWork) -> Result<f64> {
    let mut bank = Bank::new(schedule(set, work.classes), set, cells)?;
    bank.advance()?;
    let trained = bank.finish().into_iter().collect::<probe::Result<Vec<_>>>()?;
    let pairs: Vec<_> = cells.iter().copied().zip(&trained).collect();
    let scorer = BankScorer::new(&pairs, work.classes);
    let indices: Vec<usize> = (0..set.len()).collect();
    let batch = set.batch(&indices).map_err(|e| anyhow!(e))?;
    let mut best = f64::MAX;
    for _ in 0..=MEASURED_STEPS {
        let start = Instant::now();
        let map = |place: usize| -> Result<Option<Array2<u8>>> {
            let mut seen = None;
            scorer.image(set, &*batch, place, &mut |_, map| seen = Some(map)).map_err(|e| anyhow!(e))?;
            Ok(seen)
        };
        (0..set.len()).into_par_iter().map(map).collect::<Result<Vec<_>>>()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> ProbeWork {
        ProbeWork {
            steps: 10,
            batch: 4,
            linear: vec![3, 12],
            cluster: vec![12],
            projections: vec![12],
            ..ProbeWork::new(((4, 4), (32, 32), 6), ((6, 6), (48, 48), 3), 24, 5)
        }
    }

    #[test]
    fn seconds_are_counts_over_rates() {
        let rates = Rates { products: 1e3, losses: 1e4, maps: 1e5 };
        let (train, score) = work().seconds(&rates);
        let products = 2.0 * 16.0 * (15.0 * 5.0 + 12.0 * 5.0); // forwards, of all three probes
        let projected = 2.0 * 24.0 * 12.0;
        let by_hand = 40.0 * (2.0 * products / 1e3 + 2.0 * 5.0 * 1024.0 / 1e4) + 6.0 * 16.0 * projected / 1e3;
        assert!((train - by_hand).abs() < 1e-9, "{train} {by_hand}");
        let products = 2.0 * 36.0 * (15.0 * 5.0 + 12.0 * 5.0);
        let by_hand = 3.0 * (products / 1e3 + 3.0 * 5.0 * 2304.0 / 1e5) + 3.0 * 36.0 * projected / 1e3;
        assert!((score - by_hand).abs() < 1e-9, "{score} {by_hand}");

        let (same, more) = ProbeWork { match_on_train: true, ..work() }.seconds(&rates);
        let cluster = 6.0 * (2.0 * 16.0 * 12.0 * 5.0 / 1e3 + 5.0 * 1024.0 / 1e5);
        assert!(same == train && (more - score - cluster).abs() < 1e-9, "{more} {score}");
        let none = ProbeWork { linear: vec![], cluster: vec![], projections: vec![], ..work() };
        assert_eq!(none.seconds(&rates), (0.0, 0.0));
    }

    #[test]
    fn rates_are_positive_at_any_size() {
        for (grid, size, dim) in [((4, 4), (32, 32), 24), ((1, 1), (8, 8), 1)] {
            let work = ProbeWork::new((grid, size, 2), (grid, size, 2), dim, 2);
            let Rates { products, losses, maps } = Rates::measure(&work).unwrap();
            assert!(products > 0.0 && losses > 0.0 && maps > 0.0, "{products} {losses} {maps}");
        }
    }
}
