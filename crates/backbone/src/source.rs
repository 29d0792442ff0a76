//! What a user's name for a backbone means, before anything is opened.
//!
//! In this order: `random:ARCH[:SEED]`, `embedded:NAME`, an existing file or folder, something that can only be a path, the
//! originals' names, timm's names, and `owner/repo` on the hub.

use std::path::{Path, PathBuf};

use crate::embedded::{self, Embedded};
use crate::models::ModelConfig;
use crate::{Error, Result};

/// The originals' own model names, and where the same weights are on the hub.
const ORIGINALS: [(&str, &str); 13] = [
    ("dino_vits8", "facebook/dino-vits8"),
    ("dino_vits16", "facebook/dino-vits16"),
    ("dino_vitb8", "facebook/dino-vitb8"),
    ("dino_vitb16", "facebook/dino-vitb16"),
    ("dinov2_vits14", "facebook/dinov2-small"),
    ("dinov2_vitb14", "facebook/dinov2-base"),
    ("dinov2_vitl14", "facebook/dinov2-large"),
    ("dinov2_vits14_reg", "facebook/dinov2-with-registers-small"),
    ("dinov2_vitb14_reg", "facebook/dinov2-with-registers-base"),
    ("dinov2_vitl14_reg", "facebook/dinov2-with-registers-large"),
    ("dinov3_vits16", "facebook/dinov3-vits16-pretrain-lvd1689m"),
    ("dinov3_vitb16", "facebook/dinov3-vitb16-pretrain-lvd1689m"),
    ("dinov3_vitl16", "facebook/dinov3-vitl16-pretrain-lvd1689m"),
];

/// Extensions of weights files: a name that ends so and is not there is a missing file, not an unknown model.
const EXTENSIONS: [&str; 5] = ["pth", "pt", "ckpt", "bin", "safetensors"];

/// Where weights come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// Seeded weights of a named architecture.
    Random { architecture: String, config: ModelConfig, seed: u64 },
    /// Weights inside the program.
    Embedded(&'static Embedded),
    /// An existing file.
    File(PathBuf),
    /// An existing folder.
    Folder(PathBuf),
    /// A hub repository, `owner/repo`.
    Hub(String),
}

impl Source {
    /// # Errors
    /// [`Error::NotFound`] for a path that is not there, [`Error::UnknownName`] for anything not understood.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if let Some(recipe) = name.strip_prefix("random:") {
            return random(name, recipe);
        } else if let Some(inside) = name.strip_prefix("embedded:") {
            return embedded::find(inside).map(Self::Embedded).ok_or_else(|| not_embedded(name));
        } else if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        } else if path.exists() {
            return Ok(Self::File(path.to_owned()));
        } else if looks_like_a_path(name) {
            return Err(Error::NotFound { path: path.to_owned() });
        }
        if let Some((_, repo)) = ORIGINALS.iter().find(|(alias, _)| *alias == name) {
            return Ok(Self::Hub((*repo).to_owned()));
        }
        match name.split('/').collect::<Vec<_>>()[..] {
            [model] if model.starts_with("vit_") && model.contains('.') && is_word(model) => {
                Ok(Self::Hub(format!("timm/{model}")))
            }
            [owner, repo] if is_word(owner) && is_word(repo) => Ok(Self::Hub(name.to_owned())),
            _ => Err(unknown(name)),
        }
    }
}

fn random(name: &str, recipe: &str) -> Result<Source> {
    let (architecture, seed) = recipe.split_once(':').unwrap_or((recipe, "0"));
    match (ModelConfig::by_name(architecture), seed.parse()) {
        (Some(config), Ok(seed)) => Ok(Source::Random { architecture: architecture.to_owned(), config, seed }),
        _ => Err(Error::UnknownName {
            name: name.to_owned(),
            hint: "expected random:ARCH or random:ARCH:SEED with an ARCH such as vit_small_patch8 (tiny, small, base \
                   with patch 8 or 16, or vit_micro_patch8), dinov2_small_patch14, dinov2_reg4_small_patch14 or \
                   dinov3_small_patch16 (micro, small, base, large) and a seed from 0"
                .to_owned(),
        }),
    }
}

fn not_embedded(name: &str) -> Error {
    Error::UnknownName {
        name: name.to_owned(),
        hint: format!("the weights inside the program are {}", embedded::embedded_names().join(", ")),
    }
}

fn unknown(name: &str) -> Error {
    let hint = if ModelConfig::by_name(name).is_some() {
        format!("for random weights of that size say random:{name}")
    } else {
        "expected a weights file, a folder, owner/repo, dino_vits8, dino_vits16, dino_vitb8, dino_vitb16, dinov2_vits14, \
         dinov2_vits14_reg or dinov3_vits16 (or b or l for s), a timm name such as \
         vit_small_patch8_224.dino, embedded:scenes-micro, or random:ARCH:SEED"
            .to_owned()
    };
    Error::UnknownName { name: name.to_owned(), hint }
}

fn looks_like_a_path(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
        || name.starts_with(['/', '.', '~'])
        || name.contains('\\')
        || name.matches('/').count() > 1
        || name.ends_with('/')
}

/// Whether this may be one half of a hub name.
fn is_word(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(legal) && !text.contains("..") && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_lead_to_the_hub() {
        for (name, repo) in [
            ("dino_vits8", "facebook/dino-vits8"),
            ("dino_vitb16", "facebook/dino-vitb16"),
            ("dinov2_vitl14_reg", "facebook/dinov2-with-registers-large"),
            ("dinov3_vits16", "facebook/dinov3-vits16-pretrain-lvd1689m"),
            ("facebook/dino-vits16", "facebook/dino-vits16"),
            ("vit_small_patch8_224.dino", "timm/vit_small_patch8_224.dino"),
            ("vit_small_patch14_reg4_dinov2.lvd142m", "timm/vit_small_patch14_reg4_dinov2.lvd142m"),
            ("some-one/model.v2", "some-one/model.v2"),
        ] {
            assert_eq!(Source::parse(name).unwrap(), Source::Hub(repo.to_owned()), "{name}");
        }
    }

    #[test]
    fn random_names_have_a_default_seed() {
        for (name, expected) in [("random:vit_tiny_patch16", 0), ("random:vit_tiny_patch16:7", 7)] {
            assert!(matches!(Source::parse(name).unwrap(), Source::Random { seed, .. } if seed == expected));
        }
        for name in [
            "dinov2_small_patch14",
            "dinov2_reg4_large_patch14",
            "dinov3_base_patch16",
            "dinov3_micro_patch16",
        ] {
            let Source::Random { config, .. } = Source::parse(&format!("random:{name}:3")).unwrap() else {
                panic!()
            };
            assert!(config.tensors().iter().any(|(tensor, _)| tensor == "blocks.3.ls2.gamma"), "{name}");
        }
        for bad in [
            "random:",
            "random:vit_small",
            "random:vit_tiny_patch16:",
            "random:vit_tiny_patch16:-1",
            "random:dinov2_small_patch16",
            "random:dinov2_tiny_patch14",
            "random:dinov2_reg3_small_patch14",
            "random:dinov3_small_patch14",
        ] {
            assert!(matches!(Source::parse(bad).unwrap_err(), Error::UnknownName { .. }), "{bad}");
        }
    }

    #[test]
    fn embedded_weights_have_a_prefix_of_their_own() {
        let Source::Embedded(found) = Source::parse("embedded:scenes-micro").unwrap() else { panic!() };
        assert_eq!(found.name, "scenes-micro");
        let error = Source::parse("embedded:micro").unwrap_err().to_string();
        assert!(error.contains("embedded:scenes-micro"), "{error}");
    }

    #[test]
    fn paths_are_recognised_before_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.pth");
        let missing = file.to_str().unwrap();
        assert!(matches!(Source::parse(missing).unwrap_err(), Error::NotFound { .. }));
        std::fs::write(&file, "").unwrap();
        assert_eq!(Source::parse(missing).unwrap(), Source::File(file.clone()));
        assert!(matches!(Source::parse(folder.path().to_str().unwrap()).unwrap(), Source::Folder(_)));
        for bad in ["a.pth", "runs/best.ckpt", "./a/b", "a/b/c", "models/"] {
            assert!(matches!(Source::parse(bad).unwrap_err(), Error::NotFound { .. }), "{bad}");
        }
    }

    #[test]
    fn unknown_names_come_with_a_hint() {
        for bad in ["", "dino", "vit_small_patch8", "a b/c", "resnet50", "../x y", "a/..b"] {
            let error = Source::parse(bad).unwrap_err();
            assert!(error.is_usage(), "{bad}: {error}");
        }
        assert!(
            Source::parse("vit_small_patch8").unwrap_err().to_string().contains("random:vit_small_patch8")
        );
    }
}
