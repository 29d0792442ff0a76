//! A batch of images shared out over the threads.

use candle_core::Tensor;
use rayon::prelude::*;

use super::spare::passing_on;
use crate::Result;

/// Calls `f` with images `[1, 3, h, w]` one by one on the CPU, and with the whole batch on another device; results in order
/// of the images.
///
/// As long as there is an image for every thread, each works on its own, which shares nothing and needs no more
/// memory than an image in flight per thread; the images that are left are worked on by all threads together.
pub(crate) fn by_image<R: Send>(images: &Tensor, f: impl Fn(&Tensor) -> Result<R> + Sync) -> Result<Vec<R>> {
    if !images.device().is_cpu() {
        return Ok(vec![f(images)?]);
    }
    // Within the pool, where a layer that shares its work out need not wake anybody to wait for it.
    rayon::scope(|_| on_cpu(images, &f))
}

fn on_cpu<R: Send>(images: &Tensor, f: &(impl Fn(&Tensor) -> Result<R> + Sync)) -> Result<Vec<R>> {
    let (b, threads) = (images.dim(0)?, rayon::current_num_threads());
    if b == 0 {
        return Ok(vec![f(images)?]);
    }
    let alone = if threads == 1 { 0 } else { b - b % threads };
    let image = |i: usize| passing_on(|| f(&images.narrow(0, i, 1)?));
    let mut results = Vec::with_capacity(b);
    for first in (0..alone).step_by(threads) {
        let round = (first..first + threads).into_par_iter().with_max_len(1);
        let round: Vec<Result<R>> = round.map(|i| kernels::one_thread(|| image(i))).collect();
        for result in round {
            results.push(result?);
        }
    }
    for i in alone..b {
        results.push(image(i)?);
    }
    Ok(results)
}
