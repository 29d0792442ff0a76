//! The runs as tables for other programs: `results` (one row per run) and `per_class` (one row per run and class).
//!
//! A table is a list of [`Column`]s, each a name, a type and how to read it off a row; CSV and Parquet are written from
//! the same list, so they cannot drift apart. Scores stay fractions and seeds stay rows: nothing is averaged here.
//! Parquet files carry no clock, so the same study gives the same bytes.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::study::{ClassScore, RunRecord, Study};

/// How a column's values are read off a row, which fixes its type.
enum Read<R> {
    Text(fn(&R) -> &str),
    Int(fn(&R) -> u64),
    Flag(fn(&R) -> bool),
    Real(fn(&R) -> f64),
    /// The only kind that may be empty.
    MaybeReal(fn(&R) -> Option<f64>),
}

/// One column of a table with rows `R`.
struct Column<R> {
    name: &'static str,
    read: Read<R>,
}

fn column<R>(name: &'static str, read: Read<R>) -> Column<R> {
    Column { name, read }
}

/// One class of one run.
type ClassRow<'a> = (&'a RunRecord, usize, &'a ClassScore);

fn results_columns<'a>() -> Vec<Column<&'a RunRecord>> {
    vec![
        column("dataset", Read::Text(|r| &r.dataset)),
        column("split", Read::Text(|r| &r.split)),
        column("backbone", Read::Text(|r| &r.backbone)),
        column("cache_id", Read::Text(|r| &r.cache_id)),
        column("method", Read::Text(|r| &r.method)),
        column("dim", Read::Int(|r| r.dim as u64)),
        column("probe", Read::Text(|r| &r.probe)),
        column("seed", Read::Int(|r| r.seed)),
        column("protocol", Read::Text(|r| &r.protocol)),
        column("crf", Read::Flag(|r| r.crf)),
        column("steps", Read::Int(|r| r.steps as u64)),
        column("miou", Read::Real(|r| r.miou)),
        column("accuracy", Read::Real(|r| r.accuracy)),
        column("miou_lo", Read::Real(|r| r.miou_lo)),
        column("miou_hi", Read::Real(|r| r.miou_hi)),
        column("wall_s", Read::Real(|r| r.wall_s)),
    ]
}

fn per_class_columns<'a>() -> Vec<Column<ClassRow<'a>>> {
    vec![
        column("dataset", Read::Text(|r| &r.0.dataset)),
        column("split", Read::Text(|r| &r.0.split)),
        column("backbone", Read::Text(|r| &r.0.backbone)),
        column("cache_id", Read::Text(|r| &r.0.cache_id)),
        column("method", Read::Text(|r| &r.0.method)),
        column("dim", Read::Int(|r| r.0.dim as u64)),
        column("probe", Read::Text(|r| &r.0.probe)),
        column("seed", Read::Int(|r| r.0.seed)),
        column("protocol", Read::Text(|r| &r.0.protocol)),
        column("crf", Read::Flag(|r| r.0.crf)),
        column("class_index", Read::Int(|r| r.1 as u64)),
        column("class", Read::Text(|r| &r.2.name)),
        column("iou", Read::MaybeReal(|r| r.2.iou)),
        column("pixels", Read::Int(|r| r.2.pixels)),
    ]
}

/// One row per run, as CSV (RFC 4180 quoting, `\n` line ends).
pub(crate) fn results_csv(study: &Study) -> String {
    csv(&results_columns(), &study.runs.iter().collect::<Vec<_>>())
}

/// One row per run, as Parquet.
///
/// # Errors
/// If a whole number does not fit `int64`.
pub(crate) fn results_parquet(study: &Study) -> Result<Vec<u8>> {
    parquet(&results_columns(), &study.runs.iter().collect::<Vec<_>>())
        .context("writing the results as Parquet")
}

/// One row per run and class, as Parquet; `iou` is null for a class that occurs in neither truth nor prediction.
///
/// # Errors
/// If a whole number does not fit `int64`.
pub(crate) fn per_class_parquet(study: &Study) -> Result<Vec<u8>> {
    let rows = study
        .runs
        .iter()
        .flat_map(|run| run.per_class.iter().enumerate().map(move |(i, class)| (run, i, class)));
    parquet(&per_class_columns(), &rows.collect::<Vec<ClassRow<'_>>>())
        .context("writing the per-class scores as Parquet")
}

impl<R> Column<R> {
    fn field(&self) -> Field {
        let kind = match self.read {
            Read::Text(_) => DataType::Utf8,
            Read::Int(_) => DataType::Int64,
            Read::Flag(_) => DataType::Boolean,
            Read::Real(_) | Read::MaybeReal(_) => DataType::Float64,
        };
        Field::new(self.name, kind, matches!(self.read, Read::MaybeReal(_)))
    }

    fn array(&self, rows: &[R]) -> Result<ArrayRef> {
        let int = |value: u64| {
            i64::try_from(value).with_context(|| format!("column {}: {value} is too large", self.name))
        };
        Ok(match self.read {
            Read::Text(read) => Arc::new(StringArray::from_iter_values(rows.iter().map(read))),
            Read::Int(read) => {
                Arc::new(Int64Array::from(rows.iter().map(|r| int(read(r))).collect::<Result<Vec<_>>>()?))
            }
            Read::Flag(read) => Arc::new(BooleanArray::from(rows.iter().map(read).collect::<Vec<_>>())),
            Read::Real(read) => Arc::new(Float64Array::from_iter_values(rows.iter().map(read))),
            Read::MaybeReal(read) => Arc::new(rows.iter().map(read).collect::<Float64Array>()),
        })
    }

    /// A value as CSV shows it: numbers with all their digits, nothing for a missing one.
    fn cell(&self, row: &R) -> String {
        match self.read {
            Read::Text(read) => quoted(read(row)),
            Read::Int(read) => read(row).to_string(),
            Read::Flag(read) => read(row).to_string(),
            Read::Real(read) => read(row).to_string(),
            Read::MaybeReal(read) => read(row).map_or(String::new(), |v| v.to_string()),
        }
    }
}

fn csv<R>(columns: &[Column<R>], rows: &[R]) -> String {
    let head = columns.iter().map(|c| c.name.to_owned()).collect::<Vec<_>>();
    let body = rows.iter().map(|row| columns.iter().map(|c| c.cell(row)).collect::<Vec<_>>());
    std::iter::once(head).chain(body).map(|cells| cells.join(",") + "\n").collect()
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn parquet<R>(columns: &[Column<R>], rows: &[R]) -> Result<Vec<u8>> {
    let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    let arrays = columns.iter().map(|column| column.array(rows)).collect::<Result<Vec<_>>>()?;
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    let properties = WriterProperties::builder().set_created_by("featlab".to_owned()).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::{Float64Type, Int64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::super::sample;
    use super::*;

    fn read(bytes: Vec<u8>) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        let schema = Arc::clone(reader.schema());
        let batches: Vec<RecordBatch> =
            reader.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect();
        arrow::compute::concat_batches(&schema, &batches).unwrap()
    }

    fn header(batch: &RecordBatch) -> Vec<String> {
        batch.schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect()
    }

    #[test]
    fn csv_header_and_row_are_exact() {
        let text = results_csv(&sample::study());
        let mut lines = text.lines();
        let head = "dataset,split,backbone,cache_id,method,dim,probe,seed,protocol,crf,steps,miou,accuracy,miou_lo,miou_hi,wall_s";
        assert_eq!(lines.next(), Some(head));
        let first = lines.next().unwrap();
        let start = "camvid,val,dinov2-vit-s14,c0ffee0123456789,pca,3,linear,0,stego-train,false,1000,0.";
        assert!(first.starts_with(start) && first.ends_with(",12.5"), "{first}");
        assert_eq!(lines.count() + 1, sample::study().runs.len());
    }

    #[test]
    fn csv_numbers_come_back_bit_for_bit_and_text_is_quoted() {
        let mut study = sample::study();
        study.runs[0].dataset = "a, \"b\"".to_owned();
        let text = results_csv(&study);
        let first = text.lines().nth(1).unwrap();
        assert!(first.starts_with("\"a, \"\"b\"\"\",val,"));
        let miou: f64 = first.split(',').rev().nth(4).unwrap().parse().unwrap();
        assert_eq!(miou, study.runs[0].miou);
    }

    #[test]
    fn results_parquet_reads_back() {
        let study = sample::study();
        let batch = read(results_parquet(&study).unwrap());
        let expected = "dataset Utf8|split Utf8|backbone Utf8|cache_id Utf8|method Utf8|dim Int64|probe Utf8|seed Int64|\
                        protocol Utf8|crf Boolean|steps Int64|miou Float64|accuracy Float64|miou_lo Float64|\
                        miou_hi Float64|wall_s Float64";
        assert_eq!(header(&batch).join("|"), expected);
        assert_eq!(batch.num_rows(), study.runs.len());
        for (i, run) in study.runs.iter().enumerate() {
            assert_eq!(batch["method"].as_string::<i32>().value(i), run.method);
            assert_eq!(batch["dim"].as_primitive::<Int64Type>().value(i), run.dim as i64);
            assert_eq!(batch["miou_hi"].as_primitive::<Float64Type>().value(i), run.miou_hi);
        }
    }

    #[test]
    fn per_class_parquet_has_nulls_where_a_class_has_no_iou() {
        let study = sample::study();
        let batch = read(per_class_parquet(&study).unwrap());
        assert_eq!(batch.num_rows(), study.runs.len() * study.classes.len());
        assert_eq!(
            header(&batch)[9..],
            ["crf Boolean", "class_index Int64", "class Utf8", "iou Float64", "pixels Int64"]
        );
        let iou = &batch["iou"];
        assert!(iou.is_null(2) && !iou.is_null(1) && iou.null_count() == study.runs.len());
        assert_eq!(batch["class"].as_string::<i32>().value(10), "<bicyclist>");
    }

    #[test]
    fn same_study_same_bytes_and_odd_studies_write() {
        let study = sample::study();
        assert_eq!(results_parquet(&study).unwrap(), results_parquet(&study).unwrap());
        for (what, study) in sample::odd_studies() {
            assert!(results_parquet(&study).is_ok() && per_class_parquet(&study).is_ok(), "{what}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        let mut study = sample::study();
        study.runs[0].seed = u64::MAX;
        let error = format!("{:#}", results_parquet(&study).unwrap_err());
        assert!(error.contains("column seed: 18446744073709551615 is too large"), "{error}");
    }
}
