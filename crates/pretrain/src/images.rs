//! The images of a run: decoded once if memory allows, in an order that the seed and the epoch decide.
//!
//! The views of image `i` in epoch `e` are a function of `(seed, e, i)`, so that threads, batches and a resumed run see the
//! same ones. Images that cannot be read are found before training and left out, with their reasons.
//!
//! DINO expects pictures of one thing; a street scene shows twenty. [`Tiles`] cuts every picture into square parts, which then
//! count as images of their own.

use std::sync::Mutex;

use dataset::augment::{MultiCrop, view_rng};
use dataset::{Dataset, Problem};
use ndarray::{Array3, ArrayView3, s};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::dino::Views;
use crate::{Error, Result};

/// How pictures are cut into images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiles {
    /// Tiles along each axis, spread evenly from edge to edge; with one, see [`Tiles::WHOLE`].
    pub grid: usize,
    /// Side of a tile over the picture's shorter side, in `(0, 1]`; tiles overlap where they must.
    pub size: f64,
}

impl Tiles {
    /// Pictures stay whole.
    pub const WHOLE: Self = Self { grid: 1, size: 1.0 };

    /// Tiles of a picture.
    #[must_use]
    pub fn count(self) -> usize {
        self.grid * self.grid
    }

    /// Tile `number`, in row-major order, of `[h, w, 3]`.
    fn cut(self, image: ArrayView3<'_, u8>, number: usize) -> ArrayView3<'_, u8> {
        if self == Self::WHOLE {
            return image;
        }
        let (h, w, _) = image.dim();
        let side = ((h.min(w) as f64 * self.size).round() as usize).clamp(1, h.min(w));
        let place = |number: usize, length: usize| match self.grid {
            1 => (length - side) / 2,
            grid => (length - side) * number / (grid - 1),
        };
        let (y, x) = (place(number / self.grid, h), place(number % self.grid, w));
        image.slice_move(s![y..y + side, x..x + side, ..])
    }
}

/// Readable images of a data set.
pub struct Images<'a> {
    tiles: Tiles,
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
    /// That of `tick`, [`Error::Config`] if no image can be used, or [`Error::Dataset`] if the store of the images fails.
    pub fn load<E: From<Error> + Send>(
        dataset: &'a dyn Dataset,
        tiles: Tiles,
        memory: usize,
        tick: impl Fn() -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<(Self, Vec<Problem>), E> {
        let used = Mutex::new(0_usize);
        let load = |i: usize| -> std::result::Result<_, E> {
            tick()?;
            let image = match dataset.load(i) {
                Ok(sample) => sample.image,
                Err(error) if error.is_sample() => {
                    return Ok(Err(Problem { id: dataset.id(i).into(), reason: error.to_string() }));
                }
                Err(error) => return Err(Error::from(error).into()),
            };
            let mut used = used.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *used += image.len();
            Ok(Ok((i, (*used <= memory).then_some(image))))
        };
        let loaded: Vec<_> =
            (0..dataset.len()).into_par_iter().map(load).collect::<std::result::Result<_, E>>()?;
        let (mut images, mut problems) = (Self { tiles, dataset, usable: vec![], kept: vec![] }, vec![]);
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

    /// Number of usable images, every tile counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.usable.len() * self.tiles.count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.usable.is_empty()
    }

    /// What is trained on: SHA-256 over the data set and the images that can be used.
    ///
    /// # Errors
    /// If the store that the images lie in fails.
    pub fn fingerprint(&self) -> Result<String> {
        let ids = self.usable.iter().map(|&i| self.dataset.id(i));
        let Tiles { grid, size } = self.tiles;
        let start =
            Sha256::new().chain_update(self.dataset.fingerprint()?).chain_update(format!("{grid} {size}"));
        let hash =
            ids.fold(start, |hash, id| hash.chain_update((id.len() as u64).to_le_bytes()).chain_update(id));
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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
            let (picture, tile) = (place / self.tiles.count(), place % self.tiles.count());
            let number = self.usable[picture] * self.tiles.count() + tile;
            let mut rng = view_rng(seed, epoch as u64, number as u64);
            match &self.kept[picture] {
                Some(image) => Ok(crops.views(self.tiles.cut(image.view(), tile), &mut rng)?),
                None => {
                    let image = self.dataset.load(self.usable[picture])?.image;
                    Ok(crops.views(self.tiles.cut(image.view(), tile), &mut rng)?)
                }
            }
        };
        places.par_iter().map(views).collect()
    }
}

#[cfg(test)]
mod tests {
    use dataset::{Split, open};

    use super::*;

    #[test]
    fn tiles_reach_from_edge_to_edge() {
        let image = Array3::from_shape_fn((20, 30, 3), |(y, x, _)| (y * 30 + x) as u8);
        let tiles = Tiles { grid: 3, size: 0.5 };
        for (tile, (y, x)) in [(0, (0, 0)), (1, (0, 10)), (2, (0, 20)), (5, (5, 20)), (8, (10, 20))] {
            assert_eq!(tiles.cut(image.view(), tile), image.slice(s![y..y + 10, x..x + 10, ..]));
        }
        assert_eq!(Tiles::WHOLE.cut(image.view(), 0).dim(), (20, 30, 3));
        assert_eq!(Tiles { grid: 1, size: 0.5 }.cut(image.view(), 0), image.slice(s![5..15, 10..20, ..]));
    }

    #[test]
    fn views_do_not_depend_on_memory_company_or_order() {
        let scenes = open("scenes:train=6,size=24", Split::Train).unwrap();
        let load = |memory| {
            Images::load::<Error>(&*scenes, Tiles { grid: 2, size: 0.6 }, memory, || Ok(())).unwrap().0
        };
        let (kept, fresh) = (load(usize::MAX), load(0));
        let crops = MultiCrop::dino().resized(16, 8);
        let together = kept.views(&[3, 17, 8], &crops, 5, 2).unwrap();
        assert_eq!(fresh.views(&[8], &crops, 5, 2).unwrap()[0], together[2]);
        assert_ne!(fresh.views(&[8], &crops, 5, 3).unwrap()[0], together[2]);
        assert_eq!((kept.len(), kept.fingerprint().unwrap()), (24, fresh.fingerprint().unwrap()));
        let mut order = kept.order(1, 0);
        assert!(order != kept.order(1, 1) && order != kept.order(2, 0) && order == kept.order(1, 0));
        order.sort_unstable();
        assert_eq!(order, (0..24).collect::<Vec<_>>());
    }
}
