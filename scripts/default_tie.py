#!/usr/bin/env python3
"""Write src/config/default_tie.txt: what each transformers model type says of tied embeddings when
config.json is silent.

Input: a JSON object, model type -> facts about `AutoConfig.for_model(model_type)`:

    controlling    whether embeddings are tied, with every field at its default
    top_has_attr   whether the config class has `tie_word_embeddings` itself
    text_flag      the same flag of its text config, null if it has none

Usage: scripts/default_tie.py hf_default_tie.json > src/config/default_tie.txt
"""

import json
import sys

HEADER = """\
# Whether word embeddings are tied, by model type, when config.json doesn't say. Made by
# scripts/default_tie.py; don't edit. Facts: the config classes of transformers 5.23.0; of
# types that came with 5.24.0, that.
#
#   NAME true|false         the config class has the flag, with this default
#   NAME text:true|false    only its text config (or thinker config) has it; the value with that
#   config at its default
#   NAME none               no class has it: untied
"""


def word(facts):
    flag = "true" if facts["controlling"] else "false"
    if facts["top_has_attr"]:
        return flag
    if facts["text_flag"] is not None:
        return "text:" + flag
    if facts["controlling"]:
        raise SystemExit(f"tied without any flag: {facts}")
    return "none"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        table = json.load(file)
    sys.stdout.write(HEADER)
    for name in sorted(table):
        if name.split() != [name] or name.startswith("#"):
            raise SystemExit(f"a model type that the format can't hold: {name!r}")
        sys.stdout.write(f"{name} {word(table[name])}\n")


if __name__ == "__main__":
    main()
