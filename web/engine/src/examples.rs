//! The examples that the playground offers.

use regraft::library;

/// Rules, keys, and a config where the rules ask for one.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    /// What there is to see.
    pub(crate) about: &'static str,
    rules: Text,
    pub(crate) keys: &'static str,
    pub(crate) config: &'static str,
}

enum Text {
    Library(&'static str),
    Own(&'static str),
}

impl Example {
    pub(crate) fn rules(&self) -> &'static str {
        match self.rules {
            Text::Library(name) => library::text(name).unwrap_or_default(),
            Text::Own(text) => text,
        }
    }
}

pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        name: "Mixtral 8x7B",
        about: "each layer's experts become one tensor",
        rules: Text::Library("mixtral"),
        keys: include_str!("../../examples/mixtral.keys"),
        config: "",
    },
    Example {
        name: "A fused QKV",
        about: "one projection is split by the config's heads, and put together again backwards",
        rules: Text::Own(include_str!("../../../examples/qkv.graft")),
        keys: include_str!("../../examples/qkv.keys"),
        config: include_str!("../../examples/qkv.config.json"),
    },
    Example {
        name: "GPT-2",
        about: "a head that is tied to the embedding, as the config says",
        rules: Text::Library("gpt2"),
        keys: include_str!("../../examples/gpt2.keys"),
        config: include_str!("../../examples/gpt2.config.json"),
    },
    Example {
        name: "Stable Diffusion's UNet",
        about: "numbers that are calculated, in a file with more than the UNet",
        rules: Text::Library("sd_unet_ldm"),
        keys: include_str!("../../examples/stable_diffusion.keys"),
        config: "",
    },
    Example {
        name: "DeepSeek-V3",
        about: "90,427 keys in FP8",
        rules: Text::Library("deepseek_v3"),
        keys: include_str!("../../examples/deepseek_v3.keys"),
        config: "",
    },
    Example {
        name: "Something is wrong",
        about: "findings where they are, with what would mend them",
        rules: Text::Own(include_str!("../../examples/wrong.graft")),
        keys: include_str!("../../examples/mixtral.keys"),
        config: "",
    },
];
