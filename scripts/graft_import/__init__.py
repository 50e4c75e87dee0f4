"""Parts of the importer: what transformers knows (probe), patterns, translation, rule files, their
check."""
