//! SIGKILL at random moments: half of them by the clock, the others when a run has come so far, so
//! that every phase is met.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Place, Random, contents, kill_after, kill_when};

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
    let file = more.contains(&"single");
    let more: Vec<&str> = more.iter().copied().filter(|word| *word != "single").collect();
    let name = |stem: &str| if file { format!("{stem}.safetensors") } else { stem.to_owned() };
    let (whole, out) = (name("whole"), name("out"));
    let arguments =
        |out| [&["apply", "source", "--rules", rules, "-o", out, "--quiet"], &more[..]].concat();
    let content = |name: &str| {
        let path = place.path(name);
        if file {
            std::fs::read(path).ok().map(|bytes| BTreeMap::from([(String::new(), bytes)]))
        } else {
            contents(&path)
        }
    };
    let remove = |name: &str| {
        if file {
            std::fs::remove_file(place.path(name))
        } else {
            std::fs::remove_dir_all(place.path(name))
        }
        .unwrap()
    };
    let start = Instant::now();
    place.run(&arguments(&whole));
    let took = micros(start);
    let expected = content(&whole).unwrap();
    let shards = expected.keys().filter(|name| file || name.ends_with(".safetensors")).count();
    let check = || {
        let found = content(&out);
        assert!(
            found.is_none() || found.as_ref() == Some(&expected),
            "{rules}: half an output is visible"
        );
        assert!(contents(&place.path("source")).unwrap() == source, "{rules}: the source changed");
        found.is_some()
    };
    for time in 0..times {
        let run = place.regraft(&arguments(&out));
        let killed = if time % 2 == 0 {
            let delay = Duration::from_micros(random.below(took + took / 8));
            kill_after(run, delay)
        } else {
            let (count, delay) = (
                usize::try_from(random.below(shards as u64 + 1)).unwrap(),
                Duration::from_micros(random.below(500)),
            );
            let mut since = None;
            kill_when(run, |elapsed| {
                if since.is_none() && finished(place).is_some_and(|found| found >= count) {
                    since = Some(elapsed);
                }
                since.is_some_and(|since| elapsed >= since + delay)
            })
        };
        let visible = check();
        phases.count(match finished(place) {
            _ if !killed => "after its end",
            // What is hidden goes after the output has appeared.
            _ if visible => "after the rename",
            None if place.hidden().is_empty() => "before anything is written",
            None => "before it says what it does",
            Some(0) => "in the first files",
            Some(done) if done < shards => "between files",
            Some(_) => "before the rename",
        });
        if !visible {
            // Either way of going on gives the same bytes, and takes away what the killed run left.
            let mut again = arguments(&out);
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
                visible || !path.join("run").exists() || !path.join(&out).exists(),
                "{left} is left"
            );
            std::fs::remove_dir_all(path).unwrap();
        }
        remove(&out);
    }
    remove(&whole);
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
    let journal = place.path("source/.regraft-journal");
    let last = place
        .path("source")
        .join(before.keys().rfind(|name| name.ends_with(".safetensors")).unwrap());
    let start_of = |path: &Path| {
        let mut start = vec![0; 40];
        std::fs::File::open(path).unwrap().read_exact(&mut start).unwrap();
        start
    };
    let first = before[last.file_name().unwrap().to_str().unwrap()][..40].to_vec();
    let found = || {
        let mut found = contents(&place.path("source")).unwrap();
        found.retain(|name, _| {
            !name.starts_with(".regraft-journal-") && !name.starts_with(".regraft-index-")
        });
        found
    };
    for time in 0..times {
        std::fs::remove_dir_all(place.path("source")).unwrap();
        std::fs::create_dir(place.path("source")).unwrap();
        for (name, bytes) in &before {
            std::fs::write(place.path("source").join(name), bytes).unwrap();
        }
        // At any moment; while there is a journal; when the last header has just been written.
        let (wait, delay) = match time % 3 {
            0 => (None, random.below(took + took / 4)),
            1 => (Some(&journal), random.below(took / 2)),
            _ => (Some(&last), random.below(1000)),
        };
        let mut since = wait.is_none().then_some(Duration::ZERO);
        let killed = kill_when(place.regraft(&arguments), |elapsed| {
            if since.is_none()
                && wait.is_some_and(|path| {
                    path.exists() && (*path == journal || start_of(path) != first)
                })
            {
                since = Some(elapsed);
            }
            since.is_some_and(|since| elapsed >= since + Duration::from_micros(delay))
        });
        let mut now = found();
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
            settled = (!journal.exists()).then_some(back);
        }
        let back = settled.unwrap_or_else(|| random.below(2) == 0);
        if settled.is_none() {
            place.run(way(back));
        }
        assert!(
            found() == if back { before.clone() } else { after.clone() },
            "recovery left something between"
        );
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
