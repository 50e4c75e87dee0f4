"""regraft in place of transformers' own conversion of Mixtral: the same state dict, bit for bit,
and the same files on the way back.

transformers 5 packs the experts of a checkpoint while it loads it, by a table of regexes in its
code. Here rules do, before the model sees the tensors.
"""

import tempfile
from pathlib import Path

import regraft
import torch
import transformers


def load_with_regraft(folder):
    """A model with the checkpoint's tensors: `from_pretrained` without the conversion."""
    config = transformers.AutoConfig.from_pretrained(folder)
    state_dict = regraft.open(folder).apply(to="model")
    with torch.device("meta"):
        model = transformers.MixtralForCausalLM(config)
    # `assign` takes the tensors as they are: what the rules leave alone still lies in the mapped
    # files, unread.
    model.load_state_dict(state_dict, strict=True, assign=True)
    model.tie_weights()
    return model


def main():
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        num_local_experts=4,
    )
    with tempfile.TemporaryDirectory() as folder:
        hub = Path(folder) / "hub"
        transformers.MixtralForCausalLM(config).save_pretrained(hub)

        ours = load_with_regraft(hub)
        theirs = transformers.MixtralForCausalLM.from_pretrained(hub)
        expected = theirs.state_dict()
        assert set(ours.state_dict()) == set(expected)
        for key, tensor in ours.state_dict().items():
            assert torch.equal(tensor, expected[key]), key
        print(f"{len(expected)} keys, the same as from_pretrained gives")

        back = regraft.apply(ours.state_dict(), config=config, from_="model", to="hub")
        published = regraft.open(hub)
        assert set(back) == set(published)
        for key, tensor in back.items():
            assert torch.equal(tensor, published[key]), key
        print(f"{len(back)} keys on the way back, the same as save_pretrained wrote")


if __name__ == "__main__":
    main()
