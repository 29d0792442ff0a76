//! Names of ours for what the engine has as syntax: `unnest_tokens(x)` and `unnest_labels(x)` are its `unnest(x)`.

use datafusion::error::{DataFusionError, Result};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// The query as the engine reads it. Names within quotes and comments stay.
pub(crate) fn for_engine(query: &str) -> Result<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, query).with_unescape(false).tokenize();
    let tokens = tokens.map_err(|error| DataFusionError::Plan(format!("cannot read the query: {error}")))?;
    let ours =
        |name: &str| ["unnest_tokens", "unnest_labels"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
    Ok(tokens
        .into_iter()
        .map(|token| match token {
            Token::Word(word) if word.quote_style.is_none() && ours(&word.value) => "unnest".to_owned(),
            other => other.to_string(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_change() {
        let query = "select Unnest_Tokens(tokens), 'unnest_tokens it''s' from \"unnest_labels\" -- unnest_tokens\n where a < 1.5e3";
        let engine = for_engine(query).unwrap();
        assert!(
            engine.starts_with("select unnest(tokens), 'unnest_tokens it''s' from \"unnest_labels\""),
            "{engine}"
        );
        assert!(engine.trim_end().ends_with("where a < 1.5e3"), "{engine}");
        assert!(for_engine("select 'open").is_err());
    }
}
