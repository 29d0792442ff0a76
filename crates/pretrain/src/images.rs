//! The images of a run: decoded once if memory allows, in an order that the seed and the epoch decide.
//!
//! The views of image `i` in epoch `e` are a function of `(seed, e, i)`, so that threads, batches and a resumed run see the
//! same ones. Images that cannot be read are found before training and left out, with their reasons.
//!
//! DINO expects pictures of one thing; a street scene shows twenty. [`Tiles`] cuts every picture into square parts, which then
//! count as images of their own.

use std::ops::Range;
use std::sync::Mutex;

use dataset::augment::view_rng;
use dataset::{Dataset, Problem};
use ndarray::{Array2, Array3, ArrayView3, s};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::training::{Augment, Views};
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
        let (h, w, _) = image.dim();
        let (y, x) = self.place((h, w), number);
        image.slice_move(s![y, x, ..])
    }

    /// The class that most labelled pixels of a tile have; of two with equally many the first. None without labelled pixels.
    fn class(self, label: &Array2<u8>, number: usize) -> Option<u32> {
        let (y, x) = self.place(label.dim(), number);
        let mut counts = [0_usize; IGNORE as usize];
        for &class in label.slice(s![y, x]).iter().filter(|class| **class != IGNORE) {
            counts[usize::from(class)] += 1;
        }
        let top = counts.iter().enumerate().rev().max_by_key(|(_, count)| **count)?;
        (*top.1 > 0).then_some(top.0 as u32)
    }

    /// Rows and columns of a tile.
    fn place(self, (h, w): (usize, usize), number: usize) -> (Range<usize>, Range<usize>) {
        if self == Self::WHOLE {
            return (0..h, 0..w);
        }
        let side = ((h.min(w) as f64 * self.size).round() as usize).clamp(1, h.min(w));
        let place = |number: usize, length: usize| match self.grid {
            1 => (length - side) / 2,
            grid => (length - side) * number / (grid - 1),
        };
        let (y, x) = (place(number / self.grid, h), place(number % self.grid, w));
        (y..y + side, x..x + side)
    }
}

/// Pixels without a class.
const IGNORE: u8 = 255;

/// Readable images of a data set.
pub struct Images<'a> {
    tiles: Tiles,
    dataset: &'a dyn Dataset,
    usable: Vec<usize>,
    kept: Vec<Option<Array3<u8>>>,
    /// The class of every tile.
    classes: Vec<Option<u32>>,
    /// The tiles that have one, if only those count.
    labelled: Option<Vec<usize>>,
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
            let sample = match dataset.load(i) {
                Ok(sample) => sample,
                Err(error) if error.is_sample() => {
                    return Ok(Err(Problem { id: dataset.id(i).into(), reason: error.to_string() }));
                }
                Err(error) => return Err(Error::from(error).into()),
            };
            let class =
                |tile: usize| dataset.class_of(i).or_else(|| tiles.class(sample.label.as_ref()?, tile));
            let classes: Vec<_> = (0..tiles.count()).map(class).collect();
            let mut used = used.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *used += sample.image.len();
            Ok(Ok((i, classes, (*used <= memory).then_some(sample.image))))
        };
        let loaded: Vec<_> =
            (0..dataset.len()).into_par_iter().map(load).collect::<std::result::Result<_, E>>()?;
        let mut problems = Vec::new();
        let mut images =
            Self { tiles, dataset, usable: vec![], kept: vec![], classes: vec![], labelled: None };
        for outcome in loaded {
            match outcome {
                Ok((i, classes, pixels)) => {
                    images.usable.push(i);
                    images.classes.extend(classes);
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

    /// Leaves out images and tiles without a class. A picture's class is its folder's, or of each tile the one that most of its
    /// labelled pixels have.
    ///
    /// # Errors
    /// [`Error::Config`] if none has a class.
    pub fn labelled_only(mut self) -> Result<Self> {
        let places = (0..self.classes.len()).filter(|&place| self.classes[place].is_some());
        let places: Vec<usize> = places.collect();
        if places.is_empty() {
            let reason = "no image has a class: name a folder of class folders (classes:ROOT) or a data set with label maps";
            return Err(Error::Config { setting: "data.datasets", reason: reason.into() });
        }
        self.labelled = Some(places);
        Ok(self)
    }

    /// A seeded share of the images of each class, at least one of each; the others are left out.
    #[must_use]
    pub fn share_of_each_class(mut self, share: f64, seed: u64) -> Self {
        let Some(places) = self.labelled.take() else { return self };
        let classes = places.iter().filter_map(|&place| self.classes[place]).max().map_or(0, |top| top + 1);
        let mut chosen = Vec::new();
        for class in 0..classes {
            let mut own: Vec<usize> =
                places.iter().copied().filter(|&place| self.classes[place] == Some(class)).collect();
            let key = Sha256::digest(format!("share of class {class}, seed {seed}"));
            own.shuffle(&mut ChaCha8Rng::from_seed(key.into()));
            let wanted = ((own.len() as f64 * share).round() as usize).clamp(own.len().min(1), own.len());
            chosen.extend(&own[..wanted]);
        }
        chosen.sort_unstable();
        self.labelled = Some(chosen);
        self
    }

    /// Names of the classes; none without labels.
    #[must_use]
    pub fn class_names(&self) -> Vec<String> {
        self.dataset.class_names()
    }

    /// The classes of images that all have one.
    #[must_use]
    pub fn classes(&self, places: &[usize]) -> Vec<u32> {
        match &self.labelled {
            Some(labelled) => places.iter().filter_map(|&place| self.classes[labelled[place]]).collect(),
            None => Vec::new(),
        }
    }

    /// Number of usable images, every tile counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labelled.as_ref().map_or(self.usable.len() * self.tiles.count(), Vec::len)
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
        let mut start =
            Sha256::new().chain_update(self.dataset.fingerprint()?).chain_update(format!("{grid} {size}"));
        for place in self.labelled.iter().flatten() {
            start.update(format!("{place}:{:?}", self.classes[*place]));
        }
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
    pub fn views(&self, places: &[usize], augment: &Augment, seed: u64, epoch: usize) -> Result<Vec<Views>> {
        let views = |&place: &usize| {
            let place = self.labelled.as_ref().map_or(place, |labelled| labelled[place]);
            let (picture, tile) = (place / self.tiles.count(), place % self.tiles.count());
            let number = self.usable[picture] * self.tiles.count() + tile;
            let mut rng = view_rng(seed, epoch as u64, number as u64);
            match &self.kept[picture] {
                Some(image) => augment.views(self.tiles.cut(image.view(), tile), &mut rng),
                None => {
                    let image = self.dataset.load(self.usable[picture])?.image;
                    augment.views(self.tiles.cut(image.view(), tile), &mut rng)
                }
            }
        };
        places.par_iter().map(views).collect()
    }
}

#[cfg(test)]
mod tests {
    use dataset::augment::MultiCrop;
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
        let crops = MultiCrop::dino().resized(16, 8).into();
        let together = kept.views(&[3, 17, 8], &crops, 5, 2).unwrap();
        assert_eq!(fresh.views(&[8], &crops, 5, 2).unwrap()[0], together[2]);
        assert_ne!(fresh.views(&[8], &crops, 5, 3).unwrap()[0], together[2]);
        assert_eq!((kept.len(), kept.fingerprint().unwrap()), (24, fresh.fingerprint().unwrap()));
        let mut order = kept.order(1, 0);
        assert!(order != kept.order(1, 1) && order != kept.order(2, 0) && order == kept.order(1, 0));
        order.sort_unstable();
        assert_eq!(order, (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn a_tiles_class_is_that_of_most_of_its_pixels() {
        let label = Array2::from_shape_vec((2, 4), vec![1, 1, 3, 255, 1, 2, 3, 255]).unwrap();
        assert_eq!(Tiles::WHOLE.class(&label, 0), Some(1));
        let tiles = Tiles { grid: 2, size: 0.5 }; // corners, one pixel each
        let classes: Vec<_> = (0..4).map(|tile| tiles.class(&label, tile)).collect();
        assert_eq!(classes, [Some(1), None, Some(1), None]);
        let equal = Array2::from_shape_vec((1, 2), vec![7, 4]).unwrap();
        assert_eq!(Tiles::WHOLE.class(&equal, 0), Some(4));
    }

    #[test]
    fn only_what_has_a_class_is_trained_on_and_shares_are_of_each() {
        let scenes = open("scenes:train=20,size=32", Split::Train).unwrap();
        let load = || {
            Images::load::<Error>(&*scenes, Tiles { grid: 3, size: 0.4 }, usize::MAX, || Ok(())).unwrap().0
        };
        let all = load().labelled_only().unwrap();
        let classes = all.classes(&(0..all.len()).collect::<Vec<_>>());
        assert!(
            classes.len() == all.len()
                && classes.iter().all(|&class| (class as usize) < all.class_names().len())
        );
        let few = load().labelled_only().unwrap().share_of_each_class(0.1, 3);
        let chosen = few.classes(&(0..few.len()).collect::<Vec<_>>());
        for class in 0..all.class_names().len() as u32 {
            let count = |classes: &[u32]| classes.iter().filter(|c| **c == class).count();
            let (n, own) = (count(&classes), count(&chosen));
            assert_eq!(own, ((n as f64 * 0.1).round() as usize).max(n.min(1)), "class {class} of {n}");
        }
        assert_ne!(few.fingerprint().unwrap(), all.fingerprint().unwrap());
    }
}
