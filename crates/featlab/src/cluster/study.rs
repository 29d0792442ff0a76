//! Probes by many: groups of cells are units, trained and scored on one executor each.
//!
//! A probe has the same bits in any company, so that how cells are grouped changes nothing. Reducers that are sums over images come
//! from [`Cluster::moments`]; the others, and what is measured of the features, are units as a whole. Executors keep the features
//! of a study in memory for all its units, and return run records as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dimred::Reducer;
use serde::{Deserialize, Serialize};

use super::{Cluster, Job, paths, to_json};
use crate::Context;
use crate::bench::{Bench, Cell, FailedCell, Inputs, ReducerId};
use crate::cli::ProbeArgs;
use crate::commands::ProbeStudy;
use crate::exit::usage;
use crate::records::{Records, RunFiles};
use crate::stages::features::Features;
use crate::sweep::Sweep;

/// Cells of a unit: they share one read of the features and one upsampling of the labels.
const GROUP: usize = 8;

/// Which study.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum CellsOf {
    /// `featlab probe`.
    Probe {
        /// The command.
        args: Box<ProbeArgs>,
        /// Its reducer, whose file comes with the cells.
        reducer: ReducerWire,
        /// Most dimensions of that.
        max_dim: usize,
    },
    /// A sweep.
    Sweep {
        /// The file, with all that was set.
        config: String,
    },
}

/// Groups of cells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CellsJob {
    pub(crate) of: CellsOf,
    /// What the cells need.
    pub(crate) reducers: Vec<FittedReducer>,
    /// Cells by their place in the study's list.
    pub(crate) groups: Vec<Vec<usize>>,
}

/// A reducer as it goes to executors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FittedReducer {
    id: ReducerWire,
    /// Its file, base64; none for the identity.
    file: Option<String>,
}

/// A [`ReducerId`] in full: its own form for keys leaves fields out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReducerWire {
    method: String,
    recipe: String,
    seed: u64,
    dim: Option<usize>,
}

impl From<&ReducerId> for ReducerWire {
    fn from(id: &ReducerId) -> Self {
        let ReducerId { method, recipe, seed, dim } = id.clone();
        Self { method, recipe, seed, dim }
    }
}

impl From<ReducerWire> for ReducerId {
    fn from(id: ReducerWire) -> Self {
        let ReducerWire { method, recipe, seed, dim } = id;
        Self { method, recipe, seed, dim }
    }
}

/// Something that one executor does as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StudyJob {
    pub(crate) of: CellsOf,
    pub(crate) task: StudyTask,
}

/// What it does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum StudyTask {
    /// Fits the reducer of the cell at this place in the study's list.
    Reducer(usize),
    /// Measures spectrum and intrinsic dimension of the training features.
    Measure,
}

/// What a unit of cells returns.
#[derive(Serialize, Deserialize)]
struct Recorded {
    runs: Vec<RunFiles>,
    failures: Vec<FailedCell>,
}

/// The cells of a study on a cluster.
pub(crate) struct Cells<'a> {
    pub(crate) of: CellsOf,
    pub(crate) bench: &'a Bench,
    /// All cells of the study, as an executor lists them.
    pub(crate) all: &'a [Cell],
    pub(crate) pending: &'a [&'a Cell],
}

impl CellsOf {
    /// `featlab probe` with places that executors understand.
    pub(crate) fn probe(args: &ProbeArgs, reducer: &ReducerId, max_dim: usize) -> Self {
        let mut args = args.clone();
        args.cache_train = paths::absolute(&args.cache_train);
        args.cache_val = paths::absolute(&args.cache_val);
        Self::Probe { args: Box::new(args), reducer: reducer.into(), max_dim }
    }
}

impl Cluster<'_> {
    /// Trains, scores and records cells; `reducer` gives the file of each reducer they need, none for the identity. Returns the
    /// cells that failed.
    ///
    /// # Errors
    /// If features cannot be read, a record not written, or the cluster fails.
    pub(crate) fn cells(
        &self,
        cells: &Cells<'_>,
        mut reducer: impl FnMut(&ReducerId, usize) -> Result<Option<Vec<u8>>>,
        records: &Records,
    ) -> Result<Vec<FailedCell>> {
        let (mut reducers, mut failures, mut sound) = (Vec::<FittedReducer>::new(), Vec::new(), Vec::new());
        let mut broken: BTreeMap<String, String> = BTreeMap::new();
        for &cell in cells.pending {
            let place =
                cells.all.iter().position(|other| other == cell).context("a cell of another study")?;
            let wire = ReducerWire::from(&cell.reducer);
            let key = serde_json::to_string(&wire)?;
            if !reducers.iter().any(|known| known.id == wire) && !broken.contains_key(&key) {
                match reducer(&cell.reducer, place) {
                    Ok(file) => {
                        reducers.push(FittedReducer { id: wire, file: file.map(|f| BASE64.encode(f)) })
                    }
                    Err(error) if crate::exit::code(&error) == 1 => {
                        self.context().interrupt.check()?;
                        broken.insert(key.clone(), crate::exit::one_line(&error));
                    }
                    Err(error) => return Err(error),
                }
            }
            match broken.get(&key) {
                Some(reason) => failures.push(FailedCell { cell: cell.name(), reason: reason.clone() }),
                None => sound.push(place),
            }
        }
        let groups = groups(cells.all, &sound);
        let units: Vec<u64> = (0..groups.len() as u64).collect();
        let job = CellsJob { of: cells.of.clone(), reducers, groups };
        self.each_unit(("probes", "groups of probes"), &Job::Cells(Box::new(job)), &units, |_, recorded| {
            let Recorded { runs, failures: failed } = serde_json::from_slice(&recorded)?;
            for mut run in runs {
                // Executors know the backbone by an absolute path.
                run.record.backbone.clone_from(&cells.bench.backbone);
                records.adopt(&run)?;
            }
            failures.extend(failed);
            Ok(())
        })?;
        for &cell in cells.pending {
            match records.get(&cells.bench.key(cell)?) {
                Some(run) => cells.bench.announce(cell, &run, self.context()),
                None if failures.iter().any(|failed| failed.cell == cell.name()) => {}
                None => failures.push(FailedCell {
                    cell: cell.name(),
                    reason: "executors recorded it under another key: they see other caches or settings"
                        .into(),
                }),
            }
        }
        Ok(failures)
    }

    /// Fits a reducer that is no sum over images on one executor; its file.
    ///
    /// # Errors
    /// If it cannot be fitted, or the cluster fails.
    pub(crate) fn reducer(&self, of: &CellsOf, cell: usize) -> Result<Vec<u8>> {
        let job = Job::Study(Box::new(StudyJob { of: of.clone(), task: StudyTask::Reducer(cell) }));
        let files = self.units(("fit a reducer", "units"), &job, &[0])?;
        files.into_values().next().context("no reducer came back")
    }

    /// Measures the training features on one executor; the file of a [`crate::study::FeatureGeometry`].
    ///
    /// # Errors
    /// As [`Cluster::reducer`].
    pub(crate) fn measure(&self, of: &CellsOf) -> Result<Vec<u8>> {
        let job = Job::Study(Box::new(StudyJob { of: of.clone(), task: StudyTask::Measure }));
        let files = self.units(("measure features", "units"), &job, &[0])?;
        files.into_values().next().context("no measurements came back")
    }
}

/// Groups of plain cells, each refined one behind its plain one (whose weights it needs).
fn groups(all: &[Cell], wanted: &[usize]) -> Vec<Vec<usize>> {
    let plain = |at: usize| {
        let plain = Cell { crf: false, ..all[at].clone() };
        all.iter().position(|cell| *cell == plain).unwrap_or(at)
    };
    let mut plains: Vec<usize> = wanted.iter().map(|&at| plain(at)).collect();
    plains.sort_unstable();
    plains.dedup();
    let group = |chunk: &[usize]| {
        let refined = wanted.iter().copied().filter(|&at| all[at].crf && chunk.contains(&plain(at)));
        chunk.iter().copied().chain(refined).collect()
    };
    plains.chunks(GROUP).map(group).collect()
}

/// A study as an executor has it: its features in memory.
pub(super) struct OpenStudy {
    source: Source,
    cells: Vec<Cell>,
    bench: Bench,
    train: Features,
    val: Features,
    folder: Folder,
}

enum Source {
    Probe,
    Sweep(Box<Sweep>),
}

impl OpenStudy {
    pub(super) fn new(of: &CellsOf, context: &Context) -> Result<Self> {
        let folder = Folder::new()?;
        let load = |cache, what: &str| Features::load(cache, what, context);
        match of {
            CellsOf::Probe { args, reducer, max_dim } => {
                let study = ProbeStudy::of_executor(args, &reducer.clone().into(), *max_dim, context)?;
                let (train, val) = (
                    load(study.train.clone(), "training features")?,
                    load(study.val.clone(), "validation features")?,
                );
                Ok(Self { source: Source::Probe, cells: study.cells, bench: study.bench, train, val, folder })
            }
            CellsOf::Sweep { config } => {
                let sweep = Sweep::of_executor(config, folder.0.join("sweep"))?;
                let (bench, cells) = sweep.bench_and_cells()?;
                let (train, val) = sweep.caches(context)?;
                let (train, val) = (load(train, "training features")?, load(val, "validation features")?);
                Ok(Self { source: Source::Sweep(Box::new(sweep)), cells, bench, train, val, folder })
            }
        }
    }

    /// Trains and scores one group.
    pub(super) fn cells(&self, job: &CellsJob, unit: u64, context: &Context) -> Result<Vec<u8>> {
        let group = job.groups.get(unit as usize).context("no such group of cells")?;
        let cells = group.iter().map(|&at| self.cells.get(at).context("no such cell"));
        let cells = cells.collect::<Result<Vec<&Cell>>>()?;
        let reducer = |id: &ReducerId| -> Result<Reducer> {
            let wire = ReducerWire::from(id);
            let found =
                job.reducers.iter().find(|fitted| fitted.id == wire).context("a reducer is missing")?;
            match &found.file {
                None => Ok(Reducer::Identity(dimred::Identity::new(self.train.dim()))),
                Some(file) => Ok(Reducer::from_bytes(&BASE64.decode(file)?)?),
            }
        };
        let records = Records::new(&self.folder.unit(unit)?);
        let pictures = |id: &str| match &self.source {
            Source::Sweep(sweep) => sweep.picture(id),
            Source::Probe => Err(usage("a CRF needs pictures")),
        };
        let inputs = Inputs { train: &self.train, val: &self.val, pictures: Some(&pictures) };
        let failures = self.bench.run(&cells, &inputs, reducer, &records, &mut Vec::new(), context)?;
        let keys = cells.iter().map(|cell| self.bench.key(cell)).collect::<Result<Vec<_>>>()?;
        let runs = keys.iter().filter_map(|key| records.files(key).transpose()).collect::<Result<_>>()?;
        to_json(&Recorded { runs, failures })
    }

    /// Does something as a whole.
    pub(super) fn whole(&self, job: &StudyJob, context: &Context) -> Result<Vec<u8>> {
        let Source::Sweep(sweep) = &self.source else { anyhow::bail!("only a sweep asks for this") };
        match job.task {
            StudyTask::Reducer(cell) => {
                let cell = self.cells.get(cell).context("no such cell")?;
                sweep.reducer_file(&cell.reducer, &self.train, context)
            }
            StudyTask::Measure => sweep.geometry_of(&self.train, context),
        }
    }
}

/// A folder of this process for records on their way; gone with the study.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = super::scratch("study");
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    /// An empty folder for a unit, which may have been tried before.
    fn unit(&self, unit: u64) -> Result<PathBuf> {
        let path: &Path = &self.0.join(unit.to_string());
        let _ = std::fs::remove_dir_all(path);
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        Ok(path.to_owned())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::probe::Kind;

    #[test]
    fn refined_cells_go_where_their_plain_ones_are() {
        let id = ReducerId { method: "none".into(), recipe: String::new(), seed: 0, dim: None };
        let cell = |dim, crf| Cell { reducer: id.clone(), dim, probe: Kind::Linear, seed: 0, crf };
        let all: Vec<Cell> = (0..10).map(|d| cell(d, false)).chain((0..10).map(|d| cell(d, true))).collect();
        let whole = groups(&all, &(0..20).collect::<Vec<_>>());
        assert_eq!(whole, [vec![0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17], vec![8, 9, 18, 19]]);
        assert_eq!(groups(&all, &[12]), [vec![2, 12]], "its plain one is trained again");
        assert!(groups(&all, &[]).is_empty());
    }
}
