//! Runs that are killed, starved or pulled the ground from under: what can be seen afterwards is
//! whole, and the input is what it was.

mod disks;
mod kills;
mod ranks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RENAME: &str = "rename \"model.**\" <-> \"other.**\"\n";
const TURN: &str = "rename \"model.**\" <-> \"other.**\"\nmap \"{a**}.up.weight\" <-> \"{a**}.turned\" via transpose(0, 1)\n";

const PACK: &str = "rename \"model.**\" <-> \"other.**\"\nmap \"other.{e}.up.weight\" <-> \"other.packed\" via stack(e)\n";

/// What launchers tell their processes.
pub(super) const LAUNCHERS: [&str; 9] = [
    "RANK",
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
];

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// A directory with a sharded checkpoint `source` and rule files.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new(shards: usize, side: usize) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let mut random = Random(0x1234_5678_9abc_def1);
        std::fs::create_dir(place.path("source")).unwrap();
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
            let bytes: Vec<u8> =
                (0..side * side / 4).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
            let (a, b) = bytes.split_at(side * side);
            let view = |bytes| {
                safetensors::tensor::TensorView::new(
                    safetensors::Dtype::U8,
                    vec![side, side],
                    bytes,
                )
                .unwrap()
            };
            let keys = [format!("model.{shard}.up.weight"), format!("model.{shard}.down.weight")];
            let views = [(keys[0].as_str(), view(a)), (keys[1].as_str(), view(&b[..side * side]))];
            safetensors::serialize_to_file(views, None, &place.path("source").join(&name)).unwrap();
            map.extend(keys.into_iter().map(|key| (key, name.clone().into())));
        }
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        std::fs::write(place.path("source/model.safetensors.index.json"), index.to_string())
            .unwrap();
        std::fs::write(place.path("source/config.json"), "{}").unwrap();
        std::fs::write(place.path("rename.graft"), RENAME).unwrap();
        std::fs::write(place.path("turn.graft"), TURN).unwrap();
        std::fs::write(place.path("pack.graft"), PACK).unwrap();
        // So long a name that no header has the room for it.
        std::fs::write(place.path("grow.graft"), RENAME.replace("other", &"long".repeat(1500)))
            .unwrap();
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Its directory.
    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    /// The binary, with the variables of no launcher.
    pub(super) fn regraft(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regraft"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for name in LAUNCHERS {
            command.env_remove(name);
        }
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) {
        let output = self.regraft(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Names in the directory, hidden ones too.
    fn names(&self) -> Vec<String> {
        crate::execute::names(self.0.path())
    }

    /// Leftovers of killed runs.
    pub(super) fn hidden(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with('.')).collect()
    }
}

/// Name -> content, for a directory of files; nothing if it isn't there.
pub(super) fn contents(directory: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let entries = directory.read_dir().ok()?;
    Some(
        entries
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
            })
            .collect(),
    )
}

/// Starts a run and kills it when it is time, unless it ends before. Gives whether it was killed.
fn kill_when(mut command: Command, mut time: impl FnMut(Duration) -> bool) -> bool {
    let mut child: Child = command.stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !time(start.elapsed()) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let _ = child.kill();
    !child.wait().unwrap().success()
}

fn kill_after(command: Command, delay: Duration) -> bool {
    kill_when(command, |elapsed| elapsed >= delay)
}

#[test]
fn resuming_keeps_what_is_whole_and_redoes_what_is_not() {
    let place = Place::new(4, 512);
    let arguments = [
        "apply",
        "source",
        "--rules",
        "rename.graft",
        "-o",
        "out",
        "--max-shard-size",
        "600000",
        "--quiet",
        "--json",
    ];
    place.run(&arguments);
    let whole = contents(&place.path("out")).unwrap();
    std::fs::remove_dir_all(place.path("out")).unwrap();
    // What the work is differs only in how many share it.
    let work = work_alone(&place, &arguments);
    // One rank of two leaves a directory as a killed run does; under a name that a single run takes
    // up.
    let share = [&arguments[..], &["--rank", "0", "--world-size", "2"]].concat();
    place.run(&share);
    assert_eq!(place.hidden(), [".out.regraft-ranks"]);
    assert!(contents(&place.path("out")).is_none());
    let resumed = |corrupt: bool| -> u64 {
        let left = place.path(".out.regraft-abc");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(place.path(".out.regraft-ranks"))
            .arg(&left)
            .status()
            .unwrap();
        assert!(copied.success());
        if corrupt {
            for entry in left.join("out").read_dir().unwrap() {
                std::fs::write(entry.unwrap().path(), "short").unwrap();
            }
        }
        std::fs::write(left.join("run"), &work).unwrap();
        let output = place
            .regraft(&[&arguments[..], &["--resume"]].concat())
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(contents(&place.path("out")).unwrap() == whole, "other bytes");
        std::fs::remove_dir_all(place.path("out")).unwrap();
        assert_eq!(place.hidden(), [".out.regraft-ranks"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["report"]["kept"].as_u64().unwrap()
    };
    assert_eq!(resumed(true), 0);
    let kept = resumed(false);
    assert!(kept > 0 && kept < 8, "{kept}");
}

/// What a run of these arguments notes of its work, caught by stopping it midway.
fn work_alone(place: &Place, arguments: &[&str]) -> String {
    for delay in 1..400u64 {
        let mut child = place.regraft(arguments).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(500 * delay));
        let _ = child.kill();
        let _ = child.wait();
        let found = place
            .hidden()
            .into_iter()
            .filter(|name| !name.ends_with("-ranks") && !name.ends_with("-abc"));
        let mut text = None;
        for name in found {
            text = text.or(std::fs::read_to_string(place.path(&name).join("run")).ok());
            std::fs::remove_dir_all(place.path(&name)).unwrap();
        }
        let _ = std::fs::remove_dir_all(place.path("out"));
        if let Some(text) = text {
            return text;
        }
    }
    panic!("no run was caught midway");
}

#[test]
fn a_source_that_is_cut_or_vanishes_during_the_run_is_an_error() {
    use regraft::execute::{Progress, WriteOptions, write};
    use regraft::store::{OpenOptions, Store as _, open};
    use regraft::{Route, compile, plan};

    for (rules, vanish) in [(RENAME, false), (TURN, false), (TURN, true), (RENAME, true)] {
        let place = Place::new(3, 1024);
        let source = open(place.path("source"), &OpenOptions::default()).unwrap();
        let route = Route::named(vec![compile(rules).unwrap()], None, None, false).unwrap();
        let plan = plan(&route.stages(), source.header(), &Default::default()).unwrap();
        if vanish {
            // Before any byte is read: afterwards open files stay readable, which is as good.
            std::fs::remove_dir_all(place.path("source")).unwrap();
        }
        let last = place.path("source/model-00003-of-00003.safetensors");
        let cut = std::sync::Once::new();
        let progress = |_: Progress| {
            cut.call_once(|| {
                if let Ok(file) = std::fs::File::options().write(true).open(&last) {
                    file.set_len(300_000).unwrap();
                }
            });
        };
        // One thread, so that the last file is still to be read when the first job is done.
        let options =
            WriteOptions { progress: Some(&progress), memory: 1 << 16, ..WriteOptions::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let error =
            pool.install(|| write(&plan, &source, &place.path("out"), &options)).unwrap_err();
        let said = error.to_string();
        assert!(
            if vanish { said.contains("cannot open") } else { said.contains("became shorter") },
            "{said}"
        );
        assert!(error.file().is_some_and(|file| file.starts_with(place.path("source"))), "{said}");
        assert!(!place.path("out").exists() && place.hidden().is_empty(), "{:?}", place.names());
    }
}

#[test]
fn checksums_tell_which_tensor_changed() {
    let place = Place::new(3, 64);
    place.run(&[
        "apply",
        "source",
        "--rules",
        "turn.graft",
        "-o",
        "out",
        "--checksums",
        "--max-shard-size",
        "9000",
        "--quiet",
    ]);
    let verify = || {
        let output = place.regraft(&["verify", "out"]).stdout(Stdio::piped()).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = verify();
    assert_eq!((code, said.contains("3 files")), (0, true), "{said}");
    // The sums are those of BLAKE3 itself, over a whole file.
    let manifest = place.path("out/model.safetensors.checksums.json");
    let sums: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let shard = place.path("out/model-00002-of-00003.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    assert_eq!(
        sums["files"]["model-00002-of-00003.safetensors"],
        blake3::hash(&bytes).to_hex().as_str()
    );
    assert_eq!(sums["tensors"].as_object().unwrap().len(), 6);
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, &changed).unwrap();
    let (code, said) = verify();
    assert_eq!(code, 1);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let last =
        file.iter().max_by_key(|(_, view)| view.data().as_ptr() as usize).unwrap().0.to_owned();
    assert!(said.contains(&last) && said.matches("differs").count() == 2, "{said}");
    std::fs::remove_file(&shard).unwrap();
    assert_eq!(verify().0, 1);
    for (text, why) in [
        ("{}", "no checksums"),
        ("{\"algorithm\":\"md5\",\"files\":{},\"tensors\":{}}", "md5"),
        ("{\"algorithm\":\"blake3\",\"files\":{\"../x\":\"\"},\"tensors\":{}}", "outside"),
    ] {
        std::fs::write(&manifest, text).unwrap();
        let (code, said) = verify();
        assert_eq!((code, said.contains(why)), (3, true), "{said}");
    }
    // Sums of a source's files say nothing of the output's.
    std::fs::write(place.path("source/model.safetensors.checksums.json"), "{}").unwrap();
    place.run(&["apply", "source", "--rules", "rename.graft", "-o", "plain", "--quiet"]);
    assert!(!place.path("plain/model.safetensors.checksums.json").exists());
}

#[test]
fn memory_does_not_grow_with_the_tensors() {
    let place = Place(tempfile::tempdir().unwrap());
    std::fs::create_dir(place.path("source")).unwrap();
    let side = 6000u64;
    // 36 MB in one tensor, all zeros and mostly holes.
    let header = format!(
        "{{\"model.up.weight\":{{\"dtype\":\"U8\",\"shape\":[{side},{side}],\"data_offsets\":[0,{}]}}}}",
        side * side
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let path = place.path("source/model.safetensors");
    std::fs::write(&path, &bytes).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(bytes.len() as u64 + side * side)
        .unwrap();
    std::fs::write(place.path("turn.graft"), TURN).unwrap();
    let most = |arguments: &[&str]| -> u64 {
        let mut child = place.regraft(arguments).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let anonymous = text.lines().find_map(|line| {
                line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse::<u64>().ok()
            });
            most = most.max(anonymous.unwrap_or(0) * 1024);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(child.wait().unwrap().success());
        most
    };
    let idle = most(&["inspect", "source"]);
    let used = most(&[
        "apply",
        "source",
        "--rules",
        "turn.graft",
        "-o",
        "out",
        "--memory",
        "4MiB",
        "--quiet",
    ]);
    assert!(used > 0, "this system doesn't say what a process uses");
    // 4 MiB of buffers, and some for threads and the plan; the tensor alone has 36 MB.
    assert!(used < idle + (14 << 20), "{} MiB, idle {} MiB", used >> 20, idle >> 20);
    let len = place.path("out/model.safetensors").metadata().unwrap().len();
    assert!(len > side * side);
}

#[test]
fn more_shards_than_a_process_may_open_by_default_are_converted() {
    let place = Place::new(80, 16);
    let apply = "apply source --rules rename.graft -o out --max-shard-size 600 --quiet";
    let limited = |limit: &str| {
        let line = format!("ulimit {limit}; exec \"$0\" {apply}");
        Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_regraft")])
            .current_dir(place.root())
            .output()
            .unwrap()
    };
    // What may be raised is raised.
    let output = limited("-Sn 32");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(contents(&place.path("out")).unwrap().len(), 80 + 2);
    std::fs::remove_dir_all(place.path("out")).unwrap();
    // What may not is said, and nothing is left.
    let output = limited("-n 32");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("open files"), "{said}");
    assert!(!place.path("out").exists());
}

#[test]
fn checksums_and_records_that_are_no_files_are_not_waited_for() {
    let place = Place::new(2, 64);
    place.run(&[
        "apply",
        "source",
        "-o",
        "out",
        "--rules",
        "rename.graft",
        "--checksums",
        "--quiet",
    ]);
    let sums = place.path("out/model.safetensors.checksums.json");
    let refused = || {
        let output = place.regraft(&["verify", "out"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains("not a regular file"), "{said}");
    };
    std::fs::remove_file(&sums).unwrap();
    assert!(Command::new("mkfifo").arg(&sums).status().unwrap().success());
    refused();
    std::fs::remove_file(&sums).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &sums).unwrap();
    refused();
    // A file that they name.
    let named = serde_json::json!({ "algorithm": "blake3", "files": { "pipe": "00", "zero": "00" }, "tensors": {} });
    std::fs::remove_file(&sums).unwrap();
    std::fs::write(&sums, named.to_string()).unwrap();
    assert!(Command::new("mkfifo").arg(place.path("out/pipe")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", place.path("out/zero")).unwrap();
    let output = place.regraft(&["verify", "out"]).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("not a regular file").count(), 2);
    std::fs::remove_dir_all(place.path("out")).unwrap();

    // The record of a file that another rank wrote.
    let arguments = [
        "apply",
        "source",
        "-o",
        "out",
        "--rules",
        "rename.graft",
        "--max-shard-size",
        "9000",
        "--quiet",
        "--world-size",
        "2",
    ];
    place.run(&[&arguments[..], &["--rank", "0"]].concat());
    let left = place.path(".out.regraft-ranks");
    let records = left
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "done"));
    for record in records.collect::<Vec<_>>() {
        std::fs::remove_file(&record).unwrap();
        assert!(Command::new("mkfifo").arg(&record).status().unwrap().success());
    }
    place.run(&[&arguments[..], &["--rank", "1"]].concat());
    place.run(&[&arguments[..], &["--rank", "0"]].concat());
    assert_eq!(contents(&place.path("out")).unwrap().len(), 2 + 2);
}
