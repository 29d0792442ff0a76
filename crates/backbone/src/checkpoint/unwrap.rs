//! From what a training program saved to the state dict of the backbone alone.
//!
//! A checkpoint may be the state dict itself or hold it under a name; its tensors may carry the prefixes of the
//! wrappers around the backbone, beside those of heads and probes. What is left out is told, never silent.

use std::collections::BTreeMap;

use super::array::Array;
use super::pickle::{Id, Node, Pickle};
use super::sidecar::Inside;

/// Where training programs keep a state dict, the best choice first.
const KEPT_UNDER: [&str; 4] = ["teacher", "student", "state_dict", "model"];

/// What wrappers put before the names of the backbone's tensors, from the outside in.
const PREFIXES: [&str; 4] = ["module.", "net.model.", "backbone.", "vit."];

/// Tensors by name.
pub(crate) type Arrays = BTreeMap<String, Array>;

/// The dictionary with the tensors, and a note if it is not the whole checkpoint.
pub(crate) fn state_dict(pickle: &Pickle) -> (Id, Option<String>) {
    let root = pickle.root();
    let kept = KEPT_UNDER.iter().find_map(|&name| {
        let dict = pickle.get(root, name).filter(|&id| pickle.entries(id).is_some())?;
        Some((dict, Some(format!("a training checkpoint: weights of \"{name}\" taken"))))
    });
    kept.unwrap_or((root, None))
}

/// What a training program's arguments say of the model: `arch`, `num_heads` and `readout`.
pub(crate) fn arguments(pickle: &Pickle) -> Inside {
    let Some(args) = pickle.get(pickle.root(), "args") else { return Inside::default() };
    let fields = match pickle.node(args) {
        Node::Object(object) => object.state.unwrap_or(args),
        _ => args,
    };
    let heads = pickle.get(fields, "num_heads").and_then(|id| pickle.int(id));
    let text = |name: &str| pickle.get(fields, name).and_then(|id| pickle.str(id)).map(str::to_owned);
    Inside {
        metadata_heads: None,
        argument_heads: heads.and_then(|n| usize::try_from(n).ok()),
        architecture: text("arch"),
        readout: text("readout"),
    }
}

/// Takes the prefixes of wrappers off; returns the names of tensors that are outside of what is wrapped.
pub(crate) fn strip(mut arrays: Arrays) -> (Arrays, Vec<String>) {
    let mut outside = Vec::new();
    while let Some(prefix) =
        PREFIXES.iter().find(|prefix| arrays.keys().any(|name| name.starts_with(**prefix)))
    {
        let mut inside = Arrays::new();
        for (name, array) in arrays {
            match name.strip_prefix(prefix) {
                Some(inner) => drop(inside.insert(inner.to_owned(), array)),
                None => outside.push(name),
            }
        }
        arrays = inside;
    }
    (arrays, outside)
}

/// A note on tensors that were left out.
pub(crate) fn left_out(mut names: Vec<String>) -> Option<String> {
    names.sort_unstable();
    match &names[..] {
        [] => None,
        [one] => Some(format!("tensor {one} is not part of the backbone and was left out")),
        [first, .., last] => Some(format!(
            "{} tensors, {first} to {last}, are not part of the backbone and were left out",
            names.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::array::{Dtype, Storage};
    use super::*;

    fn arrays(names: &[&str]) -> Arrays {
        let array = || Array {
            shape: vec![1],
            strides: vec![1],
            offset: 0,
            dtype: Dtype::F32,
            storage: Storage::Bytes(0..4),
        };
        names.iter().map(|name| ((*name).to_owned(), array())).collect()
    }

    #[test]
    fn wrappers_come_off_in_layers() {
        for (given, kept, outside) in [
            (&["norm.bias", "head.bias"][..], &["head.bias", "norm.bias"][..], &[][..]),
            (&["module.backbone.norm.bias", "module.head.bias"], &["norm.bias"], &["head.bias"]),
            (
                &["net.model.norm.bias", "net.cluster1.0.bias", "linear_probe.bias"],
                &["norm.bias"],
                &["linear_probe.bias", "net.cluster1.0.bias"],
            ),
            (&["vit.layernorm.bias", "classifier.bias"], &["layernorm.bias"], &["classifier.bias"]),
        ] {
            let (stripped, left) = strip(arrays(given));
            assert_eq!(stripped.keys().collect::<Vec<_>>(), kept);
            assert_eq!(left, outside);
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let note = |names: &[&str]| left_out(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(note(&[]), None);
        assert!(note(&["b"]).unwrap().contains("tensor b is"));
        assert!(note(&["b", "c", "a"]).unwrap().starts_with("3 tensors, a to c,"));
    }

    #[test]
    fn the_teacher_is_preferred() {
        let word = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        let entry = |name: &str, inner: &str| [&word(name), &b"}"[..], &word(inner), b"Ns"].concat();
        let entries = [entry("model", "x"), entry("student", "z"), entry("teacher", "y")].concat();
        let (pickle, _) = Pickle::read(&[b"}(", &entries[..], b"u."].concat()).unwrap();
        let (dict, note) = state_dict(&pickle);
        assert!(pickle.get(dict, "y").is_some() && note.unwrap().contains("teacher"));
        let (flat, _) = Pickle::read(&[&b"}"[..], &word("model"), b"Ns."].concat()).unwrap();
        assert_eq!(state_dict(&flat), (flat.root(), None));
    }
}
