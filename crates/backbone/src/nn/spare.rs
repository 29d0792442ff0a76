//! Buffers that one layer has done with, for the next one to fill.
//!
//! A block makes seven activations and needs two or three of them at a time. Memory that goes back to the system comes
//! again as fresh pages, which costs a few percent of a forward pass; so a thread at work on an image keeps what
//! its layers give back, and of that, for its next image, what this one has used.

use std::cell::RefCell;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { working: false, used: Vec::new(), old: Vec::new() }) };
}

struct Spare {
    /// Whether somebody is at work on an image here.
    working: bool,
    /// What was given back since the image was begun.
    used: Vec<Vec<f32>>,
    /// What is left of the image before.
    old: Vec<Vec<f32>>,
}

/// Runs `f`, which works on an image, and whose layers on this thread pass buffers on.
pub(super) fn passing_on<R>(f: impl FnOnce() -> R) -> R {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            SPARE.with_borrow_mut(|spare| {
                spare.working = false;
                spare.old = std::mem::take(&mut spare.used);
            });
        }
    }
    SPARE.with_borrow_mut(|spare| spare.working = true);
    let _end = End;
    f()
}

/// A buffer of `len` numbers, whatever they are.
pub(super) fn buffer(len: usize) -> Vec<f32> {
    let spare = SPARE.with_borrow_mut(|spare| {
        let Spare { used, old, .. } = spare;
        [used, old].into_iter().find_map(|buffers| {
            let at = buffers.iter().position(|buffer| buffer.len() == len)?;
            Some(buffers.swap_remove(at))
        })
    });
    spare.unwrap_or_else(|| vec![0.0; len])
}

/// Keeps a buffer if somebody is at work here.
pub(super) fn give_back(buffer: Vec<f32>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.working {
            spare.used.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_passed_on_by_size_from_an_image_to_the_next_one() {
        give_back(vec![1.0; 3]);
        assert_eq!(buffer(3), [0.0; 3], "nobody was at work");
        passing_on(|| {
            give_back(vec![1.0; 3]);
            assert_eq!(buffer(4), [0.0; 4]);
            assert_eq!(buffer(3), [1.0; 3]);
            assert_eq!(buffer(3), [0.0; 3], "there was one");
            give_back(vec![2.0; 3]);
            give_back(vec![2.0; 5]);
        });
        passing_on(|| {
            let three = buffer(3);
            assert_eq!(three, [2.0; 3]);
            give_back(three);
        });
        passing_on(|| assert_eq!(buffer(5), [0.0; 5], "the image before had no use for it"));
    }
}
