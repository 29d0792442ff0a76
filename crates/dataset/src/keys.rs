//! Folders out of flat keys: what a bucket, an archive or a map in memory lacks of [`Files`](crate::Files).
//!
//! Such a source has keys `a/b/c.png` and no folders; a folder is there if a key lies below it, or if a key that ends in `/`
//! marks it. Whoever implements `Files` for one lists all keys once, keeps them here, and has
//! [`kind`](Keys::kind), [`folders`](Keys::folders) and [`list`](Keys::list) without another request.

use crate::files::has_extension;
use crate::{Kind, Listed, Listing, Problem};

/// All keys below one root, relative to it.
///
/// ```
/// use dataset::{Keys, Kind, Listed};
///
/// let key = |path: &str| Listed { path: path.into(), bytes: 7, tag: None };
/// let keys = Keys::new([key("dog/b.png"), key("cat/a.png"), key("notes.txt")]);
/// assert_eq!((keys.kind("dog"), keys.kind("dog/b.png"), keys.kind("bee")), (Kind::Folder, Kind::File, Kind::Absent));
/// assert_eq!(keys.folders(""), ["cat", "dog"]);
/// assert_eq!(keys.list("", &["png"]).files[0].path, "cat/a.png");
/// ```
#[derive(Debug, Clone)]
pub struct Keys(Vec<Listed>);

impl Keys {
    /// * `keys`: in any order; those that end in `/` mark folders.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = Listed>) -> Self {
        let mut keys: Vec<Listed> = keys.into_iter().collect();
        keys.sort_by(|a, b| a.path.cmp(&b.path));
        Self(keys)
    }

    /// What lies at `path`; a root without keys is absent.
    #[must_use]
    pub fn kind(&self, path: &str) -> Kind {
        if self.below(&prefix(path)).next().is_some() {
            return Kind::Folder;
        }
        match self.0.binary_search_by(|key| key.path.as_str().cmp(path)) {
            Ok(_) => Kind::File,
            Err(_) => Kind::Absent,
        }
    }

    /// Names of the visible folders directly in `folder`, sorted.
    #[must_use]
    pub fn folders(&self, folder: &str) -> Vec<String> {
        let prefix = prefix(folder);
        let names = self.below(&prefix).filter_map(|(rest, _)| rest.split_once('/'));
        let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
        names.retain(|name| !name.is_empty() && !name.starts_with('.'));
        names.sort();
        names.dedup();
        names
    }

    /// All visible files below `folder` whose extension in lower case is one of `extensions`.
    #[must_use]
    pub fn list(&self, folder: &str, extensions: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for (rest, key) in self.below(&prefix(folder)) {
            if rest.split('/').any(|part| part.starts_with('.')) || !has_extension(rest, extensions) {
                continue;
            }
            if rest.split('/').any(str::is_empty) {
                let reason = "has a part without a name in its path".into();
                listing.problems.push(Problem { id: key.path.clone(), reason });
            } else {
                listing.files.push(key.clone());
            }
        }
        listing
    }

    /// The keys that begin with `prefix`, each with what follows it.
    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Listed)> {
        let first = self.0.partition_point(|key| key.path.as_str() < prefix);
        self.0[first..].iter().map_while(move |key| Some((key.path.strip_prefix(prefix)?, key)))
    }
}

fn prefix(folder: &str) -> String {
    if folder.is_empty() { String::new() } else { format!("{folder}/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(paths: &[&str]) -> Keys {
        Keys::new(paths.iter().map(|&path| Listed { path: path.into(), bytes: 1, tag: None }))
    }

    fn paths(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn the_order_is_that_of_the_bytes_and_names_are_whole() {
        let keys =
            keys(&["a/z.jpg", "a-1.jpg", "a/b/c.PNG", ".git/x.png", "a/.h/x.png", "a/n.txt", "ab/x.png"]);
        assert_eq!(paths(&keys.list("", &["jpg", "png"])), ["a-1.jpg", "a/b/c.PNG", "a/z.jpg", "ab/x.png"]);
        assert_eq!(paths(&keys.list("a", &["jpg", "png"])), ["a/b/c.PNG", "a/z.jpg"]);
        assert_eq!(keys.folders(""), ["a", "ab"]);
        assert_eq!(keys.folders("a"), ["b"]);
    }

    #[test]
    fn markers_make_folders_and_are_no_files() {
        let keys = keys(&["train/bee/", "train/ant/x.png", "odd.png/"]);
        assert_eq!(keys.folders("train"), ["ant", "bee"]);
        assert_eq!(keys.kind("train/bee"), Kind::Folder);
        assert_eq!(paths(&keys.list("", &["png"])), ["train/ant/x.png"]);
        assert_eq!(keys.list("", &["png"]).problems, []);
    }

    #[test]
    fn a_part_without_a_name_is_a_problem() {
        let listing = keys(&["a//x.png", "/y.png", "z.png"]).list("", &["png"]);
        assert_eq!(paths(&listing), ["z.png"]);
        assert_eq!(listing.problems.len(), 2);
    }

    #[test]
    fn no_key_no_root() {
        assert_eq!(keys(&[]).kind(""), Kind::Absent);
        assert_eq!(keys(&["x.png"]).kind(""), Kind::Folder);
    }
}
