//! The gallery: one row of pictures per image, inlined as data URIs, under a legend of class colours.
//!
//! A study may come from someone else's folder, so a picture's path must stay below the study's folder and the file
//! must begin like a PNG: nothing else of the reader's disk gets into the page. What cannot be shown is said so.

use std::fs;
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::class_table::chip;
use super::svg::escape;
use crate::study::{GalleryItem, Study};

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The gallery with pictures read below `root`; empty if the study has none.
pub(super) fn gallery(study: &Study, root: &Path) -> String {
    if study.gallery.is_empty() {
        return String::new();
    }
    let legend: String = (0..study.classes.len()).map(|class| chip(study, class)).collect();
    let items: String = study.gallery.iter().map(|item| gallery_item(item, root)).collect();
    format!("<div class=\"legend\">{legend}</div>\n{items}")
}

fn gallery_item(item: &GalleryItem, root: &Path) -> String {
    let (mut panels, mut missing) = (String::new(), Vec::new());
    for (title, file) in &item.panels {
        let (shown, id) = (escape(title), escape(&item.image_id));
        match picture(root, file) {
            Some(bytes) => panels.push_str(&format!(
                "<figure><img alt=\"{shown} of {id}\" src=\"data:image/png;base64,{}\"><figcaption>{shown}</figcaption></figure>\n",
                STANDARD.encode(bytes)
            )),
            None => missing.push(shown),
        }
    }
    let note = match missing.as_slice() {
        [] => String::new(),
        some => format!(
            "<p class=\"caption\">Not shown, since the picture is missing: {}.</p>\n",
            some.join(", ")
        ),
    };
    let id = escape(&item.image_id);
    format!(
        "<article class=\"item\">\n<h3>{id}</h3>\n<div class=\"panels\">\n{panels}</div>\n{note}</article>\n"
    )
}

/// A PNG below `root`, or `None` if it is missing, elsewhere or something else.
fn picture(root: &Path, file: &str) -> Option<Vec<u8>> {
    let path = Path::new(file);
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return None;
    }
    fs::read(root.join(path)).ok().filter(|bytes| bytes.starts_with(PNG_SIGNATURE))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn pictures_are_inlined_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("gallery")).unwrap();
        let study = sample::study();
        fs::write(folder.path().join(&study.gallery[0].panels[0].1), PNG_SIGNATURE).unwrap();
        let text = gallery(&study, folder.path());
        assert_eq!(text.matches("src=\"data:image/png;base64,iVBORw0KGgo=\"").count(), 1);
        assert!(text.contains("is missing: Label, Linear, Cluster, PCA → RGB."));
        assert_eq!(text.matches("<article").count(), 4);
    }

    #[test]
    fn only_pictures_below_the_study_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("study");
        fs::create_dir(&root).unwrap();
        fs::write(folder.path().join("outside.png"), PNG_SIGNATURE).unwrap();
        fs::write(root.join("text.png"), "no picture").unwrap();
        fs::write(root.join("fine.png"), PNG_SIGNATURE).unwrap();
        assert!(picture(&root, "../outside.png").is_none());
        assert!(picture(&root, folder.path().join("outside.png").to_str().unwrap()).is_none());
        assert!(picture(&root, "text.png").is_none());
        assert!(picture(&root, "./fine.png").is_some());
    }

    #[test]
    fn no_gallery_no_section() {
        let mut study = sample::study();
        study.gallery.clear();
        assert!(gallery(&study, Path::new(".")).is_empty());
    }
}
