//! What can go wrong between a data set's name and a network's input, by what the caller can do about it.
//!
//! Two groups matter at the edge. *Usage* errors ([`Error::is_usage`]): the caller named something that is not
//! there or cannot be. *Sample* errors ([`Error::is_sample`]): one input is unusable, the others are not; list
//! it and go on. A store that fails ([`Error::Store`]) is neither: it says nothing of any sample. Messages name the file, what was found in it and what was expected.

use std::io;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that listing, decoding or transforming can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No data set goes by this name, and no folder either.
    #[error("unknown data set \"{name}\"; known are {known}, and a path of a folder")]
    UnknownDataset {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A word that is none of the choices.
    #[error("unknown {what} \"{got}\"; known are {known}")]
    UnknownWord {
        /// What the word stands for: `split`, `crop`, `resize`, `scenes option`.
        what: &'static str,
        /// What was asked for.
        got: String,
        /// What there is.
        known: String,
    },
    /// A data set that lies in a folder was named without it.
    #[error("data set {name} needs its folder: write {name}:{placeholder}")]
    MissingRoot {
        /// The data set.
        name: String,
        /// `ROOT`, `DIR`, and options where there are any.
        placeholder: &'static str,
    },
    /// An option whose value cannot be.
    #[error("{option} {reason}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What is wrong, and what was given.
        reason: String,
    },
    /// The folder does not exist.
    #[error("there is no folder {}", path.display())]
    NotFound {
        /// The folder.
        path: PathBuf,
    },
    /// The path is that of something else than a folder.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder holds nothing to use.
    #[error("no usable image in {}: {detail}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What was looked for, or why what is there cannot be used.
        detail: String,
    },
    /// The file that lists a data set's images cannot be used.
    #[error("cannot use the list of images {}: {reason}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A folder cannot be listed.
    #[error("cannot list {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A root that is no path of this machine, where nothing opens such.
    #[error("cannot open {root}: only folders of this machine can be opened here; write a path")]
    NoSource {
        /// The root.
        root: String,
    },
    /// Where the files lie does not answer, or not as it must. No sample is to blame.
    #[error("cannot read {} from where it lies", path.display())]
    Store {
        /// What was asked for.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no sample of this number.
    #[error("there is no sample {index}; the data set has {len}")]
    OutOfRange {
        /// The number asked for.
        index: usize,
        /// How many samples there are.
        len: usize,
    },
    /// A file that is gone or may not be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file that is not a readable picture.
    #[error("cannot read image {}: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file that is not a readable PNG.
    #[error("cannot read label {}: {reason}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A label file that does not hold class indices.
    #[error(
        "label {} is {found}; expected an 8-bit grey or palette PNG whose pixel values are class indices",
        path.display()
    )]
    LabelFormat {
        /// The file.
        path: PathBuf,
        /// Kind of pixels, e.g. `a 16-bit grey PNG`.
        found: String,
    },
    /// A pixel of a label map that is no class.
    #[error(
        "label {} holds {value} at x {x}, y {y}; expected a class below {classes}{}",
        path.display(), and_void(*void)
    )]
    LabelValue {
        /// The file.
        path: PathBuf,
        /// The first offending value, in row-major order.
        value: u8,
        /// Its column.
        x: usize,
        /// Its row.
        y: usize,
        /// Number of classes.
        classes: usize,
        /// The value that the class table means by "no class", besides 255.
        void: Option<u8>,
    },
    /// Label and image are not of one size.
    #[error("label {} is {} x {} pixels, its image is {} x {}", path.display(), label.1, label.0, image.1, image.0)]
    LabelSize {
        /// The label's file.
        path: PathBuf,
        /// `(h, w)` of the label.
        label: (usize, usize),
        /// `(h, w)` of the image.
        image: (usize, usize),
    },
    /// The picture cannot be cut as asked.
    #[error("image {id} of {} x {} pixels {reason}", size.1, size.0)]
    Unfit {
        /// The sample.
        id: String,
        /// `(h, w)` of the picture.
        size: (usize, usize),
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// Whether the caller asked for something that is not there or cannot be.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownDataset { .. }
                | Self::UnknownWord { .. }
                | Self::MissingRoot { .. }
                | Self::InvalidOption { .. }
                | Self::NotFound { .. }
                | Self::NotAFolder { .. }
                | Self::Empty { .. }
                | Self::List { .. }
                | Self::NoSource { .. }
        )
    }

    /// Whether one sample is unusable and the others are not affected.
    #[must_use]
    pub fn is_sample(&self) -> bool {
        matches!(
            self,
            Self::File { .. }
                | Self::Image { .. }
                | Self::Label { .. }
                | Self::LabelFormat { .. }
                | Self::LabelValue { .. }
                | Self::LabelSize { .. }
                | Self::Unfit { .. }
        )
    }
}

fn and_void(void: Option<u8>) -> String {
    match void {
        Some(void) if void != 255 => format!(", {void} or 255 (no class)"),
        _ => " or 255 (no class)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_disjoint() {
        let usage = Error::NotFound { path: "x".into() };
        let sample = Error::Image { path: "x".into(), reason: "y".into() };
        let store = Error::Store { path: "x".into(), source: "timed out".into() };
        assert!(usage.is_usage() && !usage.is_sample());
        assert!(sample.is_sample() && !sample.is_usage());
        for neither in [Error::OutOfRange { index: 1, len: 1 }, store] {
            assert!(!neither.is_sample() && !neither.is_usage(), "{neither}");
        }
    }

    #[test]
    fn messages_name_file_found_and_expected() {
        let value =
            |void| Error::LabelValue { path: "a.png".into(), value: 77, x: 3, y: 5, classes: 11, void };
        assert_eq!(
            value(Some(11)).to_string(),
            "label a.png holds 77 at x 3, y 5; expected a class below 11, 11 or 255 (no class)"
        );
        assert!(value(None).to_string().ends_with("a class below 11 or 255 (no class)"));
        let size = Error::LabelSize { path: "a.png".into(), label: (10, 20), image: (48, 64) };
        assert_eq!(size.to_string(), "label a.png is 20 x 10 pixels, its image is 64 x 48");
    }
}
