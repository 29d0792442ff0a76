//! `featlab demo`: the sweep of `experiments/demo/sweep.toml`, which is compiled in, on embedded scenes.

use anyhow::Result;

use crate::Context;
use crate::cli::DemoArgs;
use crate::commands::sweep::print;
use crate::config::SweepConfig;
use crate::exit::Status;
use crate::sweep::Sweep;
use crate::toml_file::TomlFile as _;

const DEMO: &str = include_str!("../../../../experiments/demo/sweep.toml");

pub(crate) fn run(args: DemoArgs, context: &Context) -> Result<Status> {
    let sweep = Sweep::open(SweepConfig::parse(DEMO, &[])?, args.out)?;
    print(&sweep.run(context)?, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_sweep_is_valid_and_as_wide_as_promised() {
        let config = SweepConfig::parse(DEMO, &[]).unwrap();
        assert!(config.reduce.dims.len() >= 5);
        assert_eq!(config.reduce.methods, ["none", "pca", "rp"]);
        assert_eq!(config.probe.probes, ["linear", "cluster"]);
    }
}
