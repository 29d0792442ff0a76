//! Training a linear classifier as DINO evaluates its features (Caron et al., 2021).
//!
//! SGD with momentum. The learning rate is scaled by the batch, `rate · batch / 256`, and falls along a cosine from epoch to epoch,
//! constant within one. After every epoch the classifier is tested, which costs little as the features are there.
//!
//! Not the original: its training views are random crops, new in every epoch, where ours are fixed features; and its
//! losses are means over batches, where ours are means over images (they differ by a short last batch).

use std::f64::consts::PI;
use std::ops::ControlFlow;

use ndarray::{Array1, Array2, Axis};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Normal};

use crate::error::{expect_range, expect_shape};
use crate::{Error, LabelledRows, LinearClassifier, Result, Sgd, TopAccuracy};

/// Batch size for which the learning rate is stated.
const RATE_BATCH: f64 = 256.0;
/// Standard deviation of the initial weights.
const INITIAL_STD: f32 = 0.01;

/// A linear classifier that is not trained yet. [`LinearClassifierParams::new`] has DINO's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearClassifierParams {
    /// Number of classes `c`.
    pub classes: usize,
    /// Passes over the training set; 0 leaves the classifier as it was initialised.
    pub epochs: usize,
    /// Images per step; the last step of an epoch may have fewer.
    pub batch_size: usize,
    /// Learning rate of a batch of 256 in the first epoch.
    pub learning_rate: f64,
    /// Seed of the order of images and of the initial weights.
    pub seed: u64,
}

/// What happened in one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochRecord {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// Learning rate of its steps.
    pub train_lr: f64,
    /// Mean loss of the training images, each just before its step.
    pub train_loss: f64,
    /// Mean loss of the test images afterwards.
    pub test_loss: f64,
    /// Accuracy on the test images afterwards, as fractions.
    pub test: TopAccuracy,
    /// The best top-1 of all epochs so far, as a fraction. It was chosen on the test images.
    pub best_top1: f64,
}

/// A sign of life of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrainEvent {
    /// A step of so many images is done.
    Step(usize),
    /// An epoch is done and tested.
    Epoch(EpochRecord),
}

impl LinearClassifierParams {
    /// 100 epochs in batches of 256 at 0.001, seed 0.
    pub fn new(classes: usize) -> Self {
        Self { classes, epochs: 100, batch_size: 256, learning_rate: 0.001, seed: 0 }
    }

    /// Trains a classifier and tests it after every epoch. The same parameters and data give the same bits, for any
    /// number of threads.
    ///
    /// * `train`, `test`: rows of the same width, classes below [`LinearClassifierParams::classes`].
    /// * `watch`: called after every step and every epoch; it stops the training by returning `Break`.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Shape`] and [`Error::Range`] for what cannot be trained on, [`Error::Diverged`], and
    /// [`Error::Interrupted`] after a `Break`.
    pub fn fit(
        &self,
        train: LabelledRows<'_>,
        test: LabelledRows<'_>,
        watch: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<LinearClassifier> {
        self.check(train, test)?;
        let mut classifier = self.initial(train.rows.ncols());
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..train.len()).collect();
        let mut next_order = |_| {
            order.shuffle(&mut rng);
            order.clone()
        };
        self.train(&mut classifier, train, test, &mut next_order, watch)?;
        Ok(classifier)
    }

    /// Learning rate of the steps of an epoch.
    pub fn rate(&self, epoch: usize) -> f64 {
        let full = self.learning_rate * self.batch_size as f64 / RATE_BATCH;
        full * (1.0 + (PI * epoch as f64 / self.epochs as f64).cos()) / 2.0
    }

    /// Trains in the orders that `next_order` gives for the epochs.
    fn train(
        &self,
        classifier: &mut LinearClassifier,
        train: LabelledRows<'_>,
        test: LabelledRows<'_>,
        next_order: &mut dyn FnMut(usize) -> Vec<usize>,
        watch: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut sgd = (Sgd::new(classifier.weight.len()), Sgd::new(classifier.bias.len()));
        let mut best_top1 = 0.0_f64;
        let mut steps = 0;
        for epoch in 0..self.epochs {
            let rate = self.rate(epoch);
            let mut sum = 0.0;
            for indices in next_order(epoch).chunks(self.batch_size) {
                let rows = train.rows.select(Axis(0), indices);
                let classes: Vec<u32> = indices.iter().map(|&i| train.classes[i]).collect();
                let gradient = classifier.slope(rows.view(), &classes);
                steps += 1;
                if !gradient.loss.is_finite() {
                    return Err(Error::Diverged { step: steps, loss: gradient.loss });
                }
                sum += gradient.loss * indices.len() as f64;
                step(&mut sgd.0, classifier.weight.as_slice_mut(), gradient.weight.as_slice(), rate);
                step(&mut sgd.1, classifier.bias.as_slice_mut(), gradient.bias.as_slice(), rate);
                proceed(watch(TrainEvent::Step(indices.len())))?;
            }
            let (test_loss, accuracy) = classifier.measure(test);
            best_top1 = best_top1.max(accuracy.top1);
            let train_loss = sum / train.len() as f64;
            let record =
                EpochRecord { epoch, train_lr: rate, train_loss, test_loss, test: accuracy, best_top1 };
            proceed(watch(TrainEvent::Epoch(record)))?;
        }
        Ok(())
    }

    fn check(&self, train: LabelledRows<'_>, test: LabelledRows<'_>) -> Result<()> {
        train.check("training set")?;
        test.check("test set")?;
        expect_shape("test rows", &[test.len(), train.rows.ncols()], test.rows.shape())?;
        expect_range(train.rows.ncols() > 0, "feature dimension", "at least 1", 0)?;
        expect_range(self.batch_size > 0, "batch size", "at least 1", self.batch_size)?;
        let rate = self.learning_rate;
        expect_range(rate.is_finite() && rate > 0.0, "learning rate", "a positive number", rate)?;
        let most = train.classes.iter().chain(test.classes).copied().max().unwrap_or(0);
        let expected = format!("below {}, the number of classes", self.classes);
        expect_range((most as usize) < self.classes, "class", &expected, most)
    }

    /// Normal weights of deviation 0.01, biases 0.
    fn initial(&self, dim: usize) -> LinearClassifier {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(1); // apart from the one that orders the images
        let normal = Normal::new(0.0, INITIAL_STD).expect("the deviation is finite");
        let weight = Array2::from_shape_simple_fn((self.classes, dim), || normal.sample(&mut rng));
        LinearClassifier { weight, bias: Array1::zeros(self.classes) }
    }
}

fn proceed(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Interrupted) } else { Ok(()) }
}

/// A step on arrays that were made here, in standard layout.
fn step(sgd: &mut Sgd, parameters: Option<&mut [f32]>, gradient: Option<&[f32]>, rate: f64) {
    sgd.step(parameters.expect("standard layout"), gradient.expect("standard layout"), rate as f32);
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// Noisy copies of one direction per class: `[n, d]` rows and `[n]` classes.
    fn blobs(n: usize, d: usize, classes: usize, shift: usize) -> (Array2<f32>, Vec<u32>) {
        let rows = Array2::from_shape_fn((n, d), |(i, j)| {
            let own = f32::from(u8::from(j % classes == i % classes));
            own + 0.6 * (((i + shift) * 131 + j * 37) as f32).sin()
        });
        (rows, (0..n).map(|i| (i % classes) as u32).collect())
    }

    fn set<'a>((rows, classes): &'a (Array2<f32>, Vec<u32>)) -> LabelledRows<'a> {
        LabelledRows { rows: rows.view(), classes }
    }

    fn params(classes: usize, epochs: usize, seed: u64) -> LinearClassifierParams {
        LinearClassifierParams { classes, epochs, batch_size: 16, learning_rate: 4.0, seed }
    }

    fn fit(
        params: LinearClassifierParams,
        train: LabelledRows<'_>,
        test: LabelledRows<'_>,
    ) -> (LinearClassifier, Vec<EpochRecord>) {
        let mut records = Vec::new();
        let mut watch = |event| {
            if let TrainEvent::Epoch(record) = event {
                records.push(record);
            }
            ControlFlow::Continue(())
        };
        (params.fit(train, test, &mut watch).unwrap(), records)
    }

    #[test]
    fn learns_what_is_linear_and_remembers_its_best() {
        let (train, test) = (blobs(90, 12, 7, 0), blobs(35, 12, 7, 1000));
        let (classifier, records) = fit(params(7, 20, 0), set(&train), set(&test));
        let last = records[19];
        assert!(last.train_loss < 0.3 * records[0].train_loss, "{records:?}");
        assert!(last.test.top1 > 0.9 && last.test.top5 >= last.test.top1, "{last:?}");
        let best = records.iter().map(|r| r.test.top1).fold(0.0, f64::max);
        assert_eq!(last.best_top1, best);
        let right = |(logits, class): (ndarray::ArrayView1<'_, f32>, &u32)| {
            (0..7).all(|c| logits[c] <= logits[*class as usize])
        };
        let hits = classifier.logits(test.0.view()).outer_iter().zip(&test.1).filter(|at| right(*at)).count();
        assert_eq!(hits as f64 / 35.0, last.test.top1);
    }

    #[test]
    fn gradient_is_the_slope_of_the_loss() {
        let data = blobs(13, 4, 3, 5);
        let mut classifier = params(3, 0, 1).initial(4);
        classifier.weight *= 30.0;
        let loss = |classifier: &LinearClassifier| classifier.gradient(set(&data)).unwrap().loss;
        let slope = classifier.gradient(set(&data)).unwrap();
        let mut measure = |at: &dyn Fn(&mut LinearClassifier) -> &mut f32, slope: f32| {
            let before = *at(&mut classifier);
            let [up, down] = [0.01, -0.01].map(|shift| {
                *at(&mut classifier) = before + shift;
                loss(&classifier)
            });
            *at(&mut classifier) = before;
            let measured = (up - down) / 0.02;
            assert!((measured - f64::from(slope)).abs() < 1e-4, "{measured} for {slope}");
        };
        for (index, &slope) in slope.weight.indexed_iter() {
            measure(&|classifier| &mut classifier.weight[index], slope);
        }
        for (index, &slope) in slope.bias.indexed_iter() {
            measure(&|classifier| &mut classifier.bias[index], slope);
        }
    }

    #[test]
    fn follows_torch() {
        let text = include_str!("../../../tests/golden/classify/classify.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let golden = &golden["linear"];
        let floats = |value: &serde_json::Value| -> Vec<f32> {
            value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
        };
        let matrix = |name: &str| {
            let rows: Vec<Vec<f32>> = golden[name].as_array().unwrap().iter().map(floats).collect();
            Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap()
        };
        let whole = |value: &serde_json::Value| -> Vec<usize> {
            value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
        };
        let classes = |name: &str| whole(&golden[name]).into_iter().map(|c| c as u32).collect::<Vec<_>>();
        let (train, test) =
            ((matrix("rows"), classes("classes")), (matrix("test_rows"), classes("test_classes")));
        let params = LinearClassifierParams {
            epochs: 6,
            batch_size: golden["batch_size"].as_u64().unwrap() as usize,
            learning_rate: golden["learning_rate"].as_f64().unwrap(),
            ..LinearClassifierParams::new(3)
        };
        let mut classifier = LinearClassifier { weight: matrix("initial"), bias: Array1::zeros(3) };
        let mut records = Vec::new();
        let mut watch = |event| {
            if let TrainEvent::Epoch(record) = event {
                records.push(record);
            }
            ControlFlow::Continue(())
        };
        let mut order = |epoch: usize| whole(&golden["orders"][epoch]);
        params.train(&mut classifier, set(&train), set(&test), &mut order, &mut watch).unwrap();
        for (record, expected) in records.iter().zip(golden["records"].as_array().unwrap()) {
            let near = |got: f64, name: &str| {
                let want = expected[name].as_f64().unwrap();
                assert!((got - want).abs() <= 1e-6 + 1e-5 * want.abs(), "{name}: {got}, expected {want}");
            };
            near(record.train_loss, "train_loss");
            near(record.train_lr, "train_lr");
            near(record.epoch as f64, "epoch");
            near(record.test_loss, "test_loss");
            near(record.test.top1, "test_acc1");
        }
        assert_eq!(records.len(), 6);
        for (got, want) in classifier.weight.iter().zip(matrix("weight").iter()) {
            assert!((got - want).abs() < 1e-5, "{got}, expected {want}");
        }
        for (got, want) in classifier.bias.iter().zip(floats(&golden["bias"])) {
            assert!((got - want).abs() < 1e-5, "{got}, expected {want}");
        }
    }

    #[test]
    fn the_rate_is_scaled_by_the_batch_and_falls_by_epoch() {
        let params = LinearClassifierParams { batch_size: 512, ..LinearClassifierParams::new(2) };
        assert_eq!(params.rate(0), 0.002);
        assert!((params.rate(50) - 0.001).abs() < 1e-12 && params.rate(99) < 1e-6);
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
        let (train, test) = (blobs(300, 20, 150, 0), blobs(40, 20, 150, 9)); // three blocks of classes
        let on = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(params(150, 3, seed), set(&train), set(&test)))
        };
        assert_eq!(on(1, 3), on(4, 3));
        assert_ne!(on(1, 3), on(1, 4));
    }

    #[test]
    fn starts_small_and_without_bias() {
        let start = params(20, 0, 0).initial(50);
        let square: f32 = start.weight.iter().map(|w| w * w).sum::<f32>() / 1000.0;
        assert!((square.sqrt() / 0.01 - 1.0).abs() < 0.1, "{square}");
        assert!(start.bias.iter().all(|&b| b == 0.0));
    }

    #[test]
    fn equal_logits_go_to_the_lower_class() {
        let blank = LinearClassifier { weight: Array2::zeros((8, 2)), bias: Array1::zeros(8) };
        let rows = Array2::ones((8, 2));
        let classes: Vec<u32> = (0..8).collect();
        let (loss, accuracy) = blank.measure(LabelledRows { rows: rows.view(), classes: &classes });
        assert!((loss - 8f64.ln()).abs() < 1e-6);
        assert_eq!(accuracy, TopAccuracy { top1: 0.125, top5: 0.625 });
    }

    #[test]
    fn training_can_be_stopped_and_diverges_loudly() {
        let data = blobs(20, 4, 3, 0);
        let stopped = params(3, 5, 0).fit(set(&data), set(&data), &mut |event| match event {
            TrainEvent::Step(_) => ControlFlow::Continue(()),
            TrainEvent::Epoch(_) => ControlFlow::Break(()),
        });
        assert!(matches!(stopped, Err(Error::Interrupted)));
        let wild = LinearClassifierParams { learning_rate: 1e42, ..params(3, 50, 0) };
        let wild = wild.fit(set(&data), set(&data), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(wild, Err(Error::Diverged { .. })), "{wild:?}");
    }

    #[test]
    fn misfits_are_refused() {
        let data = blobs(6, 4, 3, 0);
        let fit = |params: LinearClassifierParams, test: LabelledRows<'_>| {
            params.fit(set(&data), test, &mut |_| ControlFlow::Continue(())).map(drop)
        };
        assert!(fit(params(3, 1, 0), set(&data)).is_ok());
        assert_eq!(
            fit(params(2, 1, 0), set(&data)).unwrap_err().to_string(),
            "class is 2, expected below 2, the number of classes"
        );
        assert!(matches!(fit(params(3, 1, 0), set(&blobs(6, 5, 3, 0))), Err(Error::Shape { .. })));
        let wrong = LinearClassifierParams { batch_size: 0, ..params(3, 1, 0) };
        assert!(matches!(fit(wrong, set(&data)), Err(Error::Range { what: "batch size", .. })));
        let wrong = LinearClassifierParams { learning_rate: f64::NAN, ..params(3, 1, 0) };
        assert!(matches!(fit(wrong, set(&data)), Err(Error::Range { what: "learning rate", .. })));
        let blank = LinearClassifier { weight: array![[0.0; 4]], bias: array![0.0] };
        assert!(matches!(blank.gradient(set(&data)), Err(Error::Range { what: "class", .. })));
    }
}
