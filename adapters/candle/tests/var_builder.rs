//! Tensors of a `VarBuilder` are what candle's own reader and candle's own ops make of the same
//! files, bit for bit; of a sharded one, its parts, and no more is read.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use candle_core::{DType, Device, Error, Tensor, safetensors};
use candle_nn::var_builder::{Shard, VarBuilder};
use regraft::Conversion;
use regraft_candle::Tensors;

const LAYERS: usize = 2;
const HIDDEN: usize = 32;
const FFN: usize = 48;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = HIDDEN / HEADS;

/// A layout in which projections are packed, and weights of the MLP's second one are transposed;
/// queries and keys have their rotary pairs side by side.
const RULES: &str = r#"
let heads = config.num_attention_heads
let kv_heads = config.num_key_value_heads

map "model.layers.{l}.self_attn.q_proj.weight" <-> "blocks.{l}.wq" via rope_pairs(heads)
map "model.layers.{l}.self_attn.k_proj.weight" <-> "blocks.{l}.wk" via rope_pairs(kv_heads)
map "model.layers.{l}.mlp.{p: gate|up}_proj.weight" <-> "blocks.{l}.gate_up" via concat(0, over p)
map "model.layers.{l}.mlp.down_proj.weight" <-> "blocks.{l}.down" via transpose(0, 1)
rename "model.embed_tokens.weight" <-> "embed"
"#;

fn tensor(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::randn(0f32, 1f32, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Two files with an index and a config, as a hub has a Llama.
fn hub(folder: &Path, dtype: DType) -> Vec<(String, Tensor)> {
    let config = format!(
        r#"{{"model_type": "llama", "num_attention_heads": {HEADS}, "num_key_value_heads": {KV_HEADS}}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    let kv = KV_HEADS * HEAD;
    let mut map = Vec::new();
    let mut all = Vec::new();
    for layer in 0..LAYERS {
        let mut tensors: Vec<(String, Tensor)> = [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![FFN, HIDDEN]),
            ("mlp.up_proj", vec![FFN, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FFN]),
            ("input_layernorm", vec![HIDDEN]),
        ]
        .into_iter()
        .map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), tensor(&shape, dtype)))
        .collect();
        if layer == 0 {
            tensors.push(("model.embed_tokens.weight".to_owned(), tensor(&[64, HIDDEN], dtype)));
        }
        let name = format!("model-{:05}-of-{LAYERS:05}.safetensors", layer + 1);
        let as_map = tensors.iter().cloned().collect();
        safetensors::save(&as_map, folder.join(&name)).unwrap();
        map.extend(tensors.iter().map(|(key, _)| format!("{key:?}: {name:?}")));
        all.append(&mut tensors);
    }
    let index = format!(r#"{{"metadata": {{}}, "weight_map": {{{}}}}}"#, map.join(", "));
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    all
}

fn opened(folder: &Path) -> Tensors {
    let rules = folder.join("packed.graft");
    std::fs::write(&rules, RULES).unwrap();
    let conversion = Conversion::open(folder).unwrap().load([rules.to_str().unwrap()]);
    Tensors::new(conversion.unwrap().plan().unwrap())
}

/// What the rules say, by candle's ops alone.
fn reference(hub: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let get = |key: String| hub.iter().find(|(there, _)| *there == key).unwrap().1.clone();
    let mut made = vec![("embed".to_owned(), get("model.embed_tokens.weight".to_owned()))];
    for layer in 0..LAYERS {
        let of = |name: &str| get(format!("model.layers.{layer}.{name}.weight"));
        // Halves of a head come together in pairs.
        let pairs = |tensor: Tensor, heads: usize| {
            let halves = tensor.reshape((heads, 2, HEAD / 2, HIDDEN)).unwrap();
            halves.transpose(1, 2).unwrap().reshape((heads * HEAD, HIDDEN)).unwrap()
        };
        let q = pairs(of("self_attn.q_proj"), HEADS);
        let k = pairs(of("self_attn.k_proj"), KV_HEADS);
        let gate_up = Tensor::cat(&[of("mlp.gate_proj"), of("mlp.up_proj")], 0).unwrap();
        let down = of("mlp.down_proj").t().unwrap().contiguous().unwrap();
        for (name, tensor) in [("wq", q), ("wk", k), ("gate_up", gate_up), ("down", down)] {
            made.push((format!("blocks.{layer}.{name}"), tensor));
        }
        for name in ["self_attn.v_proj", "self_attn.o_proj", "input_layernorm"] {
            made.push((format!("model.layers.{layer}.{name}.weight"), of(name)));
        }
    }
    made
}

/// The bits of all elements, in order.
fn bits(tensor: &Tensor) -> Vec<u8> {
    let mut folder = std::io::Cursor::new(Vec::new());
    tensor.flatten_all().unwrap().contiguous().unwrap().write_bytes(&mut folder).unwrap();
    folder.into_inner()
}

fn assert_same(key: &str, got: &Tensor, expected: &Tensor) {
    assert_eq!(got.dims(), expected.dims(), "{key}");
    assert_eq!(got.dtype(), expected.dtype(), "{key}");
    assert_eq!(bits(got), bits(expected), "{key}");
}

#[test]
fn whole_tensors_are_the_references() {
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        let folder = tempfile::tempdir().unwrap();
        let hub = hub(folder.path(), dtype);
        let tensors = opened(folder.path());
        let vb = tensors.var_builder(dtype, &Device::Cpu);
        let mut read = 0;
        for (key, expected) in reference(&hub) {
            let (path, name) = key.rsplit_once('.').unwrap_or(("", &key));
            let vb = if path.is_empty() { vb.clone() } else { vb.pp(path) };
            assert!(vb.contains_tensor(name), "{key}");
            assert_same(&key, &vb.get(expected.shape(), name).unwrap(), &expected);
            assert_same(&key, &vb.get_unchecked(name).unwrap(), &expected);
            read += 2 * expected.elem_count() * dtype.size_in_bytes();
        }
        assert_eq!(tensors.bytes_read(), read as u64);
    }
}

/// Both ways of candle to a model's tensors meet in its own layers.
#[test]
fn layers_are_built_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path(), DType::F32);
    let vb = opened(folder.path()).var_builder(DType::F32, &Device::Cpu);
    let own = VarBuilder::from_tensors(hub.iter().cloned().collect(), DType::F32, &Device::Cpu);
    let input = tensor(&[3, HIDDEN], DType::F32);
    let out = |vb: VarBuilder<'_>| {
        let path = vb.pp("model.layers.1.self_attn.o_proj");
        let layer = candle_nn::linear_no_bias(HIDDEN, HIDDEN, path).unwrap();
        candle_nn::Module::forward(&layer, &input).unwrap()
    };
    assert_same("o_proj", &out(vb), &out(own));
}

#[test]
fn dtypes_are_converted_as_candle_does() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path(), DType::F32);
    let vb = opened(folder.path()).var_builder(DType::BF16, &Device::Cpu);
    for (key, expected) in reference(&hub) {
        let got = vb.get(expected.shape(), &key).unwrap();
        assert_same(&key, &got, &expected.to_dtype(DType::BF16).unwrap());
    }
}

#[test]
fn a_rank_reads_its_part_alone() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path(), DType::BF16);
    for (key, whole) in reference(&hub) {
        for dim in 0..whole.rank() {
            for world_size in [1, 2, 4] {
                let parts = whole.chunk(world_size, dim).unwrap();
                for (rank, expected) in parts.iter().enumerate() {
                    let tensors = opened(folder.path());
                    let vb = tensors.sharded_var_builder(DType::BF16, &Device::Cpu);
                    let hint = Shard { dim, rank, world_size };
                    let got = vb.get_with_hints(expected.shape(), &key, hint).unwrap();
                    assert_same(&key, &got, expected);
                    // Between rows that were moved there are gaps, so small that they are read
                    // through.
                    let (own, all) = (expected.elem_count() * 2, whole.elem_count() * 2);
                    let read = usize::try_from(tensors.bytes_read()).unwrap();
                    assert!(own <= read && read <= all, "{key}: {read} of {own} to {all}");
                    if dim == 0 && !["down", "wq", "wk"].iter().any(|moved| key.ends_with(moved)) {
                        assert_eq!(read, own, "{key}");
                    }
                    if world_size > 1 {
                        let open = vb.get_with_hints((), &key, hint).unwrap();
                        assert_same(&key, &open, expected);
                        let by_whole = vb.get_with_hints(whole.shape(), &key, hint).unwrap();
                        assert_same(&key, &by_whole, expected);
                    }
                }
            }
        }
    }
}

/// Without its wraps: a backtrace, and a hint.
fn plain(error: Error) -> Error {
    match error {
        Error::WithBacktrace { inner, .. } | Error::Context { inner, .. } => plain(*inner),
        other => other,
    }
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    hub(folder.path(), DType::F32);
    let tensors = opened(folder.path());
    let vb = tensors.var_builder(DType::F32, &Device::Cpu);

    assert!(!vb.contains_tensor("blocks.0.wz"));
    let missing = vb.get((HIDDEN, HIDDEN), "blocks.0.gate_upp").unwrap_err();
    assert!(missing.to_string().contains("did you mean blocks.0.gate_up?"), "{missing}");
    let Error::CannotFindTensor { path } = plain(missing) else { panic!() };
    assert_eq!(path, "blocks.0.gate_upp");
    // The name that it has in the file is none of the model's.
    let moved = vb.get_unchecked("model.layers.0.mlp.down_proj.weight").unwrap_err();
    assert!(matches!(plain(moved), Error::CannotFindTensor { .. }));

    let wrong = plain(vb.get((HIDDEN, FFN), "blocks.0.down").unwrap_err());
    let Error::UnexpectedShape { msg, expected, got } = wrong else { panic!("{wrong}") };
    assert!(msg.contains("blocks.0.down"), "{msg}");
    assert_eq!((expected.dims(), got.dims()), (&[HIDDEN, FFN][..], &[FFN, HIDDEN][..]));
}

#[test]
fn parts_that_there_are_not_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    hub(folder.path(), DType::F32);
    let vb = opened(folder.path()).sharded_var_builder(DType::F32, &Device::Cpu);
    let refused = |dim, rank, world_size, shape: &[usize]| {
        let hint = Shard { dim, rank, world_size };
        plain(vb.get_with_hints(shape, "blocks.1.down", hint).unwrap_err())
    };
    assert!(matches!(refused(0, 0, 5, &[]), Error::ShapeMismatchSplit { n_parts: 5, dim: 0, .. }));
    assert!(matches!(refused(0, 0, 2, &[7, HIDDEN]), Error::UnexpectedShape { .. }));
    assert!(matches!(refused(0, 0, 1, &[7, HIDDEN]), Error::UnexpectedShape { .. }));
    for (dim, rank, world_size, said) in
        [(2, 0, 2, "no dimension 2"), (0, 2, 2, "no rank 2 of 2"), (0, 0, 0, "no rank 0 of 0")]
    {
        let message = refused(dim, rank, world_size, &[]).to_string();
        assert!(message.contains(said) && message.contains("blocks.1.down"), "{message}");
    }
}

#[test]
fn a_file_that_is_gone_is_an_error_and_a_dtype_that_is_none_too() {
    let folder = tempfile::tempdir().unwrap();
    hub(folder.path(), DType::F32);
    let tensors = opened(folder.path());
    let file = folder.path().join("model-00001-of-00002.safetensors");
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(2000).unwrap();
    let vb = tensors.var_builder(DType::F32, &Device::Cpu);
    let error = vb.get_unchecked("blocks.0.gate_up").unwrap_err().to_string();
    assert!(error.contains("model-00001-of-00002.safetensors"), "{error}");

    let header = r#"{"flags":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}"#;
    let file = folder.path().join("flags.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[0, 1, 1, 0]);
    std::fs::write(&file, bytes).unwrap();
    let none = std::iter::empty::<&str>();
    let planned = Conversion::open(&file).unwrap().load(none).unwrap().plan().unwrap();
    let vb = Tensors::new(planned).var_builder(DType::U8, &Device::Cpu);
    let error = vb.get(4, "flags").unwrap_err().to_string();
    assert!(error.contains("flags is BOOL"), "{error}");
}
