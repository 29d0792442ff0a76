//! What leaves a run for `extract`: the backbone alone with its provenance.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use pretrain::{ExportedModel, Recipe, RunIdentity, Training, save_backbone};

use crate::pretrain_config::PretrainConfig;
use crate::toml_file::TomlFile as _;

/// Writes the backbone, and in the metadata where it comes from.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn backbone<R: Recipe>(
    path: &Path,
    training: &dyn Training,
    config: &PretrainConfig<R>,
    run: &RunIdentity,
) -> Result<()> {
    let exported = training.exported();
    let mut provenance = vec![
        ("system", format!("{}, featlab", system(R::METHOD))),
        ("network", exported.network.to_owned()),
        ("architecture", exported.model.architecture()),
        ("readout", exported.readout.into()),
        ("name", config.name.clone()),
        ("step", training.step_number().to_string()),
        ("seed", config.method.train().seed.to_string()),
        ("images", run.images.to_string()),
        ("data_sha256", run.data.clone()),
        ("config", config.to_toml()?),
    ];
    if let ExportedModel::Vit(vit) = exported.model {
        provenance.push(("num_heads", vit.num_heads.to_string()));
    }
    let provenance: BTreeMap<String, String> =
        provenance.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(save_backbone(path, &exported, config.save.half, &provenance)?)
}

/// A method's name as its authors write it.
fn system(method: &str) -> &str {
    match method {
        "dino" => "DINO",
        "swav" => "SwAV",
        "deepcluster" => "DeepCluster-v2",
        "automix" => "AutoMix",
        other => other,
    }
}
