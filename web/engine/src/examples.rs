//! The examples that the playground offers.

/// Rules, keys, and a config where the rules ask for one.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    /// What there is to see.
    pub(crate) about: &'static str,
    pub(crate) rules: &'static str,
    pub(crate) keys: &'static str,
    pub(crate) config: &'static str,
}

pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        name: "Mixtral 8x7B",
        about: "each layer's experts become one tensor",
        rules: include_str!("../../../rules/mixtral.graft"),
        keys: include_str!("../../examples/mixtral.keys"),
        config: "",
    },
    Example {
        name: "A fused QKV",
        about: "one projection is split by the config's heads, and put together again backwards",
        rules: include_str!("../../../examples/qkv.graft"),
        keys: include_str!("../../examples/qkv.keys"),
        config: include_str!("../../examples/qkv.config.json"),
    },
    Example {
        name: "GPT-2",
        about: "a head that is tied to the embedding, as the config says",
        rules: include_str!("../../../rules/gpt2.graft"),
        keys: include_str!("../../examples/gpt2.keys"),
        config: include_str!("../../examples/gpt2.config.json"),
    },
    Example {
        name: "Stable Diffusion's UNet",
        about: "numbers that are calculated, in a file with more than the UNet",
        rules: include_str!("../../../rules/sd_unet_ldm.graft"),
        keys: include_str!("../../examples/stable_diffusion.keys"),
        config: "",
    },
    Example {
        name: "DeepSeek-V3",
        about: "90,427 keys in FP8",
        rules: include_str!("../../../rules/deepseek_v3.graft"),
        keys: include_str!("../../examples/deepseek_v3.keys"),
        config: "",
    },
    Example {
        name: "Something is wrong",
        about: "findings where they are, with what would mend them",
        rules: include_str!("../../examples/wrong.graft"),
        keys: include_str!("../../examples/mixtral.keys"),
        config: "",
    },
];
