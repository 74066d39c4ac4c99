//! Documents: text to resources, with file, line and field in every error.
