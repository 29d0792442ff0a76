//! Time of a UMAP fit, and of placing new rows: the half of `benches/peers/umap.py` that is ours.
//!
//! Run: `cargo run --release -p dimred --example umap_timing ROWS.f32 d NEW K`, with rows in a file of plain little-endian
//! numbers, of which the last `NEW` are not fitted on but placed. Prints seconds of the fit, seconds of the placing, and
//! the trustworthiness (cosine, 15 neighbours) of the fit.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use dimred::{Metric, Projection, UmapParams, trustworthiness};
use ndarray::{Array2, s};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, d, new, k] = &arguments[..] else {
        return Err("expected ROWS.f32 d NEW K".into());
    };
    let (d, new, k): (usize, usize, usize) = (d.parse()?, new.parse()?, k.parse()?);
    let numbers: Vec<f32> =
        std::fs::read(file)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let rows = Array2::from_shape_vec((numbers.len() / d, d), numbers)?; // [n, d]
    let old = rows.nrows() - new;
    let started = Instant::now();
    let umap = UmapParams { n_components: k, ..UmapParams::default() }.fit(rows.slice(s![..old, ..]))?;
    let fit = started.elapsed().as_secs_f64();
    let started = Instant::now();
    umap.transform(rows.slice(s![old.., ..]))?;
    let place = started.elapsed().as_secs_f64();
    let trust = trustworthiness(rows.slice(s![..old, ..]), umap.embedding().view(), 15, Metric::Cosine)?;
    writeln!(std::io::stdout(), "{fit} {place} {trust}")?;
    Ok(())
}
