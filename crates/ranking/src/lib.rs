//! Ranking variants: features, scoring expressions, caps, as data.
