//! `folder:DIR`: every picture below a folder, without labels.
//!
//! Any nesting, sorted by relative path. An id is the relative path without extension; if two pictures differ in
//! nothing else, all ids keep their extensions. Splits do not apply: whatever is asked for is the whole folder.

use std::collections::BTreeSet;

use crate::dataset::check_index;
use crate::fingerprint::{Fingerprint, Once};
use crate::image_file::{EXTENSIONS, read_image};
use crate::source::Source;
use crate::{ClassTable, Dataset, Error, Listed, Listing, Problem, Result, Sample};

/// The pictures below a folder.
pub(crate) struct ImageFolder {
    source: Source,
    files: Vec<Listed>,
    ids: Vec<String>,
    problems: Vec<Problem>,
    fingerprint: Once,
}

impl ImageFolder {
    pub(crate) const NAME: &'static str = "folder";

    pub(crate) fn open(source: Source) -> Result<Self> {
        let Listing { files, problems } = source.list("", EXTENSIONS)?;
        if files.is_empty() {
            let detail = format!("looked for {} at any depth", EXTENSIONS.join(", "));
            return Err(Error::Empty { path: source.place(""), detail });
        }
        let stems: BTreeSet<&str> = files.iter().map(Listed::stem).collect();
        let unique = stems.len() == files.len();
        let id = |file: &Listed| if unique { file.stem() } else { &file.path }.to_owned();
        let ids = files.iter().map(id).collect();
        Ok(Self { source, files, ids, problems, fingerprint: Once::default() })
    }
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn id(&self, i: usize) -> &str {
        &self.ids[i]
    }

    fn load(&self, i: usize) -> Result<Sample> {
        check_index(i, self.len())?;
        let image = read_image(&self.source, &self.files[i])?;
        Ok(Sample { id: self.ids[i].clone(), image, label: None })
    }

    fn classes(&self) -> Option<&ClassTable> {
        None
    }

    fn fingerprint(&self) -> Result<String> {
        self.fingerprint.get(|| {
            let contents = self.source.contents(&self.files.iter().collect::<Vec<_>>())?;
            let hash = Fingerprint::new(Self::NAME).number(self.files.len() as u64);
            Ok(hash.files(&contents).hex())
        })
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::contract;

    fn open(root: &Path) -> Result<ImageFolder> {
        ImageFolder::open(Source::local(root))
    }

    fn picture(root: &Path, file: &str) {
        std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(4, 3, image::Rgb([1, 2, 3])).save(root.join(file)).unwrap();
    }

    fn ids(dataset: &dyn Dataset) -> Vec<&str> {
        (0..dataset.len()).map(|i| dataset.id(i)).collect()
    }

    #[test]
    fn it_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        picture(folder.path(), "b/one.png");
        picture(folder.path(), "a.bmp");
        std::fs::write(folder.path().join("README.md"), "not a picture").unwrap();
        let dataset = open(folder.path()).unwrap();
        contract::check(&dataset);
        assert_eq!(ids(&dataset), ["a", "b/one"]);
        assert_eq!(dataset.load(0).unwrap().image.dim(), (3, 4, 3));
    }

    #[test]
    fn extensions_stay_where_stems_are_not_unique() {
        let folder = tempfile::tempdir().unwrap();
        ["x.png", "x.bmp", "y.png"].iter().for_each(|file| picture(folder.path(), file));
        assert_eq!(ids(&open(folder.path()).unwrap()), ["x.bmp", "x.png", "y.png"]);
    }

    #[test]
    fn the_fingerprint_is_of_names_and_contents_and_not_of_the_place() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fingerprint = |folder: &tempfile::TempDir| open(folder.path()).unwrap().fingerprint().unwrap();
        [&here, &there].into_iter().for_each(|folder| picture(folder.path(), "x.png"));
        let first = fingerprint(&here);
        assert_eq!(first, fingerprint(&there));
        picture(there.path(), "y.png");
        assert_ne!(first, fingerprint(&there));
        std::fs::write(here.path().join("x.png"), "longer or shorter").unwrap();
        assert_ne!(first, fingerprint(&here));
    }

    #[test]
    fn a_folder_without_pictures_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let error = open(folder.path()).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("no usable image in"), "{error}");
    }
}
