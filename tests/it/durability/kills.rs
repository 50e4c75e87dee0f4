//! SIGKILL at random moments: half of them by the clock, the others when a run has come so far, so
//! that every phase is met.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Place, Random, contents, kill_after, kill_when};

/// The journal of a change in place, from the place it is in.
const JOURNAL: &str = "source/.regraft-journal";

/// How often each kind of run is killed; `scripts/kill_runs.sh` asks for more.
fn kills() -> u64 {
    std::env::var("REGRAFT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// How long a run takes, in microseconds.
fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap()
}

/// How often runs were killed in each of their phases.
#[derive(Default)]
struct Phases(BTreeMap<&'static str, u64>);

impl Phases {
    fn count(&mut self, phase: &'static str) {
        *self.0.entry(phase).or_default() += 1;
    }

    /// Says what was met; many kills have to meet all of these.
    fn told(&self, what: &str, all: &[&str]) {
        eprintln!("{what}: {:?}", self.0);
        let missed: Vec<_> = all.iter().filter(|phase| !self.0.contains_key(**phase)).collect();
        assert!(
            kills() < 100 || missed.is_empty(),
            "{what}: no kill met {missed:?}, only {:?}",
            self.0
        );
    }
}

/// How far a run has come by what lies in its hidden directory: files that are recorded as
/// finished, of so many.
fn finished(place: &Place) -> Option<usize> {
    let hidden = place.hidden().into_iter().find(|name| place.path(name).join("run").exists())?;
    // It may go away while it is looked at.
    let entries = place.path(&hidden).read_dir().ok()?;
    Some(
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".done"))
            .count(),
    )
}

/// Where a run puts its output: one file, or a directory of shards.
struct Output<'p> {
    place: &'p Place,
    name: String,
    is_file: bool,
}

impl<'p> Output<'p> {
    fn new(place: &'p Place, stem: &str, is_file: bool) -> Self {
        let name = if is_file { format!("{stem}.safetensors") } else { stem.to_owned() };
        Output { place, name, is_file }
    }

    /// The files and their bytes, if there is an output.
    fn content(&self) -> Option<BTreeMap<String, Vec<u8>>> {
        let path = self.place.path(&self.name);
        if self.is_file {
            std::fs::read(path).ok().map(|bytes| BTreeMap::from([(String::new(), bytes)]))
        } else {
            contents(&path)
        }
    }

    fn remove(&self) {
        let path = self.place.path(&self.name);
        let removed =
            if self.is_file { std::fs::remove_file(path) } else { std::fs::remove_dir_all(path) };
        removed.unwrap();
    }
}

/// Kills a run when a random one of its files is finished, and a little later; says whether it was
/// killed before its end.
fn kill_after_a_file(run: Command, place: &Place, shards: usize, random: &mut Random) -> bool {
    let count = usize::try_from(random.below(shards as u64 + 1)).unwrap();
    let delay = Duration::from_micros(random.below(500));
    let mut since = None;
    kill_when(run, |elapsed| {
        if since.is_none() && finished(place).is_some_and(|found| found >= count) {
            since = Some(elapsed);
        }
        since.is_some_and(|since| elapsed >= since + delay)
    })
}

/// What a run did when it was killed, by what it left.
fn phase(place: &Place, killed: bool, visible: bool, shards: usize) -> &'static str {
    match finished(place) {
        _ if !killed => "after its end",
        // What is hidden goes after the output has appeared.
        _ if visible => "after the rename",
        None if place.hidden().is_empty() => "before anything is written",
        None => "before it says what it does",
        Some(0) => "in the first files",
        Some(done) if done < shards => "between files",
        Some(_) => "before the rename",
    }
}

/// Kills runs of one kind, half of them at random moments and half after a random one of their
/// files is finished; each is continued or done again, half of those that are continued are killed
/// once more before.
fn killed(
    rules: &str,
    more: &[&str],
    place: &Place,
    times: u64,
    random: &mut Random,
    phases: &mut Phases,
) {
    let source = contents(&place.path("source")).unwrap();
    let is_file = more.contains(&"single");
    let more: Vec<&str> = more.iter().copied().filter(|word| *word != "single").collect();
    let whole = Output::new(place, "whole", is_file);
    let out = Output::new(place, "out", is_file);
    let arguments =
        |out| [&["apply", "source", "--rules", rules, "-o", out, "--quiet"], &more[..]].concat();
    let start = Instant::now();
    place.run(&arguments(&whole.name));
    let took = micros(start);
    let expected = whole.content().unwrap();
    let shards = expected.keys().filter(|name| is_file || name.ends_with(".safetensors")).count();
    let check = || {
        let found = out.content();
        assert!(
            found.is_none() || found.as_ref() == Some(&expected),
            "{rules}: half an output is visible"
        );
        assert!(contents(&place.path("source")).unwrap() == source, "{rules}: the source changed");
        found.is_some()
    };
    for time in 0..times {
        let run = place.regraft(&arguments(&out.name));
        let killed = if time % 2 == 0 {
            kill_after(run, Duration::from_micros(random.below(took + took / 8)))
        } else {
            kill_after_a_file(run, place, shards, random)
        };
        let visible = check();
        phases.count(phase(place, killed, visible, shards));
        if !visible {
            // Either way of going on gives the same bytes, and takes away what the killed run left.
            let mut again = arguments(&out.name);
            if random.below(2) == 0 {
                again.push("--resume");
                phases.count("continued");
                if random.below(2) == 0
                    && kill_after(place.regraft(&again), Duration::from_micros(random.below(took)))
                {
                    phases.count("killed again");
                }
            }
            if !check() {
                place.run(&again);
            }
            assert!(check());
        }
        // A run killed before it had written down what it does leaves a directory with nothing in
        // it that could be taken for anything; one killed between the rename and its end leaves
        // what it did, without output.
        for left in place.hidden() {
            let path = place.path(&left);
            assert!(
                visible || !path.join("run").exists() || !path.join(&out.name).exists(),
                "{left} is left"
            );
            std::fs::remove_dir_all(path).unwrap();
        }
        out.remove();
    }
    whole.remove();
}

#[test]
fn a_killed_run_leaves_no_output_or_a_whole_one_and_can_be_continued() {
    let mut random = Random(7);
    let mut phases = Phases::default();
    let place = Place::new(6, 1024);
    let shards = ["--max-shard-size", "1100000"];
    let kinds: [(&str, &[&str]); 4] = [
        ("rename.graft", &shards),
        ("turn.graft", &shards),
        ("pack.graft", &["--max-shard-size", "2200000", "--checksums"]),
        ("turn.graft", &["single"]),
    ];
    for (rules, more) in kinds {
        killed(rules, more, &place, kills() / 5, &mut random, &mut phases);
    }
    // Small files, many of them.
    killed(
        "rename.graft",
        &["--max-shard-size", "5000"],
        &Place::new(40, 64),
        kills() - kills() / 5 * 4,
        &mut random,
        &mut phases,
    );
    phases.told(
        "apply, killed",
        &["in the first files", "between files", "before the rename", "continued", "killed again"],
    );
    assert!(phases.0.contains_key("continued"), "no run was killed in time");
}

/// The first bytes of a shard, which a change of its header changes.
fn start_of(path: &Path) -> Vec<u8> {
    let mut start = vec![0; 40];
    std::fs::File::open(path).unwrap().read_exact(&mut start).unwrap();
    start
}

/// What stands in the source, without what a change in place may leave beside its journal.
fn source_files(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let mut found = contents(&place.path("source")).unwrap();
    found.retain(|name, _| {
        !name.starts_with(".regraft-journal-") && !name.starts_with(".regraft-index-")
    });
    found
}

/// Makes the source anew.
fn lay_out(place: &Place, files: &BTreeMap<String, Vec<u8>>) {
    let folder = place.path("source");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Recovers an interrupted change forward or back, at times killed while it does so; says whether
/// it went back.
fn recover(place: &Place, took: u64, random: &mut Random, phases: &mut Phases) -> bool {
    let way = |back: bool| {
        if back {
            &["recover", "source", "--roll-back", "--quiet"][..]
        } else {
            &["recover", "source", "--quiet"]
        }
    };
    let mut settled = None;
    if random.below(2) == 0 {
        let back = random.below(2) == 0;
        if kill_after(place.regraft(way(back)), Duration::from_micros(random.below(took))) {
            phases.count("recovery killed");
        }
        settled = (!place.path(JOURNAL).exists()).then_some(back);
    }
    settled.unwrap_or_else(|| {
        let back = random.below(2) == 0;
        place.run(way(back));
        back
    })
}

/// Kills changes in place of one kind, in each of their phases; half of the recoveries are killed
/// too.
fn killed_in_place(
    rules: &str,
    shards: usize,
    times: u64,
    random: &mut Random,
    phases: &mut Phases,
) {
    let place = Place::new(shards, 64);
    let before = contents(&place.path("source")).unwrap();
    let arguments = ["apply", "source", "--rules", rules, "--in-place", "--quiet"];
    let start = Instant::now();
    let done = place.regraft(&arguments).output().unwrap();
    let took = micros(start);
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("insert room"), "{said}");
        eprintln!("skipped: {rules}, as this filesystem can't insert room");
        return;
    }
    let after = contents(&place.path("source")).unwrap();
    assert!(before != after, "nothing was renamed");
    let longer =
        |name: &String| name.ends_with(".safetensors") && after[name].len() > before[name].len();
    assert_eq!(before.keys().any(longer), rules == "grow.graft");
    let journal = place.path(JOURNAL);
    let last_name = before.keys().rfind(|name| name.ends_with(".safetensors")).unwrap();
    let last = place.path("source").join(last_name);
    let first = &before[last_name][..40];
    for time in 0..times {
        lay_out(&place, &before);
        // At any moment; while there is a journal; when the last header has just been written.
        let (wait, delay) = match time % 3 {
            0 => (None, random.below(took + took / 4)),
            1 => (Some(&journal), random.below(took / 2)),
            _ => (Some(&last), random.below(1000)),
        };
        let mut since = wait.is_none().then_some(Duration::ZERO);
        let killed = kill_when(place.regraft(&arguments), |elapsed| {
            let come =
                |path: &PathBuf| path.exists() && (*path == journal || start_of(path) != first);
            if since.is_none() && wait.is_some_and(come) {
                since = Some(elapsed);
            }
            since.is_some_and(|since| elapsed >= since + Duration::from_micros(delay))
        });
        let mut now = source_files(&place);
        let interrupted = now.remove(".regraft-journal").is_some();
        let changed = now.iter().filter(|(name, bytes)| before[*name] != **bytes).count();
        let left = now.iter().filter(|(name, bytes)| after[*name] != **bytes).count();
        phases.count(match (interrupted, changed, left) {
            _ if !killed => "after its end",
            (false, 0, _) => "before the journal",
            (false, ..) => "after the journal",
            (true, 0, _) => "before any header",
            (true, _, 0) => "before the journal goes",
            (true, ..) => "between headers",
        });
        if !interrupted {
            assert!(
                changed == 0 || left == 0,
                "without a journal the files are as before or as after"
            );
            continue;
        }
        let refused = place.regraft(&["inspect", "source"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("regraft recover"));
        let back = recover(&place, took, random, phases);
        let settled = if back { &before } else { &after };
        assert!(source_files(&place) == *settled, "recovery left something between");
    }
}

#[test]
fn a_killed_change_in_place_is_recovered_either_way() {
    let mut random = Random(11);
    let mut phases = Phases::default();
    for (rules, shards) in [("rename.graft", 12), ("grow.graft", 6), ("rename.graft", 60)] {
        killed_in_place(rules, shards, kills() / 3 + 1, &mut random, &mut phases);
    }
    phases.told(
        "in place, killed",
        &["before any header", "between headers", "before the journal goes", "recovery killed"],
    );
    assert!(phases.0.contains_key("between headers"), "no run was killed midway");
}
