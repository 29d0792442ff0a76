//! What is known of a model besides its tensors: the number of heads, the norm's epsilon, the normalisation of pixels.
//!
//! The shapes of the tensors are the same for any number of heads, but the features are not, and a wrong number gives
//! plausible nonsense. So sources are asked in a fixed order, each only if the sizes it states are those of the
//! tensors: the caller, the periods of a rotation, `config.json`, the file's own metadata, other JSON files beside it, the
//! training program's arguments, and at last the family whose heads have 64 dimensions.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::sizes::{Sizes, Untold};
use crate::models::ModelConfig;
use crate::{Error, Result};

/// Embedding dimensions of the published families, whose heads all have 64 dimensions.
const FAMILY_DIMS: [usize; 4] = [192, 384, 768, 1024];
const FAMILY_HEAD_DIM: usize = 64;

/// Larger JSON files are no model's description.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// What a checkpoint itself says of its heads.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    /// `num_heads` of a safetensors file's metadata.
    pub(crate) metadata_heads: Option<usize>,
    /// `num_heads` of the training program's arguments.
    pub(crate) argument_heads: Option<usize>,
    /// `arch` of the training program's arguments.
    pub(crate) architecture: Option<String>,
    /// What the training's head read, `readout` of either.
    pub(crate) readout: Option<String>,
}

/// The sizes of the tensors, completed from what is known besides.
///
/// * `required`: whether `config.json` belongs to the weights (they were given as one folder), so that it must fit.
///
/// # Errors
/// [`Error::Config`] if files contradict the tensors or each other, [`Error::HeadsUnknown`] if nothing states the heads.
pub(crate) fn complete(
    sizes: Sizes,
    weights: &Path,
    required: bool,
    asked: Option<usize>,
    inside: &Inside,
) -> Result<ModelConfig> {
    let config = config_json(sizes, weights, required)?;
    let stated = |name: &str| config.as_ref().and_then(|json| number(json, &[name]));
    let (layer_norm_eps, rope_theta) = (stated("layer_norm_eps"), stated("rope_theta"));
    if let Some(theta) = rope_theta.filter(|theta| !(theta.is_finite() && *theta > 0.0)) {
        let reason = format!("rope_theta is {theta}, and no base of periods");
        return Err(Error::Config { path: weights.with_file_name("config.json"), reason });
    }
    let stated = asked.or_else(|| sizes.heads().or_else(|| config.as_ref().and_then(heads)));
    let stated = stated.or(inside.metadata_heads);
    let num_heads = match stated {
        Some(heads) => heads,
        None => match heads_of_neighbours(sizes, weights)? {
            Some(heads) => heads,
            None => inside.heads(sizes).or_else(|| family(sizes)).ok_or_else(|| Error::HeadsUnknown {
                path: weights.to_owned(),
                embed_dim: sizes.embed_dim,
            })?,
        },
    };
    let config = sizes.with(Untold { num_heads, layer_norm_eps, rope_theta });
    config.check_heads()?;
    Ok(config)
}

/// Mean and standard deviation of the pixels that the model expects, from the files beside the weights.
///
/// `preprocessor_config.json` is Hugging Face's file for it; timm keeps them in its `config.json`.
pub(crate) fn normalization(weights: &Path) -> Option<([f32; 3], [f32; 3])> {
    let three =
        |json: &Value, key: &str| -> Option<[f32; 3]> { serde_json::from_value(json.get(key)?.clone()).ok() };
    let hugging_face = |json: Value| Some((three(&json, "image_mean")?, three(&json, "image_std")?));
    let timm = |json: Value| {
        let config = json.get("pretrained_cfg")?;
        Some((three(config, "mean")?, three(config, "std")?))
    };
    let beside = |name: &str| read(&weights.with_file_name(name));
    beside("preprocessor_config.json").and_then(hugging_face).or_else(|| beside("config.json").and_then(timm))
}

impl Inside {
    /// The heads that the training program's arguments imply.
    fn heads(&self, sizes: Sizes) -> Option<usize> {
        let named = || {
            let config = ModelConfig::by_name(&format!("{}_patch16", self.architecture.as_deref()?))?;
            let config = config.vit()?;
            (config.embed_dim == sizes.embed_dim).then_some(config.num_heads)
        };
        self.argument_heads.or_else(named)
    }
}

fn family(sizes: Sizes) -> Option<usize> {
    FAMILY_DIMS.contains(&sizes.embed_dim).then_some(sizes.embed_dim / FAMILY_HEAD_DIM)
}

/// `config.json` beside the weights, if it describes them.
fn config_json(sizes: Sizes, weights: &Path, required: bool) -> Result<Option<Value>> {
    let path = weights.with_file_name("config.json");
    let refuse = |reason: String| Err(Error::Config { path: path.clone(), reason });
    let Some(json) = read(&path) else {
        return if required && path.exists() { refuse("it is no JSON object".to_owned()) } else { Ok(None) };
    };
    if let Some(reason) = contradiction(&json, sizes) {
        return if required { refuse(reason) } else { Ok(None) };
    }
    match json.get("hidden_act").and_then(Value::as_str) {
        Some(other) if other != "gelu" => {
            refuse(format!("hidden_act is {other}, and only gelu is supported"))
        }
        _ => Ok(Some(json)),
    }
}

/// The number of heads that other JSON files in the folder state for a model of these sizes.
fn heads_of_neighbours(sizes: Sizes, weights: &Path) -> Result<Option<usize>> {
    let mut first: Option<(usize, PathBuf)> = None;
    for path in neighbours(weights) {
        let Some(json) = read(&path).filter(|json| contradiction(json, sizes).is_none()) else { continue };
        match (heads(&json), &first) {
            (Some(heads), Some((other, from))) if heads != *other => {
                let reason = format!(
                    "it states {heads} attention heads and {} {other}; give --num-heads",
                    from.display()
                );
                return Err(Error::Config { path, reason });
            }
            (Some(heads), None) => first = Some((heads, path)),
            _ => {}
        }
    }
    Ok(first.map(|(heads, _)| heads))
}

/// The JSON files in the folder of the weights but `config.json`, by name.
fn neighbours(weights: &Path) -> Vec<PathBuf> {
    let folder = match weights.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_json =
        |path: &PathBuf| path.extension().is_some_and(|e| e == "json") && !path.ends_with("config.json");
    let mut paths: Vec<PathBuf> = entries.filter(is_json).collect();
    paths.sort_unstable();
    paths
}

fn read(path: &Path) -> Option<Value> {
    let small = path.metadata().ok().filter(|about| about.is_file() && about.len() <= MAX_JSON_BYTES);
    let json: Value = serde_json::from_slice(&std::fs::read(small.map(|_| path)?).ok()?).ok()?;
    json.is_object().then_some(json)
}

/// A number under one of these names, at the top or one level down.
fn number(json: &Value, names: &[&str]) -> Option<f64> {
    let of = |object: &Value| names.iter().find_map(|name| object.get(name)?.as_f64());
    of(json).or_else(|| json.as_object()?.values().find_map(of))
}

fn size(json: &Value, names: &[&str]) -> Option<usize> {
    number(json, names).filter(|value| *value >= 0.0 && value.fract() == 0.0).map(|value| value as usize)
}

fn heads(json: &Value) -> Option<usize> {
    size(json, &["num_attention_heads", "num_heads"])
}

/// The first stated size that is not that of the tensors.
fn contradiction(json: &Value, sizes: Sizes) -> Option<String> {
    let rows = [
        (["hidden_size", "embed_dim"], sizes.embed_dim),
        (["num_hidden_layers", "depth"], sizes.depth),
        (["patch_size", "patch_size"], sizes.patch_size),
    ];
    rows.iter().find_map(|(names, found)| {
        let stated = size(json, names).filter(|stated| stated != found)?;
        Some(format!("{} is {stated} there and {found} in the tensors", names[0]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VitConfig;

    /// A model of 64 dimensions, whose heads no family tells, and one of 192.
    fn sizes(embed_dim: usize) -> Sizes {
        let config = VitConfig { embed_dim, ..VitConfig::by_name("vit_micro_patch8").unwrap() };
        Sizes::read_off(&config.tensors().into_iter().collect()).unwrap()
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| std::fs::write(folder.path().join(name), content).unwrap());
        folder
    }

    fn heads_of(
        embed_dim: usize,
        files: &[(&str, &str)],
        asked: Option<usize>,
        inside: &Inside,
    ) -> Result<usize> {
        let folder = folder(files);
        let config = complete(sizes(embed_dim), &folder.path().join("weights.pth"), false, asked, inside)?;
        Ok(config.vit().unwrap().num_heads)
    }

    #[test]
    fn sources_are_asked_in_order() {
        let inside = Inside { metadata_heads: Some(8), argument_heads: Some(32), ..Inside::default() };
        let arguments = Inside { metadata_heads: None, ..inside.clone() };
        let config = ("config.json", r#"{"num_attention_heads": 4, "hidden_size": 192}"#);
        let other = ("case.json", r#"{"params": {"num_heads": 16, "embed_dim": 192, "depth": 4}}"#);
        let none = Inside::default();
        for (files, asked, inside, expected) in [
            (&[config, other][..], Some(2), &inside, 2),
            (&[config, other], None, &inside, 4),
            (&[other], None, &inside, 8),
            (&[other], None, &arguments, 16),
            (&[], None, &arguments, 32),
            (&[], None, &none, 3),
        ] {
            assert_eq!(heads_of(192, files, asked, inside).unwrap(), expected);
        }
        assert!(matches!(heads_of(64, &[], None, &none), Err(Error::HeadsUnknown { embed_dim: 64, .. })));
        assert!(heads_of(64, &[], Some(7), &none).unwrap_err().is_usage());
    }

    #[test]
    fn descriptions_of_other_models_are_passed_over() {
        let none = Inside::default();
        for other in [
            r#"{"num_heads": 16, "embed_dim": 64}"#,
            r#"{"num_heads": 16, "model": {"depth": 12}}"#,
            r#"{"num_heads": 16, "patch_size": 16}"#,
            r#"[{"num_heads": 16}]"#,
            "no JSON",
        ] {
            assert_eq!(
                heads_of(192, &[("config.json", other), ("x.json", other)], None, &none).unwrap(),
                3,
                "{other}"
            );
        }
        let two = [("a.json", r#"{"num_heads": 6}"#), ("b.json", r#"{"num_heads": 4}"#)];
        assert!(heads_of(192, &two, None, &none).unwrap_err().is_integrity());
    }

    #[test]
    fn only_an_architecture_of_this_size_tells_its_heads() {
        let inside = |arch: &str| Inside { architecture: Some(arch.to_owned()), ..Inside::default() };
        assert_eq!(inside("vit_tiny").heads(sizes(192)), Some(3));
        for (arch, embed_dim) in [("vit_small", 192), ("vit_tiny_test", 192), ("vit_tiny", 64)] {
            assert_eq!(inside(arch).heads(sizes(embed_dim)), None, "{arch}");
        }
    }

    #[test]
    fn a_folders_config_must_fit() {
        let complete = |config: &str| {
            let folder = folder(&[("config.json", config)]);
            complete(sizes(192), &folder.path().join("model.safetensors"), true, None, &Inside::default())
        };
        let config =
            complete(r#"{"num_attention_heads": 6, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#).unwrap();
        let vit = config.vit().unwrap();
        assert_eq!((vit.num_heads, vit.layer_norm_eps), (6, 1e-12));
        for bad in [
            r#"{"hidden_size": 384}"#,
            r#"{"num_hidden_layers": 12}"#,
            r#"{"hidden_act": "relu"}"#,
            r#"{"rope_theta": -100.0}"#,
            "{",
            "[]",
        ] {
            assert!(complete(bad).unwrap_err().is_integrity(), "{bad}");
        }
    }

    #[test]
    fn normalisation_is_read_from_either_file() {
        let hf = ("preprocessor_config.json", r#"{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}"#);
        let timm = ("config.json", r#"{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [4, 5, 6]}}"#);
        let read = |files: &[(&str, &str)]| normalization(&folder(files).path().join("w.pth"));
        assert_eq!(read(&[hf, timm]), Some(([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])));
        assert_eq!(read(&[timm]), Some(([0.5; 3], [4.0, 5.0, 6.0])));
        assert_eq!(read(&[("preprocessor_config.json", r#"{"image_mean": [0.1]}"#)]), None);
    }
}
