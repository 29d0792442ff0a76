//! Configuration files: TOML, with keys that the command line sets over it.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::usage;

/// A configuration that is a TOML file.
pub(crate) trait TomlFile: Serialize + DeserializeOwned {
    /// What such a file is called in messages.
    const WHAT: &'static str;

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// A usage error that names the key.
    fn check(&self) -> Result<()>;

    /// Reads a file and applies overrides of the form `key.path=value`.
    ///
    /// # Errors
    /// A usage error that names file and key.
    fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = read(path, Self::WHAT)?;
        Self::parse(&text, overrides).with_context(|| format!("{} {}", Self::WHAT, path.display()))
    }

    /// As [`TomlFile::read`], from text.
    ///
    /// # Errors
    /// A usage error that names the key.
    fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let config: Self = parse(text, overrides)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration with every default written out.
    ///
    /// # Errors
    /// If it is none that TOML can hold.
    fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("writing the configuration as TOML")
    }
}

/// The text of a configuration file.
fn read(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read {what} {}: {e}", path.display())))
}

/// A configuration from TOML, with overrides of the form `key.path=value`; mistakes are usage errors that name the key.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, overrides: &[String]) -> Result<T> {
    let mut table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| usage(one_line(&e.to_string())))?;
    for item in overrides {
        set(&mut table, item)?;
    }
    table.try_into().map_err(|e: toml::de::Error| usage(one_line(&e.to_string())))
}

/// Sets `a.b.c=value` in a table. The value is read as TOML; what is not TOML is a plain string.
fn set(table: &mut toml::Table, item: &str) -> Result<()> {
    let (path, value) =
        item.split_once('=').ok_or_else(|| usage(format!("--set takes key=value, got \"{item}\"")))?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        at = at
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| usage(format!("--set {path}: \"{key}\" is not a table")))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// toml's errors span lines (position, excerpt, reason); ours are one line.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> =
        message.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('|')).collect();
    lines.iter().filter(|l| !l.contains(" | ")).copied().collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_set_where_its_path_leads_and_nowhere_else() {
        let set = |item: &str| parse::<toml::Table>("a = 1\n[b]\nc = 2", &[item.to_owned()]);
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        assert_eq!(set("b.c=[1, 'x']").unwrap(), table("a = 1\n[b]\nc = [1, 'x']"));
        assert_eq!(set("b.d.e=plain text").unwrap(), table("a = 1\n[b]\nc = 2\n[b.d]\ne = 'plain text'"));
        for bad in ["a.b=1", "a"] {
            assert_eq!(crate::exit::code(&set(bad).unwrap_err()), 2, "{bad}");
        }
        let error = parse::<toml::Table>("a = \n b", &[]).unwrap_err();
        assert!(!crate::exit::one_line(&error).contains('\n'));
    }
}
