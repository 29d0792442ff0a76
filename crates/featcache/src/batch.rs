//! Records to Arrow's arrays and back, in every form.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, RecordBatch, StringArray, UInt8Array,
    UInt16Array, make_array,
};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type, UInt16Type};
use arrow::error::ArrowError;
use bytes::Bytes;

use crate::damage::Flaw;
use crate::schema::{Column, Columns};
use crate::{DamageKind, Form, Record, planes};

/// Records as one batch.
pub(crate) fn build(
    schema: &SchemaRef,
    columns: &Columns,
    form: Form,
    records: &[Record],
) -> Result<RecordBatch, ArrowError> {
    let side = |side: usize| -> ArrayRef {
        let side = u16::try_from(side).expect("the layout was checked");
        Arc::new(UInt16Array::from_value(side, records.len()))
    };
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| &record.image_id))),
        Arc::new(UInt8Array::from_iter_values(records.iter().map(|record| record.crop))),
        side(columns.layout.grid.0),
        side(columns.layout.grid.1),
    ];
    for (cell, column) in columns.list.iter().enumerate() {
        arrays.push(cells_to_array(column, form, records, cell)?);
    }
    RecordBatch::try_new(schema.clone(), arrays)
}

fn cells_to_array(
    column: &Column,
    form: Form,
    records: &[Record],
    cell: usize,
) -> Result<ArrayRef, ArrowError> {
    let width = column.width();
    let mut values = MutableBuffer::with_capacity(records.len() * width);
    for record in records {
        match &record.cells[cell] {
            Some(bytes) if column.has_planes(form) => {
                values.extend_from_slice(&planes::split(bytes, column.element.size_bytes()));
            }
            Some(bytes) => values.extend_from_slice(bytes),
            // Only labels can be absent, and nobody reads what stands there then: "ignore".
            None => values.resize(values.len() + width, 255),
        }
    }
    let values = Buffer::from(values);
    let nulls = column
        .nullable
        .then(|| records.iter().map(|record| record.cells[cell].is_some()).collect::<NullBuffer>());
    let length = |n: usize| i32::try_from(n).expect("the layout was checked");
    Ok(match form {
        Form::Binary | Form::Packed => Arc::new(FixedSizeBinaryArray::try_new(length(width), values, nulls)?),
        Form::List | Form::Arrow => {
            let numbers = arrow::array::ArrayData::builder(column.element.data_type())
                .len(records.len() * column.len())
                .add_buffer(values)
                .build()?;
            let item = Arc::new(column.item());
            Arc::new(FixedSizeListArray::try_new(item, length(column.len()), make_array(numbers), nulls)?)
        }
    })
}

/// The records of a batch; cells are slices of its buffers.
pub(crate) fn records(batch: &RecordBatch, columns: &Arc<Columns>, form: Form) -> Result<Vec<Record>, Flaw> {
    let column = |name: &str| batch.column_by_name(name).expect("the schema was compared");
    for (name, expected) in [("grid_h", columns.layout.grid.0), ("grid_w", columns.layout.grid.1)] {
        let found = column(name).as_primitive::<UInt16Type>().values();
        if let Some(&other) = found.iter().find(|&&side| usize::from(side) != expected) {
            return Err(Flaw::new(DamageKind::Schema, format!("{name} is {other}, expected {expected}")));
        }
    }
    let names = column("image_id").as_string::<i32>();
    let crops = column("crop").as_primitive::<UInt8Type>().values();
    let mut records: Vec<Record> = (names.iter().zip(crops))
        .map(|(name, &crop)| Record {
            image_id: name.unwrap_or_default().to_owned(),
            crop,
            cells: Vec::with_capacity(columns.list.len()),
            columns: columns.clone(),
        })
        .collect();
    for one in &columns.list {
        let array = column(&one.name);
        let values = cell_values(array);
        let width = one.width();
        for (row, record) in records.iter_mut().enumerate() {
            record.cells.push(array.is_valid(row).then(|| {
                let cell = values.slice(row * width..(row + 1) * width);
                if one.has_planes(form) { planes::join(&cell, one.element.size_bytes()).into() } else { cell }
            }));
        }
    }
    Ok(records)
}

/// The values of all rows, side by side, without a copy.
fn cell_values(array: &ArrayRef) -> Bytes {
    let (buffer, start) = match array.data_type() {
        DataType::FixedSizeBinary(width) => {
            let values = array.as_fixed_size_binary();
            (values.to_data().buffers()[0].clone(), values.offset() * *width as usize)
        }
        _ => {
            let numbers = array.as_fixed_size_list().values().to_data();
            let size = numbers.data_type().primitive_width().expect("elements are numbers");
            (numbers.buffers()[0].clone(), numbers.offset() * size)
        }
    };
    Bytes::from_owner(Shared(buffer)).slice(start..)
}

/// A buffer of Arrow's as what [`Bytes`] can keep alive.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}
