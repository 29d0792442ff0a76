//! Projections of feature rows to fewer dimensions.
