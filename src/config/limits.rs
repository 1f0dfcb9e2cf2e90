//! Every limit: its name, its default, its ceiling, and how they relate.
