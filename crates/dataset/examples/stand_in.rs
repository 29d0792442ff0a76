//! Draws small data sets in the layouts of CocoStuff, Cityscapes, Potsdam, Pascal VOC and of people's own, on which sweeps can be run.
//!
//! `stand_in OUT [TRAIN VAL [SIZE [SEED]]]`: writes a folder in `OUT` for each; by default 24 and 12 images whose
//! shorter side has 160 pixels.
#![allow(clippy::print_stdout)] // an example that says what it made

use std::path::Path;

use dataset::stand_in::{StandIn, all};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = Path::new(arguments.first().ok_or("usage: stand_in OUT [TRAIN VAL [SIZE [SEED]]]")?);
    let mut what = StandIn::default();
    for (i, text) in arguments.iter().enumerate().skip(1) {
        let number = |what| text.parse().map_err(|_| format!("{what} is a number, got \"{text}\""));
        match i {
            1 => what.train = number("TRAIN")?,
            2 => what.val = number("VAL")?,
            3 => what.size = number("SIZE")? as usize,
            4 => what.seed = number("SEED")?.into(),
            _ => return Err(format!("unexpected \"{text}\"").into()),
        }
    }
    all(out, &what)?;
    for (name, folder) in [
        ("cocostuff27", "cocostuff"),
        ("cityscapes27", "cityscapes"),
        ("potsdam3", "potsdam"),
        ("voc", "VOC2012"),
        ("directory", "directory"),
    ] {
        println!("{name}:{}", out.join(folder).display());
    }
    Ok(())
}
