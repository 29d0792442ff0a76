//! Images to patches and back, and the mean of patch tokens.

use kernels::{AttentionShape, for_each_row};

/// `[b, 3, h, w]` to patches `[b t, 3 p p]`, row-major over the grid and in a convolution's order within.
pub(super) fn patchify(images: &[f32], (h, w): (usize, usize), p: usize, patches: &mut [f32]) {
    let (gw, per_image) = (w / p, (h / p) * (w / p));
    for_each_row(patches, 3 * p * p, |row, patch| {
        let (image, gy, gx) = (row / per_image, row % per_image / gw, row % gw);
        for (i, line) in patch.chunks_exact_mut(p).enumerate() {
            let (channel, y) = (i / p, gy * p + i % p);
            line.copy_from_slice(&images[((image * 3 + channel) * h + y) * w + gx * p..][..p]);
        }
    });
}

/// The way back of [`patchify`]: every pixel is in one patch.
pub(super) fn unpatchify(patches: &[f32], (h, w): (usize, usize), p: usize, images: &mut [f32]) {
    let (gw, per_image) = (w / p, (h / p) * (w / p));
    for_each_row(images, w, |row, line| {
        let (image, channel, y) = (row / (3 * h), row / h % 3, row % h);
        for (gx, pixels) in line.chunks_exact_mut(p).enumerate() {
            let patch = image * per_image + y / p * gw + gx;
            pixels.copy_from_slice(&patches[patch * 3 * p * p + (channel * p + y % p) * p..][..p]);
        }
    });
}

/// The mean of each image's patch tokens: `[n, d]` to `[b, d]`.
pub(super) fn mean_patches(tokens: &[f32], shape: AttentionShape, out: &mut [f32]) {
    let (d, n) = (shape.dim(), shape.tokens);
    for_each_row(out, d, |image, mean| {
        mean.fill(0.0);
        for token in tokens[(image * n + 1) * d..(image + 1) * n * d].chunks_exact(d) {
            mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += x);
        }
        mean.iter_mut().for_each(|mean| *mean /= (n - 1) as f32);
    });
}

/// The gradient of each token, `[n, d]`, from that of the mean, `[b, d]`.
pub(super) fn mean_patches_backward(dout: &[f32], shape: AttentionShape, dtokens: &mut [f32]) {
    let (d, n) = (shape.dim(), shape.tokens);
    for_each_row(dtokens, d, |row, dtoken| {
        let share = if row % n == 0 { 0.0 } else { 1.0 / (n - 1) as f32 };
        dtoken.iter_mut().zip(&dout[row / n * d..]).for_each(|(dx, dout)| *dx = share * dout);
    });
}
