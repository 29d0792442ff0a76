//! Seconds of dense CRF inference, for `benches/peers/crf.py`, which runs pydensecrf on the same picture in turn.
//!
//! `crf_timing FILE.safetensors`: reads `image` `[h, w, 3]` and `probabilities` `[k, h, w]`; for each line on standard input it runs once
//! and prints the seconds, and a line that is a path also gets the marginals as raw little-endian floats. A line that is a number runs
//! that many pictures at once, a thread for each, and prints the seconds of one.
#![allow(clippy::print_stdout)] // an example that prints its figures

use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use ndarray::Array3;
use safetensors::SafeTensors;
use segment::DenseCrf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("FILE.safetensors")?;
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (image, scores) = (file.tensor("image")?, file.tensor("probabilities")?);
    let shape = |of: &[usize]| <[usize; 3]>::try_from(of).map_err(|_| "three axes");
    let numbers = scores.data().as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect();
    let probabilities = Array3::from_shape_vec(shape(scores.shape())?, numbers)?;
    let image = Array3::from_shape_vec(shape(image.shape())?, image.data().to_vec())?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Ok(pictures) = line.parse::<usize>() {
            let pictures = vec![(image.view(), probabilities.view()); pictures];
            let start = Instant::now();
            DenseCrf::default().marginals_of(&pictures)?;
            println!("{}", start.elapsed().as_secs_f64() / pictures.len() as f64);
            continue;
        }
        let start = Instant::now();
        let q = DenseCrf::default().marginals(image.view(), probabilities.view())?;
        println!("{}", start.elapsed().as_secs_f64());
        if !line.is_empty() {
            let bytes: Vec<u8> = q.iter().flat_map(|q| q.to_le_bytes()).collect();
            std::fs::File::create(line)?.write_all(&bytes)?;
        }
    }
    Ok(())
}
