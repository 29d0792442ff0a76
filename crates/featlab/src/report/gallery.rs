//! The gallery: one row of pictures per image, inlined as data URIs, under a legend of class colours.
//!
//! A prediction that a CRF refined is there twice, and a switch above the pictures shows the one or the other; on paper both are
//! there. A click enlarges a picture. Switch and click are check boxes and style sheet, no script.
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
    let refined = study.gallery.iter().any(|item| !item.refined.is_empty());
    let switch = if refined {
        "<input type=\"checkbox\" id=\"crf\" class=\"switch\"><label for=\"crf\">predictions after the dense CRF</label>\n"
    } else {
        ""
    };
    format!(
        "{switch}<div class=\"legend\">{legend}</div>\n<div class=\"items\">\n{items}</div>\n\
         <p class=\"caption\">Clusters are in the colours of the classes they were matched to; black is unlabelled or belongs to no \
         class. Click a picture to enlarge it.</p>\n"
    )
}

fn gallery_item(item: &GalleryItem, root: &Path) -> String {
    let (mut panels, mut missing) = (String::new(), Vec::new());
    let id = escape(&item.image_id);
    let mut show = |title: &str, file: &str, class: &str| {
        let shown = escape(title);
        match picture(root, file) {
            Some(bytes) => panels.push_str(&panel(&shown, &id, class, &bytes)),
            None => missing.push(shown),
        }
    };
    for (i, (title, file)) in item.panels.iter().enumerate() {
        let refined: Vec<&String> =
            item.refined.iter().filter(|(of, _)| *of == i).map(|(_, file)| file).collect();
        show(title, file, if refined.is_empty() { "" } else { " class=\"plain\"" });
        for file in refined {
            show(&format!("{title} after CRF"), file, " class=\"refined\"");
        }
    }
    let note = match missing.as_slice() {
        [] => String::new(),
        some => format!(
            "<p class=\"caption\">Not shown, since the picture is missing: {}.</p>\n",
            some.join(", ")
        ),
    };
    format!(
        "<article class=\"item\">\n<h3>{id}</h3>\n<div class=\"panels\">\n{panels}</div>\n{note}</article>\n"
    )
}

/// One picture; the check box says whether it is enlarged.
fn panel(title: &str, id: &str, class: &str, png: &[u8]) -> String {
    format!(
        "<figure{class}><label><input type=\"checkbox\" class=\"zoom\" aria-label=\"enlarge {title} of {id}\">\
         <img alt=\"{title} of {id}\" src=\"data:image/png;base64,{}\"></label><figcaption>{title}</figcaption></figure>\n",
        STANDARD.encode(png)
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
        assert!(!text.contains("id=\"crf\""), "there is nothing to switch");
    }

    #[test]
    fn refined_predictions_stand_beside_the_plain_ones() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("gallery")).unwrap();
        let study = sample::full_study();
        let item = &study.gallery[0];
        for file in
            item.panels.iter().map(|panel| &panel.1).chain(item.refined.iter().map(|refined| &refined.1))
        {
            fs::write(folder.path().join(file), PNG_SIGNATURE).unwrap();
        }
        let text = gallery(&study, folder.path());
        let captions: Vec<&str> =
            text.split("<figcaption>").skip(1).filter_map(|piece| piece.split('<').next()).collect();
        assert_eq!(
            captions,
            ["Image", "Label", "Linear", "Linear after CRF", "Cluster", "Cluster after CRF", "PCA → RGB"]
        );
        assert_eq!(text.matches("<figure class=\"plain\">").count(), 2);
        assert_eq!(text.matches("<figure class=\"refined\">").count(), 2);
        assert!(text.contains("<label for=\"crf\">"));
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
