//! Two tensors of one shape, element by element: pieces of one are cut where those of the other
//! end, and take its operands along.
//!
//! A piece of the other tensor is followed if it fills a box of the shape: scales that were
//! expanded do, whichever dimensions they are for, and so do parts that were joined.

use std::sync::Arc;

use super::{Compiler, Expr, Leaf, Value, whole_leaf};
use smallvec::smallvec;

use crate::execute::fuse::layout::{Axes, Course, Cut, Piece, Which, clip, refine};
use crate::plan::{Arithmetic, NodeId};
use crate::tensor::{Dtype, TensorInfo};

/// A piece as a box of a shape.
struct Region<'p> {
    piece: &'p Piece<Value>,
    /// From where to where along each dimension.
    ranges: Vec<(u64, u64)>,
    /// The steps of the piece, in the order of the shape.
    steps: Axes,
    /// How far each of those goes in each operand.
    strides: Vec<Vec<u64>>,
}

/// What a pair of tensors becomes.
pub(super) struct Pair<'a> {
    pub(super) with: Arithmetic,
    pub(super) infos: [&'a TensorInfo; 2],
    pub(super) to: Dtype,
}

impl Compiler<'_> {
    /// Both tensors, computed with.
    pub(super) fn pair(
        &self,
        nodes: [NodeId; 2],
        [a, b]: [&[Piece<Value>]; 2],
        pair: &Pair<'_>,
    ) -> Option<Vec<Piece<Value>>> {
        let axes = Axes::new(&pair.infos[0].shape);
        let (first, second) = (self.refined(a, &axes)?, self.refined(b, &axes)?);
        if let Some(regions) = regions(&second, &axes) {
            return self.met(&first, &regions, &axes, &|x, y| pair.joined(x, y));
        }
        if let Some(regions) = regions(&first, &axes) {
            return self.met(&second, &regions, &axes, &|y, x| pair.joined_from(x, y));
        }
        let whole = self.refined(&[whole_leaf(nodes[1], pair.infos[1])], &axes)?;
        let regions = regions(&whole, &axes)?;
        self.met(&first, &regions, &axes, &|x, y| pair.joined(x, y))
    }

    fn refined(&self, pieces: &[Piece<Value>], axes: &Axes) -> Option<Vec<Piece<Value>>> {
        let mut refined = Vec::new();
        for piece in pieces {
            refine(piece.clone(), Which::Target, axes, &mut refined, self.limit)?;
        }
        refined.sort_by_key(|piece| piece.target.offset);
        Some(refined)
    }

    /// Pieces, cut by regions, with the operands of both.
    fn met(
        &self,
        pieces: &[Piece<Value>],
        regions: &[Region<'_>],
        axes: &Axes,
        value: &dyn Fn(&Value, &Value) -> Value,
    ) -> Option<Vec<Piece<Value>>> {
        // Up to where the pieces before reach, so that few are looked at for each region.
        let mut reach = 0;
        let reaches: Vec<u64> = pieces
            .iter()
            .map(|piece| {
                reach = piece.end().max(reach);
                reach
            })
            .collect();
        let mut out = Vec::new();
        for region in regions {
            let (start, end) = (region.piece.target.offset, region.piece.end());
            let first = reaches.partition_point(|reach| *reach <= start);
            let near = pieces.get(first..)?.iter().take_while(|piece| piece.target.offset < end);
            for piece in near.filter(|piece| piece.end() > start) {
                self.within(piece, region, axes, &mut out, value)?;
            }
        }
        Some(out)
    }

    /// What of a piece lies in a region.
    fn within(
        &self,
        piece: &Piece<Value>,
        region: &Region<'_>,
        axes: &Axes,
        out: &mut Vec<Piece<Value>>,
        value: &dyn Fn(&Value, &Value) -> Value,
    ) -> Option<()> {
        let mut inside = vec![piece.clone()];
        for (axis, range) in region.ranges.iter().enumerate() {
            let mut clipped = Vec::new();
            for piece in inside {
                let cut = Cut::along(axes, axis, *range);
                clip(piece, Which::Target, cut, &mut clipped, self.limit)?;
            }
            inside = clipped;
        }
        let sizes: Vec<u64> = region.ranges.iter().map(|(from, to)| to - from).collect();
        let own = Axes::new(&sizes);
        for mut piece in inside {
            let shift = |axis: usize, at: u64| at - region.ranges[axis].0;
            // Counted in the region first, row by row; then in the operands of the other.
            let course = axes.moved(&piece.target, own.strides(), shift);
            let at = piece.operands.len();
            piece.operands.push(course);
            let start = out.len();
            refine(piece, Which::Operand(at), &region.steps, out, self.limit)?;
            for piece in &mut out[start..] {
                let course = piece.operands.pop()?;
                for (operand, strides) in region.piece.operands.iter().zip(&region.strides) {
                    let mut moved = region.steps.moved(&course, strides, |_, at| at);
                    moved.offset += operand.offset;
                    piece.operands.push(moved);
                }
                piece.value = value(&piece.value, &region.piece.value);
            }
        }
        Some(())
    }

    /// Dimensions of one element, repeated.
    pub(super) fn expand(
        &self,
        input: &[Piece<Value>],
        from: &[u64],
        to: &[u64],
    ) -> Option<Vec<Piece<Value>>> {
        let axes = Axes::new(from);
        let result = Axes::new(to);
        let mut out = self.refined(input, &axes)?;
        for piece in &mut out {
            piece.target = axes.moved(&piece.target, result.strides(), |_, at| at);
            let steps = from.iter().zip(to).zip(result.strides());
            for ((_, len), stride) in steps.filter(|((from, to), _)| **from == 1 && **to > 1) {
                let mut strides = vec![0; piece.operands.len() + 1];
                strides[0] = *stride;
                piece.push_dim(*len, &strides);
            }
        }
        Some(out)
    }

    /// Each element as so many codes, which a leaf of `codes` counts.
    pub(super) fn unpack(
        &self,
        input: &[Piece<Value>],
        count: u64,
        codes: Dtype,
    ) -> Option<Vec<Piece<Value>>> {
        let mut out = input.to_vec();
        let expr = Arc::new(Expr::codes());
        for piece in &mut out {
            for course in [&mut piece.target, &mut piece.operands[0]] {
                course.offset = course.offset.checked_mul(count)?;
                for stride in &mut course.strides {
                    *stride = stride.checked_mul(count)?;
                }
            }
            if count > 1 {
                piece.push_dim(count, &[1, 1]);
            }
            piece.value.leaves[0].dtype = codes;
            piece.value.expr = expr.clone();
        }
        Some(out)
    }

    /// Elements of a list, which is one more operand that is held whole.
    pub(super) fn lookup(
        &self,
        codes: &[Piece<Value>],
        from: Dtype,
        list: (NodeId, &TensorInfo),
    ) -> Vec<Piece<Value>> {
        let leaf = whole_leaf(list.0, list.1).value.leaves;
        let mut out = codes.to_vec();
        for piece in &mut out {
            let list_at = piece.value.leaves.len();
            piece.value.leaves.extend(leaf.iter().copied());
            piece.operands.push(Course { offset: 0, strides: smallvec![0; piece.dims.len()] });
            let codes = Box::new(piece.value.expr.as_ref().clone());
            let to = list.1.dtype;
            piece.value.expr = Arc::new(Expr::Lookup { codes, from, list: list_at, to });
        }
        out
    }
}

/// A product of matrices as a piece, whose operands are both held whole: their courses say where the
/// row and the column of an element begin.
pub(super) fn product(
    nodes: [NodeId; 2],
    [a, b]: [&TensorInfo; 2],
    info: &TensorInfo,
) -> Piece<Value> {
    let rank = info.shape.len();
    let (rows, columns) = (a.shape.contiguous_strides(), b.shape.contiguous_strides());
    let along = info.shape.contiguous_strides();
    let dims: Vec<usize> = (0..rank).filter(|dim| info.shape[*dim] > 1).collect();
    let course = |strides: &[u64], not: usize| Course {
        offset: 0,
        strides: dims.iter().map(|dim| if *dim == not { 0 } else { strides[*dim] }).collect(),
    };
    let leaf = |at: usize, of: &TensorInfo| Leaf { node: nodes[at], part: None, dtype: of.dtype };
    let (count, step) = (a.shape[rank - 1], b.shape[rank - 1]);
    let expr = Expr::Product { factors: [0, 1], count, step, to: info.dtype };
    Piece {
        dims: dims.iter().map(|dim| info.shape[*dim]).collect(),
        target: course(&along, rank),
        operands: smallvec![course(&rows, rank - 1), course(&columns, rank - 2)],
        value: Value { leaves: smallvec![leaf(0, a), leaf(1, b)], expr: Arc::new(expr) },
    }
}

impl Pair<'_> {
    /// With the operands of the first before those of the second.
    fn joined(&self, a: &Value, b: &Value) -> Value {
        let (first, second) = (a.expr.as_ref().clone(), b.expr.shifted(a.leaves.len()));
        self.value(a, b, first, second)
    }

    /// With the operands of the second before those of the first.
    fn joined_from(&self, a: &Value, b: &Value) -> Value {
        let (first, second) = (a.expr.shifted(b.leaves.len()), b.expr.as_ref().clone());
        self.value(b, a, first, second)
    }

    fn value(&self, before: &Value, after: &Value, a: Expr, b: Expr) -> Value {
        let leaves = before.leaves.iter().chain(&after.leaves).copied().collect();
        let from = [self.infos[0].dtype, self.infos[1].dtype];
        let inputs = Box::new([a, b]);
        Value {
            leaves,
            expr: Arc::new(Expr::Binary { with: self.with, inputs, from, to: self.to }),
        }
    }
}

/// Refined pieces as boxes; `None` if one of them is none.
fn regions<'p>(pieces: &'p [Piece<Value>], axes: &Axes) -> Option<Vec<Region<'p>>> {
    pieces.iter().map(|piece| region(piece, axes)).collect()
}

fn region<'p>(piece: &'p Piece<Value>, axes: &Axes) -> Option<Region<'p>> {
    let mut along: Vec<Vec<(u64, usize)>> = vec![Vec::new(); axes.strides().len()];
    for (dim, stride) in piece.target.strides.iter().enumerate() {
        let axis = axes.owner(*stride)?;
        along.get_mut(axis)?.push((stride / axes.strides()[axis], dim));
    }
    let (mut ranges, mut order) = (Vec::new(), Vec::new());
    for (steps, start) in along.iter_mut().zip(axes.coordinates(piece.target.offset)) {
        steps.sort_unstable_by_key(|(step, _)| std::cmp::Reverse(*step));
        // Each step goes on where the smaller ones end, so that no element is left out.
        let mut size = 1;
        for (step, dim) in steps.iter().rev() {
            if *step != size {
                return None;
            }
            size = size.checked_mul(piece.dims[*dim])?;
        }
        ranges.push((start, start + size));
        order.extend(steps.iter().map(|(_, dim)| *dim));
    }
    let steps = Axes::new(&order.iter().map(|dim| piece.dims[*dim]).collect::<Vec<_>>());
    let strides = piece.operands.iter();
    let strides = strides.map(|course| order.iter().map(|dim| course.strides[*dim]).collect());
    Some(Region { piece, ranges, steps, strides: strides.collect() })
}
