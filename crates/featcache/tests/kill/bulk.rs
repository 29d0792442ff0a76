//! A cache of larger shards, one image each: time enough to be killed in the middle of a write.

use std::sync::Arc;
use std::time::Instant;

use featcache::{Dtype, Layout, Opened, Result, Row, Store, Writer, WriterOptions};
use ndarray::Array2;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::fixture::{contents, golden, key};
use crate::work::Files;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk {
    pub(crate) shards: usize,
    /// Tokens in a row and column of an image, of 64 numbers each; five rows in a shard.
    pub(crate) side: usize,
}

impl Bulk {
    pub(crate) fn open(self, store: &Store) -> Result<Opened> {
        let layout =
            Layout { grid: (self.side, self.side), dim: 64, label_size: (1, 1), ..Layout::default() };
        let options =
            WriterOptions { shard_rows: Some(1), golden: Some(golden()), ..WriterOptions::default() };
        Writer::open(store.clone(), key(Dtype::F16), layout, self.shards, options)
    }

    fn rows(self, index: usize) -> Vec<Row> {
        let value =
            |crop: usize, t: usize, d: usize| ((index * 7 + crop * 3 + t * 5 + d) % 256) as f32 / 64.0;
        let row = |crop: u8| Row {
            image_id: format!("{index}.png"),
            crop,
            tokens: Array2::from_shape_fn((self.side * self.side, 64), |(t, d)| value(crop.into(), t, d)),
            ..Row::default()
        };
        (0..5).map(row).collect()
    }

    /// Writes the missing shards whose number is `task` modulo `tasks`; `computing` is called before each.
    pub(crate) fn write(
        self,
        writer: &Writer,
        (task, tasks): (usize, usize),
        computing: &mut dyn FnMut(),
    ) -> Result<()> {
        for planned in writer.missing().iter().filter(|planned| planned.index % tasks == task) {
            computing();
            writer.write_shard(planned, self.rows(planned.index), Vec::new())?;
        }
        Ok(())
    }

    /// Does all that remains.
    pub(crate) fn fill(self, store: &Store, computing: &mut dyn FnMut()) -> Result<()> {
        let Opened::Resume(writer) = self.open(store)? else { return Ok(()) };
        self.write(&writer, (0, 1), computing)?;
        writer.commit(golden()).map(|_| ())
    }

    pub(crate) fn reference(self) -> Files {
        let store = Store::from_object_store(Arc::new(InMemory::new()), Path::default(), "reference");
        self.fill(&store, &mut || ()).unwrap();
        contents(&store)
    }
}

/// Numbers below 1 that follow from a seed.
pub(crate) fn draws(seed: u64) -> impl Iterator<Item = f64> {
    use rand::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || random.random())
}

/// What a test says at its end.
pub(crate) fn took(begun: Instant) -> String {
    format!("{:.1} s", begun.elapsed().as_secs_f32())
}
