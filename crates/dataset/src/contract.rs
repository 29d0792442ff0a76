//! What every data set keeps, as one function that each implementation's tests call.
//!
//! Test code only: ids are unique, loading is repeatable and reports what it loads, labels fit their images and
//! the class table, and a number beyond the end is an error.

use std::collections::BTreeSet;

use crate::Dataset;

/// Saves a picture in a folder of a test, with the folders above it.
pub(crate) fn save(root: &tempfile::TempDir, file: &str, picture: impl Into<image::DynamicImage>) {
    let path = root.path().join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.into().save(path).unwrap();
}

/// Panics with the reason if `dataset` breaks the contract; every sample must be loadable.
pub(crate) fn check(dataset: &dyn Dataset) {
    let ids: BTreeSet<&str> = (0..dataset.len()).map(|i| dataset.id(i)).collect();
    assert_eq!(ids.len(), dataset.len(), "ids are not unique");
    let fingerprint = || dataset.fingerprint().unwrap_or_else(|e| panic!("fingerprint: {e}"));
    assert_eq!(fingerprint().len(), 64);
    assert_eq!(fingerprint(), fingerprint());
    let classes = dataset.classes();
    if let Some(table) = classes {
        assert_eq!(table.names.len(), table.palette.len());
    }
    for i in 0..dataset.len() {
        let sample = dataset.load(i).unwrap_or_else(|e| panic!("sample {i}: {e}"));
        assert_eq!(sample, dataset.load(i).unwrap(), "sample {i} is not repeatable");
        assert_eq!(sample.id, dataset.id(i));
        let (h, w, channels) = sample.image.dim();
        assert_eq!(channels, 3);
        assert!(sample.image.is_standard_layout());
        if let Some(label) = sample.label {
            assert_eq!(label.dim(), (h, w), "label of sample {i}");
            let c = classes.expect("labels need a class table").names.len();
            assert!(label.iter().all(|&v| v == 255 || usize::from(v) < c), "label of sample {i}");
        }
    }
    let error = dataset.load(dataset.len()).unwrap_err();
    assert!(!error.is_sample() && !error.is_usage(), "{error}");
}
