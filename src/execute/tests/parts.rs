//! Random parts of random sources, in several processes, write what one process that has all does.

use std::sync::atomic::AtomicBool;

use super::random::{Choices, Random};
use crate::error::ErrorKind;
use crate::execute::{Outline, SourceBox, WriteOptions};
use crate::store::{OpenOptions, Store, open};
use crate::tensor::Shape;

/// Cuts a box in two at random, so many times, and deals the pieces out.
fn deal(
    choices: &mut Choices,
    shape: &[u64],
    processes: usize,
) -> Vec<(usize, Vec<u64>, Vec<u64>)> {
    let mut boxes = vec![(vec![0; shape.len()], shape.to_vec())];
    for _ in 0..choices.below(4) {
        let at = choices.below(boxes.len());
        let (start, shape): (Vec<u64>, Vec<u64>) = boxes[at].clone();
        let Some(dim) =
            (0..shape.len()).filter(|dim| shape[*dim] > 1).max_by_key(|dim| shape[*dim])
        else {
            continue;
        };
        let cut = 1 + choices.below(usize::try_from(shape[dim] - 1).unwrap()) as u64;
        let (mut first, mut second, mut next) = (shape.clone(), shape.clone(), start.clone());
        (first[dim], second[dim], next[dim]) = (cut, shape[dim] - cut, start[dim] + cut);
        boxes[at] = (start, first);
        boxes.push((next, second));
    }
    boxes.into_iter().map(|(start, shape)| (choices.below(processes), start, shape)).collect()
}

/// Writes parts, and compares each target with the whole. Gives whether that could be done.
pub(super) fn parts_agree(random: &Random, choices: &mut Choices, whole: &[Vec<u8>]) -> bool {
    let Random { plan, store } = random;
    let processes = 1 + choices.below(3);
    let sources: Vec<_> =
        store.iter().map(|(key, view)| (key, view.info().clone(), view.to_vec())).collect();
    let mut held: Vec<Vec<SourceBox<'_>>> = vec![Vec::new(); processes];
    for (key, info, bytes) in &sources {
        let strides = info.shape.contiguous_strides();
        let bits = u64::from(info.dtype.bits());
        let dealt = match bits < 8 {
            true => {
                vec![(choices.below(processes), vec![0; info.shape.len()], info.shape.to_vec())]
            }
            false => deal(choices, &info.shape, processes),
        };
        for (process, start, shape) in dealt {
            let first: u64 = start.iter().zip(&strides).map(|(at, step)| at * step).sum();
            let steps = shape.iter().zip(&strides).map(|(n, step)| n.saturating_sub(1) * step);
            let end = (first + steps.sum::<u64>() + 1) * bits;
            let bytes = match shape.contains(&0) {
                true => &[][..],
                false => {
                    let end = usize::try_from(end.div_ceil(8)).unwrap();
                    &bytes[usize::try_from(first * bits / 8).unwrap()..end]
                }
            };
            let (start, shape, strides) = (start.into(), shape.into(), Shape::from(&strides[..]));
            held[process].push(SourceBox { key: key.to_string(), start, shape, bytes, strides });
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let options = WriteOptions { sync: false, ..WriteOptions::default() };
    let outline = Outline::new(plan, store.header(), &out, &options).unwrap();
    let begun = outline.begin(plan, store.header(), &out, &options).unwrap();
    let mut written = 0;
    for (process, parts) in held.iter().enumerate() {
        let place = begun.place();
        match outline.write(plan, store.header(), parts, process == 0, place, None) {
            Ok(report) => written += report.bytes_written,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.key().is_some() && processes > 1, "{error}");
                return false;
            }
        }
    }
    assert_eq!(written, outline.bytes());
    if choices.below(8) == 0 {
        let cancelled = begun.finish(&outline, Some(&AtomicBool::new(true))).unwrap_err();
        assert_eq!(cancelled.kind(), ErrorKind::Interrupted);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        return true;
    }
    begun.finish(&outline, None).unwrap();
    let opened = open(&out, &OpenOptions::default()).unwrap();
    for (target, expected) in plan.targets.iter().zip(whole) {
        let mut bytes = vec![0; expected.len()];
        opened.read_at(&target.key, 0, &mut bytes).unwrap();
        assert_eq!(bytes, *expected, "{}", target.key);
    }
    true
}
