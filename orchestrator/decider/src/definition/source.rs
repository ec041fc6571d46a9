//! The text of a definition, with line and column of everything in it.
