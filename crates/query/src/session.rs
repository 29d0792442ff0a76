//! A session: tables by name, a query, its answer as record batches or a Parquet file.

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{SessionConfig, SessionContext};
use featcache::{Cache, Store};

use crate::cache_table::CacheTable;
use crate::{file_table, functions, spelling};

/// Tables and functions to ask.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    context: SessionContext,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Without tables; `threads` partitions are worked on at a time.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub fn new(threads: usize) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build();
        let context =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads.max(1)));
        functions::scalar().into_iter().for_each(|function| context.register_udf(function));
        context.register_udaf(functions::mean_vector());
        Ok(Self { runtime: runtime?, context })
    }

    /// Adds the cache, file or folder of files at `place` as table `name`.
    ///
    /// # Errors
    /// If there is nothing of the kind, or it is damaged.
    pub fn table(&self, name: &str, place: &str) -> Result<()> {
        let external = |error: featcache::Error| DataFusionError::External(Box::new(error));
        let store = Store::open(place).map_err(external)?;
        let is_file = [".parquet", ".csv"].iter().any(|end| place.to_ascii_lowercase().ends_with(end));
        if !is_file && store.exists("manifest.json").map_err(external)? {
            let cache = Cache::open(store).map_err(external)?;
            self.context.register_table(name, std::sync::Arc::new(CacheTable::new(cache)))?;
        } else {
            self.context.register_table(name, std::sync::Arc::new(file_table::open(place)?))?;
        }
        Ok(())
    }

    /// Hands the answer on batch by batch, until `batch` returns `false`.
    ///
    /// # Errors
    /// If the query is none, or cannot be answered.
    pub fn ask(&self, query: &str, mut batch: impl FnMut(RecordBatch) -> Result<bool>) -> Result<()> {
        let query = spelling::for_engine(query)?;
        self.runtime.block_on(async {
            let mut answer = self.context.sql(&query).await?.execute_stream().await?;
            while let Some(next) = futures::StreamExt::next(&mut answer).await {
                if !batch(next?)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Columns of the answer to a query.
    ///
    /// # Errors
    /// If the query is none.
    pub fn schema(&self, query: &str) -> Result<arrow::datatypes::SchemaRef> {
        let query = spelling::for_engine(query)?;
        let answer = self.runtime.block_on(self.context.sql(&query))?;
        Ok(std::sync::Arc::new(answer.schema().as_arrow().clone()))
    }

    /// The answer as a Parquet file; with its number of rows.
    ///
    /// # Errors
    /// If the query is none, or cannot be answered.
    pub fn parquet(&self, query: &str) -> Result<(Vec<u8>, usize)> {
        let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), self.schema(query)?, Some(properties))?;
        let mut rows = 0;
        self.ask(query, |batch| {
            rows += batch.num_rows();
            writer.write(&batch)?;
            Ok(true)
        })?;
        Ok((writer.into_inner()?, rows))
    }
}
