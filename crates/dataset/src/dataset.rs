//! The one trait of this crate: an indexable list of pictures, some with label maps.
//!
//! Listing is cheap and total: opening a data set reads folder listings, never pixels, and what cannot be used is
//! put down as a [`Problem`] instead of ending the run. Decoding happens in [`Dataset::load`], sample by sample and
//! from any thread. A data set knows nothing of resolutions or networks; that is [`Transform`](crate::Transform)'s.

use std::fmt;
use std::str::FromStr;

use ndarray::{Array2, Array3};
use serde::{Deserialize, Serialize};

use crate::word::{self, Words};
use crate::{Error, Result};

/// A list of samples; the same arguments give the same list in the same order everywhere.
pub trait Dataset: Send + Sync {
    /// Short name of the data set: `camvid`, `folder`, `scenes`.
    fn name(&self) -> &str;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of sample `i`, unique in the data set.
    ///
    /// # Panics
    /// If `i >= len()`.
    fn id(&self, i: usize) -> &str;

    /// Decodes sample `i`.
    ///
    /// # Errors
    /// If there is no such sample, or with [`Error::is_sample`] if its files cannot be used.
    fn load(&self, i: usize) -> Result<Sample>;

    /// The classes of the label maps; `None` if no sample has one.
    fn classes(&self) -> Option<&ClassTable>;

    /// The class of sample `i` as a whole: an index into [`Dataset::class_names`]. `None` where samples have none, as
    /// those with label maps.
    ///
    /// # Panics
    /// If `i >= len()`.
    fn class_of(&self, _i: usize) -> Option<u32> {
        None
    }

    /// Names of the classes of samples or of their pixels; none if they have none.
    fn class_names(&self) -> Vec<String> {
        self.classes().map(|table| table.names.clone()).unwrap_or_default()
    }

    /// SHA-256, in hexadecimal, over everything that identifies the inputs.
    ///
    /// For files: relative paths and contents of images and labels, and the class table. Not over where
    /// they lie nor modification times, so that a copy counts as the same data set. A file that cannot be read counts
    /// as just that. The first call reads every file, as they are then, unless a [`Memo`](crate::Memo) knows them;
    /// further calls return the same.
    ///
    /// # Errors
    /// With [`Error::Store`] if the files' source fails.
    fn fingerprint(&self) -> Result<String>;

    /// What was found to be unusable when listing.
    fn problems(&self) -> &[Problem];
}

/// One picture and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its name in the data set.
    pub id: String,
    /// `[h, w, 3]`, red, green, blue.
    pub image: Array3<u8>,
    /// `[h, w]` class indices; 255 = ignore.
    pub label: Option<Array2<u8>>,
}

/// The classes that label maps index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTable {
    /// `[c]` names.
    pub names: Vec<String>,
    /// `[c]` colours, red, green, blue.
    pub palette: Vec<[u8; 3]>,
}

impl ClassTable {
    pub(crate) fn new(classes: &[(&str, [u8; 3])]) -> Self {
        let (names, palette) = classes.iter().map(|&(name, colour)| (name.to_owned(), colour)).unzip();
        Self { names, palette }
    }
}

/// An input that was found to be unusable when listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The input: its relative path.
    pub id: String,
    /// Why it is not used.
    pub reason: String,
}

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Images to fit on.
    Train,
    /// Images to evaluate on.
    Val,
    /// Images that are held out.
    Test,
    /// Train, then val.
    #[serde(rename = "train+val")]
    TrainVal,
    /// Images to train on that nobody has labelled (Potsdam's).
    Unlabelled,
    /// All splits that there are, in the order train, val, test.
    All,
}

impl Split {
    const WORDS: &'static Words<Self> = &[
        ("train", Self::Train),
        ("val", Self::Val),
        ("test", Self::Test),
        ("train+val", Self::TrainVal),
        ("unlabelled", Self::Unlabelled),
        ("all", Self::All),
    ];
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        word::read("split", Self::WORDS, text)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        word::write(f, Self::WORDS, self)
    }
}

/// An error if there is no sample `index` of `len`.
pub(crate) fn check_index(index: usize, len: usize) -> Result<()> {
    if index < len { Ok(()) } else { Err(Error::OutOfRange { index, len }) }
}
