//! The layout algebra: which elements go where, as strided boxes, with no tensor in between.
//!
//! A tensor is described by [`Piece`]s. A piece is a box of steps (`dims`); each of its [`Course`]s
//! says which element a step is at: the target course counts in the tensor's *row-major linear
//! index*, so a reshape changes nothing, and each operand course counts in the elements of a source.
//! All courses of a piece share its dims, so whatever cuts a dim cuts every course alike.
//!
//! The other index maps need the target course in the coordinates of a shape. [`refine`] cuts pieces
//! until every step stays inside one dimension of that shape, without carry; then moving a
//! dimension is a change of strides ([`Axes::moved`]) and slicing one is [`clip`].
//!
//! Invariants: no dim of a piece has one step or none; the courses of a piece have as many strides as
//! it has dims; the pieces of a tensor write each of its elements once.

use smallvec::{SmallVec, smallvec};

use crate::tensor::Shape;

/// More pieces than this are not kept: the node is evaluated into a temporary tensor instead.
pub(in crate::execute) const MAX_PIECES: usize = 1 << 18;

/// A number for each dim of a piece. Nearly all pieces have one or two, and there is at least a
/// piece for each tensor.
pub(in crate::execute) type Steps = SmallVec<[u64; 2]>;

/// An affine map from the steps of a piece to elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::execute) struct Course {
    /// The element of the first step.
    pub(in crate::execute) offset: u64,
    /// How many elements one step of each dim goes.
    pub(in crate::execute) strides: Steps,
}

/// Which course of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execute) enum Which {
    Target,
    Operand(usize),
}

/// A box of steps. `T` says what to do with the operands' elements.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::execute) struct Piece<T> {
    pub(in crate::execute) dims: Steps,
    pub(in crate::execute) target: Course,
    pub(in crate::execute) operands: SmallVec<[Course; 1]>,
    pub(in crate::execute) value: T,
}

impl<T: Clone + PartialEq> Piece<T> {
    /// All of a tensor of `numel` elements, in order.
    pub(in crate::execute) fn whole(numel: u64, operands: usize, value: T) -> Self {
        let (dims, strides): (Steps, Steps) =
            if numel > 1 { (smallvec![numel], smallvec![1]) } else { Default::default() };
        let course = Course { offset: 0, strides };
        Self { dims, target: course.clone(), operands: smallvec![course; operands], value }
    }

    /// How many elements it writes.
    pub(in crate::execute) fn volume(&self) -> u64 {
        self.dims.iter().product()
    }

    /// One past the last element of the target that it writes.
    pub(in crate::execute) fn end(&self) -> u64 {
        self.target.offset
            + 1
            + self
                .dims
                .iter()
                .zip(&self.target.strides)
                .map(|(n, stride)| (n - 1) * stride)
                .sum::<u64>()
    }

    /// Whether it is one stretch, the same on all sides.
    pub(in crate::execute) fn is_run(&self) -> bool {
        self.dims.len() <= 1
            && self.courses().all(|course| course.strides.iter().all(|stride| *stride == 1))
    }

    pub(in crate::execute) fn course(&self, which: Which) -> &Course {
        match which {
            Which::Target => &self.target,
            Which::Operand(i) => &self.operands[i],
        }
    }

    fn courses_mut(&mut self) -> impl Iterator<Item = &mut Course> {
        std::iter::once(&mut self.target).chain(&mut self.operands)
    }

    fn courses(&self) -> impl Iterator<Item = &Course> {
        std::iter::once(&self.target).chain(&self.operands)
    }

    /// The steps `start..start+len` of dim `k`; a dim of one step goes away.
    pub(in crate::execute) fn slice(&self, k: usize, start: u64, len: u64) -> Self {
        let mut piece = self.clone();
        piece.dims[k] = len;
        for course in piece.courses_mut() {
            course.offset += start * course.strides[k];
        }
        if len == 1 {
            piece.remove_dim(k);
        }
        piece
    }

    fn remove_dim(&mut self, k: usize) {
        self.dims.remove(k);
        for course in self.courses_mut() {
            course.strides.remove(k);
        }
    }

    /// Dim `k`, whose length is a multiple of `inner`, as two.
    fn split(&self, k: usize, inner: u64) -> Self {
        let mut piece = self.clone();
        let outer = piece.dims[k] / inner;
        piece.dims[k] = outer;
        piece.dims.insert(k + 1, inner);
        for course in piece.courses_mut() {
            let stride = course.strides[k];
            course.strides[k] = stride * inner;
            course.strides.insert(k + 1, stride);
        }
        if inner == 1 {
            piece.remove_dim(k + 1);
        }
        if outer == 1 {
            piece.remove_dim(k);
        }
        piece
    }

    /// Adds an innermost dim, with its stride in each course, the target's first.
    pub(in crate::execute) fn push_dim(&mut self, len: u64, strides: &[u64]) {
        self.dims.push(len);
        for (course, stride) in self.courses_mut().zip(strides) {
            course.strides.push(*stride);
        }
    }

    /// Puts dims in the order of the target and joins those that every course steps through as one.
    pub(in crate::execute) fn coalesce(&mut self) {
        let mut order: Vec<usize> = (0..self.dims.len()).collect();
        order.sort_by_key(|k| std::cmp::Reverse(self.target.strides[*k]));
        self.dims = order.iter().map(|k| self.dims[*k]).collect();
        for course in self.courses_mut() {
            course.strides = order.iter().map(|k| course.strides[*k]).collect();
        }
        let mut k = 1;
        while k < self.dims.len() {
            let inner = self.dims[k];
            if self
                .courses()
                .all(|course| course.strides[k].checked_mul(inner) == Some(course.strides[k - 1]))
            {
                self.dims[k] *= self.dims[k - 1];
                self.remove_dim(k - 1);
            } else {
                k += 1;
            }
        }
    }

    /// This piece continued by the next one, if the two are one box.
    fn joined(&self, next: &Self) -> Option<Self> {
        if self.value != next.value || self.operands.len() != next.operands.len() {
            return None;
        }
        let distance: Vec<u64> = self
            .courses()
            .zip(next.courses())
            .map(|(a, b)| b.offset.checked_sub(a.offset))
            .collect::<Option<_>>()?;
        let same_but = |longer: &Self, k: usize, shorter: &Self| {
            let rest = |values: &[u64]| -> Steps {
                values.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, v)| *v).collect()
            };
            rest(&longer.dims) == shorter.dims
                && longer
                    .courses()
                    .zip(shorter.courses())
                    .all(|(a, b)| rest(&a.strides) == b.strides)
        };
        let steps = |piece: &Self, k: usize| {
            piece
                .courses()
                .zip(&distance)
                .all(|(l, by)| l.strides[k].checked_mul(piece.dims[k]) == Some(*by))
        };
        let mut joined = self.clone();
        if self.dims.len() == next.dims.len() {
            let (a, b): (Vec<_>, Vec<_>) = (
                self.courses().map(|l| &l.strides).collect(),
                next.courses().map(|l| &l.strides).collect(),
            );
            if a != b {
                return None;
            }
            if self.dims == next.dims {
                // Two of a kind: one more dim, outermost.
                joined.dims.insert(0, 2);
                for (course, by) in joined.courses_mut().zip(&distance) {
                    course.strides.insert(0, *by);
                }
                return Some(joined);
            }
            let differing: Vec<usize> =
                (0..self.dims.len()).filter(|k| self.dims[*k] != next.dims[*k]).collect();
            let [k] = differing[..] else { return None };
            if !steps(self, k) {
                return None;
            }
            joined.dims[k] += next.dims[k];
            return Some(joined);
        }
        if self.dims.len() == next.dims.len() + 1 {
            let k = (0..self.dims.len()).find(|k| same_but(self, *k, next) && steps(self, *k))?;
            joined.dims[k] += 1;
            return Some(joined);
        }
        None
    }
}

/// Coalesces, orders and joins the pieces of a tensor. The fewer and longer they are, the larger
/// are the copies.
pub(in crate::execute) fn tidy<T: Clone + PartialEq>(pieces: &mut Vec<Piece<T>>) {
    for piece in pieces.iter_mut() {
        piece.coalesce();
    }
    pieces.sort_by_key(|piece| piece.target.offset);
    let mut done: Vec<Piece<T>> = Vec::with_capacity(pieces.len());
    for piece in pieces.drain(..) {
        done.push(piece);
        while let [.., a, b] = &done[..] {
            let Some(mut joined) = a.joined(b) else { break };
            joined.coalesce();
            done.truncate(done.len() - 2);
            done.push(joined);
        }
    }
    *pieces = done;
}

/// The dimensions of a shape as distances in its row-major linear index.
#[derive(Clone, Debug)]
pub(in crate::execute) struct Axes {
    sizes: Vec<u64>,
    strides: Vec<u64>,
}

impl Axes {
    /// Of a shape without empty dimensions.
    pub(in crate::execute) fn new(sizes: &[u64]) -> Self {
        Self { sizes: sizes.to_vec(), strides: Shape::from(sizes).contiguous_strides() }
    }

    /// How far one step along each axis goes.
    pub(in crate::execute) fn strides(&self) -> &[u64] {
        &self.strides
    }

    /// Which axis a step of `stride` (not 0) goes along.
    pub(in crate::execute) fn owner(&self, stride: u64) -> Option<usize> {
        self.strides.iter().position(|axis| stride.is_multiple_of(*axis))
    }

    /// A linear index as coordinates.
    pub(in crate::execute) fn coordinates(&self, index: u64) -> impl Iterator<Item = u64> {
        self.strides.iter().zip(&self.sizes).map(move |(stride, size)| index / stride % size)
    }

    /// A refined course when its axes get other strides, and its coordinates are moved by `shift`
    /// (added) first.
    pub(in crate::execute) fn moved(
        &self,
        course: &Course,
        strides: &[u64],
        shift: impl Fn(usize, u64) -> u64,
    ) -> Course {
        let offset = self
            .coordinates(course.offset)
            .enumerate()
            .map(|(axis, at)| shift(axis, at) * strides[axis])
            .sum();
        let step = |stride: &u64| match self.owner(*stride) {
            Some(axis) if *stride != 0 => stride / self.strides[axis] * strides[axis],
            _ => 0,
        };
        Course { offset, strides: course.strides.iter().map(step).collect() }
    }
}

/// Cuts a piece until no step of a course carries from one axis into another. `None` if that takes
/// too many pieces.
pub(in crate::execute) fn refine<T: Clone + PartialEq>(
    piece: Piece<T>,
    which: Which,
    axes: &Axes,
    out: &mut Vec<Piece<T>>,
    limit: usize,
) -> Option<()> {
    let mut work = vec![(piece, 0usize)];
    while let Some((piece, level)) = work.pop() {
        if out.len() + work.len() > limit {
            return None;
        }
        let Some(&boundary) = axes.strides.get(level) else {
            out.push(piece);
            continue;
        };
        // Steps that are no multiple of the boundary move below it; together they must not reach
        // it.
        let course = piece.course(which);
        let base = course.offset % boundary;
        let mut extent = u128::from(base);
        let mut widest: Option<usize> = None;
        for (k, stride) in course.strides.iter().enumerate() {
            if !stride.is_multiple_of(boundary) {
                extent += u128::from(piece.dims[k] - 1) * u128::from(*stride);
                if widest.is_none_or(|w| course.strides[w] < *stride) {
                    widest = Some(k);
                }
            }
        }
        let Some(k) = widest.filter(|_| extent >= u128::from(boundary)) else {
            work.push((piece, level + 1));
            continue;
        };
        let (steps, stride) = (piece.dims[k], course.strides[k]);
        // What the other dims below the boundary span.
        let rest =
            u64::try_from(extent - u128::from(base) - u128::from(steps - 1) * u128::from(stride))
                .ok()?;
        let period = boundary / gcd(stride, boundary);
        if steps > period && base < stride {
            // The pattern of carries repeats: one dim counts the periods, on the boundary.
            let whole = steps / period * period;
            if whole < steps {
                work.push((piece.slice(k, whole, steps - whole), level));
            }
            work.push((piece.slice(k, 0, whole).split(k, period), level));
            continue;
        }
        let fitting = match base.checked_add(rest) {
            Some(first) if first < boundary => ((boundary - 1 - first) / stride + 1).min(steps),
            _ => 0,
        };
        // No step fits: the first one straddles the boundary by its other dims, which are cut next.
        let head = fitting.max(1);
        if head < steps {
            work.push((piece.slice(k, head, steps - head), level));
        }
        work.push((piece.slice(k, 0, head), level));
    }
    Some(())
}

/// A stretch of coordinates along one axis.
#[derive(Clone, Copy, Debug)]
pub(in crate::execute) struct Cut {
    /// Distance of neighbours along the axis.
    pub(in crate::execute) stride: u64,
    /// Length of the axis.
    pub(in crate::execute) size: u64,
    /// The coordinates that stay.
    pub(in crate::execute) range: (u64, u64),
}

impl Cut {
    /// Along an axis of a shape.
    pub(in crate::execute) fn along(axes: &Axes, axis: usize, range: (u64, u64)) -> Self {
        Self { stride: axes.strides[axis], size: axes.sizes[axis], range }
    }

    /// A stretch of the linear index itself.
    pub(in crate::execute) fn linear(numel: u64, range: (u64, u64)) -> Self {
        Self { stride: 1, size: numel, range }
    }
}

/// Keeps the steps of a refined piece whose coordinate along an axis lies in a range. `None` if
/// that takes too many pieces.
pub(in crate::execute) fn clip<T: Clone + PartialEq>(
    piece: Piece<T>,
    which: Which,
    cut: Cut,
    out: &mut Vec<Piece<T>>,
    limit: usize,
) -> Option<()> {
    let (low, high) = cut.range;
    let outer = u128::from(cut.stride) * u128::from(cut.size);
    let mut work = vec![piece];
    while let Some(piece) = work.pop() {
        if out.len() + work.len() > limit {
            return None;
        }
        let course = piece.course(which);
        let base = course.offset / cut.stride % cut.size;
        let mut span = 0u64;
        let mut widest: Option<usize> = None;
        for (k, stride) in course.strides.iter().enumerate() {
            if stride.is_multiple_of(cut.stride) && !u128::from(*stride).is_multiple_of(outer) {
                span += (piece.dims[k] - 1) * (stride / cut.stride);
                if widest.is_none_or(|w| course.strides[w] < *stride) {
                    widest = Some(k);
                }
            }
        }
        if base >= low && base + span < high {
            out.push(piece);
            continue;
        }
        let Some(k) = widest.filter(|_| base < high && base + span >= low) else { continue };
        let (steps, step) = (piece.dims[k], course.strides[k] / cut.stride);
        let rest = span - (steps - 1) * step;
        // Steps `touching` have coordinates in the range; those `inside` have no other.
        let touching = (
            low.saturating_sub(base + rest).div_ceil(step),
            high.saturating_sub(base).div_ceil(step).min(steps),
        );
        let inside = (
            low.saturating_sub(base).div_ceil(step),
            high.saturating_sub(base + rest).div_ceil(step).min(steps),
        );
        let inside = if inside.0 < inside.1 { inside } else { (touching.1, touching.1) };
        if inside.0 < inside.1 {
            out.push(piece.slice(k, inside.0, inside.1 - inside.0));
        }
        for step in (touching.0..inside.0).chain(inside.1.max(touching.0)..touching.1) {
            work.push(piece.slice(k, step, 1));
        }
    }
    Some(())
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
