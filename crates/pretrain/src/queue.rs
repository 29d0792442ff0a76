//! SwAV's queue: embeddings of past batches that take part in the assignments of small ones.
//!
//! One list of `L` rows for each assigned view, newest first. It counts as full once its last row is not 0, and only then
//! is it used; the current batch goes in after its own assignment, so that it is never counted twice.

/// Past embeddings, `[views, L, d]`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureQueue {
    pub(crate) rows: Vec<f32>,
    length: usize,
    d: usize,
}

impl FeatureQueue {
    /// An empty one for so many assigned views; `length` is cut to a multiple of the batch.
    #[must_use]
    pub fn new(views: usize, length: usize, batch: usize, d: usize) -> Self {
        let length = length - length % batch.max(1);
        Self { rows: vec![0.0; views * length * d], length, d }
    }

    /// L: rows of each view; 0 is no queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The rows of the assigned view number `view`, `[L, d]`.
    #[must_use]
    pub fn rows(&self, view: usize) -> &[f32] {
        &self.rows[view * self.length * self.d..][..self.length * self.d]
    }

    /// Whether the list of a view has been filled.
    #[must_use]
    pub fn is_full(&self, view: usize) -> bool {
        self.length > 0 && self.rows(view)[(self.length - 1) * self.d..].iter().any(|&x| x != 0.0)
    }

    /// Puts a batch, `[batch, d]`, in front; the oldest rows fall out.
    ///
    /// # Panics
    /// If the batch is longer than the queue.
    pub fn push(&mut self, view: usize, batch: &[f32]) {
        if self.length == 0 {
            return;
        }
        let all = self.length * self.d;
        assert!(batch.len() <= all, "a batch of {} in a queue of {all}", batch.len());
        let rows = &mut self.rows[view * all..][..all];
        rows.copy_within(..all - batch.len(), batch.len());
        rows[..batch.len()].copy_from_slice(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_and_full_when_the_last_row_is() {
        let mut queue = FeatureQueue::new(2, 7, 3, 1); // 6 rows
        assert_eq!((queue.len(), queue.is_full(0)), (6, false));
        queue.push(0, &[1.0, 2.0, 3.0]);
        assert!(!queue.is_full(0));
        queue.push(0, &[4.0, 5.0, 6.0]);
        assert!(queue.is_full(0) && !queue.is_full(1));
        assert_eq!(queue.rows(0), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
        queue.push(0, &[7.0, 8.0, 9.0]);
        assert_eq!(queue.rows(0), [7.0, 8.0, 9.0, 4.0, 5.0, 6.0]);
        assert_eq!(queue.rows(1), [0.0; 6]);
    }

    #[test]
    fn a_queue_shorter_than_a_batch_is_none() {
        let mut queue = FeatureQueue::new(1, 2, 3, 4);
        queue.push(0, &[1.0; 12]);
        assert!(queue.is_empty() && !queue.is_full(0));
    }
}
