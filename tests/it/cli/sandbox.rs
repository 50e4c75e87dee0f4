//! A directory of a test's own, checkpoints in it, and the binary run there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::tensor::{Dtype, TensorView};

pub(super) struct Sandbox {
    directory: tempfile::TempDir,
}

/// What a run of the binary gave.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

/// Key -> shape, bytes; of F32.
pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

impl Sandbox {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Writes a safetensors file by its own library, with `format: pt`.
    pub(super) fn checkpoint(&self, name: &str, tensors: &Tensors) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(key, (shape, bytes))| {
                (key.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
            })
            .collect();
        let metadata =
            [("format".to_owned(), "pt".to_owned()), ("step".to_owned(), "7".to_owned())].into();
        safetensors::serialize_to_file(views, Some(metadata), &path).unwrap();
    }

    /// Every tensor of the safetensors files in a directory, read by their own library.
    pub(super) fn tensors(&self, name: &str) -> Tensors {
        let mut all = Tensors::new();
        for entry in std::fs::read_dir(self.path(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "safetensors") {
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            for (key, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                assert_eq!(view.dtype(), Dtype::F32);
                let before = all.insert(key, (view.shape().to_vec(), view.data().to_vec()));
                assert!(before.is_none());
            }
        }
        all
    }

    /// Every path below the sandbox with the content of files.
    pub(super) fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn below(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    below(&path, found);
                    found.insert(path, Vec::new());
                } else {
                    found.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        below(self.directory.path(), &mut found);
        found
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    pub(super) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regraft"));
        command.args(arguments).current_dir(self.directory.path());
        command
    }
}

/// A tensor whose bytes tell its key and its elements apart.
pub(super) fn tensor(key: &str, shape: &[usize]) -> (Vec<usize>, Vec<u8>) {
    let seed =
        key.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let count = shape.iter().product::<usize>() as u32;
    let bytes = (0..count)
        .flat_map(|i| {
            ((seed.wrapping_add(i.wrapping_mul(2_654_435_761)) % 4096) as f32).to_le_bytes()
        })
        .collect();
    (shape.to_vec(), bytes)
}

/// A Mixtral of two layers and a few experts, in hub names.
pub(super) fn mixtral(experts: usize) -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |key: String, shape: &[usize]| {
        let tensor = tensor(&key, shape);
        tensors.insert(key, tensor);
    };
    add("model.embed_tokens.weight".to_owned(), &[16, 4]);
    add("lm_head.weight".to_owned(), &[16, 4]);
    add("model.norm.weight".to_owned(), &[4]);
    for layer in 0..2 {
        let prefix = format!("model.layers.{layer}");
        add(format!("{prefix}.self_attn.q_proj.weight"), &[4, 4]);
        add(format!("{prefix}.block_sparse_moe.gate.weight"), &[experts, 4]);
        for expert in 0..experts {
            let prefix = format!("{prefix}.block_sparse_moe.experts.{expert}");
            add(format!("{prefix}.w1.weight"), &[6, 4]);
            add(format!("{prefix}.w2.weight"), &[4, 6]);
            add(format!("{prefix}.w3.weight"), &[6, 4]);
        }
    }
    tensors
}

pub(super) const MIXTRAL_CONFIG: &str = r#"{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "tie_word_embeddings": false}"#;
