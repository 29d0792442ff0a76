//! `featlab segment`: one file per subcommand, and what they have in common: a model, its backbone, and how it looks.

mod co_occurrence;
mod correspond;
mod crf_study;
mod eval;
mod export;
mod predict;
mod train;

use anyhow::Result;
use backbone::Loaded;
use candle_core::Device;
use probe::BankProbe;

use super::asked::load;
use crate::Context;
use crate::cli::{LoadingArgs, LookArgs, SegmentCommand};
use crate::exit::{Status, integrity, usage};
use crate::stages::extract::Forward;
use crate::stages::segment::{Look, Model, Segmenter, View};

pub(super) fn run(command: SegmentCommand, context: &Context) -> Result<Status> {
    match command {
        SegmentCommand::Train(args) => train::run(&args, context),
        SegmentCommand::Eval(args) => eval::run(args, context),
        SegmentCommand::Predict(args) => predict::run(args, context),
        SegmentCommand::Export(args) => export::run(&args, context),
        SegmentCommand::Correspond(args) => correspond::run(&args, context),
        SegmentCommand::CoOccurrence(args) => co_occurrence::run(&args, context),
        SegmentCommand::CrfStudy(args) => crf_study::run(&args, context),
    }
}

/// A model with its backbone.
struct Opened {
    model: Model,
    backbone: Loaded,
    device: Device,
}

impl Opened {
    /// * `name`: of the backbone, if not the model's own.
    ///
    /// # Errors
    /// If one of them cannot be found or read, or they do not belong together.
    fn new(
        model: &std::path::Path,
        name: Option<&str>,
        how: &LoadingArgs,
        context: &Context,
    ) -> Result<Self> {
        let model = Model::read(model)?;
        let (backbone, device) = load(name.unwrap_or(&model.card.backbone), how, context)?;
        let (card, spec) = (&model.card, backbone.backbone.spec());
        if card.fingerprint != backbone.fingerprint {
            return Err(integrity(format!(
                "the model was trained on features of {} ({}, weights {:.12}…), and {} is {}, weights {:.12}…; give --backbone",
                card.backbone,
                card.architecture,
                card.fingerprint,
                backbone.name,
                spec.architecture,
                backbone.fingerprint
            )));
        }
        Ok(Self { model, backbone, device })
    }

    /// The model, looking as asked.
    ///
    /// # Errors
    /// A usage error for options that cannot be.
    fn segmenter(&self, args: &LookArgs) -> Result<Segmenter<'_>> {
        let view = match args.view.as_str() {
            "center" => View::Center,
            "slide" => View::Slide { window: args.window.unwrap_or(args.res), overlap: args.overlap },
            other => return Err(usage(format!("--view: unknown \"{other}\", expected slide or center"))),
        };
        let crf = args.crf.then(|| args.crf_res.unwrap_or(0));
        let look = Look { view, res: args.res, flip_average: args.flip_average, crf };
        let forward = Forward {
            backbone: &self.backbone,
            device: self.device.clone(),
            transform: self.model.card.transform.clone(),
            layers: vec![self.model.card.layer],
            flip_average: false,
            batch: Forward::batch_on(&self.device),
        };
        Segmenter::new(&self.model, forward, look)
    }

    /// The probes that were asked for.
    ///
    /// # Errors
    /// A usage error for one that the model does not have.
    fn probes(&self, asked: &[String]) -> Result<Vec<(&'static str, BankProbe)>> {
        let all = self.model.probes();
        let has = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        if let Some(missing) = asked.iter().find(|name| !all.iter().any(|(has, _)| has == name)) {
            return Err(usage(format!("--probe: the model has no probe \"{missing}\", it has {has}")));
        }
        let wanted =
            |(name, _): &(&str, BankProbe)| asked.is_empty() || asked.iter().any(|asked| asked == name);
        Ok(all.into_iter().filter(wanted).collect())
    }
}
