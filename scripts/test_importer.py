#!/usr/bin/env python3
"""Tests of the importer's patterns and translation; transformers isn't needed.

python3 scripts/test_importer.py
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from graft_import.compose import grouped, merged, tie_statements
from graft_import.patterns import Group, Pattern, Rule, Use, run
from graft_import.translate import Inexpressible, convert_patterns, rename
from registry_changes import changes, noted


def whole(source, target):
    """The texts of the rules for a rename, written with whole segments."""
    return [ways["whole"].text() for ways in rename(source, target)]


class Patterns(unittest.TestCase):
    def test_rest_in_front_takes_the_fewest_segments(self):
        self.assertEqual(
            Pattern("**.mlp.**").match("a.mlp.b.mlp.c"), {"head": "a", "tail": "b.mlp.c"}
        )
        self.assertEqual(Pattern("**.mlp.**").match("mlp"), {"head": "", "tail": ""})

    def test_segments_match_as_a_whole(self):
        self.assertIsNone(Pattern("**.norm.**").match("layers.0.layernorm.weight"))
        self.assertIsNone(Pattern("layers.{l}.weight").match("layers.01.weight"))

    def test_shifted_index(self):
        rule = Rule("queries.{i}", "layers.{i+1}.query")
        self.assertEqual(rule.forward("queries.0"), ["layers.1.query"])
        self.assertEqual(rule.backward("layers.1.query"), ["queries.0"])
        self.assertIsNone(rule.backward("layers.0.query"))

    def test_unless_holds_backwards_for_the_key_that_would_come_out(self):
        rule = Rule("model.**", "model.language_model.**", unless=["model.visual.**"])
        self.assertIsNone(rule.forward("model.visual.x"))
        self.assertEqual(rule.backward("model.language_model.norm"), ["model.norm"])
        self.assertIsNone(rule.backward("model.language_model.visual.x"))

    def test_first_rule_of_a_group_wins_so_a_swap_works(self):
        swap = Group("rename", [Rule("a", "b"), Rule("b", "a")])
        self.assertEqual(swap.apply(["a", "b"]), ["b", "a"])

    def test_use_under_a_subtree(self):
        use = Use("x", "tower", [Group("rename", [Rule("level.{path**}", "{path**}", "->")])])
        self.assertEqual(run([use], ["tower.level.w", "level.w"]), ["tower.w", "level.w"])
        self.assertEqual(run([use], ["tower.w"], back=True), ["tower.w"])


class Translation(unittest.TestCase):
    def test_borders(self):
        self.assertEqual(whole(r"^visual", "model.visual"), ['"visual.**" <-> "model.visual.**"'])
        self.assertEqual(whole(r"\.attn\.", ".self_attn."), ['"**.attn.**" <-> "**.self_attn.**"'])

    def test_numbers_and_words(self):
        self.assertEqual(
            whole(r"layers.(\d+).fc1", r"layers.\1.mlp.fc1"),
            ['"**.layers.{l}.fc1.**" <-> "**.layers.{l}.mlp.fc1.**"'],
        )
        self.assertEqual(
            whole(r"\.(a|b)\.w1\.", r".\1.up."), ['"**.{x: a|b}.w1.**" <-> "**.{x}.up.**"']
        )

    def test_look_arounds(self):
        self.assertEqual(
            whole(r"^model(?!\.(language_model|visual))", "model.language_model"),
            [
                '"model.**" <-> "model.language_model.**" '
                'unless "model.{x: language_model|visual}.**"'
            ],
        )
        self.assertEqual(
            whole(r"(?<!x\.)norm\.", "y.norm."),
            ['"**.norm.**" <-> "**.y.norm.**" unless "**.x.norm.**"'],
        )
        self.assertEqual(
            whole(r"(?<!_)(?<!\w)norm\.", "y.norm."), ['"**.norm.**" <-> "**.y.norm.**"']
        )

    def test_an_empty_alternative_becomes_a_rule_of_its_own(self):
        self.assertEqual(len(whole(r"(^|model\.)layers\.", r"\1language_model.layers.")), 2)

    def test_what_cannot_be_said_is_not_guessed(self):
        with self.assertRaises(Inexpressible):
            rename(r"a.{2,3}b", "c")
        with self.assertRaises(Inexpressible):
            rename(r"level\.", "")

    def test_converter(self):
        left, right, keep, captures = convert_patterns(
            [".experts.*.w1.weight", ".experts.*.w3.weight"], [".experts.gate_up_proj"]
        )
        self.assertEqual(left, ["**.experts.{e}.w1.weight.**", "**.experts.{e}.w3.weight.**"])
        self.assertEqual((right, keep, captures), (["**.experts.gate_up_proj.**"], [], ["e"]))


class Files(unittest.TestCase):
    def test_one_word_apart_is_an_enumeration(self):
        rules = merged(
            [
                Rule("a.query.**", "a.q_proj.**"),
                Rule("a.key.**", "a.k_proj.**"),
                Rule("a.b.**", "c.d.**"),
            ]
        )
        self.assertEqual(
            [r.text() for r in rules],
            ['"a.{x: query=>q_proj | key=>k_proj}.**" <-> "a.{x}.**"', '"a.b.**" <-> "c.d.**"'],
        )
        self.assertEqual(rules[0].forward("a.key.w"), ["a.k_proj.w"])
        self.assertEqual(rules[0].backward("a.q_proj.w"), ["a.query.w"])

    def test_rules_that_feed_each_other_stay_apart(self):
        chain = [(0, [Rule("a.**", "b.**")]), (1, [Rule("b.**", "c.**")])]
        self.assertEqual(len(grouped(chain, set())), 2)
        self.assertEqual(
            len(grouped([(0, [Rule("a.**", "b.**")]), (1, [Rule("c.**", "d.**")])], set())), 1
        )

    def test_ties(self):
        ties = {
            f"heads.{i}.{leaf}": (f"model.heads.{i}.{leaf}", "tied")
            for i in range(3)
            for leaf in ("weight", "bias")
        }
        ties["lm_head.weight"] = ("model.embed_tokens.weight", "tied")
        found, unsaid = tie_statements(ties, {"model.embed_tokens.weight"})
        self.assertEqual(found, [(["heads.{i}.{t: bias|weight}"], "model.heads.{i}.{t}", "tied")])
        self.assertEqual(unsaid, [])
        shifted, _ = tie_statements(
            {f"heads.{i}.w": (f"embeds.{i + 1}.w", "always") for i in range(3)}, set()
        )
        self.assertEqual(shifted, [(["heads.{i}.w"], "embeds.{i+1}.w", "always")])


class Versions(unittest.TestCase):
    def test_changes_are_named(self):
        old = {"entries": {"kept": ["a -> b"], "gone": [], "turned": ["a -> b", "c -> d"]}}
        new = {"entries": {"kept": ["a -> b"], "new": ["e -> f"], "turned": ["c -> d", "a -> b"]}}
        self.assertEqual(
            changes(old, new), {"new": ["new"], "gone": ["gone"], "changed": ["turned"]}
        )
        self.assertEqual(changes(old, old), {"new": [], "gone": [], "changed": []})

    def test_the_two_versions_that_rules_are_for(self):
        """What transformers 5.24 itself added: read off its conversion_mapping.py."""
        old, new = noted()
        self.assertEqual((old["version"], new["version"]), ("5.23.0", "5.24.0"))
        inkling = ["inkling2_loop", "inkling2_loop_text"]
        others = ["lara_mini", "sarvam_mla", "sarvam_moe"]
        vision = ["hy_v4_vl", "hy_v4_vl_text"]
        found = changes(old, new)
        self.assertEqual(
            found["new"], ["apertus1p5_text", "dory", "exaone", *vision, *inkling, *others]
        )
        self.assertEqual(found["gone"], [])
        self.assertEqual(
            found["changed"], ["NemotronH_Omni_Reasoning_V3", "inkling2", "inkling2_text"]
        )


if __name__ == "__main__":
    unittest.main()
