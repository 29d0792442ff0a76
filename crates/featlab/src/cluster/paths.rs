//! Places as executors understand them: they run in folders of their own.

use std::path::{Path, absolute as on_disk};

/// A path or URL that means the same everywhere on this file system.
pub(crate) fn absolute(place: &str) -> String {
    if place.contains("://") {
        return place.to_owned();
    }
    on_disk(place).map_or_else(|_| place.to_owned(), |path| path.display().to_string())
}

/// `NAME:ROOT?options` with such a root.
pub(crate) fn dataset(spec: &str) -> String {
    match spec.split_once(':') {
        Some((name, root)) if !root.is_empty() => format!("{name}:{}", root_of(name, root)),
        _ => spec.to_owned(),
    }
}

/// Where data set `name` is; what stands there for drawn scenes are options.
pub(crate) fn root_of(name: &str, root: &str) -> String {
    if name == "scenes" { root.to_owned() } else { absolute(root) }
}

/// The name of a backbone; if there is a file or folder of that name, that.
pub(crate) fn backbone(name: &str) -> String {
    if Path::new(name).exists() { absolute(name) } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_change() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("s3://bucket/x"), "s3://bucket/x");
        assert_eq!(absolute("x/y"), here.join("x/y").display().to_string());
        for scenes in ["scenes", "scenes:train=3,val=2"] {
            assert_eq!(dataset(scenes), scenes);
        }
        assert_eq!(dataset("camvid:s3://bucket/c"), "camvid:s3://bucket/c");
        assert_eq!(dataset("camvid:c"), format!("camvid:{}", here.join("c").display()));
        assert_eq!(backbone("random:vit_small_patch8:0"), "random:vit_small_patch8:0");
        assert_eq!(backbone("src"), here.join("src").display().to_string());
    }
}
