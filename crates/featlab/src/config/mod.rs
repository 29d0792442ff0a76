//! The sweep file: what was typed, as one serde structure whose defaults are the published settings.
//!
//! `[dataset]`, `[features]`, `[reduce]`, `[probe]`, `[eval]` change results and enter the keys of what they make;
//! `[how]` (device, shard size, place of the caches) never changes a number. An unknown key is an error, in the file
//! as in `--set`. Defaults cite the STEGO configuration (Hamilton et al., ICLR 2022) and stego-studies (2023).

mod eval;
mod inputs;
mod probe;
mod reduce;
mod stego;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(crate) use eval::{EvalConfig, Matching, Protocol};
pub(crate) use inputs::{DatasetConfig, FeaturesConfig};
pub(crate) use probe::{ProbeConfig, check_schedule};
pub(crate) use reduce::ReduceConfig;
pub(crate) use stego::StegoToml;

use crate::exit::usage;
use crate::stages::probe::Kind;
use crate::toml_file::TomlFile;

/// One sweep, as written in a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepConfig {
    /// Name of the sweep; also the default output folder, `runs/NAME`.
    pub name: String,
    /// Which images.
    pub dataset: DatasetConfig,
    /// Which features of them.
    pub features: FeaturesConfig,
    /// Which reductions, to which dimensions.
    #[serde(default)]
    pub reduce: ReduceConfig,
    /// Which probes, how long.
    #[serde(default)]
    pub probe: ProbeConfig,
    /// How the heads of `stego` and `stego-nested` are trained.
    #[serde(default)]
    pub stego: StegoToml,
    /// How probes are scored.
    #[serde(default)]
    pub eval: EvalConfig,
    /// What never changes a number.
    #[serde(default)]
    pub how: HowConfig,
}

/// `[how]`: nothing here changes a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HowConfig {
    /// `auto`, `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// Folder or URL under which feature caches live; default `OUT/features`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Images per shard; default about 32 MiB of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_rows: Option<usize>,
    /// Memory for projected training features; what does not fit is projected again for each batch.
    pub memory: String,
}

impl Default for HowConfig {
    fn default() -> Self {
        Self { device: "auto".into(), cache: None, shard_rows: None, memory: "4GB".into() }
    }
}

impl SweepConfig {
    fn check_methods(&self) -> Result<()> {
        let methods = &self.reduce.methods;
        #[cfg(not(feature = "hnne"))]
        if methods.iter().any(|method| method == "hnne") {
            return Err(usage(format!("reduce.methods: {}", crate::NO_HNNE)));
        }
        let allowed = ["none", "pca", "rp", "rp-sparse", "umap", "hnne", "stego", "stego-nested"];
        known("reduce.methods", methods, &allowed)?;
        self.stego.resolve(1, Vec::new(), 0)?;
        match self.eval.crf.iter().find(|method| !methods.contains(method)) {
            Some(method) => Err(usage(format!(
                "eval.crf: \"{method}\" is none of reduce.methods, which are {}",
                methods.join(", ")
            ))),
            None => Ok(()),
        }
    }
}

impl TomlFile for SweepConfig {
    const WHAT: &'static str = "sweep file";

    fn check(&self) -> Result<()> {
        self.check_methods()?;
        known("probe.probes", &self.probe.probes, &Kind::ALL.map(Kind::name))?;
        self.probe.closed_form().check().context("probe")?;
        check_schedule(self.probe.steps, self.probe.batch_size, self.probe.learning_rate)?;
        if self.eval.bootstrap == 0 {
            return Err(usage("eval.bootstrap must be at least 1 resample, got 0"));
        }
        let lists = [
            ("probe.seeds", self.probe.seeds.len()),
            ("probe.probes", self.probe.probes.len()),
            ("reduce.methods", self.reduce.methods.len()),
            ("reduce.dims", self.reduce.dims.len()),
        ];
        match lists.iter().find(|(_, length)| *length == 0) {
            Some((key, _)) => Err(usage(format!("{key} is empty, expected at least one entry"))),
            None => Ok(()),
        }
    }
}

fn known(key: &str, words: &[String], allowed: &[&str]) -> Result<()> {
    match words.iter().find(|w| !allowed.contains(&w.as_str())) {
        Some(word) => {
            Err(usage(format!("{key}: unknown \"{word}\", expected one of {}", allowed.join(", "))))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;

    const MINIMAL: &str =
        "name = 'x'\n[dataset]\nname = 'scenes'\n[features]\nbackbone = 'random:vit_micro_patch8'\n";

    #[test]
    fn defaults_are_the_published_settings() {
        let config = SweepConfig::parse(MINIMAL, &[]).unwrap();
        assert_eq!(
            (config.probe.steps, config.probe.batch_size, config.probe.learning_rate),
            (5000, 16, 5e-3)
        );
        assert_eq!((config.features.train_res, config.features.val_res), (224, 320));
        assert_eq!(config.reduce.dims.last(), Some(&Dim::Full));
        assert_eq!(config.dataset.spec(), "scenes");
    }

    #[test]
    fn the_resolved_form_reads_back() {
        let config = SweepConfig::parse(MINIMAL, &[]).unwrap();
        assert_eq!(SweepConfig::parse(&config.to_toml().unwrap(), &[]).unwrap(), config);
    }

    #[test]
    fn set_takes_toml_values_and_plain_strings() {
        let overrides = [
            "probe.steps=7",
            "reduce.dims=[3, \"full\"]",
            "dataset.root=/data/Cam Vid",
            "eval.protocol=stego-eval",
        ];
        let config = SweepConfig::parse(MINIMAL, &overrides.map(String::from)).unwrap();
        assert_eq!(config.probe.steps, 7);
        assert_eq!(config.reduce.dims, [Dim::To(3), Dim::Full]);
        assert_eq!(config.dataset.spec(), "scenes:/data/Cam Vid");
        assert_eq!(config.eval.protocol, Protocol::StegoEval);
    }

    #[test]
    fn unknown_keys_and_words_are_usage_errors_that_name_them() {
        for (item, word) in [
            ("probe.stepz=7", "stepz"),
            ("nonsense=1", "nonsense"),
            ("reduce.methods=[\"tsne\"]", "tsne"),
            ("probe.steps=0", "steps"),
            ("probe.learning_rate=-1.0", "learning_rate"),
            ("probe.seeds=[]", "probe.seeds"),
            ("eval.bootstrap=0", "eval.bootstrap"),
            ("reduce.dims=[0]", "at least 1"),
            ("eval.crf=[\"umap\"]", "umap"),
            ("eval.interval=\"guess\"", "guess"),
            ("probe.knn_k=0", "knn_k"),
            ("probe.ridge_lambdas=[-1.0]", "ridge_lambdas"),
            ("probe.steps", "key=value"),
        ] {
            let error = SweepConfig::parse(MINIMAL, &[item.into()]).unwrap_err();
            assert_eq!(crate::exit::code(&error), 2, "{item}");
            let line = crate::exit::one_line(&error);
            assert!(line.contains(word), "{item}: {line}");
        }
    }
}
