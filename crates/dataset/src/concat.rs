//! Several data sets one after the other, as one: to train on the pictures of many folders.
//!
//! Ids stay as they are if no two parts share one; else each is prefixed by its part's name, and by the part's number too
//! where two parts share that. Label maps stay only if all parts have the same classes: otherwise 3 would mean
//! one thing here and another there.

use std::collections::BTreeSet;

use crate::dataset::check_index;
use crate::fingerprint::Fingerprint;
use crate::{ClassTable, Dataset, Error, Problem, Result, Sample};

/// The samples of several data sets, in order.
pub struct Concat {
    parts: Vec<Box<dyn Dataset>>,
    /// Samples before each part.
    starts: Vec<usize>,
    ids: Vec<String>,
    classes: Option<ClassTable>,
    /// The class names that all parts have.
    names: Vec<String>,
    problems: Vec<Problem>,
}

/// The samples of `parts`, one part after the other.
///
/// Classes are those of the parts if all have the same; else there are none, and samples come without label maps.
///
/// # Errors
/// With [`Error::is_usage`] if `parts` is empty.
///
/// ```
/// use dataset::{Dataset, Split, concat, open};
///
/// let part = |seed| open(&format!("scenes:train=2,size=32,seed={seed}"), Split::Train);
/// let both = concat(vec![part(0)?, part(1)?])?;
/// assert_eq!((both.len(), both.id(0), both.id(3)), (4, "scenes-0/train-00000", "scenes-1/train-00001"));
/// # Ok::<(), dataset::Error>(())
/// ```
pub fn concat(parts: Vec<Box<dyn Dataset>>) -> Result<Concat> {
    if parts.is_empty() {
        return Err(Error::InvalidOption { option: "data sets", reason: "must be at least one".into() });
    }
    let starts = parts.iter().scan(0, |end, part| Some(std::mem::replace(end, *end + part.len()))).collect();
    let prefixes = prefixes(&parts);
    let problems = parts.iter().zip(&prefixes).flat_map(|(part, prefix)| {
        let named = move |p: &Problem| Problem { id: format!("{prefix}{}", p.id), reason: p.reason.clone() };
        part.problems().iter().map(named)
    });
    let problems = problems.collect();
    let classes = parts[0].classes().filter(|first| parts.iter().all(|part| part.classes() == Some(first)));
    let first = parts[0].class_names();
    let names = if parts.iter().all(|part| part.class_names() == first) { first } else { Vec::new() };
    Ok(Concat { starts, ids: ids(&parts, &prefixes), classes: classes.cloned(), names, problems, parts })
}

/// What tells the parts apart: nothing for a single one, else their names, numbered where two are equal.
fn prefixes(parts: &[Box<dyn Dataset>]) -> Vec<String> {
    let names: BTreeSet<&str> = parts.iter().map(|part| part.name()).collect();
    let different = names.len() == parts.len();
    let prefix = parts.iter().enumerate().map(|(number, part)| match parts.len() {
        1 => String::new(),
        _ if different => format!("{}/", part.name()),
        _ => format!("{}-{number}/", part.name()),
    });
    prefix.collect()
}

fn ids(parts: &[Box<dyn Dataset>], prefixes: &[String]) -> Vec<String> {
    let all = || {
        parts
            .iter()
            .zip(prefixes)
            .flat_map(|(part, prefix)| (0..part.len()).map(move |i| (prefix, part.id(i))))
    };
    let own: BTreeSet<&str> = all().map(|(_, id)| id).collect();
    let unique = own.len() == all().count();
    all().map(|(prefix, id)| if unique { id.to_owned() } else { format!("{prefix}{id}") }).collect()
}

impl Dataset for Concat {
    fn name(&self) -> &str {
        "concat"
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, i: usize) -> &str {
        &self.ids[i]
    }

    fn load(&self, i: usize) -> Result<Sample> {
        check_index(i, self.len())?;
        let part = self.starts.partition_point(|start| *start <= i) - 1;
        let sample = self.parts[part].load(i - self.starts[part])?;
        let label = sample.label.filter(|_| self.classes.is_some());
        Ok(Sample { id: self.ids[i].clone(), label, ..sample })
    }

    fn classes(&self) -> Option<&ClassTable> {
        self.classes.as_ref()
    }

    fn class_of(&self, i: usize) -> Option<u32> {
        let part = self.starts.partition_point(|start| *start <= i) - 1;
        let class = self.parts[part].class_of(i - self.starts[part]);
        class.filter(|_| !self.names.is_empty())
    }

    fn class_names(&self) -> Vec<String> {
        self.names.clone()
    }

    fn fingerprint(&self) -> Result<String> {
        let hash = Fingerprint::new("concat").number(self.parts.len() as u64);
        let hash = self.parts.iter().try_fold(hash, |hash, part| Ok(hash.text(&part.fingerprint()?)));
        hash.map(Fingerprint::hex)
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{Split, contract, open};

    fn scenes(seed: u32) -> Box<dyn Dataset> {
        open(&format!("scenes:train=2,size=32,seed={seed}"), Split::Train).unwrap()
    }

    fn folder(files: &[&str]) -> (TempDir, Box<dyn Dataset>) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            image::RgbImage::from_pixel(4, 3, image::Rgb([1, 2, 3])).save(root.path().join(file)).unwrap();
        }
        let dataset = open(&format!("folder:{}", root.path().display()), Split::All).unwrap();
        (root, dataset)
    }

    fn ids(dataset: &Concat) -> Vec<&str> {
        (0..dataset.len()).map(|i| dataset.id(i)).collect()
    }

    #[test]
    fn equal_classes_keep_labels_and_the_contract() {
        let both = concat(vec![scenes(0), scenes(1)]).unwrap();
        contract::check(&both);
        assert_eq!(both.classes(), scenes(0).classes());
        let third = both.load(2).unwrap();
        let alone = scenes(1).load(0).unwrap();
        assert_eq!((third.image, third.label), (alone.image, alone.label));
    }

    #[test]
    fn different_classes_drop_labels_and_keep_the_contract() {
        let (_keep, pictures) = folder(&["a.png", "b.png"]);
        let both = concat(vec![scenes(0), pictures]).unwrap();
        contract::check(&both);
        assert!(both.classes().is_none() && both.load(0).unwrap().label.is_none());
        assert_eq!(ids(&both), ["train-00000", "train-00001", "a", "b"]);
    }

    #[test]
    fn shared_ids_are_prefixed() {
        let ((_a, first), (_b, second)) = (folder(&["x.png", "y.png"]), folder(&["x.png"]));
        let both = concat(vec![first, second]).unwrap();
        contract::check(&both);
        assert_eq!(ids(&both), ["folder-0/x", "folder-0/y", "folder-1/x"]);
        let (_c, named) = folder(&["train-00001.png"]);
        let ids_of_two_kinds = concat(vec![scenes(0), named]).unwrap();
        assert_eq!(
            ids(&ids_of_two_kinds),
            ["scenes/train-00000", "scenes/train-00001", "folder/train-00001"]
        );
    }

    #[test]
    fn the_fingerprint_is_of_the_parts_in_order() {
        let all = |seeds: &[u32]| concat(seeds.iter().map(|&seed| scenes(seed)).collect()).unwrap();
        let of = |seeds: &[u32]| all(seeds).fingerprint().unwrap();
        assert_eq!(of(&[0, 1]), of(&[0, 1]));
        assert_ne!(of(&[0, 1]), of(&[1, 0]));
        assert_ne!(of(&[0]), scenes(0).fingerprint().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn problems_of_all_parts_are_listed() {
        let both = |name: &str| {
            let (keep, part) = folder(&["x.png"]);
            std::os::unix::fs::symlink("/nowhere", keep.path().join(name)).unwrap();
            drop(part);
            let spec = format!("folder:{}", keep.path().display());
            (keep, open(&spec, Split::All).unwrap())
        };
        let ((_a, first), (_b, second)) = (both("p.png"), both("q.png"));
        let all = concat(vec![first, second]).unwrap();
        let problems: Vec<&str> = all.problems().iter().map(|problem| problem.id.as_str()).collect();
        assert_eq!(problems, ["folder-0/p.png", "folder-1/q.png"]);
    }

    #[test]
    fn nothing_to_concatenate_is_a_usage_error() {
        assert!(concat(vec![]).err().unwrap().is_usage());
    }
}
