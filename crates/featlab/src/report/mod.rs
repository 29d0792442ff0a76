//! What a sweep is read as afterwards: one HTML page, a table for terminals, Markdown, CSV, Parquet and SVG figures.
//!
//! Everything here is a pure function of a [`Study`](crate::study::Study); only [`html`] reads files (the gallery's
//! pictures) and only [`write_all`] writes any. The same study gives the same bytes: no clock, no host name, no fonts.
//! Runs → `aggregate` (mean over seeds) → `table`, `figure`, `html`; `tables` writes the runs as they are; `export` writes them
//! for other programs. What others published (`published`) is drawn and listed beside our numbers, never among them.
//! Scores arrive as fractions and become percent on the last step before a reader sees them.

mod aggregate;
mod backbones;
mod chart;
mod class_table;
mod confusion;
mod details;
mod export;
mod figure;
mod gallery;
mod html;
mod plot;
mod precision_recall;
mod published;
#[cfg(test)]
mod sample;
mod study_tables;
mod svg;
mod table;
mod tables;
mod variance;
mod write;

pub(crate) use aggregate::summary;
pub(crate) use export::{mlflow, tensorboard};
pub(crate) use figure::figures;
pub(crate) use html::html;
pub(crate) use precision_recall::precision_recall_figure;
pub(crate) use table::{markdown, text_table};
pub(crate) use tables::{per_class_parquet, results_csv, results_parquet};
pub(crate) use write::write_all;
