//! How often the intervals hold the truth: many synthetic studies of which the expected mean IoU is known.
//!
//! `cargo run --release -p featlab-probe --example interval_coverage -- [studies] [part]…`; 1000 studies per line by
//! default, and all parts: `methods`, `films`, `seeds`, `pairs`.
//!
//! An image has some of the classes (the last ones are rare), of random sizes, and is easier or harder as a whole; the
//! truth is the mean IoU of the counts of 400 000 images. Printed are the shares of studies whose 95 % interval holds
//! it, and how often it lies above and below; then the share of studies in which two equally good methods are called
//! different at 5 %. A share of 1000 studies has a standard error of 0.7 %.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use ndarray::Array2;
use probe::{ConfusionMatrix, Interval, Method, Resampling, group_sums, seeds_and_images};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// What images are drawn from.
#[derive(Clone, Copy)]
struct Population {
    classes: usize,
    /// Images with the rarest class.
    rarest: f64,
    /// Images that share their scene.
    group: usize,
    /// How much training runs differ.
    between_seeds: f64,
}

/// What makes up one image.
struct Scene {
    pixels: Vec<f64>,
    easy: Vec<f64>,
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

impl Population {
    fn scenes(&self, images: usize, rng: &mut ChaCha8Rng) -> Vec<Scene> {
        let c = self.classes;
        let mut scenes: Vec<Scene> = Vec::with_capacity(images);
        for i in 0..images {
            if i % self.group > 0 {
                let Scene { pixels, easy } = &scenes[i - 1];
                let moved = pixels.iter().map(|n| n * (0.1 * normal(rng)).exp()).collect();
                scenes.push(Scene { pixels: moved, easy: easy.clone() });
                continue;
            }
            let pixels = (0..c).map(|j| {
                let at = j as f64 / (c - 1) as f64;
                let there = rng.random_range(0.0..1.0) < 1.0 - at * (1.0 - self.rarest);
                if there { 20_000.0 * (-3.0 * at + 0.8 * normal(rng)).exp() } else { 0.0 }
            });
            let pixels = pixels.collect();
            let whole = 0.6 * normal(rng);
            scenes.push(Scene { pixels, easy: (0..c).map(|_| whole + 0.5 * normal(rng)).collect() });
        }
        scenes
    }

    /// A method's counts on scenes; `skill` is its strength per class.
    fn counts(&self, scenes: &[Scene], skill: &[f64], rng: &mut ChaCha8Rng) -> Vec<ConfusionMatrix> {
        let c = self.classes;
        let one = |scene: &Scene| {
            let mut counts = Array2::<u64>::zeros((c, c));
            for i in (0..c).filter(|&i| scene.pixels[i] > 0.0) {
                let right = 1.0 / (1.0 + (-(skill[i] + scene.easy[i] + 0.4 * normal(rng))).exp());
                let wrong: Vec<f64> = (0..c)
                    .map(|j| if i == j { 0.0 } else { 1.0 / (1.0 + (i as f64 - j as f64).abs()) })
                    .collect();
                let sum: f64 = wrong.iter().sum();
                for j in 0..c {
                    let share = if i == j { right } else { (1.0 - right) * wrong[j] / sum };
                    counts[[i, j]] = (scene.pixels[i] * share).round() as u64;
                }
            }
            ConfusionMatrix::from_counts(counts)
        };
        scenes.iter().map(one).collect()
    }

    /// The mean strengths, or those of one training run.
    fn skill(&self, run: Option<&mut ChaCha8Rng>) -> Vec<f64> {
        let mut skill: Vec<f64> =
            (0..self.classes).map(|j| 1.6 - 1.8 * j as f64 / self.classes as f64).collect();
        if let Some(rng) = run {
            let whole = self.between_seeds * normal(rng);
            skill.iter_mut().for_each(|s| *s += whole);
        }
        skill
    }

    /// The mean IoU of very many images; over many training runs where they differ.
    fn truth(&self) -> f64 {
        let runs = if self.between_seeds > 0.0 { 400 } else { 1 };
        let of_run = |run: u64| {
            let mut rng = generator(1 << 40 | run);
            let skill = if runs > 1 { self.skill(Some(&mut rng)) } else { self.skill(None) };
            let mut sum = ConfusionMatrix::new(self.classes, self.classes);
            for _ in 0..400_000 / runs / 1000 {
                let scenes = self.scenes(1000, &mut rng);
                self.counts(&scenes, &skill, &mut rng).iter().for_each(|image| sum.merge(image));
            }
            mean_iou(&sum)
        };
        let values: Vec<f64> = (0..runs as u64).into_par_iter().map(of_run).collect();
        values.iter().sum::<f64>() / values.len() as f64
    }
}

fn generator(stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(2021);
    rng.set_stream(stream);
    rng
}

fn mean_iou(counts: &ConfusionMatrix) -> f64 {
    counts.scores().mean_iou
}

fn resampling(method: Method) -> Resampling {
    Resampling { method, ..Resampling::default() }
}

/// Shares of intervals that hold the truth, lie below it, lie above it.
fn report(what: &str, truth: f64, intervals: &[Interval]) {
    let share = |test: &dyn Fn(&Interval) -> bool| {
        100.0 * intervals.iter().filter(|i| test(i)).count() as f64 / intervals.len() as f64
    };
    let (below, above) = (share(&|i| i.hi < truth), share(&|i| i.lo > truth));
    let width = intervals.iter().map(|i| i.hi - i.lo).sum::<f64>() / intervals.len() as f64;
    println!(
        "{:6.1} %  (below {below:4.1}, above {above:4.1}; mean width {:5.2} points)  {what}",
        share(&|i| i.lo <= truth && truth <= i.hi),
        100.0 * width
    );
}

fn main() -> probe::Result<()> {
    let mut words = std::env::args().skip(1);
    let studies: u64 = words.next().map_or(1000, |word| word.parse().expect("a number of studies"));
    let parts: Vec<String> = words.collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| word == part);
    println!("{studies} studies per line; share of 95 % intervals that hold the expected mean IoU");
    let plain = Population { classes: 11, rarest: 0.3, group: 1, between_seeds: 0.0 };
    if wanted("methods") {
        methods(studies, plain);
    }
    if wanted("films") {
        films(studies, Population { group: 10, ..plain })?;
    }
    if wanted("seeds") {
        seeds(studies, plain)?;
    }
    if wanted("pairs") {
        pairs(studies, plain)?;
    }
    Ok(())
}

/// The methods on the same studies.
fn methods(studies: u64, plain: Population) {
    const METHODS: [Method; 3] = [Method::Percentile, Method::Bca, Method::Jackknife];
    let rare = Population { rarest: 0.1, ..plain };
    let many = Population { classes: 27, ..rare };
    for (name, population, images) in [
        ("11 classes", plain, 20),
        ("11 classes", plain, 50),
        ("11 classes", plain, 100),
        ("11 classes", plain, 233),
        ("11 classes, rare ones", rare, 50),
        ("11 classes, rare ones", rare, 100),
        ("11 classes, rare ones", rare, 233),
        ("27 classes, rare ones", many, 100),
    ] {
        let (truth, skill) = (population.truth(), population.skill(None));
        let study = |study: u64| {
            let mut rng = generator(study);
            let scenes = population.scenes(images, &mut rng);
            let counts = population.counts(&scenes, &skill, &mut rng);
            METHODS.map(|method| resampling(method).interval(&counts, mean_iou))
        };
        let intervals: Vec<[Interval; 3]> = (0..studies).into_par_iter().map(study).collect();
        for (at, method) in METHODS.iter().enumerate() {
            let of_method: Vec<Interval> = intervals.iter().map(|of_study| of_study[at]).collect();
            report(&format!("{method:?}: {images} images, {name}"), truth, &of_method);
        }
    }
}

/// Films of ten frames: images as units, and films.
fn films(studies: u64, population: Population) -> probe::Result<()> {
    let (truth, skill, images) = (population.truth(), population.skill(None), 500);
    for by_film in [false, true] {
        let study = |study: u64| {
            let mut rng = generator(study);
            let scenes = population.scenes(images, &mut rng);
            let counts = population.counts(&scenes, &skill, &mut rng);
            let groups: Vec<usize> =
                (0..images).map(|i| if by_film { i / population.group } else { i }).collect();
            Ok(Resampling::default().interval(&group_sums(&counts, &groups)?, mean_iou))
        };
        let intervals: Vec<Interval> =
            (0..studies).into_par_iter().map(study).collect::<probe::Result<_>>()?;
        let units = if by_film { "films" } else { "images" };
        report(&format!("default: 50 films of 10 images, units are {units}"), truth, &intervals);
    }
    Ok(())
}

/// Few training runs on the same images.
fn seeds(studies: u64, plain: Population) -> probe::Result<()> {
    for (between_seeds, runs) in [(0.02, 3), (0.1, 3), (0.1, 5), (0.3, 3), (0.3, 10)] {
        let population = Population { between_seeds, ..plain };
        let truth = population.truth();
        let study = |study: u64| {
            let mut rng = generator(study);
            let scenes = population.scenes(100, &mut rng);
            let runs: Vec<Vec<ConfusionMatrix>> = (0..runs)
                .map(|_| {
                    let skill = population.skill(Some(&mut rng));
                    population.counts(&scenes, &skill, &mut rng)
                })
                .collect();
            let images = resampling(Method::Jackknife).interval(&runs[0], mean_iou);
            Ok((images, seeds_and_images(&runs, mean_iou, 0.95)?.interval))
        };
        let both: Vec<(Interval, Interval)> =
            (0..studies).into_par_iter().map(study).collect::<probe::Result<_>>()?;
        let (images, together): (Vec<Interval>, Vec<Interval>) = both.into_iter().unzip();
        let what = format!("100 images, runs differ by {between_seeds}");
        report(&format!("one run, images only: {what}"), truth, &images);
        report(&format!("{runs} runs, seeds and images: {what}"), truth, &together);
    }
    Ok(())
}

/// Two methods of the same strength, and one that is a little better.
fn pairs(studies: u64, population: Population) -> probe::Result<()> {
    for (images, better) in [(30, 0.0), (100, 0.0), (233, 0.0), (100, 0.05), (100, 0.1)] {
        let skill = population.skill(None);
        let other: Vec<f64> = skill.iter().map(|s| s + better).collect();
        let study = |study: u64| {
            let mut rng = generator(study);
            let scenes = population.scenes(images, &mut rng);
            let (a, b) =
                (population.counts(&scenes, &other, &mut rng), population.counts(&scenes, &skill, &mut rng));
            Resampling::default().compare(&a, &b, mean_iou)
        };
        let tests: Vec<_> = (0..studies).into_par_iter().map(study).collect::<probe::Result<Vec<_>>>()?;
        let rate = |p: &dyn Fn(&probe::Comparison) -> f64| {
            100.0 * tests.iter().filter(|test| p(test) < 0.05).count() as f64 / tests.len() as f64
        };
        println!(
            "{:6.1} % by the bootstrap, {:5.1} % by swapping are called different: {images} images, one better by {better}",
            rate(&|test| test.p_bootstrap),
            rate(&|test| test.p_swap),
        );
    }
    Ok(())
}
