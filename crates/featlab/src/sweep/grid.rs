//! The grid of a sweep: one cell per (method, dimension, seed, probe), refined or not.

use anyhow::{Context as _, Result};
use segment::stego::StegoConfig;

use super::Sweep;
use crate::bench::{Cell, ReducerId};
use crate::dim::Dim;
use crate::exit::usage;
use crate::records::key_of;
use crate::stages::probe::Kind;

impl Sweep {
    /// The cells in the order in which they are run: by reducer, then dimension, then seed, then probe.
    ///
    /// # Errors
    /// A usage error if more dimensions are asked for than there are, or a method is left without any.
    pub(super) fn cells(&self, full_dim: usize) -> Result<Vec<Cell>> {
        let probes = self.config.probe.probes.iter().map(|p| Kind::parse(p)).collect::<Result<Vec<_>>>()?;
        let mut cells: Vec<Cell> = Vec::new();
        for method in &self.config.reduce.methods {
            for dim in self.dims(method, full_dim)? {
                for &seed in &self.config.probe.seeds {
                    for &probe in &probes {
                        for cell in self.cells_of(method, dim, seed, probe)? {
                            if !cells.contains(&cell) {
                                cells.push(cell);
                            }
                        }
                    }
                }
            }
        }
        // Random projections differ by seed: bring the cells of one projection together.
        cells.sort_by_key(|c| {
            let place = self.config.reduce.methods.iter().position(|m| *m == c.reducer.method);
            (place, c.reducer.dim, c.reducer.recipe.clone(), c.dim)
        });
        Ok(cells)
    }

    /// The dimensions of a method, ascending.
    fn dims(&self, method: &str, full_dim: usize) -> Result<Vec<usize>> {
        if method == "none" {
            return Ok(vec![full_dim]);
        }
        let mut dims: Vec<usize> = self.config.reduce.dims.iter().map(|d| d.resolve(full_dim)).collect();
        dims.sort_unstable();
        dims.dedup();
        if let Some(too_many) = dims.iter().find(|k| **k > full_dim) {
            return Err(usage(format!(
                "reduce.dims: {too_many} is more than the {full_dim} dimensions of the features"
            )));
        }
        if self.config.reduce.layout(method).is_some() || is_stego(method) {
            // A head for all dimensions is no projection, and makes sense where it is asked for: by its number, not as "full".
            let is_written = self.config.reduce.dims.contains(&Dim::To(full_dim));
            dims.retain(|&k| k < full_dim || is_stego(method) && is_written);
            if dims.is_empty() {
                return Err(usage(format!("reduce.dims: {method} needs one below {full_dim}")));
            }
        }
        Ok(dims)
    }

    /// A plain cell, and a refined one if that is asked for.
    fn cells_of(&self, method: &str, dim: usize, seed: u64, probe: Kind) -> Result<Vec<Cell>> {
        let reducer = self.reducer_id(method, dim, seed)?;
        // Least squares know no chance: where the reducer does not either, one seed says all.
        let first = self.config.probe.seeds.first().copied().unwrap_or(seed);
        let same = probe == Kind::Ridge && reducer == self.reducer_id(method, dim, first)?;
        let plain = Cell { reducer, dim, probe, seed: if same { first } else { seed }, crf: false };
        let refined = probe.takes_steps() && self.config.eval.crf.iter().any(|m| m == method);
        let refined = refined.then(|| Cell { crf: true, ..plain.clone() });
        Ok(std::iter::once(plain).chain(refined).collect())
    }

    /// How the head that a cell of `stego` or `stego-nested` sees is trained. A nested one serves all dimensions that
    /// are written as numbers.
    pub(super) fn stego_config(&self, method: &str, dim: usize, seed: u64) -> Result<StegoConfig> {
        if method == "stego" {
            return self.config.stego.resolve(dim, Vec::new(), seed);
        }
        let full_dim = self.full_dim()?;
        let written = self.config.reduce.dims.iter().filter_map(|dim| match dim {
            Dim::To(k) if *k <= full_dim => Some(*k),
            _ => None,
        });
        let mut ladder: Vec<usize> = written.collect();
        ladder.sort_unstable();
        ladder.dedup();
        let most = *ladder.last().context("a nested head has dimensions that are written as numbers")?;
        self.config.stego.resolve(most, ladder, seed)
    }

    /// What identifies the reducer that a cell sees.
    pub(super) fn reducer_id(&self, method: &str, dim: usize, seed: u64) -> Result<ReducerId> {
        if is_stego(method) {
            let config = self.stego_config(method, dim, seed)?;
            let (method, recipe) = (method.to_owned(), key_of(&config)?);
            return Ok(ReducerId {
                method,
                recipe,
                seed,
                dim: Some(dim).filter(|_| config.correspondence.ladder.is_empty()),
            });
        }
        Ok(self.other_id(method, dim, seed))
    }

    fn other_id(&self, method: &str, dim: usize, seed: u64) -> ReducerId {
        let reduce = &self.config.reduce;
        let (scaler, seed) = (&reduce.scaler, reduce.seed + seed);
        let method = method.to_owned();
        let fixed = |recipe| ReducerId { method: method.clone(), recipe, seed: 0, dim: None };
        match method.as_str() {
            "none" => fixed(String::new()),
            "pca" => fixed(format!("scaler {scaler}")),
            _ if reduce.layout(&method).is_none() => {
                ReducerId { seed, ..fixed(format!("scaler {scaler}, seed {seed}")) }
            }
            _ => {
                let (tokens, images, metric) = (reduce.layout_tokens, reduce.layout_images, &reduce.metric);
                let sample = format!("{tokens} tokens of {images} images, seed {seed}");
                let layout = match method.as_str() {
                    "umap" => format!(", {} neighbours at {}", reduce.n_neighbors, reduce.min_dist),
                    _ => String::new(),
                };
                let recipe = format!("scaler {scaler}, {dim} dimensions, {metric}{layout}, {sample}");
                ReducerId { seed, dim: Some(dim), ..fixed(recipe) }
            }
        }
    }
}

/// Whether a method is a trained head.
pub(super) fn is_stego(method: &str) -> bool {
    matches!(method, "stego" | "stego-nested")
}
