//! Cross-entropy against one class a row, where rows may have none.

/// Mean cross-entropy of the rows that have a target; the scores `[V · B, K]` become its gradient, times `share`.
pub(crate) fn target_cross_entropy(
    scores: &mut [f32],
    targets: &[Option<usize>],
    k: usize,
    temperature: f64,
    share: f64,
) -> f64 {
    let views = scores.len() / k / targets.len();
    let counted = views * targets.iter().flatten().count();
    if counted == 0 {
        scores.fill(0.0);
        return 0.0;
    }
    let (inverse, share) = (1.0 / temperature, share / counted as f64);
    let mut total = 0.0;
    for (row, scores) in scores.chunks_exact_mut(k).enumerate() {
        let Some(target) = targets[row % targets.len()] else {
            scores.fill(0.0);
            continue;
        };
        let top = scores.iter().fold(f32::NEG_INFINITY, |top, &x| top.max(x));
        let own = f64::from(scores[target] - top) * inverse;
        let exps: Vec<f64> = scores.iter().map(|&x| (f64::from(x - top) * inverse).exp()).collect();
        let sum: f64 = exps.iter().sum();
        total += sum.ln() - own;
        for (i, (score, exp)) in scores.iter_mut().zip(exps).enumerate() {
            let hit = if i == target { 1.0 } else { 0.0 };
            *score = ((exp / sum - hit) * inverse * share) as f32;
        }
    }
    total / counted as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_target_cost_nothing_and_equal_scores_ln_k() {
        let mut scores = vec![0.4; 2 * 2 * 5];
        let loss = target_cross_entropy(&mut scores, &[None, Some(3)], 5, 0.1, 1.0);
        assert!((loss - 5f64.ln()).abs() < 1e-6);
        assert_eq!([&scores[..5], &scores[10..15]].concat(), [0.0; 10]);
        assert!(scores[8] < 0.0 && (scores[5..10].iter().sum::<f32>()).abs() < 1e-6);
        assert_eq!(target_cross_entropy(&mut scores, &[None, None], 5, 0.1, 1.0), 0.0);
    }
}
