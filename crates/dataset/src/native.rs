//! Data sets in the layouts in which they are published, of which a study looks at fewer classes than they have.
//!
//! Each has a [`Layout`]: where the files of a split lie, how they are written, and which class every stored value becomes
//! (`coarse[value]`; what stands for no class, and every value that means nothing, becomes 255). Where an image or a label
//! is missing, that is a [`Problem`] and the rest goes on. The classes' own files are [`cocostuff`](crate::cocostuff),
//! [`cityscapes`](crate::cityscapes), [`potsdam`](crate::potsdam) and [`voc`](crate::voc).

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use ndarray::{Array2, Array3, ArrayD, Ix2, Ix3, s};

use crate::dataset::check_index;
use crate::fingerprint::{Fingerprint, Once};
use crate::image_file::{check_size, read_image};
use crate::label_file::{IGNORE, read_values};
use crate::source::Source;
use crate::{ClassTable, Dataset, Error, Kind, Listed, Problem, Result, Sample, Split, mat};

/// What tells one of these data sets from another.
pub(crate) struct Layout {
    /// Name of the data set.
    pub(crate) name: &'static str,
    /// The classes.
    pub(crate) classes: fn() -> ClassTable,
    /// The class of every stored value; 255 for none.
    pub(crate) coarse: [u8; 256],
    pub(crate) form: Form,
    /// What a split consists of; never asked for [`Split::TrainVal`], which is the two one after the other.
    pub(crate) list: fn(&Source, Split) -> Result<Pairs>,
}

/// How images and labels are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// Pictures, and PNG files of values.
    Pictures,
    /// MATLAB files with an array `img` `[h, w, 3 or more]`, and with an array `gt` `[h, w]`.
    Matlab,
}

/// All data sets of this kind.
pub(crate) static LAYOUTS: [&Layout; 6] = [
    &crate::cocostuff::LAYOUT,
    &crate::cocostuff::LAYOUT_15,
    &crate::cocostuff::LAYOUT_3,
    &crate::cityscapes::LAYOUT,
    &crate::potsdam::LAYOUT,
    &crate::voc::LAYOUT,
];

/// An image and its label; paths are relative to the root. Without a label file all pixels are ignored.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) id: String,
    pub(crate) split: Split,
    pub(crate) image: Listed,
    pub(crate) label: Option<Listed>,
}

/// What a listing gives.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) problems: Vec<Problem>,
}

impl Pairs {
    pub(crate) fn refuse(&mut self, id: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(Problem { id: id.into(), reason: reason.into() });
    }

    /// The files of a folder by their paths; what cannot be used is put down.
    pub(crate) fn files(
        &mut self,
        source: &Source,
        folder: &str,
        extension: &str,
    ) -> Result<BTreeMap<String, Listed>> {
        let listing = source.list(folder, &[extension])?;
        self.problems.extend(listing.problems);
        Ok(listing.files.into_iter().map(|file| (file.path.clone(), file)).collect())
    }
}

/// `root/sub`, if `marker` lies there and not in the root itself: the folder of the data set, or the one above it.
pub(crate) fn base(source: &Source, marker: &str, sub: &str) -> Result<String> {
    let below = format!("{sub}/{marker}");
    let is_above = source.files.kind(marker)? == Kind::Absent && source.files.kind(&below)? != Kind::Absent;
    Ok(if is_above { format!("{sub}/") } else { String::new() })
}

/// The ids of a list, one a line; of those that it names twice, the first.
pub(crate) fn listed_ids(source: &Source, path: &str, problems: &mut Pairs) -> Result<Vec<String>> {
    let refuse = |reason: String| Error::List { path: source.place(path), reason };
    if source.files.kind(path)? != Kind::File {
        return Err(refuse("there is no such file; expected one image a line".into()));
    }
    let file = Listed { path: path.to_owned(), bytes: 0, tag: None };
    let text = String::from_utf8(source.read(&file, refuse)?).map_err(|_| refuse("it is not text".into()))?;
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for id in text.lines().map(str::trim).filter(|id| !id.is_empty()) {
        if id.starts_with(['/', '\\']) || id.split(['/', '\\']).any(|part| part == "..") {
            return Err(refuse(format!("it names \"{id}\"; expected names of images without folders")));
        }
        match seen.insert(id) {
            true => ids.push(id.to_owned()),
            false => problems.refuse(path, format!("lists {id} more than once")),
        }
    }
    match ids.is_empty() {
        true => Err(refuse("it names no image".into())),
        false => Ok(ids),
    }
}

/// An error for a split that a data set does not have.
///
/// * `known`: those that it has.
pub(crate) fn unknown_split(name: &str, split: Split, known: &str) -> Error {
    let known = format!("{known} (of {name})");
    Error::UnknownWord { what: "split", got: split.to_string(), known }
}

/// Colour `i` of the Pascal map: its bits are dealt out to red, green and blue, the lowest ones to the highest.
pub(crate) fn pascal(i: usize) -> [u8; 3] {
    let bit = |channel: usize, k: usize| (i >> (3 * (7 - k) + channel) & 1) << k;
    [0, 1, 2].map(|channel| (0..8).map(|k| bit(channel, k)).sum::<usize>() as u8)
}

/// One or more splits of such a data set.
pub(crate) struct Native {
    source: Source,
    layout: &'static Layout,
    classes: ClassTable,
    pairs: Vec<Pair>,
    problems: Vec<Problem>,
    fingerprint: Once,
}

impl Native {
    pub(crate) fn open(layout: &'static Layout, source: Source, split: Split) -> Result<Self> {
        source.check()?;
        let Pairs { mut pairs, problems } = listed(layout, &source, split)?;
        if pairs.is_empty() {
            let detail = match problems.first() {
                Some(first) => {
                    format!("{} problems, the first: {} {}", problems.len(), first.id, first.reason)
                }
                None => format!("split {split} is empty"),
            };
            return Err(Error::Empty { path: source.place(""), detail });
        }
        let ids: BTreeSet<&str> = pairs.iter().map(|pair| pair.id.as_str()).collect();
        if ids.len() < pairs.len() {
            pairs.iter_mut().for_each(|pair| pair.id = format!("{}/{}", pair.split, pair.id));
        }
        let (classes, fingerprint) = ((layout.classes)(), Once::default());
        Ok(Self { source, layout, classes, pairs, problems, fingerprint })
    }

    fn image(&self, file: &Listed) -> Result<Array3<u8>> {
        let refuse = |reason| Error::Image { path: self.source.place(&file.path), reason };
        match self.layout.form {
            Form::Pictures => read_image(&self.source, file),
            Form::Matlab => {
                let array = mat::read(&self.source.read(file, refuse)?, "img", None).map_err(refuse)?;
                let array = sized::<Ix3>(array, "img", "[h, w, 3 or more]", |shape| shape[2] >= 3);
                Ok(array.map_err(refuse)?.slice(s![.., .., ..3]).as_standard_layout().into_owned())
            }
        }
    }

    fn label(&self, file: &Listed) -> Result<Array2<u8>> {
        let refuse = |reason| Error::Label { path: self.source.place(&file.path), reason };
        let values = match self.layout.form {
            Form::Pictures => read_values(&self.source, file)?,
            Form::Matlab => {
                let array =
                    mat::read(&self.source.read(file, refuse)?, "gt", Some(IGNORE)).map_err(refuse)?;
                sized::<Ix2>(array, "gt", "[h, w]", |_| true).map_err(refuse)?
            }
        };
        Ok(values.mapv_into(|value| self.layout.coarse[usize::from(value)]))
    }
}

fn listed(layout: &Layout, source: &Source, split: Split) -> Result<Pairs> {
    if split != Split::TrainVal {
        return (layout.list)(source, split);
    }
    let mut both = (layout.list)(source, Split::Train)?;
    let val = (layout.list)(source, Split::Val)?;
    both.pairs.extend(val.pairs);
    both.problems.extend(val.problems);
    Ok(both)
}

/// An array of the right number of axes that is neither empty nor too large.
fn sized<D: ndarray::Dimension>(
    array: ArrayD<u8>,
    name: &str,
    expected: &str,
    fits: impl Fn(&[usize]) -> bool,
) -> std::result::Result<ndarray::Array<u8, D>, String> {
    let shape = array.shape().to_vec();
    match array.into_dimensionality::<D>() {
        Ok(array) if fits(&shape) => {
            check_size(shape[1] as u32, shape[0] as u32)?;
            Ok(array)
        }
        _ => Err(format!("\"{name}\" is of size {shape:?}; expected {expected}")),
    }
}

impl Dataset for Native {
    fn name(&self) -> &str {
        self.layout.name
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn id(&self, i: usize) -> &str {
        &self.pairs[i].id
    }

    fn load(&self, i: usize) -> Result<Sample> {
        check_index(i, self.len())?;
        let pair = &self.pairs[i];
        let image = self.image(&pair.image)?;
        let (h, w, _) = image.dim();
        let label = match &pair.label {
            None => Array2::from_elem((h, w), IGNORE),
            Some(file) => {
                let label = self.label(file)?;
                if label.dim() != (h, w) {
                    let path = self.source.place(&file.path);
                    return Err(Error::LabelSize { path, label: label.dim(), image: (h, w) });
                }
                label
            }
        };
        Ok(Sample { id: pair.id.clone(), image, label: Some(label) })
    }

    fn classes(&self) -> Option<&ClassTable> {
        Some(&self.classes)
    }

    fn fingerprint(&self) -> Result<String> {
        self.fingerprint.get(|| {
            let files = self.pairs.iter().flat_map(|pair| iter::once(&pair.image).chain(&pair.label));
            let contents = self.source.contents(&files.collect::<Vec<_>>())?;
            let hash = Fingerprint::new(self.layout.name).number(self.pairs.len() as u64);
            let hash = self.classes.names.iter().fold(hash, |hash, name| hash.text(name));
            let hash = self.layout.coarse.iter().fold(hash, |hash, &class| hash.number(class.into()));
            let labelled = |hash: Fingerprint, pair: &Pair| hash.number(pair.label.is_some().into());
            Ok(self.pairs.iter().fold(hash, labelled).files(&contents).hex())
        })
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pascal_map_is_the_known_one() {
        assert_eq!(
            [0, 1, 2, 3, 8, 20].map(pascal),
            [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0], [0, 64, 128]]
        );
    }

    #[test]
    fn a_list_is_read_line_by_line() {
        let root = tempfile::tempdir().unwrap();
        let source = Source::local(root.path());
        let mut problems = Pairs::default();
        let mut ids = |text: &[u8]| {
            std::fs::write(root.path().join("list.txt"), text).unwrap();
            listed_ids(&source, "list.txt", &mut problems)
        };
        assert_eq!(ids(b"b\r\n\n a \nb").unwrap(), ["b", "a"]);
        for (text, word) in
            [(&b"\n \n"[..], "names no image"), (b"../x", "without folders"), (b"\xff", "not text")]
        {
            let error = ids(text).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(word), "{error}");
        }
        assert_eq!(problems.problems[0].reason, "lists b more than once");
        let error = listed_ids(&source, "none.txt", &mut problems).unwrap_err();
        assert!(error.to_string().contains("none.txt: there is no such file"), "{error}");
    }
}
