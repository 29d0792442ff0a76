//! One page of a listing: keys in order of their bytes, those that share a prefix up to the delimiter as one entry.

use super::bucket::Object;

/// No page is longer, whatever is asked for.
const LONGEST: usize = 1000;

/// What of a bucket is listed.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    /// Entries up to this one are left out: where the page before ended, or where to begin.
    pub(super) after: String,
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(String, Object)>,
    pub(super) prefixes: Vec<String>,
    /// The last entry, if more follow.
    pub(super) next: Option<String>,
}

impl Page {
    /// `objects` are sorted by key.
    pub(super) fn of(objects: Vec<(String, Object)>, wanted: &Wanted) -> Self {
        let limit = wanted.limit.unwrap_or(LONGEST).min(LONGEST);
        let mut page = Self::default();
        let mut last: Option<String> = None;
        for (key, object) in objects {
            let Some(rest) = key.strip_prefix(&wanted.prefix) else { continue };
            let group = wanted.delimiter.as_ref().and_then(|delimiter| {
                rest.find(delimiter).map(|at| key[..wanted.prefix.len() + at + delimiter.len()].to_owned())
            });
            let is_prefix = group.is_some();
            let entry = group.unwrap_or_else(|| key.clone());
            if entry <= wanted.after || last.as_ref() == Some(&entry) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == limit {
                page.next = last;
                return page;
            }
            last = Some(entry.clone());
            if is_prefix { page.prefixes.push(entry) } else { page.objects.push((key, object)) }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 7] = ["a!", "a/1", "a/2", "a/b/3", "a0", "b", "c/4"];

    /// Every entry, page by page, and the number of pages.
    fn walk(prefix: &str, delimiter: Option<&str>, limit: usize) -> (Vec<String>, usize) {
        let object = Object { generation: 1, size: 1 };
        let mut wanted = Wanted {
            prefix: prefix.into(),
            delimiter: delimiter.map(str::to_owned),
            limit: Some(limit),
            ..Wanted::default()
        };
        let (mut entries, mut pages) = (Vec::new(), 0);
        loop {
            let page = Page::of(KEYS.map(|key| (key.to_owned(), object)).to_vec(), &wanted);
            let mut some: Vec<String> = page.objects.into_iter().map(|(key, _)| key).collect();
            some.extend(page.prefixes);
            assert!(some.len() <= limit);
            some.sort();
            entries.extend(some);
            pages += 1;
            match page.next {
                Some(next) => wanted.after = next,
                None => return (entries, pages),
            }
        }
    }

    #[test]
    fn every_length_of_page_lists_everything_once() {
        for limit in 1..=8 {
            assert_eq!(walk("", None, limit).0, KEYS);
            assert_eq!(walk("", Some("/"), limit).0, ["a!", "a/", "a0", "b", "c/"]);
            assert_eq!(walk("a/", Some("/"), limit).0, ["a/1", "a/2", "a/b/"]);
        }
        assert_eq!(walk("", Some("/"), 5).1, 1, "a full last page is the last");
        assert_eq!(walk("", Some("/"), 2).1, 3);
        assert_eq!(walk("z", None, 2), (Vec::new(), 1));
    }
}
