// What the grammar of regraft decides by looking ahead, and so no token of a fixed form can say:
//
// * whether a slash divides, or opens a regex. It divides unless a second slash on its line is followed by an op, a comma, or
//   an arrow, `optional` before one of the last two allowed. Where nothing can be divided, it opens a regex.
// * whether words follow the colon in `{x: q=>query | k}`. They do if a word is followed by `|`, `=>` or `}`: in `{l: 0..n}` it isn't.
//
// There is no state.

#include "tree_sitter/parser.h"

#include <wctype.h>

// `DIVIDE` is never given: it tells where a division could stand.
enum Token { REGEX, DIVIDE, WORD };

void *tree_sitter_graft_external_scanner_create(void) { return NULL; }
void tree_sitter_graft_external_scanner_destroy(void *payload) { (void)payload; }
unsigned tree_sitter_graft_external_scanner_serialize(void *payload, char *buffer) {
    (void)payload;
    (void)buffer;
    return 0;
}
void tree_sitter_graft_external_scanner_deserialize(void *payload, const char *buffer, unsigned length) {
    (void)payload;
    (void)buffer;
    (void)length;
}

static void step(TSLexer *lexer) { lexer->advance(lexer, false); }

static bool blank(int32_t c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0xFEFF; }

// Passes blanks, and comments if they are wanted.
static void pass_blanks(TSLexer *lexer, bool comments) {
    for (;;) {
        if (blank(lexer->lookahead)) {
            step(lexer);
        } else if (comments && lexer->lookahead == '#') {
            while (lexer->lookahead != '\n' && !lexer->eof(lexer)) step(lexer);
        } else {
            return;
        }
    }
}

static bool arrow_or_comma(TSLexer *lexer) {
    if (lexer->lookahead == ',') return true;
    if (lexer->lookahead == '<') step(lexer);
    if (lexer->lookahead != '-') return false;
    step(lexer);
    return lexer->lookahead == '>';
}

// Whether a rule goes on after a regex. One with a quote may end in a text, as in `b / "q", f("x/#y")`: then no comment is passed.
static bool rule_goes_on(TSLexer *lexer, bool quoted) {
    pass_blanks(lexer, !quoted);
    if (lexer->lookahead == '|') return true;
    const char *word = "optional";
    if (lexer->lookahead == (int32_t)*word) {
        for (; *word; word++) {
            if (lexer->lookahead != (int32_t)*word) return false;
            step(lexer);
        }
        pass_blanks(lexer, !quoted);
    }
    return arrow_or_comma(lexer);
}

// A scanner has one mark for where its token ends and can't go back. So where both could be, the regex is marked, and a
// division is refused here and read by the grammar, which has the sign as a token of its own.
static bool slash(TSLexer *lexer, const bool *valid) {
    step(lexer);
    bool empty = true, quoted = false;
    for (; lexer->lookahead != '/'; empty = false) {
        if (lexer->lookahead == '\\') step(lexer);
        if (lexer->lookahead == '"') quoted = true;
        if (lexer->lookahead == '\n' || lexer->lookahead == '\r' || lexer->eof(lexer)) return false;
        step(lexer);
    }
    if (empty) return false;
    step(lexer);
    lexer->mark_end(lexer);
    lexer->result_symbol = REGEX;
    return !valid[DIVIDE] || rule_goes_on(lexer, quoted);
}

static bool in_word(int32_t c) { return iswalnum((wint_t)c) || c == '_' || c == '-'; }

static bool word(TSLexer *lexer) {
    for (;;) {
        if (!in_word(lexer->lookahead)) return false;
        while (in_word(lexer->lookahead)) step(lexer);
        lexer->mark_end(lexer);
        if (lexer->lookahead != '.') break;
        step(lexer);
        if (!in_word(lexer->lookahead)) return false;
    }
    pass_blanks(lexer, true);
    if (lexer->lookahead == '|' || lexer->lookahead == '}') {
        lexer->result_symbol = WORD;
        return true;
    }
    if (lexer->lookahead != '=') return false;
    step(lexer);
    lexer->result_symbol = WORD;
    return lexer->lookahead == '>';
}

bool tree_sitter_graft_external_scanner_scan(void *payload, TSLexer *lexer, const bool *valid) {
    (void)payload;
    if (!valid[REGEX] && !valid[WORD]) return false;
    while (blank(lexer->lookahead)) lexer->advance(lexer, true);
    if (lexer->lookahead == '/' && valid[REGEX]) return slash(lexer, valid);
    return valid[WORD] && word(lexer);
}
