//! Meaning: from a tree to checked rules.
