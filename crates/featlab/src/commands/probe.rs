//! `featlab probe`: probes on two caches, with or without a reducer file; the same cells as a sweep's.

use anyhow::{Context as _, Result};
use dimred::Reducer;
use featcache::Cache;

use crate::Context;
use crate::bench::{Bench, Cell, FailedCell, Inputs, ReducerId, publish};
use crate::cli::ProbeArgs;
use crate::config::{Protocol, check_schedule};
use crate::dim::Dim;
use crate::exit::{Status, integrity, usage};
use crate::records::{Records, check_local};
use crate::stages::features::Features;
use crate::stages::probe::{ClassWeights, ClosedForm, IntervalMethod, Kind, Settings};
use crate::stages::reducer_file::ReducerFile;
use crate::study::Study;
use crate::sweep::Finished;

pub(crate) fn run(args: ProbeArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    check_schedule(args.steps, args.batch_size, args.learning_rate)?;
    let (train, val) = caches(&args, context)?;
    let (id, reducer) = reducer(&args, &train)?;
    let bench = bench(&args, &train, &val)?;
    let cells = cells(&args, &id, reducer.max_dim())?;
    let records = Records::new(&args.out);
    let pending = bench.pending(&cells, &records)?;
    let (mut failures, mut costs) = (Vec::new(), Vec::new());
    if pending.is_empty() {
        context.reporter.say(format!("nothing to compute: {} probes are there", cells.len()));
    } else if context.cluster.is_some() {
        let study = (&bench, cells.as_slice(), pending.as_slice());
        failures = on_cluster(&args, study, reducer.max_dim(), &records, context)?;
    } else {
        let train = Features::load(train.clone(), "training features", context)?;
        let val = Features::load(val.clone(), "validation features", context)?;
        let inputs = Inputs { train: &train, val: &val, pictures: None };
        failures = bench.run(&pending, &inputs, |_| Ok(reducer.clone()), &records, &mut costs, context)?;
    }
    let mut runs = Vec::with_capacity(cells.len());
    for cell in &cells {
        runs.extend(records.get(&bench.key(cell)?));
    }
    let study = Study {
        name: format!("{} {}", bench.dataset, id.method),
        dataset: bench.dataset.clone(),
        backbone: bench.backbone.clone(),
        notes: val.manifest().provenance.get("notes").cloned().into_iter().collect(),
        classes: bench.classes.names.clone(),
        palette: bench.classes.palette.clone(),
        full_dim: bench.full_dim,
        images: (train.rows(), val.rows()),
        protocol: bench.protocol_name(),
        interval: bench.settings.interval.name().to_owned(),
        skipped: Vec::new(),
        runs,
        variance: None,
        gallery: Vec::new(),
        config: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Study::default()
    };
    let report = publish(&study, &args.out)?;
    for FailedCell { cell, reason } in &failures {
        context.reporter.warn(format!("no result for {cell}: {reason}"));
    }
    let status = if failures.is_empty() { Status::Done } else { Status::Incomplete };
    crate::commands::sweep::print(&Finished { study, report, status, failures }, context)
}

/// The two caches, with the column that counts.
fn caches(args: &ProbeArgs, context: &Context) -> Result<(Cache, Cache)> {
    let open = |url: &str| Ok::<_, anyhow::Error>(context.cache(url)?.with_column(&args.column)?);
    Ok((open(&args.cache_train)?, open(&args.cache_val)?))
}

#[cfg(not(feature = "cluster"))]
fn on_cluster(
    _: &ProbeArgs,
    _: (&Bench, &[Cell], &[&Cell]),
    _: usize,
    _: &Records,
    _: &Context,
) -> Result<Vec<FailedCell>> {
    Err(usage(crate::NO_CLUSTER))
}

/// Trains and scores cells on the cluster. The reducer file goes along.
#[cfg(feature = "cluster")]
fn on_cluster(
    args: &ProbeArgs,
    (bench, all, pending): (&Bench, &[Cell], &[&Cell]),
    max_dim: usize,
    records: &Records,
    context: &Context,
) -> Result<Vec<FailedCell>> {
    let cluster = crate::cluster::Cluster::of(context)?.context("no cluster was named")?;
    let file = args.reducer.as_deref().map(std::fs::read).transpose().context("reading the reducer")?;
    let of = crate::cluster::CellsOf::probe(args, &pending[0].reducer, max_dim);
    let cells = crate::cluster::Cells { of, bench, all, pending };
    cluster.cells(&cells, |_, _| Ok(file.clone()), records)
}

/// The study of such a command on an executor, whose driver has the reducer.
#[cfg(feature = "cluster")]
pub(crate) struct ProbeStudy {
    pub(crate) train: Cache,
    pub(crate) val: Cache,
    pub(crate) bench: Bench,
    pub(crate) cells: Vec<Cell>,
}

#[cfg(feature = "cluster")]
impl ProbeStudy {
    /// * `id`, `max_dim`: of the reducer.
    ///
    /// # Errors
    /// If a cache cannot be opened, or an option cannot be.
    pub(crate) fn of_executor(
        args: &ProbeArgs,
        id: &ReducerId,
        max_dim: usize,
        context: &Context,
    ) -> Result<Self> {
        let (train, val) = caches(args, context)?;
        let bench = bench(args, &train, &val)?;
        Ok(Self { cells: cells(args, id, max_dim)?, train, val, bench })
    }
}

/// The reducer of `--reducer`, known by the hash of its file; or the identity, called after what the cache's features went through.
fn reducer(args: &ProbeArgs, train: &Cache) -> Result<(ReducerId, Reducer)> {
    let dim = train.layout().dim;
    let Some(path) = &args.reducer else {
        let last = train.manifest().key.projections()?.pop();
        let method = last.map_or_else(|| "none".to_owned(), |projected| projected.method);
        let id = ReducerId { method, recipe: String::new(), seed: 0, dim: None };
        return Ok((id, Reducer::Identity(dimred::Identity::new(dim))));
    };
    let ReducerFile { reducer, sha256: recipe } = ReducerFile::read(path, train)?;
    Ok((ReducerId { method: reducer.method().to_owned(), recipe, seed: 0, dim: None }, reducer))
}

fn bench(args: &ProbeArgs, train: &Cache, val: &Cache) -> Result<Bench> {
    let manifest = val.manifest();
    let classes = manifest
        .classes
        .clone()
        .ok_or_else(|| usage(format!("cache {} has no labels; probes need them", args.cache_val)))?;
    if train.manifest().classes.as_ref().is_some_and(|trained| trained.names != classes.names) {
        return Err(integrity(format!(
            "the caches have different classes: {} in {}, {} in {}",
            train.manifest().classes.iter().flat_map(|c| &c.names).cloned().collect::<Vec<_>>().join(", "),
            args.cache_train,
            classes.names.join(", "),
            args.cache_val
        )));
    }
    let backbone = manifest.provenance.get("backbone").unwrap_or(&manifest.key.architecture);
    Ok(Bench {
        dataset: manifest.key.dataset.clone(),
        split: manifest.key.split.clone(),
        backbone: backbone.clone(),
        train_id: train.feature_id(),
        val_id: val.feature_id(),
        classes: dataset::ClassTable { names: classes.names, palette: classes.palette },
        full_dim: train.layout().dim,
        protocol: if manifest.key.flip_average { Protocol::StegoEval } else { Protocol::StegoTrain },
        settings: Settings {
            steps: args.steps,
            batch_size: args.batch_size,
            learning_rate: args.learning_rate,
            order_seed: args.order_seed,
            reset_step: args.reset_probe_steps,
            class_weights: ClassWeights::Named(args.class_weights.clone()),
            extra_clusters: args.extra_clusters,
            closed_form: closed_form(args)?,
            hungarian: args.hungarian.parse()?,
            interval: IntervalMethod::default(),
            resamples: 1000,
            boundary_iou: args.boundary_iou,
        },
        memory: usize::try_from(crate::size_bytes(&args.memory).context("--memory")?)?,
    })
}

fn closed_form(args: &ProbeArgs) -> Result<ClosedForm> {
    let closed = ClosedForm {
        knn_k: args.knn_k,
        knn_temperature: args.knn_temperature,
        knn_tokens: args.knn_tokens,
        kmeans_restarts: args.kmeans_restarts,
        kmeans_tokens: args.kmeans_tokens,
        ..ClosedForm::default()
    };
    closed.check()?;
    Ok(closed)
}

/// * `max_dim`: of the reducer.
fn cells(args: &ProbeArgs, id: &ReducerId, max_dim: usize) -> Result<Vec<Cell>> {
    let kinds = args.probe.iter().map(|word| Kind::parse(word)).collect::<Result<Vec<_>>>()?;
    let mut cells = Vec::new();
    for word in &args.dims {
        let dim: Dim = word.parse().map_err(|e: String| usage(format!("--dims: {e}")))?;
        let dim = dim.resolve(max_dim);
        if dim > max_dim {
            return Err(usage(format!("--dims {dim}: the reducer has {max_dim} components")));
        }
        for &seed in &args.seeds {
            for &probe in &kinds {
                let cell = Cell { reducer: id.clone(), dim, probe, seed, crf: false };
                if !cells.contains(&cell) {
                    cells.push(cell);
                }
            }
        }
    }
    Ok(cells)
}
