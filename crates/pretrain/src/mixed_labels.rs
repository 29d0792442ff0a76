//! Cross-entropy with the labels of two images: `λ CE(y) + (1 - λ) CE(y')`, with label smoothing.

use kernels::max;

/// The classes of a batch of mixtures.
#[derive(Debug, Clone, Copy)]
pub struct MixedLabels<'a> {
    /// The images' own classes.
    pub classes: &'a [u32],
    /// π: the partner of each image.
    pub partners: &'a [usize],
    /// λ: the share of the image itself.
    pub lambda: f64,
    /// Share of a target that goes to all classes alike.
    pub smoothing: f64,
}

/// The mean loss over images; the logits `[b, C]` become its gradient, times `weight`.
///
/// # Panics
/// If there are not as many rows as images.
pub fn mixed_cross_entropy(logits: &mut [f32], labels: MixedLabels<'_>, weight: f64) -> f64 {
    let images = labels.classes.len();
    let c = logits.len() / images.max(1);
    assert!(c > 0 && logits.len() == images * c && labels.partners.len() == images, "{images} images");
    let scale = weight / images as f64;
    let mut total = 0.0;
    for (image, row) in logits.chunks_exact_mut(c).enumerate() {
        let top = f64::from(max(row));
        let sum: f64 = row.iter().map(|&x| (f64::from(x) - top).exp()).sum();
        let (own, partner) =
            (labels.classes[image] as usize, labels.classes[labels.partners[image]] as usize);
        for (class, x) in row.iter_mut().enumerate() {
            let mut target = if class == own { labels.lambda } else { 0.0 };
            if class == partner {
                target += 1.0 - labels.lambda;
            }
            let target = (1.0 - labels.smoothing) * target + labels.smoothing / c as f64;
            let log = f64::from(*x) - top - sum.ln();
            total -= target * log;
            *x = (scale * (log.exp() - target)) as f32;
        }
    }
    total / images as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [u32; 3] = [0, 2, 1];

    fn labels(lambda: f64, smoothing: f64, partners: &[usize]) -> MixedLabels<'_> {
        MixedLabels { classes: &CLASSES, partners, lambda, smoothing }
    }

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 1.3).sin()).collect()
    }

    #[test]
    fn gradients_are_slopes() {
        let partners = [1, 1, 0];
        for smoothing in [0.0, 0.1] {
            let loss = |logits: &[f32]| {
                mixed_cross_entropy(&mut logits.to_vec(), labels(0.3, smoothing, &partners), 1.0)
            };
            let mut grads = wave(12);
            mixed_cross_entropy(&mut grads, labels(0.3, smoothing, &partners), 2.0);
            for i in 0..12 {
                let moved = |step: f32| {
                    let mut logits = wave(12);
                    logits[i] += step;
                    loss(&logits)
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((2.0 * slope - f64::from(grads[i])).abs() < 1e-4, "{slope} {}", grads[i]);
            }
        }
    }

    /// Whose image it is called does not matter.
    #[test]
    fn swapping_the_two_images_and_lambda_changes_nothing() {
        let partners = [1, 2, 0];
        let swapped: Vec<u32> = partners.iter().map(|&p| CLASSES[p]).collect();
        let one = mixed_cross_entropy(&mut wave(12), labels(0.3, 0.1, &partners), 1.0);
        // Each image's partner is the one whose class it had: of the swapped classes that is the image before.
        let back = MixedLabels { classes: &swapped, partners: &[2, 0, 1], lambda: 0.7, smoothing: 0.1 };
        assert!((one - mixed_cross_entropy(&mut wave(12), back, 1.0)).abs() < 1e-12);
    }

    #[test]
    fn equal_logits_cost_ln_c() {
        let partners = [0, 1, 2];
        for smoothing in [0.0, 0.2] {
            let loss = mixed_cross_entropy(&mut [0.5; 12], labels(0.4, smoothing, &partners), 1.0);
            assert!((loss - 4f64.ln()).abs() < 1e-12);
        }
    }
}
