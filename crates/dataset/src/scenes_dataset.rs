//! `scenes` as a data set: options to a list of scenes, drawn when they are loaded.
//!
//! `scenes:train=64,val=32,size=160,seed=0`: so many square pictures of `size` pixels. Training scene `i` is number `i` of
//! the seed's endless list, validation scene `i` is number `2^32 + i`: neither count changes the other split. What the
//! pictures show is not decided here but in [`scenes`](crate::scenes).

use crate::dataset::check_index;
use crate::fingerprint::Fingerprint;
use crate::scenes::{CLASSES, VERSION, render};
use crate::{ClassTable, Dataset, Error, Problem, Result, Sample, Split};

/// Number of the first validation scene.
const FIRST_VAL: u64 = 1 << 32;
/// A scene of more pixels a side would take minutes.
const MAX_SIZE: u32 = 4096;

/// Procedural scenes of one seed.
pub(crate) struct Scenes {
    options: Options,
    classes: ClassTable,
    /// Id and number of each scene.
    scenes: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    train: u32,
    val: u32,
    size: u32,
    seed: u64,
}

impl Options {
    const KNOWN: &'static str = "train, val, size, seed";

    /// Reads `key=value,key=value`; what is not given keeps a value that suits a short run on a CPU.
    fn parse(text: &str) -> Result<Self> {
        let mut options = Self { train: 64, val: 32, size: 160, seed: 0 };
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (key.trim(), value.trim());
            match key {
                "train" => options.train = number("scenes option train", value)?,
                "val" => options.val = number("scenes option val", value)?,
                "size" => options.size = number("scenes option size", value)?,
                "seed" => options.seed = number("scenes option seed", value)?,
                _ => {
                    let (got, known) = (key.to_owned(), Self::KNOWN.to_owned());
                    return Err(Error::UnknownWord { what: "scenes option", got, known });
                }
            }
        }
        if options.size == 0 || options.size > MAX_SIZE {
            let reason = format!("must be 1 to {MAX_SIZE} pixels, got {}", options.size);
            return Err(Error::InvalidOption { option: "scenes option size", reason });
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(option: &'static str, value: &str) -> Result<T> {
    let reason = || format!("must be a whole number that is not negative nor too large, got \"{value}\"");
    value.parse().map_err(|_| Error::InvalidOption { option, reason: reason() })
}

impl Scenes {
    pub(crate) const NAME: &'static str = "scenes";

    /// * `options`: `key=value` pairs, separated by commas.
    pub(crate) fn open(options: &str, split: Split) -> Result<Self> {
        let options = Options::parse(options)?;
        let part = |name: &'static str, first: u64, count: u32| {
            (0..u64::from(count)).map(move |i| (format!("{name}-{i:05}"), first + i))
        };
        let train = part("train", 0, options.train);
        let val = part("val", FIRST_VAL, options.val);
        let scenes: Vec<_> = match split {
            Split::Train => train.collect(),
            Split::Val => val.collect(),
            Split::TrainVal | Split::All => train.chain(val).collect(),
            Split::Test | Split::Unlabelled => {
                let (got, known) = (split.to_string(), "train, val, train+val, all".into());
                return Err(Error::UnknownWord { what: "split of scenes", got, known });
            }
        };
        if scenes.is_empty() {
            return Err(Error::InvalidOption {
                option: "scenes",
                reason: format!("has no image in split {split}"),
            });
        }
        Ok(Self { options, classes: ClassTable::new(&CLASSES), scenes })
    }
}

impl Dataset for Scenes {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn len(&self) -> usize {
        self.scenes.len()
    }

    fn id(&self, i: usize) -> &str {
        &self.scenes[i].0
    }

    fn load(&self, i: usize) -> Result<Sample> {
        check_index(i, self.len())?;
        let ((id, number), side) = (&self.scenes[i], self.options.size as usize);
        let scene = render(self.options.seed, *number, (side, side));
        Ok(Sample { id: id.clone(), image: scene.image, label: Some(scene.label) })
    }

    fn classes(&self) -> Option<&ClassTable> {
        Some(&self.classes)
    }

    fn fingerprint(&self) -> Result<String> {
        let hash = Fingerprint::new(Self::NAME).number(VERSION.into()).number(self.options.seed);
        let hash = hash.number(self.options.size.into()).number(self.scenes.len() as u64);
        Ok(self.scenes.iter().fold(hash, |hash, &(_, number)| hash.number(number)).hex())
    }

    fn problems(&self) -> &[Problem] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    fn open(options: &str, split: Split) -> Scenes {
        Scenes::open(options, split).unwrap()
    }

    #[test]
    fn every_split_keeps_the_contract() {
        for (split, len) in [(Split::Train, 2), (Split::Val, 1), (Split::All, 3)] {
            let scenes = open("train=2,val=1,size=24", split);
            contract::check(&scenes);
            assert_eq!(scenes.len(), len);
            assert_eq!(scenes.load(0).unwrap().image.dim(), (24, 24, 3));
        }
    }

    #[test]
    fn counts_of_one_split_do_not_change_the_other() {
        let (few, many) =
            (open("train=1,val=2,size=16", Split::Val), open("train=5,val=2,size=16", Split::Val));
        assert_eq!(few.fingerprint().unwrap(), many.fingerprint().unwrap());
        assert_eq!(few.load(1).unwrap(), many.load(1).unwrap());
        assert_ne!(few.load(0).unwrap().image, open("size=16", Split::Train).load(0).unwrap().image);
    }

    #[test]
    fn the_fingerprint_covers_every_option_that_changes_a_pixel() {
        let of = |options, split| open(options, split).fingerprint().unwrap();
        let base = of("train=2,size=16", Split::Train);
        for other in ["train=3,size=16", "train=2,size=17", "train=2,size=16,seed=1"] {
            assert_ne!(of(other, Split::Train), base, "{other}");
        }
        assert_ne!(of("train=2,val=2,size=16", Split::Val), base);
    }

    #[test]
    fn options_are_read_strictly() {
        let expected = Options { train: 3, val: 32, size: 160, seed: 7 };
        assert_eq!(Options::parse(" seed=7, train = 3,").unwrap(), expected);
        for (bad, word) in [
            ("sise=9", "train, val, size, seed"),
            ("train", "got \"\""),
            ("val=-1", "got \"-1\""),
            ("size=0", "1 to 4096"),
            ("size=99999", "got 99999"),
        ] {
            let error = Options::parse(bad).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(word), "{bad}: {error}");
        }
        for (options, split) in [("train=0", Split::Train), ("", Split::Test)] {
            assert!(Scenes::open(options, split).err().unwrap().is_usage());
        }
    }
}
