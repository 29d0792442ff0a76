//! What this machine can do, measured: matrix products (on a GPU too), memory, disk.
//!
//! Each figure is the best of a few repetitions within a fraction of a second: a rate that the machine does reach,
//! on all threads, while nothing else runs.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use kernels::{Matrix, MatrixMut, Threads, gemm};
use rayon::prelude::*;

/// Side of the matrices.
const SIDE: usize = 2048;

/// Side of the matrices of a GPU.
const GPU_SIDE: usize = 8192;

/// Numbers of each of three arrays that go through memory: far more than caches hold.
const NUMBERS: usize = 16 << 20;

/// How long a figure may take once it has been measured.
const PATIENCE: Duration = Duration::from_millis(300);

/// The same where others wait for something else.
const HURRY: Duration = Duration::from_millis(60);

/// Bytes written in one go.
const BLOCK: usize = 4 << 20;

/// Bytes after which the disk is known well enough.
const FILE_BYTES: usize = 256 << 20;

/// How long the disk may take for them.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// GFLOP/s of a product of two [`SIDE`]² matrices of `f32` on all threads.
fn cpu_rate(patience: Duration) -> f64 {
    let (factor, mut product) = (vec![0.5_f32; SIDE * SIDE], vec![0.0; SIDE * SIDE]);
    let seconds = best_within(patience, || {
        let factor = Matrix::new(&factor, SIDE, SIDE);
        gemm(MatrixMut::new(&mut product, SIDE, SIDE), 0.0, 1.0, factor, factor, Threads::All);
    });
    2.0 * (SIDE as f64).powi(3) / seconds / 1e9
}

/// GFLOP/s of matrix products on a device: of `f32` on all threads of the CPU, of numbers of type `dtype` elsewhere.
///
/// * `hurry`: a tenth of a second has to do.
///
/// # Errors
/// If the device fails.
pub(crate) fn matrix_rate(device: &Device, dtype: DType, hurry: bool) -> Result<f64> {
    let patience = if hurry { HURRY } else { PATIENCE };
    if device.is_cpu() { Ok(cpu_rate(patience)) } else { product_rate(device, dtype, GPU_SIDE, patience) }
}

fn product_rate(device: &Device, dtype: DType, side: usize, patience: Duration) -> Result<f64> {
    let factor = Tensor::full(0.5_f32, (side, side), device)?.to_dtype(dtype)?;
    let mut outcome = Ok(());
    let seconds =
        best_within(patience, || outcome = factor.matmul(&factor).and_then(|_| device.synchronize()));
    outcome?;
    Ok(2.0 * (side as f64).powi(3) / seconds / 1e9)
}

/// GB/s of `a = b + 3 c` on all threads, counting the two arrays read and the one written.
pub(crate) fn memory_rate() -> f64 {
    let (mut a, b, c) = (vec![0.0_f32; NUMBERS], vec![1.0_f32; NUMBERS], vec![2.0_f32; NUMBERS]);
    let part = NUMBERS.div_ceil(8 * rayon::current_num_threads());
    let seconds = best(|| {
        a.par_chunks_mut(part).zip(b.par_chunks(part)).zip(c.par_chunks(part)).for_each(|((a, b), c)| {
            for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                *a = b + 3.0 * c;
            }
        });
        std::hint::black_box(&mut a);
    });
    (3 * size_of::<f32>() * NUMBERS) as f64 / seconds / 1e9
}

/// The best time of `f` in seconds, after a first call that warms up.
pub(crate) fn best(f: impl FnMut()) -> f64 {
    best_within(PATIENCE, f)
}

fn best_within(patience: Duration, mut f: impl FnMut()) -> f64 {
    f();
    let started = Instant::now();
    let mut best = f64::MAX;
    while best == f64::MAX || started.elapsed() < patience {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// MB/s of a disk.
pub(crate) struct DiskRate {
    /// Written and made to last.
    pub(crate) written: f64,
    /// Read again; on Linux from the disk, elsewhere probably from memory.
    pub(crate) read: f64,
}

/// Writes a file into `folder`, reads it and removes it.
///
/// # Errors
/// If the folder cannot be written or read.
pub(crate) fn disk_rate(folder: &Path) -> Result<DiskRate> {
    let path = folder.join(format!(".featlab-doctor-{}", std::process::id()));
    let measured = measure_file(&path).with_context(|| format!("measuring the disk of {}", folder.display()));
    let _ = std::fs::remove_file(&path);
    measured
}

fn measure_file(path: &Path) -> Result<DiskRate> {
    // Numbers without a pattern: some disks compress.
    let mut state = 1_u64;
    let mut block: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(BLOCK)
    .collect();
    let per_second = |bytes: usize, start: Instant| bytes as f64 / 1e6 / start.elapsed().as_secs_f64();

    let mut file = File::create(path)?;
    let (start, mut bytes) = (Instant::now(), 0);
    while bytes < FILE_BYTES && start.elapsed() < DISK_PATIENCE {
        file.write_all(&block)?;
        bytes += BLOCK;
    }
    file.sync_all()?;
    let written = per_second(bytes, start);

    forget(&file);
    let mut file = File::open(path)?;
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        match file.read(&mut block)? {
            0 => break,
            n => bytes += n,
        }
    }
    Ok(DiskRate { written, read: per_second(bytes, start) })
}

/// Asks the system to drop what it keeps of a file in memory, so that reading it reads the disk.
#[cfg(target_os = "linux")]
fn forget(file: &File) {
    // A system that does not drop it reads from memory: a figure that is too good, not wrong data.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &File) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_and_the_disk_is_left_as_it_was() {
        assert!(matrix_rate(&Device::Cpu, DType::F32, true).unwrap() > 0.0 && memory_rate() > 0.0);
        assert!(product_rate(&Device::Cpu, DType::F16, 64, HURRY).unwrap() > 0.0);
        assert!(product_rate(&Device::Cpu, DType::U8, 64, HURRY).is_err(), "candle multiplies no bytes");
        let folder = tempfile::tempdir().unwrap();
        let DiskRate { written, read } = disk_rate(folder.path()).unwrap();
        assert!(written > 0.0 && read > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(disk_rate(&folder.path().join("absent")).is_err());
    }
}
