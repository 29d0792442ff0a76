//! What `--dry-run` prints: what of a sweep is there, what would be computed, and about how long that takes.
//!
//! Counts are exact (images, operations, bytes); seconds are counts over rates that are measured now, on this machine, within
//! a second or two, and only for work that is missing.

use anyhow::Result;
use serde::Serialize;

use super::Sweep;
use super::cost::{ProbeWork, Rates};
use crate::bench::{Bench, Cell};
use crate::config::Matching;
use crate::records::Records;
use crate::stages::extract::Job;
use crate::stages::probe::Kind;

/// What the seconds of an estimate are made of.
const RESTS_ON: &str = "features: operations of the missing images over the rate of one forward pass and, on a CPU, the time to decode one image, \
     both measured now; probes: their products and pixels over the rates of a few training steps on random features measured now; \
     reading features, fitting reducers (STEGO's heads, UMAP), ridge, k-means and k-NN probes, CRFs and the report come on top, and other work on this machine slows all of it";

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    /// `(split, cache id, images, complete)`.
    pub(crate) caches: Vec<(String, String, usize, bool)>,
    /// `(method, dim, probe, seed, key, done)`.
    pub(crate) cells: Vec<(String, usize, String, u64, String, bool)>,
    pub(crate) estimate: Estimate,
}

/// What the missing work costs.
#[derive(Debug, Serialize)]
pub(crate) struct Estimate {
    /// One for each of the plan's caches, in the same order.
    pub(crate) caches: Vec<CacheCost>,
    pub(crate) extract_seconds: f64,
    pub(crate) train_seconds: f64,
    pub(crate) score_seconds: f64,
    /// The sum.
    pub(crate) seconds: f64,
    pub(crate) rests_on: &'static str,
}

/// What a cache costs that is not there; zeros for one that is.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct CacheCost {
    pub(crate) cache_id: String,
    /// Images to compute; shards of a half-finished cache count as missing.
    pub(crate) images: usize,
    /// 10⁹ floating-point operations of an image, all its crops and mirror images included.
    pub(crate) gflop_per_image: f64,
    /// Bytes to be written, but for a little around the numbers.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Default for Estimate {
    fn default() -> Self {
        let (extract_seconds, train_seconds, score_seconds, seconds) = (0.0, 0.0, 0.0, 0.0);
        Self {
            caches: Vec::new(),
            extract_seconds,
            train_seconds,
            score_seconds,
            seconds,
            rests_on: RESTS_ON,
        }
    }
}

impl Plan {
    /// Both plans as one.
    fn add(&mut self, other: Self) {
        self.caches.extend(other.caches);
        self.cells.extend(other.cells);
        let (sum, more) = (&mut self.estimate, other.estimate);
        sum.caches.extend(more.caches);
        sum.extract_seconds += more.extract_seconds;
        sum.train_seconds += more.train_seconds;
        sum.score_seconds += more.score_seconds;
        sum.seconds += more.seconds;
    }
}

impl Sweep {
    /// What is there and what would be computed.
    ///
    /// # Errors
    /// If the store cannot be asked, or a measurement fails.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let mut plan = self.own_plan()?;
        for other in &self.others {
            plan.add(other.plan()?);
        }
        Ok(plan)
    }

    fn own_plan(&self) -> Result<Plan> {
        let (train, val) = self.jobs()?;
        let bench = self.bench(&train, &val)?;
        let mut caches = Vec::new();
        for job in [&train, &val] {
            let complete = self.store(job)?.exists("manifest.json")?;
            caches.push((job.split.clone(), job.key()?.fingerprint(), job.dataset.len(), complete));
        }
        let (mut cells, mut pending) = (Vec::new(), Vec::new());
        let (all, records) = (self.cells(bench.full_dim)?, Records::new(&self.out));
        for cell in &all {
            let key = bench.key(cell)?;
            let done = records.get(&key).is_some();
            if !done {
                pending.push(cell);
            }
            let Cell { reducer, dim, probe, seed, crf } = cell.clone();
            let probe = format!("{}{}", probe.name(), if crf { " + crf" } else { "" });
            cells.push((reducer.method, dim, probe, seed, key, done));
        }
        let mut estimate = Estimate::default();
        let mut rate = None;
        for (job, (_, id, images, complete)) in [&train, &val].into_iter().zip(&caches) {
            let cost = if *complete { CacheCost::default() } else { cache_cost(job, *images, &mut rate)? };
            estimate.extract_seconds += cost.seconds;
            estimate.caches.push(CacheCost { cache_id: id.clone(), ..cost });
        }
        if !pending.is_empty() {
            let work = probe_work(&bench, (&train, &val), &pending)?;
            (estimate.train_seconds, estimate.score_seconds) = work.seconds(&Rates::measure(&work)?);
        }
        let Estimate { extract_seconds, train_seconds, score_seconds, .. } = estimate;
        estimate.seconds = extract_seconds + train_seconds + score_seconds;
        Ok(Plan { caches, cells, estimate })
    }
}

/// What a cache costs from nothing.
///
/// * `rate`: floating-point operations a second of the network, measured when it is first needed.
fn cache_cost(job: &Job<'_>, images: usize, rate: &mut Option<f64>) -> Result<CacheCost> {
    let views = job.key()?.views();
    let work = job.forward.work()? * views as f64;
    let rate = match *rate {
        Some(rate) => rate,
        None => *rate.insert(job.forward.rate()?),
    };
    // A CPU's threads both decode and compute; beside a GPU they have nothing else to do.
    let decoding = match job.forward.device.is_cpu() {
        true => job.decoding()? / rayon::current_num_threads() as f64,
        false => 0.0,
    };
    Ok(CacheCost {
        cache_id: String::new(),
        images,
        gflop_per_image: work / 1e9,
        bytes: (images * views * job.layout()?.row_bytes(job.dtype)) as u64,
        seconds: images as f64 * (work / rate + decoding),
    })
}

/// What training and scoring the pending cells comes to.
fn probe_work(bench: &Bench, (train, val): (&Job<'_>, &Job<'_>), pending: &[&Cell]) -> Result<ProbeWork> {
    let side = |job: &Job<'_>| -> Result<_> {
        let layout = job.layout()?;
        Ok((layout.grid, layout.label_size, job.dataset.len() * job.key()?.views()))
    };
    let classes = bench.classes.names.len();
    let mut work = ProbeWork::new(side(train)?, side(val)?, bench.full_dim, classes);
    work.steps = bench.settings.steps;
    work.batch = bench.settings.batch_size;
    work.match_on_train = bench.settings.hungarian == Matching::Train;
    let mut widest: Vec<(&crate::bench::ReducerId, usize)> = Vec::new();
    for cell in pending.iter().filter(|cell| !cell.crf) {
        match cell.probe {
            Kind::Linear => work.linear.push(cell.dim),
            Kind::Cluster => work.cluster.push(cell.dim),
            Kind::Knn | Kind::Ridge | Kind::KMeans => {}
        }
        match widest.iter_mut().find(|(reducer, _)| **reducer == cell.reducer) {
            Some((_, dim)) => *dim = cell.dim.max(*dim),
            None => widest.push((&cell.reducer, cell.dim)),
        }
    }
    work.clusters = classes + bench.settings.extra_clusters;
    work.projections = widest.into_iter().filter(|(id, _)| id.method != "none").map(|(_, dim)| dim).collect();
    Ok(work)
}
