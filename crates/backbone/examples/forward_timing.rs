//! Forward passes on request, for `benches/peers/forward.py`, which runs others on the same weights and images in turn.
//!
//! `forward_timing WEIGHTS IMAGES.safetensors`: reads `images` `[b, 3, h, w]`, writes `OUT` for a line "write OUT", and for a
//! line "run" makes one pass and prints its seconds; "peak" prints the GFLOP/s of a large matrix product.
#![allow(clippy::print_stdout)] // an example that prints its figures

use std::io::BufRead;
use std::time::Instant;

use backbone::{Layer, LoadOptions};
use candle_core::{Device, Tensor};
use kernels::{Matrix, MatrixMut, Threads, gemm};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, images] = &arguments[..] else { return Err("WEIGHTS IMAGES.safetensors".into()) };
    let loaded = backbone::load(weights, &LoadOptions::default())?;
    let images: Tensor = candle_core::safetensors::load(images, &Device::Cpu)?
        .remove("images")
        .ok_or("no tensor named images")?;
    let forward = || loaded.backbone.forward_features(&images, Layer::default());
    let side = 2048;
    let (factor, mut product) = (vec![0.5_f32; side * side], vec![0.0; side * side]);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("write", path)) => {
                forward()?.patches.save_safetensors("patches", path)?;
                println!("written");
            }
            _ if line == "run" => {
                let start = Instant::now();
                std::hint::black_box(forward()?);
                println!("{}", start.elapsed().as_secs_f64());
            }
            _ => {
                let factor = Matrix::new(&factor, side, side);
                let start = Instant::now();
                gemm(MatrixMut::new(&mut product, side, side), 0.0, 1.0, factor, factor, Threads::All);
                println!("{}", 2.0 * (side as f64).powi(3) / start.elapsed().as_secs_f64() / 1e9);
            }
        }
    }
    Ok(())
}
