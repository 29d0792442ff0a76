//! A choice spelled as one word, as typed on the command line and stored in configurations.
//!
//! Each such enum keeps one table of its words; reading, writing and the list of known words in the error
//! message all come from it.

use std::fmt;

use crate::{Error, Result};

/// The words of an enum, each with its value.
pub(crate) type Words<T> = [(&'static str, T)];

/// The value that `text` spells.
pub(crate) fn read<T: Copy>(what: &'static str, words: &Words<T>, text: &str) -> Result<T> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|&(_, value)| value).ok_or_else(|| {
        let known = words.iter().map(|&(word, _)| word).collect::<Vec<_>>().join(", ");
        Error::UnknownWord { what, got: text.to_owned(), known }
    })
}

/// Writes the word for `value`.
pub(crate) fn write<T: PartialEq>(f: &mut fmt::Formatter<'_>, words: &Words<T>, value: &T) -> fmt::Result {
    let word = words.iter().find(|(_, known)| known == value);
    f.pad(word.expect("every variant is in its table").0)
}

#[cfg(test)]
mod tests {
    use crate::{Crop, Resize, Split};

    #[test]
    fn every_word_reads_back_and_serde_spells_it_alike() {
        for word in ["train", "val", "test", "train+val", "unlabelled", "all"] {
            let split: Split = word.parse().unwrap();
            assert_eq!(serde_json::to_value(split).unwrap(), word);
            assert_eq!(split.to_string(), word);
        }
        for word in ["center", "five", "random", "none"] {
            let crop: Crop = word.parse().unwrap();
            assert_eq!(serde_json::to_value(crop).unwrap(), word);
            assert_eq!(crop.to_string(), word);
        }
        for word in ["nearest", "bilinear", "bicubic"] {
            let resize: Resize = word.parse().unwrap();
            assert_eq!(serde_json::to_value(resize).unwrap(), word);
            assert_eq!(resize.to_string(), word);
        }
    }

    #[test]
    fn an_unknown_word_lists_the_known_ones() {
        let error = "centre".parse::<Crop>().unwrap_err();
        assert!(error.is_usage());
        assert_eq!(error.to_string(), "unknown crop \"centre\"; known are center, five, random, none");
    }
}
