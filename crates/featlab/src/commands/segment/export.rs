//! `featlab segment export`: a model under the original's key names.

use anyhow::Result;
use backbone::LoadOptions;
use serde_json::json;

use crate::Context;
use crate::cli::ExportArgs;
use crate::exit::{Status, integrity, usage};
use crate::records::check_local;
use crate::stages::segment::{Model, export};

pub(super) fn run(args: &ExportArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    if args.out.exists() && !args.overwrite {
        return Err(usage(format!("{} exists; name another file or add --overwrite", args.out.display())));
    }
    let model = Model::read(&args.model)?;
    let name = args.backbone.as_deref().unwrap_or(&model.card.backbone);
    let options = LoadOptions { num_heads: args.num_heads, ..LoadOptions::default() };
    let loaded = backbone::load(name, &options)?;
    if loaded.fingerprint != model.card.fingerprint {
        return Err(integrity(format!(
            "{name} is not the backbone that the model was trained on (weights {:.12}…, expected {:.12}…); give --backbone",
            loaded.fingerprint, model.card.fingerprint
        )));
    }
    let tensors = export::tensors(&model, backbone::state_dict(name, &options)?)?;
    export::write(&args.out, &tensors, model.card.classes.names.len())?;
    let value = json!({ "out": args.out, "tensors": tensors.len() });
    context.output.result(&value, |_| format!("{}: {} tensors", args.out.display(), tensors.len()))?;
    Ok(Status::Done)
}
