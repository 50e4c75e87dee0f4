//! Checkpoints of a hub: read by ranges, past what breaks, and no further than is needed.

mod hub;
mod network;
mod relays;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::sandbox::{Ran, Sandbox, Tensors, mixtral, tensor};
use hub::{Answer, COMMIT, Fault, Hub, SIGNATURE};

/// A token that must never be seen.
const TOKEN: &str = "hf_tOkEnThAtNoBoDySeEs";

/// A sandbox with a Mixtral in three shards, in the repository `org/m` of a hub. Most of a shard
/// comes after its header.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let wide = |(key, (shape, _)): (String, (Vec<usize>, _))| {
        let shape: Vec<usize> = shape.iter().map(|&n| if n == 3 { n } else { 16 * n }).collect();
        (key.clone(), tensor(&key, &shape))
    };
    let tensors: Vec<_> = mixtral(3).into_iter().map(wide).collect();
    let mut map = serde_json::Map::new();
    for (at, part) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", at + 1);
        let part: Tensors = part.iter().cloned().collect();
        map.extend(part.keys().map(|key| (key.clone(), file.clone().into())));
        sandbox.checkpoint(&format!("hub/org/m/{file}"), &part);
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    sandbox.write("hub/org/m/model.safetensors.index.json", index.to_string());
    let config = r#"{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_hidden_layers": 2, "num_local_experts": 3}"#;
    sandbox.write("hub/org/m/config.json", config);
    sandbox.write("hub/org/m/tokenizer.json", "{}".repeat(2000));
    sandbox
}

/// A command that asks a hub.
fn command(sandbox: &Sandbox, hub: &Hub, arguments: &[&str]) -> Command {
    let mut command = sandbox.command(arguments);
    for (name, _) in std::env::vars() {
        let upper = name.to_ascii_uppercase();
        if upper.starts_with("HF_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
        .env("HF_ENDPOINT", &hub.endpoint)
        .env("HF_HOME", sandbox.path("hf"))
        .env("REGRAFT_CACHE", sandbox.path("cache"))
        .env("REGRAFT_TIMEOUT", "5");
    command
}

fn ran(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    Ran { code: output.status.code().unwrap_or(-1), out, err }
}

fn run(sandbox: &Sandbox, hub: &Hub, arguments: &[&str]) -> Ran {
    ran(&mut command(sandbox, hub, arguments))
}

/// What a conversion from the disk makes of the same checkpoint.
fn expected(sandbox: &Sandbox) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let made = sandbox.run(&["apply", "hub/org/m", "-o", "expected"]);
    assert_eq!(made.code, 0, "{}", made.err);
    files(sandbox, "expected")
}

fn files(sandbox: &Sandbox, name: &str) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    files_in(&sandbox.path(name))
}

fn files_in(folder: &std::path::Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

/// Converts past faults; gives the hub's log.
fn converts_past(breaks: impl Fn(&Answer) -> Fault + Send + Sync + 'static) -> Vec<hub::Seen> {
    let sandbox = sandbox();
    let expected = expected(&sandbox);
    let hub = Hub::breaking(sandbox.path("hub"), breaks);
    let made = run(&sandbox, &hub, &["apply", "hf://org/m", "-o", "out"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(files(&sandbox, "out") == expected, "the same as from the disk");
    hub.log()
}

/// Doesn't convert; gives what was said. Nothing of an output is there.
fn fails_by(breaks: impl Fn(&Answer) -> Fault + Send + Sync + 'static) -> String {
    let sandbox = sandbox();
    let hub = Hub::breaking(sandbox.path("hub"), breaks);
    let made = run(&sandbox, &hub, &["apply", "hf://org/m", "-o", "made/out"]);
    assert_eq!(made.code, 3, "{}", made.err);
    std::fs::create_dir(sandbox.path("made")).unwrap();
    let made = run(&sandbox, &hub, &["apply", "hf://org/m", "-o", "made/out"]);
    assert_eq!(made.code, 3, "{}", made.err);
    assert_eq!(files(&sandbox, "made"), BTreeMap::new());
    assert!(made.err.contains("hf://org/m@"), "which file it is: {}", made.err);
    made.err
}

#[test]
fn a_hub_gives_what_a_disk_gives_and_no_byte_twice() {
    let log = converts_past(|_| Fault::None);
    let mut seen: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for one in log.iter().filter(|one| one.sent > 0) {
        let Some(range) = one.range else { continue };
        assert!(one.path.contains(".json") || one.storage, "large files are not the hub's");
        seen.entry(&one.path).or_default().push((range.0, range.0 + one.sent));
    }
    assert_eq!(seen.len(), 3 + 2, "weights, config and tokenizer, and no index");
    for (path, mut ranges) in seen.into_iter().filter(|(path, _)| path.contains("safetensors")) {
        ranges.sort_unstable();
        assert!(ranges.len() > 1, "{path}: {ranges:?}");
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{path}: {ranges:?}");
    }
}

#[test]
fn every_command_takes_an_address() {
    let sandbox = sandbox();
    let hub = Hub::new(sandbox.path("hub"));
    for arguments in [
        &["inspect"][..],
        &["plan"],
        &["detect"],
        &["graph"],
        &["ties"],
        &["explain", "model.embed_tokens.weight"],
    ] {
        let of = |source: &str| {
            let mut arguments = arguments.to_vec();
            arguments.insert(1, source);
            let ran = run(&sandbox, &hub, &arguments);
            (
                ran.code,
                ran.out.replace(
                    "copied by the system (shared blocks instead, if the filesystem can)",
                    "streamed",
                ),
            )
        };
        let (far, near) = (of("hf://org/m"), of("hub/org/m"));
        let cut = |(code, out): (i32, String)| {
            let out: Vec<_> =
                out.lines().filter(|line| !line.contains("in place")).map(str::to_owned).collect();
            (code, out)
        };
        assert_eq!(cut(far), cut(near), "{arguments:?}");
    }
    let same = run(&sandbox, &hub, &["diff", "hf://org/m", "hub/org/m"]);
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    let config = "hf://org/m/config.json";
    let target = run(
        &sandbox,
        &hub,
        &["plan", "hub/org/m", "--rules", "wrappers", "--config", config, "--target", "hf://org/m"],
    );
    assert_eq!(target.code, 0, "{}{}", target.out, target.err);
    let file = format!("{}/org/m/resolve/main/model-00001-of-00003.safetensors", hub.endpoint);
    let index = format!("{}/org/m/resolve/main/model.safetensors.index.json", hub.endpoint);
    for (source, keys) in [(file.as_str(), "total: 9 keys"), (index.as_str(), "total: 25 keys")] {
        let found = run(&sandbox, &hub, &["inspect", source]);
        assert!(found.code == 0 && found.out.contains(keys), "{}{}", found.out, found.err);
    }
    let sums = ["apply", "hub/org/m", "-o", "hub/org/sums", "--checksums"];
    assert_eq!(run(&sandbox, &hub, &sums).code, 0);
    let verified = run(&sandbox, &hub, &["verify", "hf://org/sums"]);
    assert!(
        verified.code == 0 && verified.out.contains("as their checksums say"),
        "{}",
        verified.err
    );
    let without = run(&sandbox, &hub, &["verify", "hf://org/m"]);
    assert!(without.code == 3 && without.err.contains("--checksums"), "{}", without.err);
    let in_place = run(&sandbox, &hub, &["apply", "hf://org/m", "--in-place"]);
    assert!(in_place.code == 3 && in_place.err.contains("in place"), "{}", in_place.err);
}

#[test]
fn other_formats_are_read_by_ranges_too() {
    let sandbox = Sandbox::new();
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folders = [
        "torch/bin_sharded",
        "torch/bin_sharded_by_index",
        "dcp/fsdp2_sgd_2/ckpt",
        "dcp/by_hand/ckpt",
    ];
    for (at, folder) in folders.iter().enumerate() {
        let folder = fixtures.join(folder);
        for (name, bytes) in files_in(&folder) {
            sandbox.write(&format!("hub/org/m{at}/{}", name.to_str().unwrap()), bytes);
        }
    }
    let hub = Hub::new(sandbox.path("hub"));
    for (at, folder) in folders.iter().enumerate() {
        let (far, near) = (format!("hf://org/m{at}"), format!("hub/org/m{at}"));
        let (a, b) = (format!("far{at}"), format!("near{at}"));
        let rules = ["--rules", "wrappers"];
        for (source, out) in [(&far, &a), (&near, &b)] {
            let arguments = [&["apply", source, "-o", out], &rules[..]].concat();
            let made = run(&sandbox, &hub, &arguments);
            assert_eq!(made.code, 0, "{folder}: {}", made.err);
        }
        assert!(files(&sandbox, &a) == files(&sandbox, &b), "{folder}");
    }
}

#[test]
fn a_header_is_read_once_and_kept() {
    let sandbox = sandbox();
    let hub = Hub::new(sandbox.path("hub"));
    let first = run(&sandbox, &hub, &["plan", "hf://org/m"]);
    hub.clear();
    let again = run(&sandbox, &hub, &["plan", "hf://org/m"]);
    assert_eq!((again.code, &again.out), (0, &first.out), "{}", again.err);
    let paths: Vec<String> = hub.log().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/api/models/org/m/revision/main"], "which commit it is, and no more");
    // A cache that is damaged is none.
    let mut folders = vec![sandbox.path("cache")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mut bytes = std::fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
    let again = run(&sandbox, &hub, &["plan", "hf://org/m"]);
    assert_eq!((again.code, again.out), (0, first.out));
    assert!(hub.sent(".safetensors") > 0);
}

#[test]
fn what_a_stage_does_not_need_is_not_fetched() {
    let sandbox = Sandbox::new();
    let tensors: Tensors = (0..8)
        .map(|layer| format!("model.layers.{layer}.w"))
        .map(|key| (key.clone(), tensor(&key, &[256, 256])))
        .collect();
    sandbox.checkpoint("hub/org/m/model.safetensors", &tensors);
    sandbox.write("stage.txt", "model.layers.2.w\nmodel.layers.3.w\n");
    let hub = Hub::new(sandbox.path("hub"));
    let arguments =
        ["apply", "hf://org/m", "-o", "out", "--target", "stage.txt", "--stage", "--json"];
    let planned = run(&sandbox, &hub, &["plan", "hf://org/m"]);
    assert_eq!(planned.code, 0, "{}", planned.err);
    hub.clear();
    let made = run(&sandbox, &hub, &arguments);
    assert_eq!(made.code, 0, "{}", made.err);
    assert_eq!(hub.sent(".safetensors"), 2 * 256 * 256 * 4);
    assert_eq!(sandbox.tensors("out").len(), 2);
    let report: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!(report["bytes_fetched"], 2 * 256 * 256 * 4, "{report}");
}

#[test]
fn what_passes_is_tried_again_and_goes_on_at_the_byte() {
    converts_past(|answer| match answer.retry {
        0 => Fault::Status(503, "Retry-After: 0\r\n"),
        1 => Fault::Status(429, "Retry-After: 0\r\n"),
        _ => Fault::None,
    });
    let log = converts_past(|answer| if answer.retry == 0 { Fault::Cut(300) } else { Fault::None });
    let whole: u64 =
        log.iter().filter(|seen| seen.path.contains(".safetensors")).map(|seen| seen.sent).sum();
    let without = converts_past(|_| Fault::None);
    let needed: u64 = without
        .iter()
        .filter(|seen| seen.path.contains(".safetensors"))
        .map(|seen| seen.sent)
        .sum();
    // Headers begin anew, tensors go on.
    assert!(whole <= needed + 3 * 300, "{whole} {needed}");
    converts_past(|answer| if answer.number == 4 { Fault::Garbage } else { Fault::None });
    converts_past(|answer| if answer.number == 2 { Fault::Silent(6000) } else { Fault::None });
}

#[test]
fn what_stays_is_said_with_what_to_do() {
    let always = |fault: Fault| move |_: &Answer| fault.clone();
    for (fault, said, help) in [
        (Fault::Status(403, ""), "refuses access (403", "HF_TOKEN"),
        (Fault::Status(404, ""), "no such file", "address"),
        (Fault::Status(500, "Retry-After: 0\r\n"), "has failed (500", "again"),
        (Fault::Status(501, ""), "can't do what it is asked for (501", "endpoint"),
        (Fault::Status(429, "Retry-After: 0\r\n"), "too often (429", "HF_TOKEN"),
        (Fault::Status(429, "Retry-After: 86400\r\n"), "too often (429", "wait"),
        (Fault::Long, "longer", ""),
        (
            Fault::Redirect("/org/m/resolve/x/model-00001-of-00003.safetensors".to_owned()),
            "redirects more than",
            "",
        ),
        (Fault::Redirect("gopher://x".to_owned()), "no address", ""),
    ] {
        let what = format!("{fault:?}");
        let text = fails_by(always(fault));
        assert!(text.contains(said) && text.contains(help), "{what}: {text}");
    }
    // After the headers: other bytes, another file, and one that is sent whole each time.
    for (fault, said) in [
        (Fault::Moved, "other bytes"),
        (Fault::OtherTag, "changed while it was read"),
        (Fault::Status(416, ""), "changed while it was read"),
    ] {
        let text =
            fails_by(move |answer| if answer.number > 3 { fault.clone() } else { Fault::None });
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn a_server_without_ranges_gives_headers_and_small_files_only() {
    converts_past(|_| Fault::Whole);
    let sandbox = Sandbox::new();
    sandbox.checkpoint(
        "hub/org/m/model.safetensors",
        &[("a".to_owned(), tensor("a", &[3 << 20]))].into(),
    );
    let hub = Hub::breaking(sandbox.path("hub"), |_| Fault::Whole);
    let planned = run(&sandbox, &hub, &["plan", "hf://org/m"]);
    assert_eq!(planned.code, 0, "{}", planned.err);
    let made = run(&sandbox, &hub, &["apply", "hf://org/m", "-o", "out"]);
    assert_eq!(made.code, 3);
    assert!(
        made.err.contains("doesn't answer ranges") && made.err.contains("from the disk"),
        "{}",
        made.err
    );
    assert!(!sandbox.path("out").exists());
}

#[test]
fn who_may_not_is_told_how_to() {
    let sandbox = sandbox();
    let hub = Hub::gated(sandbox.path("hub"), TOKEN);
    let without = run(&sandbox, &hub, &["plan", "hf://org/m"]);
    assert!(
        without.code == 3 && without.err.contains("gated") && without.err.contains("HF_TOKEN"),
        "{}",
        without.err
    );
    let wrong =
        ran(command(&sandbox, &hub, &["plan", "hf://org/m"]).env("HF_TOKEN", "hf_wrongwrong"));
    assert!(
        wrong.code == 3 && wrong.err.contains("ask for access") && !wrong.err.contains("hf_wrong"),
        "{}",
        wrong.err
    );
    for (source, said) in [
        ("hf://org/nothing", "no such repository"),
        ("hf://org/m@v9", "no such"),
        ("hf://org/m/folder", "no such file"),
        ("hf://", "names no source"),
    ] {
        let ran = ran(command(&sandbox, &hub, &["inspect", source]).env("HF_TOKEN", TOKEN));
        assert!(ran.code == 3 && ran.err.contains(said), "{source}: {}", ran.err);
    }
}

#[test]
fn no_secret_is_seen_and_none_goes_to_another_host() {
    let sandbox = sandbox();
    let hub = Hub::gated(sandbox.path("hub"), TOKEN);
    sandbox.write("hf/token", format!("{TOKEN}\n"));
    let mut said = String::new();
    for arguments in [
        &["apply", "hf://org/m", "-o", "out", "--record", "--checksums", "--progress", "json"][..],
        &["apply", "hf://org/m", "-o", "other", "--json"],
        &["plan", "hf://org/m@nothing"],
        &["inspect", "hf://org/m", "--json"],
    ] {
        let ran = run(&sandbox, &hub, arguments);
        said.push_str(&format!("{}{}", ran.out, ran.err));
    }
    let base = hub.endpoint.replace("://", "://name:pAsSwOrD@");
    let address = format!("{base}/org/m/resolve/main/nothing.safetensors?sig={SIGNATURE}");
    let ran = run(&sandbox, &hub, &["inspect", &address]);
    assert_eq!(ran.code, 3);
    said.push_str(&ran.err);
    assert!(sandbox.tensors("out").len() > 10, "it did something");
    std::fs::remove_file(sandbox.path("hf/token")).unwrap();
    for secret in [TOKEN, SIGNATURE, "pAsSwOrD"] {
        assert!(!said.contains(secret), "{said}");
        for (path, content) in sandbox.snapshot() {
            let content = String::from_utf8_lossy(&content).into_owned();
            assert!(!content.contains(secret), "{}", path.display());
        }
    }
    let log = hub.log();
    assert!(log.iter().any(|seen| seen.authorization.is_some()));
    assert!(log.iter().any(|seen| seen.storage));
    for seen in log.iter().filter(|seen| seen.storage) {
        assert_eq!(seen.authorization, None, "{seen:?}");
    }
}

#[test]
fn a_run_that_was_killed_goes_on_and_fetches_only_what_it_lacks() {
    let sandbox = Sandbox::new();
    let file = |at: usize| format!("model-{at:05}-of-00003.safetensors");
    for at in 1..=3 {
        let keys = (0..4).map(|key| format!("layers.{at}.{key}.w"));
        let tensors = keys.map(|key| (key.clone(), tensor(&key, &[256, 256]))).collect();
        sandbox.checkpoint(&format!("hub/org/m/{}", file(at)), &tensors);
    }
    // Of the third file, only the header comes.
    let hub = Hub::breaking(sandbox.path("hub"), |answer| {
        let is_last = answer.file == "model-00003-of-00003.safetensors" && answer.number > 3;
        if is_last { Fault::Silent(60_000) } else { Fault::None }
    });
    let arguments =
        ["apply", "hf://org/m", "-o", "out", "--max-shard-size", "1050KB", "--resume", "--json"];
    let mut child = command(&sandbox, &hub, &arguments).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let whole = 4 * 256 * 256 * 4;
    while hub.sent(&file(1)) < whole || hub.sent(&file(2)) < whole {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", hub.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(1000));
    child.kill().unwrap();
    child.wait().unwrap();
    let hub = Hub::new(sandbox.path("hub"));
    let made = run(&sandbox, &hub, &arguments);
    assert_eq!(made.code, 0, "{}", made.err);
    let report: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!(report["report"]["kept"], 2, "{report}");
    // Another endpoint: headers of its files aren't in the cache.
    let head = 16 << 10;
    let header =
        std::fs::metadata(sandbox.path(&format!("hub/org/m/{}", file(3)))).unwrap().len() - whole;
    let sent = (hub.sent(&file(1)), hub.sent(&file(2)), hub.sent(&file(3)));
    assert_eq!(sent, (head, head, header + whole), "the third is fetched whole, and once");
    let plain = sandbox.run(&["apply", "hub/org/m", "-o", "plain", "--max-shard-size", "1050KB"]);
    assert_eq!(plain.code, 0);
    assert_eq!(files(&sandbox, "out"), files(&sandbox, "plain"));
}

/// Interrupts a conversion as soon as an answer has been made to wait; nothing is left behind.
fn ends_at_once(waits: impl Fn(&Answer) -> bool + Send + Sync + 'static) {
    let sandbox = sandbox();
    sandbox.write("hub/org/m/vocabulary.txt", [b'v'; 40_000]);
    let waiting = Arc::new(AtomicBool::new(false));
    let reached = Arc::clone(&waiting);
    let hub = Hub::breaking(sandbox.path("hub"), move |answer| {
        if !waits(answer) {
            return Fault::None;
        }
        reached.store(true, Ordering::Release);
        Fault::Silent(60_000)
    });
    std::fs::create_dir(sandbox.path("made")).unwrap();
    let mut command = command(&sandbox, &hub, &["apply", "hf://org/m", "-o", "made/out"]);
    let mut child = command.env("REGRAFT_TIMEOUT", "60").stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !waiting.load(Ordering::Acquire) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never waits");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let asked = Instant::now();
    let code = child.wait().unwrap().code();
    // Far less than it would have waited.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(files(&sandbox, "made"), BTreeMap::new());
}

#[test]
fn an_interrupt_ends_a_wait_for_tensors_at_once() {
    ends_at_once(|answer| answer.number > 3);
}

#[test]
fn an_interrupt_ends_a_wait_for_what_lies_beside_at_once() {
    ends_at_once(|answer| answer.file == "vocabulary.txt");
    // Its beginning has come, and the rest doesn't.
    let times = AtomicUsize::new(0);
    ends_at_once(move |answer| {
        answer.file == "vocabulary.txt" && times.fetch_add(1, Ordering::Relaxed) == 1
    });
}

#[test]
fn the_hubs_own_cache_is_read_and_enough_without_a_connection() {
    let sandbox = sandbox();
    let expected = expected(&sandbox);
    let kept = format!("hf/hub/models--org--m/snapshots/{COMMIT}");
    for (name, bytes) in files(&sandbox, "hub/org/m") {
        sandbox.write(&format!("{kept}/{}", name.to_str().unwrap()), bytes);
    }
    sandbox.write("hf/hub/models--org--m/refs/main", COMMIT);
    let hub = Hub::new(sandbox.path("hub"));
    let online = run(&sandbox, &hub, &["apply", "hf://org/m", "-o", "online"]);
    assert_eq!(online.code, 0, "{}", online.err);
    assert_eq!(hub.log().len(), 1, "which commit it is: {:?}", hub.log());
    hub.clear();
    let offline = ["apply", "hf://org/m", "-o", "offline"];
    let made = ran(command(&sandbox, &hub, &offline).env("HF_HUB_OFFLINE", "1"));
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(hub.log().is_empty());
    assert!(files(&sandbox, "online") == expected && files(&sandbox, "offline") == expected);
    let other =
        ran(command(&sandbox, &hub, &["plan", "hf://org/other"]).env("HF_HUB_OFFLINE", "1"));
    assert!(other.code == 3 && other.err.contains("HF_HUB_OFFLINE"), "{}", other.err);
    assert!(hub.log().is_empty());
}
