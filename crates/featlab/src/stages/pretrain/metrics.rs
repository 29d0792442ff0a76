//! The numbers of every step: a CSV table and the same as Parquet, looks at the labelled set, TensorBoard events.
//!
//! Rows are kept in memory and written with every state, so that the files never run ahead of what can be resumed; rows beyond
//! the state of a resumed run are dropped. Events are written as they happen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use pretrain::{EventWriter, Report, Training};

use super::monitor::{HEADS, Look};
use crate::exit::integrity;
use crate::records::write_atomically;

/// Columns that every method has, before and behind its own; the first two are whole numbers.
const FIRST: [&str; 3] = ["step", "epoch", "loss"];
const LAST: &str = "images_per_s";

/// A number for each column.
type Row = Vec<f64>;

fn row(report: &Report, images_per_s: f64) -> Row {
    let first = [report.step as f64, report.epoch as f64, report.loss];
    first.into_iter().chain(report.values.iter().copied()).chain([images_per_s]).collect()
}

/// The metrics of a run.
pub(super) struct Metrics {
    folder: PathBuf,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
    looks: Vec<Look>,
    /// Opened with the first number.
    events: Option<EventWriter>,
}

/// Steps over which first and last losses are averaged.
const ENDS: usize = 50;

impl Metrics {
    /// Opens the tables of a folder, as far as step `step`; `own` are the method's columns.
    pub(super) fn open(folder: &Path, step: usize, own: &[&'static str]) -> Result<Self> {
        let columns: Vec<_> = FIRST.into_iter().chain(own.iter().copied()).chain([LAST]).collect();
        let rows = read(&folder.join("metrics.csv"))?;
        let mut rows: Vec<Row> = rows.iter().map(|line| parse(line, columns.len())).collect::<Result<_>>()?;
        rows.retain(|row| (row[0] as usize) < step);
        let looks = read(&folder.join("monitor.csv"))?;
        let mut looks: Vec<Look> = looks.iter().map(|line| parse_look(line)).collect::<Result<_>>()?;
        looks.retain(|look| look.step <= step);
        Ok(Self { folder: folder.into(), columns, rows, looks, events: None })
    }

    fn event(&mut self, step: usize, scalars: &[(&str, f64)]) -> Result<()> {
        let events = match &mut self.events {
            Some(events) => events,
            none => none.insert(
                EventWriter::append_to(&self.folder, SystemTime::now())
                    .with_context(|| format!("cannot write events in {}", self.folder.display()))?,
            ),
        };
        events.scalars(step as u64, now(), scalars).context("cannot write events")
    }

    pub(super) fn push(&mut self, report: &Report, images_per_s: f64) -> Result<()> {
        let row = row(report, images_per_s);
        let scalars: Vec<(&str, f64)> =
            self.columns.iter().copied().zip(row.iter().copied()).skip(2).collect();
        self.event(report.step, &scalars)?;
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn looked(&mut self, look: &Look) -> Result<()> {
        let scalars = look.knn.map(|knn| ("knn", knn)).into_iter().chain(look.heads.iter().copied());
        self.event(look.step, &scalars.collect::<Vec<_>>())?;
        self.looks.retain(|known| known.epoch != look.epoch);
        self.looks.push(look.clone());
        Ok(())
    }

    /// Writes the tables.
    pub(super) fn write(&self) -> Result<()> {
        let mut csv = self.columns.join(",") + "\n";
        for row in &self.rows {
            let numbers: Vec<String> = row.iter().map(f64::to_string).collect();
            let _ = writeln!(csv, "{}", numbers.join(",")); // writing to a string cannot fail
        }
        write_atomically(&self.folder.join("metrics.csv"), csv.as_bytes())?;
        write_atomically(&self.folder.join("metrics.parquet"), &self.parquet()?)?;
        self.write_looks()
    }

    /// Writes the table of looks.
    pub(super) fn write_looks(&self) -> Result<()> {
        let mut csv = "epoch,step,knn".to_owned();
        for head in HEADS.iter().take(self.looks.last().map_or(0, |look| look.heads.len())) {
            let _ = write!(csv, ",{head}"); // writing to a string cannot fail
        }
        csv.push('\n');
        for Look { epoch, step, knn, heads } in &self.looks {
            let _ = write!(csv, "{epoch},{step},{}", knn.map_or(String::new(), |knn| knn.to_string()));
            for (_, share) in heads {
                let _ = write!(csv, ",{share}");
            }
            csv.push('\n');
        }
        write_atomically(&self.folder.join("monitor.csv"), csv.as_bytes())?;
        Ok(())
    }

    fn parquet(&self) -> Result<Vec<u8>> {
        let columns = self.columns.iter().enumerate().map(|(i, name)| {
            let values: ArrayRef =
                Arc::new(Float64Array::from_iter_values(self.rows.iter().map(|row| row[i])));
            (*name, values)
        });
        let batch = RecordBatch::try_from_iter(columns)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None)?;
        writer.write(&batch)?;
        Ok(writer.into_inner()?)
    }

    /// The epoch of `last` in one line.
    pub(super) fn epoch_line(&self, last: &Report, training: &dyn Training) -> String {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row[1] as usize == last.epoch).collect();
        let place = |name: &str| self.columns.iter().position(|column| *column == name);
        let mean = |name: &str| match place(name) {
            Some(place) => rows.iter().map(|row| row[place]).sum::<f64>() / rows.len().max(1) as f64,
            None => f64::NAN,
        };
        let lr = rows.last().zip(place("lr")).map_or(f64::NAN, |(row, place)| row[place]);
        let own = training.summary(&mean);
        format!("loss {:.4} · {own} · lr {lr:.2e} · {:.1} images/s", mean("loss"), mean(LAST))
    }

    /// Mean loss of the first and of the last steps.
    pub(super) fn ends(&self) -> (f64, f64) {
        let mean = |rows: &[Row]| rows.iter().map(|row| row[2]).sum::<f64>() / rows.len().max(1) as f64;
        let n = self.rows.len().min(ENDS);
        (mean(&self.rows[..n]), mean(&self.rows[self.rows.len() - n..]))
    }

    /// Whether there was a look after `epoch` epochs.
    pub(super) fn has_look(&self, epoch: usize) -> bool {
        self.looks.iter().any(|look| look.epoch == epoch)
    }

    /// The step from which on every loss is below `bound`, if there is one.
    pub(super) fn below_since(&self, bound: f64) -> Option<usize> {
        let above = self.rows.iter().rposition(|row| row[2] >= bound);
        self.rows.get(above.map_or(0, |i| i + 1)).map(|row| row[0] as usize)
    }

    /// The first and the last look.
    pub(super) fn looks(&self) -> (Option<f64>, Option<f64>) {
        (self.looks.first().and_then(|look| look.knn), self.looks.last().and_then(|look| look.knn))
    }

    /// What the heads named at the last look.
    pub(super) fn heads(&self) -> BTreeMap<&'static str, f64> {
        self.looks.last().map(|look| look.heads.iter().copied().collect()).unwrap_or_default()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The lines of a table after its head; none if there is no file.
fn read(path: &Path) -> Result<Vec<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().skip(1).map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse(line: &str, columns: usize) -> Result<Row> {
    let numbers: Result<Row, _> = line.split(',').map(str::parse).collect();
    let row = numbers.ok().filter(|row| row.len() == columns);
    row.ok_or_else(|| {
        integrity(format!("metrics.csv: cannot read the row \"{line}\"; delete the file to go on without"))
    })
}

fn parse_look(line: &str) -> Result<Look> {
    let mut parts = line.split(',');
    let look = (|| {
        let (epoch, step) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let knn = match parts.next()? {
            "" => None,
            knn => Some(knn.parse().ok()?),
        };
        let heads = HEADS.iter().zip(parts).map(|(head, share)| Some((*head, share.parse().ok()?)));
        Some(Look { epoch, step, knn, heads: heads.collect::<Option<_>>()? })
    })();
    look.ok_or_else(|| {
        integrity(format!("monitor.csv: cannot read the row \"{line}\"; delete the file to go on without"))
    })
}
