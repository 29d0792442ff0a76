//! Masks: mixtures by them, what is asked of their mean, and what they look like.
//!
//! A mask `m` is the partner's weight at every pixel, `[n, side, side]`; images are `[n, 3, side, side]`.

/// `x ⊙ (1 - m) + x[π] ⊙ m`.
pub(super) fn blend(images: &[f32], side: usize, partners: &[usize], mask: &[f32], mixed: &mut Vec<f32>) {
    let plane = side * side;
    mixed.clear();
    mixed.reserve(images.len());
    for (image, &partner) in partners.iter().enumerate() {
        let mask = &mask[image * plane..][..plane];
        for channel in 0..3 {
            let own = &images[(image * 3 + channel) * plane..][..plane];
            let other = &images[(partner * 3 + channel) * plane..][..plane];
            mixed.extend(own.iter().zip(other).zip(mask).map(|((x, y), m)| x + m * (y - x)));
        }
    }
}

/// Adds the gradient of the mask from that of the mixtures.
pub(super) fn blend_backward(
    images: &[f32],
    side: usize,
    partners: &[usize],
    dmixed: &[f32],
    dmask: &mut [f32],
) {
    let plane = side * side;
    for (image, &partner) in partners.iter().enumerate() {
        let dmask = &mut dmask[image * plane..][..plane];
        for channel in 0..3 {
            let own = &images[(image * 3 + channel) * plane..][..plane];
            let other = &images[(partner * 3 + channel) * plane..][..plane];
            let d = &dmixed[(image * 3 + channel) * plane..][..plane];
            for i in 0..plane {
                dmask[i] += d[i] * (other[i] - own[i]);
            }
        }
    }
}

/// `max(|1 - μ - λ| - ε, 0)`, less twice the variance if that is rewarded, times `weight`; its gradient is added.
///
/// μ is the mean of the partner's weight over the whole batch. What is returned is without the weight.
pub(super) fn mask_loss(
    mask: &[f32],
    lambda: f64,
    epsilon: f64,
    rewards: bool,
    weight: f64,
    dmask: &mut [f32],
) -> f64 {
    let n = mask.len() as f64;
    let mean = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / n;
    let off = 1.0 - mean - lambda;
    let mut loss = (off.abs() - epsilon).max(0.0);
    if off.abs() > epsilon {
        let slope = (-off.signum() * weight / n) as f32;
        dmask.iter_mut().for_each(|d| *d += slope);
    }
    if rewards {
        loss -= 2.0 * mask.iter().map(|&m| (f64::from(m) - mean).powi(2)).sum::<f64>() / n;
        let scale = -4.0 * weight / n;
        dmask.iter_mut().zip(mask).for_each(|(d, &m)| *d += (scale * (f64::from(m) - mean)) as f32);
    }
    loss
}

/// Rescales each image's mask to the mean `1 - λ` of the partner's weight.
pub(super) fn adjust(mask: &mut [f32], images: usize, lambda: f64) {
    let plane = mask.len() / images.max(1);
    for mask in mask.chunks_exact_mut(plane) {
        let own = 1.0 - mask.iter().map(|&m| f64::from(m)).sum::<f64>() / plane as f64;
        if own > lambda {
            let factor = (lambda / own) as f32;
            mask.iter_mut().for_each(|m| *m = 1.0 - (1.0 - *m) * factor);
        } else if own < lambda {
            let factor = ((1.0 - lambda) / (1.0 - own)) as f32;
            mask.iter_mut().for_each(|m| *m *= factor);
        }
    }
}

/// Mean over the batch, and the mean over images of the deviation within one.
pub(super) fn mask_signs(mask: &[f32], images: usize) -> [f64; 2] {
    let plane = mask.len() / images.max(1);
    let mean = |mask: &[f32]| mask.iter().map(|&m| f64::from(m)).sum::<f64>() / mask.len().max(1) as f64;
    let deviation = |mask: &[f32]| {
        let own = mean(mask);
        (mask.iter().map(|&m| (f64::from(m) - own).powi(2)).sum::<f64>() / plane as f64).sqrt()
    };
    [mean(mask), mask.chunks_exact(plane.max(1)).map(deviation).sum::<f64>() / images.max(1) as f64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjusted_mask_has_the_mean_that_lambda_says() {
        for lambda in [0.2, 0.5, 0.9] {
            let mut mask: Vec<f32> =
                (0..2 * 36).map(|i| 0.3 + 0.2 * (i as f32).sin() + 0.2 * (i / 36) as f32).collect();
            adjust(&mut mask, 2, lambda);
            for mask in mask.chunks_exact(36) {
                let own = 1.0 - mask.iter().map(|&m| f64::from(m)).sum::<f64>() / 36.0;
                assert!((own - lambda).abs() < 1e-6 && mask.iter().all(|m| (0.0..=1.0).contains(m)), "{own}");
            }
        }
    }

    /// Specification 4.6.
    #[test]
    fn the_mask_loss_is_the_originals_and_its_gradient_a_slope() {
        let mask: Vec<f32> = (0..32).map(|i| 0.45 + 0.05 * (i as f32 * 0.9).sin()).collect();
        for (rewards, lambda) in [(false, 0.3), (true, 0.3), (true, 0.8), (false, 0.55)] {
            let loss = |mask: &[f32]| mask_loss(mask, lambda, 0.1, rewards, 0.0, &mut [0.0; 32]);
            let mut grads = vec![0.0; 32];
            mask_loss(&mask, lambda, 0.1, rewards, 1.0, &mut grads);
            for i in 0..32 {
                let moved = |step: f32| {
                    let mut mask = mask.clone();
                    mask[i] += step;
                    loss(&mask)
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slope - f64::from(grads[i])).abs() < 1e-4, "{slope} {}", grads[i]);
            }
        }
        let mean = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / 32.0;
        let loss = mask_loss(&mask, 0.3, 0.1, false, 1.0, &mut [0.0; 32]);
        assert!((loss - ((1.0 - mean - 0.3) - 0.1)).abs() < 1e-9);
    }

    #[test]
    fn blending_is_linear_in_the_mask() {
        let images: Vec<f32> = (0..2 * 3 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        let mask: Vec<f32> = (0..32).map(|i| 0.5 + 0.4 * (i as f32).cos()).collect();
        let (mut mixed, mut dmask) = (Vec::new(), vec![0.0; 32]);
        blend(&images, 4, &[1, 1], &mask, &mut mixed);
        assert_eq!(mixed[48..], images[48..], "an image that is its own partner");
        let weight: Vec<f32> = (0..96).map(|i| (i as f32).sin()).collect();
        blend_backward(&images, 4, &[1, 1], &weight, &mut dmask);
        let value = |mask: &[f32]| {
            let mut mixed = Vec::new();
            blend(&images, 4, &[1, 1], mask, &mut mixed);
            mixed.iter().zip(&weight).map(|(m, w)| m * w).sum::<f32>()
        };
        for i in 0..32 {
            let mut moved = mask.clone();
            moved[i] += 0.5;
            assert!(((value(&moved) - value(&mask)) / 0.5 - dmask[i]).abs() < 1e-4);
        }
    }
}
