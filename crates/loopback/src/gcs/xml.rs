//! The few documents of the XML API, written and read by hand.

use std::fmt::Write as _;

use super::listing::Page;

/// Text as it stands between two tags.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            _ => out.push(character),
        }
    }
    out
}

pub(super) fn initiated(upload: &str) -> String {
    format!("<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
}

pub(super) fn completed(etag: &str) -> String {
    let etag = escape(etag);
    format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>")
}

pub(super) fn copied(etag: &str, modified: &str) -> String {
    let etag = escape(etag);
    format!("<CopyObjectResult><ETag>{etag}</ETag><LastModified>{modified}</LastModified></CopyObjectResult>")
}

pub(super) fn listed(page: &Page) -> String {
    let mut out = String::from("<ListBucketResult>");
    for (key, object) in &page.objects {
        let _ = write!(
            out,
            "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            escape(key),
            object.generation,
            object.modified().to_rfc3339(),
            escape(&object.etag()),
            object.size,
        );
    }
    for prefix in &page.prefixes {
        let _ = write!(out, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(prefix));
    }
    let _ = write!(out, "<IsTruncated>{}</IsTruncated>", page.next.is_some());
    if let Some(next) = &page.next {
        let _ = write!(out, "<NextContinuationToken>{}</NextContinuationToken>", escape(next));
    }
    out + "</ListBucketResult>"
}

/// Number and ETag of each part in a `CompleteMultipartUpload` document.
pub(super) fn parts(document: &str) -> Option<Vec<(u32, String)>> {
    let part = |text: &str| {
        let number = between(text, "<PartNumber>", "</PartNumber>")?.trim().parse().ok()?;
        let etag = between(text, "<ETag>", "</ETag>")?.replace("&quot;", "\"");
        Some((number, etag))
    };
    document.split("<Part>").skip(1).map(part).collect()
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    Some(rest.split_once(close)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_with_either_kind_of_quote() {
        let text = "<CompleteMultipartUpload><Part><ETag>\"a-1\"</ETag><PartNumber>1</PartNumber></Part>\
                    <Part><PartNumber>2</PartNumber><ETag>&quot;b-2&quot;</ETag></Part></CompleteMultipartUpload>";
        assert_eq!(parts(text).unwrap(), [(1, "\"a-1\"".to_owned()), (2, "\"b-2\"".to_owned())]);
        assert_eq!(parts("<Part><ETag>x</ETag></Part>"), None);
    }

    #[test]
    fn markup_in_names_is_escaped() {
        assert_eq!(escape("a<b>&\"c"), "a&lt;b&gt;&amp;&quot;c");
    }
}
