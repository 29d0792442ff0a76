//! The physical layout that FORMAT.md promises: 8 rows per group, one row per page, plain, uncompressed.

mod fixture;

use featcache::Store;
use fixture::*;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

#[test]
fn groups_pages_and_encodings() {
    let store = Store::open("memory://layout").unwrap();
    fill(&store).unwrap();
    let bytes = store.get("shard-00000.parquet").unwrap();
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&bytes).unwrap();
    let metadata = reader.finish().unwrap();
    let groups: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [8, 8, 4]);
    let pages = metadata.offset_index().unwrap();
    for (group, pages) in metadata.row_groups().iter().zip(pages) {
        for (column, pages) in group.columns().iter().zip(pages) {
            let name = column.column_path().string();
            assert_eq!(column.compression(), Compression::UNCOMPRESSED);
            assert!(
                column.encodings().all(|encoding| matches!(encoding, Encoding::PLAIN | Encoding::RLE)),
                "{name}"
            );
            assert_eq!(column.dictionary_page_offset(), None);
            let per_row = matches!(name.as_str(), "tokens" | "label");
            let expected = if per_row { group.num_rows() as usize } else { 1 };
            assert_eq!(pages.page_locations().len(), expected, "{name}");
            assert_eq!(column.statistics().is_some(), !(per_row || name == "cls"), "{name}");
        }
    }
    let pairs = metadata.file_metadata().key_value_metadata().unwrap();
    let value =
        |name: &str| pairs.iter().find(|pair| pair.key == name).and_then(|pair| pair.value.clone()).unwrap();
    assert_eq!(value("featlab.key"), key(featcache::Dtype::F16).fingerprint());
    assert_eq!((value("featlab.shard"), value("featlab.samples")), ("0".into(), "0,4".into()));
    assert_eq!(value("featlab.skipped"), "[]");
    assert!(value("featlab.seal").starts_with("featlab-seal:"));
}
