//! `featlab sql`: questions to caches and tables.

use anyhow::{Context as _, Result};
use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use featcache::Store;
use query::Session;
use serde_json::json;

use crate::Context;
use crate::cli::SqlArgs;
use crate::exit::{Status, usage};

/// Longest cell that is printed, in characters: tokens of an image would fill pages.
const CELL: usize = 60;

pub(crate) fn run(args: SqlArgs, context: &Context) -> Result<Status> {
    let session = Session::new(rayon::current_num_threads())?;
    for table in &args.tables {
        let (name, place) = table
            .split_once('=')
            .ok_or_else(|| usage(format!("--table takes NAME=PLACE, got \"{table}\"")))?;
        session.table(name, place).with_context(|| format!("table {name}"))?;
    }
    let query = match args.explain {
        true => format!("explain {}", args.query),
        false => args.query.clone(),
    };
    let schema = session.schema(&query).map_err(|error| usage(format!("the query: {error}")))?;
    if let Some(out) = &args.out {
        let (folder, name) = out.rsplit_once('/').unwrap_or((".", out));
        let (bytes, rows) = session.parquet(&query)?;
        Store::open(folder)?.put(name, bytes.into()).with_context(|| format!("writing {out}"))?;
        let value = json!({ "out": out, "rows": rows, "columns": schema.fields().len() });
        context
            .output
            .result(&value, |_| format!("{out}: {rows} rows of {} columns", schema.fields().len()))?;
        return Ok(Status::Done);
    }
    let (mut rows, mut more) = (Vec::new(), false);
    session.ask(&query, |batch| {
        let room = args.rows - rows.len();
        more = batch.num_rows() > room;
        rows.extend(cells(&batch.slice(0, batch.num_rows().min(room)))?);
        Ok(!more && !context.interrupt.requested())
    })?;
    context.interrupt.check()?;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if context.output.is_json() {
        for row in &rows {
            let object: serde_json::Map<_, _> =
                names.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect();
            context.output.result(&object, |_| String::new())?;
        }
    } else {
        context.output.result(&json!(null), |_| table(&names, &rows))?;
    }
    if more {
        context
            .reporter
            .say(format!("only the first {} rows are shown; --rows or --out for more", args.rows));
    }
    Ok(Status::Done)
}

/// The values of a batch, row by row.
fn cells(batch: &RecordBatch) -> query::Result<Vec<Vec<serde_json::Value>>> {
    let options = FormatOptions::default();
    let columns: Vec<_> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>()?;
    let value = |column: usize, row: usize| {
        let of = batch.column(column).data_type();
        if batch.column(column).is_null(row) {
            return serde_json::Value::Null;
        }
        let text = columns[column].value(row).to_string();
        match of.is_numeric() || of.is_nested() || *of == arrow::datatypes::DataType::Boolean {
            true => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
            false => serde_json::Value::String(text),
        }
    };
    Ok((0..batch.num_rows())
        .map(|row| (0..columns.len()).map(|column| value(column, row)).collect())
        .collect())
}

/// Columns under their names, numbers to the right.
fn table(names: &[&str], rows: &[Vec<serde_json::Value>]) -> String {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => short(text),
        serde_json::Value::Null => String::new(),
        other => short(&other.to_string()),
    };
    let lines: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.chain([names[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let right: Vec<bool> = (0..names.len()).map(|c| rows.iter().any(|row| row[c].is_number())).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let padded = cells.enumerate().map(|(c, cell)| match right[c] {
            true => format!("{cell:>width$}", width = widths[c]),
            false => format!("{cell:width$}", width = widths[c]),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(&mut names.iter().copied());
    let body = lines.iter().map(|cells| line(&mut cells.iter().map(String::as_str)));
    std::iter::once(head).chain(body).collect::<Vec<_>>().join("\n")
}

/// At most so many characters, on one line unless it is a plan.
fn short(text: &str) -> String {
    if text.contains('\n') || text.chars().count() <= CELL {
        return text.to_owned();
    }
    text.chars().take(CELL - 1).chain(['…']).collect()
}
