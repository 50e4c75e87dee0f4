//! Random boxes of random targets, at random strides, are the same boxes of the whole.

use super::random::{Choices, Random};
use crate::error::Result;
use crate::execute::Destination;
use crate::execute::boxes::read_within;
use crate::plan::TargetBox;
use crate::store::{Boxes, Files, Hints, Identity, Range, StateDict, Storages, Store};
use crate::tensor::{Header, TensorInfo};

/// A store that likes to be read otherwise.
struct Hinted<'a>(&'a StateDict, Hints);

impl Store for Hinted<'_> {
    fn header(&self) -> &Header {
        self.0.header()
    }
    fn boxes(&self, key: &str) -> Result<Boxes> {
        self.0.boxes(key)
    }
    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        self.0.read(ranges)
    }
    fn hints(&self) -> Hints {
        self.1
    }
    fn identity(&self) -> Option<Identity> {
        None
    }
    fn unchanged(&self) -> Result<()> {
        Ok(())
    }
    fn storages(&self) -> Option<&dyn Storages> {
        None
    }
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

/// What lies between elements, and has to stay.
const BETWEEN: u8 = 0xA5;

/// The indices of a box, in row-major order.
fn indices(shape: &[u64]) -> Vec<Vec<u64>> {
    shape.iter().fold(vec![vec![]], |before, n| {
        let longer = |at: Vec<u64>| (0..*n).map(move |i| [&at[..], &[i]].concat());
        before.into_iter().flat_map(longer).collect()
    })
}

fn place(at: &[u64], strides: &[u64]) -> usize {
    usize::try_from(at.iter().zip(strides).map(|(at, stride)| at * stride).sum::<u64>()).unwrap()
}

/// Strides in any order of dimensions, with room between.
fn strides(choices: &mut Choices, shape: &[u64]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..shape.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, choices.below(i + 1));
    }
    let (mut strides, mut span) = (vec![0; shape.len()], 1);
    for dim in order {
        strides[dim] = span + choices.below(3) as u64;
        span += (shape[dim].max(1) - 1) * strides[dim];
    }
    (strides, span)
}

/// Reads boxes of each target, all at once, and compares each with that of the whole.
pub(super) fn boxes_agree(random: &Random, choices: &mut Choices, whole: &[Vec<u8>], limit: usize) {
    let Random { plan, store } = random;
    let mut asked = Vec::new();
    for (number, target) in plan.targets.iter().enumerate() {
        let info = plan.info(target);
        for _ in 0..1 + choices.below(2) {
            let (mut start, mut shape) = (vec![], vec![]);
            for size in info.shape.iter() {
                let from = choices.below(usize::try_from(size + 1).unwrap()) as u64;
                start.push(from);
                shape.push(choices.below(usize::try_from(size - from + 1).unwrap()) as u64);
            }
            let strided = choices.below(2) == 0;
            let (strides, span) = match strided {
                true => strides(choices, &shape),
                false => {
                    let info = TensorInfo::new(info.dtype, shape.clone());
                    (info.shape.contiguous_strides(), info.numel().unwrap())
                }
            };
            let len = usize::try_from(span * u64::from(info.dtype.bits()) / 8).unwrap();
            let part = TargetBox::new(target.key.clone(), start, shape);
            asked.push((
                number,
                part,
                strided.then_some(strides.clone()),
                strides,
                vec![BETWEEN; len],
            ));
        }
    }
    let mut wanted: Vec<Destination<'_>> = asked
        .iter_mut()
        .map(|(_, part, given, _, buffer)| Destination {
            part: part.clone(),
            buffer,
            strides: given.clone(),
        })
        .collect();
    let hints = Hints::new([0, 6, 4096][choices.below(3)], choices.below(3));
    let budget = [1, 16, 300, 1 << 20][choices.below(4)];
    read_within(plan, &Hinted(store, hints), &mut wanted, (budget, limit), None).unwrap();
    for (number, part, _, strides, buffer) in &asked {
        let info = plan.info(&plan.targets[*number]);
        let size = usize::try_from(info.dtype.bits() / 8).unwrap();
        let along = info.shape.contiguous_strides();
        let mut expected = vec![BETWEEN; buffer.len()];
        for at in indices(&part.shape) {
            let from: Vec<u64> = at.iter().zip(part.start.iter()).map(|(a, b)| a + b).collect();
            let (from, to) = (place(&from, &along) * size, place(&at, strides) * size);
            expected[to..to + size].copy_from_slice(&whole[*number][from..from + size]);
        }
        assert_eq!(*buffer, expected, "{part:?} of {info}, strides {strides:?}, budget {budget}");
    }
}
