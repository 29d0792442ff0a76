//! Probes on cached features, and the metrics that score them.
