//! The images of a run: decoded once if memory allows, in an order that the seed and the epoch decide.
//!
//! The views of image `i` in epoch `e` are a function of `(seed, e, i)`, so that threads, batches and a resumed run see the
//! same ones. Images that cannot be read are found before training and left out, with their reasons.

use std::sync::Mutex;

use dataset::augment::{MultiCrop, view_rng};
use dataset::{Dataset, Problem};
use ndarray::Array3;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::dino::Views;
use crate::{Error, Result};

/// Readable images of a data set.
pub struct Images<'a> {
    dataset: &'a dyn Dataset,
    usable: Vec<usize>,
    kept: Vec<Option<Array3<u8>>>,
}

impl std::fmt::Debug for Images<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("usable", &self.usable.len()).finish_non_exhaustive()
    }
}

impl<'a> Images<'a> {
    /// Decodes every image once: finds the ones that cannot be used, and keeps pixels up to a limit.
    ///
    /// * `memory`: bytes of pixels to keep; the rest is decoded again in every epoch.
    /// * `tick`: called for each image, from any thread; an error ends the loading.
    ///
    /// # Errors
    /// That of `tick`, or [`Error::Config`] if no image can be used.
    pub fn load<E: From<Error> + Send>(
        dataset: &'a dyn Dataset,
        memory: usize,
        tick: impl Fn() -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<(Self, Vec<Problem>), E> {
        let used = Mutex::new(0_usize);
        let load = |i: usize| -> std::result::Result<_, E> {
            tick()?;
            let image = match dataset.load(i) {
                Ok(sample) => sample.image,
                Err(error) => return Ok(Err(Problem { id: dataset.id(i).into(), reason: error.to_string() })),
            };
            let mut used = used.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *used += image.len();
            Ok(Ok((i, (*used <= memory).then_some(image))))
        };
        let loaded: Vec<_> = (0..dataset.len()).into_par_iter().map(load).collect::<std::result::Result<_, E>>()?;
        let (mut images, mut problems) = (Self { dataset, usable: vec![], kept: vec![] }, vec![]);
        for outcome in loaded {
            match outcome {
                Ok((i, pixels)) => {
                    images.usable.push(i);
                    images.kept.push(pixels);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if images.usable.is_empty() {
            let reason = format!("none of {} images can be read", dataset.len());
            return Err(Error::Config { setting: "data.dataset", reason }.into());
        }
        Ok((images, problems))
    }

    /// Number of usable images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.usable.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.usable.is_empty()
    }

    /// What is trained on: SHA-256 over the data set and the images that can be used.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let ids = self.usable.iter().map(|&i| self.dataset.id(i));
        let hash = ids.fold(Sha256::new().chain_update(self.dataset.fingerprint()), |hash, id| {
            hash.chain_update((id.len() as u64).to_le_bytes()).chain_update(id)
        });
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The order of images in an epoch; it depends on seed and epoch only.
    #[must_use]
    pub fn order(&self, seed: u64, epoch: usize) -> Vec<usize> {
        let key = Sha256::digest(format!("order of images, seed {seed}, epoch {epoch}"));
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut ChaCha8Rng::from_seed(key.into()));
        order
    }

    /// The views of the images at `places`, in parallel.
    ///
    /// # Errors
    /// If an image that was readable no longer is.
    pub fn views(&self, places: &[usize], crops: &MultiCrop, seed: u64, epoch: usize) -> Result<Vec<Views>> {
        let views = |&place: &usize| {
            let mut rng = view_rng(seed, epoch as u64, self.usable[place] as u64);
            match &self.kept[place] {
                Some(image) => Ok(crops.views(image.view(), &mut rng)?),
                None => Ok(crops.views(self.dataset.load(self.usable[place])?.image.view(), &mut rng)?),
            }
        };
        places.par_iter().map(views).collect()
    }
}
